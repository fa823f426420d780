//! Deletes old events. Their sums stay.

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

const SET_EVENTS_FROM: &str = "UPDATE usage_state SET events_from = $1 WHERE id = 1 AND events_from < $1";
const TENANTS: &str = "SELECT id FROM usage_dims WHERE kind = 'tenant' ORDER BY id";
// By tenant, because that is what the index of time begins with.
const DELETE: &str = "DELETE FROM usage_events WHERE exchange_id IN (SELECT exchange_id FROM usage_events \
    WHERE tenant_no = $1 AND created_at < $2 ORDER BY created_at LIMIT $3)";
// Months go as a whole; what is in none goes one by one.
const DELETE_DEFAULT: &str = "DELETE FROM usage_events_default WHERE exchange_id IN (SELECT exchange_id \
    FROM usage_events_default WHERE tenant_no = $1 AND created_at < $2 ORDER BY created_at LIMIT $3)";

/// Says that events which began before `at` may be gone.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn set_events_from(conn: &mut AnyConnection, at: i64) -> Result<(), StoreError> {
    sqlx::query(SET_EVENTS_FROM).bind(at).execute(conn).await?;
    Ok(())
}

/// The numbers of all tenants that have or had events.
///
/// # Errors
/// See [`set_events_from`].
pub async fn tenants(conn: &mut AnyConnection) -> Result<Vec<i64>, StoreError> {
    sqlx::query(TENANTS).fetch_all(conn).await?.iter().map(|row| row.int("id")).collect()
}

/// Deletes at most `limit` of a tenant's events from before `before`, the
/// oldest first; on PostgreSQL only such as are in no month.
///
/// # Errors
/// See [`set_events_from`].
pub async fn delete(conn: &mut AnyConnection, tenant_no: i64, before: i64, limit: i64) -> Result<u64, StoreError> {
    let sql = if conn.backend_name() == "SQLite" { DELETE } else { DELETE_DEFAULT };
    Ok(sqlx::query(sql).bind(tenant_no).bind(before).bind(limit).execute(conn).await?.rows_affected())
}
