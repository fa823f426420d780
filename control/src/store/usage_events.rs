//! Writes usage events. On SQLite by multi-row statements; on PostgreSQL by
//! arrays, one per column, in the text form that the server reads itself
//! (the driver for both engines binds no arrays).

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_dims::Place;
use super::usage_ingest::{Bound, EventRow, Shard, Statements, Values, query};

/// Most rows of one statement on PostgreSQL.
const MAX_ARRAY: usize = 4096;
const PREFIX: &str = "req_";

const COLUMNS: &str = "exchange_id, created_at, received_at, tenant_no, caller_no, dim_id, origin_id, position, \
    endpoint, client_request_id, agent_id, session_id, error_message, input_tokens, cached_input_tokens, \
    cache_write_tokens, output_tokens, reasoning_tokens, total_tokens, reserved_tokens, tried, duration_micros, \
    ttft_micros, cost_micros";
/// Of them, in order, those that hold numbers.
const NUMBERS: [bool; 24] = [
    false, true, true, true, true, true, true, true, false, false, false, false, false, true, true, true, true, true,
    true, true, false, true, true, true,
];
const SELECT_PLACE: &str = "SELECT o.node_id, o.epoch, o.shard, e.position FROM usage_events e \
    JOIN usage_origins o ON o.id = e.origin_id WHERE e.exchange_id = $1";

/// Of SQLite. An error undoes the whole transaction, so that the statement need
/// not be undone by itself: to be able to do that, every page it touches would be
/// copied first (`OR ABORT`, which is what is meant without a word).
static ROWS: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        &format!("INSERT OR FAIL INTO usage_events ({COLUMNS}) VALUES "),
        NUMBERS.len(),
        " ON CONFLICT DO NOTHING",
    )
});
static ARRAYS: LazyLock<Arc<str>> = LazyLock::new(|| {
    let arrays: Vec<String> = (1..)
        .zip(NUMBERS)
        .map(|(n, number)| format!("CAST(${n} AS {}[])", if number { "BIGINT" } else { "TEXT" }))
        .collect();
    let selected = COLUMNS.replacen("exchange_id", "decode(exchange_id, 'hex')", 1);
    Arc::from(format!(
        "INSERT INTO usage_events ({COLUMNS}) SELECT {selected} FROM UNNEST({}) AS u ({COLUMNS}) ON CONFLICT DO NOTHING",
        arrays.join(", ")
    ))
});

