//! What the outside may see of a running node: metrics, the access line,
//! spans, logs.
//!
//! Invariant: nothing in this folder ever receives a secret, a request body or
//! a query string; every metric family is registered once, in `metrics`.
//! Deliberately absent: decisions. Telemetry observes.

mod access;
mod metrics;
mod otlp;
mod trace;

pub use access::{AccessLine, AccessLog};
pub use metrics::{Metrics, NotAdmitted, VendorMetrics};
pub use otlp::{Collector, EndpointError, Exporter};
pub use trace::{Kind, Span, Trace, Traces, Value as TraceValue};
