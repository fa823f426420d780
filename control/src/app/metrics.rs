//! The control plane's Prometheus families, each named once.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::fleet::Fleet;

/// A REST answer by its class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusClass {
    /// `2xx` and so on.
    status_class: &'static str,
}

/// All families.
pub struct Metrics {
    registry: Registry,
    rest_requests: Family<StatusClass, Counter>,
    ingest_events: Counter,
    ingest_indeterminate: Counter,
    ingest_duplicates: Counter,
    ingest_lost: Counter,
    fleet: OnceLock<Arc<Fleet>>,
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
        let fleet = OnceLock::new();
        Self { registry, rest_requests, ingest_events, ingest_indeterminate, ingest_duplicates, ingest_lost, fleet }
    }

    /// From now on ingest is counted too.
    pub fn watch(&self, fleet: Arc<Fleet>) {
        let _ = self.fleet.set(fleet);
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

    /// OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(fleet) = self.fleet.get() {
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
