//! LiteLLM's price file: one object, from model names to prices per token.
//!
//! Read exactly, from the text of its numbers. Names of prices say everything:
//! `input_cost_per_token_above_200k_tokens_priority` is the input rate of the
//! priority tier when the prompt has more than 200,000 tokens. Fields that are
//! not known, and models of vendors that are not in the catalogue, are left
//! out; a known field that cannot be read is an error that names both.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::price::{Component, Price, ServiceTier};
use super::rate::Rate;
use super::text::FieldFault;

/// Most models that a file may have.
pub const MAX_MODELS: usize = 50_000;
/// Most faults that are told at once.
pub const MAX_FAULTS: usize = 100;
/// Documents the fields; no model.
const SAMPLE: &str = "sample_spec";

/// LiteLLM's provider, our vendor, and which one counts when two have a model of
/// the same name (the lower). Providers beginning with `vertex_ai` are `vertex`.
const PROVIDERS: &[(&str, &str, u8)] = &[
    ("anthropic", "anthropic", 0),
    ("azure", "azure-openai", 0),
    ("azure_ai", "azure-openai", 2),
    ("azure_text", "azure-openai", 1),
    ("bedrock", "bedrock", 0),
    ("bedrock_converse", "bedrock", 0),
    ("bedrock_mantle", "bedrock", 1),
    ("bigmodel", "zhipu", 1),
    ("cerebras", "cerebras", 0),
    ("codestral", "mistral", 1),
    ("cohere", "cohere", 0),
    ("cohere_chat", "cohere", 0),
    ("dashscope", "dashscope", 0),
    ("deepseek", "deepseek", 0),
    ("fireworks_ai", "fireworks", 0),
    ("fireworks_ai-embedding-models", "fireworks", 0),
    ("gemini", "google", 0),
    ("groq", "groq", 0),
    ("minimax", "minimax", 0),
    ("mistral", "mistral", 0),
    ("moonshot", "moonshot", 0),
    ("nvidia_nim", "nvidia", 0),
    ("ollama", "ollama", 0),
    ("openai", "openai", 0),
    ("openrouter", "openrouter", 0),
    ("perplexity", "perplexity", 0),
    ("tencent", "hunyuan", 0),
    ("text-completion-codestral", "mistral", 1),
    ("text-completion-openai", "openai", 1),
    ("together_ai", "together", 0),
    ("volcengine", "doubao", 0),
    ("xai", "xai", 0),
    ("zai", "zhipu", 0),
];

/// A model's price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Slug of the catalogue.
    pub vendor: &'static str,
    /// As the vendor calls it.
    pub model: String,
    /// Never empty.
    pub price: Price,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceFile {
    /// By vendor and model, each once.
    pub models: Vec<Listed>,
    /// Models of vendors that the catalogue does not have.
    pub other_vendors: usize,
    /// Models that are not billed by token or request, or have no price.
    pub not_by_token: usize,
}

/// Why a file is refused: nothing of it is taken then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceFileError {
    /// Not one JSON object.
    #[error("not a JSON object (line {line}, column {column})")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// More than [`MAX_MODELS`].
    #[error("more than {MAX_MODELS} models")]
    TooMany,
    /// Fields that cannot be read, at most [`MAX_FAULTS`]; each begins with the
    /// model's name.
    #[error("{} field(s) cannot be read", .0.len())]
    Fields(Vec<FieldFault>),
}

/// Vendor and model.
type Place = (&'static str, String);
/// Of two prices for one place, the lower counts: the provider's rank, then
/// whether the name lacks the provider's prefix.
type Rank = (u8, bool);
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Reads a file.
///
/// # Errors
/// See [`PriceFileError`].
pub fn parse(bytes: &[u8]) -> Result<PriceFile, PriceFileError> {
    let whole: Fields<'_> = serde_json::from_slice(bytes)
        .map_err(|error| PriceFileError::NotJson { line: error.line(), column: error.column() })?;
    if whole.len() > MAX_MODELS {
        return Err(PriceFileError::TooMany);
    }
    let mut file = PriceFile::default();
    let mut faults = Vec::new();
    let mut found: BTreeMap<Place, (Rank, Price)> = BTreeMap::new();
    for (name, raw) in whole.iter().filter(|(name, _)| *name != SAMPLE) {
        match model(raw) {
            Err(fault) if faults.len() < MAX_FAULTS => {
                faults.push(FieldFault::new(format!("{name}.{}", fault.field), fault.reason));
            }
            Err(_) => {}
            Ok(Read::OtherVendor) => file.other_vendors += 1,
            Ok(Read::NotByToken) => file.not_by_token += 1,
            Ok(Read::Priced { provider, vendor, rank, price }) => {
                let bare = bare(name, provider);
                let rank = (rank, bare.len() == name.len());
                let key = (vendor, bare.to_ascii_lowercase());
                if found.get(&key).is_none_or(|(known, _)| rank < *known) {
                    found.insert(key, (rank, price));
                }
            }
        }
    }
    if !faults.is_empty() {
        return Err(PriceFileError::Fields(faults));
    }
    file.models = found.into_iter().map(|((vendor, model), (_, price))| Listed { vendor, model, price }).collect();
    Ok(file)
}

/// A model's name without LiteLLM's own prefix (`gemini/`, `vertex_ai/`).
fn bare<'a>(name: &'a str, provider: &str) -> &'a str {
    let own = match provider {
        "fireworks_ai-embedding-models" => "fireworks_ai",
        other => other,
    };
    match name.split_once('/') {
        Some((first, rest)) if first == own || (first == "azure" && provider == "azure_text") => rest,
        _ => name,
    }
}

