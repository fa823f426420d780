//! The ledger: the ground truth of every metering test.
//!
//! Each request becomes one `end` line (and, with two phases, a `begin` line
//! before it). Credentials appear as SHA-256 only, and every other header
//! with its value, so that a credential that leaked elsewhere is found by
//! searching the file. Lines reach the file within 50 ms, or on `flush`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// How long a line may wait in memory.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerTarget {
    /// Counters only: for benchmarks.
    None,
    /// Appended to this file.
    File {
        /// Created when missing.
        path: PathBuf,
        /// Also a `begin` line on arrival.
        two_phase: bool,
    },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every byte was written.
    Complete,
    /// The client hung up first.
    ClientGone,
    /// The named fault was played.
    Fault(&'static str),
    /// The mock itself was stopped in the middle.
    Aborted,
}

impl Ended {
    fn name(self) -> String {
        match self {
            Self::Complete => "complete".to_owned(),
            Self::ClientGone => "client_gone".to_owned(),
            Self::Fault(kind) => format!("fault_{kind}"),
            Self::Aborted => "aborted".to_owned(),
        }
    }
}

/// One credential a request carried.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Credential {
    /// `header:NAME` or `query:NAME`.
    #[serde(rename = "where")]
    pub(crate) carrier: String,
    /// SHA-256 of the credential without its scheme word, in hex.
    pub(crate) sha256: String,
}

/// One line.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Entry {
    pub(crate) event: &'static str,
    pub(crate) seq: u64,
    pub(crate) request_id: Option<String>,
    pub(crate) start_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_us: Option<i64>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) body_sha256: String,
    pub(crate) body_len: usize,
    pub(crate) dialect: &'static str,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) status: u16,
    pub(crate) promised_input: u64,
    pub(crate) promised_output: u64,
    pub(crate) sent_output: u64,
    pub(crate) billed_input: u64,
    pub(crate) billed_output: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) ended: String,
}

/// Sums over all requests that have ended since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Totals {
    /// All that ended.
    pub requests: u64,
    /// Of these, answered to the last byte.
    pub completed: u64,
    /// Client hung up.
    pub client_gone: u64,
    /// A fault was played.
    pub faults: u64,
    /// Status 400 and above.
    pub errors: u64,
    /// Being answered now (not reset).
    pub inflight: u64,
    /// Input tokens billed.
    pub input_tokens: u64,
    /// Output tokens billed.
    pub output_tokens: u64,
    /// Body bytes written.
    pub bytes_sent: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) sent_output: u64,
    pub(crate) billed_input: u64,
    pub(crate) billed_output: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) ended: Ended,
}

/// Requests and tokens of one credential.
#[derive(Clone, Debug, Default, Serialize)]
struct Share {
    requests: u64,
    completed: u64,
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    completed: AtomicU64,
    client_gone: AtomicU64,
    faults: AtomicU64,
    errors: AtomicU64,
    inflight: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    bytes_sent: AtomicU64,
}

struct Book {
    lines: BufWriter<File>,
    shares: HashMap<String, Share>,
    open: HashMap<u64, Option<String>>,
    two_phase: bool,
}

/// The ledger. Shared by all connections; cheap when only counting.
pub struct Ledger {
    sequence: AtomicU64,
    counters: Counters,
    book: Option<Mutex<Book>>,
}

