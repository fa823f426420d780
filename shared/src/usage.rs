//! Token usage in one normal form, whatever the vendor called it.

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
