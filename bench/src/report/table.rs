//! The report for people.

use std::fmt::Write;

use super::{Ratio, Series, Verdict};

/// Targets, then ratios, then requirements.
pub(crate) fn table(title: &str, series: &[Series], ratios: &[Ratio], verdicts: &[Verdict]) -> String {
    let mut out = format!("{title}\n");
    let width = series.iter().map(|series| series.name.len()).max().unwrap_or(0).max(8);
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _infallible = out.write_fmt(text);
        out.push('\n');
    };
    if !series.is_empty() {
        line(format_args!(
            "  {:width$}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>7}",
            "target", "requests/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "errors"
        ));
    }
    for series in series {
        let at = |quantile: f64| series.spread(move |round| round.quantile(quantile)).median;
        line(format_args!(
            "  {:width$}  {:>10.0}  {:>9.1}  {:>9.1}  {:>9.1}  {:>9.1}  {:>7}",
            series.name,
            series.spread(|round| round.rate()).median,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            series.errors(),
        ));
    }
    for ratio in ratios {
        let spread = ratio.spread;
        line(format_args!(
            "  {}: {:.3} (quartiles {:.3}–{:.3}, range {:.3}–{:.3}, {} rounds)",
            ratio.pair, spread.median, spread.p25, spread.p75, spread.min, spread.max, spread.rounds
        ));
    }
    for verdict in verdicts {
        let word = if verdict.met { "met   " } else { "MISSED" };
        line(format_args!("  {word} {} (is {:.3})", verdict.requirement, verdict.value));
    }
    out
}
