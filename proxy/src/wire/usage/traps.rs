//! The traps that vendors' answers hold, each in the bytes in which it was seen.

use clawgate_shared::catalogue::{find, resolve};
use clawgate_shared::dialect::Protocol;
use clawgate_shared::pricing::Spent;
use clawgate_shared::usage::Usage;

use super::super::eventstream::written;
use super::*;

fn read(protocol: Protocol, vendor: &str, body: &str) -> Report {
    read_body(protocol, vendor, body.as_bytes())
}

fn used(protocol: Protocol, vendor: &str, body: &str) -> Usage {
    read(protocol, vendor, body).usage
}

/// Input, cached, written, output, reasoning.
fn counts(usage: &Usage) -> [Option<u64>; 5] {
    [usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning]
}

fn events(list: &[&str]) -> String {
    list.iter().map(|data| format!("data: {data}\n\n")).collect()
}

#[test]
fn t1_cached_tokens_are_inside_the_input_or_beside_it() {
    let inside =
        r#"{"usage":{"prompt_tokens":2048,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":1920}}}"#;
    for vendor in ["openai", "azure-openai", "deepseek", "groq", "zhipu", "venice", "moonshot", "openrouter", "xai"] {
        let usage = used(Protocol::OpenAiChat, vendor, inside);
        assert_eq!((usage.input, usage.cached_input), (Some(2048), Some(1920)), "{vendor}");
    }
    let beside = r#"{"usage":{"input_tokens":12,"cache_read_input_tokens":3000,"cache_creation_input_tokens":500,"output_tokens":4}}"#;
    for protocol in [Protocol::AnthropicMessages, Protocol::BedrockInvoke] {
        assert_eq!(counts(&used(protocol, "x", beside)), [Some(3512), Some(3000), Some(500), Some(4), None]);
    }
    // The total counts all four.
    let converse = r#"{"usage":{"cacheReadInputTokenCount":1028,"cacheReadInputTokens":1028,"cacheWriteInputTokens":7,"inputTokens":12,"outputTokens":250,"totalTokens":1297}}"#;
    let usage = used(Protocol::BedrockConverse, "bedrock", converse);
    assert_eq!((usage.input, usage.cached_input, usage.total_or_sum()), (Some(1047), Some(1028), Some(1297)));
    // More cached than asked: as said, and what is billed never falls below zero.
    let foundry =
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":161}}}"#;
    let usage = used(Protocol::OpenAiChat, "azure-openai", foundry);
    assert_eq!((usage.input, usage.cached_input), (Some(10), Some(161)));
    assert!(Spent::of(&usage).is_some_and(|spent| spent.input == 10 && spent.cached_input == 161));
}

#[test]
fn t2_reasoning_is_inside_the_output_or_beside_it() {
    let chat = |completion: u64, total: u64, reasoning: u64| {
        format!(
            r#"{{"usage":{{"prompt_tokens":35,"completion_tokens":{completion},"total_tokens":{total},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}}}"#
        )
    };
    for (vendor, completion, total, reasoning, output) in [
        ("openai", 300, 335, 256, 300),
        ("xai", 30, 265, 200, 230),
        // More reasoning than output, by the total of a router.
        ("openrouter", 10, 45, 96, 10),
    ] {
        let usage = used(Protocol::OpenAiChat, vendor, &chat(completion, total, reasoning));
        assert_eq!((usage.output, usage.reasoning), (Some(output), Some(reasoning)), "{vendor}");
    }
    // Thoughts that only the total shows.
    let hidden = r#"{"usage":{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}}"#;
    assert_eq!(used(Protocol::OpenAiChat, "google", hidden).output, Some(74));
    let thoughts = r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"thoughtsTokenCount":61}}"#;
    assert_eq!(used(Protocol::Gemini, "google", thoughts).output, Some(65));
    let interaction = r#"{"usage":{"total_input_tokens":156,"total_output_tokens":34,"total_thought_tokens":118,"total_tokens":308}}"#;
    let usage = used(Protocol::GeminiInteractions, "google", interaction);
    assert_eq!((usage.output, usage.reasoning), (Some(152), Some(118)));
    let cohere = r#"{"usage":{"tokens":{"input_tokens":1430,"output_tokens":1786,"reasoning_tokens":1516}}}"#;
    let usage = used(Protocol::Cohere, "cohere", cohere);
    assert_eq!((usage.output, usage.reasoning), (Some(1786), Some(1516)));
}

