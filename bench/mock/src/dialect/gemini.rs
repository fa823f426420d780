//! Gemini: generate (whole, SSE, JSON array), count and embed.

use serde_json::{Value, json};

use super::vector;
use crate::answer::{Answer, Bill, StreamBody, put};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Finish, Plan, Sketch};

/// Size of an embedding.
const DIMENSIONS: u64 = 16;
/// Most inputs of one batch.
const MAX_INPUTS: usize = 2048;

/// Gemini reports thoughts outside the candidates.
fn usage(plan: &Plan, knobs: &Knobs, output: u64) -> Value {
    let bill = plan.reported(knobs.usage == UsageVariant::Zero);
    let output = output.min(bill.output);
    let thoughts = plan.reasoning.min(output);
    let mut report = json!({
        "promptTokenCount": bill.input,
        "candidatesTokenCount": output - thoughts,
        "totalTokenCount": bill.input + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": bill.input}],
    });
    if let Some(object) = report.as_object_mut() {
        if thoughts > 0 {
            object.insert("thoughtsTokenCount".to_owned(), json!(thoughts));
        }
        if plan.cached > 0 {
            object.insert("cachedContentTokenCount".to_owned(), json!(plan.cached.min(bill.input)));
        }
    }
    report
}

fn response(plan: &Plan, candidates: Vec<Value>, report: Option<Value>) -> Value {
    let mut response = json!({"candidates": candidates});
    if let Some(object) = response.as_object_mut() {
        if let Some(report) = report {
            object.insert("usageMetadata".to_owned(), report);
        }
        object.insert("modelVersion".to_owned(), json!(plan.model));
        object.insert("responseId".to_owned(), json!(plan.id("", 1)));
    }
    response
}

fn candidate(choice: u64, parts: Value, finish: Option<Finish>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": choice});
    if let (Some(object), Some(finish)) = (candidate.as_object_mut(), finish) {
        let reason = if finish == Finish::Length { "MAX_TOKENS" } else { "STOP" };
        object.insert("finishReason".to_owned(), json!(reason));
    }
    candidate
}

fn parts(plan: &Plan, choice: u64) -> Value {
    match &plan.tool {
        Some(tool) => json!([{"functionCall": {"name": tool.name, "args": tool.arguments}}]),
        None => json!([{"text": plan.text(choice)}]),
    }
}

/// `generateContent`.
pub(super) fn whole(plan: &Plan, knobs: &Knobs) -> Answer {
    let candidates =
        (0..plan.choices).map(|choice| candidate(choice, parts(plan, choice), Some(plan.finish))).collect();
    let report = (knobs.usage != UsageVariant::Missing).then(|| usage(plan, knobs, u64::MAX));
    let mut answer = Answer::json(200, &response(plan, candidates, report), plan.bill);
    answer.content_type = "application/json; charset=UTF-8".to_owned();
    answer
}

/// The responses of a stream with the tokens each carries.
fn responses(plan: &Plan, knobs: &Knobs) -> Vec<(Value, u64)> {
    let mut list = Vec::new();
    let mut tokens = 0;
    for choice in 0..plan.choices {
        let pieces = if plan.tool.is_some() { 1 } else { plan.words.max(1) };
        for at in 0..pieces {
            let worth = if plan.tool.is_some() { plan.words } else { u64::from(at < plan.words) };
            tokens += worth;
            let last = at + 1 == pieces;
            let content = match &plan.tool {
                Some(_) => parts(plan, choice),
                None if at < plan.words => json!([{"text": plan.piece(choice, at)}]),
                None => json!([{"text": ""}]),
            };
            let end = last && choice + 1 == plan.choices;
            let report = match knobs.usage {
                UsageVariant::Missing => None,
                UsageVariant::Normal | UsageVariant::Split => Some(if end { u64::MAX } else { tokens }),
                _ => end.then_some(u64::MAX),
            };
            let report = report.map(|output| usage(plan, knobs, output));
            let candidates = vec![candidate(choice, content, last.then_some(plan.finish))];
            list.push((response(plan, candidates, report), worth));
        }
    }
    if knobs.usage == UsageVariant::Duplicated {
        list.push((response(plan, Vec::new(), Some(usage(plan, knobs, u64::MAX))), 0));
    }
    list
}

/// `streamGenerateContent`: SSE with CRLF, or one JSON array.
pub(super) fn stream(plan: &Plan, knobs: &Knobs, sse: bool) -> Answer {
    let mut body = StreamBody::default();
    let list = responses(plan, knobs);
    let count = list.len();
    for (at, (response, tokens)) in list.iter().enumerate() {
        body.frame(*tokens, |out| {
            if sse {
                put(out, format_args!("data: {response}\r\n\r\n"));
            } else {
                let before = if at == 0 { "[" } else { ",\r\n" };
                let after = if at + 1 == count { "\n]" } else { "\n" };
                put(out, format_args!("{before}{response}{after}"));
            }
        });
    }
    body.finish(if sse { "text/event-stream" } else { "application/json; charset=UTF-8" }, plan.bill)
}

/// `countTokens`: free of charge.
pub(super) fn count(plan: &Plan) -> Answer {
    let details = json!([{"modality": "TEXT", "tokenCount": plan.bill.input}]);
    let body = json!({"totalTokens": plan.bill.input, "promptTokensDetails": details});
    Answer::json(200, &body, Bill::default())
}

/// `embedContent`.
pub(super) fn embed(plan: &Plan) -> Answer {
    let body = json!({
        "embedding": {"values": vector(plan.seed, DIMENSIONS)},
        "usageMetadata": {"promptTokenCount": plan.bill.input, "totalTokenCount": plan.bill.input},
    });
    Answer::json(200, &body, Bill { input: plan.bill.input, output: 0 })
}

/// `batchEmbedContents`: one embedding per request in the batch.
pub(super) fn batch_embed(plan: &Plan, sketch: &Sketch<'_>) -> Answer {
    let batch: Value = sketch.requests.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let inputs = batch.as_array().map_or(1, Vec::len).min(MAX_INPUTS);
    let embeddings: Vec<Value> =
        (0..inputs).map(|index| json!({"values": vector(plan.seed ^ index as u64, DIMENSIONS)})).collect();
    let body = json!({
        "embeddings": embeddings,
        "usageMetadata": {"promptTokenCount": plan.bill.input, "totalTokenCount": plan.bill.input},
    });
    Answer::json(200, &body, Bill { input: plan.bill.input, output: 0 })
}
