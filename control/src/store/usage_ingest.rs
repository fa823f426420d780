//! What usage ingest reads and writes beside events and sums: shard cursors and
//! open exchanges; and what an event is.
//!
//! Rows go in by multi-row statements of 1, 2, 4, … 512 rows, so that a
//! connection's statement cache holds all of them. On SQLite their parameters
//! are plain `?`: it searches `$n` names one by one, so that time grew with the
//! square of their number (64 rows at a time were 30 times slower than 8).

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use clawgate_shared::usage::Billing;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Arguments as _, AssertSqlSafe, Encode, Type};

use super::error::StoreError;
use super::row::{RowExt as _, to_json};
use super::types::Charge;
use super::usage_events::id_bytes;

/// Rows of the largest statement; 2^[`CHUNK_BITS`].
const MAX_CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: usize = 9;
/// Open exchanges that are looked at together when leftovers are cleared.
const OLD_OPENS: i64 = 500;

/// One shard of one epoch of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    /// `node_…`
    pub node_id: &'a str,
    /// Goes up with each start of the node.
    pub epoch: i64,
    /// Which of the epoch's logs.
    pub shard: i64,
}

/// How far a shard has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Every lower position is counted.
    pub next_position: i64,
    /// Empty, `closed` or `abandoned`.
    pub ended: String,
    /// The process that wrote last.
    pub instance_id: String,
}

/// An exchange that was sent and has no end yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenRow {
    /// `req_…`
    pub exchange_id: String,
    /// In its shard.
    pub position: i64,
    /// When the request began, unix microseconds.
    pub created_at: i64,
    /// Ids; empty text: none.
    pub tenant_id: String,
    /// Empty: none.
    pub project_id: String,
    /// The caller.
    pub bot_id: String,
    /// Slug.
    pub vendor: String,
    /// As asked for; in an event as served.
    pub model: String,
    /// The route.
    pub endpoint: String,
    /// The client's own `x-request-id`.
    pub client_request_id: String,
    /// Key of the first attempt; in an event of the last one.
    pub provider_key_id: String,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Tokens held from quotas.
    pub reserved_tokens: i64,
    /// Snapshot it was admitted under.
    pub config_version: String,
    /// As the client reported.
    pub agent_id: String,
    /// As the client reported.
    pub session_id: String,
    /// What it holds of quotas, charged if its end is never seen; in an event
    /// nothing.
    pub reserved: Vec<Charge>,
    /// Ids of what it made in the account of its key; not stored here.
    pub made_ids: Vec<String>,
    /// The vendor forgets those by itself.
    pub made_ids_pass: bool,
}

/// One exchange, ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventRow {
    /// What it shares with an open one.
    pub open: OpenRow,
    /// JSON object.
    pub labels: String,
    /// What the client got.
    pub status_code: i64,
    /// One of the closed set of outcomes.
    pub outcome: String,
    /// Our stable code.
    pub error_code: String,
    /// For people.
    pub error_message: String,
    /// Null: the vendor did not say; so for all counts.
    pub input_tokens: Option<i64>,
    /// Part of `input_tokens`.
    pub cached_input_tokens: Option<i64>,
    /// Part of `input_tokens`.
    pub cache_write_tokens: Option<i64>,
    /// All generated.
    pub output_tokens: Option<i64>,
    /// Part of `output_tokens`.
    pub reasoning_tokens: Option<i64>,
    /// All.
    pub total_tokens: Option<i64>,
    /// `upstream`, `estimated` or `none`.
    pub usage_source: String,
    /// JSON array of attempts; empty: none; a number alone: one attempt of so many
    /// milliseconds, with `provider_key_id`, answered `status_code`.
    pub tried: String,
    /// The whole exchange.
    pub duration_micros: i64,
    /// Until the first byte went to the client.
    pub ttft_micros: Option<i64>,
    /// Micro-USD; null: no price known.
    pub cost_micros: Option<i64>,
    /// Which price that is; empty: none.
    pub price_ref: String,
    /// What the price depended on besides the counts; not stored.
    pub billing: Billing,
    /// Nobody saw its end.
    pub indeterminate: bool,
    /// What it uses up of the quotas it was admitted under; not stored here.
    pub charges: Vec<Charge>,
}

