//! OpenAI's legacy completions, whole and streamed.

use serde_json::{Value, json};

use super::openai_chat::{finish_reason, put_usage};
use crate::answer::{Answer, StreamBody};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan};

fn reason(plan: &Plan) -> &'static str {
    // Completions know no tools.
    finish_reason(if plan.finish == Finish::Tool { Finish::Stop } else { plan.finish })
}

fn usage(plan: &Plan, knobs: &Knobs, output: u64) -> Value {
    let mut out = Vec::new();
    put_usage(&mut out, plan, knobs, output);
    serde_json::from_slice(&out).unwrap_or_default()
}

fn envelope(plan: &Plan, choices: Value) -> Value {
    json!({
        "id": plan.id("cmpl-", 1),
        "object": "text_completion",
        "created": plan.created(),
        "model": plan.model,
        "choices": choices,
    })
}

fn attach(mut chunk: Value, key: &str, value: Value) -> Value {
    if let Some(object) = chunk.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    chunk
}

/// The answer in one JSON object.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let choices: Vec<Value> = (0..plan.choices)
        .map(|choice| {
            json!({"text": plan.text(choice), "index": choice, "logprobs": null, "finish_reason": reason(plan)})
        })
        .collect();
    let mut body = envelope(plan, choices.into());
    if knobs.usage != UsageVariant::Missing {
        body = attach(body, "usage", usage(plan, knobs, u64::MAX));
    }
    Answer::json(200, &body, plan.bill)
}

/// The answer as server-sent events.
pub(super) fn stream(plan: &Plan, knobs: &Knobs) -> Answer {
    let mut body = StreamBody::default();
    let finished = |chunk: Value, report: Option<Value>| match report {
        Some(report) => attach(chunk, "usage", report),
        None if plan.include_usage => attach(chunk, "usage", Value::Null),
        None => chunk,
    };
    let mut tokens = 0;
    for choice in 0..plan.choices {
        for at in 0..plan.words {
            tokens += 1;
            let last = at + 1 == plan.words;
            let finish = if last { json!(reason(plan)) } else { Value::Null };
            let inner =
                json!([{"text": plan.piece(choice, at), "index": choice, "logprobs": null, "finish_reason": finish}]);
            let end = last && choice + 1 == plan.choices;
            let report = match knobs.usage {
                UsageVariant::Split => Some(usage(plan, knobs, tokens)),
                UsageVariant::Unasked | UsageVariant::Duplicated if end => Some(usage(plan, knobs, u64::MAX)),
                _ => None,
            };
            body.event(None, &finished(envelope(plan, inner), report), 1);
        }
    }
    let asked = plan.include_usage && knobs.usage != UsageVariant::Missing;
    let extra = finished(envelope(plan, json!([])), Some(usage(plan, knobs, u64::MAX)));
    if (asked && knobs.usage != UsageVariant::AfterDone) || knobs.usage == UsageVariant::Duplicated {
        body.event(None, &extra, 0);
    }
    body.frame(0, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
    if asked && knobs.usage == UsageVariant::AfterDone {
        body.event(None, &extra, 0);
    }
    body.finish("text/event-stream; charset=utf-8", plan.bill)
}
