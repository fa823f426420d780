//! Small named values of this installation.

use clawgate_shared::clock;
use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

const SELECT: &str = "SELECT value FROM settings WHERE name = $1";
const INSERT: &str = "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
const UPSERT: &str = "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";

/// A value by name.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, name: &str) -> Result<Option<String>, StoreError> {
    sqlx::query(SELECT).bind(name).fetch_optional(conn).await?.map(|row| row.text("value")).transpose()
}

/// Sets a value that may not exist yet; false when it does.
///
/// # Errors
/// As the statement.
pub async fn insert(conn: &mut AnyConnection, name: &str, value: &str) -> Result<bool, StoreError> {
    let done = sqlx::query(INSERT).bind(name).bind(value).bind(clock::now_micros()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a value.
///
/// # Errors
/// As the statement.
pub async fn set(conn: &mut AnyConnection, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(UPSERT).bind(name).bind(value).bind(clock::now_micros()).execute(conn).await?;
    Ok(())
}
