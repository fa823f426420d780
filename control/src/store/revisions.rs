//! The config counter: every committed change that nodes must see moves it.

use clawgate_shared::clock;
use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

/// Where the configuration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Bumped when a database is restored from a backup.
    pub generation: u64,
    /// Bumped by every config write.
    pub revision: u64,
}

const SELECT: &str = "SELECT generation, revision FROM config_revision WHERE id = 1";
const BUMP: &str = "UPDATE config_revision SET revision = revision + 1, updated_at = $1 WHERE id = 1 \
    RETURNING generation, revision";
// The time, so that the same backup put back twice does not repeat itself.
const NEXT_GENERATION: &str = "UPDATE config_revision SET updated_at = $1, \
    generation = CASE WHEN generation < $2 THEN $2 ELSE generation + 1 END WHERE id = 1 RETURNING generation, revision";

/// The revision as of this statement.
///
/// # Errors
/// As the statement.
pub async fn current(conn: &mut AnyConnection) -> Result<Revision, StoreError> {
    read(&sqlx::query(SELECT).fetch_one(conn).await?)
}

/// Moves the counter; its row lock makes revisions commit in order.
///
/// # Errors
/// As the statement.
pub async fn bump(conn: &mut AnyConnection) -> Result<Revision, StoreError> {
    read(&sqlx::query(BUMP).bind(clock::now_micros()).fetch_one(conn).await?)
}

/// Called once after a restore, so that no node takes an old revision for a
/// newer one it has seen.
///
/// # Errors
/// As the statement.
pub async fn next_generation(conn: &mut AnyConnection) -> Result<Revision, StoreError> {
    let now = clock::now_micros();
    read(&sqlx::query(NEXT_GENERATION).bind(now).bind(now / 1_000_000).fetch_one(conn).await?)
}

fn read(row: &sqlx::any::AnyRow) -> Result<Revision, StoreError> {
    Ok(Revision { generation: row.uint("generation")?, revision: row.uint("revision")? })
}
