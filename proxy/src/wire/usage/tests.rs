use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::usage::Billing;
use proptest::prelude::*;

use super::*;
use crate::wire::tokens::{Counter, Vocabulary};

fn split(protocol: Protocol, vendor: &str, body: &[u8], cuts: &[usize]) -> Report {
    let mut meter = Meter::new(protocol, vendor);
    let mut at = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        let cut = cut.clamp(at, body.len());
        meter.push(&body[at..cut]);
        at = cut;
    }
    meter.finish()
}

fn chat(body: &str) -> Report {
    read_body(Protocol::OpenAiChat, "openai", body.as_bytes())
}

#[test]
fn the_last_report_wins_and_null_erases_nothing() {
    let report = chat(concat!(
        "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n",
        "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8}}\n\n",
        "data: {\"model\":\"m\",\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: [DONE]\n\n"
    ));
    assert_eq!((report.usage.input, report.usage.output, report.usage.total), (Some(5), Some(3), Some(8)));
    assert_eq!((report.terminal, report.error, report.usage.model.as_deref()), (true, None, Some("m")));
}

#[test]
fn absent_is_unknown_and_zero_is_zero() {
    let report = chat(r#"{"model":"m","usage":{"prompt_tokens":0,"completion_tokens":0}}"#);
    assert_eq!((report.usage.input, report.usage.cached_input), (Some(0), None));
    assert!(!chat(r#"{"model":"m","choices":[]}"#).usage.has_counts());
}

#[test]
fn reasoning_outside_the_output_is_added_once() {
    let body = |total| {
        format!(
            r#"{{"usage":{{"prompt_tokens":10,"completion_tokens":2,"total_tokens":{total},"completion_tokens_details":{{"reasoning_tokens":7}}}}}}"#
        )
    };
    let output = |vendor, body: String| read_body(Protocol::OpenAiChat, vendor, body.as_bytes()).usage.output;
    assert_eq!(output("xai", body(19)), Some(9));
    assert_eq!(output("openrouter", body(12)), Some(2));
    let hidden = r#"{"usage":{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}}"#.to_owned();
    assert_eq!(output("google", hidden.clone()), Some(74));
    assert_eq!(output("mistral", hidden), Some(12));
}

#[test]
fn anthropic_deltas_replace_and_cache_is_added_to_input() {
    let stream = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"c\",\"usage\":{\"input_tokens\":3,",
        "\"cache_read_input_tokens\":55,\"cache_creation_input_tokens\":4,\"output_tokens\":8}}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"cache_read_input_tokens\":0,\"output_tokens\":20}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
    );
    let report = read_body(Protocol::AnthropicMessages, "anthropic", stream.as_bytes());
    let usage = report.usage;
    assert_eq!(
        (usage.input, usage.cached_input, usage.cache_write, usage.output),
        (Some(7), Some(0), Some(4), Some(20))
    );
    assert!(report.terminal);
    let cut = &stream[..stream.find("event: message_delta").expect("there")];
    let report = read_body(Protocol::AnthropicMessages, "anthropic", cut.as_bytes());
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(62), Some(8), false));
}

