//! `generateContent` and `streamGenerateContent`.

use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};
use super::outcome::{Outcome, Said, error};
use super::spot;

#[derive(Debug, Default)]
pub(super) struct Gemini {
    /// The last report, whole: counts fall and vanish on the way, so nothing of
    /// an earlier one may survive.
    counts: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    prompt: Option<u64>,
    tool_use: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    cached: Option<u64>,
    total: Option<u64>,
    prompt_audio: Option<u64>,
    candidates_audio: Option<u64>,
}

#[derive(Debug, Default)]
struct Found {
    counts: Option<Counts>,
    said: Said,
}

impl Gemini {
    pub(super) fn value(&mut self, json: &[u8], only_whole: bool, outcome: &mut Outcome) -> Option<usize> {
        let mut found = Found::default();
        let mut scanner = Scanner::lenient(json);
        let whole = found.walk(&mut scanner).is_ok();
        if whole || !only_whole {
            self.counts = found.counts.or(self.counts);
            outcome.absorb(found.said);
            outcome.odd |= scanner.doubted();
        }
        whole.then(|| scanner.at())
    }

    pub(super) fn tail(&mut self, tail: &[u8]) {
        if let Some(object) = spot::last_object(tail, b"\"usageMetadata\"")
            && let Ok(Some(counts)) = Counts::read(&mut Scanner::lenient(object))
        {
            self.counts = Some(counts);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let Some(counts) = self.counts else { return Usage::default() };
        // The vendor leaves zeros out, so what is missing here is zero.
        let sum = |a: Option<u64>, b: Option<u64>| Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0)));
        Usage {
            input: sum(counts.prompt, counts.tool_use),
            cached_input: counts.cached,
            cache_write: None,
            output: sum(counts.candidates, counts.thoughts),
            reasoning: counts.thoughts,
            total: counts.total,
            model: None,
            billing: Billing {
                input_audio: counts.prompt_audio,
                output_audio: counts.candidates_audio,
                ..Billing::default()
            },
        }
    }
}

impl Found {
    fn walk(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"modelVersion" => self.said.model(scanner)?,
                b"usageMetadata" => self.counts = Counts::read(scanner)?.or(self.counts),
                b"error" => {
                    if let Some(code) = error(scanner)? {
                        self.said.error = Some(code);
                    }
                }
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }
}

impl Counts {
    /// A report; `None` when it holds no count (a traffic type alone is none).
    fn read(scanner: &mut Scanner<'_>) -> Step<Option<Self>> {
        let mut counts = Self::default();
        let mut any = false;
        object_or_skip(scanner, |scanner, name| {
            let field = match name {
                b"promptTokenCount" => &mut counts.prompt,
                b"toolUsePromptTokenCount" => &mut counts.tool_use,
                b"candidatesTokenCount" | b"responseTokenCount" => &mut counts.candidates,
                b"thoughtsTokenCount" => &mut counts.thoughts,
                b"cachedContentTokenCount" => &mut counts.cached,
                b"totalTokenCount" => &mut counts.total,
                b"promptTokensDetails" => {
                    counts.prompt_audio = audio(scanner)?.or(counts.prompt_audio);
                    return Ok(());
                }
                b"candidatesTokensDetails" | b"responseTokensDetails" => {
                    counts.candidates_audio = audio(scanner)?.or(counts.candidates_audio);
                    return Ok(());
                }
                _ => {
                    scanner.skip()?;
                    return Ok(());
                }
            };
            *field = count(scanner)?.or(*field);
            any |= field.is_some();
            Ok(())
        })?;
        Ok(any.then_some(counts))
    }
}

/// The audio part of a list of counts by modality.
fn audio(scanner: &mut Scanner<'_>) -> Step<Option<u64>> {
    let mut sum: Option<u64> = None;
    if scanner.next() != Some(b'[') {
        scanner.skip()?;
        return Ok(sum);
    }
    scanner.array(|scanner| {
        let (mut is_audio, mut tokens) = (false, None);
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"modality" => is_audio = scanner.text()?.is_some_and(|(text, _)| text == "AUDIO"),
                b"tokenCount" => tokens = count(scanner)?,
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })?;
        if let Some(tokens) = tokens.filter(|_| is_audio) {
            sum = Some(sum.unwrap_or(0).saturating_add(tokens));
        }
        Ok(())
    })?;
    Ok(sum)
}
