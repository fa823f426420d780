//! Cohere's chat (v2), whole and streamed.

use serde_json::{Value, json};

use crate::answer::{Answer, Bill, StreamBody};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan, ToolCall};

/// Prompt tokens the vendor adds by itself and does not charge for.
const FREE_PREAMBLE: u64 = 3;

const fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "COMPLETE",
        Finish::Length => "MAX_TOKENS",
        Finish::Tool => "TOOL_CALL",
    }
}

/// What was used, beside what is charged: the two differ at this vendor.
fn usage(plan: &Plan, knobs: &Knobs) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    let mut usage = json!({
        "billed_units": {"input_tokens": bill.input.saturating_sub(FREE_PREAMBLE), "output_tokens": bill.output},
        "tokens": {"input_tokens": bill.input, "output_tokens": bill.output},
        "cached_tokens": plan.cached.min(bill.input),
    });
    if let Some(tokens) = usage.get_mut("tokens").filter(|_| plan.reasoning > 0) {
        tokens["reasoning_tokens"] = json!(plan.reasoning.min(bill.output));
    }
    usage
}

/// This dialect knows no choices: bill one.
fn single(plan: &Plan) -> Plan {
    let bill = Bill { input: plan.bill.input, output: plan.words };
    Plan { bill, choices: 1, ..plan.clone() }
}

/// What the model says it is going to do with a tool.
fn tool_plan(tool: &ToolCall) -> String {
    format!("I will call {}.", tool.name)
}

fn call(plan: &Plan, tool: &ToolCall, arguments: &str) -> Value {
    let id = format!("{}_{}", tool.name, plan.id("", 100));
    json!({"id": id, "type": "function", "function": {"name": tool.name, "arguments": arguments}})
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let plan = &single(plan);
    let message = match &plan.tool {
        Some(tool) => json!({
            "role": "assistant",
            "tool_plan": tool_plan(tool),
            "tool_calls": [call(plan, tool, &tool.pieces.concat())],
        }),
        None => json!({"role": "assistant", "content": [{"type": "text", "text": plan.text(0)}]}),
    };
    let mut body = json!({"id": plan.id("", 1), "message": message, "finish_reason": finish_reason(plan.finish)});
    if let Some(body) = body.as_object_mut().filter(|_| knobs.usage != UsageVariant::Missing) {
        body.insert("usage".to_owned(), usage(plan, knobs));
    }
    Answer::json(200, &body, plan.bill)
}

/// The answer as server-sent events.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let plan = &single(plan);
    let mut body = StreamBody::default();
    let mut event = |kind: &str, mut rest: Value, tokens: u64| {
        let mut data = json!({"type": kind});
        if let (Some(data), Some(rest)) = (data.as_object_mut(), rest.as_object_mut()) {
            data.append(rest);
        }
        body.event(Some(kind), &data, tokens);
    };
    let message = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
    event("message-start", json!({"id": plan.id("", 1), "delta": {"message": message}}), 0);
    match &plan.tool {
        Some(tool) => {
            event("tool-plan-delta", json!({"delta": {"message": {"tool_plan": tool_plan(tool)}}}), 0);
            let opened = json!({"index": 0, "delta": {"message": {"tool_calls": call(plan, tool, "")}}});
            event("tool-call-start", opened, 0);
            for (at, piece) in tool.pieces.iter().enumerate() {
                let part = json!({"tool_calls": {"function": {"arguments": piece}}});
                let token = u64::from((at as u64) < plan.words);
                event("tool-call-delta", json!({"index": 0, "delta": {"message": part}}), token);
            }
            event("tool-call-end", json!({"index": 0}), 0);
        }
        None => {
            let opened = json!({"content": {"type": "text", "text": ""}});
            event("content-start", json!({"index": 0, "delta": {"message": opened}}), 0);
            for at in 0..plan.words {
                let part = json!({"content": {"text": plan.piece(0, at)}});
                event("content-delta", json!({"index": 0, "delta": {"message": part}}), 1);
            }
            event("content-end", json!({"index": 0}), 0);
        }
    }
    let mut last = json!({"finish_reason": finish_reason(plan.finish)});
    if let Some(last) = last.as_object_mut().filter(|_| knobs.usage != UsageVariant::Missing) {
        last.insert("usage".to_owned(), usage(plan, knobs));
    }
    event("message-end", json!({"delta": last.clone()}), 0);
    if knobs.usage == UsageVariant::Duplicated {
        event("message-end", json!({"delta": last}), 0);
    }
    body.frame(0, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
    body.finish("text/event-stream", plan.bill)
}
