//! Mistral's form of OpenAI's chat and embeddings: usage always on the chunk that
//! finishes, a tool call whole in one chunk, an id on everything.

use serde_json::{Value, json};

use super::{openai_chat, openai_embeddings};
use crate::answer::{Answer, StreamBody};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Plan, Sketch, ToolCall};

fn usage(plan: &Plan, knobs: &Knobs) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    json!({
        "prompt_tokens": bill.input,
        "total_tokens": bill.input + bill.output,
        "completion_tokens": bill.output,
        "prompt_tokens_details": {"cached_tokens": plan.cached.min(bill.input)},
    })
}

fn calls(plan: &Plan, tool: &ToolCall, choice: u64) -> Value {
    let function = json!({"name": tool.name, "arguments": tool.pieces.concat()});
    json!([{"id": plan.id("", 100 + choice), "type": "function", "function": function, "index": 0}])
}

fn with_usage(plan: &Plan, knobs: &Knobs, mut body: Value) -> Value {
    if let Some(body) = body.as_object_mut().filter(|_| knobs.usage != UsageVariant::Missing) {
        body.insert("usage".to_owned(), usage(plan, knobs));
    }
    body
}

fn head(plan: &Plan, object: &str, choices: &[Value]) -> Value {
    json!({
        "id": plan.id("", 1),
        "object": object,
        "created": plan.created(),
        "model": plan.model,
        "choices": choices,
    })
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let reason = openai_chat::finish_reason(plan.finish);
    let choices: Vec<Value> = (0..plan.choices)
        .map(|choice| {
            let message = match &plan.tool {
                Some(tool) => {
                    json!({"role": "assistant", "tool_calls": calls(plan, tool, choice), "content": ""})
                }
                None => json!({"role": "assistant", "tool_calls": null, "content": plan.text(choice)}),
            };
            json!({"index": choice, "finish_reason": reason, "message": message})
        })
        .collect();
    Answer::json(200, &with_usage(plan, knobs, head(plan, "chat.completion", &choices)), plan.bill)
}

/// The answer as server-sent events.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let mut body = StreamBody::default();
    let chunk = |choice: u64, delta: Value, reason: Value| {
        head(plan, "chat.completion.chunk", &[json!({"index": choice, "delta": delta, "finish_reason": reason})])
    };
    let reason = json!(openai_chat::finish_reason(plan.finish));
    for choice in 0..plan.choices {
        body.event(None, &chunk(choice, json!({"role": "assistant", "content": ""}), Value::Null), 0);
        let last = match &plan.tool {
            Some(tool) => json!({"tool_calls": calls(plan, tool, choice)}),
            None => {
                for at in 0..plan.words {
                    let delta = json!({"content": plan.piece(choice, at)});
                    body.event(None, &chunk(choice, delta, Value::Null), 1);
                }
                json!({"content": ""})
            }
        };
        let tokens = if plan.tool.is_some() { plan.words } else { 0 };
        let finished = chunk(choice, last, reason.clone());
        let finished = if choice + 1 == plan.choices { with_usage(plan, knobs, finished) } else { finished };
        body.event(None, &finished, tokens);
    }
    body.frame(0, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
    body.finish("text/event-stream; charset=utf-8", plan.bill)
}

/// One embedding per input.
pub(super) fn embeddings(plan: &Plan, sketch: &Sketch<'_>, knobs: &Knobs) -> Answer {
    let answer = openai_embeddings::whole(plan, sketch, knobs);
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.insert("id".to_owned(), json!(plan.id("", 1)));
    }
    Answer::json(answer.status, &body, answer.bill)
}