const CREATE_CURSOR: &str = "INSERT INTO ingest_cursors \
    (node_id, epoch, shard, next_position, ended, instance_id, lost_records, updated_at) \
    VALUES ($1, $2, $3, $4, '', $5, 0, $6) ON CONFLICT (node_id, epoch, shard) DO NOTHING";
// An update, because it locks the row on both engines.
const LOCK_CURSOR: &str = "UPDATE ingest_cursors SET updated_at = $4 \
    WHERE node_id = $1 AND epoch = $2 AND shard = $3 RETURNING next_position, ended, instance_id";
const MOVE_CURSOR: &str = "UPDATE ingest_cursors SET next_position = $4, ended = $5, instance_id = $6, \
    lost_records = lost_records + $7 WHERE node_id = $1 AND epoch = $2 AND shard = $3";
const NEWEST_EPOCH: &str =
    "SELECT CAST(MAX(epoch) AS BIGINT) AS epoch FROM ingest_cursors WHERE node_id = $1 AND instance_id = $2";
const LAST_OTHER: &str = "SELECT instance_id FROM ingest_cursors WHERE node_id = $1 AND epoch = $2 AND shard <> $3 \
    ORDER BY updated_at DESC LIMIT 1";
const SELECT_OPENS: &str = "SELECT exchange_id, position, created_at, tenant_id, project_id, bot_id, vendor, model, \
    endpoint, client_request_id, provider_key_id, stream, reserved_tokens, config_version, agent_id, session_id, reserved \
    FROM usage_open WHERE node_id = $1 AND epoch = $2 AND shard = $3 ORDER BY position LIMIT $4";
const SELECT_OLD_OPENS: &str =
    "SELECT exchange_id FROM usage_open WHERE created_at < $1 AND exchange_id > $2 ORDER BY exchange_id LIMIT $3";
const SELECT_SOME_OPENS: &str = "SELECT exchange_id FROM usage_open LIMIT $1";
const SELECT_EVENT: &str = "SELECT COUNT(*) AS n FROM usage_events WHERE exchange_id = $1";

static INSERT_OPENS: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        "INSERT INTO usage_open (node_id, epoch, shard, exchange_id, position, created_at, tenant_id, project_id, \
         bot_id, vendor, model, endpoint, client_request_id, provider_key_id, stream, reserved_tokens, \
         config_version, agent_id, session_id, reserved) VALUES ",
        20,
        " ON CONFLICT (exchange_id) DO UPDATE SET position = excluded.position, \
         provider_key_id = excluded.provider_key_id, reserved_tokens = excluded.reserved_tokens, \
         reserved = excluded.reserved WHERE usage_open.node_id = excluded.node_id \
         AND usage_open.epoch = excluded.epoch AND usage_open.shard = excluded.shard \
         AND usage_open.position < excluded.position",
    )
});
static DELETE_OPENS: LazyLock<Statements> =
    LazyLock::new(|| Statements::new("DELETE FROM usage_open WHERE exchange_id IN (", 1, ")"));
/// The same statement for 1, 2, 4, … rows, in both engines' spelling of
/// parameters. `head` and `tail` must have none.
pub(super) struct Statements {
    plain: Vec<Arc<str>>,
    numbered: Vec<Arc<str>>,
}

impl Statements {
    pub(super) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let of_rows = |rows: usize, mark: &dyn Fn(usize) -> String| {
            let row = |row: usize| {
                let marks: Vec<String> = (1..=columns).map(|column| mark(row * columns + column)).collect();
                format!("({})", marks.join(","))
            };
            let rows: Vec<String> = (0..rows).map(row).collect();
            Arc::from(format!("{head}{}{tail}", rows.join(",")))
        };
        let all = |mark: &dyn Fn(usize) -> String| (0..=CHUNK_BITS).map(|bit| of_rows(1 << bit, mark)).collect();
        Self { plain: all(&|_| "?".to_owned()), numbered: all(&|number| format!("${number}")) }
    }

    /// Splits `rows` into runs, largest first, each with its statement for the
    /// engine of `conn`.
    pub(super) fn runs<'s, 'r, T>(
        &'s self,
        conn: &AnyConnection,
        rows: &'r [T],
    ) -> impl Iterator<Item = (Arc<str>, &'r [T])> + use<'s, 'r, T> {
        self.runs_for(conn.backend_name() == "SQLite", rows)
    }

    fn runs_for<'s, 'r, T>(
        &'s self,
        sqlite: bool,
        mut rows: &'r [T],
    ) -> impl Iterator<Item = (Arc<str>, &'r [T])> + use<'s, 'r, T> {
        let statements = if sqlite { &self.plain } else { &self.numbered };
        std::iter::from_fn(move || {
            let bit = rows.len().min(MAX_CHUNK).checked_ilog2()? as usize;
            let (run, rest) = rows.split_at(1 << bit);
            rows = rest;
            Some((Arc::clone(statements.get(bit)?), run))
        })
    }
}

