//! The audit log: append only, each row chained to the one before by a hash.
//!
//! The chain shows that a row was changed or taken out, also by someone who can
//! write to the database; it cannot show that its end was cut off together with
//! the head, so operators export the head's hash.

use clawgate_shared::{clock, id};
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::page::{self, Page, Paged};
use super::row::{RowExt as _, to_int};

macro_rules! columns {
    () => {
        "seq, id, tenant_id, actor, action, target_kind, target_id, detail, ip, user_agent, at, prev_hash, hash"
    };
}

const LOCK: &str = "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash";
const MOVE_HEAD: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1";
const SELECT_HEAD: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
const INSERT: &str =
    concat!("INSERT INTO audit_log (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)");
const SELECT_AFTER: &str = concat!("SELECT ", columns!(), " FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2");
const SELECT_PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM audit_log WHERE ($1 = '*' OR COALESCE(tenant_id, '') = $1) AND ($2 = '' OR action = $2) \
     AND ($3 = '' OR target_id = $3) AND seq < $4 ORDER BY seq DESC LIMIT $5"
);
/// Rows per step of [`verify`].
const VERIFY_BATCH: i64 = 500;

/// What happened. `detail` is JSON without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAudit {
    /// `None`: the platform.
    pub tenant_id: Option<String>,
    /// Who: `token:tok_…`, `bootstrap`, `system`.
    pub actor: String,
    /// `bot.create`, `provider_key.rotate`, …
    pub action: String,
    /// `bot`, `provider_key`, …
    pub target_kind: String,
    /// Its id.
    pub target_id: String,
    /// JSON object: names and changed fields, never a secret.
    pub detail: String,
    /// Of the caller; empty: none.
    pub ip: String,
    /// Of the caller; empty: none.
    pub user_agent: String,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Gap-free from 1.
    pub seq: u64,
    /// `aud_…`
    pub id: String,
    /// What happened.
    pub entry: NewAudit,
    /// Unix microseconds.
    pub at: i64,
    /// Of the row before.
    pub prev_hash: Vec<u8>,
    /// Of this row.
    pub hash: Vec<u8>,
}

fn read(row: &AnyRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        seq: row.uint("seq")?,
        id: row.text("id")?,
        entry: NewAudit {
            tenant_id: row.opt_text("tenant_id")?,
            actor: row.text("actor")?,
            action: row.text("action")?,
            target_kind: row.text("target_kind")?,
            target_id: row.text("target_id")?,
            detail: row.text("detail")?,
            ip: row.text("ip")?,
            user_agent: row.text("user_agent")?,
        },
        at: row.int("at")?,
        prev_hash: row.bytes("prev_hash")?,
        hash: row.bytes("hash")?,
    })
}

