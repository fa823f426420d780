//! Token usage in one normal form, whatever the vendor called it.

use crate::pricing::ServiceTier;

/// What one exchange used. `None` means the vendor did not say; an explicit
/// zero stays `Some(0)`. All counts are tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All prompt tokens, cached and cache-writes included.
    pub input: Option<u64>,
    /// The part of `input` read from the vendor's cache.
    pub cached_input: Option<u64>,
    /// The part of `input` written to the vendor's cache.
    pub cache_write: Option<u64>,
    /// All generated tokens, reasoning included.
    pub output: Option<u64>,
    /// The part of `output` spent on reasoning.
    pub reasoning: Option<u64>,
    /// The vendor's own total; see [`Usage::total_or_sum`].
    pub total: Option<u64>,
    /// The model as served.
    pub model: Option<String>,
    /// What else decides the price.
    pub billing: Billing,
}

/// What a vendor says beside the counts that a price may depend on. Parts as in
/// [`Usage`]: contained in their whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Billing {
    /// How it was served; standard when the vendor did not say.
    pub tier: ServiceTier,
    /// The part of `cache_write` that is kept for an hour.
    pub cache_write_1h: Option<u64>,
    /// The part of `input` that is audio.
    pub input_audio: Option<u64>,
    /// The part of `output` that is audio.
    pub output_audio: Option<u64>,
    /// Prompt tokens that are billed, where those are other ones than `input`:
    /// fewer (Cohere's billed units, routes that only count) or more
    /// (Anthropic's iterations of other kinds).
    pub billed_input: Option<u64>,
    /// The same of `output`.
    pub billed_output: Option<u64>,
}

impl Usage {
    /// Whether the vendor reported any count. A model name alone is no usage.
    #[must_use]
    pub const fn has_counts(&self) -> bool {
        self.input.is_some() || self.output.is_some() || self.total.is_some()
    }

    /// `input + output` when either is known, else the vendor's total. The sum
    /// goes first because some vendors' totals leave out or count twice what
    /// our `input` and `output` include.
    #[must_use]
    pub fn total_or_sum(&self) -> Option<u64> {
        match (self.input, self.output) {
            (None, None) => self.total,
            (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
        }
    }
}

/// Where the numbers of a usage row come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    /// The vendor reported them.
    Upstream,
    /// We counted or bounded them.
    Estimated,
    /// There are none.
    None,
}

impl UsageSource {
    /// As in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }
}