#[test]
fn t3_iterations_of_other_kinds_are_billed_beside_the_counts() {
    let body = r#"{"type":"message","usage":{"input_tokens":220,"output_tokens":40,"cache_read_input_tokens":0,"iterations":[{"type":"compaction","input_tokens":55196,"output_tokens":3500},{"type":"message","input_tokens":220,"output_tokens":40}]}}"#;
    let usage = used(Protocol::AnthropicMessages, "anthropic", body);
    assert_eq!((usage.input, usage.output), (Some(220), Some(40)));
    assert_eq!((usage.billing.billed_input, usage.billing.billed_output), (Some(55_416), Some(3540)));
    let spent = Spent::of(&usage).expect("billed");
    assert_eq!((spent.input, spent.output), (55_416, 3540));
    let advised = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":4727,\"output_tokens\":3391,\"iterations\":[{\"type\":\"message\",\"input_tokens\":1051,\"output_tokens\":35},{\"type\":\"advisor_message\",\"model\":\"claude-opus-4-7\",\"input_tokens\":2728,\"output_tokens\":3880},{\"type\":\"message\",\"input_tokens\":3676,\"output_tokens\":3356}]}}\n\n";
    let usage = used(Protocol::AnthropicMessages, "anthropic", advised);
    assert_eq!((usage.input, usage.billing.billed_input), (Some(4727), Some(7455)));
    assert_eq!((usage.output, usage.billing.billed_output), (Some(3391), Some(7271)));
    // One that fell back is in the counts already.
    let fallen = r#"{"usage":{"input_tokens":412,"output_tokens":264,"iterations":[{"type":"message","input_tokens":408,"output_tokens":0},{"type":"fallback_message","input_tokens":412,"output_tokens":264}]}}"#;
    assert_eq!(used(Protocol::AnthropicMessages, "anthropic", fallen).billing.billed_input, None);
}

#[test]
fn t4_a_delta_overrides_the_start_and_is_never_added() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":2039,"cache_read_input_tokens":55096,"cache_creation_input_tokens":6,"output_tokens":8}}}"#;
    for (deltas, wanted) in [
        (
            vec![r#"{"type":"message_delta","usage":{"output_tokens":320}}"#],
            [Some(57_141), Some(55_096), Some(6), Some(320), None],
        ),
        (
            vec![
                r#"{"type":"message_delta","usage":{"input_tokens":10423,"cache_read_input_tokens":0,"output_tokens":320}}"#,
            ],
            [Some(10_429), Some(0), Some(6), Some(320), None],
        ),
        // Some proxies begin twice.
        (
            vec![
                start,
                r#"{"type":"message_delta","usage":{"output_tokens":5}}"#,
                r#"{"type":"message_delta","usage":{"output_tokens":9}}"#,
            ],
            [Some(57_141), Some(55_096), Some(6), Some(9), None],
        ),
    ] {
        let stream = events(&[&[start], &deltas[..]].concat());
        assert_eq!(counts(&used(Protocol::AnthropicMessages, "anthropic", &stream)), wanted, "{stream}");
    }
}

#[test]
fn t5_geminis_last_report_is_taken_whole() {
    let of = |list: &[&str]| counts(&used(Protocol::Gemini, "google", &events(list)));
    let first = r#"{"usageMetadata":{"promptTokenCount":145,"cachedContentTokenCount":9,"candidatesTokenCount":51,"totalTokenCount":196}}"#;
    let drops = r#"{"usageMetadata":{"promptTokenCount":85,"candidatesTokenCount":6,"totalTokenCount":91}}"#;
    assert_eq!(of(&[first, drops]), [Some(85), None, None, Some(6), None]);
    let vanished = r#"{"usageMetadata":{"promptTokenCount":18,"toolUsePromptTokenCount":30,"totalTokenCount":48}}"#;
    assert_eq!(of(&[first, vanished]), [Some(48), None, None, Some(0), None]);
    let thoughts_only = r#"{"usageMetadata":{"promptTokenCount":17,"thoughtsTokenCount":40,"totalTokenCount":57}}"#;
    assert_eq!(of(&[drops, thoughts_only]), [Some(17), None, None, Some(40), Some(40)]);
}

