//! Ollama's native chat, generate and embed: one JSON object per line.

use serde_json::{Value, json};

use super::{Operation, vector};
use crate::answer::{Answer, Bill, StreamBody, put};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan};

/// A time stamp that repeats with the request.
fn created_at(plan: &Plan) -> String {
    format!("2024-01-{:02}T00:00:{:02}.000000Z", 1 + plan.seed % 28, plan.seed % 60)
}

fn line(plan: &Plan, operation: Operation, text: &str, tool: bool) -> Value {
    let mut line = json!({"model": plan.model, "created_at": created_at(plan)});
    let Some(object) = line.as_object_mut() else { return line };
    if operation == Operation::OllamaGenerate {
        object.insert("response".to_owned(), json!(text));
        return line;
    }
    let mut message = json!({"role": "assistant", "content": text});
    if let (Some(message), Some(call)) = (message.as_object_mut(), plan.tool.as_ref().filter(|_| tool)) {
        let calls = json!([{"function": {"name": call.name, "arguments": call.arguments}}]);
        message.insert("tool_calls".to_owned(), calls);
    }
    object.insert("message".to_owned(), message);
    line
}

fn done(plan: &Plan, knobs: &Knobs, mut line: Value) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    let Some(object) = line.as_object_mut() else { return line };
    object.insert("done".to_owned(), json!(true));
    let reason = if plan.finish == Finish::Length { "length" } else { "stop" };
    object.insert("done_reason".to_owned(), json!(reason));
    object.insert("total_duration".to_owned(), json!(1_000_000 + plan.seed % 1_000_000));
    object.insert("load_duration".to_owned(), json!(1000));
    if knobs.usage != UsageVariant::Missing {
        object.insert("prompt_eval_count".to_owned(), json!(bill.input));
        object.insert("eval_count".to_owned(), json!(bill.output));
    }
    line
}

fn unfinished(mut line: Value) -> Value {
    if let Some(object) = line.as_object_mut() {
        object.insert("done".to_owned(), json!(false));
    }
    line
}

/// `/api/chat` and `/api/generate`.
pub(super) fn generate(plan: &Plan, knobs: &Knobs, operation: Operation, stream: bool) -> Answer {
    // This dialect knows no choices: bill one.
    let bill = Bill { input: plan.bill.input, output: plan.words };
    let plan = &Plan { bill, choices: 1, ..plan.clone() };
    let tool = plan.tool.is_some();
    if !stream {
        let text = if tool { String::new() } else { plan.text(0) };
        return Answer::json(200, &done(plan, knobs, line(plan, operation, &text, tool)), bill);
    }
    let mut body = StreamBody::default();
    let mut add = |line: &Value, tokens: u64| body.frame(tokens, |out| put(out, format_args!("{line}\n")));
    if tool {
        add(&unfinished(line(plan, operation, "", true)), plan.words);
    } else {
        for at in 0..plan.words {
            add(&unfinished(line(plan, operation, &plan.piece(0, at), false)), 1);
        }
    }
    let last = done(plan, knobs, line(plan, operation, "", false));
    add(&last, 0);
    if knobs.usage == UsageVariant::Duplicated {
        add(&last, 0);
    }
    body.finish("application/x-ndjson", bill)
}

/// `/api/embed`.
pub(super) fn embed(plan: &Plan) -> Answer {
    let body = json!({
        "model": plan.model,
        "embeddings": [vector(plan.seed, 16)],
        "prompt_eval_count": plan.bill.input,
    });
    Answer::json(200, &body, Bill { input: plan.bill.input, output: 0 })
}
