//! What was measured in one stretch.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::Failure;

/// Longest latency kept apart (nanoseconds): ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// Sums and latencies.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// Request to last byte; from the moment it was due in an open loop.
    pub(crate) latency: Histogram<u64>,
    /// Request to first body byte.
    pub(crate) first_byte: Histogram<u64>,
    /// Finished with 2xx within the measured time.
    pub(crate) completed: u64,
    /// Finished with 2xx during warm-up or after the end.
    pub(crate) outside: u64,
    /// Due in an open loop but never sent, because no connection was free.
    pub(crate) unsent: u64,
    /// Other statuses.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Connections that broke.
    pub(crate) broken: u64,
    /// Body bytes of completed requests.
    pub(crate) bytes: u64,
    /// Measured time.
    pub(crate) elapsed: Duration,
}

impl Measurement {
    /// An empty one.
    pub(crate) fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).map_err(Failure::setup("histogram"));
        Ok(Self {
            latency: histogram()?,
            first_byte: histogram()?,
            completed: 0,
            outside: 0,
            unsent: 0,
            statuses: BTreeMap::new(),
            broken: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
        })
    }

    /// Adds what another worker measured in the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        let _same_bounds = self.latency.add(&other.latency);
        let _same_bounds = self.first_byte.add(&other.first_byte);
        self.completed += other.completed;
        self.outside += other.outside;
        self.unsent += other.unsent;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.broken += other.broken;
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Completed requests per second.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.completed as f64 / seconds } else { 0.0 }
    }

    /// Requests that did not complete.
    pub(crate) fn errors(&self) -> u64 {
        self.broken + self.statuses.values().sum::<u64>()
    }

    /// A latency quantile in microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// What reports show.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            requests: self.completed,
            errors: self.errors(),
            unsent: self.unsent,
            statuses: self.statuses.clone(),
            seconds: self.elapsed.as_secs_f64(),
            requests_per_second: self.rate(),
            bytes: self.bytes,
            latency_us: Quantiles::of(&self.latency),
            first_byte_us: Quantiles::of(&self.first_byte),
        }
    }
}

/// A measurement in numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) unsent: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) seconds: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) bytes: u64,
    pub(crate) latency_us: Quantiles,
    pub(crate) first_byte_us: Quantiles,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}