pub(super) type Bound = Query<'static, Any, AnyArguments>;

/// Values of a long statement, collected in place: a query that is bound one by
/// one is moved as often.
pub(super) struct Values(AnyArguments);

impl Values {
    /// Room for `count`.
    pub(super) fn with_capacity(count: usize) -> Self {
        let mut arguments = AnyArguments::default();
        arguments.reserve(count, 0);
        Self(arguments)
    }

    pub(super) fn push<'v>(&mut self, value: impl Encode<'v, Any> + Type<Any>) -> Result<(), StoreError> {
        self.0.add(value).map_err(|error| StoreError::Internal(error.to_string()))
    }

    /// The statement with these values.
    pub(super) fn of(self, sql: Arc<str>) -> Bound {
        // Built from constants and placeholders only.
        sqlx::query_with(AssertSqlSafe(sql), self.0)
    }
}

pub(super) fn query(sql: Arc<str>) -> Bound {
    // Built from constants and placeholders only.
    sqlx::query(AssertSqlSafe(sql))
}

/// Locks the shard's cursor until the transaction ends; a shard seen for the
/// first time starts at `start`, for `instance_id`.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn lock_cursor(
    conn: &mut AnyConnection,
    shard: Shard<'_>,
    start: i64,
    instance_id: &str,
    now: i64,
) -> Result<Cursor, StoreError> {
    sqlx::query(CREATE_CURSOR)
        .bind(shard.node_id)
        .bind(shard.epoch)
        .bind(shard.shard)
        .bind(start)
        .bind(instance_id)
        .bind(now)
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query(LOCK_CURSOR)
        .bind(shard.node_id)
        .bind(shard.epoch)
        .bind(shard.shard)
        .bind(now)
        .fetch_one(conn)
        .await?;
    Ok(Cursor {
        next_position: row.int("next_position")?,
        ended: row.text("ended")?,
        instance_id: row.text("instance_id")?,
    })
}

/// Writes the cursor back and adds to the count of lost records.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn move_cursor(
    conn: &mut AnyConnection,
    shard: Shard<'_>,
    cursor: &Cursor,
    lost: i64,
) -> Result<(), StoreError> {
    sqlx::query(MOVE_CURSOR)
        .bind(shard.node_id)
        .bind(shard.epoch)
        .bind(shard.shard)
        .bind(cursor.next_position)
        .bind(cursor.ended.as_str())
        .bind(cursor.instance_id.as_str())
        .bind(lost)
        .execute(conn)
        .await?;
    Ok(())
}

/// Who wrote last to another shard of the same epoch.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn last_other(conn: &mut AnyConnection, shard: Shard<'_>) -> Result<Option<String>, StoreError> {
    let row =
        sqlx::query(LAST_OTHER).bind(shard.node_id).bind(shard.epoch).bind(shard.shard).fetch_optional(conn).await?;
    row.map(|row| row.text("instance_id")).transpose()
}

/// The newest epoch in which a process of a node was the last writer.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn newest_epoch(
    conn: &mut AnyConnection,
    node_id: &str,
    instance_id: &str,
) -> Result<Option<i64>, StoreError> {
    sqlx::query(NEWEST_EPOCH).bind(node_id).bind(instance_id).fetch_one(conn).await?.opt_int("epoch")
}

/// Adds open exchanges, each once; one that its shard has written again is known
/// as it was written last, and one of another shard stays as it is.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn insert_opens(conn: &mut AnyConnection, shard: Shard<'_>, rows: &[OpenRow]) -> Result<(), StoreError> {
    for (sql, run) in INSERT_OPENS.runs(conn, rows) {
        let mut bound = query(sql);
        for row in run {
            bound = bind_open(bound, shard, row).bind(to_json(&row.reserved)?);
        }
        bound.execute(&mut *conn).await?;
    }
    Ok(())
}

