//! The control plane's Prometheus families, each named once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::fleet::Fleet;
use crate::store::types::BotStatus;
use crate::store::{Db, StoreError, bots};

/// A REST answer by its class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusClass {
    /// `2xx` and so on.
    status_class: &'static str,
}

/// A bot by what is to be said of it first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BotState {
    /// `suspended`, `disabled`, else the observed status.
    status: &'static str,
}

/// All families.
pub struct Metrics {
    registry: Registry,
    rest_requests: Family<StatusClass, Counter>,
    ingest_events: Counter,
    ingest_indeterminate: Counter,
    ingest_duplicates: Counter,
    ingest_lost: Counter,
    bots: Family<BotState, Gauge>,
    sources: OnceLock<(Arc<Fleet>, Db)>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("clawgate");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("plane", "control")]);
        registry.register("build", "Which build this is", build);
        let rest_requests = Family::default();
        registry.register("rest_requests", "REST requests answered", rest_requests.clone());
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let ingest_events = counter("ingest_events", "Usage events that were new");
        let ingest_indeterminate = counter("ingest_indeterminate", "Usage events whose end nobody saw");
        let ingest_duplicates = counter("ingest_duplicates", "Ends of exchanges that had an event already");
        let ingest_lost = counter("ingest_lost", "Usage records that a node could not read back");
        let bots = Family::default();
        registry.register("bots", "Bots of all tenants by status", bots.clone());
        Self {
            registry,
            rest_requests,
            ingest_events,
            ingest_indeterminate,
            ingest_duplicates,
            ingest_lost,
            bots,
            sources: OnceLock::new(),
        }
    }

    /// From now on ingest and bots are counted too.
    pub fn watch(&self, fleet: Arc<Fleet>, db: Db) {
        let _ = self.sources.set((fleet, db));
    }

    /// OpenMetrics text, as things are now. Without the database the numbers of
    /// bots are those of the last time.
    pub async fn scrape(&self) -> String {
        if let Some((_, db)) = self.sources.get() {
            match count_bots(db).await {
                Ok(counts) => {
                    self.bots.clear();
                    for (status, count) in counts {
                        self.bots.get_or_create(&BotState { status }).set(count);
                    }
                }
                Err(error) => tracing::warn!(%error, "bots were not counted"),
            }
        }
        self.render()
    }

    /// Counts one REST answer.
    pub fn rest_answer(&self, status: u16) {
        let status_class = match status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.rest_requests.get_or_create(&StatusClass { status_class }).inc();
    }

    #[must_use]
    fn render(&self) -> String {
        if let Some((fleet, _)) = self.sources.get() {
            let counts = fleet.ingest_counts();
            for (counter, value) in [
                (&self.ingest_events, counts.events),
                (&self.ingest_indeterminate, counts.indeterminate),
                (&self.ingest_duplicates, counts.duplicates),
                (&self.ingest_lost, counts.lost),
            ] {
                counter.inner().store(value, Ordering::Relaxed);
            }
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Every status there is, also when no bot has it: each bot once.
async fn count_bots(db: &Db) -> Result<BTreeMap<&'static str, i64>, StoreError> {
    let words = BotStatus::ALL.iter().map(|status| status.as_str()).chain(["disabled", "suspended"]);
    let mut counts: BTreeMap<&'static str, i64> = words.map(|word| (word, 0)).collect();
    for group in bots::stats_of_all(&mut *db.read().await?).await? {
        let status = match (group.suspended, group.enabled) {
            (true, _) => "suspended",
            (false, false) => "disabled",
            (false, true) => group.status.as_str(),
        };
        *counts.entry(status).or_default() += i64::try_from(group.count).unwrap_or(i64::MAX);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.rest_answer(404);
        let text = metrics.render();
        assert!(text.contains("clawgate_build_info{version="), "{text}");
        assert!(text.contains("clawgate_ingest_events_total 0"), "{text}");
        assert!(text.contains("clawgate_rest_requests_total{status_class=\"4xx\"} 1"), "{text}");
    }
}
