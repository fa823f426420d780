//! Routes that count a prompt and generate nothing: Anthropic's and OpenAI's
//! `input_tokens`, Gemini's `totalTokens`, Bedrock's `inputTokens`. They are
//! free.

use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptCount {
    input: Option<u64>,
}

impl PromptCount {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"input_tokens" | b"inputTokens" | b"totalTokens" | b"tokenCount" => {
                self.input = count(scanner)?.or(self.input);
                Ok(())
            }
            _ => scanner.skip().map(drop),
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let Some(input) = self.input else { return Usage::default() };
        let billing = Billing { billed_input: Some(0), billed_output: Some(0), ..Billing::default() };
        Usage { input: Some(input), output: Some(0), billing, ..Usage::default() }
    }
}
