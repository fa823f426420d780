//! Runners: identity, and what they told of their engine last.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::{RowExt as _, to_int, to_json};
use super::types::RunnerState;

/// A runner that enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerRow {
    /// As its certificate names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of its public key; `None`: it came over the Unix socket.
    pub public_key: Option<Vec<u8>>,
    /// Unix microseconds; `None` over the Unix socket.
    pub certificate_expires_at: Option<i64>,
    /// Its release.
    pub software_version: String,
    /// What bots may ask for.
    pub labels: BTreeMap<String, String>,
    /// JSON object: kind, version, architecture and so on.
    pub engine: Value,
    /// Whether it can run anything.
    pub state: RunnerState,
    /// Why not.
    pub state_reason: String,
    /// What bots may take of it together.
    pub capacity: Capacity,
    /// Unix microseconds.
    pub last_seen_at: Option<i64>,
    /// Unix microseconds; a revoked runner is refused everywhere.
    pub revoked_at: Option<i64>,
    /// Unix microseconds.
    pub created_at: i64,
}

/// What bots may take of a runner together; 0: no limit but the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// MiB.
    pub memory_mb: u64,
    /// Bots.
    pub max_bots: u64,
}

const SELECT: &str = "SELECT * FROM runners WHERE id = $1";
const SELECT_ALL: &str = "SELECT * FROM runners WHERE revoked_at IS NULL ORDER BY id LIMIT $1";
const REVOKE: &str = "UPDATE runners SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
const SAVE_IDENTITY: &str = "INSERT INTO runners (id, name, public_key_sha256, certificate_expires_at, \
    software_version, labels, engine, state, state_reason, cpu_millis, memory_mb, max_bots, last_seen_at, created_at) \
    VALUES ($1, '', $2, $3, $4, '{}', '{}', 'unknown', '', 0, 0, 0, $5, $5) ON CONFLICT (id) DO UPDATE SET \
    public_key_sha256 = excluded.public_key_sha256, certificate_expires_at = excluded.certificate_expires_at, \
    software_version = excluded.software_version";
const SAVE_STATE: &str = "UPDATE runners SET name = $2, software_version = $3, labels = $4, engine = $5, state = $6, \
    state_reason = $7, cpu_millis = $8, memory_mb = $9, max_bots = $10, last_seen_at = $11 WHERE id = $1";
const LEFT: &str = "UPDATE runners SET state = 'unknown', state_reason = '' WHERE id = $1";
const SEEN: &str = "UPDATE runners SET last_seen_at = $2 WHERE id = $1";

fn read(row: &AnyRow) -> Result<RunnerRow, StoreError> {
    Ok(RunnerRow {
        id: row.text("id")?,
        name: row.text("name")?,
        public_key: row.opt_bytes("public_key_sha256")?,
        certificate_expires_at: row.opt_int("certificate_expires_at")?,
        software_version: row.text("software_version")?,
        labels: row.json("labels")?,
        engine: row.json("engine")?,
        state: RunnerState::from_column("state", &row.text("state")?)?,
        state_reason: row.text("state_reason")?,
        capacity: Capacity {
            cpu_millis: row.uint("cpu_millis")?,
            memory_mb: row.uint("memory_mb")?,
            max_bots: row.uint("max_bots")?,
        },
        last_seen_at: row.opt_int("last_seen_at")?,
        revoked_at: row.opt_int("revoked_at")?,
        created_at: row.int("created_at")?,
    })
}

/// The runner of this id, revoked or not.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn find(conn: &mut AnyConnection, id: &str) -> Result<Option<RunnerRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(id.to_owned()), read).await
}

/// All runners that are not revoked, at most `limit`.
///
/// # Errors
/// See [`find`].
pub async fn list(conn: &mut AnyConnection, limit: i64) -> Result<Vec<RunnerRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL).bind(limit), read).await
}

/// Stores who a runner is, new or known.
///
/// # Errors
/// See [`find`].
pub async fn save_identity(
    conn: &mut AnyConnection,
    id: &str,
    (public_key, expires_at): (Option<Vec<u8>>, Option<i64>),
    software_version: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(SAVE_IDENTITY)
        .bind(id.to_owned())
        .bind(public_key)
        .bind(expires_at)
        .bind(software_version.to_owned())
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores what a runner told of itself.
///
/// # Errors
/// See [`find`].
pub async fn save_state(conn: &mut AnyConnection, row: &RunnerRow) -> Result<bool, StoreError> {
    let statement = sqlx::query(SAVE_STATE)
        .bind(row.id.clone())
        .bind(row.name.clone())
        .bind(row.software_version.clone())
        .bind(to_json(&row.labels)?)
        .bind(to_json(&row.engine)?)
        .bind(row.state.as_str())
        .bind(row.state_reason.clone())
        .bind(to_int(row.capacity.cpu_millis))
        .bind(to_int(row.capacity.memory_mb))
        .bind(to_int(row.capacity.max_bots))
        .bind(row.last_seen_at);
    fetch::changed(conn, statement).await
}

/// A runner is connected to nobody.
///
/// # Errors
/// See [`find`].
pub async fn left(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(LEFT).bind(id.to_owned())).await
}

/// A runner spoke.
///
/// # Errors
/// See [`find`].
pub async fn seen(conn: &mut AnyConnection, id: &str, now: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(SEEN).bind(id.to_owned()).bind(now)).await
}

/// Revokes a runner; false when there is none or it was revoked before.
///
/// # Errors
/// See [`find`].
pub async fn revoke(conn: &mut AnyConnection, id: &str, now: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(REVOKE).bind(id.to_owned()).bind(now)).await
}
