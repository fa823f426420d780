//! What the mock will say, before any dialect puts it into words.
//!
//! Everything is derived from the parts of the request that mean something to
//! a model (prompt, tools, model name) and never from its framing or options
//! such as `stream_options`, so that a gateway that only adds such an option
//! gets the same answer as a client without a gateway.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::Bill;
use crate::knobs::Knobs;
use crate::rng::{Rng, fold, mix};

/// One word is one token, also of the vocabulary `o200k_base`. None needs
/// escaping in JSON; some are several bytes long, so that careless cutting shows.
const WORDS: [&str; 32] = [
    "tide", "lantern", "seven", "copper", "café", "orbit", "quiet", "harbour", "日本", "maple", "signal", "crab",
    "window", "schön", "river", "paper", "north", "claw", "😀", "garden", "violet", "engine", "slow", "number",
    "cedar", "gate", "ember", "mirror", "salt", "thread", "bright", "stone",
];

/// English as it comes, every word one token of the `o200k_base` vocabulary, with
/// and without its space: what the ledger counts is what a tokenizer counts.
const PLAIN_WORDS: [&str; 44] = [
    "the", "of", "and", "a", "to", "in", "is", "it", "on", "as", "at", "by", "we", "an", "or", "so", "he", "you",
    "was", "are", "with", "but", "not", "they", "from", "this", "that", "one", "all", "our", "out", "were", "who",
    "will", "time", "day", "way", "light", "river", "stone", "north", "garden", "paper", "under",
];

/// Most choices one request may ask for.
const MAX_CHOICES: u64 = 8;
/// Most output tokens one answer may have.
const MAX_OUTPUT: u64 = 1_000_000;

/// The fields of any dialect's request that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sketch<'a> {
    pub(crate) model: Option<String>,
    pub(crate) stream: Option<bool>,
    pub(crate) n: Option<u64>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_completion_tokens: Option<u64>,
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) dimensions: Option<u64>,
    pub(crate) encoding_format: Option<String>,
    pub(crate) stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    pub(crate) messages: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) system: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) contents: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) requests: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) tools: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) tool_choice: Option<&'a RawValue>,
    #[serde(borrow, rename = "systemInstruction")]
    pub(crate) system_instruction: Option<&'a RawValue>,
    #[serde(rename = "generationConfig")]
    pub(crate) generation_config: Option<GenerationConfig>,
    pub(crate) options: Option<OllamaOptions>,
}

/// OpenAI's options of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

/// The part of Gemini's generation configuration used here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GenerationConfig {
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) candidate_count: Option<u64>,
}

/// The part of Ollama's options used here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct OllamaOptions {
    pub(crate) num_predict: Option<i64>,
}

/// Why an answer stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    Tool,
}

/// A tool call to make.
#[derive(Clone, Debug)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    pub(crate) arguments: Value,
    /// The arguments as text, in the pieces a stream sends.
    pub(crate) pieces: Vec<String>,
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) choices: u64,
    pub(crate) finish: Finish,
    pub(crate) tool: Option<ToolCall>,
    /// Words per choice.
    pub(crate) words: u64,
    pub(crate) bill: Bill,
    pub(crate) cached: u64,
    pub(crate) reasoning: u64,
    /// What words are taken from.
    pub(crate) vocabulary: &'static [&'static str],
}

