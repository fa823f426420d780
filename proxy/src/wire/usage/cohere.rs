//! Cohere's own API: `chat`, `generate`, `embed`, `classify`.
//!
//! `tokens` is what the model read and wrote, `billed_units` what is charged:
//! what Cohere puts around a prompt is in the one and not in the other. An
//! answer that has only units has used no tokens that we know of.

use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cohere {
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    cached: Option<u64>,
    billed_input: Option<u64>,
    billed_output: Option<u64>,
}

impl Cohere {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        self.level(scanner, said, true)
    }

    /// `outer`: not yet inside v2's `delta` or v1's `response`.
    fn level(&mut self, scanner: &mut Scanner<'_>, said: &mut Said, outer: bool) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"usage" | b"meta" => {
                self.counts = Counts::read(scanner)?.unwrap_or(self.counts);
                Ok(())
            }
            b"delta" | b"response" if outer => self.level(scanner, said, false),
            b"finish_reason" => said.finish(scanner),
            b"is_finished" => said.ended(scanner),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let Counts { input, output, reasoning, cached, billed_input, billed_output } = self.counts;
        let tokens = input.is_some() || output.is_some();
        Usage {
            input,
            cached_input: cached.filter(|_| tokens),
            output: output.or(input.map(|_| 0)),
            reasoning,
            billing: Billing { billed_input, billed_output, ..Billing::default() },
            ..Usage::default()
        }
    }
}

impl Counts {
    /// `None`: it holds no count.
    fn read(scanner: &mut Scanner<'_>) -> Step<Option<Self>> {
        let mut counts = Self::default();
        object_or_skip(scanner, |scanner, name| match name {
            b"tokens" => object_or_skip(scanner, |scanner, name| {
                let value = count(scanner)?;
                match name {
                    b"input_tokens" => counts.input = value,
                    b"output_tokens" => counts.output = value,
                    b"reasoning_tokens" => counts.reasoning = value,
                    _ => {}
                }
                Ok(())
            })
            .map(drop),
            b"billed_units" => object_or_skip(scanner, |scanner, name| {
                let value = count(scanner)?;
                match name {
                    b"input_tokens" => counts.billed_input = value,
                    b"output_tokens" => counts.billed_output = value,
                    _ => {}
                }
                Ok(())
            })
            .map(drop),
            b"cached_tokens" => {
                counts.cached = count(scanner)?;
                Ok(())
            }
            _ => scanner.skip().map(drop),
        })?;
        let all = [counts.input, counts.output, counts.billed_input, counts.billed_output];
        Ok(all.iter().any(Option::is_some).then_some(counts))
    }
}
