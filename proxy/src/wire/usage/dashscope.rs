//! DashScope's own API: text and multimodal generation, apps, embeddings. A
//! stream has running totals in every event.

use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip, sum};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DashScope {
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    written: Option<u64>,
    reasoning: Option<u64>,
    audio: Option<u64>,
}

impl DashScope {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        let mut code = None;
        object_or_skip(scanner, |scanner, name| match name {
            b"usage" => {
                self.counts = Counts::read(scanner, said)?.unwrap_or(self.counts);
                Ok(())
            }
            b"output" => output(scanner, said),
            b"code" => {
                code = scanner.text()?.map(|(code, _)| code).filter(|code| !matches!(code.as_str(), "" | "Success"));
                Ok(())
            }
            _ => said.other(scanner, name),
        })?;
        // Where all went well there is none, or an empty one.
        if let Some(code) = code {
            said.fail(code);
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Usage {
        let Counts { input, output, total, cached, written, reasoning, audio } = self.counts;
        // Embeddings have a total alone.
        let input = input.or(total.filter(|_| output.is_none()));
        Usage {
            input,
            cached_input: cached,
            cache_write: written,
            output: output.or(input.map(|_| 0)),
            reasoning,
            total,
            model: None,
            billing: Billing { input_audio: audio, ..Billing::default() },
        }
    }
}

/// Looks for the end of the answer.
fn output(scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
    object_or_skip(scanner, |scanner, name| match name {
        b"finish_reason" => said.finish(scanner),
        b"choices" => said.choices(scanner, b"finish_reason"),
        _ => scanner.skip().map(drop),
    })
    .map(drop)
}

impl Counts {
    /// `None`: it holds no count.
    fn read(scanner: &mut Scanner<'_>, said: &mut Said) -> Step<Option<Self>> {
        let mut counts = Self::default();
        object_or_skip(scanner, |scanner, name| counts.member(scanner, name, said))?;
        let any = counts.input.is_some() || counts.output.is_some() || counts.total.is_some();
        Ok(any.then_some(counts))
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8], said: &mut Said) -> Step {
        match name {
            b"input_tokens" => self.input = count(scanner)?,
            b"output_tokens" => self.output = count(scanner)?,
            b"total_tokens" => self.total = count(scanner)?,
            b"prompt_tokens_details" | b"input_tokens_details" => {
                object_or_skip(scanner, |scanner, name| {
                    let value = count(scanner)?;
                    match name {
                        b"cached_tokens" => self.cached = value.or(self.cached),
                        b"cache_creation_input_tokens" => self.written = value.or(self.written),
                        b"audio_tokens" => self.audio = value.or(self.audio),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            b"output_tokens_details" => {
                object_or_skip(scanner, |scanner, name| {
                    let value = count(scanner)?;
                    if name == b"reasoning_tokens" {
                        self.reasoning = value.or(self.reasoning);
                    }
                    Ok(())
                })?;
            }
            b"models" if scanner.next() == Some(b'[') => {
                scanner.array(|scanner| self.model(scanner, said))?;
            }
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    }

    /// One of the models that an app has called.
    fn model(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"input_tokens" => {
                self.input = sum(self.input, count(scanner)?);
                Ok(())
            }
            b"output_tokens" => {
                self.output = sum(self.output, count(scanner)?);
                Ok(())
            }
            b"model_id" => said.model(scanner),
            _ => scanner.skip().map(drop),
        })
        .map(drop)
    }
}