#[test]
fn t6_what_is_said_twice_counts_once() {
    let usage = r#""usage":{"prompt_tokens":44,"completion_tokens":12,"total_tokens":56}"#;
    let groq = events(&[
        &format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"x_groq":{{{usage}}},{usage}}}"#),
        &format!(r#"{{"choices":[],{usage}}}"#),
        "[DONE]",
    ]);
    let moonshot = events(&[
        &format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop",{usage}}}]}}"#),
        &format!(r#"{{"choices":[],{usage}}}"#),
    ]);
    let running: Vec<String> =
        (1..=12).map(|given| format!(r#"{{"choices":[{{"delta":{{"content":"a"}}}}],"usage":{{"prompt_tokens":44,"completion_tokens":{given}}}}}"#)).collect();
    let running = events(&running.iter().map(String::as_str).collect::<Vec<_>>());
    for (vendor, stream) in [
        ("groq", &groq),
        ("moonshot", &moonshot),
        ("stepfun", &running),
        ("perplexity", &running),
        ("hunyuan", &running),
    ] {
        let usage = used(Protocol::OpenAiChat, vendor, stream);
        assert_eq!((usage.input, usage.output), (Some(44), Some(12)), "{vendor}");
    }
    let native = "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"finish_reason\":\"null\"},\"usage\":{\"input_tokens\":24,\"output_tokens\":1}}\n\nid:2\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"finish_reason\":\"stop\"},\"usage\":{\"input_tokens\":24,\"output_tokens\":9}}\n\n";
    assert_eq!(used(Protocol::DashScope, "dashscope", native).output, Some(9));
    let hunyuan = events(&[
        r#"{"Choices":[{"Delta":{"Content":"a"},"FinishReason":""}],"Usage":{"PromptTokens":3,"CompletionTokens":1,"TotalTokens":4}}"#,
        r#"{"Choices":[{"Delta":{"Content":""},"FinishReason":"stop"}],"Usage":{"PromptTokens":3,"CompletionTokens":7,"TotalTokens":10}}"#,
    ]);
    let report = read(Protocol::Hunyuan, "hunyuan", &hunyuan);
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(3), Some(7), true));
}