/// The next at most `limit` open exchanges of a shard.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn lone_opens(conn: &mut AnyConnection, shard: Shard<'_>, limit: i64) -> Result<Vec<OpenRow>, StoreError> {
    let rows = sqlx::query(SELECT_OPENS)
        .bind(shard.node_id)
        .bind(shard.epoch)
        .bind(shard.shard)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(OpenRow {
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
                reserved: row.json("reserved")?,
                // They were taken in when it came.
                made_ids: Vec::new(),
                made_ids_pass: false,
            })
        })
        .collect()
}

/// Forgets open exchanges that have ended.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn delete_opens(conn: &mut AnyConnection, exchange_ids: &[&str]) -> Result<(), StoreError> {
    for (sql, run) in DELETE_OPENS.runs(conn, exchange_ids) {
        run.iter().fold(query(sql), |query, id| query.bind((*id).to_owned())).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The same, for exchanges of which few are open: most begin and end in one
/// batch and were never written as open. All that are open are looked at, when
/// they are fewer than those that may be.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn delete_opens_if_any(conn: &mut AnyConnection, exchange_ids: &[&str]) -> Result<(), StoreError> {
    let most = i64::try_from(exchange_ids.len()).unwrap_or(i64::MAX);
    let open = sqlx::query(SELECT_SOME_OPENS).bind(most).fetch_all(&mut *conn).await?;
    if open.len() >= exchange_ids.len() {
        return delete_opens(conn, exchange_ids).await;
    }
    let open = open.iter().map(|row| row.text("exchange_id")).collect::<Result<HashSet<_>, _>>()?;
    let ended: Vec<&str> = exchange_ids.iter().copied().filter(|id| open.contains(*id)).collect();
    delete_opens(conn, &ended).await
}

/// Clean-up: open exchanges from before `before` that have an event after all.
///
/// # Errors
/// See [`lock_cursor`].
pub async fn delete_settled_opens(conn: &mut AnyConnection, before: i64) -> Result<u64, StoreError> {
    let (mut after, mut deleted) = (String::new(), 0);
    loop {
        let rows = sqlx::query(SELECT_OLD_OPENS)
            .bind(before)
            .bind(after.as_str())
            .bind(OLD_OPENS)
            .fetch_all(&mut *conn)
            .await?;
        let ids = rows.iter().map(|row| row.text("exchange_id")).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = ids.last() else { return Ok(deleted) };
        after.clone_from(last);
        let mut settled = Vec::new();
        for id in &ids {
            let Some(bytes) = id_bytes(id) else { continue };
            let found = sqlx::query(SELECT_EVENT).bind(bytes.to_vec()).fetch_one(&mut *conn).await?;
            if found.int("n")? > 0 {
                settled.push(id.as_str());
            }
        }
        delete_opens(conn, &settled).await?;
        deleted += u64::try_from(settled.len()).unwrap_or(0);
    }
}

fn bind_open(query: Bound, shard: Shard<'_>, row: &OpenRow) -> Bound {
    query
        .bind(shard.node_id.to_owned())
        .bind(shard.epoch)
        .bind(shard.shard)
        .bind(row.exchange_id.clone())
        .bind(row.position)
        .bind(row.created_at)
        .bind(row.tenant_id.clone())
        .bind(row.project_id.clone())
        .bind(row.bot_id.clone())
        .bind(row.vendor.clone())
        .bind(row.model.clone())
        .bind(row.endpoint.clone())
        .bind(row.client_request_id.clone())
        .bind(row.provider_key_id.clone())
        .bind(i64::from(row.stream))
        .bind(row.reserved_tokens)
        .bind(row.config_version.clone())
        .bind(row.agent_id.clone())
        .bind(row.session_id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_into_few_statements() {
        let statements = Statements::new("INSERT INTO t (a, b) VALUES ", 2, "");
        let rows = [0u8; 517];
        let runs: Vec<usize> = statements.runs_for(true, &rows).map(|(_, run)| run.len()).collect();
        assert_eq!(runs, [512, 4, 1]);
        for (sqlite, expected) in [(true, "(?,?),(?,?)"), (false, "($1,$2),($3,$4)")] {
            let (sql, _) = statements.runs_for(sqlite, &rows[..2]).next().expect("a run");
            assert_eq!(&*sql, format!("INSERT INTO t (a, b) VALUES {expected}"));
        }
        assert!(statements.runs_for(true, &rows[..0]).next().is_none());
    }
}
