//! The most that a request can cost, from what is known before it is sent.

use clawgate_shared::catalogue::{ModelLimits, model_limits};
use clawgate_shared::pricing::{Price, cost_at_most};

use crate::limits::Metric;
use crate::wire::Input;

/// What a vendor's template puts around a prompt beyond its own bytes, which
/// hold more structure than templates do.
const TEMPLATE: u64 = 32;
/// Instructions that a vendor adds when tools are given, and per tool; the
/// largest that is documented is 735 for all together.
const TOOLS: u64 = 768;
const PER_TOOL: u64 = 64;
/// The most that one picture costs, and with the one family where it is more.
const PER_IMAGE: u64 = 16_384;
const PER_IMAGE_OF_4O_MINI: u64 = 48_384;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// As the client names it.
    pub model: &'a str,
    /// Bytes that will be sent.
    pub bytes: u64,
    /// What they hold.
    pub input: Input,
    /// The output limit that will be sent, for each answer.
    pub output_limit: Option<u64>,
    /// How many answers to each prompt.
    pub answers: u64,
    /// The route answers with no text at all.
    pub no_output: bool,
}

impl Demand<'_> {
    /// How many answers it asks for, to all its prompts together.
    #[must_use]
    pub fn all_answers(&self) -> u64 {
        self.answers.max(1).saturating_mul(self.input.prompts.max(1))
    }
}

/// The most that it can use, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Prompt.
    pub input: u64,
    /// All answers together.
    pub output: u64,
}

impl Bound {
    /// The strict bound; see the module.
    #[must_use]
    pub fn of(demand: &Demand<'_>) -> Self {
        let ModelLimits { context, output } = model_limits(demand.model);
        let per_image = if demand.model.contains("4o-mini") { PER_IMAGE_OF_4O_MINI } else { PER_IMAGE };
        let Input { unbounded, images, tools, .. } = demand.input;
        let added = TEMPLATE
            .saturating_add(if tools > 0 { TOOLS.saturating_add(tools.saturating_mul(PER_TOOL)) } else { 0 })
            .saturating_add(images.saturating_mul(per_image));
        let text = demand.bytes.saturating_add(added);
        let answers = demand.all_answers();
        let each = demand.output_limit.unwrap_or(output);
        Self {
            // A list of texts may be more than one context together.
            input: if unbounded { text.max(context) } else { text },
            output: if demand.no_output { 0 } else { each.saturating_mul(answers) },
        }
    }

    /// Both together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// What it is in a quota's unit. `None`: the model has no price.
    #[must_use]
    pub fn amount(&self, metric: Metric, price: Option<&Price>) -> Option<u64> {
        Some(match metric {
            Metric::TotalTokens => self.total(),
            Metric::InputTokens => self.input,
            Metric::OutputTokens => self.output,
            Metric::Requests => 1,
            Metric::CostMicros => cost_at_most(price?, self.input, self.output)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand<'static> {
        Demand {
            model: "gpt-4o",
            bytes: 500,
            input: Input::default(),
            output_limit: Some(900),
            answers: 1,
            no_output: false,
        }
    }

    #[test]
    fn bytes_bound_text_and_the_window_bounds_everything() {
        let input = |unbounded, images, tools| Input { unbounded, images, tools, prompts: 0 };
        for (name, demand, wanted) in [
            ("text", demand(), (532, 900)),
            ("three answers", Demand { answers: 3, ..demand() }, (532, 2700)),
            ("no limit", Demand { output_limit: None, ..demand() }, (532, 16_384)),
            ("a reference", Demand { input: input(true, 0, 0), ..demand() }, (131_072, 900)),
            ("tools", Demand { input: input(false, 0, 2), ..demand() }, (532 + 768 + 128, 900)),
            ("a picture", Demand { input: input(false, 1, 0), ..demand() }, (532 + 16_384, 900)),
            (
                "a picture for 4o-mini",
                Demand { model: "gpt-4o-mini", input: input(false, 1, 0), ..demand() },
                (532 + 48_384, 900),
            ),
            ("a list of texts", Demand { bytes: 1 << 20, ..demand() }, ((1 << 20) + 32, 900)),
            ("four prompts", Demand { input: Input { prompts: 4, ..Input::default() }, ..demand() }, (532, 3600)),
            ("embeddings", Demand { no_output: true, ..demand() }, (532, 0)),
            ("absurd", Demand { output_limit: Some(u64::MAX), answers: 9, ..demand() }, (532, u64::MAX)),
        ] {
            let bound = Bound::of(&demand);
            assert_eq!((bound.input, bound.output), wanted, "{name}");
        }
        assert_eq!(Bound { input: u64::MAX, output: 1 }.total(), u64::MAX);
    }

    #[test]
    fn each_metric_counts_its_part() {
        let bound = Bound { input: 10, output: 5 };
        for (metric, wanted) in
            [(Metric::TotalTokens, 15), (Metric::InputTokens, 10), (Metric::OutputTokens, 5), (Metric::Requests, 1)]
        {
            assert_eq!(bound.amount(metric, None), Some(wanted));
        }
        assert_eq!(bound.amount(Metric::CostMicros, None), None);
    }
}
