//! What vendors say of cached, reasoning, tool and audio tokens, each in its own
//! way, and what is made of it: one case per way. Where a part stands inside its
//! whole and where beside it differs from vendor to vendor, and sometimes from
//! one route of a vendor to another.

use clawgate_shared::dialect::Protocol::{
    self, AnthropicMessages, Gemini, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses,
};

use super::read_body;

/// Input, cached input, cache writes, output, reasoning, total, audio in, audio
/// out.
type Counts = [Option<u64>; 8];

struct Case(&'static str, Protocol, &'static str, Counts);

/// The counts of a case; -1: not said.
const fn counts(numbers: [i64; 8]) -> Counts {
    let mut counts = [None; 8];
    let mut at = 0;
    while at < 8 {
        if numbers[at] >= 0 {
            counts[at] = Some(numbers[at].unsigned_abs());
        }
        at += 1;
    }
    counts
}

const CASES: [Case; 26] = [
    Case(
        "openai",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":2048,"completion_tokens":300,"total_tokens":2348,"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":256,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#,
        counts([2048, 1920, -1, 300, 256, 2348, 0, 0]),
    ),
    Case(
        "openai",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":120,"completion_tokens":90,"total_tokens":210,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":100,"text_tokens":20},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":70,"text_tokens":20}}}"#,
        counts([120, 0, -1, 90, 0, 210, 100, 70]),
    ),
    Case(
        "openai",
        OpenAiChat,
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":9}}\"}}]}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":80,\"completion_tokens\":22,\"total_tokens\":102,\"prompt_tokens_details\":{\"cached_tokens\":64,\"cache_write_tokens\":16}}}\n\ndata: [DONE]\n\n",
        counts([80, 64, 16, 22, -1, 102, -1, -1]),
    ),
    Case(
        "openai",
        OpenAiCompletions,
        "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\ndata: [DONE]\n\n",
        counts([5, -1, -1, 7, -1, 12, -1, -1]),
    ),
    Case(
        "openai",
        OpenAiResponses,
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":4000,\"input_tokens_details\":{\"cached_tokens\":3000,\"cache_write_tokens\":500},\"output_tokens\":900,\"output_tokens_details\":{\"reasoning_tokens\":640},\"total_tokens\":4900}}}\n\n",
        counts([4000, 3000, 500, 900, 640, 4900, -1, -1]),
    ),
    Case(
        "openai",
        OpenAiResponses,
        "event: response.incomplete\ndata: {\"type\":\"response.incomplete\",\"response\":{\"usage\":{\"input_tokens\":10,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":16,\"output_tokens_details\":{\"reasoning_tokens\":16},\"total_tokens\":26}}}\n\n",
        counts([10, 0, -1, 16, 16, 26, -1, -1]),
    ),
    Case(
        "openai",
        OpenAiResponses,
        r#"{"usage":{"input_tokens":0,"input_tokens_details":{"cached_tokens":0},"output_tokens":-9,"output_tokens_details":{"reasoning_tokens":448},"total_tokens":-9}}"#,
        counts([0, 0, -1, 0, 448, 0, -1, -1]),
    ),
    Case(
        "openai",
        OpenAiEmbeddings,
        r#"{"data":[],"usage":{"prompt_tokens":33,"total_tokens":33}}"#,
        counts([33, -1, -1, 0, -1, 33, -1, -1]),
    ),
    // The cached ones are more than the prompt: both stand as they were said.
    Case(
        "azure-openai",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":8,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":161},"completion_tokens_details":{"reasoning_tokens":0}}}"#,
        counts([10, 161, -1, 8, 0, 18, -1, -1]),
    ),
    Case(
        "deepseek",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":70,"completion_tokens":50,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":40},"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":6}}"#,
        counts([70, 64, -1, 50, 40, 120, -1, -1]),
    ),
    // Three times the same.
    Case(
        "groq",
        OpenAiChat,
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"queue_time\":0.1,\"prompt_tokens\":44,\"completion_tokens\":12,\"total_tokens\":56}},\"usage\":{\"prompt_tokens\":44,\"completion_tokens\":12,\"total_tokens\":56}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":44,\"prompt_time\":0.002,\"completion_tokens\":12,\"total_tokens\":56,\"prompt_tokens_details\":{\"cached_tokens\":32},\"completion_tokens_details\":{\"reasoning_tokens\":5}}}\n\ndata: [DONE]\n\n",
        counts([44, 32, -1, 12, 5, 56, -1, -1]),
    ),
    // In the place where only Groq has it.
    Case(
        "groq",
        OpenAiChat,
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12}}}\n\ndata: [DONE]\n\n",
        counts([9, -1, -1, 3, -1, 12, -1, -1]),
    ),
    // Reasoning beside the output.
    Case(
        "xai",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":200,"completion_tokens":30,"total_tokens":430,"prompt_tokens_details":{"text_tokens":200,"audio_tokens":0,"image_tokens":0,"cached_tokens":150},"completion_tokens_details":{"reasoning_tokens":200,"audio_tokens":0},"num_sources_used":0}}"#,
        counts([200, 150, -1, 230, 200, 430, 0, 0]),
    ),
    // And inside it.
    Case(
        "xai",
        OpenAiResponses,
        r#"{"usage":{"input_tokens":200,"input_tokens_details":{"cached_tokens":150},"output_tokens":230,"output_tokens_details":{"reasoning_tokens":200},"total_tokens":430}}"#,
        counts([200, 150, -1, 230, 200, 430, -1, -1]),
    ),
    Case(
        "mistral",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":90,"completion_tokens":10,"total_tokens":100,"num_cached_tokens":64,"prompt_tokens_details":null}}"#,
        counts([90, 64, -1, 10, -1, 100, -1, -1]),
    ),
    // Written and read, both inside the prompt.
    Case(
        "openrouter",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":2572,"completion_tokens":40,"total_tokens":2612,"cost":0.01,"is_byok":false,"prompt_tokens_details":{"cached_tokens":2240,"cache_write_tokens":329,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":12,"image_tokens":0}}}"#,
        counts([2572, 2240, 329, 40, 12, 2612, 0, -1]),
    ),
    Case(
        "moonshot",
        OpenAiChat,
        "data:{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":21,\"total_tokens\":40,\"cached_tokens\":19}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":21,\"total_tokens\":40,\"cached_tokens\":19}}\n\ndata: [DONE]\n\n",
        counts([19, 19, -1, 21, -1, 40, -1, -1]),
    ),
    // Running totals in every piece.
    Case(
        "stepfun",
        OpenAiChat,
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":1,\"total_tokens\":9,\"cached_tokens\":4}}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2,\"total_tokens\":10,\"cached_tokens\":4}}\n\ndata: [DONE]\n\n",
        counts([8, 4, -1, 2, -1, 10, -1, -1]),
    ),
    // Cache writes inside the prompt, in the details.
    Case(
        "dashscope",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":1500,"completion_tokens":20,"total_tokens":1520,"prompt_tokens_details":{"cached_tokens":400,"cache_creation_input_tokens":1000}}}"#,
        counts([1500, 400, 1000, 20, -1, 1520, -1, -1]),
    ),
    Case(
        "minimax",
        OpenAiChat,
        r#"{"usage":{"total_tokens":77,"total_characters":0,"prompt_tokens":60,"completion_tokens":17,"completion_tokens_details":{"reasoning_tokens":9}},"base_resp":{"status_code":0}}"#,
        counts([60, -1, -1, 17, 9, 77, -1, -1]),
    ),
    // Thoughts show in the total only.
    Case(
        "google",
        OpenAiChat,
        r#"{"usage":{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}}"#,
        counts([35, -1, -1, 74, -1, 109, -1, -1]),
    ),
    // Read and written beside the input; thinking inside the output.
    Case(
        "anthropic",
        AnthropicMessages,
        r#"{"type":"message","usage":{"input_tokens":12,"cache_read_input_tokens":3000,"cache_creation_input_tokens":500,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":400},"output_tokens":250,"output_tokens_details":{"thinking_tokens":180},"server_tool_use":{"web_search_requests":2}}}"#,
        counts([3512, 3000, 500, 250, 180, 3762, -1, -1]),
    ),
    // A server's tool adds to the input on the way.
    Case(
        "anthropic",
        AnthropicMessages,
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":2039,\"cache_read_input_tokens\":0,\"cache_creation_input_tokens\":0,\"output_tokens\":4}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":10423,\"cache_read_input_tokens\":0,\"cache_creation_input_tokens\":0,\"output_tokens\":320,\"server_tool_use\":{\"web_search_requests\":1}}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        counts([10423, 0, 0, 320, -1, 10743, -1, -1]),
    ),
    // Thoughts beside the candidates, the tools' prompt beside the prompt, cached
    // inside it.
    Case(
        "google",
        Gemini,
        r#"{"usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":800,"candidatesTokenCount":40,"thoughtsTokenCount":60,"toolUsePromptTokenCount":150,"totalTokenCount":1250,"promptTokensDetails":[{"modality":"TEXT","tokenCount":700},{"modality":"AUDIO","tokenCount":300}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":200}],"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":40}]}}"#,
        counts([1150, 800, -1, 100, 60, 1250, 300, 40]),
    ),
    // Nothing but thoughts.
    Case(
        "google",
        Gemini,
        r#"{"usageMetadata":{"promptTokenCount":9,"thoughtsTokenCount":61,"totalTokenCount":70}}"#,
        counts([9, -1, -1, 61, 61, 70, -1, -1]),
    ),
    // The last report counts, though an earlier one said more.
    Case(
        "vertex",
        Gemini,
        "[{\"usageMetadata\":{\"promptTokenCount\":145,\"cachedContentTokenCount\":90,\"totalTokenCount\":145,\"trafficType\":\"ON_DEMAND\"}}\n,\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":85,\"candidatesTokenCount\":6,\"totalTokenCount\":91}}\n]",
        counts([85, -1, -1, 6, -1, 91, -1, -1]),
    ),
];

#[test]
fn every_vendors_way_of_counting_comes_out_the_same() {
    for (number, Case(vendor, protocol, body, wanted)) in CASES.iter().enumerate() {
        let usage = read_body(*protocol, vendor, body.as_bytes()).usage;
        let found = [
            usage.input,
            usage.cached_input,
            usage.cache_write,
            usage.output,
            usage.reasoning,
            usage.total_or_sum(),
            usage.billing.input_audio,
            usage.billing.output_audio,
        ];
        assert_eq!(found, *wanted, "{number}: {vendor} {body}");
        // What is charged counts nothing twice.
        let sum = usage.input.zip(usage.output).map(|(input, output)| input + output);
        assert_eq!(usage.total_or_sum(), sum, "{number}: {vendor} {body}");
    }
}