#[test]
fn what_a_price_depends_on_is_read_beside_the_counts() {
    let read = |protocol, vendor, body: &str| read_body(protocol, vendor, body.as_bytes()).usage.billing;
    let stream = concat!(
        "data: {\"model\":\"m\",\"service_tier\":\"priority\",\"choices\":[],\"usage\":null}\n\n",
        "data: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,\"prompt_tokens_details\":{\"audio_tokens\":4},",
        "\"completion_tokens_details\":{\"audio_tokens\":3}}}\n\ndata: [DONE]\n\n"
    );
    let wanted =
        Billing { tier: ServiceTier::Priority, input_audio: Some(4), output_audio: Some(3), ..Billing::default() };
    assert_eq!(read(Protocol::OpenAiChat, "openai", stream), wanted);
    let response = r#"{"type":"response.completed","response":{"service_tier":"flex","usage":{"input_tokens":1}}}"#;
    assert_eq!(read(Protocol::OpenAiResponses, "openai", response).tier, ServiceTier::Flex);
    for (said, tier) in [("default", ServiceTier::Standard), ("auto", ServiceTier::Standard)] {
        let body = format!(r#"{{"service_tier":"{said}","usage":{{"prompt_tokens":1}}}}"#);
        assert_eq!(read(Protocol::OpenAiChat, "openai", &body).tier, tier);
    }
    let message = concat!(
        r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":30,"cache_creation":"#,
        r#"{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"service_tier":"batch"}}"#
    );
    let wanted = Billing { tier: ServiceTier::Batch, cache_write_1h: Some(20), ..Billing::default() };
    assert_eq!(read(Protocol::AnthropicMessages, "anthropic", message), wanted);
    let gemini = concat!(
        r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":2,"promptTokensDetails":"#,
        r#"[{"modality":"TEXT","tokenCount":5},{"modality":"AUDIO","tokenCount":4}]}}"#
    );
    assert_eq!(read(Protocol::Gemini, "google", gemini), Billing { input_audio: Some(4), ..Billing::default() });
}

#[test]
fn gemini_takes_the_last_object_whole() {
    let stream = concat!(
        "data: {\"usageMetadata\":{\"promptTokenCount\":145,\"cachedContentTokenCount\":9,\"thoughtsTokenCount\":4}}\r\n\r\n",
        "data: {\"usageMetadata\":{\"promptTokenCount\":85,\"candidatesTokenCount\":6,\"toolUsePromptTokenCount\":5},",
        "\"modelVersion\":\"g\",\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n",
        "data: {\"usageMetadata\":{\"trafficType\":1}}\r\n\r\n"
    );
    let report = read_body(Protocol::Gemini, "google", stream.as_bytes());
    let usage = report.usage;
    assert_eq!((usage.input, usage.cached_input, usage.output, usage.reasoning), (Some(90), None, Some(6), None));
    assert_eq!((report.terminal, usage.model.as_deref()), (true, Some("g")));
}

#[test]
fn errors_inside_a_good_status_are_seen() {
    for (protocol, body, code) in [
        (Protocol::OpenAiChat, "event: error\ndata: {\"error\":{\"code\":\"tool_use_failed\"}}\n\n", "tool_use_failed"),
        (
            Protocol::OpenAiChat,
            ": x\n\ndata: {\"error\":{\"code\":502,\"message\":\"m\"},\"user_id\":\"u\"}\n\n",
            "502",
        ),
        (Protocol::OpenAiChat, "{\"choices\":null,\"base_resp\":{\"status_code\":1008,\"status_msg\":\"m\"}}", "1008"),
        (
            Protocol::OpenAiResponses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
            "server_error",
        ),
        (
            Protocol::OpenAiResponses,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"m\"}\n\n",
            "rate_limit_exceeded",
        ),
        (
            Protocol::AnthropicMessages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n",
            "overloaded_error",
        ),
        (Protocol::Gemini, "[{\"error\":{\"code\":503,\"status\":\"UNAVAILABLE\"}}]", "UNAVAILABLE"),
        (Protocol::OpenAiChat, "event: error\ndata: not json\n\n", "error"),
    ] {
        assert_eq!(read_body(protocol, "x", body.as_bytes()).error.as_deref(), Some(code), "{body}");
    }
    let fine = chat("{\"error\":null,\"base_resp\":{\"status_code\":0},\"usage\":{\"total_tokens\":0}}");
    assert_eq!((fine.error, fine.terminal), (None, true));
}

#[test]
fn ends_are_told_by_the_answer_itself() {
    for (protocol, body, terminal) in [
        (Protocol::OpenAiChat, "data: {\"choices\":[{\"finish_reason\":null}]}\n\n", false),
        (Protocol::OpenAiChat, "data: {\"choices\":[{\"finish_reason\":\"\"}]}\n\n", false),
        (Protocol::OpenAiChat, "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", true),
        (Protocol::OpenAiChat, "data: [DONE]", true),
        (Protocol::OpenAiResponses, "data: {\"type\":\"response.output_text.delta\"}\n\n", false),
        (
            Protocol::OpenAiResponses,
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n",
            true,
        ),
        (Protocol::AnthropicMessages, "data: {\"type\":\"message_stop\"}\n\n", true),
        (
            Protocol::AnthropicMessages,
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":9}}\n\n",
            true,
        ),
        (
            Protocol::AnthropicMessages,
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":9}}\n\n",
            false,
        ),
        (Protocol::Gemini, "[{\"a\":1}\n,\r\n{\"b\":2}]", true),
        (Protocol::Gemini, "[{\"a\":1}\n,\r\n{\"b\":2}", false),
        (Protocol::OpenAiChat, "\n\n{\"choices\":[]}", true),
        (Protocol::OpenAiChat, "{\"choices\":[", false),
        (Protocol::OpenAiChat, "", false),
    ] {
        assert_eq!(read_body(protocol, "x", body.as_bytes()).terminal, terminal, "{body}");
    }
}

#[test]
fn usage_behind_something_huge_is_found() {
    let blob = "A".repeat(9 * 1024 * 1024);
    let body = format!(r#"{{"model":"m","data":["{blob}"],"usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#);
    for step in [1 << 14, 1 << 20, body.len()] {
        let mut meter = Meter::new(Protocol::OpenAiEmbeddings, "openai");
        body.as_bytes().chunks(step).for_each(|chunk| meter.push(chunk));
        let report = meter.finish();
        assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(4), Some(0), true));
        assert_eq!(report.usage.model.as_deref(), Some("m"));
    }
    let event = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[\"{}\"],\"usage\":{{\"input_tokens\":4,\"output_tokens\":2}},\"metadata\":{{}}}}}}\n\n",
        &blob[..1024 * 1024]
    );
    let report = split(Protocol::OpenAiResponses, "openai", event.as_bytes(), &[5, 300_000, 600_000]);
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(4), Some(2), true));
}

