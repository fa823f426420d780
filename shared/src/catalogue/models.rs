//! How much text a model takes and gives at most, for bounds.
//!
//! The numbers are upper bounds per family, each at least what the vendors'
//! model pages and the common price files said on 2026-11-20 for any model whose name
//! begins so; a model nobody knows gets the largest known. A bound that is too
//! high costs a refusal near the end of a quota, one that is too low a broken
//! promise.

/// The most a model takes and gives in one request, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Prompt tokens.
    pub context: u64,
    /// Generated tokens of one answer, reasoning included.
    pub output: u64,
}

const UNKNOWN: ModelLimits = ModelLimits { context: 10_485_760, output: 1_048_576 };

/// Beginning of the name, context, output. The longest beginning counts.
const FAMILIES: &[(&str, u64, u64)] = &[
    ("gpt-3.5", 16_385, 4_097),
    ("gpt-4", 131_072, 16_384),
    ("gpt-4-32k", 32_768, 8_192),
    ("gpt-4.1", 1_047_576, 32_768),
    ("gpt-4.5", 128_000, 16_384),
    ("gpt-4o", 131_072, 16_384),
    ("gpt-5", 1_050_000, 272_000),
    ("gpt-oss", 131_072, 131_072),
    ("o1", 200_000, 100_000),
    ("o3", 200_000, 100_000),
    ("o4", 200_000, 100_000),
    ("codex", 200_000, 100_000),
    ("text-embedding", 8_192, 0),
    ("claude", 1_000_000, 1_000_000),
    ("claude-3-", 200_000, 4_096),
    ("claude-3-5", 200_000, 16_384),
    ("claude-3-7", 200_000, 200_000),
    ("claude-haiku-4", 200_000, 200_000),
    ("gemini", 2_097_152, 1_048_576),
    ("gemini-2", 1_048_576, 1_000_000),
    ("gemini-3", 1_048_576, 1_000_000),
    ("gemma", 262_144, 262_144),
    ("deepseek", 1_049_000, 1_048_576),
    ("grok", 2_000_000, 2_000_000),
    ("mistral", 1_048_576, 1_048_576),
    ("mixtral", 65_536, 65_536),
    ("ministral", 262_144, 262_144),
    ("magistral", 262_144, 262_144),
    ("codestral", 256_000, 256_000),
    ("devstral", 262_144, 262_144),
    ("pixtral", 131_072, 131_072),
    ("llama-3", 131_072, 131_072),
    ("qwen", 1_048_576, 1_048_576),
    ("kimi", 1_048_576, 1_048_576),
    ("moonshot", 1_000_000, 131_072),
    ("glm", 1_310_720, 1_048_576),
    ("minimax", 1_048_576, 1_048_576),
    ("doubao", 1_024_000, 256_000),
    ("command", 256_000, 64_000),
    ("sonar", 200_000, 128_000),
];

/// The limits of a model by the name a client used; a vendor's name before a
/// slash does not count.
#[must_use]
pub fn model_limits(model: &str) -> ModelLimits {
    let name = model.rsplit('/').next().unwrap_or(model);
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let family = FAMILIES.iter().filter(|(prefix, ..)| begins(prefix)).max_by_key(|(prefix, ..)| prefix.len());
    family.map_or(UNKNOWN, |&(_, context, output)| ModelLimits { context, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_counts_and_the_unknown_is_large() {
        for (model, context, output) in [
            ("gpt-4o-mini-2024-07-18", 131_072, 16_384),
            ("GPT-4.1-nano", 1_047_576, 32_768),
            ("openai/gpt-4-32k", 32_768, 8_192),
            ("anthropic/claude-3-5-haiku-latest", 200_000, 16_384),
            ("models/gemini-2.5-pro", 1_048_576, 1_000_000),
            ("a-model-nobody-knows", UNKNOWN.context, UNKNOWN.output),
            ("", UNKNOWN.context, UNKNOWN.output),
        ] {
            assert_eq!(model_limits(model), ModelLimits { context, output }, "{model}");
        }
    }
}
