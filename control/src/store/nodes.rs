//! Nodes: identity, sealed sealing key, and the state they reported last.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;

/// A node that enrolled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRow {
    /// `node_…`
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of its public key; `None`: it came over the Unix socket.
    pub public_key: Option<Vec<u8>>,
    /// Its sealing key, sealed by the vault.
    pub sealed_sealing_key: Vec<u8>,
    /// Unix microseconds; `None` over the Unix socket.
    pub certificate_expires_at: Option<i64>,
    /// Unix microseconds; a revoked node is refused everywhere.
    pub revoked_at: Option<i64>,
    /// Unix microseconds.
    pub created_at: i64,
    /// As last written.
    pub state: NodeState,
}

/// What a node reported last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Its release.
    pub software_version: String,
    /// Random per process.
    pub instance_id: String,
    /// Unix microseconds.
    pub last_seen_at: Option<i64>,
    /// What it serves.
    pub acked: Option<StoredVersion>,
    /// What it refused, unless it acked something since.
    pub nacked: Option<StoredVersion>,
    /// Why.
    pub nack_reason: Option<String>,
    /// Records not yet delivered.
    pub spool_records: i64,
    /// Their size.
    pub spool_bytes: i64,
    /// Age of the oldest of them.
    pub spool_oldest_millis: i64,
    /// Exchanges under way.
    pub inflight: i64,
    /// Since the process started.
    pub requests_total: i64,
}

/// A configuration version as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredVersion {
    /// See the node protocol.
    pub generation: i64,
    /// See the node protocol.
    pub revision: i64,
    /// See the node protocol.
    pub hash: String,
    /// When the node said so, unix microseconds.
    pub at: i64,
}

const SELECT_ONE: &str = "SELECT * FROM nodes WHERE id = $1";
const SELECT_ALL: &str = "SELECT * FROM nodes WHERE revoked_at IS NULL ORDER BY id LIMIT $1";
const REVOKE: &str = "UPDATE nodes SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
const UPSERT: &str = "INSERT INTO nodes (id, name, public_key_sha256, sealed_sealing_key, certificate_expires_at, \
    software_version, instance_id, last_seen_at, spool_records, spool_bytes, spool_oldest_millis, inflight, \
    requests_total, created_at) VALUES ($1, $2, $3, $4, $5, $6, '', $7, 0, 0, 0, 0, 0, $7) \
    ON CONFLICT (id) DO UPDATE SET public_key_sha256 = excluded.public_key_sha256, \
    sealed_sealing_key = excluded.sealed_sealing_key, certificate_expires_at = excluded.certificate_expires_at, \
    software_version = excluded.software_version";
const SAVE_STATE: &str = "UPDATE nodes SET software_version = $2, instance_id = $3, last_seen_at = $4, \
    acked_generation = $5, acked_revision = $6, acked_hash = $7, acked_at = $8, nacked_generation = $9, \
    nacked_revision = $10, nacked_hash = $11, nacked_at = $12, nack_reason = $13, spool_records = $14, \
    spool_bytes = $15, spool_oldest_millis = $16, inflight = $17, requests_total = $18 WHERE id = $1";

/// The node of this id, revoked or not.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn find(conn: &mut AnyConnection, id: &str) -> Result<Option<NodeRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT_ONE).bind(id), from_row).await
}

/// Revokes a node; false when there is none or it was revoked before.
///
/// # Errors
/// See [`find`].
pub async fn revoke(conn: &mut AnyConnection, id: &str, now: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(REVOKE).bind(id).bind(now)).await
}

/// All nodes that are not revoked, at most `limit`.
///
/// # Errors
/// See [`find`].
pub async fn list(conn: &mut AnyConnection, limit: i64) -> Result<Vec<NodeRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL).bind(limit), from_row).await
}

/// Stores identity and keys of a node, new or known; of its state only the
/// software version.
///
/// # Errors
/// See [`find`].
pub async fn save_identity(conn: &mut AnyConnection, node: &NodeRow, now: i64) -> Result<(), StoreError> {
    sqlx::query(UPSERT)
        .bind(node.id.as_str())
        .bind(node.name.as_str())
        .bind(node.public_key.clone())
        .bind(node.sealed_sealing_key.clone())
        .bind(node.certificate_expires_at)
        .bind(node.state.software_version.as_str())
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores what a node reported.
///
/// # Errors
/// See [`find`].
pub async fn save_state(conn: &mut AnyConnection, id: &str, state: &NodeState) -> Result<(), StoreError> {
    let version = |version: &Option<StoredVersion>| {
        let of = version.as_ref();
        (of.map(|v| v.generation), of.map(|v| v.revision), of.map(|v| v.hash.clone()), of.map(|v| v.at))
    };
    let (acked, nacked) = (version(&state.acked), version(&state.nacked));
    sqlx::query(SAVE_STATE)
        .bind(id)
        .bind(state.software_version.as_str())
        .bind(state.instance_id.as_str())
        .bind(state.last_seen_at)
        .bind(acked.0)
        .bind(acked.1)
        .bind(acked.2)
        .bind(acked.3)
        .bind(nacked.0)
        .bind(nacked.1)
        .bind(nacked.2)
        .bind(nacked.3)
        .bind(state.nack_reason.clone())
        .bind(state.spool_records)
        .bind(state.spool_bytes)
        .bind(state.spool_oldest_millis)
        .bind(state.inflight)
        .bind(state.requests_total)
        .execute(conn)
        .await?;
    Ok(())
}

fn from_row(row: &AnyRow) -> Result<NodeRow, StoreError> {
    let version = |of: &str| -> Result<Option<StoredVersion>, StoreError> {
        let Some(revision) = row.opt_int(&format!("{of}_revision"))? else { return Ok(None) };
        Ok(Some(StoredVersion {
            generation: row.opt_int(&format!("{of}_generation"))?.unwrap_or_default(),
            revision,
            hash: row.opt_text(&format!("{of}_hash"))?.unwrap_or_default(),
            at: row.opt_int(&format!("{of}_at"))?.unwrap_or_default(),
        }))
    };
    Ok(NodeRow {
        id: row.text("id")?,
        name: row.text("name")?,
        public_key: row.opt_bytes("public_key_sha256")?,
        sealed_sealing_key: row.bytes("sealed_sealing_key")?,
        certificate_expires_at: row.opt_int("certificate_expires_at")?,
        revoked_at: row.opt_int("revoked_at")?,
        created_at: row.int("created_at")?,
        state: NodeState {
            software_version: row.text("software_version")?,
            instance_id: row.text("instance_id")?,
            last_seen_at: row.opt_int("last_seen_at")?,
            acked: version("acked")?,
            nacked: version("nacked")?,
            nack_reason: row.opt_text("nack_reason")?,
            spool_records: row.int("spool_records")?,
            spool_bytes: row.int("spool_bytes")?,
            spool_oldest_millis: row.int("spool_oldest_millis")?,
            inflight: row.int("inflight")?,
            requests_total: row.int("requests_total")?,
        },
    })
}
