//! The shapes of prices.

use clawgate_shared::clock;
use clawgate_shared::pricing::{Band, Component, Entry, Price, Rates, ServiceTier};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::prices::{Imported, NewPrice};
use crate::http::body::Named;
use crate::http::problem::{FieldProblem, Problem};
use crate::prices::Source;
use crate::store::prices::PriceRow;

/// Rates in effect for one service tier and prompts of some length: USD per
/// million tokens, as decimal text.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceBand {
    /// standard (default), batch, flex or priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    /// In effect when the prompt has more tokens than this; 0 (default): always.
    #[serde(default)]
    above: u64,
    /// Prompt tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    /// Read from the cache; as input unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cached_input: Option<String>,
    /// Written to the cache; as input unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write: Option<String>,
    /// Written for an hour; as cache_write unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write_1h: Option<String>,
    /// Audio in the prompt; as input unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_audio: Option<String>,
    /// Generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// Reasoning; as output unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    /// Generated audio; as output unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_audio: Option<String>,
    /// USD per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
}

impl PriceBand {
    fn text(&mut self, component: Component) -> &mut Option<String> {
        match component {
            Component::Input => &mut self.input,
            Component::CachedInput => &mut self.cached_input,
            Component::CacheWrite => &mut self.cache_write,
            Component::CacheWrite1h => &mut self.cache_write_1h,
            Component::InputAudio => &mut self.input_audio,
            Component::Output => &mut self.output,
            Component::Reasoning => &mut self.reasoning,
            Component::OutputAudio => &mut self.output_audio,
            Component::Request => &mut self.request,
        }
    }

    fn read(mut self, place: &str, errors: &mut Vec<FieldProblem>) -> Band {
        let tier = ServiceTier::parse(self.tier.as_deref().unwrap_or("standard")).unwrap_or_else(|| {
            let problem = FieldProblem::new(format!("{place}.tier"), "one_of");
            errors.push(problem.saying("must be standard, batch, flex or priority"));
            ServiceTier::Standard
        });
        let mut rates = Rates::default();
        for component in Component::ALL {
            let Some(text) = self.text(component).take() else { continue };
            match component.rate(&text) {
                Ok(rate) => rates.set(component, rate),
                Err(error) => {
                    let field = format!("{place}.{}", component.as_str());
                    errors.push(FieldProblem::new(field, "format").saying(error.to_string()));
                }
            }
        }
        Band { tier, above: self.above, rates }
    }
}

impl From<&Band> for PriceBand {
    fn from(band: &Band) -> Self {
        let mut view = Self { tier: Some(band.tier.as_str().to_owned()), above: band.above, ..Self::default() };
        for component in Component::ALL {
            *view.text(component) = band.rates.get(component).map(|rate| component.rate_text(rate));
        }
        view
    }
}

/// A price in effect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Price)]
pub struct PriceView {
    vendor: String,
    /// As prices are looked for: in lower case.
    model: String,
    /// tenant, platform, import or builtin: who says so.
    source: String,
    /// What stands beside a cost that was computed with it.
    price_ref: String,
    /// null: always.
    effective_from: Option<String>,
    bands: Vec<PriceBand>,
}

impl PriceView {
    /// A price as it was found.
    pub fn new(vendor: &str, model: &str, source: Source, entry: &Entry) -> Self {
        Self {
            vendor: vendor.to_owned(),
            model: model.to_owned(),
            source: source.as_str().to_owned(),
            price_ref: entry.reference.to_string(),
            effective_from: (entry.from > i64::MIN).then(|| clock::rfc3339(entry.from)),
            bands: entry.price.bands().iter().map(PriceBand::from).collect(),
        }
    }
}

/// Every price set by hand, of the tenant or of the platform.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplacePrices {
    /// Replaces all there were; what is left out ends now.
    pub prices: Vec<PriceEntry>,
}

/// A price to be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceEntry {
    vendor: String,
    model: String,
    /// RFC 3339; from now on unless given.
    effective_from: Option<String>,
    bands: Vec<PriceBand>,
}

impl ReplacePrices {
    /// For the domain.
    ///
    /// # Errors
    /// 422 naming every field that cannot be read.
    pub fn read(self) -> Result<Vec<NewPrice>, Problem> {
        let mut errors = Vec::new();
        let mut list = Vec::new();
        for (at, entry) in self.prices.into_iter().enumerate() {
            let place = format!("prices[{at}]");
            let bands = entry.bands.into_iter().enumerate();
            let price = Price::new(bands.map(|(n, band)| band.read(&format!("{place}.bands[{n}]"), &mut errors)));
            let effective_from = match entry.effective_from.as_deref().map(clock::parse_rfc3339) {
                None => None,
                Some(Ok(at)) => Some(at),
                Some(Err(_)) => {
                    let problem = FieldProblem::new(format!("{place}.effective_from"), "format");
                    errors.push(problem.saying("must be an RFC 3339 time"));
                    None
                }
            };
            list.push(NewPrice { vendor: entry.vendor, model: entry.model, price, effective_from });
        }
        if errors.is_empty() { Ok(list) } else { Err(Problem::invalid(errors)) }
    }
}

/// The prices that are set by hand now.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceSet {
    /// By vendor, model and time.
    data: Vec<SetPrice>,
}

/// A price that is set by hand.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetPrice {
    id: String,
    vendor: String,
    model: String,
    effective_from: String,
    created_by: String,
    created_at: String,
    bands: Vec<PriceBand>,
}

impl From<Vec<PriceRow>> for PriceSet {
    fn from(rows: Vec<PriceRow>) -> Self {
        let view = |row: PriceRow| SetPrice {
            id: row.id,
            vendor: row.vendor,
            model: row.model,
            effective_from: clock::rfc3339(row.effective_from),
            created_by: row.created_by,
            created_at: clock::rfc3339(row.created_at),
            bands: row.price.bands().iter().map(PriceBand::from).collect(),
        };
        Self { data: rows.into_iter().map(view).collect() }
    }
}

/// What came of an import.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceImport {
    /// Models that had no imported price.
    added: usize,
    /// Models that cost something else now.
    changed: usize,
    /// Models that cost the same.
    unchanged: usize,
    /// Models of vendors that are not in the catalogue.
    other_vendors: usize,
    /// Models that are not billed by token.
    not_by_token: usize,
}

impl PriceImport {
    /// `skipped`: models of other vendors, models not billed by token.
    pub const fn new(done: Imported, skipped: (usize, usize)) -> Self {
        Self {
            added: done.added,
            changed: done.changed,
            unchanged: done.unchanged,
            other_vendors: skipped.0,
            not_by_token: skipped.1,
        }
    }
}

/// Whose prices, and which.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PricesFilter {
    /// tenant (default) or platform: without what a tenant has set.
    pub scope: Option<String>,
    /// Vendor slug.
    pub vendor: Option<String>,
    /// Exact name.
    pub model: Option<String>,
    /// tenant, platform, import or builtin.
    pub source: Option<String>,
}

impl Named for PricesFilter {
    const NAMES: &'static [&'static str] = &["scope", "vendor", "model", "source"];
}

/// Whose prices.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PricesScope {
    /// tenant (default) or platform.
    pub scope: Option<String>,
}

/// How a file is taken over.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// RFC 3339; from now on unless given.
    pub effective_from: Option<String>,
}

/// LiteLLM's price file: model names to their fields.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "for the document; the file is read as text")]
pub struct LiteLlmPrices(std::collections::BTreeMap<String, serde_json::Value>);
