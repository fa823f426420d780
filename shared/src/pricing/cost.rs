//! What an exchange costs.

use super::price::{Component, Price, ServiceTier};
use crate::usage::Usage;

/// 10⁻¹⁸ USD in a micro-dollar.
const ATTO_PER_MICRO: u128 = 1_000_000_000_000;

/// What is billed of one exchange. A part (`cached_input`) is contained in its
/// whole (`input`), as in [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// All prompt tokens.
    pub input: u64,
    /// Part of `input`: read from the cache.
    pub cached_input: u64,
    /// Part of `input`: written to the cache, for whatever time.
    pub cache_write: u64,
    /// Part of `cache_write`: to be kept an hour.
    pub cache_write_1h: u64,
    /// Part of `input`: audio.
    pub input_audio: u64,
    /// All generated tokens.
    pub output: u64,
    /// Part of `output`.
    pub reasoning: u64,
    /// Part of `output`: audio.
    pub output_audio: u64,
}

impl Spent {
    /// What a vendor's report bills: `None` when it says neither what went in
    /// nor what came out, because a total alone cannot be priced. Where it says
    /// that other tokens are billed than were used, those count: more of them
    /// at the plain rates of this model, fewer without parts, because what a
    /// vendor leaves out is cached or its own.
    #[must_use]
    pub fn of(usage: &Usage) -> Option<Self> {
        let billing = &usage.billing;
        let (input, output) = (billing.billed_input.or(usage.input), billing.billed_output.or(usage.output));
        if input.is_none() && output.is_none() {
            return None;
        }
        let whole = billing.billed_input.is_none_or(|billed| usage.input.is_some_and(|used| billed >= used));
        let part = |count: Option<u64>| count.filter(|_| whole).unwrap_or(0);
        Some(Self {
            input: input.unwrap_or(0),
            cached_input: part(usage.cached_input),
            cache_write: part(usage.cache_write),
            cache_write_1h: part(billing.cache_write_1h),
            input_audio: part(billing.input_audio),
            output: output.unwrap_or(0),
            reasoning: usage.reasoning.unwrap_or(0),
            output_audio: billing.output_audio.unwrap_or(0),
        })
    }

    /// Units of each component. A part of the input that is larger than the
    /// whole is billed in full (some vendors count cached tokens outside) and
    /// leaves nothing for the rest; a part of the output is at most the whole.
    fn units(&self) -> [(Component, u64); Component::ALL.len()] {
        let parts = self.cached_input.saturating_add(self.cache_write).saturating_add(self.input_audio);
        let long = self.cache_write_1h.min(self.cache_write);
        let audio = self.output_audio.min(self.output);
        let reasoning = self.reasoning.min(self.output - audio);
        [
            (Component::Input, self.input.saturating_sub(parts)),
            (Component::CachedInput, self.cached_input),
            (Component::CacheWrite, self.cache_write - long),
            (Component::CacheWrite1h, long),
            (Component::InputAudio, self.input_audio),
            (Component::Output, self.output - audio - reasoning),
            (Component::Reasoning, reasoning),
            (Component::OutputAudio, audio),
            (Component::Request, 1),
        ]
    }
}

