//! Imported prices and those set by hand. Rows are added and ended, never
//! changed.

use std::sync::LazyLock;

use clawgate_shared::pricing::Price;
use serde_json::Value;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;
use super::settings;
use super::types::text_enum;
use super::usage_ingest::{Statements, query};

text_enum!(
    /// Where a stored price comes from.
    PriceSource {
        /// Set by hand.
        Override => "override",
        /// A price file.
        Import => "import",
    }
);

/// A stored price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceRow {
    /// `prc_…`
    pub id: String,
    /// Empty: the platform's.
    pub tenant_id: String,
    /// Where it comes from.
    pub source: PriceSource,
    /// Slug.
    pub vendor: String,
    /// As the vendor calls it.
    pub model: String,
    /// The price.
    pub price: Price,
    /// Unix microseconds, inclusive.
    pub effective_from: i64,
    /// Exclusive; `None`: not ended.
    pub ended_at: Option<i64>,
    /// Who set it.
    pub created_by: String,
    /// Unix microseconds.
    pub created_at: i64,
}

/// Changes whenever the table does.
const VERSION: &str = "prices.version";

const SELECT_ALL: &str = "SELECT id, tenant_id, source, vendor, model, price, effective_from, ended_at, created_by, \
    created_at FROM prices ORDER BY created_at, id";
const SELECT_CURRENT: &str = "SELECT id, tenant_id, source, vendor, model, price, effective_from, ended_at, \
    created_by, created_at FROM prices WHERE tenant_id = $1 AND source = $2 AND ended_at IS NULL \
    ORDER BY vendor, model, effective_from, id";
const END: &str = "UPDATE prices SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";

static INSERT: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        "INSERT INTO prices (id, tenant_id, source, vendor, model, price, effective_from, ended_at, created_by, \
         created_at) VALUES ",
        10,
        "",
    )
});

/// Every row, ended ones too, in the order they were added.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<PriceRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), decode).await
}

/// The rows of one tenant (empty: the platform) and source that were not ended.
///
/// # Errors
/// See [`all`].
pub async fn current(
    conn: &mut AnyConnection,
    tenant_id: &str,
    source: PriceSource,
) -> Result<Vec<PriceRow>, StoreError> {
    let statement = sqlx::query(SELECT_CURRENT).bind(tenant_id.to_owned()).bind(source.as_str());
    fetch::all(conn, statement, decode).await
}

/// Adds rows.
///
/// # Errors
/// See [`all`].
pub async fn insert(conn: &mut AnyConnection, rows: &[PriceRow]) -> Result<(), StoreError> {
    for (sql, run) in INSERT.runs(conn, rows) {
        let bound = run.iter().fold(query(sql), |query, row| {
            query
                .bind(row.id.clone())
                .bind(row.tenant_id.clone())
                .bind(row.source.as_str())
                .bind(row.vendor.clone())
                .bind(row.model.clone())
                .bind(row.price.to_json().to_string())
                .bind(row.effective_from)
                .bind(row.ended_at)
                .bind(row.created_by.clone())
                .bind(row.created_at)
        });
        bound.execute(&mut *conn).await?;
    }
    Ok(())
}

/// Ends a row; false when it was ended already.
///
/// # Errors
/// See [`all`].
pub async fn end(conn: &mut AnyConnection, id: &str, at: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(END).bind(id.to_owned()).bind(at)).await
}

/// Which state of the table this is; empty: it was never written.
///
/// # Errors
/// See [`all`].
pub async fn version(conn: &mut AnyConnection) -> Result<String, StoreError> {
    Ok(settings::get(conn, VERSION).await?.unwrap_or_default())
}

/// Says that the table has changed; `version` was never said before.
///
/// # Errors
/// See [`all`].
pub async fn set_version(conn: &mut AnyConnection, version: &str) -> Result<(), StoreError> {
    settings::set(conn, VERSION, version).await
}

fn decode(row: &AnyRow) -> Result<PriceRow, StoreError> {
    let price: Value = row.json("price")?;
    Ok(PriceRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        source: PriceSource::from_column("source", &row.text("source")?)?,
        vendor: row.text("vendor")?,
        model: row.text("model")?,
        price: Price::from_json(&price).map_err(|_| StoreError::corrupt("price", "not a price"))?,
        effective_from: row.int("effective_from")?,
        ended_at: row.opt_int("ended_at")?,
        created_by: row.text("created_by")?,
        created_at: row.int("created_at")?,
    })
}
