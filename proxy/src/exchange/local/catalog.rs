//! `GET /v1/catalog`: what the ClawRouter client makes its list of models and its
//! choice of transports from.
//!
//! What it could not use is left out. Bounds that are known of models are larger
//! than what they really take, so they are not told as limits.

use clawgate_shared::catalogue::{UnifiedRoute, Vendor, resolve};
use clawgate_shared::clock;
use clawgate_shared::dialect::Dialect;
use clawgate_shared::pricing::{Component, Entry, Rate, ServiceTier};
use serde_json::{Value, json};

use super::models::{Offer, aliases, offers, vendors};
use crate::snapshot::Bot;

/// Vendors of the OpenAI dialect that serve `responses`, as far as is known; all
/// others that have the route merely pass it on.
const RESPONSES: [&str; 3] = ["openai", "azure-openai", "xai"];

/// The document.
pub(super) fn catalog(bot: &Bot) -> Value {
    let now = clock::now_micros();
    let aliases = aliases(bot, UnifiedRoute::ChatCompletions.home());
    let provider = |(slug, vendor): (&str, &Vendor)| {
        let known = offers(bot, vendor, now);
        let of_alias = aliases.iter().filter(|(_, place)| place.vendor == slug).map(|(alias, place)| {
            let price = known.iter().find(|offer| offer.model == place.model).and_then(|offer| offer.price);
            ((*alias).to_owned(), Offer { vendor, model: place.model, price })
        });
        let by_name = known.iter().map(|offer| (format!("{slug}/{}", offer.model), *offer));
        let models: Vec<Value> = of_alias.chain(by_name).filter_map(|(id, offer)| model(&id, &offer)).collect();
        json!({
            "id": slug,
            "displayName": vendor.title,
            "allowed": true,
            "executable": true,
            "openaiCompatible": vendor.dialect == Dialect::OpenAi && speaks(vendor, UnifiedRoute::ChatCompletions),
            "nativeBaseUrl": format!("/v1/native/{slug}"),
            "policies": [],
            "readiness": { "executable": true, "reasons": [], "missingConfig": [] },
            "connectionTypes": ["api_key"],
            "routes": routes(vendor),
            "models": models,
        })
    };
    let providers: Vec<Value> = vendors(bot).into_iter().map(provider).collect();
    json!({ "version": "clawrouter.client-catalog.v1", "providers": providers })
}

fn speaks(vendor: &Vendor, route: UnifiedRoute) -> bool {
    route.at(vendor).is_some()
}

fn speaks_gemini(vendor: &Vendor) -> bool {
    resolve(vendor, "POST", "v1beta/models/m:streamGenerateContent").is_ok()
}

/// Paths below the vendor's native base.
fn routes(vendor: &Vendor) -> Vec<Value> {
    let entry = |name: &str, path: String, format: &str, streaming: &str| {
        json!({
            "endpoint": name, "methods": ["POST"], "path": path, "requestFormat": format, "responseFormat": format,
            "streaming": streaming,
        })
    };
    let mut routes: Vec<Value> = UnifiedRoute::ALL
        .into_iter()
        .filter_map(|route| {
            let (name, format, streaming) = match route {
                UnifiedRoute::ChatCompletions => ("chat_completions", "openai.chat_completions", "sse"),
                UnifiedRoute::Responses if !RESPONSES.contains(&vendor.slug.as_ref()) => return None,
                UnifiedRoute::Responses => ("responses", "openai.responses", "sse"),
                UnifiedRoute::Embeddings => ("embeddings", "openai.embeddings", "none"),
                UnifiedRoute::Messages => ("messages", "anthropic.messages", "sse"),
                UnifiedRoute::CountTokens => ("count_tokens", "anthropic.count_tokens", "none"),
            };
            let rest = route.at(vendor)?;
            // Clients know the path with its version.
            let versioned = format!("v1/{rest}");
            let path = if resolve(vendor, "POST", &versioned).is_ok() { versioned } else { rest.into_owned() };
            Some(entry(name, format!("/{path}"), format, streaming))
        })
        .collect();
    if speaks_gemini(vendor) {
        for (name, verb, streaming) in
            [("generate_content", "generateContent", "none"), ("stream", "streamGenerateContent", "sse")]
        {
            let path = format!("/v1beta/models/{{model}}:{verb}");
            routes.push(entry(name, path, "google.generate_content", streaming));
        }
    }
    routes
}

