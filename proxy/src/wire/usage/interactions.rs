//! Gemini's `interactions`.

use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip, served, sum};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interactions {
    counts: Counts,
    tier: ServiceTier,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    thought: Option<u64>,
    cached: Option<u64>,
    tool_use: Option<u64>,
    total: Option<u64>,
}

impl Interactions {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        self.level(scanner, said, true)
    }

    /// `outer`: not yet inside the `interaction` of an event.
    fn level(&mut self, scanner: &mut Scanner<'_>, said: &mut Said, outer: bool) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"interaction" if outer => self.level(scanner, said, false),
            b"usage" => {
                self.counts = Counts::read(scanner)?.unwrap_or(self.counts);
                Ok(())
            }
            b"id" => said.made(scanner),
            b"event_type" => {
                said.terminal |= scanner.text()?.is_some_and(|(kind, _)| kind == "interaction.completed");
                Ok(())
            }
            b"service_tier" => {
                self.tier = served(scanner)?.unwrap_or(self.tier);
                Ok(())
            }
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let Counts { input, output, thought, cached, tool_use, total } = self.counts;
        let written = sum(output, thought);
        // What tools put into the prompt stands beside it where the total says so.
        let beside = tool_use.filter(|more| sum(sum(input, written), Some(*more)) == total);
        Usage {
            input: sum(input, beside),
            cached_input: cached,
            cache_write: None,
            output: written.or(input.map(|_| 0)),
            reasoning: thought,
            total,
            model: None,
            billing: Billing { tier: self.tier, ..Billing::default() },
        }
    }
}

impl Counts {
    /// `None`: it holds no count.
    fn read(scanner: &mut Scanner<'_>) -> Step<Option<Self>> {
        let mut counts = Self::default();
        object_or_skip(scanner, |scanner, name| {
            let field = match name {
                b"total_input_tokens" => &mut counts.input,
                b"total_output_tokens" => &mut counts.output,
                b"total_thought_tokens" => &mut counts.thought,
                b"total_cached_tokens" => &mut counts.cached,
                b"total_tool_use_tokens" => &mut counts.tool_use,
                b"total_tokens" => &mut counts.total,
                _ => return scanner.skip().map(drop),
            };
            *field = count(scanner)?;
            Ok(())
        })?;
        Ok((counts.input.is_some() || counts.output.is_some()).then_some(counts))
    }
}