impl Plan {
    /// Decides the answer. `model` overrides the body's (Gemini has it in the
    /// path).
    pub(crate) fn new(sketch: &Sketch<'_>, model: Option<&str>, knobs: &Knobs) -> Self {
        let model = model.or(sketch.model.as_deref()).unwrap_or("mock-1").to_owned();
        let meaningful = [
            sketch.messages,
            sketch.system,
            sketch.input,
            sketch.instructions,
            sketch.prompt,
            sketch.contents,
            sketch.content,
            sketch.requests,
            sketch.tools,
            sketch.system_instruction,
        ];
        let mut seed = fold(0, model.as_bytes());
        let mut length = 0_u64;
        for (position, part) in meaningful.into_iter().enumerate() {
            if let Some(part) = part {
                seed = fold(seed ^ mix(position as u64), part.get().as_bytes());
                length += part.get().len() as u64;
            }
        }
        let config = sketch.generation_config.as_ref();
        let choices = sketch.n.or(config.and_then(|config| config.candidate_count)).unwrap_or(1).clamp(1, MAX_CHOICES);
        let tool = choose_tool(sketch, seed);
        let natural = tool.as_ref().map_or(8 + seed % 17, |tool| tool.pieces.len() as u64);
        let wanted = knobs.output_tokens.unwrap_or(natural).min(MAX_OUTPUT);
        let limit = output_limit(sketch).filter(|_| tool.is_none());
        let words = limit.map_or(wanted, |limit| wanted.min(limit));
        let finish = match &tool {
            Some(_) => Finish::Tool,
            None if words < wanted => Finish::Length,
            None => Finish::Stop,
        };
        let output = words * choices;
        let input = knobs.input_tokens.unwrap_or(length / 4 + 3);
        Self {
            seed,
            model,
            stream: sketch.stream.unwrap_or(false),
            include_usage: sketch.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false),
            choices,
            finish,
            tool,
            words,
            bill: Bill { input, output },
            cached: knobs.cached_tokens.min(input),
            reasoning: knobs.reasoning_tokens.min(output),
            vocabulary: if knobs.plain_words { &PLAIN_WORDS } else { &WORDS },
        }
    }

    /// A time stamp that repeats with the request: within 2024.
    pub(crate) const fn created(&self) -> u64 {
        1_704_067_200 + self.seed % 31_000_000
    }

    /// An id with the vendor's prefix, different for each `salt`.
    pub(crate) fn id(&self, prefix: &str, salt: u64) -> String {
        let high = mix(self.seed ^ mix(salt));
        format!("{prefix}{high:016x}{:08x}", mix(high) >> 32)
    }

    /// The text of one word of one choice, with its leading space.
    pub(crate) fn word(&self, choice: u64, at: u64) -> (&'static str, &'static str) {
        let index = mix(self.seed ^ (choice << 32) ^ at) % self.vocabulary.len() as u64;
        let word = usize::try_from(index).ok().and_then(|index| self.vocabulary.get(index)).copied().unwrap_or("tide");
        (if at == 0 { "" } else { " " }, word)
    }

    /// One word as one string.
    pub(crate) fn piece(&self, choice: u64, at: u64) -> String {
        let (space, word) = self.word(choice, at);
        format!("{space}{word}")
    }

    /// The whole text of a choice.
    pub(crate) fn text(&self, choice: u64) -> String {
        let mut text = String::with_capacity(usize::try_from(self.words).unwrap_or(0).saturating_mul(8));
        for at in 0..self.words {
            let (space, word) = self.word(choice, at);
            text.push_str(space);
            text.push_str(word);
        }
        text
    }

    /// What a usage report says under this variant.
    pub(crate) const fn reported(&self, zero: bool) -> Bill {
        if zero { Bill { input: 0, output: 0 } } else { self.bill }
    }
}

fn output_limit(sketch: &Sketch<'_>) -> Option<u64> {
    let gemini = sketch.generation_config.as_ref().and_then(|config| config.max_output_tokens);
    let ollama = sketch.options.as_ref().and_then(|options| options.num_predict);
    sketch
        .max_completion_tokens
        .or(sketch.max_output_tokens)
        .or(sketch.max_tokens)
        .or(gemini)
        .or(ollama.and_then(|limit| u64::try_from(limit).ok()))
}

/// The first tool, unless the caller forbade tools or has just answered one.
fn choose_tool(sketch: &Sketch<'_>, seed: u64) -> Option<ToolCall> {
    let tools: Value = serde_json::from_str(sketch.tools?.get()).ok()?;
    if sketch.tool_choice.is_some_and(|choice| choice.get().contains("\"none\"")) {
        return None;
    }
    let conversation = sketch.messages.or(sketch.input).or(sketch.contents).map_or("", RawValue::get);
    let answered = [
        "\"tool_result\"",
        "\"function_call_output\"",
        "\"functionResponse\"",
        "\"role\":\"tool\"",
        "\"role\": \"tool\"",
    ];
    if answered.iter().any(|mark| conversation.contains(mark)) {
        return None;
    }
    let (name, schema) = tools.as_array()?.iter().find_map(describe_tool)?;
    let arguments = example(&schema, &mut Rng::new(seed));
    let text = arguments.to_string();
    let mut pieces: Vec<String> = Vec::new();
    for (at, character) in text.chars().enumerate() {
        if at % 6 == 0 {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(character);
        }
    }
    Some(ToolCall { name, arguments, pieces })
}

