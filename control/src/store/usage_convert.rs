//! Carries events over from the table that step 4 of the schema replaces, and
//! sums them up anew; in the transaction of that step.

use std::collections::BTreeMap;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_dims::{self, Known};
use super::usage_ingest::{EventRow, OpenRow, Shard};
use super::{usage_events, usage_partitions, usage_rollup};
use crate::ingest::rollup;

/// Rows at a time.
const ROWS: i64 = 4096;

const SELECT: &str = "SELECT * FROM usage_events_before WHERE exchange_id > $1 ORDER BY exchange_id LIMIT $2";
const RANGE: &str = "SELECT CAST(COALESCE(MIN(created_at), 0) AS BIGINT) AS first, \
    CAST(COALESCE(MAX(created_at), 0) AS BIGINT) AS last FROM usage_events_before";
const DROP: &str = "DROP TABLE usage_events_before";
/// Shorter than any month, microseconds.
const STEP: i64 = 27 * super::usage_query::DAY;

/// Carries everything over and drops the old table.
///
/// # Errors
/// As the database answers; an old row that cannot be read.
pub(super) async fn run(conn: &mut AnyConnection, now: i64) -> Result<(), StoreError> {
    if conn.backend_name() != "SQLite" {
        let range = sqlx::query(RANGE).fetch_one(&mut *conn).await?;
        let (first, last) = (range.int("first")?, range.int("last")?);
        let first = if first == 0 { now } else { first };
        let mut times: Vec<i64> =
            std::iter::successors(Some(first), |at| Some(at + STEP)).take_while(|at| *at < last).take(240).collect();
        times.extend([last.max(first), now]);
        usage_partitions::ensure_for(conn, &times).await?;
    }
    let known = Known::default();
    let mut after = String::new();
    loop {
        let rows = sqlx::query(SELECT).bind(after.as_str()).bind(ROWS).fetch_all(&mut *conn).await?;
        let Some(last) = rows.last() else { break };
        after = last.text("exchange_id")?;
        let mut shards: BTreeMap<(String, i64, i64, i64), Vec<EventRow>> = BTreeMap::new();
        for row in &rows {
            let place = (row.text("node_id")?, row.int("epoch")?, row.int("shard")?, row.int("received_at")?);
            shards.entry(place).or_default().push(read(row)?);
        }
        for ((node_id, epoch, shard, received_at), events) in &shards {
            let shard = Shard { node_id, epoch: *epoch, shard: *shard };
            let (places, fresh) = usage_dims::places(conn, &known, shard, events).await?;
            usage_events::insert(conn, shard, *received_at, events, &places).await?;
            usage_rollup::add_hours(conn, &rollup::sum(events.iter().zip(&places))).await?;
            known.keep(fresh);
        }
    }
    sqlx::query(DROP).execute(conn).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<EventRow, StoreError> {
    let open = OpenRow {
        exchange_id: row.text("exchange_id")?,
        position: row.int("position")?,
        created_at: row.int("created_at")?,
        tenant_id: row.text("tenant_id")?,
        project_id: row.text("project_id")?,
        bot_id: row.text("bot_id")?,
        vendor: row.text("vendor")?,
        model: row.text("model")?,
        endpoint: row.text("endpoint")?,
        client_request_id: row.text("client_request_id")?,
        provider_key_id: row.text("provider_key_id")?,
        stream: row.flag("stream")?,
        reserved_tokens: row.int("reserved_tokens")?,
        config_version: row.text("config_version")?,
        agent_id: row.text("agent_id")?,
        session_id: row.text("session_id")?,
        ..OpenRow::default()
    };
    Ok(EventRow {
        open,
        labels: row.text("labels")?,
        status_code: row.int("status_code")?,
        outcome: row.text("outcome")?,
        error_code: row.text("error_code")?,
        error_message: row.text("error_message")?,
        input_tokens: row.opt_int("input_tokens")?,
        cached_input_tokens: row.opt_int("cached_input_tokens")?,
        cache_write_tokens: row.opt_int("cache_write_tokens")?,
        output_tokens: row.opt_int("output_tokens")?,
        reasoning_tokens: row.opt_int("reasoning_tokens")?,
        total_tokens: row.opt_int("total_tokens")?,
        usage_source: row.text("usage_source")?,
        tried: row.text("tried")?,
        duration_micros: row.int("duration_micros")?,
        ttft_micros: row.opt_int("ttft_micros")?,
        cost_micros: row.opt_int("cost_micros")?,
        price_ref: row.text("price_ref")?,
        indeterminate: row.flag("indeterminate")?,
        ..EventRow::default()
    })
}