/// The 16 bytes of an exchange id; `None`: it is none.
#[must_use]
pub fn id_bytes(exchange_id: &str) -> Option<[u8; 16]> {
    let hex = exchange_id.strip_prefix(PREFIX).filter(|hex| hex.len() == 32 && hex.is_ascii())?;
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The exchange id of 16 bytes.
#[must_use]
pub fn id_text(bytes: &[u8]) -> String {
    bytes.iter().fold(PREFIX.to_owned(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Adds events at their places. Says for each whether it was new: an exchange
/// that has an event already keeps that one.
///
/// # Errors
/// As the database answers; an id that is no exchange's.
pub async fn insert(
    conn: &mut AnyConnection,
    shard: Shard<'_>,
    received_at: i64,
    events: &[EventRow],
    places: &[Place],
) -> Result<Vec<bool>, StoreError> {
    let rows: Vec<Row<'_>> = events
        .iter()
        .zip(places)
        .map(|(event, place)| Row::new(event, place, received_at))
        .collect::<Result<_, _>>()?;
    let mut new = Vec::with_capacity(rows.len());
    if conn.backend_name() == "SQLite" {
        for (sql, run) in ROWS.runs(conn, &rows) {
            let mut values = Values::with_capacity(run.len() * NUMBERS.len());
            for row in run {
                row.push(&mut values)?;
            }
            let inserted = values.of(sql).execute(&mut *conn).await?.rows_affected();
            note(conn, shard, run, inserted, &mut new).await?;
        }
    } else {
        for run in rows.chunks(MAX_ARRAY) {
            let bound = arrays(run).into_iter().fold(query(Arc::clone(&ARRAYS)), Bound::bind);
            let inserted = bound.execute(&mut *conn).await?.rows_affected();
            note(conn, shard, run, inserted, &mut new).await?;
        }
    }
    Ok(new)
}

/// Which of `run` went in.
async fn note(
    conn: &mut AnyConnection,
    shard: Shard<'_>,
    run: &[Row<'_>],
    inserted: u64,
    new: &mut Vec<bool>,
) -> Result<(), StoreError> {
    if usize::try_from(inserted) == Ok(run.len()) {
        new.extend(run.iter().map(|_| true));
        return Ok(());
    }
    for row in run {
        // The stored event of this exchange may be the one at this very place.
        let found = sqlx::query(SELECT_PLACE).bind(row.id.to_vec()).fetch_one(&mut *conn).await?;
        new.push(
            found.text("node_id")? == shard.node_id
                && found.int("epoch")? == shard.epoch
                && found.int("shard")? == shard.shard
                && found.int("position")? == row.event.open.position,
        );
    }
    Ok(())
}

/// An event as it is written.
struct Row<'a> {
    id: [u8; 16],
    event: &'a EventRow,
    place: &'a Place,
    received_at: i64,
}

/// A value of a column.
enum Value<'a> {
    Id(&'a [u8; 16]),
    Number(Option<i64>),
    Text(&'a str),
}

impl<'a> Row<'a> {
    fn new(event: &'a EventRow, place: &'a Place, received_at: i64) -> Result<Self, StoreError> {
        let id = id_bytes(&event.open.exchange_id)
            .ok_or_else(|| StoreError::Internal("an event without an exchange id".to_owned()))?;
        Ok(Self { id, event, place, received_at })
    }

    /// In the order of [`COLUMNS`].
    fn values(&self) -> [Value<'_>; 24] {
        let (event, open, place) = (self.event, &self.event.open, self.place);
        let number = |value: i64| Value::Number(Some(value));
        [
            Value::Id(&self.id),
            number(open.created_at),
            number(self.received_at),
            number(place.dims.tenant),
            number(place.dims.caller),
            number(place.dims.exchange),
            number(place.origin),
            number(open.position),
            Value::Text(&open.endpoint),
            Value::Text(&open.client_request_id),
            Value::Text(&open.agent_id),
            Value::Text(&open.session_id),
            Value::Text(&event.error_message),
            Value::Number(event.input_tokens),
            Value::Number(event.cached_input_tokens),
            Value::Number(event.cache_write_tokens),
            Value::Number(event.output_tokens),
            Value::Number(event.reasoning_tokens),
            Value::Number(event.total_tokens),
            number(open.reserved_tokens),
            Value::Text(&event.tried),
            number(event.duration_micros),
            Value::Number(event.ttft_micros),
            Value::Number(event.cost_micros),
        ]
    }

    fn push(&self, values: &mut Values) -> Result<(), StoreError> {
        for value in self.values() {
            match value {
                Value::Id(id) => values.push(id.as_slice())?,
                Value::Number(number) => values.push(number)?,
                Value::Text("") => values.push(None::<&str>)?,
                Value::Text(text) => values.push(text)?,
            }
        }
        Ok(())
    }
}

/// One array per column, as text.
fn arrays(rows: &[Row<'_>]) -> Vec<String> {
    let mut arrays = vec![String::with_capacity(rows.len() * 12); NUMBERS.len()];
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row.values()) {
            array.push(if array.is_empty() { '{' } else { ',' });
            match value {
                Value::Id(id) => {
                    for byte in id {
                        let _infallible = write!(array, "{byte:02x}");
                    }
                }
                Value::Number(Some(number)) => {
                    let _infallible = write!(array, "{number}");
                }
                Value::Number(None) | Value::Text("") => array.push_str("NULL"),
                Value::Text(text) => quote(array, text),
            }
        }
    }
    for array in &mut arrays {
        array.push('}');
    }
    arrays
}

/// An element of an array in text form.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_ids_are_sixteen_bytes() {
        let id = "req_0123456789abcdef0123456789abcdef";
        let bytes = id_bytes(id).expect("an id");
        assert_eq!((bytes[1], id_text(&bytes).as_str()), (0x23, id));
        for wrong in
            ["", "req_", "req_0123", "0123456789abcdef0123456789abcdef", "req_0123456789abcdef0123456789abcdeg"]
        {
            assert_eq!(id_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn columns_and_their_kinds_agree() {
        let row = EventRow::default();
        let place = Place::default();
        let row = Row { id: [0; 16], event: &row, place: &place, received_at: 0 };
        let kinds = row.values().map(|value| matches!(value, Value::Number(_)));
        assert_eq!((COLUMNS.split(", ").count(), kinds), (NUMBERS.len(), NUMBERS));
        let mut quoted = String::new();
        quote(&mut quoted, r#"a"b\c,{}"#);
        assert_eq!(quoted, r#""a\"b\\c,{}""#);
    }
}
