//! The price of one model.

use super::rate::Rate;

/// What is billed. The order is that of [`Component::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// Prompt tokens that are none of the others.
    Input,
    /// Prompt tokens read from the vendor's cache.
    CachedInput,
    /// Prompt tokens written to the cache, to be kept 5 minutes.
    CacheWrite,
    /// Prompt tokens written to the cache, to be kept an hour.
    CacheWrite1h,
    /// Audio in the prompt, in tokens.
    InputAudio,
    /// Generated tokens that are none of the others.
    Output,
    /// Generated tokens that are reasoning.
    Reasoning,
    /// Generated audio, in tokens.
    OutputAudio,
    /// The request itself.
    Request,
}

impl Component {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Input,
        Self::CachedInput,
        Self::CacheWrite,
        Self::CacheWrite1h,
        Self::InputAudio,
        Self::Output,
        Self::Reasoning,
        Self::OutputAudio,
        Self::Request,
    ];

    /// Its name in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::CacheWrite => "cache_write",
            Self::CacheWrite1h => "cache_write_1h",
            Self::InputAudio => "input_audio",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::OutputAudio => "output_audio",
            Self::Request => "request",
        }
    }

    /// What is charged when a price says nothing of this component: a cache rate
    /// that is missing is the input rate, and so on.
    #[must_use]
    pub const fn otherwise(self) -> Option<Self> {
        match self {
            Self::CacheWrite1h => Some(Self::CacheWrite),
            Self::CachedInput | Self::CacheWrite | Self::InputAudio => Some(Self::Input),
            Self::Reasoning | Self::OutputAudio => Some(Self::Output),
            Self::Input | Self::Output | Self::Request => None,
        }
    }
}

/// How fast an answer was asked for, and at which rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceTier {
    /// As always.
    #[default]
    Standard,
    /// Deferred, as a batch.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer.
    Priority,
}

impl ServiceTier {
    /// `standard | batch | flex | priority`
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "standard" => Self::Standard,
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            _ => return None,
        })
    }

    /// As vendors name what they served: OpenAI's and Anthropic's
    /// `service_tier`. `None`: it says nothing about the price.
    #[must_use]
    pub fn served(text: &str) -> Option<Self> {
        match text {
            "default" | "scale" => Some(Self::Standard),
            _ => Self::parse(text),
        }
    }

    /// The inverse of [`Self::parse`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }
}

/// A rate for each component, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates([Option<Rate>; Component::ALL.len()]);

impl Rates {
    /// The rate of a component, if it has one of its own.
    #[must_use]
    pub fn get(&self, component: Component) -> Option<Rate> {
        self.0.get(component as usize).copied().flatten()
    }

    /// Sets it.
    pub fn set(&mut self, component: Component, rate: Rate) {
        if let Some(slot) = self.0.get_mut(component as usize) {
            *slot = Some(rate);
        }
    }

    /// With it set; for tables of constants.
    #[must_use]
    pub fn with(mut self, component: Component, rate: Rate) -> Self {
        self.set(component, rate);
        self
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether every rate there is, is zero.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.0.iter().flatten().all(|rate| *rate == Rate::ZERO)
    }
}

/// Rates for prompts of some length, at a service tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Band {
    /// Which tier.
    pub tier: ServiceTier,
    /// In effect when the prompt has more tokens than this; 0: always.
    pub above: u64,
    /// What it changes; the rest stays as in the bands below.
    pub rates: Rates,
}

/// The price of one model: bands, of which the highest that applies counts for
/// the whole request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    bands: Vec<Band>,
}

impl Price {
    /// A price of these bands, in any order; bands of the same tier and length
    /// are taken together.
    #[must_use]
    pub fn new(bands: impl IntoIterator<Item = Band>) -> Self {
        let mut price = Self::default();
        for band in bands {
            for component in Component::ALL {
                if let Some(rate) = band.rates.get(component) {
                    price.set(band.tier, band.above, component, rate);
                }
            }
        }
        price
    }

    /// A price without tiers.
    #[must_use]
    pub fn flat(rates: Rates) -> Self {
        Self::new([Band { rates, ..Band::default() }])
    }

    /// Sets one rate.
    pub fn set(&mut self, tier: ServiceTier, above: u64, component: Component, rate: Rate) {
        let at = self.bands.partition_point(|band| (band.tier, band.above) < (tier, above));
        match self.bands.get_mut(at) {
            Some(band) if (band.tier, band.above) == (tier, above) => band.rates.set(component, rate),
            _ => self.bands.insert(at, Band { tier, above, rates: Rates::default().with(component, rate) }),
        }
    }

    /// By tier and length; none is empty.
    #[must_use]
    pub fn bands(&self) -> &[Band] {
        &self.bands
    }

    /// Whether nothing has a rate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bands.is_empty()
    }

    /// Whether every rate is zero.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.bands.iter().all(|band| band.rates.is_free())
    }

    /// The component's own rate for a prompt of `prompt` tokens: of the highest
    /// band that applies and has one; there the tier's before the standard one.
    #[must_use]
    pub fn own_rate(&self, component: Component, tier: ServiceTier, prompt: u64) -> Option<Rate> {
        self.bands
            .iter()
            .filter(|band| band.tier == tier || band.tier == ServiceTier::Standard)
            .filter(|band| band.above == 0 || prompt > band.above)
            .filter_map(|band| Some(((band.above, band.tier == tier), band.rates.get(component)?)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, rate)| rate)
    }

    /// The rate that is charged: its own, else that of [`Component::otherwise`].
    #[must_use]
    pub fn rate(&self, component: Component, tier: ServiceTier, prompt: u64) -> Option<Rate> {
        let mut wanted = Some(component);
        while let Some(component) = wanted {
            let own = self.own_rate(component, tier, prompt);
            if own.is_some() {
                return own;
            }
            wanted = component.otherwise();
        }
        None
    }
}
