//! A quota as the configuration states it, with the slice that counts for it.

use std::sync::Arc;

use clawgate_shared::glob::Glob;

use super::slice::Slice;

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Prompt and answer.
    TotalTokens,
    /// The prompt.
    InputTokens,
    /// The answer.
    OutputTokens,
    /// Requests that reached a vendor.
    Requests,
    /// Micro-USD.
    CostMicros,
}

impl Metric {
    const ALL: [Self; 5] = [Self::TotalTokens, Self::InputTokens, Self::OutputTokens, Self::Requests, Self::CostMicros];

    /// As in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TotalTokens => "total_tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Requests => "requests",
            Self::CostMicros => "cost_micros",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == text)
    }

    /// Whether it follows from what a body says.
    #[must_use]
    pub const fn is_of_content(self) -> bool {
        !matches!(self, Self::Requests)
    }
}

/// What happens without the control plane when a lease is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Requests wait for it.
    Deny,
    /// A tenth of the limit, once per outage.
    Allowance,
    /// Requests pass.
    Allow,
}

impl Outage {
    /// `deny | allowance | allow`
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "deny" => Self::Deny,
            "allowance" => Self::Allowance,
            "allow" => Self::Allow,
            _ => return None,
        })
    }
}

/// One quota that applies to a bot or a provider key. In the order in which a
/// request touches it.
#[derive(Debug)]
#[repr(C)]
pub struct QuotaRule {
    /// What is left of it here; the same value over all snapshots.
    pub slice: Arc<Slice>,
    /// What is counted.
    pub metric: Metric,
    /// The strict bound is held; else what such requests usually take.
    pub strict: bool,
    /// An answer that goes beyond what is left is cut off.
    pub cut: bool,
    /// See [`Outage`].
    pub outage: Outage,
    /// Which models it is about; `None`: all.
    pub models: Option<Glob>,
    /// Without grants.
    pub limit: u64,
    /// `bot | project | tenant | provider_key`, for messages.
    pub scope: Box<str>,
    /// Its calendar window, for messages.
    pub window: Box<str>,
}

impl QuotaRule {
    /// Whether a request for `model` counts; one whose model is not known may be
    /// for any.
    #[must_use]
    pub fn covers(&self, model: &str) -> bool {
        model.is_empty() || self.models.as_ref().is_none_or(|glob| glob.matches(model))
    }
}
