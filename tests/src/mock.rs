//! The mock vendor and its ledger.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::binary;
use crate::http::{Request, call};
use crate::process::{Process, Spec};
use crate::wait::until;

/// A running mock vendor.
#[derive(Debug)]
pub struct Mock {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its ledger file.
    pub ledger: PathBuf,
    process: Process,
}

impl Mock {
    /// Starts one in `folder`; `recordings` enables `/replay/…`.
    #[must_use]
    pub fn start(folder: &Path, recordings: Option<&Path>) -> Self {
        let ledger = folder.join("ledger.jsonl");
        let mut spec = Spec::new("mock", binary("clawgate-mock"), folder, &["--listen", "127.0.0.1:0"]);
        spec.set("--ledger", &ledger.display().to_string());
        if let Some(recordings) = recordings {
            spec.set("--recordings", &recordings.display().to_string());
        }
        let process = spec.start();
        let address = until("the mock's address", Duration::from_secs(10), || announced(&process.log()));
        Self { address, ledger, process }
    }

    /// `http://address` followed by `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests it is answering now.
    #[must_use]
    pub fn inflight(&self) -> u64 {
        let totals = call(self.address, &Request::new("GET", "/__mock/ledger")).json();
        totals["inflight"].as_u64().unwrap_or_else(|| panic!("no inflight in {totals}"))
    }

    /// Requests that have ended.
    #[must_use]
    pub fn requests(&self) -> usize {
        let totals = call(self.address, &Request::new("GET", "/__mock/ledger")).json();
        totals["requests"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_default()
    }

    /// Waits until nothing is in flight and the ledger file is complete, then
    /// returns the `end` lines.
    ///
    /// # Panics
    /// It does not come to rest, or a line is not JSON.
    #[must_use]
    pub fn entries(&self) -> Vec<Value> {
        until("the mock to come to rest", Duration::from_secs(60), || {
            let totals = call(self.address, &Request::new("GET", "/__mock/ledger")).json();
            let entries = self.written();
            let all = totals["requests"].as_u64() == Some(entries.len() as u64);
            (totals["inflight"] == 0 && all).then_some(entries)
        })
    }

    fn written(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .filter(|entry: &Value| entry["event"] == "end")
            .collect()
    }

    /// The ledger as text.
    #[must_use]
    pub fn ledger_text(&self) -> String {
        std::fs::read_to_string(&self.ledger).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// The first loopback address with a port in a log.
fn announced(log: &str) -> Option<SocketAddr> {
    let at = log.find("127.0.0.1:")?;
    let address: String = log[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':').collect();
    let ended = log[at + address.len()..].starts_with(|c: char| !c.is_ascii_digit());
    address.parse().ok().filter(|a: &SocketAddr| ended && a.port() != 0)
}

/// SHA-256 in hex, as credentials appear in the ledger.
#[must_use]
pub fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that every entry carries exactly one credential: `key`.
///
/// # Panics
/// One does not.
pub fn assert_only_credential(entries: &[Value], key: &str) {
    let want = sha256_hex(key);
    for entry in entries {
        let found = entry["credentials"].as_array().cloned().unwrap_or_default();
        let hashes: Vec<&str> = found.iter().filter_map(|c| c["sha256"].as_str()).collect();
        assert_eq!(hashes, [want.as_str()], "not exactly the provider key: {entry}");
    }
}
