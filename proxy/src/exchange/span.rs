//! The spans of an exchange, by the `OpenTelemetry` conventions for generative
//! AI: one for the exchange, one below it for each attempt. No prompt, no
//! secret, no query.

use clawgate_shared::usage::Usage;

use super::account::Ending;
use super::record::{Facts, Tried};
use crate::telemetry::{Kind, Span, Trace, TraceValue, Traces};

type Attributes = Vec<(&'static str, TraceValue)>;

/// Hands on the spans of an exchange that has ended; `asked` is the model that
/// the client named.
pub(super) fn end(traces: &Traces, facts: &Facts, ending: &Ending, usage: &Usage, asked: &str) {
    let Some(trace) = facts.trace.filter(|trace| trace.sampled) else { return };
    let micros = |micros: u64| facts.at_micros.saturating_add_unsigned(micros);
    let operation = operation(&facts.endpoint);
    let name = [operation.unwrap_or(facts.method.as_str()), asked];
    let mut attributes = common(facts, operation);
    text(&mut attributes, "gen_ai.request.model", asked);
    if !facts.tried.is_empty() {
        text(&mut attributes, "gen_ai.response.model", &facts.model);
    }
    text(&mut attributes, "gen_ai.conversation.id", &facts.session_id);
    for (name, count) in [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_input),
        ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write),
        ("clawgate.usage.reasoning_tokens", usage.reasoning),
    ] {
        if let Some(count) = count {
            number(&mut attributes, name, count);
        }
    }
    text(&mut attributes, "http.request.method", facts.method.as_str());
    text(&mut attributes, "url.path", &facts.path);
    number(&mut attributes, "http.response.status_code", u64::from(facts.status));
    text(&mut attributes, "clawgate.request_id", &facts.id);
    text(&mut attributes, "clawgate.client_request_id", &facts.client_request_id);
    text(&mut attributes, "clawgate.outcome", ending.outcome.as_str());
    text(&mut attributes, "clawgate.key.id", facts.key.as_ref().map_or("", |(id, _)| id));
    number(&mut attributes, "clawgate.attempts", facts.tried.len() as u64);
    attributes.push(("clawgate.stream", TraceValue::Flag(facts.stream)));
    if let Some(ttft) = facts.ttft_micros {
        number(&mut attributes, "clawgate.ttft_us", ttft);
    }
    let error = error(facts, ending);
    text(&mut attributes, "error.type", error.as_deref().unwrap_or_default());
    for tried in &facts.tried {
        traces.end(attempt(trace.child(), facts, tried, operation, asked));
    }
    traces.end(Span {
        trace,
        name: name.join(" ").trim_end().to_owned(),
        kind: Kind::Server,
        began_micros: facts.at_micros,
        ended_micros: micros(ending.duration_micros),
        error,
        attributes,
    });
}

fn attempt(trace: Trace, facts: &Facts, tried: &Tried, operation: Option<&'static str>, asked: &str) -> Span {
    let mut attributes = common(facts, operation);
    text(&mut attributes, "gen_ai.request.model", asked);
    text(&mut attributes, "clawgate.key.id", &tried.key_id);
    let pool = facts.bot.as_deref().and_then(|bot| bot.pools.get(facts.vendor.as_str()));
    if let Some(key) = pool.and_then(|pool| pool.keys.iter().find(|key| key.id == tried.key_id)) {
        text(&mut attributes, "server.address", &key.base.origin.host);
        number(&mut attributes, "server.port", u64::from(key.base.origin.port));
    }
    let error = if tried.reason.is_empty() {
        (tried.status >= 400).then(|| tried.status.to_string())
    } else {
        Some(tried.reason.to_owned())
    };
    if tried.status > 0 {
        number(&mut attributes, "http.response.status_code", u64::from(tried.status));
    }
    text(&mut attributes, "error.type", error.as_deref().unwrap_or_default());
    let began = facts.at_micros.saturating_add_unsigned(tried.began_micros);
    Span {
        trace,
        name: format!("attempt {}", facts.vendor),
        kind: Kind::Client,
        began_micros: began,
        ended_micros: began.saturating_add(i64::from(tried.millis) * 1000),
        error,
        attributes,
    }
}

fn common(facts: &Facts, operation: Option<&'static str>) -> Attributes {
    let mut attributes = Attributes::with_capacity(24);
    text(&mut attributes, "gen_ai.operation.name", operation.unwrap_or_default());
    text(&mut attributes, "gen_ai.provider.name", provider(&facts.vendor));
    text(&mut attributes, "clawgate.vendor", &facts.vendor);
    if let Some(bot) = &facts.bot {
        text(&mut attributes, "clawgate.bot", &bot.hostname);
        text(&mut attributes, "clawgate.tenant.id", &bot.tenant.id);
    }
    attributes
}

/// What is empty is not said.
fn text(attributes: &mut Attributes, name: &'static str, value: &str) {
    if !value.is_empty() {
        attributes.push((name, TraceValue::Text(value.to_owned())));
    }
}

fn number(attributes: &mut Attributes, name: &'static str, value: u64) {
    attributes.push((name, TraceValue::Number(i64::try_from(value).unwrap_or(i64::MAX))));
}

/// In one word that has few values.
fn error(facts: &Facts, ending: &Ending) -> Option<String> {
    if let Some(refusal) = &ending.refusal {
        return Some(refusal.code.as_str().to_owned());
    }
    match ending.outcome {
        super::Outcome::Ok => None,
        _ if facts.status >= 400 => Some(facts.status.to_string()),
        other => Some(other.as_str().to_owned()),
    }
}

/// The conventions' word for what a route does, where they have one.
fn operation(endpoint: &str) -> Option<&'static str> {
    let has = |part: &str| endpoint.contains(part);
    Some(if has("embed") || has("Embed") {
        "embeddings"
    } else if has("enerateContent") {
        "generate_content"
    } else if has("chat") || has("Chat") || has("messages") || has("responses") || has("converse") || has("realtime") {
        "chat"
    } else if has("completions") || has("complete") || has("generate") {
        "text_completion"
    } else {
        return None;
    })
}

/// The conventions' name of a vendor; ours where they have none.
fn provider(vendor: &str) -> &str {
    match vendor {
        "google" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "azure-openai" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "moonshot" => "moonshot_ai",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_the_words_of_the_conventions() {
        for (endpoint, word) in [
            ("chat/completions", Some("chat")),
            ("v1/messages", Some("chat")),
            ("responses", Some("chat")),
            ("realtime", Some("chat")),
            ("completions", Some("text_completion")),
            ("models/g:streamGenerateContent", Some("generate_content")),
            ("models/g:batchEmbedContents", Some("embeddings")),
            ("embeddings", Some("embeddings")),
            ("rerank", None),
            ("models", None),
        ] {
            assert_eq!(operation(endpoint), word, "{endpoint}");
        }
    }
}
