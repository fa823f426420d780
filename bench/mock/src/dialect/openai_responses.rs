//! OpenAI responses, whole and as its sequence of typed events.

use serde_json::{Value, json};

use crate::answer::{Answer, StreamBody};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan, ToolCall};

fn usage(plan: &Plan, knobs: &Knobs) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    json!({
        "input_tokens": bill.input,
        "input_tokens_details": {"cached_tokens": plan.cached.min(bill.input)},
        "output_tokens": bill.output,
        "output_tokens_details": {"reasoning_tokens": plan.reasoning.min(bill.output)},
        "total_tokens": bill.input + bill.output,
    })
}

/// The response object; without output it is the one that is still running.
fn response(plan: &Plan, output: Option<Value>, report: Option<Value>) -> Value {
    let finished = output.is_some();
    let (status, incomplete) = match (finished, plan.finish) {
        (false, _) => ("in_progress", Value::Null),
        (true, Finish::Length) => ("incomplete", json!({"reason": "max_output_tokens"})),
        (true, _) => ("completed", Value::Null),
    };
    let mut response = json!({
        "id": plan.id("resp_", 1),
        "object": "response",
        "created_at": plan.created(),
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": incomplete,
        "instructions": null,
        "max_output_tokens": null,
        "model": plan.model,
        "output": output.unwrap_or_else(|| json!([])),
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": true,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": null,
        "metadata": {},
    });
    if let Some(object) = response.as_object_mut().filter(|_| !finished || report.is_some()) {
        object.insert("usage".to_owned(), report.unwrap_or(Value::Null));
    }
    response
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn message_item(plan: &Plan, status: &str, content: Value) -> Value {
    json!({"id": plan.id("msg_", 2), "type": "message", "status": status, "content": content, "role": "assistant"})
}

fn call_item(plan: &Plan, tool: &ToolCall, status: &str, arguments: &str) -> Value {
    json!({
        "id": plan.id("fc_", 2),
        "type": "function_call",
        "status": status,
        "arguments": arguments,
        "call_id": plan.id("call_", 100),
        "name": tool.name,
    })
}

fn finished_item(plan: &Plan) -> Value {
    match &plan.tool {
        Some(tool) => call_item(plan, tool, "completed", &tool.pieces.concat()),
        None => message_item(plan, "completed", json!([text_part(&plan.text(0))])),
    }
}

/// One choice only: this dialect knows no `n`.
fn single(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.choices = 1;
    plan.bill.output = plan.words;
    plan
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let plan = &single(plan);
    let report = (knobs.usage != UsageVariant::Missing).then(|| usage(plan, knobs));
    Answer::json(200, &response(plan, Some(json!([finished_item(plan)])), report), plan.bill)
}

/// Numbers the events as they are added.
struct Events {
    body: StreamBody,
    sequence: u64,
}

impl Events {
    fn add(&mut self, kind: &str, fields: Value, tokens: u64) {
        let mut event = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.body.event(Some(kind), &event, tokens);
    }

    fn text(&mut self, plan: &Plan) {
        let item = plan.id("msg_", 2);
        let place = |extra: Value| {
            let mut place = json!({"item_id": item, "output_index": 0, "content_index": 0});
            if let (Some(place), Value::Object(extra)) = (place.as_object_mut(), extra) {
                place.extend(extra);
            }
            place
        };
        let added = json!({"output_index": 0, "item": message_item(plan, "in_progress", json!([]))});
        self.add("response.output_item.added", added, 0);
        self.add("response.content_part.added", place(json!({"part": text_part("")})), 0);
        for at in 0..plan.words {
            let delta = json!({"delta": plan.piece(0, at), "logprobs": []});
            self.add("response.output_text.delta", place(delta), 1);
        }
        let text = plan.text(0);
        self.add("response.output_text.done", place(json!({"text": text, "logprobs": []})), 0);
        self.add("response.content_part.done", place(json!({"part": text_part(&text)})), 0);
    }

    fn call(&mut self, plan: &Plan, tool: &ToolCall) {
        let item = plan.id("fc_", 2);
        let added = json!({"output_index": 0, "item": call_item(plan, tool, "in_progress", "")});
        self.add("response.output_item.added", added, 0);
        for (at, piece) in tool.pieces.iter().enumerate() {
            let delta = json!({"item_id": item, "output_index": 0, "delta": piece});
            self.add("response.function_call_arguments.delta", delta, u64::from((at as u64) < plan.words));
        }
        let arguments = tool.pieces.concat();
        let done = json!({"item_id": item, "output_index": 0, "arguments": arguments, "name": tool.name});
        self.add("response.function_call_arguments.done", done, 0);
    }
}

/// The answer as server-sent events; there is no `[DONE]`.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let plan = &single(plan);
    let mut events = Events { body: StreamBody::default(), sequence: 0 };
    let running = response(plan, None, None);
    events.add("response.created", json!({"response": running}), 0);
    events.add("response.in_progress", json!({"response": running}), 0);
    match &plan.tool {
        Some(tool) => events.call(plan, tool),
        None => events.text(plan),
    }
    let item = finished_item(plan);
    events.add("response.output_item.done", json!({"output_index": 0, "item": item}), 0);
    let report = (knobs.usage != UsageVariant::Missing).then(|| usage(plan, knobs));
    let last = if plan.finish == Finish::Length { "response.incomplete" } else { "response.completed" };
    let end = response(plan, Some(json!([item])), report);
    events.add(last, json!({"response": end}), 0);
    if knobs.usage == UsageVariant::Duplicated {
        events.add(last, json!({"response": end}), 0);
    }
    events.body.finish("text/event-stream; charset=utf-8", plan.bill)
}
