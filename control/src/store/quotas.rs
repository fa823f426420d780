//! Quotas as configured. What is used of them is in `quota_windows` and
//! `quota_leases`.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::dialect;
use super::error::StoreError;
use super::fetch::{self, Statement};
use super::row::{RowExt as _, to_int};
use super::settings;
use super::types::{
    QuotaAction, QuotaMetric, QuotaMode, QuotaOnExceed, QuotaOnOutage, QuotaScope, QuotaSpec, QuotaWindow,
};
use super::usage_ingest::{Statements, query};

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// `quo_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// What kind of thing it limits.
    pub scope: QuotaScope,
    /// Which one.
    pub scope_id: String,
    /// What it says.
    pub spec: QuotaSpec,
    /// Its place in the list it was written in.
    pub ordering: i64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
}

macro_rules! columns {
    () => {
        "id, tenant_id, scope, scope_id, metric, window_kind, limit_amount, model, action, warn_pct, mode, on_exceed, \
         on_outage, ordering, created_at, updated_at"
    };
}

/// Changes whenever the table does.
const VERSION: &str = "quotas.version";

const INSERT: &str = concat!(
    "INSERT INTO quotas (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
);
const UPDATE: &str = "UPDATE quotas SET limit_amount = $2, action = $3, warn_pct = $4, mode = $5, on_exceed = $6, \
    on_outage = $7, ordering = $8, updated_at = $9 WHERE id = $1";
const DELETE: &str = "DELETE FROM quotas WHERE id = $1";
const DELETE_OF: &str = "DELETE FROM quotas WHERE scope = $1 AND scope_id = $2";
const SELECT_OF: &str =
    concat!("SELECT ", columns!(), " FROM quotas WHERE scope = $1 AND scope_id = $2 ORDER BY ordering, id");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM quotas ORDER BY id");
const COUNT_TENANT: &str = "SELECT COUNT(*) AS n FROM quotas WHERE tenant_id = $1";
const SELECT_ZONES: &str =
    "SELECT id, time_zone FROM tenants WHERE EXISTS (SELECT 1 FROM quotas WHERE quotas.tenant_id = tenants.id)";

static SELECT_OF_BOTS: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("SELECT ", columns!(), " FROM quotas WHERE scope = 'bot' AND scope_id IN ("),
        1,
        ") ORDER BY scope_id, ordering, id",
    )
});

fn read(row: &AnyRow) -> Result<QuotaRow, StoreError> {
    let word = |column: &str| row.text(column);
    Ok(QuotaRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        scope: QuotaScope::from_column("scope", &word("scope")?)?,
        scope_id: row.text("scope_id")?,
        spec: QuotaSpec {
            metric: QuotaMetric::from_column("metric", &word("metric")?)?,
            window: QuotaWindow::from_column("window_kind", &word("window_kind")?)?,
            limit: row.uint("limit_amount")?,
            model: Some(row.text("model")?).filter(|model| !model.is_empty()),
            action: QuotaAction::from_column("action", &word("action")?)?,
            warn_pct: u8::try_from(row.int("warn_pct")?).map_err(|_| StoreError::corrupt("warn_pct", "no share"))?,
            mode: QuotaMode::from_column("mode", &word("mode")?)?,
            on_exceed: QuotaOnExceed::from_column("on_exceed", &word("on_exceed")?)?,
            on_outage: QuotaOnOutage::from_column("on_outage", &word("on_outage")?)?,
        },
        ordering: row.int("ordering")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

/// Adds a quota.
///
/// # Errors
/// `Conflict(Other)` when its identity is taken; so as the database answers for
/// all functions here.
pub async fn insert(conn: &mut AnyConnection, row: &QuotaRow) -> Result<(), StoreError> {
    let spec = &row.spec;
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.tenant_id.as_str())
        .bind(row.scope.as_str())
        .bind(row.scope_id.as_str())
        .bind(spec.metric.as_str())
        .bind(spec.window.as_str())
        .bind(to_int(spec.limit))
        .bind(spec.model.as_deref().unwrap_or_default())
        .bind(spec.action.as_str())
        .bind(i64::from(spec.warn_pct))
        .bind(spec.mode.as_str())
        .bind(spec.on_exceed.as_str())
        .bind(spec.on_outage.as_str())
        .bind(row.ordering)
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes what may change of a quota: all but its identity.
///
/// # Errors
/// See [`insert`].
pub async fn update(conn: &mut AnyConnection, row: &QuotaRow) -> Result<bool, StoreError> {
    let spec = &row.spec;
    let statement = sqlx::query(UPDATE)
        .bind(row.id.as_str())
        .bind(to_int(spec.limit))
        .bind(spec.action.as_str())
        .bind(i64::from(spec.warn_pct))
        .bind(spec.mode.as_str())
        .bind(spec.on_exceed.as_str())
        .bind(spec.on_outage.as_str())
        .bind(row.ordering)
        .bind(row.updated_at);
    fetch::changed(conn, statement).await
}

/// Removes a quota. Its windows and leases stay until they are purged.
///
/// # Errors
/// See [`insert`].
pub async fn delete(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(id)).await
}

/// Removes every quota of one thing; how many there were.
///
/// # Errors
/// See [`insert`].
pub async fn delete_of(conn: &mut AnyConnection, scope: QuotaScope, scope_id: &str) -> Result<u64, StoreError> {
    Ok(sqlx::query(DELETE_OF).bind(scope.as_str()).bind(scope_id).execute(conn).await?.rows_affected())
}

/// The quotas of one thing, in their order.
///
/// # Errors
/// See [`insert`].
pub async fn of(conn: &mut AnyConnection, scope: QuotaScope, scope_id: &str) -> Result<Vec<QuotaRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_OF).bind(scope.as_str()).bind(scope_id), read).await
}

