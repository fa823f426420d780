//! Standard output: a table for people, JSON for scripts.
//!
//! Text that came from elsewhere (a bot's model name, a label) is stripped of
//! control characters in tables: a terminal obeys them.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The API's own JSON
    Json,
}

/// A column: its heading, and the field (`a.b` looks inside objects).
pub(crate) type Column = (&'static str, &'static str);

/// Writes answers in one format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
}

/// Cells longer than this are cut in tables.
const CELL_LIMIT: usize = 60;

/// One line on standard output.
///
/// # Errors
/// [`Failure::OutputClosed`] when nobody reads any more.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::failed("writing the answer", e),
    })
}

impl Printer {
    /// A printer of this format.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Rows, or a JSON array of them.
    pub(crate) fn rows(self, rows: &[Value], columns: &[Column]) -> Result<(), Failure> {
        match self.format {
            Format::Json => say(&pretty(&Value::Array(rows.to_vec()))),
            Format::Table => say(table(rows, columns).trim_end()),
        }
    }

    /// One object, as `field: value` lines or as JSON.
    pub(crate) fn object(self, value: &Value) -> Result<(), Failure> {
        match (self.format, value) {
            (Format::Table, Value::Object(_)) => {
                let mut lines = Vec::new();
                flatten("", value, &mut lines);
                let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                lines.iter().try_for_each(|(name, text)| say(&format!("{name:width$}  {text}")))
            }
            _ => say(&pretty(value)),
        }
    }

    /// The texts of one list of an object, one a line, or the object as JSON.
    pub(crate) fn lines(self, value: &Value, list: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => say(&pretty(value)),
            Format::Table => {
                let texts = value.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                texts.into_iter().try_for_each(say)
            }
        }
    }

    /// What a verb without an answer did; nothing in JSON.
    pub(crate) fn done(self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => say(text),
        }
    }
}

/// Fields of objects inside objects get a dotted name.
fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, field, lines);
            }
        }
        Value::Object(_) => lines.push((prefix.to_owned(), "-".to_owned())),
        other => lines.push((prefix.to_owned(), plain(other))),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, path)| cell(field(row, path))).collect()));
    let mut widths = vec![0; columns.len()];
    for line in &lines {
        for (width, text) in widths.iter_mut().zip(line) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(text, w)| format!("{text:w$}", w = *w)).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn field<'a>(row: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(row, |value, name| value.get(name)).unwrap_or(&Value::Null)
}

fn cell(value: &Value) -> String {
    let text = plain(value);
    if text.chars().count() <= CELL_LIMIT {
        return text;
    }
    text.chars().take(CELL_LIMIT - 1).chain(['…']).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_line_up_and_do_not_drive_the_terminal() {
        let rows = [
            json!({"hostname": "demo", "tags": ["a", "b"], "owner": {"name": "x\u{1b}[2Jy"}}),
            json!({"hostname": "longer-name", "tags": [], "owner": null}),
        ];
        let text = table(&rows, &[("HOST", "hostname"), ("TAGS", "tags"), ("OWNER", "owner.name")]);
        assert_eq!(text, "HOST         TAGS  OWNER\ndemo         a,b   x[2Jy\nlonger-name  -     -\n");
    }

    #[test]
    fn objects_inside_objects_get_dotted_names() {
        let mut lines = Vec::new();
        flatten("", &json!({"a": 1, "b": {"c": "x", "d": {}}}), &mut lines);
        let expected = [("a", "1"), ("b.c", "x"), ("b.d", "-")].map(|(n, t)| (n.to_owned(), t.to_owned()));
        assert_eq!(lines, expected);
    }

    #[test]
    fn long_cells_are_cut_by_characters() {
        let text = cell(&json!("é".repeat(100)));
        assert_eq!(text.chars().count(), CELL_LIMIT);
        assert!(text.ends_with('…'));
    }
}