/// How a model may be called; empty: in no way that the client knows.
fn capabilities(vendor: &Vendor, model: &str) -> Vec<&'static str> {
    let embeds = model.to_ascii_lowercase().contains("embed");
    let has = |route| speaks(vendor, route);
    match vendor.dialect {
        Dialect::OpenAi if embeds => Vec::from_iter(has(UnifiedRoute::Embeddings).then_some("llm.embeddings")),
        Dialect::OpenAi => {
            let responses = RESPONSES.contains(&vendor.slug.as_ref()) && has(UnifiedRoute::Responses);
            let chat = has(UnifiedRoute::ChatCompletions);
            [responses.then_some("llm.responses"), chat.then_some("llm.chat")].into_iter().flatten().collect()
        }
        Dialect::Anthropic => Vec::from_iter(has(UnifiedRoute::Messages).then_some("llm.messages")),
        Dialect::Gemini => Vec::from_iter((speaks_gemini(vendor) && !embeds).then_some("llm.stream")),
    }
}

fn model(id: &str, offer: &Offer<'_>) -> Option<Value> {
    let capabilities = capabilities(offer.vendor, offer.model);
    (!capabilities.is_empty()).then(|| {
        json!({
            "id": id,
            "upstream": offer.model,
            "capabilities": capabilities,
            "pricing_ref": offer.price.map(|entry| &*entry.reference),
            "pricing": offer.price.map(pricing),
        })
    })
}

/// Rates of a short prompt at the usual tier, in micro-USD for a million tokens.
fn pricing(entry: &Entry) -> Value {
    let rate = |component| entry.price.rate(component, ServiceTier::Standard, 0).map(micros_per_million);
    json!({
        "inputMicrosPerMillion": rate(Component::Input),
        "outputMicrosPerMillion": rate(Component::Output),
        "cachedInputMicrosPerMillion": rate(Component::CachedInput),
        "cacheWrite5mInputMicrosPerMillion": rate(Component::CacheWrite),
        "cacheWrite1hInputMicrosPerMillion": rate(Component::CacheWrite1h),
        "maxInputTokens": null,
        "defaultMaxOutputTokens": null,
    })
}

/// Rounded half up.
fn micros_per_million(rate: Rate) -> u64 {
    const MICRO: u128 = 1_000_000_000_000;
    u64::try_from((rate.times(1_000_000) + MICRO / 2) / MICRO).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clawgate_shared::catalogue::find;

    use super::*;

    #[test]
    fn models_are_offered_on_transports_that_lead_somewhere() {
        for (slug, name, wanted) in [
            ("openai", "gpt-4o", &["llm.responses", "llm.chat"][..]),
            ("openai", "text-embedding-3-small", &["llm.embeddings"]),
            ("deepseek", "deepseek-chat", &["llm.chat"]),
            ("anthropic", "claude-sonnet-4-5", &["llm.messages"]),
            ("google", "gemini-2.5-pro", &["llm.stream"]),
            ("google", "gemini-embedding-001", &[]),
            ("vertex", "gemini-2.5-pro", &[]),
        ] {
            assert_eq!(capabilities(find(slug).expect(slug), name), wanted, "{slug} {name}");
        }
    }

    #[test]
    fn paths_are_what_clients_append_to_the_native_base() {
        let paths = |slug: &str| {
            let routes = routes(find(slug).expect(slug));
            let path = |route: &Value| route["path"].as_str().unwrap_or_default().to_owned();
            routes.iter().map(path).collect::<Vec<_>>()
        };
        let openai = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"];
        assert_eq!(paths("openai"), openai);
        assert!(paths("anthropic").contains(&"/v1/messages".to_owned()));
        assert!(paths("deepseek").contains(&"/anthropic/v1/messages".to_owned()));
        assert!(paths("google").contains(&"/v1beta/models/{model}:streamGenerateContent".to_owned()));
    }

    #[test]
    fn rates_are_whole_micros() {
        for (text, micros) in [("2.5", 2_500_000), ("0", 0), ("0.0000004", 0), ("0.0000005", 1)] {
            assert_eq!(micros_per_million(Rate::per_million(text).expect("a rate")), micros, "{text}");
        }
    }
}