/// Name and parameter schema of a function tool in any of the dialects.
fn describe_tool(tool: &Value) -> Option<(String, Value)> {
    let function = tool
        .get("function")
        .or_else(|| tool.get("functionDeclarations").and_then(|list| list.get(0)))
        .or_else(|| tool.get("function_declarations").and_then(|list| list.get(0)))
        .unwrap_or(tool);
    let name = function.get("name")?.as_str()?.to_owned();
    let schema = ["parameters", "input_schema", "parametersJsonSchema", "inputSchema"]
        .iter()
        .find_map(|key| function.get(*key))
        .cloned()
        .unwrap_or_default();
    Some((name, schema))
}

/// A value that fits a JSON schema well enough for a test.
fn example(schema: &Value, rng: &mut Rng) -> Value {
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("object").to_ascii_lowercase();
    match kind.as_str() {
        "string" => {
            let index = usize::try_from(rng.between(0, WORDS.len() as u64 - 1)).unwrap_or(0);
            Value::from(WORDS.get(index).copied().unwrap_or("tide"))
        }
        "integer" => Value::from(rng.between(1, 100)),
        "number" => Value::from(rng.between(1, 100)),
        "boolean" => Value::from(rng.next() & 1 == 0),
        "array" => Value::Array(schema.get("items").map(|items| example(items, rng)).into_iter().collect()),
        _ => {
            let properties = schema.get("properties").and_then(Value::as_object);
            Value::Object(
                properties.into_iter().flatten().map(|(name, inner)| (name.clone(), example(inner, rng))).collect(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(body: &str) -> Plan {
        Plan::new(&serde_json::from_str(body).unwrap(), None, &Knobs::default())
    }

    #[test]
    fn options_do_not_change_the_answer_but_the_prompt_does() {
        let plain = plan(r#"{"model":"m","messages":[{"role":"user","content":"a"}],"stream":true}"#);
        let asked = plan(
            r#"{"model":"m","stream_options":{"include_usage":true},"messages":[{"role":"user","content":"a"}],"stream":true}"#,
        );
        let other = plan(r#"{"model":"m","messages":[{"role":"user","content":"b"}],"stream":true}"#);
        assert_eq!(plain.text(0), asked.text(0));
        assert_eq!(plain.id("x-", 1), asked.id("x-", 1));
        assert!(asked.include_usage && !plain.include_usage);
        assert_ne!(plain.id("x-", 1), other.id("x-", 1));
    }

    #[test]
    fn an_output_limit_ends_the_answer() {
        let plan = plan(r#"{"model":"m","messages":[],"max_tokens":3}"#);
        assert_eq!((plan.finish, plan.bill.output), (Finish::Length, 3));
    }

    #[test]
    fn tools_are_called_once() {
        let tools = r#""tools":[{"type":"function","function":{"name":"w","parameters":{"type":"object","properties":{"city":{"type":"string"},"n":{"type":"integer"}}}}}]"#;
        let call = plan(&format!(r#"{{"messages":[{{"role":"user"}}],{tools}}}"#)).tool.unwrap();
        assert_eq!(call.name, "w");
        assert_eq!(serde_json::from_str::<Value>(&call.pieces.concat()).unwrap(), call.arguments);
        assert!(call.arguments["city"].is_string() && call.arguments["n"].is_u64());
        assert!(plan(&format!(r#"{{"messages":[{{"role":"tool"}}],{tools}}}"#)).tool.is_none());
        assert!(plan(&format!(r#"{{"messages":[],"tool_choice":"none",{tools}}}"#)).tool.is_none());
    }
}