#[test]
fn t7_null_or_empty_usage_erases_nothing() {
    let said = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#;
    for later in [r#"{"usage":null}"#, r#"{"usage":{}}"#, r#"{"choices":[]}"#, r#"{"usage":{"prompt_tokens":null}}"#] {
        let usage = used(Protocol::OpenAiChat, "openai", &events(&[r#"{"usage":null}"#, said, later, "[DONE]"]));
        assert_eq!((usage.input, usage.output), (Some(5), Some(3)), "{later}");
    }
    for (protocol, said, later) in [
        (Protocol::DashScope, r#"{"usage":{"input_tokens":5,"output_tokens":3}}"#, r#"{"usage":{}}"#),
        (
            Protocol::Cohere,
            r#"{"delta":{"usage":{"tokens":{"input_tokens":5,"output_tokens":3}}}}"#,
            r#"{"delta":{"usage":null}}"#,
        ),
        (
            Protocol::GeminiInteractions,
            r#"{"interaction":{"usage":{"total_input_tokens":5,"total_output_tokens":3}}}"#,
            r#"{"interaction":{"usage":{}}}"#,
        ),
        (Protocol::Hunyuan, r#"{"Usage":{"PromptTokens":5,"CompletionTokens":3}}"#, r#"{"Usage":null}"#),
    ] {
        let usage = used(protocol, "x", &events(&[said, later]));
        assert_eq!((usage.input, usage.output), (Some(5), Some(3)), "{protocol:?}");
    }
    assert!(!used(Protocol::OpenAiChat, "openai", "").has_counts());
}

#[test]
fn t8_errors_inside_a_good_status_are_errors() {
    let groq = "event: error\ndata: {\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\",\"status_code\":400}}\n\n";
    let router = ": OPENROUTER PROCESSING\n\ndata: {\"error\":{\"code\":502,\"message\":\"m\"},\"user_id\":\"u\"}\n\n";
    let dashscope = "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{\"code\":\"InvalidParameter\",\"message\":\"m\",\"request_id\":\"r\"}\n\n";
    for (protocol, body, code) in [
        (Protocol::OpenAiChat, groq, "invalid_request_error"),
        (Protocol::OpenAiChat, router, "502"),
        (Protocol::DashScope, dashscope, "InvalidParameter"),
        (Protocol::OpenAiChat, r#"{"choices":null,"base_resp":{"status_code":1008,"status_msg":"m"}}"#, "1008"),
        (
            Protocol::Hunyuan,
            r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"m"},"RequestId":"r"}}"#,
            "AuthFailure.SignatureFailure",
        ),
        (
            Protocol::OpenAiResponses,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
            "server_error",
        ),
        (Protocol::Ollama, "{\"model\":\"m\",\"done\":false}\n{\"error\":\"out of memory\"}\n", "error"),
        (
            Protocol::Cohere,
            "data: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"ERROR_TOXIC\"}}\n\n",
            "ERROR_TOXIC",
        ),
        (
            Protocol::GeminiInteractions,
            "event: error\ndata: {\"event_type\":\"error\",\"error\":{\"code\":\"deadline\",\"message\":\"m\"}}\n\n",
            "deadline",
        ),
    ] {
        assert_eq!(read(protocol, "x", body).error.as_deref(), Some(code), "{body}");
    }
    let thrown =
        [written("event", "messageStart", b"{}"), written("exception", "throttlingException", br#"{"message":"m"}"#)];
    let report = read_body(Protocol::BedrockConverse, "bedrock", &thrown.concat());
    assert_eq!((report.error.as_deref(), report.terminal), (Some("throttlingException"), false));
    // What was billed before the error stays.
    let partial = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let report = read(Protocol::AnthropicMessages, "anthropic", partial);
    assert_eq!((report.usage.input, report.error.as_deref()), (Some(9), Some("overloaded_error")));
}

#[test]
fn t9_odd_numbers_are_made_possible_and_flagged() {
    let research = r#"{"usage":{"input_tokens":0,"output_tokens":-9,"total_tokens":-9,"output_tokens_details":{"reasoning_tokens":448}}}"#;
    let report = read(Protocol::OpenAiResponses, "openai", research);
    assert_eq!(counts(&report.usage), [Some(0), None, None, Some(0), Some(448)]);
    assert!(report.odd);
    let most = Some(1 << 53);
    let absurd = r#"{"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":1}}"#;
    let report = read(Protocol::OpenAiChat, "custom", absurd);
    assert_eq!((report.usage.input, report.odd), (most, true));
    // Floats beside the counts are nothing odd.
    let groq = r#"{"usage":{"queue_time":0.018,"prompt_tokens":44,"prompt_time":0.002,"completion_tokens":12.0,"total_tokens":56}}"#;
    let report = read(Protocol::OpenAiChat, "groq", groq);
    assert_eq!((report.usage.output, report.odd), (Some(12), false));
    for (protocol, body) in [
        (Protocol::AnthropicMessages, r#"{"usage":{"input_tokens":-1,"output_tokens":1}}"#),
        (Protocol::Gemini, r#"{"usageMetadata":{"promptTokenCount":1.5}}"#),
        (Protocol::Ollama, r#"{"prompt_eval_count":-1,"eval_count":3,"done":true}"#),
        (Protocol::BedrockConverse, r#"{"usage":{"inputTokens":1e30,"outputTokens":1}}"#),
    ] {
        assert!(read(protocol, "x", body).odd, "{body}");
    }
}

#[test]
fn t10_mistrals_audio_stands_beside_the_prompt() {
    let body = r#"{"model":"voxtral-small-latest","usage":{"completion_tokens":15,"prompt_audio_seconds":5,"prompt_tokens":11,"prompt_tokens_details":{"audio_tokens":375,"cached_tokens":9},"total_tokens":401}}"#;
    let usage = used(Protocol::OpenAiChat, "mistral", body);
    assert_eq!((usage.input, usage.output, usage.total), (Some(11), Some(15), Some(401)));
    let spent = Spent::of(&usage).expect("billed");
    assert_eq!((spent.input, spent.input_audio), (11, 375));
    let transcript = r#"{"model":"voxtral-mini-latest","text":"a","usage":{"prompt_audio_seconds":316,"prompt_tokens":4,"total_tokens":5201,"completion_tokens":1072}}"#;
    let usage = used(Protocol::OpenAiAudio, "mistral", transcript);
    assert_eq!((usage.input, usage.output), (Some(4), Some(1072)));
}

#[test]
fn t11_coheres_tokens_are_used_and_its_units_are_billed() {
    let chat = r#"{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":7,"output_tokens":115},"tokens":{"input_tokens":69,"output_tokens":116},"cached_tokens":48}}"#;
    let usage = used(Protocol::Cohere, "cohere", chat);
    assert_eq!(counts(&usage), [Some(69), Some(48), None, Some(116), None]);
    let spent = Spent::of(&usage).expect("billed");
    assert_eq!((spent.input, spent.cached_input, spent.output), (7, 0, 115));
    let embed = r#"{"id":"e","embeddings":{},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":9,"image_tokens":0}}}"#;
    let usage = used(Protocol::CohereEmbed, "cohere", embed);
    assert!(!usage.has_counts() && Spent::of(&usage).is_some_and(|spent| spent.input == 9));
    let rerank = r#"{"results":[],"meta":{"billed_units":{"search_units":1}}}"#;
    assert_eq!(used(Protocol::Rerank, "cohere", rerank), Usage::default());
    let flow = r#"{"id":"r1","results":[],"meta":{"billed_units":{"input_tokens":17,"output_tokens":0},"tokens":{"input_tokens":17,"output_tokens":0}}}"#;
    assert_eq!(used(Protocol::Rerank, "siliconflow", flow).input, Some(17));
    for (body, vendor) in [
        (r#"{"model":"m","usage":{"prompt_tokens":55,"total_tokens":55}}"#, "llamacpp"),
        (r#"{"model":"m","usage":{"total_tokens":55}}"#, "custom"),
    ] {
        let usage = used(Protocol::Rerank, vendor, body);
        assert_eq!((usage.input, usage.output, usage.model.as_deref()), (Some(55), Some(0), Some("m")));
    }
}

#[test]
fn t12_where_no_model_is_named_none_is_made_up() {
    for (protocol, body) in [
        (Protocol::Cohere, r#"{"usage":{"tokens":{"input_tokens":1,"output_tokens":1}}}"#),
        (Protocol::BedrockConverse, r#"{"usage":{"inputTokens":1,"outputTokens":1}}"#),
        (Protocol::DashScope, r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#),
        (Protocol::GeminiEmbed, r#"{"usageMetadata":{"promptTokenCount":8}}"#),
        (Protocol::OpenAiAudio, r#"{"text":"a","usage":{"input_tokens":1,"output_tokens":1}}"#),
        (Protocol::OpenAiImages, r#"{"data":[],"usage":{"input_tokens":14,"output_tokens":272}}"#),
        (Protocol::OpenAiChat, r#"{"model":"","usage":{"prompt_tokens":1,"completion_tokens":1}}"#),
    ] {
        let usage = used(protocol, "x", body);
        assert_eq!((usage.has_counts(), usage.model), (true, None), "{body}");
    }
    let azure = events(&[
        r#"{"choices":[],"model":"","prompt_filter_results":[]}"#,
        r#"{"choices":[{"delta":{"content":"a"}}],"model":"gpt-4o-2024-11-20"}"#,
    ]);
    assert_eq!(used(Protocol::OpenAiChat, "azure-openai", &azure).model.as_deref(), Some("gpt-4o-2024-11-20"));
    let app = r#"{"output":{"finish_reason":"stop"},"usage":{"models":[{"output_tokens":1081,"model_id":"deepseek-r1","input_tokens":1283}]}}"#;
    let usage = used(Protocol::DashScope, "dashscope", app);
    assert_eq!((usage.model.as_deref(), usage.input, usage.output), (Some("deepseek-r1"), Some(1283), Some(1081)));
}

#[test]
fn t13_every_framing_is_read() {
    let chat = r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#;
    let gemini =
        r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":3}}"#;
    let cohere = r#"{"tokens":{"input_tokens":5,"output_tokens":3}}"#;
    let bodies = [
        (Protocol::OpenAiChat, format!("data:{chat}\n\n")),
        (Protocol::OpenAiChat, format!(": ping - 2026\r\n\r\ndata: {chat}\r\n\r\n")),
        (Protocol::OpenAiChat, format!(": keep-alive\n\n: keep-alive\n\ndata: {chat}\n\ndata: [DONE]\n\n")),
        // The last event without its blank line.
        (Protocol::OpenAiChat, format!("data: {chat}")),
        // Blank lines before what is no stream.
        (Protocol::OpenAiChat, format!("\n\n\n{chat}")),
        (Protocol::Gemini, format!("data: {gemini}\r\n\r\n")),
        (Protocol::Gemini, format!("[{{\"candidates\":[]}}\n,\r\n{gemini}\n]")),
        (Protocol::DashScope, "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"finish_reason\":\"stop\"},\"usage\":{\"input_tokens\":5,\"output_tokens\":3}}\n\n".to_owned()),
        (Protocol::Cohere, format!("event: message-end\ndata: {{\"type\":\"message-end\",\"delta\":{{\"finish_reason\":\"COMPLETE\",\"usage\":{cohere}}}}}\n\ndata: [DONE]\n\n")),
        (Protocol::Cohere, format!("{{\"is_finished\":false,\"event_type\":\"stream-start\"}}\n{{\"is_finished\":true,\"event_type\":\"stream-end\",\"response\":{{\"meta\":{cohere}}}}}")),
        (Protocol::Cohere, format!("{{\n  \"text\": \"a\",\n  \"meta\": {cohere}\n}}\n")),
        (Protocol::Ollama, "{\"done\":false}\n{\"done\":true,\"prompt_eval_count\":5,\"eval_count\":3}\n".to_owned()),
        (Protocol::GeminiInteractions, "event: interaction.completed\ndata: {\"event_type\":\"interaction.completed\",\"interaction\":{\"usage\":{\"total_input_tokens\":5,\"total_output_tokens\":3}}}\n\nevent: done\ndata: [DONE]\n\n".to_owned()),
        (Protocol::OpenAiAudio, "event: transcript.text.done\ndata: {\"type\":\"transcript.text.done\",\"text\":\"a\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":5,\"output_tokens\":3}}\n\n".to_owned()),
        (Protocol::OpenAiImages, "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"\",\"usage\":{\"input_tokens\":5,\"output_tokens\":3}}\n\n".to_owned()),
    ];
    for (protocol, body) in bodies {
        let report = read(protocol, "x", &body);
        let found = (report.usage.input, report.usage.output, report.terminal, report.error);
        assert_eq!(found, (Some(5), Some(3), true, None), "{protocol:?} {body}");
    }
    // Titan's, packed twice.
    let packed = br#"{"bytes":"eyJvdXRwdXRUZXh0IjoiYSIsImFtYXpvbi1iZWRyb2NrLWludm9jYXRpb25NZXRyaWNzIjp7ImlucHV0VG9rZW5Db3VudCI6NSwib3V0cHV0VG9rZW5Db3VudCI6M319","p":"abc"}"#;
    let report = read_body(Protocol::BedrockInvoke, "bedrock", &written("event", "chunk", packed));
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(5), Some(3), true));
    assert!(report.text.tokens() > 0);
    let converse = [
        written("event", "contentBlockDelta", br#"{"delta":{"text":"hello"}}"#),
        written("event", "messageStop", br#"{"stopReason":"end_turn"}"#),
        written("event", "metadata", br#"{"usage":{"inputTokens":5,"outputTokens":3,"totalTokens":8}}"#),
    ]
    .concat();
    let report = read_body(Protocol::BedrockConverse, "bedrock", &converse);
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(5), Some(3), true));
    // Sound is no text.
    let sound = [b"ID3\x04\x00data: ", &[0xff_u8; 5000][..]].concat();
    assert_eq!(read_body(Protocol::OpenAiAudio, "openai", &sound), Report::default());
}

#[test]
fn t14_usage_is_of_all_choices_and_batches_are_read_elsewhere() {
    let three =
        r#"{"choices":[{"index":0},{"index":1},{"index":2}],"usage":{"prompt_tokens":5,"completion_tokens":30}}"#;
    assert_eq!(used(Protocol::OpenAiChat, "openai", three).output, Some(30));
    for (vendor, path) in [
        ("openai", "batches"),
        ("openai", "files/f/content"),
        ("openai", "threads/t/runs"),
        ("anthropic", "messages/batches"),
        ("google", "models/m:batchGenerateContent"),
        ("dashscope", "api/v1/tasks/t"),
    ] {
        let vendor = find(vendor).expect("built in");
        let route = resolve(vendor, "POST", path).expect("listed").route;
        assert_eq!(route.protocol, Protocol::Opaque, "{path}");
    }
}

#[test]
fn t15_embeddings_report_in_nine_ways() {
    for (protocol, vendor, body, input) in [
        (
            Protocol::OpenAiEmbeddings,
            "openai",
            r#"{"data":[],"usage":{"prompt_tokens":33,"total_tokens":33}}"#,
            Some(33),
        ),
        (Protocol::OpenAiEmbeddings, "custom", r#"{"data":[],"usage":{"total_tokens":33}}"#, Some(33)),
        (Protocol::GeminiEmbed, "google", r#"{"embedding":{},"usageMetadata":{"promptTokenCount":33}}"#, Some(33)),
        (Protocol::GeminiEmbed, "google", r#"{"embeddings":[{"values":[0.1]}]}"#, None),
        (
            Protocol::GeminiEmbed,
            "vertex",
            r#"{"predictions":[{"embeddings":{"values":[0.1],"statistics":{"token_count":30,"truncated":false}}},{"embeddings":{"statistics":{"token_count":3.0}}}],"metadata":{"billableCharacterCount":99}}"#,
            Some(33),
        ),
        (Protocol::OllamaEmbed, "ollama", r#"{"model":"m","embeddings":[[0.1]],"prompt_eval_count":33}"#, Some(33)),
        (Protocol::OllamaEmbed, "ollama", r#"{"embedding":[0.1]}"#, None),
        (Protocol::BedrockInvoke, "bedrock", r#"{"embedding":[0.1],"inputTextTokenCount":33}"#, Some(33)),
        (Protocol::DashScope, "dashscope", r#"{"output":{"embeddings":[]},"usage":{"total_tokens":33}}"#, Some(33)),
    ] {
        let usage = used(protocol, vendor, body);
        assert_eq!((usage.input, usage.output), (input, input.map(|_| 0)), "{vendor} {body}");
    }
    // Only the head of the answer tells.
    let mut meter = Meter::new(Protocol::BedrockInvoke, "bedrock");
    meter.told(|name| match name {
        "x-amzn-bedrock-input-token-count" => Some("30"),
        "x-amzn-bedrock-cache-read-input-token-count" => Some("3"),
        "x-amzn-bedrock-output-token-count" => Some("0"),
        _ => None,
    });
    meter.push(br#"{"embeddings":[[0.1]],"response_type":"embeddings_floats"}"#);
    assert_eq!(counts(&meter.finish().usage), [Some(33), Some(3), None, Some(0), None]);
}

#[test]
fn t16_a_prompt_count_that_is_missing_is_unknown_unless_the_answer_is_counted() {
    // Nothing is counted: nothing is known, least of all a zero.
    for body in [
        "{\"model\":\"m\",\"message\":{\"content\":\"a\"},\"done\":false}\n{\"model\":\"m\",\"done_reason\":\"stop\",\"done\":true}\n",
        r#"{"model":"m","response":"a","done":true,"total_duration":1}"#,
    ] {
        let report = read(Protocol::Ollama, "ollama", body);
        assert!(!report.usage.has_counts() && report.terminal && report.text.tokens() > 0, "{body}");
    }
    // The server leaves zeros out: it had evaluated this prompt before.
    let cached =
        "{\"model\":\"m\",\"done\":false}\n{\"model\":\"m\",\"done\":true,\"total_duration\":1,\"eval_count\":2}\n";
    let usage = used(Protocol::Ollama, "ollama", cached);
    assert_eq!((usage.input, usage.output), (Some(0), Some(2)));
}
