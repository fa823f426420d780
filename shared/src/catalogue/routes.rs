//! Route tables shared by families of vendors, and the matcher.
//!
//! A table is a list of patterns: what is not on it is not called. Forbidden
//! routes are listed too, so that no wildcard of an allowed one swallows them.

use std::borrow::Cow;

use super::{Route, RouteClass, Text, Touch};
use crate::dialect::Protocol;

const POST: &[&str] = &["POST"];
const GET: &[&str] = &["GET"];
const ANY: &[&str] = &[];

const fn route(
    pattern: &'static str,
    methods: &'static [&'static str],
    protocol: Protocol,
    class: RouteClass,
) -> Route {
    Route { pattern: Cow::Borrowed(pattern), methods: Cow::Borrowed(methods), protocol, class }
}

/// An inference route whose usage is read as `protocol` says.
pub(super) const fn post(pattern: &'static str, protocol: Protocol) -> Route {
    route(pattern, POST, protocol, RouteClass::Inference)
}

/// An inference route without readable usage.
pub(super) const fn plain(pattern: &'static str) -> Route {
    route(pattern, POST, Protocol::Opaque, RouteClass::Inference)
}

/// A list or a description.
pub(super) const fn get(pattern: &'static str) -> Route {
    route(pattern, GET, Protocol::Opaque, RouteClass::Inference)
}

/// A session over a WebSocket.
pub(super) const fn session(pattern: &'static str, protocol: Protocol) -> Route {
    route(pattern, GET, protocol, RouteClass::Inference)
}

/// Something that stays in the vendor account, named by the path's segment where
/// the pattern's last one stands, or, of a pattern without wildcard, by the one
/// behind it.
pub(super) const fn account(pattern: &'static str) -> Route {
    let (bytes, mut at, mut slashes) = (pattern.as_bytes(), 0, 0_u8);
    while at < bytes.len() {
        slashes += (bytes[at] == b'/') as u8;
        at += 1;
    }
    let wild = at > 0 && bytes[at - 1] == b'*';
    account_at(pattern, if wild { slashes } else { slashes + 1 })
}

/// The same, named by the segment with this index.
pub(super) const fn account_at(pattern: &'static str, id: u8) -> Route {
    touching(pattern, Touch::Thing { from: id, to: id + 1, makes: false })
}

/// The same, and the answer to a `POST` names another thing that it made.
pub(super) const fn account_making(pattern: &'static str, id: u8) -> Route {
    touching(pattern, Touch::Thing { from: id, to: id + 1, makes: true })
}

/// A resource by its name as Google writes them (`files/abc`): so many segments.
pub(super) const fn named(pattern: &'static str, segments: u8) -> Route {
    touching(pattern, Touch::Thing { from: 0, to: segments, makes: false })
}

/// Makes something in the vendor account whenever it is called.
pub(super) const fn maker(pattern: &'static str) -> Route {
    touching(pattern, Touch::Makes)
}

/// About something that the query or the body names.
pub(super) const fn elsewhere(pattern: &'static str) -> Route {
    touching(pattern, Touch::Elsewhere)
}

const fn touching(pattern: &'static str, touch: Touch) -> Route {
    route(pattern, ANY, Protocol::Opaque, RouteClass::AccountResource(touch))
}

/// Never forwarded.
pub(super) const fn forbidden(pattern: &'static str) -> Route {
    route(pattern, ANY, Protocol::Opaque, RouteClass::Forbidden)
}

