//! Who made what lives in a vendor's account. Ids are the vendor's; the first
//! maker stays.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;
use super::usage_ingest::{OpenRow, Statements, query};

/// A thing is noted as used when that was last done so long ago; microseconds.
const USED_AGAIN: i64 = 24 * 3600 * 1_000_000;
/// Rows that one purge removes at most: it is one transaction with others.
const PURGED_AT_ONCE: i64 = 20_000;

/// Whose account it is: one tenant's keys of one vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// `ten_…`
    pub tenant_id: &'a str,
    /// Slug.
    pub vendor: &'a str,
}

/// Who made something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// As the vendor named it.
    pub id: String,
    /// `bot_…`
    pub bot_id: String,
    /// `key_…`
    pub provider_key_id: String,
    /// When it was last noted as used; unix microseconds.
    pub used_at: i64,
}

impl Maker {
    /// Whether its use is to be noted again.
    #[must_use]
    pub const fn is_due(&self, now: i64) -> bool {
        now.saturating_sub(self.used_at) >= USED_AGAIN
    }
}

static INSERT: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        "INSERT INTO account_ids (tenant_id, vendor, id, bot_id, provider_key_id, lasting, made_at, used_at) VALUES ",
        8,
        " ON CONFLICT (tenant_id, vendor, id) DO NOTHING",
    )
});
const SELECT: &str = "SELECT id, bot_id, provider_key_id, used_at FROM account_ids \
    WHERE tenant_id = $1 AND vendor = $2 AND id = $3";
const TOUCH: &str =
    "UPDATE account_ids SET used_at = $4 WHERE tenant_id = $1 AND vendor = $2 AND id = $3 AND used_at < $4";
const DELETE_OF_BOT: &str = "DELETE FROM account_ids WHERE bot_id = $1";
const PURGE: &str = "DELETE FROM account_ids WHERE (tenant_id, vendor, id) IN (SELECT tenant_id, vendor, id \
    FROM account_ids WHERE lasting = $1 AND used_at < $2 ORDER BY used_at LIMIT $3)";

fn read(row: &AnyRow) -> Result<Maker, StoreError> {
    Ok(Maker {
        id: row.text("id")?,
        bot_id: row.text("bot_id")?,
        provider_key_id: row.text("provider_key_id")?,
        used_at: row.int("used_at")?,
    })
}

/// Remembers what exchanges made. One that was known keeps its maker.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn insert(conn: &mut AnyConnection, exchanges: &[&OpenRow], now: i64) -> Result<(), StoreError> {
    // In the order of their keys, so that no two writers wait for each other.
    let mut made: HashMap<[&str; 3], &OpenRow> = HashMap::new();
    for exchange in exchanges.iter().filter(|exchange| !exchange.provider_key_id.is_empty()) {
        for id in &exchange.made_ids {
            made.entry([&exchange.tenant_id, &exchange.vendor, id]).or_insert(exchange);
        }
    }
    let mut rows: Vec<_> = made.into_iter().collect();
    rows.sort_unstable_by_key(|(name, _)| *name);
    for (sql, rows) in INSERT.runs(conn, &rows) {
        let mut statement = query(sql);
        for ([tenant_id, vendor, id], exchange) in rows {
            statement = statement
                .bind((*tenant_id).to_owned())
                .bind((*vendor).to_owned())
                .bind((*id).to_owned())
                .bind(exchange.bot_id.clone())
                .bind(exchange.provider_key_id.clone())
                .bind(i64::from(!exchange.made_ids_pass))
                .bind(exchange.created_at)
                .bind(now);
        }
        statement.execute(&mut *conn).await?;
    }
    Ok(())
}

/// Who made each of `ids`, in their order.
pub async fn find(
    conn: &mut AnyConnection,
    place: Place<'_>,
    ids: &[String],
) -> Result<Vec<Option<Maker>>, StoreError> {
    let mut makers = Vec::with_capacity(ids.len());
    for id in ids {
        let statement = sqlx::query(SELECT).bind(place.tenant_id).bind(place.vendor).bind(id.as_str());
        makers.push(fetch::one(conn, statement, read).await?);
    }
    Ok(makers)
}

/// Notes that things are used.
pub async fn touch(conn: &mut AnyConnection, place: Place<'_>, ids: &[&str], now: i64) -> Result<(), StoreError> {
    for id in ids {
        sqlx::query(TOUCH).bind(place.tenant_id).bind(place.vendor).bind(*id).bind(now).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Forgets what a bot made.
pub async fn delete_of_bot(conn: &mut AnyConnection, bot_id: &str) -> Result<(), StoreError> {
    sqlx::query(DELETE_OF_BOT).bind(bot_id).execute(conn).await?;
    Ok(())
}

/// Forgets what was last used before `passing`, of things that vendors forget by
/// themselves, and before `lasting`, of all others. How many went.
pub async fn purge(conn: &mut AnyConnection, passing: i64, lasting: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    for (kind, before) in [(0_i64, passing), (1, lasting)] {
        let done = sqlx::query(PURGE).bind(kind).bind(before).bind(PURGED_AT_ONCE).execute(&mut *conn).await?;
        gone += done.rows_affected();
    }
    Ok(gone)
}
