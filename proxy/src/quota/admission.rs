//! What to say when an amount is not to be had now. Pure.

use clawgate_shared::pricing::{Price, cost_at_most};

use super::bound::Bound;
use crate::limits::{Metric, Standing};

/// A word of the control plane that is older decides nothing, in microseconds.
const FRESH: i64 = 1_500_000;

/// Why it is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Others hold it, or it is on its way: asking again may help.
    Pending,
    /// Not in this window, whatever limit the client sets.
    Exceeded,
    /// A smaller output limit would do.
    TooLarge {
        /// The largest that would, for each answer.
        max_tokens: u64,
    },
}

/// Judges a request that wants `bound` of a quota, by what the control plane
/// said last.
#[must_use]
pub fn judge(
    metric: Metric,
    bound: &Bound,
    answers: u64,
    price: Option<&Price>,
    standing: &Standing,
    now: i64,
) -> Verdict {
    let remaining = standing.remaining();
    let fits = |bound: &Bound| bound.amount(metric, price).is_some_and(|amount| amount <= remaining);
    if now.saturating_sub(standing.at) > FRESH || fits(bound) {
        return Verdict::Pending;
    }
    let answers = answers.max(1);
    if bound.output == 0 || !fits(&Bound { output: answers, ..*bound }) {
        return Verdict::Exceeded;
    }
    let most = match (metric, price) {
        (Metric::OutputTokens, _) => remaining,
        (Metric::CostMicros, Some(price)) => affordable(price, bound, remaining),
        _ => remaining.saturating_sub(bound.input),
    };
    Verdict::TooLarge { max_tokens: most / answers }
}

/// The most output that costs no more than `money` with the whole input.
fn affordable(price: &Price, bound: &Bound, money: u64) -> u64 {
    let (mut fits, mut does_not) = (0, bound.output);
    while does_not - fits > 1 {
        let middle = fits + (does_not - fits) / 2;
        if cost_at_most(price, bound.input, middle).is_some_and(|cost| cost <= money) {
            fits = middle;
        } else {
            does_not = middle;
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use clawgate_shared::pricing::{Component, Rate, Rates};

    use super::*;

    #[test]
    fn only_a_fresh_word_refuses_for_good() {
        let bound = Bound { input: 500, output: 900 };
        for (settled, at, answers, wanted) in [
            (0, 0, 1, Verdict::Pending),
            (98_600, 0, 1, Verdict::Pending),
            (98_601, 0, 1, Verdict::TooLarge { max_tokens: 899 }),
            (98_601, 0, 3, Verdict::TooLarge { max_tokens: 299 }),
            (99_499, 0, 1, Verdict::TooLarge { max_tokens: 1 }),
            (99_500, 0, 1, Verdict::Exceeded),
            (100_000, 0, 1, Verdict::Exceeded),
            (100_000, -FRESH - 1, 1, Verdict::Pending),
        ] {
            let standing = Standing { limit: 100_000, settled, outstanding: 0, at };
            let found = judge(Metric::TotalTokens, &bound, answers, None, &standing, 0);
            assert_eq!(found, wanted, "{settled} {at} {answers}");
        }
    }

    #[test]
    fn other_metrics_name_what_helps() {
        let standing = Standing { limit: 1000, settled: 400, outstanding: 0, at: 0 };
        let bound = Bound { input: 700, output: 700 };
        let judge = |metric, price: Option<&Price>| judge(metric, &bound, 1, price, &standing, 0);
        assert_eq!(judge(Metric::InputTokens, None), Verdict::Exceeded);
        assert_eq!(judge(Metric::OutputTokens, None), Verdict::TooLarge { max_tokens: 600 });
        assert_eq!(judge(Metric::Requests, None), Verdict::Pending);
        let rate = |text| Rate::per_million(text).expect("a rate");
        let rates = Rates::default().with(Component::Input, rate("0.5")).with(Component::Output, rate("2"));
        assert_eq!(judge(Metric::CostMicros, Some(&Price::flat(rates))), Verdict::TooLarge { max_tokens: 125 });
    }
}
