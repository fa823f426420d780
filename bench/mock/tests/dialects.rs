//! Every dialect answers in its vendor's shape, the same way every time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use common::{CHAT, CHAT_STREAM, Mock};
use serde_json::Value;

const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]"#;

#[tokio::test]
async fn chat_repeats_itself_and_reports_usage() {
    let mock = Mock::start().await;
    let first = mock.post("/v1/chat/completions", &[], CHAT).await;
    let again = mock.post("/chat/completions", &[], CHAT).await;
    assert_eq!((first.status, &first.body), (200, &again.body));
    let body = first.json();
    assert_eq!(body["object"], "chat.completion");
    let words = body["choices"][0]["message"]["content"].as_str().unwrap().split(' ').count() as u64;
    assert_eq!(body["usage"]["completion_tokens"], words);
    mock.stop().await;
}

#[tokio::test]
async fn a_chat_stream_reports_usage_only_when_asked() {
    let mock = Mock::start().await;
    let whole = mock.post("/v1/chat/completions", &[], CHAT).await.json();
    let plain = mock.post("/v1/chat/completions", &[], CHAT_STREAM).await;
    assert!(plain.text().ends_with("data: [DONE]\n\n") && !plain.text().contains("usage"));
    let text: String =
        plain.events().iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"]);

    let asking = CHAT_STREAM.replace(r#""stream":true"#, r#""stream":true,"stream_options":{"include_usage":true}"#);
    let asked = mock.post("/v1/chat/completions", &[], &asking).await;
    let events = asked.events();
    let (last, others) = events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&serde_json::json!([]), &whole["usage"]));
    assert!(others.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    // Without the extra chunk and the nulls it is the stream nobody asked more of.
    let stripped = asked.text().replace(",\"usage\":null", "");
    let extra = format!("data: {last}\n\n");
    assert_eq!(stripped.replace(&extra, ""), plain.text());
    mock.stop().await;
}

#[tokio::test]
async fn tools_are_called_in_every_dialect() {
    let mock = Mock::start().await;
    let chat = CHAT.replacen('{', &format!("{{{TOOLS},"), 1);
    let whole = mock.post("/v1/chat/completions", &[], &chat).await.json();
    let call = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!((&call["name"], &whole["choices"][0]["finish_reason"]), (&"weather".into(), &"tool_calls".into()));
    let arguments = call["arguments"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(arguments).unwrap()["city"].is_string());

    let streamed = mock.post("/v1/chat/completions", &[], &chat.replacen('{', r#"{"stream":true,"#, 1)).await;
    let joined: String = streamed
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(joined, arguments);

    let messages = r#"{"model":"claude-x","max_tokens":50,"messages":[{"role":"user","content":"w"}],"tools":[{"name":"weather","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}}]}"#;
    let body = mock.post("/v1/messages", &[], messages).await.json();
    assert_eq!((&body["content"][0]["type"], &body["stop_reason"]), (&"tool_use".into(), &"tool_use".into()));
    let gemini = r#"{"contents":[{"parts":[{"text":"w"}]}],"tools":[{"functionDeclarations":[{"name":"weather","parameters":{"type":"OBJECT","properties":{"city":{"type":"STRING"}}}}]}]}"#;
    let body = mock.post("/v1beta/models/g:generateContent", &[], gemini).await.json();
    assert_eq!(body["candidates"][0]["content"]["parts"][0]["functionCall"]["name"], "weather");
    let responses =
        r#"{"model":"m","input":"w","tools":[{"type":"function","name":"weather","parameters":{"type":"object"}}]}"#;
    let body = mock.post("/v1/responses", &[], responses).await.json();
    assert_eq!((&body["output"][0]["type"], &body["output"][0]["name"]), (&"function_call".into(), &"weather".into()));
    mock.stop().await;
}

#[tokio::test]
async fn anthropic_streams_its_sequence() {
    let mock = Mock::start().await;
    let body = r#"{"model":"claude-x","max_tokens":4,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let reply = mock.post("/v1/messages", &[("x-mock-cached-tokens", "2")], body).await;
    let names: Vec<String> =
        reply.text().lines().filter_map(|line| line.strip_prefix("event: ").map(str::to_owned)).collect();
    assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let events = reply.events();
    let delta = &events[events.len() - 2];
    assert_eq!((&delta["usage"]["output_tokens"], &delta["delta"]["stop_reason"]), (&4.into(), &"max_tokens".into()));
    let ends = mock.ended(1).await;
    let outside = delta["usage"]["input_tokens"].as_u64().unwrap();
    assert_eq!(ends[0]["billed_input"], outside + 2);
    mock.stop().await;
}

#[tokio::test]
async fn responses_number_their_events() {
    let mock = Mock::start().await;
    let body = r#"{"model":"gpt-4o","input":"hi","stream":true}"#;
    let events = mock.post("/v1/responses", &[], body).await.events();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], at);
    }
    let last = events.last().unwrap();
    assert_eq!((&events[0]["type"], &last["type"]), (&"response.created".into(), &"response.completed".into()));
    let whole = mock.post("/v1/responses", &[], r#"{"model":"gpt-4o","input":"hi"}"#).await.json();
    assert_eq!(last["response"], whole);
    mock.stop().await;
}