impl Ledger {
    /// Opens the target and, for a file, starts the thread that flushes it.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(target: &LedgerTarget) -> io::Result<Arc<Self>> {
        let book = match target {
            LedgerTarget::None => None,
            LedgerTarget::File { path, two_phase } => Some(Mutex::new(Book::open(path, *two_phase)?)),
        };
        let keeps_book = book.is_some();
        let ledger = Arc::new(Self { sequence: AtomicU64::new(0), counters: Counters::default(), book });
        if keeps_book {
            let weak = Arc::downgrade(&ledger);
            std::thread::Builder::new().name("ledger-flush".to_owned()).spawn(move || flush_loop(&weak))?;
        }
        Ok(ledger)
    }

    /// Whether entries are kept at all; without, nobody needs to hash.
    pub(crate) const fn keeps_entries(&self) -> bool {
        self.book.is_some()
    }

    /// Opens a request. `entry` is only called when entries are kept.
    pub(crate) fn begin(self: &Arc<Self>, entry: impl FnOnce() -> Entry) -> Ticket {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        self.counters.inflight.fetch_add(1, Ordering::Relaxed);
        let entry = self.book.as_ref().map(|book| {
            let mut entry = Box::new(entry());
            entry.seq = sequence;
            entry.event = "begin";
            let mut book = lock(book);
            book.open.insert(sequence, entry.request_id.clone());
            if book.two_phase {
                book.write(&entry);
            }
            entry
        });
        Ticket { ledger: Arc::clone(self), entry, ended: false }
    }

    fn end(&self, entry: Option<Box<Entry>>, outcome: &Outcome) {
        let counters = &self.counters;
        counters.inflight.fetch_sub(1, Ordering::Relaxed);
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let ended = match outcome.ended {
            Ended::Complete => &counters.completed,
            Ended::ClientGone | Ended::Aborted => &counters.client_gone,
            Ended::Fault(_) => &counters.faults,
        };
        ended.fetch_add(1, Ordering::Relaxed);
        if outcome.status >= 400 {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        counters.input_tokens.fetch_add(outcome.billed_input, Ordering::Relaxed);
        counters.output_tokens.fetch_add(outcome.billed_output, Ordering::Relaxed);
        counters.bytes_sent.fetch_add(outcome.bytes_sent, Ordering::Relaxed);
        if let (Some(book), Some(entry)) = (&self.book, entry) {
            lock(book).close(*entry, outcome);
        }
    }

    /// Writes what is buffered to the file.
    ///
    /// # Errors
    /// The file system refused.
    pub fn flush(&self) -> io::Result<()> {
        self.book.as_ref().map_or(Ok(()), |book| lock(book).lines.flush())
    }

    /// Sums so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Totals {
            requests: read(&counters.requests),
            completed: read(&counters.completed),
            client_gone: read(&counters.client_gone),
            faults: read(&counters.faults),
            errors: read(&counters.errors),
            inflight: read(&counters.inflight),
            input_tokens: read(&counters.input_tokens),
            output_tokens: read(&counters.output_tokens),
            bytes_sent: read(&counters.bytes_sent),
        }
    }

    /// Totals and the share of each credential, as the admin endpoint shows it.
    pub(crate) fn summary(&self) -> serde_json::Value {
        let shares = self.book.as_ref().map(|book| lock(book).shares.clone());
        let mut value = serde_json::json!(self.totals());
        if let Some(object) = value.as_object_mut() {
            object.insert("credentials".to_owned(), serde_json::json!(shares.unwrap_or_default()));
        }
        value
    }

    /// Requests being answered now: sequence number and client request id.
    pub(crate) fn open_requests(&self) -> Vec<(u64, Option<String>)> {
        let mut open: Vec<_> = self
            .book
            .as_ref()
            .map(|book| lock(book).open.iter().map(|(seq, id)| (*seq, id.clone())).collect())
            .unwrap_or_default();
        open.sort_unstable_by_key(|(sequence, _)| *sequence);
        open
    }

    /// Sets all sums to zero. The file is left alone: it is append-only.
    pub(crate) fn reset(&self) {
        let counters = &self.counters;
        for counter in [
            &counters.requests,
            &counters.completed,
            &counters.client_gone,
            &counters.faults,
            &counters.errors,
            &counters.input_tokens,
            &counters.output_tokens,
            &counters.bytes_sent,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        if let Some(book) = &self.book {
            lock(book).shares.clear();
        }
    }
}

impl Book {
    fn open(path: &Path, two_phase: bool) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            lines: BufWriter::with_capacity(256 * 1024, file),
            shares: HashMap::new(),
            open: HashMap::new(),
            two_phase,
        })
    }

    fn close(&mut self, mut entry: Entry, outcome: &Outcome) {
        self.open.remove(&entry.seq);
        for credential in &entry.credentials {
            let share = self.shares.entry(credential.sha256.clone()).or_default();
            share.requests += 1;
            share.completed += u64::from(outcome.ended == Ended::Complete);
            share.input_tokens += outcome.billed_input;
            share.output_tokens += outcome.billed_output;
        }
        entry.event = "end";
        entry.end_us = Some(now_us());
        entry.status = outcome.status;
        entry.sent_output = outcome.sent_output;
        entry.billed_input = outcome.billed_input;
        entry.billed_output = outcome.billed_output;
        entry.bytes_sent = outcome.bytes_sent;
        entry.ended = outcome.ended.name();
        self.write(&entry);
    }

    fn write(&mut self, entry: &Entry) {
        // A full disk must not stop the mock: the test that compares the
        // ledger with the database will show the missing lines.
        if serde_json::to_writer(&mut self.lines, entry).is_ok() {
            let _written = self.lines.write_all(b"\n");
        }
    }
}

/// An open request; dropping it unfinished records it as aborted.
#[must_use]
pub(crate) struct Ticket {
    ledger: Arc<Ledger>,
    entry: Option<Box<Entry>>,
    ended: bool,
}

impl Ticket {
    /// Closes the request.
    pub(crate) fn finish(mut self, outcome: &Outcome) {
        self.ended = true;
        let entry = self.entry.take();
        self.ledger.end(entry, outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = Outcome {
                status: 0,
                sent_output: 0,
                billed_input: 0,
                billed_output: 0,
                bytes_sent: 0,
                ended: Ended::Aborted,
            };
            let entry = self.entry.take();
            self.ledger.end(entry, &outcome);
        }
    }
}

/// A panic while the lock was held leaves counters, not invariants, behind.
fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flush_loop(ledger: &Weak<Ledger>) {
    while let Some(ledger) = ledger.upgrade() {
        let _flushed = ledger.flush();
        drop(ledger);
        std::thread::sleep(FLUSH_EVERY);
    }
}

/// SHA-256 in lower-case hex, as credentials appear in the ledger.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0')));
        }
    }
    text
}

/// Unix microseconds.
#[allow(clippy::disallowed_methods, reason = "the mock shares no code with the gateway, its clock included")]
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