#[test]
fn an_opaque_route_reads_nothing() {
    let report = read_body(Protocol::Opaque, "openai", br#"{"usage":{"prompt_tokens":1}}"#);
    assert_eq!(report, Report::default());
}

fn stream() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "data: {\"model\":\"a\",\"usage\":null}\n\n",
        "data:{\"model\":\"b\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":-1}}\r\n\r\n",
        "data: {\"usage\":{\"input_tokens\":3.0,\"output_tokens\":2}}\n\n",
        "data: {\"x_groq\":{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}}\n\n",
        "data: {\"choices\":[{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}]}\n\n",
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":2,\"output_tokens\":1}}}\n\n",
        "data: {\"usageMetadata\":{\"promptTokenCount\":2}}\n\n",
        "event: error\ndata: {\"error\":{\"code\":\"x\"}}\n\n",
        ": ping\n\n",
        "data: {\"usage\":\ndata: {\"prompt_tokens\":4,\ndata: \"completion_tokens\":5}}\n\n",
        "data: {\"usage\":{\"pro",
        "data: [DONE]\n\n",
        "event: message_stop\n",
        "{\"done\":false,\"response\":\"a\"}\n",
        "{\"done\":true,\"prompt_eval_count\":3,\"eval_count\":4.5}\n",
        "{\"is_finished\":true,\"response\":{\"meta\":{\"tokens\":{\"input_tokens\":1,\"output_tokens\":2},\"billed_units\":{\"input_tokens\":1}}}}",
        "data: {\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"tokens\":{\"input_tokens\":1}}}}\n\n",
        "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"text\":\"a\"},\"usage\":{\"models\":[{\"input_tokens\":1}]}}\n\n",
        "data: {\"Usage\":{\"PromptTokens\":1,\"CompletionTokens\":2},\"Choices\":[{\"FinishReason\":\"stop\"}]}\n\n",
        "{\"interaction\":{\"usage\":{\"total_input_tokens\":3,\"total_thought_tokens\":1}}}",
        "{\"usage\":{\"inputTokens\":1,\"outputTokens\":2,\"cacheReadInputTokens\":9007199254740993}}",
        "{\"predictions\":[{\"embeddings\":{\"statistics\":{\"token_count\":1}}}]}",
        "\u{0}\u{0}\u{0}",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

/// Amazon's messages, some of them damaged.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let message = prop::sample::select(vec![
        ("event", "messageStart", &b"{\"role\":\"assistant\"}"[..]),
        ("event", "contentBlockDelta", b"{\"delta\":{\"text\":\"hello\"}}"),
        ("event", "metadata", b"{\"usage\":{\"inputTokens\":5,\"outputTokens\":3}}"),
        ("event", "chunk", b"{\"bytes\":\"eyJwcm9tcHRfdG9rZW5fY291bnQiOjV9\"}"),
        ("event", "chunk", b"{\"bytes\":\"%%%\"}"),
        ("exception", "throttlingException", b""),
    ]);
    let one = message.prop_map(|(kind, name, payload)| crate::wire::eventstream::written(kind, name, payload));
    let list = prop::collection::vec(one, 0..6).prop_map(|list| list.concat());
    (list, prop::option::of((0_usize..600, any::<u8>()))).prop_map(|(mut bytes, damage)| {
        if let Some((at, by)) = damage
            && let Some(byte) = bytes.get_mut(at)
        {
            *byte ^= by;
        }
        bytes
    })
}

fn same_for_every_split(protocol: Protocol, body: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let whole = read_body(protocol, "openai", body);
    prop_assert_eq!(&split(protocol, "openai", body, cuts), &whole, "{:?}", protocol);
    let every: Vec<_> = (0..body.len()).collect();
    prop_assert_eq!(&split(protocol, "openai", body, &every), &whole, "{:?}", protocol);
    Ok(())
}

