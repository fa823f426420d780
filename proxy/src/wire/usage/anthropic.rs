//! `messages`.

use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip, served};
use super::outcome::{Outcome, Said, error};
use super::spot;

#[derive(Debug, Default)]
pub(super) struct Anthropic {
    counts: Counts,
}

/// The counts so far. A stream gives them twice, at its start and at its end;
/// the later values are running totals and replace the earlier, field by field.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    fresh: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    /// The cache writes by lifetime, for those who give no sum.
    written_parts: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    /// Of the cache writes those for an hour.
    written_1h: Option<u64>,
    tier: Option<ServiceTier>,
    /// Billed beside the others: prompts and answers of iterations that are no
    /// message of this model (an advisor, a compaction).
    beside: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Found {
    counts: Counts,
    said: Said,
}

impl Anthropic {
    pub(super) fn value(&mut self, json: &[u8], only_whole: bool, outcome: &mut Outcome) -> Option<usize> {
        let mut found = Found::default();
        let mut scanner = Scanner::lenient(json);
        let whole = found.walk(&mut scanner, true).is_ok();
        if whole || !only_whole {
            self.counts.overlay(found.counts);
            outcome.absorb(found.said);
            outcome.odd |= scanner.doubted();
        }
        whole.then(|| scanner.at())
    }

    pub(super) fn tail(&mut self, tail: &[u8]) {
        if let Some(object) = spot::last_object(tail, b"\"usage\"") {
            let mut counts = Counts::default();
            if counts.read(&mut Scanner::lenient(object)).is_ok() {
                self.counts.overlay(counts);
            }
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let Counts { fresh, cache_read, output, thinking, .. } = self.counts;
        let cache_write = self.counts.cache_write.or(self.counts.written_parts);
        // The raw input leaves out what came from or went into the cache.
        let parts = [fresh, cache_read, cache_write];
        let input =
            parts.iter().any(Option::is_some).then(|| parts.into_iter().flatten().fold(0_u64, u64::saturating_add));
        let beside = self.counts.beside;
        let billing = Billing {
            tier: self.counts.tier.unwrap_or_default(),
            cache_write_1h: self.counts.written_1h,
            billed_input: beside.map(|(more, _)| input.unwrap_or(0).saturating_add(more)),
            billed_output: beside.map(|(_, more)| output.unwrap_or(0).saturating_add(more)),
            ..Billing::default()
        };
        Usage {
            input,
            cached_input: cache_read,
            cache_write,
            output,
            reasoning: thinking,
            total: None,
            model: None,
            billing,
        }
    }
}

impl Found {
    /// `outer`: not yet inside the `message` of a `message_start`.
    fn walk(&mut self, scanner: &mut Scanner<'_>, outer: bool) -> Step {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"model" => self.said.model(scanner)?,
                b"usage" => self.counts.read(scanner)?,
                b"message" if outer => self.walk(scanner, false)?,
                b"error" => {
                    if let Some(code) = error(scanner)? {
                        self.said.error = Some(code);
                    }
                }
                // With it come the last counts, whether or not `message_stop` follows.
                b"delta" if outer => {
                    object_or_skip(scanner, |scanner, name| {
                        match name {
                            b"stop_reason" => self.said.terminal |= scanner.text()?.is_some(),
                            b"container" => self.container(scanner)?,
                            _ => {
                                scanner.skip()?;
                            }
                        }
                        Ok(())
                    })?;
                }
                b"container" => self.container(scanner)?,
                b"type" => {
                    let stop = scanner.text()?.is_some_and(|(kind, _)| kind == "message_stop");
                    self.said.terminal |= stop;
                }
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Where code of the answer ran; the next request may go on there.
    fn container(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(
            scanner,
            |scanner, name| if name == b"id" { self.said.made(scanner) } else { scanner.skip().map(drop) },
        )
        .map(drop)
    }
}

impl Counts {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"input_tokens" => self.fresh = count(scanner)?.or(self.fresh),
                b"cache_read_input_tokens" => self.cache_read = count(scanner)?.or(self.cache_read),
                b"cache_creation_input_tokens" => self.cache_write = count(scanner)?.or(self.cache_write),
                b"output_tokens" => self.output = count(scanner)?.or(self.output),
                b"cache_creation" => {
                    let mut sum: Option<u64> = None;
                    object_or_skip(scanner, |scanner, name| {
                        if let Some(part) = count(scanner)? {
                            sum = Some(sum.unwrap_or(0).saturating_add(part));
                            if name == b"ephemeral_1h_input_tokens" {
                                self.written_1h = Some(part);
                            }
                        }
                        Ok(())
                    })?;
                    self.written_parts = sum.or(self.written_parts);
                }
                b"iterations" if scanner.next() == Some(b'[') => self.beside = beside(scanner)?,
                b"service_tier" => self.tier = served(scanner)?.or(self.tier),
                b"output_tokens_details" => {
                    object_or_skip(scanner, |scanner, name| {
                        let value = count(scanner)?;
                        if name == b"thinking_tokens" {
                            self.thinking = value.or(self.thinking);
                        }
                        Ok(())
                    })?;
                }
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    fn overlay(&mut self, later: Self) {
        self.fresh = later.fresh.or(self.fresh);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.written_parts = later.written_parts.or(self.written_parts);
        self.output = later.output.or(self.output);
        self.thinking = later.thinking.or(self.thinking);
        self.written_1h = later.written_1h.or(self.written_1h);
        self.tier = later.tier.or(self.tier);
        self.beside = later.beside.or(self.beside);
    }
}

/// Sums up the iterations that the counts around them leave out; `None` when
/// there are none.
fn beside(scanner: &mut Scanner<'_>) -> Step<Option<(u64, u64)>> {
    let mut sum: Option<(u64, u64)> = None;
    scanner.array(|scanner| {
        let (mut input, mut output, mut inside) = (0_u64, 0_u64, true);
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"type" => {
                    inside =
                        scanner.text()?.is_none_or(|(kind, _)| matches!(kind.as_str(), "message" | "fallback_message"));
                }
                b"input_tokens" | b"cache_read_input_tokens" | b"cache_creation_input_tokens" => {
                    input = input.saturating_add(count(scanner)?.unwrap_or(0));
                }
                b"output_tokens" => output = count(scanner)?.unwrap_or(0),
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })?;
        if !inside {
            let (asked, given) = sum.unwrap_or_default();
            sum = Some((asked.saturating_add(input), given.saturating_add(output)));
        }
        Ok(())
    })?;
    Ok(sum)
}
