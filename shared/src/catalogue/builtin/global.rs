//! Vendors with one public address of their own.

use std::borrow::Cow;

use super::super::routes::{
    ANTHROPIC, ANTHROPIC_SKIN, GEMINI, OPENAI, account, account_at, elsewhere, forbidden, get, plain, post,
};
use super::super::{AuthForm, IncludeUsage, Route, Vendor};
use super::{openai_like, roots, routes, to_base, to_path};
use crate::dialect::{Dialect, Protocol};

const MISTRAL: &[Route] = &[
    post("fim/completions", Protocol::OpenAiChat),
    post("agents/completions", Protocol::OpenAiChat),
    plain("chat/moderations"),
    plain("classifications"),
    plain("chat/classifications"),
    plain("ocr"),
    account("agents"),
    account("agents/**"),
    account("libraries"),
    account("libraries/**"),
    account_at("batch/**", 2),
];

const OPENROUTER: &[Route] = &[
    forbidden("credits"),
    forbidden("credits/**"),
    forbidden("activity"),
    forbidden("guardrails/**"),
    elsewhere("generation"),
    get("providers"),
    get("endpoints/**"),
];

const TOGETHER: &[Route] = &[
    forbidden("endpoints"),
    forbidden("endpoints/**"),
    forbidden("clusters/**"),
    account("fine-tunes"),
    account("fine-tunes/**"),
    account("evaluation/**"),
];

const XAI: &[Route] = &[
    get("language-models"),
    get("language-models/*"),
    get("embedding-models"),
    get("embedding-models/*"),
    get("image-generation-models"),
    get("image-generation-models/*"),
    plain("tokenize-text"),
    plain("complete"),
    account("chat/deferred-completion/*"),
];

const PERPLEXITY: &[Route] = &[
    forbidden("generate_auth_token"),
    forbidden("revoke_auth_token"),
    post("chat/completions", Protocol::OpenAiChat),
    // `v1/chat/completions` arrives here through the root `v1/chat`.
    post("completions", Protocol::OpenAiChat),
    post("v1/embeddings", Protocol::OpenAiEmbeddings),
    post("embeddings", Protocol::OpenAiEmbeddings),
    post("v1/responses", Protocol::OpenAiResponses),
    plain("search"),
    get("models"),
    get("v1/models"),
    account_at("async/**", 3),
];

const COHERE: &[Route] = &[
    forbidden("v1/check-api-key"),
    forbidden("v1/connectors"),
    forbidden("v1/connectors/**"),
    post("v2/chat", Protocol::Cohere),
    post("v1/chat", Protocol::Cohere),
    post("v1/generate", Protocol::Cohere),
    post("v2/embed", Protocol::CohereEmbed),
    post("v1/embed", Protocol::CohereEmbed),
    post("v2/rerank", Protocol::Rerank),
    post("v1/rerank", Protocol::Rerank),
    post("v1/classify", Protocol::CohereEmbed),
    post("v1/summarize", Protocol::Cohere),
    plain("v1/tokenize"),
    plain("v1/detokenize"),
    post("v2/audio/transcriptions", Protocol::OpenAiAudio),
    get("v1/models"),
    get("v1/models/*"),
    account("v1/datasets"),
    account("v1/datasets/**"),
    account("v1/embed-jobs"),
    account("v1/embed-jobs/**"),
    account_at("v1/finetuning/**", 3),
    // The OpenAI skin, below `compatibility/v1`.
    post("chat/completions", Protocol::OpenAiChat),
    post("embeddings", Protocol::OpenAiEmbeddings),
];

const VENICE: &[Route] = &[
    forbidden("billing/**"),
    plain("image/generate"),
    plain("image/upscale"),
    plain("image/edit"),
    get("image/styles"),
    get("characters"),
];

/// The list.
pub(super) fn vendors() -> Vec<Vendor> {
    let mut list =
        vec![openai_like("openai", "OpenAI", "https://api.openai.com/v1", "https://platform.openai.com/api-keys")];
    list.extend(makers());
    list.extend(hosts());
    list
}

