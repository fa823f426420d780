//! Who asked the mock vendor for how much, and whether everybody agrees.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::Client;
use crate::failure::Failure;
use crate::load::Measurement;

/// How long the mock may take to write its last counters.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// Requests and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

/// The mock vendor's totals, split by the target that caused them. Targets
/// run one after the other, so what was added since the last look belongs to
/// the target that has just run.
pub(super) struct Counted {
    mock: Client,
    seen: Count,
    by_target: HashMap<String, Count>,
}

impl Counted {
    /// Starts from what the mock has counted so far.
    pub(super) fn new(mock: SocketAddr) -> Result<Self, Failure> {
        let mut mock = Client::new("mock", mock)?;
        let seen = at_rest(&mut mock)?;
        Ok(Self { mock, seen, by_target: HashMap::new() })
    }

    /// Books a run, and voids it when the generator and the mock disagree.
    pub(super) fn after(&mut self, target: &str, measured: &Measurement) -> Result<(), Failure> {
        let now = at_rest(&mut self.mock)?;
        let added = Count { requests: now.requests - self.seen.requests, tokens: now.tokens - self.seen.tokens };
        self.seen = now;
        let sent = measured.completed + measured.outside;
        if added.requests != sent || measured.errors() > 0 {
            return Err(Failure::Void(format!(
                "{target}: {sent} requests completed and {} failed {:?}, the vendor answered {}",
                measured.errors(),
                measured.statuses,
                added.requests
            )));
        }
        let count = self.by_target.entry(target.to_owned()).or_default();
        count.requests += added.requests;
        count.tokens += added.tokens;
        Ok(())
    }

    /// The counts so far, for [`Self::since`].
    pub(super) fn clone_counts(&self) -> HashMap<String, Count> {
        self.by_target.clone()
    }

    /// Requests of a target since then; of all targets for `None`.
    pub(super) fn since(&self, earlier: &HashMap<String, Count>, target: Option<&str>) -> u64 {
        let requests = |counts: &HashMap<String, Count>| -> u64 {
            let counted = counts.iter().filter(|(name, _)| target.is_none_or(|target| *name == target));
            counted.map(|(_, count)| count.requests).sum()
        };
        requests(&self.by_target) - requests(earlier)
    }

    /// What a target caused altogether.
    pub(super) fn of(&self, target: &str) -> Count {
        self.by_target.get(target).copied().unwrap_or_default()
    }
}

/// The mock's totals once nothing is in flight.
fn at_rest(mock: &mut Client) -> Result<Count, Failure> {
    let deadline = Instant::now() + REST_LIMIT;
    loop {
        let totals = mock.call("GET", "/__mock/ledger", &[], None)?.body;
        let number = |name: &str| totals.get(name).and_then(Value::as_u64).unwrap_or(0);
        if number("inflight") == 0 {
            return Ok(Count {
                requests: number("completed"),
                tokens: number("input_tokens") + number("output_tokens"),
            });
        }
        if Instant::now() > deadline {
            return Err(Failure::Void("the mock vendor is still answering".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