/// Micro-USD of one request, half a micro-dollar up; `None` when the price says
/// nothing of something that was used. The length of the prompt, cached tokens
/// included, decides the band.
#[must_use]
pub fn cost(spent: &Spent, price: &Price, tier: ServiceTier) -> Option<i64> {
    let mut total: u128 = 0;
    for (component, units) in spent.units() {
        if units == 0 {
            continue;
        }
        match price.rate(component, tier, spent.input) {
            Some(rate) => total = total.saturating_add(rate.times(units)),
            // Almost no vendor bills requests.
            None if component == Component::Request => {}
            None => return None,
        }
    }
    let micros = total / ATTO_PER_MICRO + u128::from(total % ATTO_PER_MICRO >= ATTO_PER_MICRO / 2);
    Some(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The most that a request may cost whose prompt and whose answer have at most
/// so many tokens, in micro-USD, rounded up: each token at the highest rate that
/// the price has for any kind, length and tier. `None` when the price does not
/// say what prompts or answers cost.
#[must_use]
pub fn cost_at_most(price: &Price, input: u64, output: u64) -> Option<u64> {
    use Component as C;
    let highest = |components: &[Component]| {
        components.iter().flat_map(|c| price.bands().iter().filter_map(|band| band.rates.get(*c))).max()
    };
    let mut total = highest(&[C::Request]).map_or(0, |rate| rate.times(1));
    let prompt: &[Component] = &[C::Input, C::CachedInput, C::CacheWrite, C::CacheWrite1h, C::InputAudio];
    let answer: &[Component] = &[C::Output, C::Reasoning, C::OutputAudio];
    for (units, components) in [(input, prompt), (output, answer)] {
        if units > 0 {
            total = total.saturating_add(highest(components)?.times(units));
        }
    }
    Some(u64::try_from(total.div_ceil(ATTO_PER_MICRO)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pricing::{Band, Rate, Rates};
    use crate::usage::Billing;

    fn rates(list: &[(Component, &str)]) -> Rates {
        list.iter().fold(Rates::default(), |rates, (component, text)| {
            rates.with(*component, Rate::per_million(text).expect("a rate"))
        })
    }

    /// Input 3, cached 0.3, write 3.75, an hour 6, output 15; doubled input and
    /// output beyond 200k; half of everything flat as a batch.
    fn model() -> Price {
        use Component as C;
        let standard = rates(&[
            (C::Input, "3"),
            (C::CachedInput, "0.3"),
            (C::CacheWrite, "3.75"),
            (C::CacheWrite1h, "6"),
            (C::Output, "15"),
        ]);
        let long = rates(&[(C::Input, "6"), (C::Output, "30")]);
        let batch = rates(&[(C::Input, "1.5"), (C::Output, "7.5")]);
        Price::new([
            Band { above: 200_000, rates: long, ..Band::default() },
            Band { rates: standard, ..Band::default() },
            Band { tier: ServiceTier::Batch, rates: batch, ..Band::default() },
        ])
    }

    #[test]
    fn a_bound_takes_the_highest_rates_and_rounds_up() {
        assert_eq!(cost_at_most(&model(), 1_000_000, 0), Some(6_000_000));
        assert_eq!(cost_at_most(&model(), 0, 1_000_000), Some(30_000_000));
        assert_eq!(cost_at_most(&model(), 1, 1), Some(36));
        let tiny = Price::flat(rates(&[(Component::Input, "0.1")]));
        assert_eq!((cost_at_most(&tiny, 1, 0), cost_at_most(&tiny, 1, 1)), (Some(1), None));
        for tier in [ServiceTier::Standard, ServiceTier::Batch, ServiceTier::Priority] {
            for input in [1, 1000, 200_000, 200_001] {
                let spent =
                    Spent { input, output: 77, cache_write: input / 2, cache_write_1h: input / 3, ..Spent::default() };
                let bound = cost_at_most(&model(), input, 77).expect("priced");
                let billed = cost(&spent, &model(), tier).expect("priced");
                assert!(bound >= u64::try_from(billed).expect("positive"), "{tier:?} {input}");
            }
        }
    }

    #[test]
    fn each_part_has_its_rate() {
        let spent = |input, output| Spent { input, output, ..Spent::default() };
        for (name, spent, tier, wanted) in [
            ("plain", spent(1000, 100), ServiceTier::Standard, 3000 + 1500),
            ("cached", Spent { cached_input: 900, ..spent(1000, 0) }, ServiceTier::Standard, 300 + 270),
            ("written", Spent { cache_write: 1000, ..spent(1000, 0) }, ServiceTier::Standard, 3750),
            (
                "written for an hour",
                Spent { cache_write: 1000, cache_write_1h: 400, ..spent(1000, 0) },
                ServiceTier::Standard,
                2250 + 2400,
            ),
            ("reasoning is output", Spent { reasoning: 60, ..spent(0, 100) }, ServiceTier::Standard, 1500),
            (
                "audio falls back",
                Spent { input_audio: 10, output_audio: 10, ..spent(10, 10) },
                ServiceTier::Standard,
                180,
            ),
            ("at the threshold", spent(200_000, 0), ServiceTier::Standard, 600_000),
            ("beyond it, the whole request", spent(200_001, 10), ServiceTier::Standard, 1_200_006 + 300),
            (
                "what the long band lacks stays",
                Spent { cached_input: 200_001, ..spent(200_001, 0) },
                ServiceTier::Standard,
                60_000,
            ),
            ("batch", spent(1000, 100), ServiceTier::Batch, 1500 + 750),
            ("a long batch has no rate of its own", spent(300_000, 0), ServiceTier::Batch, 1_800_000),
            ("a tier without rates is standard", spent(1000, 100), ServiceTier::Priority, 4500),
            ("cached outside of input", Spent { cached_input: 300, ..spent(200, 0) }, ServiceTier::Standard, 90),
            ("more reasoning than output", Spent { reasoning: 96, ..spent(0, 10) }, ServiceTier::Standard, 150),
            ("nothing", spent(0, 0), ServiceTier::Standard, 0),
        ] {
            assert_eq!(cost(&spent, &model(), tier), Some(wanted), "{name}");
        }
    }

    #[test]
    fn what_is_billed_may_be_other_than_what_was_used() {
        let billed =
            |input, output| Billing { billed_input: Some(input), billed_output: Some(output), ..Billing::default() };
        let usage = |billing| Usage {
            input: Some(1000),
            cached_input: Some(400),
            output: Some(100),
            reasoning: Some(60),
            billing,
            ..Usage::default()
        };
        let micros = |usage: &Usage| Spent::of(usage).and_then(|spent| cost(&spent, &model(), ServiceTier::Standard));
        assert_eq!(micros(&usage(Billing::default())), Some(1800 + 120 + 1500));
        assert_eq!(micros(&usage(billed(0, 0))), Some(0), "only counted");
        assert_eq!(micros(&usage(billed(300, 90))), Some(900 + 1350), "units");
        assert_eq!(micros(&usage(billed(1500, 100))), Some(3300 + 120 + 1500), "iterations beside");
        let units = Usage { billing: Billing { billed_input: Some(9), ..Billing::default() }, ..Usage::default() };
        assert_eq!(micros(&units), Some(27));
    }

    #[test]
    fn requests_reasoning_and_missing_rates() {
        use Component as C;
        let price = Price::flat(rates(&[(C::Input, "1"), (C::Reasoning, "4"), (C::Output, "2"), (C::Request, "5000")]));
        let spent = Spent { input: 1, output: 10, reasoning: 5, ..Spent::default() };
        assert_eq!(cost(&spent, &price, ServiceTier::Standard), Some(1 + 20 + 10 + 5000));
        let embedding = Price::flat(rates(&[(C::Input, "0.02")]));
        let only_in = Spent { input: 100, ..Spent::default() };
        assert_eq!(cost(&only_in, &embedding, ServiceTier::Standard), Some(2));
        assert_eq!(cost(&spent, &embedding, ServiceTier::Standard), None, "what came out has no price");
        assert_eq!(cost(&only_in, &Price::default(), ServiceTier::Standard), None);
        assert_eq!(Spent::of(&Usage { total: Some(5), ..Usage::default() }), None);
        let zero = Usage { input: Some(0), ..Usage::default() };
        assert_eq!(Spent::of(&zero), Some(Spent::default()));
    }

    #[test]
    fn it_is_rounded_once_and_half_up() {
        let price = Price::flat(rates(&[(Component::Input, "0.15"), (Component::Output, "0.35")]));
        for (input, output, wanted) in [(3, 0, 0), (0, 1, 0), (1, 1, 1), (10, 0, 2), (9, 0, 1)] {
            let spent = Spent { input, output, ..Spent::default() };
            assert_eq!(cost(&spent, &price, ServiceTier::Standard), Some(wanted), "{input} {output}");
        }
    }

    proptest! {
        #[test]
        fn no_count_makes_it_panic_and_more_never_costs_less(
            input: u64, cached: u64, write: u64, long: u64, output: u64, reasoning: u64, audio: u64,
        ) {
            let spent = Spent {
                input, cached_input: cached, cache_write: write, cache_write_1h: long, input_audio: audio,
                output, reasoning, output_audio: audio,
            };
            let found = cost(&spent, &model(), ServiceTier::Standard);
            prop_assert!(found.is_some_and(|micros| micros >= 0));
            let more = Spent { output: output.saturating_add(1_000_000), ..spent };
            prop_assert!(cost(&more, &model(), ServiceTier::Standard) >= found);
        }

        #[test]
        fn it_is_between_all_at_the_lowest_and_all_at_the_highest_rate(
            input in 0..1_000_000_u64, share in 0..=100_u64, output in 0..100_000_u64,
        ) {
            let cached = input * share / 100;
            let spent = Spent { input, cached_input: cached, output, ..Spent::default() };
            let found = u128::try_from(cost(&spent, &model(), ServiceTier::Standard).unwrap_or(-1)).unwrap_or(0);
            let (low, high) = (u128::from(input) * 3 / 10, u128::from(input) * 6 + u128::from(output) * 30);
            prop_assert!(found >= low && found <= high + 1, "{} {} {}", low, found, high);
        }
    }
}
