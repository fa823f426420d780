//! OpenAI embeddings, as numbers or as base64 (what the Python SDK asks for).

use serde_json::{Value, json};

use super::vector;
use crate::answer::{Answer, Bill};
use crate::knobs::{Knobs, UsageVariant};
use crate::plan::{Plan, Sketch};

/// Size when the client does not choose one. Small: nobody reads the numbers.
const DIMENSIONS: u64 = 16;
/// Largest size a client may choose.
const MAX_DIMENSIONS: u64 = 8192;
/// Most inputs answered.
const MAX_INPUTS: usize = 2048;

/// One embedding per input.
pub(super) fn whole(plan: &Plan, sketch: &Sketch<'_>, knobs: &Knobs) -> Answer {
    let input: Value = sketch.input.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    // A list of numbers is one input given as tokens.
    let inputs =
        input.as_array().filter(|list| list.first().is_some_and(|first| !first.is_number())).map_or(1, Vec::len);
    let size = sketch.dimensions.unwrap_or(DIMENSIONS).clamp(1, MAX_DIMENSIONS);
    let base64 = sketch.encoding_format.as_deref() == Some("base64");
    let data: Vec<Value> = (0..inputs.min(MAX_INPUTS))
        .map(|index| {
            let numbers = vector(plan.seed ^ index as u64, size);
            let embedding = if base64 { Value::from(encode(&numbers)) } else { json!(numbers) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let mut body = json!({"object": "list", "data": data, "model": plan.model});
    let bill = Bill { input: plan.bill.input, output: 0 };
    if let Some(object) = body.as_object_mut().filter(|_| knobs.usage != UsageVariant::Missing) {
        let input = plan.reported(knobs.usage == UsageVariant::Zero).input;
        object.insert("usage".to_owned(), json!({"prompt_tokens": input, "total_tokens": input}));
    }
    Answer::json(200, &body, bill)
}

/// Little-endian 32-bit floats in base64 with padding.
fn encode(numbers: &[f64]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    #[allow(clippy::cast_possible_truncation, reason = "an embedding is published with single precision")]
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for position in 0..4 {
            if position <= three.len() {
                let digit = group >> (18 - 6 * position) & 63;
                text.push(char::from(DIGITS.get(digit as usize).copied().unwrap_or(b'A')));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_known_floats() {
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, 2.0, -0.5]), "AACAPwAAAEAAAAC/");
    }
}
