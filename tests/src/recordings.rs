//! Recorded vendor answers as replay cases.

use std::path::Path;

use clawgate_shared::catalogue;
use clawgate_shared::dialect::Protocol;
use serde_json::{Value, json};

/// One recorded answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// `vendor/name`.
    pub id: String,
    /// The catalogue's slug.
    pub vendor: String,
    /// What stands below `/v1/{vendor}/`, query included.
    pub path: String,
    /// Vendor's documented path, for the key's base URL.
    pub root: String,
    /// Recorded status.
    pub status: u16,
    /// Whether it was streamed.
    pub streaming: bool,
    /// A body that asks for this answer.
    pub request: Value,
    /// Recorded bytes.
    pub body: Vec<u8>,
    /// Canonical usage.
    pub expected: Value,
}

/// Recordings that are not replayed, with the reason.
pub const LEFT_OUT: [(&str, &str); 2] = [
    ("dashscope/native-get-task-background-generation-success-json", POLL),
    ("dashscope/native-get-task-batch-text-embedding-success-json", POLL),
];
const POLL: &str =
    "a poll of a task: an account resource, and whoever counted what stands in it would count it at each poll";

/// The protocol of the route that a recording was made on.
fn protocol(name: &str, endpoint: &str) -> Protocol {
    match name {
        "openai-chat" => Protocol::OpenAiChat,
        "openai-completions" => Protocol::OpenAiCompletions,
        "openai-responses" => Protocol::OpenAiResponses,
        "openai-embeddings" => Protocol::OpenAiEmbeddings,
        "anthropic-messages" => Protocol::AnthropicMessages,
        "openai-audio" => Protocol::OpenAiAudio,
        "openai-images" => Protocol::OpenAiImages,
        "anthropic-complete" => Protocol::AnthropicComplete,
        "anthropic-count" | "gemini-count" => Protocol::PromptCount,
        "gemini" => Protocol::Gemini,
        "gemini-embed" => Protocol::GeminiEmbed,
        "gemini-interactions" => Protocol::GeminiInteractions,
        "cohere-v1" | "cohere-v2" | "voyage" | "rerank-openai" if endpoint.ends_with("/rerank") => Protocol::Rerank,
        "cohere-v1" | "cohere-v2" if endpoint.ends_with("/embed") => Protocol::CohereEmbed,
        "cohere-v1" | "cohere-v2" => Protocol::Cohere,
        "voyage" => Protocol::OpenAiEmbeddings,
        "ollama-chat" | "ollama-generate" => Protocol::Ollama,
        "ollama-embed" => Protocol::OllamaEmbed,
        // What makes pictures answers with a task, and reports nothing.
        "dashscope" if endpoint.contains("image") => Protocol::Opaque,
        "dashscope" => Protocol::DashScope,
        "bedrock-converse" => Protocol::BedrockConverse,
        "bedrock-invoke" => Protocol::BedrockInvoke,
        other => panic!("a recording of an unknown protocol {other}"),
    }
}

impl Case {
    /// Whether the recorded request asked for usage in the stream.
    #[must_use]
    pub fn asked_for_usage(&self) -> bool {
        self.request["stream_options"]["include_usage"] == true
    }

    /// The recording without the frames that carry nothing but usage.
    #[must_use]
    pub fn without_usage_frame(&self) -> Vec<u8> {
        frames(&self.body).into_iter().filter(|frame| !is_usage_frame(frame)).flatten().copied().collect()
    }
}

/// All cases but [`LEFT_OUT`], and those for which no callable path was found.
///
/// # Panics
/// The folder is damaged.
#[must_use]
pub fn load(folder: &Path) -> (Vec<Case>, Vec<String>) {
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).expect("an index");
    let (mut cases, mut unreachable) = (Vec::new(), Vec::new());
    for line in index.lines().skip(1) {
        let mut columns = line.split('\t');
        let (Some(id), Some(name)) = (columns.next(), columns.next()) else { continue };
        if LEFT_OUT.iter().any(|(left_out, _)| *left_out == id) {
            continue;
        }
        let meta = std::fs::read(folder.join(id).join("meta.json")).expect("meta.json");
        let meta: Value = serde_json::from_slice(&meta).expect("JSON");
        let vendor = meta["vendor"].as_str().unwrap_or_default();
        let endpoint = meta["endpoint"].as_str().unwrap_or_default();
        let protocol = protocol(name, endpoint);
        let Some((path, root)) = callable(vendor, endpoint, protocol) else {
            unreachable.push(format!("{id}: {endpoint}"));
            continue;
        };
        cases.push(Case {
            id: id.to_owned(),
            vendor: vendor.to_owned(),
            path,
            root,
            status: meta["status"].as_u64().and_then(|s| u16::try_from(s).ok()).expect("a status"),
            streaming: meta["streaming"] == true,
            request: request(&meta, protocol),
            body: std::fs::read(folder.join(id).join("response.body")).expect("a body"),
            expected: meta["expected"].clone(),
        });
    }
    (cases, unreachable)
}

