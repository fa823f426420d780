//! Names of deleted things, so that history stays readable.

use sqlx::AnyConnection;

use super::error::StoreError;

const INSERT: &str = "INSERT INTO tombstones (id, kind, tenant_id, name, deleted_at) VALUES ($1, $2, $3, $4, $5)";

/// What was deleted.
#[derive(Clone, Copy, Debug)]
pub struct Tombstone<'a> {
    /// Its id, as history names it.
    pub id: &'a str,
    /// `bot`, `project`, `provider_key`, `tenant`.
    pub kind: &'a str,
    /// Owner.
    pub tenant_id: &'a str,
    /// Hostname, slug or label.
    pub name: &'a str,
}

/// Remembers a name.
///
/// # Errors
/// As the statement.
pub async fn insert(conn: &mut AnyConnection, stone: Tombstone<'_>, now: i64) -> Result<(), StoreError> {
    let Tombstone { id, kind, tenant_id, name } = stone;
    sqlx::query(INSERT).bind(id).bind(kind).bind(tenant_id).bind(name).bind(now).execute(conn).await?;
    Ok(())
}
