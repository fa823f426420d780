//! Anthropic messages, whole and streamed, and token counting.

use serde_json::{Value, json};

use crate::answer::{Answer, Bill, StreamBody};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan};

const fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Tool => "tool_use",
    }
}

/// Anthropic counts cache reads outside `input_tokens`.
fn usage(plan: &Plan, knobs: &Knobs, output: u64) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    let cached = plan.cached.min(bill.input);
    json!({
        "input_tokens": bill.input - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output.min(bill.output),
        "service_tier": "standard",
    })
}

fn message(plan: &Plan, content: Value, stop: Value, report: Option<Value>) -> Value {
    let mut message = json!({
        "id": plan.id("msg_", 1),
        "type": "message",
        "role": "assistant",
        "model": plan.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": null,
    });
    if let (Some(object), Some(report)) = (message.as_object_mut(), report) {
        object.insert("usage".to_owned(), report);
    }
    message
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let content = match &plan.tool {
        Some(tool) => {
            json!([{"type": "tool_use", "id": plan.id("toolu_", 100), "name": tool.name, "input": tool.arguments}])
        }
        None => json!([{"type": "text", "text": plan.text(0)}]),
    };
    let report = (knobs.usage != UsageVariant::Missing).then(|| usage(plan, knobs, u64::MAX));
    Answer::json(200, &message(plan, content, json!(stop_reason(plan.finish)), report), plan.bill)
}

/// The answer as server-sent events.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let mut body = StreamBody::default();
    let silent = knobs.usage == UsageVariant::Missing;
    let start = message(plan, json!([]), Value::Null, (!silent).then(|| usage(plan, knobs, 1)));
    body.event(Some("message_start"), &json!({"type": "message_start", "message": start}), 0);
    let block = match &plan.tool {
        Some(tool) => json!({"type": "tool_use", "id": plan.id("toolu_", 100), "name": tool.name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    };
    let opened = json!({"type": "content_block_start", "index": 0, "content_block": block});
    body.event(Some("content_block_start"), &opened, 0);
    body.event(Some("ping"), &json!({"type": "ping"}), 0);
    let delta = |body: &mut StreamBody, inner: Value, tokens: u64| {
        let event = json!({"type": "content_block_delta", "index": 0, "delta": inner});
        body.event(Some("content_block_delta"), &event, tokens);
    };
    match &plan.tool {
        Some(tool) => {
            delta(&mut body, json!({"type": "input_json_delta", "partial_json": ""}), 0);
            for (at, piece) in tool.pieces.iter().enumerate() {
                let token = u64::from((at as u64) < plan.words);
                delta(&mut body, json!({"type": "input_json_delta", "partial_json": piece}), token);
            }
        }
        None => {
            for at in 0..plan.words {
                delta(&mut body, json!({"type": "text_delta", "text": plan.piece(0, at)}), 1);
            }
        }
    }
    body.event(Some("content_block_stop"), &json!({"type": "content_block_stop", "index": 0}), 0);
    let mut last = json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(plan.finish), "stop_sequence": null},
    });
    if let Some(object) = last.as_object_mut().filter(|_| !silent) {
        object.insert("usage".to_owned(), final_report(plan, knobs));
    }
    body.event(Some("message_delta"), &last, 0);
    if knobs.usage == UsageVariant::Duplicated {
        body.event(Some("message_delta"), &last, 0);
    }
    body.event(Some("message_stop"), &json!({"type": "message_stop"}), 0);
    body.finish("text/event-stream; charset=utf-8", plan.bill)
}

/// `message_delta` overrides what it names; the split variant names only the
/// output, so that the rest must be kept from `message_start`.
fn final_report(plan: &Plan, knobs: &Knobs) -> Value {
    let full = usage(plan, knobs, u64::MAX);
    if knobs.usage == UsageVariant::Split {
        return json!({"output_tokens": full.get("output_tokens")});
    }
    json!({
        "input_tokens": full.get("input_tokens"),
        "cache_creation_input_tokens": full.get("cache_creation_input_tokens"),
        "cache_read_input_tokens": full.get("cache_read_input_tokens"),
        "output_tokens": full.get("output_tokens"),
    })
}

/// `count_tokens`: free of charge.
pub(super) fn count(plan: &Plan) -> Answer {
    Answer::json(200, &json!({"input_tokens": plan.bill.input}), Bill::default())
}
