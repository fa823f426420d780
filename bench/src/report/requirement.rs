//! Requirements: `gateway/bare>=0.80`, `gateway.p99<=5000`, `gateway.errors<=0`.

use std::str::FromStr;

use serde::Serialize;

use super::{Ratio, Series};
use crate::failure::Failure;

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// Requests per second of one target over another's, median of rounds.
    Ratio(String, String),
    /// A figure of one target, median of rounds (errors: sum).
    Figure(String, String),
}

/// One requirement.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    text: String,
    subject: Subject,
    at_least: bool,
    bound: f64,
}

/// How it came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) requirement: String,
    pub(crate) value: f64,
    pub(crate) met: bool,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected A/B>=N, A.rps|p50|p90|p99|p999|errors<=N (latencies in µs)";
        let (subject, bound, at_least) = match (text.split_once(">="), text.split_once("<=")) {
            (Some((subject, bound)), None) => (subject, bound, true),
            (None, Some((subject, bound))) => (subject, bound, false),
            _ => return Err(EXPECTED.to_owned()),
        };
        let bound = bound.trim().parse().map_err(|_| EXPECTED.to_owned())?;
        let subject = subject.trim();
        let subject = if let Some((of, over)) = subject.split_once('/') {
            Subject::Ratio(of.to_owned(), over.to_owned())
        } else {
            let (name, figure) = subject.rsplit_once('.').ok_or(EXPECTED)?;
            if !["rps", "p50", "p90", "p99", "p999", "errors"].contains(&figure) {
                return Err(EXPECTED.to_owned());
            }
            Subject::Figure(name.to_owned(), figure.to_owned())
        };
        Ok(Self { text: text.to_owned(), subject, at_least, bound })
    }
}

impl Requirement {
    /// Judges the series.
    pub(crate) fn judge(&self, series: &[Series]) -> Result<Verdict, Failure> {
        let find = |name: &str| {
            series
                .iter()
                .find(|series| series.name == name)
                .ok_or_else(|| Failure::Input(format!("{}: there is no target {name}", self.text)))
        };
        let value = match &self.subject {
            Subject::Ratio(of, over) => Ratio::between(find(of)?, find(over)?).spread.median,
            Subject::Figure(name, figure) => {
                let series = find(name)?;
                match figure.as_str() {
                    "errors" => series.errors() as f64,
                    "rps" => series.spread(|round| round.rate()).median,
                    "p50" => series.spread(|round| round.quantile(0.5)).median,
                    "p90" => series.spread(|round| round.quantile(0.9)).median,
                    "p99" => series.spread(|round| round.quantile(0.99)).median,
                    _ => series.spread(|round| round.quantile(0.999)).median,
                }
            }
        };
        Ok(verdict(&self.text, value, self.at_least, self.bound))
    }
}

/// Judges one value.
pub(crate) fn verdict(text: &str, value: f64, at_least: bool, bound: f64) -> Verdict {
    let met = if at_least { value >= bound } else { value <= bound };
    Verdict { requirement: text.to_owned(), value, met }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_parse() {
        assert_eq!("a/b>=0.8".parse::<Requirement>().unwrap().subject, Subject::Ratio("a".into(), "b".into()));
        assert_eq!(
            "a.b.p99 <= 10".parse::<Requirement>().unwrap().subject,
            Subject::Figure("a.b".into(), "p99".into())
        );
        for bad in ["a", "a=b", "a.speed>=1", "a/b>=x", "p99<=1"] {
            assert!(bad.parse::<Requirement>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        assert!(verdict("", 0.8, true, 0.8).met && verdict("", 0.8, false, 0.8).met);
        assert!(!verdict("", 0.79, true, 0.8).met);
        assert!(!verdict("", f64::NAN, true, 0.8).met);
    }
}
