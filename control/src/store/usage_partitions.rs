//! The months of `usage_events` on PostgreSQL.
//!
//! Invariant: an insert never fails for lack of a month, because what fits none
//! goes into the default partition; adding a month takes its rows from there.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sqlx::AnyConnection;

use super::db::Db;
use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::query;

/// Months that are there before the running one and after it.
const AROUND: (i32, i32) = (2, 2);
const NAMES: &str = "SELECT CAST(c.relname AS TEXT) AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = CAST('usage_events' AS regclass)";
const PREFIX: &str = "usage_events_";

/// One month, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Month {
    first: Date,
}

impl Month {
    fn of(micros: i64) -> Option<Self> {
        let at = Timestamp::from_microsecond(micros).ok()?.to_zoned(TimeZone::UTC);
        Some(Self { first: at.date().first_of_month() })
    }

    fn plus(self, months: i32) -> Option<Self> {
        Some(Self { first: self.first.checked_add(months.months()).ok()? })
    }

    /// `yyyymm`
    fn number(self) -> i64 {
        i64::from(self.first.year()) * 100 + i64::from(self.first.month())
    }

    fn parse(name: &str) -> Option<Self> {
        let number: i16 = name.strip_prefix(PREFIX)?.get(..4)?.parse().ok()?;
        let month: i8 = name.strip_prefix(PREFIX)?.get(4..)?.parse().ok()?;
        Some(Self { first: Date::new(number, month, 1).ok()? })
    }

    fn start(self) -> Option<i64> {
        Some(self.first.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
    }
}

/// Adds the months around `now` that are not there, each in a transaction of
/// its own; which.
///
/// # Errors
/// As the database answers.
pub async fn ensure(db: &Db, now: i64) -> Result<Vec<i64>, StoreError> {
    let mut added = Vec::new();
    let there = names(&mut *db.read().await?).await?;
    for month in (-AROUND.0..=AROUND.1).filter_map(|by| Month::of(now)?.plus(by)) {
        if there.iter().any(|name| Month::parse(name) == Some(month)) {
            continue;
        }
        let mut tx = db.begin().await?;
        add(&mut tx, month).await?;
        tx.commit().await?;
        added.push(month.number());
    }
    Ok(added)
}

/// Within a transaction: the months around each of `times`.
pub(super) async fn ensure_for(conn: &mut AnyConnection, times: &[i64]) -> Result<(), StoreError> {
    for month in times.iter().filter_map(|at| Month::of(*at)) {
        if !names(conn).await?.iter().any(|name| Month::parse(name) == Some(month)) {
            add(conn, month).await?;
        }
    }
    Ok(())
}

/// Drops the months that ended before `before`; which.
///
/// # Errors
/// As the database answers.
pub async fn drop_before(db: &Db, before: i64) -> Result<Vec<i64>, StoreError> {
    let mut dropped = Vec::new();
    for month in names(&mut *db.read().await?).await?.iter().filter_map(|name| Month::parse(name)) {
        if month.plus(1).and_then(Month::start).is_none_or(|end| end > before) {
            continue;
        }
        let mut tx = db.begin().await?;
        query(Arc::from(format!("DROP TABLE IF EXISTS {PREFIX}{}", month.number()))).execute(&mut *tx).await?;
        tx.commit().await?;
        dropped.push(month.number());
    }
    Ok(dropped)
}

async fn names(conn: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    sqlx::query(NAMES).fetch_all(conn).await?.iter().map(|row| row.text("name")).collect()
}

/// Made beside the table, filled with what the default partition has of it, and
/// then attached.
async fn add(conn: &mut AnyConnection, month: Month) -> Result<(), StoreError> {
    let (Some(from), Some(to)) = (month.start(), month.plus(1).and_then(Month::start)) else { return Ok(()) };
    let name = format!("{PREFIX}{}", month.number());
    for sql in [
        "LOCK TABLE usage_events_default IN ACCESS EXCLUSIVE MODE".to_owned(),
        format!("CREATE TABLE {name} (LIKE usage_events INCLUDING ALL)"),
        format!(
            "WITH moved AS (DELETE FROM usage_events_default WHERE created_at >= {from} AND created_at < {to} \
             RETURNING *) INSERT INTO {name} SELECT * FROM moved"
        ),
        format!("ALTER TABLE usage_events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"),
    ] {
        // Made of constants and numbers only.
        query(Arc::from(sql)).execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_found_by_time_and_name() {
        let at = clawgate_shared::clock::parse_rfc3339("2026-12-31T23:59:59Z").expect("time");
        let month = Month::of(at).expect("month");
        assert_eq!((month.number(), month.plus(1).expect("next").number()), (202_612, 202_701));
        assert_eq!(Month::parse("usage_events_202612"), Some(month));
        assert_eq!(month.plus(1).and_then(Month::start), Some(at + 1_000_000));
        for other in ["usage_events_default", "usage_events_2026", "usage_events_202613", "x_202612"] {
            assert_eq!(Month::parse(other), None, "{other}");
        }
    }
}
