//! The dialects: from a route and a body to an answer in the vendor's words.
//!
//! Invariant: an answer is a pure function of route, body and knobs.
//! Deliberately absent: sockets, time, the ledger.

mod anthropic;
mod cohere;
mod error;
mod gemini;
mod lists;
mod mistral;
mod ollama;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;

use crate::answer::{Answer, Bill};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Plan, Sketch};

/// Which vendor's language a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    Ollama,
    Cohere,
    Mistral,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Messages,
    CountTokens,
    Generate,
    StreamGenerate,
    GeminiCount,
    EmbedContent,
    BatchEmbed,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    CohereChat,
    Models,
}

/// A recognised route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    /// The model named by the path (Gemini, and `/models/{id}`).
    pub(crate) model: Option<&'a str>,
}

impl Operation {
    /// The name in the ledger.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "openai-chat",
            Self::Completions => "openai-completions",
            Self::Responses => "openai-responses",
            Self::Embeddings => "openai-embeddings",
            Self::Messages => "anthropic-messages",
            Self::CountTokens => "anthropic-count",
            Self::Generate | Self::StreamGenerate => "gemini",
            Self::GeminiCount => "gemini-count",
            Self::EmbedContent | Self::BatchEmbed => "gemini-embed",
            Self::OllamaChat => "ollama-chat",
            Self::OllamaGenerate => "ollama-generate",
            Self::OllamaEmbed => "ollama-embed",
            Self::CohereChat => "cohere-chat",
            Self::Models => "models",
        }
    }
}

/// What tells vendors apart on the routes they share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    /// `anthropic-version` is present.
    pub(crate) anthropic: bool,
    /// A Google credential is present.
    pub(crate) google: bool,
}

/// Recognises a path by its end, so that any prefix a vendor has will do.
pub(crate) fn route(path: &str, hints: Hints) -> Option<Route<'_>> {
    let plain = |dialect, operation| Some(Route { dialect, operation, model: None });
    let path = path.trim_end_matches('/');
    let (before, last) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some((model, verb)) = last.rsplit_once(':') {
        let operation = match verb {
            "generateContent" => Operation::Generate,
            "streamGenerateContent" => Operation::StreamGenerate,
            "countTokens" => Operation::GeminiCount,
            "embedContent" => Operation::EmbedContent,
            "batchEmbedContents" => Operation::BatchEmbed,
            _ => return None,
        };
        return Some(Route { dialect: Dialect::Gemini, operation, model: Some(model) });
    }
    let of_ollama = before.ends_with("/api") || before == "api";
    // A dialect of its own on another vendor's paths: told by what is in front of them.
    let openai = if path.starts_with("/mistral/") { Dialect::Mistral } else { Dialect::OpenAi };
    match last {
        "completions" if before.ends_with("/chat") => plain(openai, Operation::Chat),
        "completions" => plain(Dialect::OpenAi, Operation::Completions),
        "responses" => plain(Dialect::OpenAi, Operation::Responses),
        "embeddings" => plain(openai, Operation::Embeddings),
        "messages" => plain(Dialect::Anthropic, Operation::Messages),
        "count_tokens" => plain(Dialect::Anthropic, Operation::CountTokens),
        "chat" if of_ollama => plain(Dialect::Ollama, Operation::OllamaChat),
        "chat" if before.ends_with("/v2") || before == "v2" => plain(Dialect::Cohere, Operation::CohereChat),
        "generate" if of_ollama => plain(Dialect::Ollama, Operation::OllamaGenerate),
        "embed" if of_ollama => plain(Dialect::Ollama, Operation::OllamaEmbed),
        "tags" if of_ollama => plain(Dialect::Ollama, Operation::Models),
        "models" => plain(list_dialect(path, hints), Operation::Models),
        model if before.ends_with("/models") || before == "models" => {
            Some(Route { dialect: list_dialect(path, hints), operation: Operation::Models, model: Some(model) })
        }
        _ => None,
    }
}

fn list_dialect(path: &str, hints: Hints) -> Dialect {
    if hints.anthropic {
        Dialect::Anthropic
    } else if hints.google || path.contains("/v1beta/") && !path.contains("/openai/") {
        Dialect::Gemini
    } else {
        Dialect::OpenAi
    }
}

/// What a request is worth knowing for beyond its answer.
pub(crate) struct Spoken {
    pub(crate) answer: Answer,
    pub(crate) model: String,
    pub(crate) stream: bool,
}

/// The answer whose body was told.
pub(crate) fn told(body: &str) -> Answer {
    let kind = if body.starts_with('{') { "application/json" } else { "text/event-stream" };
    Answer::whole(200, kind, body.as_bytes().to_vec(), Bill::default())
}