/// A route of a tenant's own vendor; the protocol is told by how the path ends.
pub(super) fn custom(path: &str) -> Route {
    let ends = |tail: &str| path == tail || path.ends_with(&format!("/{tail}"));
    let protocol = if ends("chat/completions") {
        Protocol::OpenAiChat
    } else if ends("completions") {
        Protocol::OpenAiCompletions
    } else if ends("responses") {
        Protocol::OpenAiResponses
    } else if ends("realtime") {
        Protocol::OpenAiRealtime
    } else if path.ends_with(".BidiGenerateContent") {
        Protocol::GeminiLive
    } else if ends("embeddings") && !ends("api/embeddings") {
        Protocol::OpenAiEmbeddings
    } else if ends("messages") {
        Protocol::AnthropicMessages
    } else if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") {
        Protocol::Gemini
    } else if path.ends_with(":embedContent") || path.ends_with(":batchEmbedContents") {
        Protocol::GeminiEmbed
    } else if ends("messages/count_tokens") || path.ends_with(":countTokens") {
        Protocol::PromptCount
    } else if ends("rerank") {
        Protocol::Rerank
    } else if ["audio/speech", "audio/transcriptions", "audio/translations"].into_iter().any(ends) {
        Protocol::OpenAiAudio
    } else if ["images/generations", "images/edits", "images/variations"].into_iter().any(ends) {
        Protocol::OpenAiImages
    } else if ends("v2/chat") {
        Protocol::Cohere
    } else if ends("api/chat") || ends("api/generate") {
        Protocol::Ollama
    } else if ends("api/embed") || ends("api/embeddings") {
        Protocol::OllamaEmbed
    } else if path.ends_with("/converse") || path.ends_with("/converse-stream") {
        Protocol::BedrockConverse
    } else if path.ends_with("/invoke") || path.ends_with("/invoke-with-response-stream") {
        Protocol::BedrockInvoke
    } else if ends("ChatCompletions") {
        // Tencent's name for the action, behind something that signs requests.
        Protocol::Hunyuan
    } else {
        Protocol::Opaque
    };
    Route { pattern: Text::Owned(path.to_owned()), methods: Cow::Borrowed(ANY), protocol, class: RouteClass::Inference }
}

/// What OpenAI serves and its imitators serve parts of.
pub(super) const OPENAI: &[Route] = &[
    forbidden("organization"),
    forbidden("organization/**"),
    forbidden("organizations"),
    forbidden("organizations/**"),
    forbidden("projects/**"),
    forbidden("dashboard/**"),
    forbidden("api_keys"),
    forbidden("api_keys/**"),
    forbidden("api-key"),
    forbidden("keys"),
    forbidden("keys/**"),
    forbidden("key"),
    forbidden("auth/**"),
    forbidden("oauth/**"),
    forbidden("realtime/client_secrets"),
    forbidden("realtime/client_secrets/**"),
    forbidden("realtime/sessions"),
    forbidden("realtime/sessions/**"),
    forbidden("realtime/transcription_sessions"),
    forbidden("realtime/transcription_sessions/**"),
    forbidden("realtime/translations/client_secrets"),
    forbidden("chatkit/sessions"),
    forbidden("chatkit/sessions/**"),
    post("chat/completions", Protocol::OpenAiChat),
    post("completions", Protocol::OpenAiCompletions),
    post("responses", Protocol::OpenAiResponses),
    post("responses/compact", Protocol::OpenAiResponses),
    post("responses/input_tokens", Protocol::PromptCount),
    post("embeddings", Protocol::OpenAiEmbeddings),
    plain("moderations"),
    post("images/generations", Protocol::OpenAiImages),
    post("images/edits", Protocol::OpenAiImages),
    post("images/variations", Protocol::OpenAiImages),
    post("audio/speech", Protocol::OpenAiAudio),
    post("audio/transcriptions", Protocol::OpenAiAudio),
    post("audio/translations", Protocol::OpenAiAudio),
    post("rerank", Protocol::Rerank),
    get("models"),
    get("models/**"),
    session("realtime", Protocol::OpenAiRealtime),
    session("responses", Protocol::OpenAiResponses),
    plain("realtime/calls"),
    account("realtime/calls/**"),
    account("chat/completions"),
    account("chat/completions/**"),
    account("responses/**"),
    account("conversations"),
    account("conversations/**"),
    account("files"),
    account("files/**"),
    account("uploads"),
    account_making("uploads/*/complete", 1),
    account("uploads/**"),
    account("batches"),
    account("batches/**"),
    account_at("fine_tuning/**", 2),
    account("vector_stores"),
    account("vector_stores/**"),
    account("assistants"),
    account("assistants/**"),
    account("threads"),
    maker("threads/runs"),
    account("threads/**"),
    account("containers"),
    account("containers/**"),
    account("evals"),
    account("evals/**"),
    account("videos"),
    maker("videos/edits"),
    maker("videos/extensions"),
    account_making("videos/*/remix", 1),
    account("videos/**"),
    account("audio/voices"),
    account("audio/voices/**"),
];