/// The quotas of bots, by bot id, each in its order.
///
/// # Errors
/// See [`insert`].
pub async fn of_bots(conn: &mut AnyConnection, ids: &[&str]) -> Result<HashMap<String, Vec<QuotaSpec>>, StoreError> {
    let mut found: HashMap<String, Vec<QuotaSpec>> = HashMap::new();
    for (sql, run) in SELECT_OF_BOTS.runs(conn, ids) {
        let statement: Statement<'_> = run.iter().fold(query(sql), |query, id| query.bind((*id).to_owned()));
        for row in fetch::all(conn, statement, read).await? {
            found.entry(row.scope_id).or_default().push(row.spec);
        }
    }
    Ok(found)
}

/// Every quota of every tenant, by id.
///
/// # Errors
/// See [`insert`].
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<QuotaRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// How many quotas a tenant has.
///
/// # Errors
/// See [`insert`].
pub async fn count(conn: &mut AnyConnection, tenant_id: &str) -> Result<u64, StoreError> {
    fetch::count(conn, sqlx::query(COUNT_TENANT).bind(tenant_id)).await
}

/// Id and time zone of every tenant that has a quota.
///
/// # Errors
/// See [`insert`].
pub async fn zones(conn: &mut AnyConnection) -> Result<Vec<(String, String)>, StoreError> {
    let read = |row: &AnyRow| Ok((row.text("id")?, row.text("time_zone")?));
    fetch::all(conn, sqlx::query(SELECT_ZONES), read).await
}

/// Which state of the table this is.
///
/// # Errors
/// See [`insert`].
pub async fn version(conn: &mut AnyConnection) -> Result<String, StoreError> {
    Ok(settings::get(conn, VERSION).await?.unwrap_or_default())
}

/// [`version`], which stays so until the transaction ends: a writer of quotas
/// waits for it.
///
/// # Errors
/// See [`insert`].
pub async fn hold_version(conn: &mut AnyConnection) -> Result<String, StoreError> {
    let sql = dialect::hold_setting(conn.backend_name() == "SQLite");
    let row = sqlx::query(sql).bind(VERSION).fetch_optional(conn).await?;
    row.map_or(Ok(String::new()), |row| row.text("value"))
}

/// Says that the table changes in this transaction; `version` was never said
/// before. Waits for whoever holds the version: what they have written can be
/// read after this.
///
/// # Errors
/// See [`insert`].
pub async fn set_version(conn: &mut AnyConnection, version: &str) -> Result<(), StoreError> {
    settings::set(conn, VERSION, version).await
}
