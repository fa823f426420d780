//! Vendors whose address belongs to the customer: cloud accounts and servers
//! one runs oneself. Most have no default base URL.

use super::super::routes::{ANTHROPIC_SKIN, OPENAI, account, elsewhere, forbidden, get, maker, named, plain, post};
use super::super::{AuthForm, IncludeUsage, Route, Vendor};
use super::{openai_like, roots, routes, to_base, to_path};
use crate::dialect::{Dialect, Protocol};

const AZURE: &[Route] = &[
    post("deployments/{m}/chat/completions", Protocol::OpenAiChat),
    post("deployments/{m}/extensions/chat/completions", Protocol::OpenAiChat),
    post("deployments/{m}/completions", Protocol::OpenAiCompletions),
    post("deployments/{m}/embeddings", Protocol::OpenAiEmbeddings),
    post("deployments/{m}/images/generations", Protocol::OpenAiImages),
    post("deployments/{m}/images/edits", Protocol::OpenAiImages),
    post("deployments/{m}/audio/speech", Protocol::OpenAiAudio),
    post("deployments/{m}/audio/transcriptions", Protocol::OpenAiAudio),
    post("deployments/{m}/audio/translations", Protocol::OpenAiAudio),
    get("info"),
];

/// Azure AI Foundry's `models/…`, below a root of its own.
const FOUNDRY: &[Route] = &[plain("images/embeddings")];

const BEDROCK: &[Route] = &[
    post("model/{m}/converse", Protocol::BedrockConverse),
    post("model/{m}/converse-stream", Protocol::BedrockConverse),
    post("model/{m}/invoke", Protocol::BedrockInvoke),
    post("model/{m}/invoke-with-response-stream", Protocol::BedrockInvoke),
    post("model/{m}/count-tokens", Protocol::PromptCount),
    account("async-invoke"),
    account("async-invoke/**"),
];

const VERTEX: &[Route] = &[
    post("projects/*/locations/*/publishers/google/models/{m}:generateContent", Protocol::Gemini),
    post("projects/*/locations/*/publishers/google/models/{m}:streamGenerateContent", Protocol::Gemini),
    post("projects/*/locations/*/endpoints/{m}:generateContent", Protocol::Gemini),
    post("projects/*/locations/*/endpoints/{m}:streamGenerateContent", Protocol::Gemini),
    post("publishers/google/models/{m}:generateContent", Protocol::Gemini),
    post("publishers/google/models/{m}:streamGenerateContent", Protocol::Gemini),
    post("publishers/google/models/{m}:countTokens", Protocol::PromptCount),
    post("projects/*/locations/*/publishers/anthropic/models/count-tokens:rawPredict", Protocol::PromptCount),
    post("projects/*/locations/*/publishers/anthropic/models/{m}:rawPredict", Protocol::AnthropicMessages),
    post("projects/*/locations/*/publishers/anthropic/models/{m}:streamRawPredict", Protocol::AnthropicMessages),
    post("projects/*/locations/*/publishers/*/models/{m}:rawPredict", Protocol::OpenAiChat),
    post("projects/*/locations/*/publishers/*/models/{m}:streamRawPredict", Protocol::OpenAiChat),
    post("projects/*/locations/*/endpoints/openapi/chat/completions", Protocol::OpenAiChat),
    post("projects/*/locations/*/publishers/*/models/{m}:countTokens", Protocol::PromptCount),
    plain("projects/*/locations/*/publishers/*/models/{m}:computeTokens"),
    post("projects/*/locations/*/publishers/*/models/{m}:predict", Protocol::GeminiEmbed),
    post("projects/*/locations/*/publishers/*/models/{m}:embedContent", Protocol::GeminiEmbed),
    maker("projects/*/locations/*/publishers/*/models/{m}:predictLongRunning"),
    elsewhere("projects/*/locations/*/publishers/*/models/{m}:fetchPredictOperation"),
    named("projects/*/locations/*/cachedContents", 6),
    named("projects/*/locations/*/cachedContents/**", 6),
    named("projects/*/locations/*/batchPredictionJobs", 6),
    named("projects/*/locations/*/batchPredictionJobs/**", 6),
    get("publishers/*/models"),
    get("publishers/*/models/*"),
];

/// Ollama's native API, below the root `api`. What changes the server's set of
/// models is administration.
const OLLAMA: &[Route] = &[
    forbidden("pull"),
    forbidden("push"),
    forbidden("create"),
    forbidden("copy"),
    forbidden("delete"),
    forbidden("blobs/**"),
    post("chat", Protocol::Ollama),
    post("generate", Protocol::Ollama),
    post("embed", Protocol::OllamaEmbed),
    plain("show"),
    get("tags"),
    get("ps"),
    get("version"),
];

/// What self-hosted servers add.
const SERVERS: &[Route] = &[
    plain("tokenize"),
    plain("detokenize"),
    plain("score"),
    plain("pooling"),
    plain("classify"),
    plain("completion"),
    plain("embedding"),
    plain("infill"),
    post("reranking", Protocol::Rerank),
];

/// The list.
pub(super) fn vendors() -> Vec<Vendor> {
    let mut list = clouds();
    list.extend(servers());
    list
}

fn clouds() -> Vec<Vendor> {
    vec![
        Vendor {
            auth: AuthForm::ApiKey,
            roots: roots(&[
                to_path("v1", "/openai/v1"),
                to_path("openai/v1", "/openai/v1"),
                to_path("openai", "/openai"),
                to_path("models", "/models"),
                to_path("anthropic/v1", "/anthropic/v1"),
            ]),
            routes: routes(&[AZURE, FOUNDRY, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("azure-openai", "Azure OpenAI", "", "https://portal.azure.com")
        },
        Vendor {
            include_usage: IncludeUsage::Never,
            roots: roots(&[
                to_path("v1", "/v1"),
                to_path("openai/v1", "/openai/v1"),
                to_path("anthropic/v1", "/anthropic/v1"),
            ]),
            routes: routes(&[BEDROCK, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("bedrock", "Amazon Bedrock", "", "https://console.aws.amazon.com/bedrock/home#/api-keys")
        },
        Vendor {
            include_usage: IncludeUsage::Never,
            dialect: Dialect::Gemini,
            roots: roots(&[to_base("v1"), to_path("v1beta1", "/v1beta1")]),
            routes: routes(&[VERTEX]),
            ..openai_like(
                "vertex",
                "Google Vertex AI",
                "https://aiplatform.googleapis.com/v1",
                "https://console.cloud.google.com/apis/credentials",
            )
        },
    ]
}

fn servers() -> Vec<Vendor> {
    vec![
        Vendor {
            auth: AuthForm::None,
            roots: roots(&[to_base("v1"), to_path("api", "/api")]),
            routes: routes(&[OLLAMA, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("ollama", "Ollama", "http://localhost:11434/v1", "https://ollama.com/settings/keys")
        },
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            routes: routes(&[OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("custom", "OpenAI-compatible server", "", "")
        },
        Vendor { routes: routes(&[SERVERS, OPENAI, ANTHROPIC_SKIN]), ..openai_like("vllm", "vLLM", "", "") },
        Vendor { routes: routes(&[SERVERS, OPENAI, ANTHROPIC_SKIN]), ..openai_like("llamacpp", "llama.cpp", "", "") },
    ]
}