/// How a client that uses us as its base URL writes the recorded endpoint: as
/// it stands, or less the vendor's documented path, or less a version.
fn callable(vendor: &str, endpoint: &str, protocol: Protocol) -> Option<(String, String)> {
    let vendor = catalogue::find(vendor)?;
    let base = vendor.base_url.as_deref().unwrap_or_default();
    let root = base.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    let (path, query) = endpoint.split_once('?').map_or((endpoint, None), |(p, q)| (p, Some(q)));
    let path = path.replace(['<', '>'], "");
    // Some were made through something that put the host into the path.
    let path =
        path.strip_prefix("//").and_then(|rest| rest.split_once('/')).map_or(path.clone(), |(_, p)| format!("/{p}"));
    let last_two = path.rsplit('/').take(2).collect::<Vec<_>>();
    let tail = last_two.iter().rev().copied().collect::<Vec<_>>().join("/");
    let candidates = [
        Some(path.trim_start_matches('/').to_owned()),
        path.strip_prefix(&root).map(|p| p.trim_start_matches('/').to_owned()),
        path.strip_prefix("/v1/").map(str::to_owned),
        Some(tail),
        path.rsplit('/').next().map(str::to_owned),
    ];
    let found = candidates.into_iter().flatten().find(|candidate| {
        catalogue::resolve(vendor, "POST", candidate)
            .is_ok_and(|r| r.route.protocol == protocol && r.route.class == catalogue::RouteClass::Inference)
    })?;
    Some((query.map_or_else(|| found.clone(), |q| format!("{found}?{q}")), root))
}

fn request(meta: &Value, protocol: Protocol) -> Value {
    let model = meta["expected"]["model"].as_str().unwrap_or("some-model");
    let streaming = meta["streaming"] == true;
    let mut request = meta["request"].clone();
    if !request.is_object() {
        request = json!({});
        // Nobody knows whether usage was asked for; a client that wants it asks.
        if streaming && protocol.has_stream_options() {
            request["stream_options"] = json!({ "include_usage": true });
        }
    }
    if protocol == Protocol::Gemini {
        return request;
    }
    if !request["model"].is_string() {
        request["model"] = json!(model);
    }
    if streaming {
        request["stream"] = json!(true);
    }
    request
}

/// Server-sent events with their terminators, nothing lost between them.
fn frames(body: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut start, mut line) = (Vec::new(), 0, 0);
    let mut at = 0;
    while at < body.len() {
        let end = match body[at] {
            b'\r' if body.get(at + 1) == Some(&b'\n') => at + 2,
            b'\r' | b'\n' => at + 1,
            _ => {
                at += 1;
                continue;
            }
        };
        if at == line {
            frames.push(&body[start..end]);
            start = end;
        }
        line = end;
        at = end;
    }
    frames.push(&body[start..]);
    frames
}

fn is_usage_frame(frame: &[u8]) -> bool {
    let text = String::from_utf8_lossy(frame);
    let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let Ok(value) = serde_json::from_str::<Value>(&data) else { return false };
    let no_choices = value["choices"].as_array().is_some_and(Vec::is_empty);
    no_choices && value["usage"].is_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_nothing() {
        let body = b": hi\n\ndata: {\"choices\":[],\"usage\":{}}\r\n\r\ndata: [DONE]\n\n\nrest";
        assert_eq!(frames(body).concat(), body);
        let kept: Vec<u8> = frames(body).into_iter().filter(|f| !is_usage_frame(f)).flatten().copied().collect();
        assert_eq!(kept, b": hi\n\ndata: [DONE]\n\n\nrest");
    }
}