/// What Anthropic serves.
pub(super) const ANTHROPIC: &[Route] = &[
    forbidden("organizations"),
    forbidden("organizations/**"),
    forbidden("oauth/**"),
    post("messages", Protocol::AnthropicMessages),
    post("messages/count_tokens", Protocol::PromptCount),
    post("complete", Protocol::AnthropicComplete),
    post("chat/completions", Protocol::OpenAiChat),
    get("models"),
    get("models/*"),
    account("messages/batches"),
    account("messages/batches/**"),
    account("files"),
    account("files/**"),
    account("skills"),
    account("skills/**"),
];

/// The Anthropic skin of another vendor, below a root of its own.
pub(super) const ANTHROPIC_SKIN: &[Route] =
    &[post("messages", Protocol::AnthropicMessages), post("messages/count_tokens", Protocol::PromptCount)];

/// What Google's Generative Language API serves.
pub(super) const GEMINI: &[Route] = &[
    forbidden("authTokens"),
    forbidden("authTokens/**"),
    forbidden("auth_tokens"),
    forbidden("auth_tokens/**"),
    forbidden("tunedModels/*/permissions"),
    forbidden("tunedModels/*/permissions/**"),
    forbidden("corpora/*/permissions"),
    forbidden("corpora/*/permissions/**"),
    post("models/{m}:generateContent", Protocol::Gemini),
    post("models/{m}:streamGenerateContent", Protocol::Gemini),
    post("models/{m}:countTokens", Protocol::PromptCount),
    post("models/{m}:embedContent", Protocol::GeminiEmbed),
    post("models/{m}:batchEmbedContents", Protocol::GeminiEmbed),
    plain("models/{m}:embedText"),
    plain("models/{m}:batchEmbedText"),
    plain("models/{m}:generateText"),
    plain("models/{m}:generateMessage"),
    plain("models/{m}:generateAnswer"),
    post("models/{m}:countTextTokens", Protocol::PromptCount),
    post("models/{m}:countMessageTokens", Protocol::PromptCount),
    post("models/{m}:predict", Protocol::GeminiEmbed),
    maker("models/{m}:predictLongRunning"),
    maker("models/{m}:batchGenerateContent"),
    maker("models/{m}:asyncBatchEmbedContent"),
    named("models/*/operations", 4),
    named("models/*/operations/**", 4),
    get("models"),
    get("models/*"),
    post("tunedModels/{m}:generateContent", Protocol::Gemini),
    post("tunedModels/{m}:streamGenerateContent", Protocol::Gemini),
    post("interactions", Protocol::GeminiInteractions),
    account("interactions/**"),
    named("tunedModels", 2),
    named("tunedModels/**", 2),
    named("files", 2),
    named("files/**", 2),
    named("cachedContents", 2),
    named("cachedContents/**", 2),
    named("batches", 2),
    named("batches/**", 2),
    named("corpora", 2),
    named("corpora/**", 2),
    named("fileSearchStores", 2),
    named("fileSearchStores/**", 2),
    named("operations/**", 2),
    session("google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", Protocol::GeminiLive),
    session("google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent", Protocol::GeminiLive),
    session("google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent", Protocol::GeminiLive),
];

