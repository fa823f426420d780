//! The report as JSON. Fields are only ever added within one version.

use serde_json::{Value, json};

use super::{Ratio, Series, Verdict};

/// Version of the format.
pub(crate) const VERSION: u32 = 1;

/// Everything that was measured. `about` describes the run and the machine.
pub(crate) fn report(about: &Value, series: &[Series], ratios: &[Ratio], verdicts: &[Verdict]) -> Value {
    let targets: Vec<Value> = series
        .iter()
        .map(|series| {
            let rounds: Vec<_> = series.rounds.iter().map(crate::load::Measurement::summary).collect();
            json!({
                "name": series.name,
                "url": series.url,
                "requests_per_second": series.spread(|round| round.rate()),
                "p50_us": series.spread(|round| round.quantile(0.5)),
                "p99_us": series.spread(|round| round.quantile(0.99)),
                "errors": series.errors(),
                "rounds": rounds,
            })
        })
        .collect();
    json!({
        "version": VERSION,
        "about": about,
        "targets": targets,
        "ratios": ratios,
        "requirements": verdicts,
        "met": verdicts.iter().all(|verdict| verdict.met),
    })
}
