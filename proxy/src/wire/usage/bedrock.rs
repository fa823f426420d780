//! Amazon Bedrock: `converse` has one shape for all models, `invoke` that of
//! each model's family; streams are binary messages of which `invoke` packs the
//! model's own JSON into base64.
//!
//! What was read from or written to the cache stands beside the input, as with
//! Anthropic, except where a model speaks OpenAI's language.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip, sum};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bedrock {
    /// What the model says.
    own: Counts,
    /// What Bedrock counted, at the end of an invoked stream.
    metrics: Seen,
    /// What it counted, in the head of an answer.
    head: Seen,
}

/// What Bedrock counts itself.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    fresh: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    output: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Without what the cache was read or written for.
    fresh: Option<u64>,
    /// With it.
    prompt: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    written_1h: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
}

impl Bedrock {
    /// Takes the counts that stand in the head of an answer that is no stream.
    pub(super) fn told<'h>(&mut self, header: impl Fn(&str) -> Option<&'h str>) {
        let number = |name| count(&mut Scanner::lenient(header(name)?.as_bytes())).ok().flatten();
        self.head = Seen {
            fresh: number("x-amzn-bedrock-input-token-count"),
            read: number("x-amzn-bedrock-cache-read-input-token-count"),
            written: number("x-amzn-bedrock-cache-write-input-token-count"),
            output: number("x-amzn-bedrock-output-token-count"),
        };
    }

    /// The model's JSON out of `{"bytes":"…"}`; empty when there is none.
    pub(super) fn unpacked<'a>(payload: &[u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        scratch.clear();
        let _ = object_or_skip(&mut Scanner::lenient(payload), |scanner, name| {
            if name != b"bytes" {
                return scanner.skip().map(drop);
            }
            let value = scanner.raw()?;
            let packed = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or_default();
            if packed.contains(&b'\\') {
                let plain: Vec<u8> = packed.iter().copied().filter(|byte| *byte != b'\\').collect();
                let _ = STANDARD.decode_vec(plain, scratch);
            } else {
                let _ = STANDARD.decode_vec(packed, scratch);
            }
            Ok(())
        });
        scratch
    }

    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        self.level(scanner, said, true)
    }

    /// `outer`: not yet inside Nova's `metadata` or Claude's `message`.
    fn level(&mut self, scanner: &mut Scanner<'_>, said: &mut Said, outer: bool) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"usage" => self.own.read(scanner),
            b"metadata" | b"message" if outer => self.level(scanner, said, false),
            b"amazon-bedrock-invocationMetrics" => {
                said.terminal = true;
                let mut counts = Counts::default();
                counts.read(scanner)?;
                let Counts { fresh, read, written, output, .. } = counts;
                self.metrics = Seen { fresh, read, written, output };
                Ok(())
            }
            b"delta" => object_or_skip(scanner, |scanner, name| match name {
                b"stop_reason" => said.finish(scanner),
                _ => scanner.skip().map(drop),
            })
            .map(drop),
            // Titan has one count for each of its answers.
            b"results" if scanner.next() == Some(b'[') => {
                let mut all = None;
                scanner.array(|scanner| {
                    object_or_skip(scanner, |scanner, name| match name {
                        b"tokenCount" => {
                            all = sum(all, count(scanner)?);
                            Ok(())
                        }
                        _ => scanner.skip().map(drop),
                    })
                    .map(drop)
                })?;
                self.own.output = all.or(self.own.output);
                Ok(())
            }
            b"stop_reason" | b"stopReason" | b"completionReason" | b"finish_reason" => said.finish(scanner),
            // Llama and Titan have their counts at the top.
            b"prompt_token_count"
            | b"generation_token_count"
            | b"inputTextTokenCount"
            | b"totalOutputTextTokenCount" => self.own.member(scanner, name),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let says = |counts: &Counts| counts.fresh.is_some() || counts.prompt.is_some() || counts.output.is_some();
        // The metrics come last; the head is for those models that do not count.
        let all = [self.metrics.counts(), self.own, self.head.counts()];
        let Counts { fresh, prompt, read, written, output, .. } = all.into_iter().find(says).unwrap_or_default();
        let beside = fresh.map(|fresh| sum(sum(Some(fresh), read), written).unwrap_or(fresh));
        let input = prompt.or(beside);
        Usage {
            input,
            cached_input: read,
            cache_write: written,
            output: output.or(input.map(|_| 0)),
            reasoning: self.own.reasoning,
            total: None,
            model: None,
            billing: Billing { cache_write_1h: self.own.written_1h, ..Billing::default() },
        }
    }
}

impl Seen {
    fn counts(self) -> Counts {
        let Self { fresh, read, written, output } = self;
        Counts { fresh, read, written, output, ..Counts::default() }
    }
}

impl Counts {
    /// The later report replaces the earlier, field by field.
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| self.member(scanner, name)).map(drop)
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8]) -> Step {
        let field = match name {
            b"inputTokens" | b"input_tokens" | b"inputTokenCount" | b"prompt_token_count" | b"inputTextTokenCount" => {
                &mut self.fresh
            }
            b"outputTokens"
            | b"output_tokens"
            | b"outputTokenCount"
            | b"completion_tokens"
            | b"generation_token_count"
            | b"totalOutputTextTokenCount" => &mut self.output,
            b"cacheReadInputTokens" | b"cacheReadInputTokenCount" | b"cache_read_input_tokens" => &mut self.read,
            b"cacheWriteInputTokens" | b"cacheWriteInputTokenCount" | b"cache_creation_input_tokens" => {
                &mut self.written
            }
            b"prompt_tokens" => &mut self.prompt,
            b"cacheDetails" if scanner.next() == Some(b'[') => return self.lifetimes(scanner),
            b"cache_creation" | b"prompt_tokens_details" | b"completion_tokens_details" | b"output_tokens_details" => {
                return self.details(scanner);
            }
            _ => return scanner.skip().map(drop),
        };
        *field = count(scanner)?.or(*field);
        Ok(())
    }

    fn details(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            let value = count(scanner)?;
            match name {
                b"cached_tokens" => self.read = value.or(self.read),
                b"reasoning_tokens" | b"thinking_tokens" => self.reasoning = value.or(self.reasoning),
                b"ephemeral_1h_input_tokens" => self.written_1h = value.or(self.written_1h),
                _ => {}
            }
            Ok(())
        })
        .map(drop)
    }

    /// What was written to the cache, by how long it stays there.
    fn lifetimes(&mut self, scanner: &mut Scanner<'_>) -> Step {
        let mut long = None;
        scanner.array(|scanner| {
            let (mut tokens, mut hour) = (None, false);
            object_or_skip(scanner, |scanner, name| match name {
                b"inputTokens" => {
                    tokens = count(scanner)?;
                    Ok(())
                }
                b"ttl" => {
                    hour = scanner.text()?.is_some_and(|(ttl, _)| ttl == "1h");
                    Ok(())
                }
                _ => scanner.skip().map(drop),
            })?;
            if hour {
                long = sum(long, tokens);
            }
            Ok(())
        })?;
        self.written_1h = long.or(self.written_1h);
        Ok(())
    }
}
