//! The access line: one JSON object per exchange.
//!
//! Lines are formatted on the exchange's thread into a shared buffer and
//! written by a thread of their own, so that a slow terminal never delays a
//! request. When the buffer is full, lines are dropped and counted, and the
//! next line that fits says how many.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes held at most while the writer is behind.
const BUFFER_LIMIT: usize = 4 << 20;
/// Longest time a line waits.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// What is known of an exchange at its end. Texts that a client chose come masked.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct AccessLine<'a> {
    pub at_micros: i64,
    pub request_id: &'a str,
    pub client_request_id: &'a str,
    /// Empty: in no trace.
    pub trace_id: &'a str,
    pub tenant: &'a str,
    pub bot: &'a str,
    pub vendor: &'a str,
    pub method: &'a str,
    /// Path only: a query may hold a credential.
    pub path: &'a str,
    pub model: &'a str,
    pub status: u16,
    pub outcome: &'a str,
    pub code: &'a str,
    pub key: &'a str,
    pub attempts: usize,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub duration_micros: u64,
    pub ttft_micros: Option<u64>,
}

#[derive(Debug, Default)]
struct Pending {
    text: String,
    dropped: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// Writes access lines. Dropping it writes what is pending.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl AccessLog {
    /// `stderr`, `off`, or a file to append to.
    ///
    /// # Errors
    /// The file cannot be opened or no thread can be started.
    pub fn open(target: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = match target {
            "off" => None,
            "stderr" => Some(Self::spawn(shared.clone(), io::stderr())?),
            path => {
                let file: File = OpenOptions::new().create(true).append(true).open(Path::new(path))?;
                Some(Self::spawn(shared.clone(), file)?)
            }
        };
        Ok(Self { shared, writer })
    }

    fn spawn(shared: Arc<Shared>, out: impl Write + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&shared, out))
    }

    /// Adds one line.
    pub fn log(&self, line: &AccessLine<'_>) {
        if self.writer.is_none() {
            return;
        }
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.text.len() > BUFFER_LIMIT {
            pending.dropped += 1;
            return;
        }
        let dropped = std::mem::take(&mut pending.dropped);
        if dropped > 0 {
            let _ = writeln!(pending.text, "{{\"type\":\"access_lines_dropped\",\"count\":{dropped}}}");
        }
        format_line(&mut pending.text, line);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(shared: &Shared, mut out: impl Write) {
    let mut text = String::new();
    loop {
        let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.text.is_empty() {
            if pending.closed {
                return;
            }
            let waited = shared.wake.wait_timeout(pending, FLUSH_EVERY);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut pending.text, &mut text);
        drop(pending);
        // A log that cannot be written must not stop the node.
        let _ = out.write_all(text.as_bytes());
        text.clear();
        if text.capacity() > BUFFER_LIMIT {
            text = String::new();
        }
    }
}

fn format_line(out: &mut String, line: &AccessLine<'_>) {
    out.push_str("{\"type\":\"access\",\"at\":");
    signed(out, line.at_micros);
    for (name, value) in [
        ("request_id", line.request_id),
        ("client_request_id", line.client_request_id),
        ("trace_id", line.trace_id),
        ("tenant", line.tenant),
        ("bot", line.bot),
        ("vendor", line.vendor),
        ("method", line.method),
        ("path", line.path),
        ("model", line.model),
        ("outcome", line.outcome),
        ("code", line.code),
        ("key", line.key),
    ] {
        if !value.is_empty() {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":\"");
            escape(out, value);
            out.push('"');
        }
    }
    let attempts = u64::try_from(line.attempts).unwrap_or(u64::MAX);
    for (name, value) in [
        ("status", Some(u64::from(line.status))),
        ("attempts", Some(attempts)),
        ("input_tokens", line.input_tokens),
        ("output_tokens", line.output_tokens),
        ("ttft_us", line.ttft_micros),
        ("duration_us", Some(line.duration_micros)),
    ] {
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            decimal(out, value);
        }
    }
    out.push_str("}\n");
}

fn signed(out: &mut String, value: i64) {
    if value < 0 {
        out.push('-');
    }
    decimal(out, value.unsigned_abs());
}

/// As a formatter would, at a fifth of its cost.
fn decimal(out: &mut String, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit += u8::try_from(value % 10).unwrap_or(0);
        start = at;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.push_str(digits.get(start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or("0"));
}

fn escape(out: &mut String, text: &str) {
    // To the end, whatever is found: many bytes can be looked at together then.
    if text.bytes().fold(true, |plain, b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\')) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_client_sent() {
        let mut text = String::new();
        let line = AccessLine {
            path: "/v1/openai/\"\\\u{1}x",
            model: "m",
            status: 200,
            input_tokens: Some(0),
            ..AccessLine::default()
        };
        format_line(&mut text, &line);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["path"], "/v1/openai/\"\\\u{1}x");
        assert_eq!(value["input_tokens"], 0);
        assert!(value.get("output_tokens").is_none());
    }

    #[test]
    fn numbers_are_written_as_a_formatter_would() {
        for value in [0, 1, 9, 10, 99, 100, 1_234_567_890, i64::MAX, -1, -10, i64::MIN] {
            let mut text = String::new();
            signed(&mut text, value);
            assert_eq!(text, value.to_string());
        }
    }

    #[test]
    fn a_line_says_all_that_is_known() {
        let mut text = String::new();
        let line = AccessLine {
            at_micros: 1,
            request_id: "req_1",
            client_request_id: "mine",
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            tenant: "ten_1",
            bot: "worker",
            vendor: "openai",
            method: "POST",
            path: "/v1/openai/chat/completions",
            model: "gpt-4o",
            status: 503,
            outcome: "refused",
            code: "overloaded",
            key: "key_1",
            attempts: 2,
            input_tokens: Some(3),
            output_tokens: Some(4),
            duration_micros: 5,
            ttft_micros: Some(6),
        };
        format_line(&mut text, &line);
        let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let wanted = serde_json::json!({
            "type": "access", "at": 1, "request_id": "req_1", "client_request_id": "mine",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "tenant": "ten_1", "bot": "worker", "vendor": "openai",
            "method": "POST", "path": "/v1/openai/chat/completions", "model": "gpt-4o", "status": 503,
            "outcome": "refused", "code": "overloaded", "key": "key_1", "attempts": 2, "input_tokens": 3,
            "output_tokens": 4, "duration_us": 5, "ttft_us": 6,
        });
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_was_logged_is_written_before_the_log_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("access.log").to_string_lossy().into_owned();
        let log = AccessLog::open(&path).expect("opens");
        for _ in 0..100 {
            log.log(&AccessLine { request_id: "req_1", ..AccessLine::default() });
        }
        drop(log);
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text.lines().count(), 100);
    }
}
