//! The ways a statement is run: one row, every row, a count, a change, a page.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection};

use super::error::StoreError;
use super::page::{Page, Paged};
use super::row::RowExt as _;

/// A statement with its values bound.
pub(super) type Statement<'q> = Query<'q, Any, AnyArguments>;

/// From a row to a value.
type Read<T> = fn(&AnyRow) -> Result<T, StoreError>;

/// The row there is, if there is one.
pub(super) async fn one<T>(
    conn: &mut AnyConnection,
    statement: Statement<'_>,
    read: Read<T>,
) -> Result<Option<T>, StoreError> {
    statement.fetch_optional(conn).await?.as_ref().map(read).transpose()
}

/// Every row.
pub(super) async fn all<T>(
    conn: &mut AnyConnection,
    statement: Statement<'_>,
    read: Read<T>,
) -> Result<Vec<T>, StoreError> {
    statement.fetch_all(conn).await?.iter().map(read).collect()
}

/// The column `n` of the only row.
pub(super) async fn count(conn: &mut AnyConnection, statement: Statement<'_>) -> Result<u64, StoreError> {
    statement.fetch_one(conn).await?.uint("n")
}

/// Whether exactly one row was written or removed.
pub(super) async fn changed(conn: &mut AnyConnection, statement: Statement<'_>) -> Result<bool, StoreError> {
    Ok(statement.execute(conn).await?.rows_affected() == 1)
}

/// One page by id: `counted` says how many rows all pages have, `rows` lacks only
/// the cursor and the limit, which are bound here, in this order.
pub(super) async fn page<T>(
    conn: &mut AnyConnection,
    page: &Page,
    counted: Statement<'_>,
    rows: Statement<'_>,
    read: Read<T>,
    id: impl Fn(&T) -> &str,
) -> Result<Paged<T>, StoreError> {
    let total = count(conn, counted).await?;
    let rows = all(conn, rows.bind(page.after().to_owned()).bind(page.fetch()), read).await?;
    Ok(page.cut(rows, Some(total), id))
}