/// Those that make models.
fn makers() -> Vec<Vendor> {
    vec![
        Vendor {
            auth: AuthForm::XApiKey,
            include_usage: IncludeUsage::Never,
            dialect: Dialect::Anthropic,
            routes: Cow::Borrowed(ANTHROPIC),
            default_headers: Cow::Borrowed(&[("anthropic-version", "2023-06-01")]),
            ..openai_like(
                "anthropic",
                "Anthropic",
                "https://api.anthropic.com/v1",
                "https://console.anthropic.com/settings/keys",
            )
        },
        Vendor {
            auth: AuthForm::XGoogApiKey,
            dialect: Dialect::Gemini,
            routes: routes(&[GEMINI, OPENAI]),
            roots: roots(&[
                to_base("v1beta"),
                to_path("v1", "/v1"),
                to_path("v1alpha", "/v1alpha"),
                to_path("upload/v1beta", "/upload/v1beta"),
                to_path("upload/v1alpha", "/upload/v1alpha"),
                to_path("upload/v1", "/upload/v1"),
                to_path("openai", "/v1beta/openai"),
                to_path("v1beta/openai", "/v1beta/openai"),
                to_path("ws", "/ws"),
            ]),
            ..openai_like(
                "google",
                "Google Gemini",
                "https://generativelanguage.googleapis.com/v1beta",
                "https://aistudio.google.com/apikey",
            )
        },
        Vendor {
            roots: roots(&[to_base("v1"), to_path("beta", "/beta"), to_path("anthropic/v1", "/anthropic/v1")]),
            routes: routes(&[&[forbidden("user/**")], OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("deepseek", "DeepSeek", "https://api.deepseek.com", "https://platform.deepseek.com/api_keys")
        },
        Vendor {
            include_usage: IncludeUsage::Never,
            routes: routes(&[MISTRAL, OPENAI]),
            ..openai_like("mistral", "Mistral", "https://api.mistral.ai/v1", "https://console.mistral.ai/api-keys")
        },
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            roots: roots(&[to_path("v1/chat", "/chat")]),
            routes: Cow::Borrowed(PERPLEXITY),
            ..openai_like(
                "perplexity",
                "Perplexity",
                "https://api.perplexity.ai",
                "https://www.perplexity.ai/settings/api",
            )
        },
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            roots: roots(&[to_path("compatibility/v1", "/compatibility/v1")]),
            routes: Cow::Borrowed(COHERE),
            ..openai_like("cohere", "Cohere", "https://api.cohere.com", "https://dashboard.cohere.com/api-keys")
        },
        Vendor {
            routes: routes(&[XAI, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like("xai", "xAI", "https://api.x.ai/v1", "https://console.x.ai")
        },
    ]
}

/// Those that host other people's models.
fn hosts() -> Vec<Vendor> {
    vec![
        Vendor {
            roots: roots(&[to_base("v1"), to_base("openai/v1")]),
            ..openai_like("groq", "Groq", "https://api.groq.com/openai/v1", "https://console.groq.com/keys")
        },
        Vendor {
            include_usage: IncludeUsage::Passthrough,
            roots: roots(&[to_base("v1"), to_base("api/v1")]),
            routes: routes(&[OPENROUTER, OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "openrouter",
                "OpenRouter",
                "https://openrouter.ai/api/v1",
                "https://openrouter.ai/settings/keys",
            )
        },
        Vendor {
            routes: routes(&[TOGETHER, OPENAI]),
            ..openai_like(
                "together",
                "Together AI",
                "https://api.together.xyz/v1",
                "https://api.together.ai/settings/api-keys",
            )
        },
        Vendor {
            roots: roots(&[to_base("v1"), to_base("inference/v1")]),
            routes: routes(&[OPENAI, ANTHROPIC_SKIN]),
            ..openai_like(
                "fireworks",
                "Fireworks AI",
                "https://api.fireworks.ai/inference/v1",
                "https://app.fireworks.ai/settings/users/api-keys",
            )
        },
        Vendor {
            roots: roots(&[to_base("v1"), to_base("api/v1")]),
            routes: routes(&[VENICE, OPENAI]),
            ..openai_like("venice", "Venice", "https://api.venice.ai/api/v1", "https://venice.ai/settings/api")
        },
        openai_like("cerebras", "Cerebras", "https://api.cerebras.ai/v1", "https://cloud.cerebras.ai"),
        openai_like(
            "nvidia",
            "NVIDIA NIM",
            "https://integrate.api.nvidia.com/v1",
            "https://build.nvidia.com/settings/api-keys",
        ),
        Vendor {
            roots: roots(&[to_base("v1"), to_base("inference")]),
            ..openai_like(
                "github-models",
                "GitHub Models",
                "https://models.github.ai/inference",
                "https://github.com/settings/personal-access-tokens",
            )
        },
    ]
}
