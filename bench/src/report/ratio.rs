//! Medians, spreads, and ratios of one round's runs.

use serde::Serialize;

use super::Series;
use crate::load::Measurement;

/// A figure over several rounds.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) p25: f64,
    pub(crate) p75: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    /// Of any number of values; none gives zeros.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: quantile(&sorted, 0.5),
            p25: quantile(&sorted, 0.25),
            p75: quantile(&sorted, 0.75),
            min: quantile(&sorted, 0.0),
            max: quantile(&sorted, 1.0),
            rounds: sorted.len(),
        }
    }
}

/// Linear interpolation between the neighbours.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = quantile * last as f64;
    let below = place.floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ below ≤ last")]
    let index = below as usize;
    let low = sorted.get(index).copied().unwrap_or(0.0);
    let high = sorted.get(index + 1).copied().unwrap_or(low);
    low + (high - low) * (place - below)
}

/// Completed requests per second of one target over another's, round by round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    /// `gateway/bare`
    pub(crate) pair: String,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

impl Ratio {
    /// Pairs the rounds of two targets.
    pub(crate) fn between(of: &Series, over: &Series) -> Self {
        let each = of.rounds.iter().zip(&over.rounds).map(|(of, over)| of.rate() / over.rate());
        Self { pair: format!("{}/{}", of.name, over.name), spread: Spread::of(each) }
    }

    /// Median latency that each adds to `direct`, as a ratio, round by round.
    pub(crate) fn of_added_latency(of: &Series, over: &Series, direct: &Series) -> Self {
        let added = |proxied: &Measurement, direct: &Measurement| proxied.quantile(0.5) - direct.quantile(0.5);
        let each = of
            .rounds
            .iter()
            .zip(&over.rounds)
            .zip(&direct.rounds)
            .map(|((of, over), direct)| added(of, direct) / added(over, direct));
        Self { pair: format!("added {}/{}", of.name, over.name), spread: Spread::of(each) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max, spread.p25), (2.5, 1.0, 4.0, 1.75));
        assert_eq!(Spread::of([]).median, 0.0);
        assert_eq!(Spread::of([f64::NAN, 7.0]).median, 7.0);
    }
}
