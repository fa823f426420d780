//! Every exchange as a file, CSV or one JSON object a line.
//!
//! Rows are read a batch at a time while the client takes them, so that memory
//! does not grow with the file and no connection to the database is held while
//! a slow client reads. A file that cannot be finished breaks off: the client
//! sees an incomplete answer, not a short file.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::logs::LogsFilter;
use super::views::UsageLog;
use crate::http::auth::InTenant;
use crate::http::body::TwoQueries;
use crate::http::problem::{FieldProblem, Problem};
use crate::http::state::App;
use crate::store::usage_log::{self, LogFilter};

/// Rows read at once.
const BATCH: i64 = 500;

/// The columns of the CSV form, named as the fields of a usage row.
const COLUMNS: [&str; 32] = [
    "id",
    "request_id",
    "client_request_id",
    "created_at",
    "bot",
    "project",
    "labels",
    "agent_id",
    "session_id",
    "vendor",
    "model",
    "endpoint",
    "status_code",
    "outcome",
    "error_code",
    "error_message",
    "stream",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
    "usage_source",
    "reserved",
    "provider_key_id",
    "tried",
    "duration_ms",
    "ttft_ms",
    "cost_micros",
    "price_ref",
    "config_version",
];

/// In which form.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExportFormat {
    /// csv (default; text that a spreadsheet would take for a formula gets an
    /// apostrophe in front) or ndjson.
    format: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    NdJson,
}

/// `GET /usage/export`
pub async fn export(
    State(app): State<App>,
    inside: InTenant,
    TwoQueries(filter, query): TwoQueries<LogsFilter, ExportFormat>,
) -> Result<Response, Problem> {
    let (format, kind, name) = match query.format.as_deref().unwrap_or("csv") {
        "csv" => (Format::Csv, "text/csv; charset=utf-8; header=present", "usage.csv"),
        "ndjson" => (Format::NdJson, "application/x-ndjson", "usage.ndjson"),
        _ => {
            let problem = FieldProblem::new("format", "one_of").saying("must be csv or ndjson");
            return Err(Problem::bad_parameter(problem));
        }
    };
    let filter = filter.resolve(&app, &inside, BATCH).await?;
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename={name}")),
    ];
    Ok((headers, Body::from_stream(pieces(app, filter, format))).into_response())
}

/// Where the export stands.
enum Step {
    Head(LogFilter),
    Rows(LogFilter),
    End,
}

fn pieces(app: App, filter: LogFilter, format: Format) -> impl Stream<Item = io::Result<Bytes>> {
    let first = if format == Format::Csv { Step::Head(filter) } else { Step::Rows(filter) };
    stream::try_unfold((app, first), move |(app, step)| async move {
        match step {
            Step::Head(filter) => {
                Ok(Some((Bytes::from(format!("{}\r\n", COLUMNS.join(","))), (app, Step::Rows(filter)))))
            }
            Step::Rows(filter) => {
                let (piece, next) = batch(&app, filter, format).await?;
                Ok((!piece.is_empty()).then_some((piece, (app, next))))
            }
            Step::End => Ok(None),
        }
    })
}

async fn batch(app: &App, mut filter: LogFilter, format: Format) -> io::Result<(Bytes, Step)> {
    // The cause goes to the log; the client sees the answer break off.
    let broken = |cause: &dyn std::fmt::Display| {
        tracing::error!(%cause, "an export of usage broke off");
        io::Error::other("the export broke off")
    };
    let rows = {
        let mut conn = app.read().await.map_err(|error| broken(&error))?;
        usage_log::page(&mut conn, &filter).await.map_err(|error| broken(&error))?
    };
    let more = i64::try_from(rows.len()).is_ok_and(|count| count == BATCH);
    filter.after = rows.last().map(|row| (row.created_at, row.exchange_id.clone()));
    let mut text = String::with_capacity(rows.len() * 512);
    for row in rows {
        let view = UsageLog::try_from(row).map_err(|problem| broken(&problem.code))?;
        let view = serde_json::to_value(view).map_err(|error| broken(&error))?;
        match format {
            Format::Csv => csv_line(&mut text, &view),
            Format::NdJson => text.push_str(&format!("{view}\n")),
        }
    }
    Ok((text.into(), if more { Step::Rows(filter) } else { Step::End }))
}

/// RFC 4180.
fn csv_line(out: &mut String, view: &Value) {
    for (at, column) in COLUMNS.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match view.get(column) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => csv_text(out, text),
            Some(value @ (Value::Array(_) | Value::Object(_))) => csv_text(out, &value.to_string()),
            Some(value) => out.push_str(&value.to_string()),
        }
    }
    out.push_str("\r\n");
}

/// What a bot chose (a model, an id) must not run as a formula in somebody's
/// spreadsheet.
fn csv_text(out: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !text.contains(['"', ',', '\r', '\n']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    if formula {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula_gets_through() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"\n", "\"say \"\"hi\"\"\n\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("a=b", "a=b"),
        ] {
            let mut out = String::new();
            csv_text(&mut out, text);
            assert_eq!(out, wanted, "{text:?}");
        }
        let mut out = String::new();
        csv_line(&mut out, &json!({"id": "req_1", "stream": true, "labels": {"a": "b"}, "cost_micros": null}));
        assert!(out.starts_with("req_1,,,,,,\"{\"\"a\"\":\"\"b\"\"}\",") && out.contains(",true,"), "{out}");
        assert_eq!(out.matches(',').count(), COLUMNS.len() - 1, "{out}");
    }
}