/// Each field with its length before it, so that no two rows share their bytes.
fn chain_hash(row: &AuditRow) -> Vec<u8> {
    let entry = &row.entry;
    let mut sum = Sha256::new();
    sum.update(b"clawgate/audit/1");
    sum.update(row.seq.to_be_bytes());
    sum.update(row.at.to_be_bytes());
    sum.update([u8::from(entry.tenant_id.is_some())]);
    let texts = [
        row.id.as_str(),
        entry.tenant_id.as_deref().unwrap_or_default(),
        &entry.actor,
        &entry.action,
        &entry.target_kind,
        &entry.target_id,
        &entry.detail,
        &entry.ip,
        &entry.user_agent,
    ];
    for bytes in texts.into_iter().map(str::as_bytes).chain([row.prev_hash.as_slice()]) {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
    sum.finalize().to_vec()
}

/// Takes the lock that every configuration write holds until its commit. First
/// statement of such a transaction: rules then need no thought of others.
///
/// # Errors
/// As the statement.
pub async fn lock(conn: &mut AnyConnection) -> Result<(), StoreError> {
    sqlx::query(LOCK).fetch_one(conn).await?;
    Ok(())
}

/// Appends a row in the caller's transaction.
///
/// # Errors
/// As the statements.
pub async fn append(conn: &mut AnyConnection, entry: NewAudit) -> Result<AuditRow, StoreError> {
    let head = sqlx::query(LOCK).fetch_one(&mut *conn).await?;
    let mut row = AuditRow {
        seq: head.uint("seq")? + 1,
        id: id::new(id::Kind::Audit),
        entry,
        at: clock::now_micros(),
        prev_hash: head.bytes("hash")?,
        hash: Vec::new(),
    };
    row.hash = chain_hash(&row);
    let entry = &row.entry;
    sqlx::query(INSERT)
        .bind(to_int(row.seq))
        .bind(row.id.as_str())
        .bind(entry.tenant_id.clone())
        .bind(entry.actor.as_str())
        .bind(entry.action.as_str())
        .bind(entry.target_kind.as_str())
        .bind(entry.target_id.as_str())
        .bind(entry.detail.as_str())
        .bind(entry.ip.as_str())
        .bind(entry.user_agent.as_str())
        .bind(row.at)
        .bind(row.prev_hash.as_slice())
        .bind(row.hash.as_slice())
        .execute(&mut *conn)
        .await?;
    sqlx::query(MOVE_HEAD).bind(to_int(row.seq)).bind(row.hash.as_slice()).execute(conn).await?;
    Ok(row)
}

/// What a list is narrowed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter<'a> {
    /// `None`: every tenant and the platform.
    pub tenant_id: Option<&'a str>,
    /// One action.
    pub action: Option<&'a str>,
    /// One target.
    pub target_id: Option<&'a str>,
}

/// One page, newest first.
///
/// # Errors
/// `Corrupt` for a cursor that is no number; as the statement.
pub async fn list(
    conn: &mut AnyConnection,
    filter: AuditFilter<'_>,
    page: &Page,
) -> Result<Paged<AuditRow>, StoreError> {
    let before = match page.after() {
        "" => i64::MAX,
        text => text.parse().map_err(|_| StoreError::corrupt("cursor", "not a number"))?,
    };
    let found = sqlx::query(SELECT_PAGE)
        .bind(filter.tenant_id.unwrap_or("*"))
        .bind(filter.action.unwrap_or_default())
        .bind(filter.target_id.unwrap_or_default())
        .bind(before)
        .bind(page.fetch())
        .fetch_all(conn)
        .await?;
    let rows = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut paged = page.cut(rows, None, |row| &row.id);
    paged.next_cursor = paged.rows.last().filter(|_| paged.has_more).map(|row| page::encode(&row.seq.to_string()));
    Ok(paged)
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainReport {
    /// Every row is what was written.
    Intact {
        /// How many.
        rows: u64,
        /// Hex hash of the last one; empty when there is none.
        head: String,
    },
    /// A row is missing or altered.
    Broken {
        /// Its number.
        seq: u64,
    },
}

/// Walks the whole chain.
///
/// # Errors
/// As the statements.
pub async fn verify(conn: &mut AnyConnection) -> Result<ChainReport, StoreError> {
    let (mut seq, mut hash) = (0_u64, Vec::new());
    loop {
        let found = sqlx::query(SELECT_AFTER).bind(to_int(seq)).bind(VERIFY_BATCH).fetch_all(&mut *conn).await?;
        if found.is_empty() {
            break;
        }
        for row in &found {
            let row = read(row)?;
            if row.seq != seq + 1 || row.prev_hash != hash || row.hash != chain_hash(&row) {
                return Ok(ChainReport::Broken { seq: seq + 1 });
            }
            (seq, hash) = (row.seq, row.hash);
        }
    }
    let head = sqlx::query(SELECT_HEAD).fetch_one(conn).await?;
    if head.uint("seq")? != seq || head.bytes("hash")? != hash {
        return Ok(ChainReport::Broken { seq: seq + 1 });
    }
    Ok(ChainReport::Intact { rows: seq, head: hash.iter().map(|byte| format!("{byte:02x}")).collect() })
}
