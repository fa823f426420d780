//! Every metric family of a node, once. Names are part of the contract.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Our own time: 10 µs … 10 ms.
const OVERHEAD_BUCKETS: [f64; 10] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01];
/// Whole exchanges: 5 ms … 10 min.
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Requests {
    vendor: String,
    status_class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tokens {
    vendor: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refusal {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectionRefusal {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reload {
    outcome: &'static str,
}

/// Why a connection was closed before a byte of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Its address is outside the listener's pool.
    Source,
    /// All places are taken.
    Cap,
    /// All places of its source are taken.
    SourceCap,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamError {
    vendor: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyState {
    vendor: String,
    state: &'static str,
}

/// The handles of one vendor, looked up once per exchange and then only
/// incremented.
#[derive(Debug)]
pub struct VendorMetrics {
    classes: [Counter; 5],
    /// `tokens_total{type="input"}`
    pub input_tokens: Counter,
    /// `tokens_total{type="output"}`
    pub output_tokens: Counter,
}

impl VendorMetrics {
    /// Counts one finished exchange.
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1).min(4);
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
        }
    }
}

/// All families, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Requests, Counter>,
    tokens: Family<Tokens, Counter>,
    refusals: Family<Refusal, Counter>,
    upstream_errors: Family<UpstreamError, Counter>,
    refused_sources: Counter,
    refused_by_cap: Counter,
    refused_by_source_cap: Counter,
    certificates: [Counter; 2],
    vendors: RwLock<HashMap<String, Arc<VendorMetrics>>>,
    /// Whole exchanges, seconds.
    pub duration: Histogram,
    /// Our own share of an exchange, seconds.
    pub overhead: Histogram,
    /// Time to first downstream byte, seconds.
    pub ttft: Histogram,
    /// Exchanges in flight.
    pub inflight: Gauge,
    /// Downstream connections open.
    pub connections: Gauge,
    /// Bytes of memory that only this process can give back. Set when scraped.
    pub memory_used: Gauge,
    /// The limit it lives under; 0: none is known.
    pub memory_limit: Gauge,
    /// 0 calm, 1 new requests are refused, 2 connections are closed after their
    /// answer, 3 none is accepted.
    pub memory_pressure: Gauge,
    /// Gauges set when scraped.
    pub spool_bytes: Gauge,
    /// Records not yet acknowledged.
    pub spool_records: Gauge,
    /// Age of the oldest of them.
    pub spool_oldest_seconds: Gauge,
    /// Positions delivered as lost because they could not be read back.
    pub spool_lost: Counter,
    /// Syncs that failed.
    pub spool_sync_failures: Counter,
    /// Records that the disk did not take.
    pub spool_write_failures: Counter,
    /// Spans that no collector got.
    pub spans_dropped: Counter,
    /// Exchanges served without any usage record.
    pub unmetered: Counter,
    /// Revision of the snapshot served.
    pub config_version: Gauge<u64, AtomicU64>,
    /// Seconds since the last contact with the control plane.
    pub config_age_seconds: Gauge,
    /// Snapshots refused.
    pub config_nacks: Counter,
    /// What is left in the leases of all quotas.
    pub lease_remaining: Gauge,
    key_state: Family<KeyState, Gauge>,
    /// Calls to the control plane about leases.
    pub lease_calls: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("clawgate");
        let mut metrics = Self {
            requests: Family::default(),
            tokens: Family::default(),
            refusals: Family::default(),
            upstream_errors: Family::default(),
            refused_sources: Counter::default(),
            refused_by_cap: Counter::default(),
            refused_by_source_cap: Counter::default(),
            certificates: Default::default(),
            vendors: RwLock::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            overhead: Histogram::new(OVERHEAD_BUCKETS),
            ttft: Histogram::new(DURATION_BUCKETS),
            inflight: Gauge::default(),
            connections: Gauge::default(),
            memory_used: Gauge::default(),
            memory_limit: Gauge::default(),
            memory_pressure: Gauge::default(),
            spool_bytes: Gauge::default(),
            spool_records: Gauge::default(),
            spool_oldest_seconds: Gauge::default(),
            spool_lost: Counter::default(),
            spool_sync_failures: Counter::default(),
            spool_write_failures: Counter::default(),
            spans_dropped: Counter::default(),
            unmetered: Counter::default(),
            config_version: Gauge::default(),
            config_age_seconds: Gauge::default(),
            config_nacks: Counter::default(),
            lease_remaining: Gauge::default(),
            key_state: Family::default(),
            lease_calls: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Finished exchanges", metrics.requests.clone());
        registry.register("request_duration_seconds", "Whole exchanges", metrics.duration.clone());
        registry.register("overhead_seconds", "Own time per exchange", metrics.overhead.clone());
        registry.register("ttft_seconds", "Time to the first byte sent to the bot", metrics.ttft.clone());
        registry.register("tokens", "Tokens the vendors reported", metrics.tokens.clone());
        registry.register("inflight", "Exchanges in flight", metrics.inflight.clone());
        registry.register("connections", "Open connections of bots", metrics.connections.clone());
        let refused = Family::<ConnectionRefusal, Counter>::default();
        metrics.refused_sources = refused.get_or_create_owned(&ConnectionRefusal { reason: "source" });
        metrics.refused_by_cap = refused.get_or_create_owned(&ConnectionRefusal { reason: "cap" });
        metrics.refused_by_source_cap = refused.get_or_create_owned(&ConnectionRefusal { reason: "source_cap" });
        registry.register("connections_refused", "Connections closed at accept", refused);
        let reloads = Family::<Reload, Counter>::default();
        metrics.certificates = ["refused", "used"].map(|outcome| reloads.get_or_create_owned(&Reload { outcome }));
        registry.register("certificate_reloads", "New TLS certificates found", reloads);
        registry.register("refusals", "Requests refused by this node", metrics.refusals.clone());
        registry.register("upstream_errors", "Failed attempts at vendors", metrics.upstream_errors.clone());
        registry.register("spool_bytes", "Usage records on disk", metrics.spool_bytes.clone());
        registry.register("spool_records", "Usage records not yet acknowledged", metrics.spool_records.clone());
        let oldest = metrics.spool_oldest_seconds.clone();
        registry.register("spool_oldest_seconds", "Age of the oldest unacknowledged record", oldest);
        metrics.register_failures(&mut registry);
        metrics.register_edge(&mut registry);
        registry.register("config_version", "Revision of the configuration served", metrics.config_version.clone());
        let age = metrics.config_age_seconds.clone();
        registry.register("config_age_seconds", "Seconds since the control plane was last heard", age);
        registry.register("config_nacks", "Configurations refused", metrics.config_nacks.clone());
        registry.register("lease_remaining", "Left in all leases of quotas", metrics.lease_remaining.clone());
        registry.register("lease_calls", "Calls to the control plane about leases", metrics.lease_calls.clone());
        registry.register("key_state", "Provider keys by where they stand", metrics.key_state.clone());
        registry.register("build", "Build", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, ..metrics }
    }

    fn register_edge(&self, registry: &mut Registry) {
        registry.register("memory_used_bytes", "Memory without pages of files", self.memory_used.clone());
        registry.register("memory_limit_bytes", "Lowest limit on memory", self.memory_limit.clone());
        let text = "0 calm, 1 requests refused, 2 connections closed, 3 none accepted";
        registry.register("memory_pressure", text, self.memory_pressure.clone());
    }

    fn register_failures(&self, registry: &mut Registry) {
        registry.register("spool_lost", "Usage records that could not be read back", self.spool_lost.clone());
        let syncs = self.spool_sync_failures.clone();
        registry.register("spool_sync_failures", "Failed syncs of usage records", syncs);
        let writes = self.spool_write_failures.clone();
        registry.register("spool_write_failures", "Usage records the disk did not take", writes);
        registry.register("spans_dropped", "Spans that no collector got", self.spans_dropped.clone());
        registry.register("unmetered", "Exchanges served without a usage record", self.unmetered.clone());
    }

    /// The handles of one vendor.
    #[must_use]
    pub fn vendor(&self, slug: &str) -> Arc<VendorMetrics> {
        if let Some(found) = self.vendors.read().unwrap_or_else(PoisonError::into_inner).get(slug) {
            return found.clone();
        }
        let class =
            |status_class| self.requests.get_or_create_owned(&Requests { vendor: slug.to_owned(), status_class });
        let tokens = |kind| self.tokens.get_or_create_owned(&Tokens { vendor: slug.to_owned(), r#type: kind });
        let built = Arc::new(VendorMetrics {
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            input_tokens: tokens("input"),
            output_tokens: tokens("output"),
        });
        let mut map = self.vendors.write().unwrap_or_else(PoisonError::into_inner);
        map.entry(slug.to_owned()).or_insert(built).clone()
    }

    /// Counts a refusal by its stable code.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Refusal { code }).inc();
    }

    /// Counts a connection closed at accept.
    pub fn not_admitted(&self, why: NotAdmitted) {
        match why {
            NotAdmitted::Source => self.refused_sources.inc(),
            NotAdmitted::Cap => self.refused_by_cap.inc(),
            NotAdmitted::SourceCap => self.refused_by_source_cap.inc(),
        };
    }

    /// Counts a TLS certificate that was found changed on disk.
    pub fn certificate_reloaded(&self, used: bool) {
        let [refused, taken] = &self.certificates;
        if used {
            taken.inc()
        } else {
            refused.inc()
        };
    }

    /// Counts a failed attempt.
    pub fn upstream_failed(&self, vendor: &str, reason: &'static str) {
        self.upstream_errors.get_or_create(&UpstreamError { vendor: vendor.to_owned(), reason }).inc();
    }

    /// Takes the number of provider keys per vendor and state; what is not named
    /// is forgotten.
    pub fn set_key_states(&self, counts: &BTreeMap<(&str, &'static str), i64>) {
        self.key_state.clear();
        for ((vendor, state), count) in counts {
            self.key_state.get_or_create(&KeyState { vendor: (*vendor).to_owned(), state }).set(*count);
        }
    }

    /// The text a scraper gets.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            let _ = writeln!(text, "# not all metrics could be printed");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_names_are_printed() {
        let metrics = Metrics::new();
        metrics.vendor("openai").count(200);
        metrics.vendor("openai").count(503);
        metrics.vendor("openai").input_tokens.inc_by(7);
        metrics.refused("bot_token_missing");
        metrics.upstream_failed("openai", "connect");
        metrics.not_admitted(NotAdmitted::Source);
        metrics.set_key_states(&BTreeMap::from([(("google", "active"), 2)]));
        metrics.set_key_states(&BTreeMap::from([(("openai", "suspect"), 1)]));
        let text = metrics.render();
        for line in [
            "clawgate_requests_total{vendor=\"openai\",status_class=\"2xx\"} 1",
            "clawgate_requests_total{vendor=\"openai\",status_class=\"5xx\"} 1",
            "clawgate_tokens_total{vendor=\"openai\",type=\"input\"} 7",
            "clawgate_refusals_total{code=\"bot_token_missing\"} 1",
            "clawgate_upstream_errors_total{vendor=\"openai\",reason=\"connect\"} 1",
            "clawgate_connections_refused_total{reason=\"source\"} 1",
            "clawgate_connections_refused_total{reason=\"cap\"} 0",
            "clawgate_key_state{vendor=\"openai\",state=\"suspect\"} 1",
            "clawgate_inflight 0",
            "clawgate_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("google"), "what is not named is forgotten");
    }
}