/// Answers a recognised route. `sse` is Gemini's `alt=sse`, `credential` is
/// what a rude vendor quotes in its 401.
pub(crate) fn speak(route: Route<'_>, body: &[u8], sse: bool, credential: &str, knobs: &Knobs) -> Spoken {
    if route.operation == Operation::Models {
        let answer = knobs.status.map_or_else(
            || lists::models(route),
            |status| error::answer(route.dialect, status, knobs.error_code.as_deref(), credential),
        );
        return Spoken { answer, model: route.model.unwrap_or_default().to_owned(), stream: false };
    }
    let sketch: Sketch<'_> = match serde_json::from_slice(body) {
        Ok(sketch) => sketch,
        Err(cause) => {
            let answer = error::bad_request(route.dialect, &cause.to_string());
            return Spoken { answer, model: String::new(), stream: false };
        }
    };
    let plan = Plan::new(&sketch, route.model, knobs);
    if let Some(status) = knobs.status.filter(|status| *status >= 300) {
        let answer = error::answer(route.dialect, status, knobs.error_code.as_deref(), credential);
        return Spoken { answer, model: plan.model, stream: false };
    }
    if let Some(body) = &knobs.body {
        return Spoken { answer: told(body), model: plan.model, stream: plan.stream };
    }
    let of_mistral = route.dialect == Dialect::Mistral;
    let (answer, stream) = match route.operation {
        Operation::Chat if of_mistral && plan.stream => (mistral::stream(&plan, knobs), true),
        Operation::Chat if of_mistral => (mistral::whole(&plan, knobs), false),
        Operation::Embeddings if of_mistral => (mistral::embeddings(&plan, &sketch, knobs), false),
        Operation::Chat if plan.stream => (openai_chat::stream(&plan, knobs), true),
        Operation::Chat => (openai_chat::whole(&plan, knobs), false),
        Operation::Completions if plan.stream => (openai_completions::stream(&plan, knobs), true),
        Operation::Completions => (openai_completions::whole(&plan, knobs), false),
        Operation::Responses if plan.stream => (openai_responses::stream(&plan, knobs), true),
        Operation::Responses => (openai_responses::whole(&plan, knobs), false),
        Operation::Embeddings => (openai_embeddings::whole(&plan, &sketch, knobs), false),
        Operation::Messages if plan.stream => (anthropic::stream(&plan, knobs), true),
        Operation::Messages => (anthropic::whole(&plan, knobs), false),
        Operation::CountTokens => (anthropic::count(&plan), false),
        Operation::Generate => (gemini::whole(&plan, knobs), false),
        Operation::StreamGenerate => (gemini::stream(&plan, knobs, sse), true),
        Operation::GeminiCount => (gemini::count(&plan), false),
        Operation::EmbedContent => (gemini::embed(&plan), false),
        Operation::BatchEmbed => (gemini::batch_embed(&plan, &sketch), false),
        Operation::OllamaChat | Operation::OllamaGenerate => {
            let stream = sketch.stream.unwrap_or(true);
            (ollama::generate(&plan, knobs, route.operation, stream), stream)
        }
        Operation::OllamaEmbed => (ollama::embed(&plan), false),
        Operation::CohereChat if plan.stream => (cohere::stream(&plan, knobs), true),
        Operation::CohereChat => (cohere::whole(&plan, knobs), false),
        Operation::Models => (lists::models(route), false),
    };
    let mut answer = answer;
    if knobs.usage == UsageVariant::Zero {
        answer.bill = Bill::default();
    }
    if let Some(status) = knobs.status {
        answer.status = status;
    }
    account_headers(route.dialect, &plan, &mut answer);
    Spoken { answer, model: plan.model, stream }
}

/// An error of this dialect, for failures outside a dialect's own code.
pub(crate) fn failure(dialect: Dialect, status: u16, message: &str) -> Answer {
    error::shaped(dialect, status, None, message)
}

/// What vendors tell about the account; a gateway has to take it out.
fn account_headers(dialect: Dialect, plan: &Plan, answer: &mut Answer) {
    let mut add = |name: &str, value: String| answer.headers.push((name.to_owned(), value));
    match dialect {
        Dialect::OpenAi => {
            add("x-request-id", plan.id("req_", 900));
            add("openai-organization", "org-mock".to_owned());
            add("x-ratelimit-remaining-requests", "9999".to_owned());
        }
        Dialect::Anthropic => {
            add("request-id", plan.id("req_", 900));
            add("anthropic-organization-id", "org-mock".to_owned());
            add("anthropic-ratelimit-requests-remaining", "9999".to_owned());
        }
        Dialect::Cohere => {
            add("x-debug-trace-id", plan.id("", 900));
            add("x-endpoint-monthly-call-limit", "1000".to_owned());
        }
        Dialect::Mistral => add("x-ratelimit-remaining-req-minute", "59".to_owned()),
        Dialect::Gemini | Dialect::Ollama => {}
    }
}

/// A plausible embedding: `size` numbers in -1..1.
pub(crate) fn vector(seed: u64, size: u64) -> Vec<f64> {
    let mut rng = crate::rng::Rng::new(seed);
    (0..size).map(|_| (rng.between(0, 2000) as f64 - 1000.0) / 1000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_under_any_prefix() {
        let cases = [
            ("/v1/chat/completions", Operation::Chat),
            ("/chat/completions", Operation::Chat),
            ("/openai/deployments/d/chat/completions", Operation::Chat),
            ("/v1/completions", Operation::Completions),
            ("/api/v1/responses", Operation::Responses),
            ("/v1/embeddings", Operation::Embeddings),
            ("/v1/messages", Operation::Messages),
            ("/anthropic/v1/messages/count_tokens", Operation::CountTokens),
            ("/v1beta/models/g:generateContent", Operation::Generate),
            ("/v1/projects/p/models/g:streamGenerateContent", Operation::StreamGenerate),
            ("/api/chat", Operation::OllamaChat),
            ("/v2/chat", Operation::CohereChat),
            ("/v1/models", Operation::Models),
            ("/v1/models/gpt-4o", Operation::Models),
        ];
        for (path, operation) in cases {
            assert_eq!(route(path, Hints::default()).unwrap().operation, operation, "{path}");
        }
        assert!(route("/v1/files", Hints::default()).is_none());
        let google = route("/v1beta/models", Hints::default()).unwrap();
        assert_eq!(google.dialect, Dialect::Gemini);
        let compatible = route("/v1beta/openai/models", Hints::default()).unwrap();
        assert_eq!(compatible.dialect, Dialect::OpenAi);
    }
}
