//! `chat/completions`, `completions`, `embeddings`, `responses`, `audio/…` and
//! `images/…`, of OpenAI and of those who speak its language.

use clawgate_shared::dialect::Protocol;
use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::usage::{Billing, Usage};

use super::super::json::{Scanner, Step};
use super::count::{Ranked, count, object_or_skip, served};
use super::outcome::{Outcome, Said, error, is_code};
use super::spot;

#[derive(Debug)]
pub(super) struct OpenAi {
    protocol: Protocol,
    /// Thoughts show in nothing but the total.
    hidden_thoughts: bool,
    counts: Option<Counts>,
    tier: ServiceTier,
    /// Ids of what the vendor keeps are wanted.
    listens: bool,
}

/// One usage object.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Ranked,
    output: Ranked,
    total: Option<u64>,
    cached: Ranked,
    written: Ranked,
    reasoning: Ranked,
    input_audio: Ranked,
    output_audio: Ranked,
}

/// What one value of the stream says about usage, by the place it says it.
#[derive(Debug, Default)]
struct Found {
    top: Option<Counts>,
    groq: Option<Counts>,
    choice: Option<Counts>,
    said: Said,
    /// `code` beside `"type":"error"`.
    code: Option<String>,
    kind: Kind,
    tier: Option<ServiceTier>,
    /// Ids are wanted.
    listens: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Error,
    Ended,
    Failed,
}

impl OpenAi {
    pub(super) fn new(protocol: Protocol, vendor: &str) -> Self {
        Self {
            protocol,
            hidden_thoughts: matches!(vendor, "google" | "vertex"),
            counts: None,
            tier: ServiceTier::Standard,
            listens: false,
        }
    }

    /// The vendor keeps the answer: its id is wanted, and those of its parts.
    pub(super) const fn listen(&mut self) {
        self.listens = true;
    }

    /// Whether every event is read: those of sounds and pictures are few, and
    /// tell their end by their type.
    pub(super) const fn reads_all(&self) -> bool {
        matches!(self.protocol, Protocol::OpenAiAudio | Protocol::OpenAiImages)
    }

    /// Whether a finish reason ends an answer of this protocol.
    pub(super) const fn has_choices(&self) -> bool {
        self.protocol.has_stream_options()
    }

    pub(super) fn value(&mut self, json: &[u8], only_whole: bool, outcome: &mut Outcome) -> Option<usize> {
        let mut found = Found { listens: self.listens, ..Found::default() };
        let mut scanner = Scanner::lenient(json);
        let whole = found.walk(&mut scanner, 0).is_ok();
        if whole || !only_whole {
            if let Some(counts) = found.top.or(found.groq).or(found.choice) {
                self.counts = Some(counts);
            }
            self.tier = found.tier.unwrap_or(self.tier);
            match found.kind {
                Kind::Error => found.said.error = found.said.error.or(found.code).or_else(|| Some("error".to_owned())),
                Kind::Failed => {
                    found.said.terminal = true;
                    found.said.error = found.said.error.or_else(|| Some("response.failed".to_owned()));
                }
                Kind::Ended => found.said.terminal = true,
                Kind::Other => {}
            }
            outcome.absorb(found.said);
            outcome.odd |= scanner.doubted();
        }
        whole.then(|| scanner.at())
    }

    /// The beginning of an event that is too large to be read whole.
    pub(super) fn head(&self, head: &[u8], outcome: &mut Outcome) {
        let json = head.iter().position(|byte| *byte == b'{').and_then(|at| head.get(at..));
        if let Some(json) = json.filter(|_| self.listens) {
            let mut found = Found { listens: true, ..Found::default() };
            let _ = found.walk(&mut Scanner::lenient(json), 0);
            outcome.absorb(Said { made: found.said.made, ..Said::default() });
        }
    }

    pub(super) fn tail(&mut self, tail: &[u8]) {
        if let Some(object) = spot::last_object(tail, b"\"usage\"")
            && let Ok(Some(counts)) = Counts::read(&mut Scanner::lenient(object))
        {
            self.counts = Some(counts);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let Some(counts) = self.counts else { return Usage::default() };
        let (mut input, mut output) = (counts.input.get(), counts.output.get());
        let (total, reasoning) = (counts.total, counts.reasoning.get());
        match (input, output, total) {
            // Embeddings have no output, and some give the total alone.
            (None, None, Some(sum)) if sum == 0 || self.protocol == Protocol::OpenAiEmbeddings => {
                input = Some(sum);
                output = Some(0);
            }
            (Some(_), None, _) => output = Some(0),
            (Some(asked), Some(given), Some(sum)) if self.protocol.has_stream_options() => {
                let plain = asked.saturating_add(given);
                match reasoning {
                    // xAI: total = prompt + completion + reasoning.
                    Some(thought) if thought > 0 && sum == plain.saturating_add(thought) => {
                        output = Some(given.saturating_add(thought));
                    }
                    _ if self.hidden_thoughts && sum > plain => output = Some(sum - asked),
                    _ => {}
                }
            }
            _ => {}
        }
        Usage {
            input,
            cached_input: counts.cached.get(),
            cache_write: counts.written.get(),
            output,
            reasoning,
            total,
            model: None,
            billing: Billing {
                tier: self.tier,
                input_audio: counts.input_audio.get(),
                output_audio: counts.output_audio.get(),
                ..Billing::default()
            },
        }
    }
}

impl Found {
    /// `depth` 1 is the `response` of a Responses event.
    fn walk(&mut self, scanner: &mut Scanner<'_>, depth: u8) -> Step<bool> {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"model" => self.said.model(scanner)?,
                b"id" if self.listens => self.said.made(scanner)?,
                b"output" if self.listens && scanner.next() == Some(b'[') => {
                    scanner.array(|scanner| self.part(scanner))?;
                }
                b"usage" => merge(&mut self.top, Counts::read(scanner)?),
                b"x_groq" => {
                    object_or_skip(scanner, |scanner, name| {
                        match name {
                            b"usage" => merge(&mut self.groq, Counts::read(scanner)?),
                            b"error" => self.said.error = error(scanner)?,
                            _ => {
                                scanner.skip()?;
                            }
                        }
                        Ok(())
                    })?;
                }
                b"choices" if scanner.next() == Some(b'[') => {
                    scanner.array(|scanner| self.choice(scanner))?;
                }
                b"response" if depth == 0 => {
                    self.walk(scanner, 1)?;
                }
                b"error" => {
                    if let Some(code) = error(scanner)? {
                        self.said.error = Some(code);
                    }
                }
                b"type" if depth == 0 => self.kind = kind(scanner)?,
                b"code" if depth == 0 => self.code = scanner.text()?.map(|(code, _)| code).filter(|code| is_code(code)),
                b"base_resp" => self.base_resp(scanner)?,
                b"service_tier" => self.tier = served(scanner)?.or(self.tier),
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
    }