/// What matching found in one pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match<'s> {
    No,
    /// With the decoded segment (less its verb) that stands for `{m}`.
    Yes(Option<&'s str>),
}

/// Compares a pattern with decoded, non-empty segments.
pub(super) fn matches<'s>(pattern: &str, segments: &'s [Cow<'_, str>]) -> Match<'s> {
    // Every pattern is asked for every request: most are ruled out by two bytes.
    if let (Some(segment), &[wants, then, ..]) = (segments.first(), pattern.as_bytes())
        && !matches!(wants, b'*' | b'{' | b'/')
    {
        let segment = segment.as_bytes();
        if segment.first() != Some(&wants) || (then != b'/' && segment.get(1) != Some(&then)) {
            return Match::No;
        }
    }
    let mut rest = segments;
    let mut model = None;
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if part == "**" {
            return if rest.is_empty() { Match::No } else { Match::Yes(model) };
        }
        let Some((segment, after)) = rest.split_first() else { return Match::No };
        if let Some(verb) = part.strip_prefix("{m}") {
            match segment.strip_suffix(verb) {
                Some(name) if !name.is_empty() => model = Some(name),
                _ => return Match::No,
            }
        } else if part != "*" && part != segment.as_ref() {
            return Match::No;
        }
        rest = after;
    }
    if rest.is_empty() { Match::Yes(model) } else { Match::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        let split = |path: &'static str| path.split('/').map(Cow::Borrowed).collect::<Vec<_>>();
        for (pattern, path, want) in [
            ("chat/completions", "chat/completions", Some(None)),
            ("chat/completions", "chat/completions/x", None),
            ("chat/completions", "chat", None),
            ("files/**", "files", None),
            ("files/**", "files/a/b", Some(None)),
            ("models/*", "models/a", Some(None)),
            ("models/*", "models/a/b", None),
            ("models/{m}:go", "models/gem:go", Some(Some("gem"))),
            ("models/{m}:go", "models/a:b:go", Some(Some("a:b"))),
            ("models/{m}:go", "models/:go", None),
            ("models/{m}:go", "models/gem:stop", None),
            ("deployments/{m}/chat/completions", "deployments/d/chat/completions", Some(Some("d"))),
        ] {
            let segments = split(path);
            let found = match matches(pattern, &segments) {
                Match::No => None,
                Match::Yes(model) => Some(model),
            };
            assert_eq!(found, want, "{pattern} ~ {path}");
        }
    }

    #[test]
    fn a_custom_path_tells_its_protocol() {
        assert_eq!(custom("chat/completions").protocol, Protocol::OpenAiChat);
        assert_eq!(custom("v1/completions").protocol, Protocol::OpenAiCompletions);
        assert_eq!(custom("x/messages").protocol, Protocol::AnthropicMessages);
        assert_eq!(custom("models/{m}:generateContent").protocol, Protocol::Gemini);
        for (path, protocol) in [
            ("rerank", Protocol::Rerank),
            ("v1/messages/count_tokens", Protocol::PromptCount),
            ("models/{m}:countTokens", Protocol::PromptCount),
            ("models/{m}:embedContent", Protocol::GeminiEmbed),
            ("v1/audio/transcriptions", Protocol::OpenAiAudio),
            ("images/edits", Protocol::OpenAiImages),
            ("v2/chat", Protocol::Cohere),
            ("api/chat", Protocol::Ollama),
            ("api/embeddings", Protocol::OllamaEmbed),
            ("model/{m}/converse-stream", Protocol::BedrockConverse),
            ("model/{m}/invoke", Protocol::BedrockInvoke),
            ("hunyuan/ChatCompletions", Protocol::Hunyuan),
            ("tokenize", Protocol::Opaque),
        ] {
            assert_eq!(custom(path).protocol, protocol, "{path}");
        }
    }
}