#[tokio::test]
async fn gemini_streams_as_events_and_as_an_array() {
    let mock = Mock::start().await;
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
    let sse = mock.post("/v1beta/models/g-1:streamGenerateContent?alt=sse", &[], body).await;
    assert!(sse.text().starts_with("data: {") && sse.text().ends_with("}\r\n\r\n"));
    let array = mock.post("/v1beta/models/g-1:streamGenerateContent", &[], body).await;
    assert_eq!(array.json(), Value::Array(sse.events()));
    let whole = mock.post("/v1beta/models/g-1:generateContent", &[], body).await.json();
    assert_eq!(sse.events().last().unwrap()["usageMetadata"], whole["usageMetadata"]);
    assert_eq!(whole["modelVersion"], "g-1");
    mock.stop().await;
}

#[tokio::test]
async fn cohere_tells_what_was_used_beside_what_is_charged() {
    let mock = Mock::start().await;
    let body = r#"{"model":"command-a-03-2025","max_tokens":4,"messages":[{"role":"user","content":"hi"}]}"#;
    let whole = mock.post("/v2/chat", &[("x-mock-cached-tokens", "2")], body).await.json();
    let streaming = body.replacen('{', r#"{"stream":true,"#, 1);
    let streamed = mock.post("/v2/chat", &[("x-mock-cached-tokens", "2")], &streaming).await;
    assert!(streamed.text().ends_with("data: [DONE]\n\n"));
    let events = streamed.events();
    let text: String =
        events.iter().filter_map(|event| event["delta"]["message"]["content"]["text"].as_str()).collect();
    assert_eq!(text, whole["message"]["content"][0]["text"]);
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["delta"]["usage"]), (&"message-end".into(), &whole["usage"]));
    assert_eq!(whole["finish_reason"], "MAX_TOKENS");
    let (used, charged) = (&whole["usage"]["tokens"], &whole["usage"]["billed_units"]);
    assert!(used["input_tokens"].as_u64() > charged["input_tokens"].as_u64());
    for end in mock.ended(2).await {
        assert_eq!((&end["billed_input"], &end["billed_output"]), (&used["input_tokens"], &used["output_tokens"]));
        assert_eq!(end["dialect"], "cohere-chat");
    }

    let tools = body.replacen('{', &format!("{{{TOOLS},"), 1);
    let called = mock.post("/v2/chat", &[], &tools).await.json();
    let arguments = called["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    let pieces: String = mock
        .post("/v2/chat", &[], &tools.replacen('{', r#"{"stream":true,"#, 1))
        .await
        .events()
        .iter()
        .filter_map(|event| event["delta"]["message"]["tool_calls"]["function"]["arguments"].as_str())
        .collect();
    assert_eq!((pieces.as_str(), &called["finish_reason"]), (arguments, &"TOOL_CALL".into()));
    let refused = mock.post("/v2/chat", &[("x-mock-status", "404")], body).await;
    assert!(refused.status == 404 && refused.json()["message"].is_string());
    mock.stop().await;
}

#[tokio::test]
async fn mistral_reports_usage_unasked_and_calls_a_tool_in_one_chunk() {
    let mock = Mock::start().await;
    let whole = mock.post("/mistral/v1/chat/completions", &[], CHAT).await.json();
    let events = mock.post("/mistral/v1/chat/completions", &[], CHAT_STREAM).await.events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"]);
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last["usage"], whole["usage"]);
    assert!(others.iter().all(|event| event.get("usage").is_none()));

    let tools = CHAT_STREAM.replacen('{', &format!("{{{TOOLS},"), 1);
    let events = mock.post("/mistral/v1/chat/completions", &[], &tools).await.events();
    let calls: Vec<_> = events.iter().filter(|event| event["choices"][0]["delta"]["tool_calls"].is_array()).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"], "weather");
    let embedded = mock.post("/mistral/v1/embeddings", &[], r#"{"model":"e","input":["a"]}"#).await.json();
    assert!(embedded["id"].is_string());
    let refused = mock.post("/mistral/v1/chat/completions", &[("x-mock-status", "429")], CHAT).await;
    assert_eq!((refused.status, &refused.json()["object"]), (429, &"error".into()));
    mock.stop().await;
}

#[tokio::test]
async fn the_smaller_routes_answer() {
    let mock = Mock::start().await;
    let ollama = mock.post("/api/chat", &[], r#"{"model":"l","messages":[{"role":"user","content":"x"}]}"#).await;
    let lines: Vec<Value> = ollama.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.last().unwrap()["eval_count"].as_u64().unwrap() as usize == lines.len() - 1);
    let embedded = mock.post("/v1/embeddings", &[], r#"{"model":"e","input":["a","b"]}"#).await.json();
    assert_eq!(embedded["data"].as_array().unwrap().len(), 2);
    let counted = mock.post("/v1/messages/count_tokens", &[], r#"{"model":"c","messages":[]}"#).await.json();
    assert!(counted["input_tokens"].is_u64());
    assert_eq!(mock.get("/v1/models").await.json()["object"], "list");
    assert!(mock.get("/v1beta/models").await.json()["models"].is_array());
    assert_eq!(mock.get("/v1/models/gpt-4o").await.json()["id"], "gpt-4o");
    let completion = mock.post("/v1/completions", &[], r#"{"model":"d","prompt":"p","stream":true}"#).await;
    assert!(completion.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(mock.post("/v1/nowhere", &[], "{}").await.status, 404);
    mock.stop().await;
}

#[tokio::test]
async fn errors_wear_the_vendors_shape_and_quote_the_key() {
    let mock = Mock::start().await;
    let refused = |status: &'static str| [("authorization", "Bearer sk-secret"), ("x-mock-status", status)];
    let openai = mock.post("/v1/chat/completions", &refused("401"), CHAT).await;
    assert_eq!(openai.status, 401);
    assert!(openai.json()["error"]["message"].as_str().unwrap().contains("sk-secret"));
    let quota = mock
        .post(
            "/knobs/status=429;error_code=insufficient_quota/v1/chat/completions?mock_header=retry-after:7",
            &[],
            CHAT,
        )
        .await;
    assert_eq!((quota.status, quota.header("retry-after").as_deref()), (429, Some("7")));
    assert_eq!(quota.json()["error"]["code"], "insufficient_quota");
    let anthropic = mock.post("/v1/messages", &refused("529"), r#"{"messages":[]}"#).await;
    assert_eq!(anthropic.json()["error"]["type"], "overloaded_error");
    let gemini = mock.post("/v1beta/models/g:generateContent?mock_status=429", &[], "{}").await;
    assert_eq!(gemini.json()["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(mock.post("/v1/chat/completions", &[], "not json").await.status, 400);
    assert_eq!(mock.post("/v1/chat/completions", &[("x-mock-tpyo", "1")], CHAT).await.status, 400);
    mock.stop().await;
}

#[tokio::test]
async fn usage_variants() {
    let mock = Mock::start().await;
    let asking = CHAT_STREAM.replace(r#""stream":true"#, r#""stream":true,"stream_options":{"include_usage":true}"#);
    let mut reports = Vec::new();
    for variant in ["missing", "zero", "split", "duplicated", "after_done", "unasked"] {
        let reply = mock.post("/v1/chat/completions", &[("x-mock-usage", variant)], &asking).await;
        let with = reply.events().iter().filter(|event| event["usage"].is_object()).count();
        let after = reply.text().split("[DONE]").nth(1).unwrap().contains("usage");
        reports.push((variant, with, after, reply.events().len()));
    }
    let of = |name: &str| reports.iter().find(|report| report.0 == name).copied().unwrap();
    assert_eq!((of("missing").1, of("zero").1, of("duplicated").1, of("unasked").1), (0, 1, 2, 2));
    assert_eq!(of("split").1, of("split").3);
    assert!(of("after_done").2 && of("after_done").1 == 1);
    let ends = mock.ended(6).await;
    assert_eq!(ends[1]["billed_output"], 0);
    assert!(ends[0]["billed_output"].as_u64().unwrap() > 0);
    mock.stop().await;
}