    /// A part of a response may be named by itself, and so may the place where
    /// its code ran.
    fn part(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"id" | b"container_id" => self.said.made(scanner),
            _ => scanner.skip().map(drop),
        })
        .map(drop)
    }

    fn choice(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            if name == b"usage" {
                merge(&mut self.choice, Counts::read(scanner)?);
                Ok(())
            } else {
                scanner.skip().map(|_| ())
            }
        })
        .map(|_| ())
    }

    /// MiniMax's own verdict.
    fn base_resp(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            let value = scanner.raw()?;
            if name == b"status_code" && value != b"0" && value != b"null" {
                let code = String::from_utf8_lossy(value).into_owned();
                self.said.fail(code);
            }
            Ok(())
        })
        .map(|_| ())
    }
}

fn merge(held: &mut Option<Counts>, found: Option<Counts>) {
    if found.is_some() {
        *held = found;
    }
}

fn kind(scanner: &mut Scanner<'_>) -> Step<Kind> {
    let text = scanner.text()?;
    Ok(match text.as_ref().map(|(text, _)| text.as_str()) {
        Some("error") => Kind::Error,
        Some("response.failed") => Kind::Failed,
        Some(
            "response.completed"
            | "response.incomplete"
            | "transcript.text.done"
            | "speech.audio.done"
            | "image_generation.completed"
            | "image_edit.completed",
        ) => Kind::Ended,
        _ => Kind::Other,
    })
}

impl Counts {
    /// A usage object; `None` when it is none or holds no count.
    fn read(scanner: &mut Scanner<'_>) -> Step<Option<Self>> {
        let mut counts = Self::default();
        object_or_skip(scanner, |scanner, name| counts.member(scanner, name))?;
        let any = counts.input.get().is_some() || counts.output.get().is_some() || counts.total.is_some();
        Ok(any.then_some(counts))
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8]) -> Step {
        match name {
            b"prompt_tokens" => self.input.offer(0, count(scanner)?),
            b"input_tokens" => self.input.offer(1, count(scanner)?),
            b"completion_tokens" => self.output.offer(0, count(scanner)?),
            b"output_tokens" => self.output.offer(1, count(scanner)?),
            b"total_tokens" => self.total = count(scanner)?.or(self.total),
            b"cached_tokens" => self.cached.offer(2, count(scanner)?),
            b"prompt_cache_hit_tokens" => self.cached.offer(3, count(scanner)?),
            b"num_cached_tokens" => self.cached.offer(4, count(scanner)?),
            b"cache_read_input_tokens" => self.cached.offer(5, count(scanner)?),
            b"cache_creation_input_tokens" => self.written.offer(4, count(scanner)?),
            b"cache_write_tokens" => self.written.offer(5, count(scanner)?),
            b"reasoning_tokens" => self.reasoning.offer(2, count(scanner)?),
            b"prompt_tokens_details" => self.input_details(scanner, 0)?,
            b"input_tokens_details" | b"input_token_details" => self.input_details(scanner, 1)?,
            b"completion_tokens_details" => self.output_details(scanner, 0)?,
            b"output_tokens_details" | b"output_token_details" => self.output_details(scanner, 1)?,
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    }

    fn input_details(&mut self, scanner: &mut Scanner<'_>, rank: u8) -> Step {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"cached_tokens" => self.cached.offer(rank, count(scanner)?),
                b"audio_tokens" => self.input_audio.offer(rank, count(scanner)?),
                b"cache_write_tokens" => self.written.offer(rank, count(scanner)?),
                b"cache_creation_input_tokens" => self.written.offer(rank + 2, count(scanner)?),
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    fn output_details(&mut self, scanner: &mut Scanner<'_>, rank: u8) -> Step {
        object_or_skip(scanner, |scanner, name| {
            match name {
                b"reasoning_tokens" => self.reasoning.offer(rank, count(scanner)?),
                b"audio_tokens" => self.output_audio.offer(rank, count(scanner)?),
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }
}