proptest! {
    #[test]
    fn a_report_does_not_depend_on_the_split(
        stream in stream(),
        json in any::<bool>(),
        cuts in prop::collection::vec(0_usize..700, 0..16),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let body = if json { format!("[{}]", stream.replace("data: ", "").replace("\n\n", ",")) } else { stream };
        for protocol in Protocol::ALL {
            same_for_every_split(protocol, body.as_bytes(), &cuts)?;
        }
    }

    #[test]
    fn a_binary_stream_is_read_the_same_however_it_was_cut(
        stream in messages(),
        cuts in prop::collection::vec(0_usize..600, 0..16),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        for protocol in [Protocol::BedrockConverse, Protocol::BedrockInvoke] {
            same_for_every_split(protocol, &stream, &cuts)?;
        }
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(0_usize..300, 0..6),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        for protocol in Protocol::ALL {
            for start in [&b""[..], b"data: {\"usage\":", b"{\"usage\":", b"{\"done\":true,\"eval_count\":", b"\0\0\0\x40\0\0\0\x10"] {
                same_for_every_split(protocol, &[start, &bytes[..]].concat(), &cuts)?;
            }
        }
    }
}

/// Texts of several kinds, long enough that some of them are only sampled.
fn texts() -> Vec<(&'static str, String)> {
    let english = "The committee met on Tuesday, and nobody could say whether the report would be ready. ";
    let chinese = "数据平面位于机器人与模型供应商之间：它验证令牌、检查配额、选择密钥，并在流式传输时统计用量。";
    let code =
        "    let total: u64 = items.iter().map(|item| item.size).sum();\n    if total > limit { return Err(Full); }\n";
    let json = "{\"id\":\"call_1\",\"name\":\"get_weather\",\"arguments\":{\"city\":\"Paris\",\"days\":3}},\n";
    let emoji = "Done 🎉🚀 thanks 🙏🏽, all good 👍 — see you 😀!\n";
    let mixed = [english, chinese, code, json, emoji].concat();
    let kinds = [
        ("english", english),
        ("chinese", chinese),
        ("code", code),
        ("json", json),
        ("emoji", emoji),
        ("mixed", &mixed),
    ];
    let sizes = [1, 20, 800];
    kinds.iter().flat_map(|(name, text)| sizes.map(|times| (*name, text.repeat(times)))).collect()
}

fn within_a_tenth(what: &str, found: u64, real: u64) {
    assert!(found.abs_diff(real) * 10 <= real.max(20), "{what}: {found}, really {real}");
}

#[test]
fn a_broken_stream_is_counted_within_a_tenth() {
    let mut counter = Counter::default();
    for (name, text) in texts() {
        let mut body = String::new();
        let letters: Vec<char> = text.chars().collect();
        for delta in letters.chunks(5) {
            let delta =
                serde_json::json!({ "choices": [{ "delta": { "content": delta.iter().collect::<String>() } }] });
            body.push_str(&format!("data: {delta}\n\n"));
        }
        let report = chat(&body);
        let sample = report.sample.expect("kept");
        for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k] {
            let real = counter.text(vocabulary, &text).expect("counted");
            let what = format!("{name}, {} bytes, {vocabulary:?}", text.len());
            within_a_tenth(&what, sample.tokens(&mut counter, vocabulary, report.text), real);
        }
    }
}

#[test]
fn a_prompt_is_counted_within_a_tenth_also_when_it_is_sampled() {
    let mut counter = Counter::default();
    for (name, text) in texts() {
        let body = serde_json::json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": text }] });
        // What the template adds: three for the message, three for the answer.
        let real = counter.text(Vocabulary::O200k, &text).expect("counted") + 7;
        let size = PromptSize::of(body.to_string().as_bytes());
        within_a_tenth(&format!("{name}, {} bytes", text.len()), size.tokens(&mut counter, Vocabulary::O200k), real);
    }
    let all: String = texts().into_iter().map(|(_, text)| text).collect();
    let body = serde_json::json!({ "messages": [{ "content": all }, { "content": "a b".repeat(20_000) }] }).to_string();
    let real = counter.text(Vocabulary::O200k, &(all + &"a b".repeat(20_000))).expect("counted");
    within_a_tenth("everything", PromptSize::of(body.as_bytes()).tokens(&mut counter, Vocabulary::O200k), real);
}

#[test]
fn dialects_without_a_public_vocabulary_keep_no_text() {
    let event = b"event: content_block_delta\ndata: {\"delta\":{\"text\":\"four letters\"}}\n\n";
    let report = read_body(Protocol::AnthropicMessages, "anthropic", event);
    assert!(report.sample.is_none() && report.text.tokens() > 0);
}
