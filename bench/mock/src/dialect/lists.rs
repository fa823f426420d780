//! Model lists, one shape per vendor.

use serde_json::{Value, json};

use super::{Dialect, Route};
use crate::answer::{Answer, Bill};

/// The list, or one entry when the path names a model.
pub(super) fn models(route: Route<'_>) -> Answer {
    let names: Vec<&str> = match route.dialect {
        Dialect::OpenAi => vec!["gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "mock-1"],
        Dialect::Anthropic => vec!["claude-sonnet-4-5", "claude-haiku-4-5"],
        Dialect::Gemini => vec!["gemini-2.5-flash", "gemini-2.5-pro"],
        Dialect::Mistral => vec!["mistral-small-latest"],
        Dialect::Ollama => vec!["llama3.2:latest"],
        Dialect::Cohere => vec!["command-a-03-2025"],
    };
    let body = match (route.dialect, route.model) {
        (dialect, Some(name)) => entry(dialect, name),
        (Dialect::OpenAi | Dialect::Mistral, None) => json!({"object": "list", "data": entries(route.dialect, &names)}),
        (Dialect::Anthropic, None) => json!({
            "data": entries(route.dialect, &names),
            "has_more": false,
            "first_id": names.first(),
            "last_id": names.last(),
        }),
        (Dialect::Gemini | Dialect::Ollama | Dialect::Cohere, None) => {
            json!({"models": entries(route.dialect, &names)})
        }
    };
    Answer::json(200, &body, Bill::default())
}

fn entries(dialect: Dialect, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| entry(dialect, name)).collect()
}

fn entry(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::OpenAi | Dialect::Mistral => {
            json!({"id": name, "object": "model", "created": 1_704_067_200, "owned_by": "mock"})
        }
        Dialect::Anthropic => {
            json!({"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"})
        }
        Dialect::Gemini => json!({
            "name": format!("models/{name}"),
            "displayName": name,
            "version": "001",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }),
        Dialect::Cohere => json!({"name": name, "endpoints": ["chat"], "context_length": 256_000}),
        Dialect::Ollama => json!({
            "name": name,
            "model": name,
            "modified_at": "2024-01-01T00:00:00Z",
            "size": 1,
            "digest": "0000",
            "details": {"format": "gguf", "family": "llama", "parameter_size": "3B", "quantization_level": "Q4"},
        }),
    }
}
