//! OpenAI chat completions, whole and streamed.
//!
//! Written byte by byte instead of through a JSON tree: this is what the
//! benchmarks call, and the mock must not be their bottleneck.

use serde_json::{Value, json};

use crate::answer::{Answer, StreamBody, put};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan, ToolCall};

/// The finish reason in OpenAI's words.
pub(super) const fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Tool => "tool_calls",
    }
}

/// The usage object; `output` for running totals.
pub(super) fn put_usage(out: &mut Vec<u8>, plan: &Plan, knobs: &Knobs, output: u64) {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    let output = output.min(bill.output);
    put(
        out,
        format_args!(
            "{{\"prompt_tokens\":{},\"completion_tokens\":{output},\"total_tokens\":{},\
             \"prompt_tokens_details\":{{\"cached_tokens\":{},\"audio_tokens\":0}},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":{},\"audio_tokens\":0,\
             \"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}",
            bill.input,
            bill.input + output,
            plan.cached.min(bill.input),
            plan.reasoning.min(output),
        ),
    );
}

/// A string as JSON, quotes included.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn tool_json(plan: &Plan, tool: &ToolCall, choice: u64) -> Value {
    json!({
        "id": plan.id("call_", 100 + choice),
        "type": "function",
        "function": {"name": tool.name, "arguments": tool.pieces.concat()},
    })
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let mut out = Vec::with_capacity(768);
    put(
        &mut out,
        format_args!(
            "{{\"id\":\"{}\",\"object\":\"chat.completion\",\"created\":{},\"model\":{},\"choices\":[",
            plan.id("chatcmpl-", 1),
            plan.created(),
            quoted(&plan.model),
        ),
    );
    for choice in 0..plan.choices {
        let comma = if choice == 0 { "" } else { "," };
        put(&mut out, format_args!("{comma}{{\"index\":{choice},\"message\":{{\"role\":\"assistant\",\"content\":"));
        match &plan.tool {
            Some(tool) => {
                put(&mut out, format_args!("null,\"tool_calls\":[{}],\"refusal\":null", tool_json(plan, tool, choice)))
            }
            None => {
                out.push(b'"');
                for at in 0..plan.words {
                    let (space, word) = plan.word(choice, at);
                    out.extend_from_slice(space.as_bytes());
                    out.extend_from_slice(word.as_bytes());
                }
                out.extend_from_slice(b"\",\"refusal\":null,\"annotations\":[]");
            }
        }
        let reason = finish_reason(plan.finish);
        put(&mut out, format_args!("}},\"logprobs\":null,\"finish_reason\":\"{reason}\"}}"));
    }
    out.push(b']');
    if knobs.usage != UsageVariant::Missing {
        out.extend_from_slice(b",\"usage\":");
        put_usage(&mut out, plan, knobs, u64::MAX);
    }
    out.extend_from_slice(b",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"}");
    Answer::whole(200, "application/json", out, plan.bill)
}

/// Writes the frames of one stream.
struct Chunks<'a> {
    plan: &'a Plan,
    knobs: &'a Knobs,
    head: Vec<u8>,
    body: StreamBody,
    tokens: u64,
}

impl Chunks<'_> {
    /// One chunk; `inner` is the content of `choices`.
    fn chunk(&mut self, tokens: u64, inner: std::fmt::Arguments<'_>, usage: Option<u64>) {
        let Self { plan, knobs, head, body, .. } = self;
        body.frame(tokens, |out| {
            out.extend_from_slice(head);
            put(out, format_args!("\"choices\":[{inner}]"));
            match usage {
                Some(output) => {
                    out.extend_from_slice(b",\"usage\":");
                    put_usage(out, plan, knobs, output);
                }
                None if plan.include_usage => out.extend_from_slice(b",\"usage\":null"),
                None => {}
            }
            out.extend_from_slice(b"}\n\n");
        });
    }

    /// One choice's delta.
    fn delta(&mut self, choice: u64, delta: &str, tokens: u64) {
        self.tokens += tokens;
        let running = (self.knobs.usage == UsageVariant::Split).then_some(self.tokens);
        self.chunk(
            tokens,
            format_args!("{{\"index\":{choice},\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}"),
            running,
        );
    }

    fn choice(&mut self, choice: u64) {
        let plan = self.plan;
        let Some(tool) = &plan.tool else {
            self.delta(choice, r#"{"role":"assistant","content":"","refusal":null}"#, 0);
            for at in 0..plan.words {
                let (space, word) = plan.word(choice, at);
                self.delta(choice, &format!("{{\"content\":\"{space}{word}\"}}"), 1);
            }
            return;
        };
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{
            "index": 0,
            "id": plan.id("call_", 100 + choice),
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }], "refusal": null});
        self.delta(choice, &call.to_string(), 0);
        for (at, piece) in tool.pieces.iter().enumerate() {
            let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
            self.delta(choice, &delta.to_string(), u64::from((at as u64) < plan.words));
        }
    }

    /// The extra chunk with an empty list of choices.
    fn usage_chunk(&mut self) {
        self.chunk(0, format_args!(""), Some(u64::MAX));
    }
}

/// The answer as server-sent events.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let mut head = Vec::with_capacity(256);
    put(
        &mut head,
        format_args!(
            "data: {{\"id\":\"{}\",\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":{},\
             \"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\",",
            plan.id("chatcmpl-", 1),
            plan.created(),
            quoted(&plan.model),
        ),
    );
    let frames = usize::try_from(plan.words * plan.choices).unwrap_or(0) + 8;
    let mut chunks = Chunks { plan, knobs, head, body: StreamBody::with_frames(frames), tokens: 0 };
    for choice in 0..plan.choices {
        chunks.choice(choice);
    }
    let variant = knobs.usage;
    let on_finish = matches!(variant, UsageVariant::Unasked | UsageVariant::Duplicated | UsageVariant::Split);
    for choice in 0..plan.choices {
        let reason = finish_reason(plan.finish);
        let last = choice + 1 == plan.choices;
        chunks.chunk(
            0,
            format_args!("{{\"index\":{choice},\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{reason}\"}}"),
            (on_finish && last).then_some(u64::MAX),
        );
    }
    let asked = plan.include_usage && variant != UsageVariant::Missing;
    if (asked && variant != UsageVariant::AfterDone) || variant == UsageVariant::Duplicated {
        chunks.usage_chunk();
    }
    chunks.body.frame(0, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
    if asked && variant == UsageVariant::AfterDone {
        chunks.usage_chunk();
    }
    chunks.body.finish("text/event-stream; charset=utf-8", plan.bill)
}