enum Read {
    OtherVendor,
    NotByToken,
    Priced { provider: &'static str, vendor: &'static str, rank: u8, price: Price },
}

fn model(raw: &RawValue) -> Result<Read, FieldFault> {
    let fields: Fields<'_> = serde_json::from_str(raw.get()).map_err(|_| FieldFault::new("", "must be an object"))?;
    let provider: Option<String> = match fields.get("litellm_provider") {
        None => None,
        Some(raw) => {
            Some(serde_json::from_str(raw.get()).map_err(|_| FieldFault::new("litellm_provider", "must be a text"))?)
        }
    };
    let Some((provider, vendor, rank)) = provider.as_deref().and_then(vendor_of) else {
        return Ok(Read::OtherVendor);
    };
    let mut price = Price::default();
    let mut other_unit = false;
    for (name, raw) in &fields {
        match Field::parse(name) {
            Some(field) => field.take(name, raw, &mut price)?,
            // Images, seconds, pages: not ours to bill, but a price.
            None => {
                other_unit |= name.contains("_cost_per_") && Rate::per_unit(raw.get()).is_ok_and(|r| r != Rate::ZERO)
            }
        }
    }
    if let Some(raw) = fields.get("tiered_pricing") {
        tiers(raw, &mut price)?;
    }
    if price.is_empty() || (price.is_free() && other_unit) {
        return Ok(Read::NotByToken);
    }
    Ok(Read::Priced { provider, vendor, rank, price })
}

fn vendor_of(provider: &str) -> Option<(&'static str, &'static str, u8)> {
    if provider.starts_with("vertex_ai") {
        return Some(("vertex_ai", "vertex", 0));
    }
    PROVIDERS.iter().copied().find(|(name, _, _)| *name == provider)
}

/// What the name of a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    component: Component,
    tier: ServiceTier,
    above: u64,
    /// An older name of the same price: does not replace the newer.
    old: bool,
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        let tiers =
            [("_batches", ServiceTier::Batch), ("_flex", ServiceTier::Flex), ("_priority", ServiceTier::Priority)];
        let (rest, tier) = tiers
            .iter()
            .find_map(|(suffix, tier)| Some((name.strip_suffix(suffix)?, *tier)))
            .unwrap_or((name, ServiceTier::Standard));
        let (rest, above) = match rest.strip_suffix("_tokens").and_then(|rest| rest.rsplit_once("_above_")) {
            Some((rest, count)) => (rest, thousands(count)?),
            None => (rest, 0),
        };
        let component = match rest {
            "input_cost_per_token" => Component::Input,
            "cache_read_input_token_cost" | "input_cost_per_token_cache_hit" => Component::CachedInput,
            "cache_creation_input_token_cost" => Component::CacheWrite,
            "cache_creation_input_token_cost_above_1hr" => Component::CacheWrite1h,
            "input_cost_per_audio_token" => Component::InputAudio,
            "output_cost_per_token" => Component::Output,
            "output_cost_per_reasoning_token" => Component::Reasoning,
            "output_cost_per_audio_token" => Component::OutputAudio,
            "input_cost_per_request" => Component::Request,
            _ => return None,
        };
        Some(Self { component, tier, above, old: rest == "input_cost_per_token_cache_hit" })
    }

    fn take(self, name: &str, raw: &RawValue, price: &mut Price) -> Result<(), FieldFault> {
        let text = raw.get();
        if text == "null" {
            return Ok(());
        }
        let rate = Rate::per_unit(text).map_err(|error| FieldFault::new(name, error))?;
        let known = |band: &super::Band| {
            band.tier == self.tier && band.above == self.above && band.rates.get(self.component).is_some()
        };
        if !(self.old && price.bands().iter().any(known)) {
            price.set(self.tier, self.above, self.component, rate);
        }
        Ok(())
    }
}

/// `200k`, `1m`
fn thousands(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (text.strip_suffix('m')?, 1_000_000),
    };
    digits.parse::<u32>().ok().filter(|count| *count > 0).map(|count| u64::from(count) * unit)
}

/// `tiered_pricing`: each entry holds for prompts of more tokens than its range
/// begins with; the last also beyond its end.
fn tiers(raw: &RawValue, price: &mut Price) -> Result<(), FieldFault> {
    let entries: Vec<Fields<'_>> = serde_json::from_str(raw.get())
        .map_err(|_| FieldFault::new("tiered_pricing", "must be an array of objects"))?;
    for (at, fields) in entries.iter().enumerate() {
        let place = |name: &str| format!("tiered_pricing[{at}].{name}");
        let wrong = || FieldFault::new(place("range"), "must be two token counts");
        let range: Vec<&RawValue> =
            serde_json::from_str(fields.get("range").ok_or_else(wrong)?.get()).map_err(|_| wrong())?;
        let [from, _to] = range.as_slice() else { return Err(wrong()) };
        let above = whole_number(from.get()).ok_or_else(wrong)?;
        for (name, raw) in fields {
            if let Some(field) = Field::parse(name) {
                Field { above, ..field }.take(&place(name), raw, price)?;
            }
        }
    }
    Ok(())
}

/// `256000`, `256000.0`
fn whole_number(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b == b'0') {
        return None;
    }
    whole.parse().ok()
}

#[cfg(test)]
mod tests;
