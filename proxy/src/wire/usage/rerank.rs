//! `rerank`: OpenAI-like servers, Jina and Voyage have `usage`, SiliconFlow has
//! Cohere's `meta.tokens`; Cohere itself counts searches, not tokens.

use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rerank {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    billed: Option<u64>,
}

impl Rerank {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"usage" => self.counts(scanner),
            b"meta" => object_or_skip(scanner, |scanner, name| match name {
                b"tokens" => self.counts(scanner),
                b"billed_units" => object_or_skip(scanner, |scanner, name| {
                    let value = count(scanner)?;
                    if name == b"input_tokens" {
                        self.billed = value.or(self.billed);
                    }
                    Ok(())
                })
                .map(drop),
                _ => scanner.skip().map(drop),
            })
            .map(drop),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    fn counts(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            let field = match name {
                b"prompt_tokens" | b"input_tokens" => &mut self.input,
                b"completion_tokens" | b"output_tokens" => &mut self.output,
                b"total_tokens" => &mut self.total,
                _ => return scanner.skip().map(drop),
            };
            *field = count(scanner)?.or(*field);
            Ok(())
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let input = self.input.or(self.total);
        Usage {
            input,
            output: self.output.or(input.map(|_| 0)),
            total: self.total,
            billing: Billing { billed_input: self.billed, ..Billing::default() },
            ..Usage::default()
        }
    }
}
