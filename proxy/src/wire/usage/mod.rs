//! Reads token usage from an answer while it passes.
//!
//! Invariant: what a [`Meter`] reports does not depend on how the bytes were
//! cut, and the last report of a vendor wins: counts are never added up, a
//! later null never erases one. An answer without usage gives none.
//! Counts that cannot be are made possible ones, and the report says so.
//! Beside counts it measures text, which is no count, and keeps a bounded part
//! of it, from which tokens can be counted when nobody reports them.
//! Deliberately absent: prices; and anything about a vendor but
//! the few arithmetic quirks that its numbers cannot tell.

mod anthropic;
mod bedrock;
mod cohere;
mod complete;
mod count;
mod dashscope;
mod gemini;
mod gemini_embed;
mod hunyuan;
mod interactions;
mod ollama;
mod openai;
mod other;
mod outcome;
mod prompt_count;
mod rerank;
mod sample;
mod spot;
mod text;

use clawgate_shared::dialect::Protocol;
use clawgate_shared::usage::Usage;

use super::collect::Collector;
use super::made::{Listener, Names};
use super::ndjson::Value;
use super::sse::{self, Framer, Unit};
use super::{eventstream, ndjson};
use anthropic::Anthropic;
use gemini::Gemini;
use openai::OpenAi;
use other::Other;
use outcome::Outcome;

pub use sample::{PromptSize, Sample, Scale};
pub(super) use spot::{mentions, reports};
pub use text::TextSize;

/// Events looked into for a model name before giving up on the vendor.
const MODEL_TRIES: u8 = 16;

/// How an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing but white space has come.
    Unknown,
    /// Server-sent events.
    Events,
    /// One JSON value, several, or an array of them.
    Json,
    /// JSON values one after the other, in a dialect that streams so.
    Values,
    /// Amazon's binary event stream.
    Messages,
}

/// What an answer said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts and model; all absent when the vendor reported none.
    pub usage: Usage,
    /// The answer reached its end by its own word (`[DONE]`, `message_stop`,
    /// `response.completed`, a finish reason, the closing brace). Bytes that
    /// merely stop are no end.
    pub terminal: bool,
    /// The vendor's error code when the answer is or holds an error, whatever
    /// its status: at most 64 of `[A-Za-z0-9_.-]`, never the vendor's text.
    pub error: Option<String>,
    /// The size of what was generated, as far as it came; not measured when the
    /// vendor reported counts in a body that is no stream.
    pub text: TextSize,
    /// A part of that text, in dialects whose tokens can be counted.
    pub sample: Option<Sample>,
    /// The vendor said a number that cannot be a count: negative, broken or
    /// beyond 2^53. Zero, the whole or 2^53 stands in its place.
    pub odd: bool,
}

/// Counts one answer. Feed it every byte the vendor sent, in order.
#[derive(Debug)]
pub struct Meter {
    source: Source,
    habit: Habit,
    reader: Reader,
    outcome: Outcome,
    scratch: Vec<u8>,
    tries: u8,
    scale: Scale,
    /// A collected body was read before the end.
    read: bool,
    /// Reads the answer for ids, where no reader of counts does.
    listener: Option<Listener>,
}

#[derive(Debug)]
enum Source {
    Unknown,
    Events(Framer),
    Json(Collector),
    Values {
        framer: ndjson::Framer,
        /// Values that came so far, and whether the last said that more follow.
        count: u64,
        open: bool,
    },
    Messages(eventstream::Framer),
    /// Nothing is read.
    Off,
}

/// What the first byte of an answer may mean, beside events and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Nothing else.
    Plain,
    /// An object may be the first of many.
    Values,
    /// A zero begins a binary event stream.
    Messages,
    /// It may be a sound or a picture.
    Media,
}

#[derive(Debug)]
enum Reader {
    OpenAi(OpenAi),
    Anthropic(Anthropic),
    Gemini(Gemini),
    Other(Other),
}

impl Meter {
    /// A meter for a route's protocol. `vendor` is the slug: some vendors leave
    /// reasoning out of their counts in ways only their name tells.
    #[must_use]
    pub fn new(protocol: Protocol, vendor: &str) -> Self {
        let reader = match protocol {
            Protocol::AnthropicMessages => Reader::Anthropic(Anthropic::default()),
            Protocol::Gemini | Protocol::GeminiLive => Reader::Gemini(Gemini::default()),
            _ => match Other::new(protocol) {
                Some(other) => Reader::Other(other),
                None => Reader::OpenAi(OpenAi::new(protocol, vendor)),
            },
        };
        let source = if protocol == Protocol::Opaque { Source::Off } else { Source::Unknown };
        let habit = match protocol {
            Protocol::Cohere | Protocol::Ollama => Habit::Values,
            Protocol::BedrockConverse | Protocol::BedrockInvoke => Habit::Messages,
            Protocol::OpenAiAudio | Protocol::OpenAiImages => Habit::Media,
            _ => Habit::Plain,
        };
        let keeps = protocol != Protocol::Opaque && matches!(reader, Reader::OpenAi(_)) && habit != Habit::Media;
        let sample = keeps.then(Sample::default);
        let outcome = Outcome { sample, ..Outcome::default() };
        let (scratch, scale) = (Vec::new(), Scale::default());
        Self { source, habit, reader, outcome, scratch, tries: 0, scale, read: false, listener: None }
    }

    /// The vendor keeps what it answers: its ids are wanted. To be called before
    /// the first byte. `names`: on a route that makes things in the account, what.
    pub fn listen(&mut self, names: Option<Names>) {
        self.listener = names.map(Listener::new);
        if let (None, Reader::OpenAi(reader)) = (names, &mut self.reader) {
            reader.listen();
        }
    }

    /// The last byte was pushed: what only a whole body says can be asked for.
    pub fn whole(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.outcome.made = listener.ids();
        }
        if let (Source::Json(collector), false) = (&self.source, self.read) {
            self.reader.body(collector, &mut self.outcome);
            self.read = true;
        }
    }

    /// The ids that were found since this was asked last.
    #[must_use]
    pub fn made(&mut self) -> Vec<String> {
        std::mem::take(&mut self.outcome.made)
    }

    /// What the head of the answer says of usage, where a vendor puts it there;
    /// to be called before the first byte.
    pub fn told<'h>(&mut self, header: impl Fn(&str) -> Option<&'h str>) {
        if let Reader::Other(reader) = &mut self.reader {
            reader.told(header);
        }
    }

    /// Looks at a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        if let Some(listener) = &mut self.listener {
            listener.push(chunk);
        }
        if matches!(self.source, Source::Unknown) {
            self.sniff(chunk);
        }
        match &mut self.source {
            Source::Unknown | Source::Off => {}
            Source::Json(collector) => collector.push(chunk),
            Source::Events(framer) => {
                let (reader, outcome) = (&mut self.reader, &mut self.outcome);
                let (scratch, tries) = (&mut self.scratch, &mut self.tries);
                framer.feed(chunk, |unit, _| reader.unit(unit, scratch, tries, outcome));
            }
            Source::Values { framer, count, open } => {
                let (reader, outcome) = (&mut self.reader, &mut self.outcome);
                framer.feed(chunk, |value| {
                    *open = reader.piece(value, *count == 0, outcome);
                    *count += 1;
                });
            }
            Source::Messages(framer) => {
                let (reader, outcome, scratch) = (&mut self.reader, &mut self.outcome, &mut self.scratch);
                framer.feed(chunk, |message| {
                    if let Reader::Other(reader) = reader {
                        reader.message(&message, scratch, outcome);
                    }
                });
            }
        }
    }

    /// The answer is over, well or not.
    #[must_use]
    pub fn finish(mut self) -> Report {
        match &mut self.source {
            Source::Unknown | Source::Off => {}
            Source::Json(_) if self.read => {}
            Source::Json(collector) => self.reader.body(collector, &mut self.outcome),
            Source::Events(framer) => {
                let (reader, outcome) = (&mut self.reader, &mut self.outcome);
                let (scratch, tries) = (&mut self.scratch, &mut self.tries);
                framer.finish(|unit| reader.unit(unit, scratch, tries, outcome));
            }
            Source::Values { framer, count, open } => {
                // One that was not the first of many is the whole answer.
                self.outcome.terminal |= *count == 1 && !*open;
                let (reader, outcome) = (&mut self.reader, &mut self.outcome);
                framer.finish(|value| {
                    reader.piece(value, *count == 0, outcome);
                    outcome.terminal = false;
                });
            }
            Source::Messages(_) => {}
        }
        let mut usage = match &self.reader {
            Reader::OpenAi(reader) => reader.usage(),
            Reader::Anthropic(reader) => reader.usage(),
            Reader::Gemini(reader) => reader.usage(),
            Reader::Other(reader) => reader.usage(),
        };
        usage.model = self.outcome.model;
        let (mut text, mut sample) = (self.outcome.text, self.outcome.sample);
        if let (Source::Json(collector), false) = (&self.source, usage.has_counts()) {
            match &self.reader {
                Reader::Other(_) => text.written(collector.head()),
                _ => text.answer(collector.head(), sample.as_mut()),
            }
        }
        let Outcome { terminal, error, odd, .. } = self.outcome;
        Report { usage, terminal, error, text, sample, odd }
    }

    /// What the answer's first bytes tell.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        match self.source {
            Source::Unknown | Source::Off => Framing::Unknown,
            Source::Events(_) => Framing::Events,
            Source::Json(_) => Framing::Json,
            Source::Values { .. } => Framing::Values,
            Source::Messages(_) => Framing::Messages,
        }
    }

    /// About how much a stream has generated so far, in tokens: by the size of its
    /// text, the better the more of it was [`Self::counted`].
    #[must_use]
    pub fn generated(&self) -> u64 {
        self.scale.of(self.outcome.text)
    }

    /// What to count so that [`Self::generated`] tells better; `None` when that
    /// would change little, or cannot be done for this dialect.
    #[must_use]
    pub fn uncounted(&self) -> Option<Sample> {
        self.outcome.sample.as_ref().filter(|sample| sample.outgrew(self.scale)).cloned()
    }

    /// What the sample's count came to.
    pub const fn counted(&mut self, scale: Scale) {
        self.scale = scale;
    }

    /// Whether the end was seen already. Only streams tell before
    /// [`Self::finish`].
    #[must_use]
    pub const fn terminal(&self) -> bool {
        self.outcome.terminal
    }

    /// Whether an event of ours may follow without first ending a broken one.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        match &self.source {
            Source::Events(framer) => framer.at_boundary(),
            _ => true,
        }
    }

    /// The first byte that is no white space decides: content types lie.
    fn sniff(&mut self, chunk: &[u8]) {
        let Some(first) = chunk.iter().find(|byte| !byte.is_ascii_whitespace()) else { return };
        self.source = match (first, self.habit) {
            (b'{', Habit::Values) => Source::Values { framer: ndjson::Framer::default(), count: 0, open: false },
            (b'{' | b'[' | b'"', _) => Source::Json(Collector::default()),
            (0, Habit::Messages) => Source::Messages(eventstream::Framer::default()),
            // `data`, `event`, `id`, `retry`, a comment, a byte order mark.
            (b'd' | b'e' | b'i' | b'r' | b':' | 0xef, _) => Source::Events(Framer::default()),
            (_, Habit::Media) => Source::Off,
            _ => Source::Events(Framer::default()),
        };
    }
}

/// Reads a whole body at once.
#[must_use]
pub fn read_body(protocol: Protocol, vendor: &str, body: &[u8]) -> Report {
    let mut meter = Meter::new(protocol, vendor);
    meter.push(body);
    meter.finish()
}

impl Reader {
    /// One unit of an event stream.
    fn unit(&mut self, unit: Unit<'_>, scratch: &mut Vec<u8>, tries: &mut u8, outcome: &mut Outcome) {
        match unit {
            Unit::Rest => {}
            Unit::Whole(bytes) => {
                if let Some(event) = sse::event(bytes, scratch) {
                    self.event(&event, tries, outcome);
                }
            }
            Unit::Oversize { head, tail } => {
                outcome.terminal |= spot::oversize_end(head) || self.finished(tail);
                if let Self::OpenAi(reader) = self {
                    reader.head(head, outcome);
                }
                self.tail(tail, outcome);
            }
        }
    }

    /// One value of a stream of values; whether more will follow by its word.
    fn piece(&mut self, value: Value<'_>, first: bool, outcome: &mut Outcome) -> bool {
        let Self::Other(reader) = self else { return false };
        match value {
            Value::Whole(json) | Value::Broken(json) => reader.piece(json, first, outcome),
            Value::Oversize { head, tail } => {
                let open = reader.piece(head, true, outcome);
                reader.tail(tail, outcome);
                open
            }
        }
    }

    fn event(&mut self, event: &sse::Event<'_>, tries: &mut u8, outcome: &mut Outcome) {
        if spot::end_marker(event) {
            outcome.terminal = true;
            return;
        }
        if let Self::Other(reader) = self {
            return reader.event(event, outcome);
        }
        // What ends a part says again what its pieces said.
        if event.name.is_empty() || event.name.ends_with(b"delta") {
            outcome.text.answer(event.data, outcome.sample.as_mut());
        }
        let search = outcome.model.is_none() && *tries < MODEL_TRIES;
        *tries += u8::from(search);
        let search = search || self.reads_all();
        let finished = self.finished(event.data);
        // A chunk that finishes is seldom, so it may be looked at twice.
        if search || spot::speaks(event) || (finished && spot::verdict(event.data)) {
            let _ = self.value(event.data, true, outcome);
            if event.name == b"error" {
                outcome.fail("error");
            }
        }
        outcome.terminal |= finished;
    }

    /// Whether a chunk tells that its answer is complete without `[DONE]`.
    fn finished(&self, data: &[u8]) -> bool {
        match self {
            Self::OpenAi(reader) => reader.has_choices() && spot::finish_reason(data, false),
            Self::Gemini(_) => spot::finish_reason(data, true),
            Self::Anthropic(_) | Self::Other(_) => false,
        }
    }

    const fn reads_all(&self) -> bool {
        matches!(self, Self::OpenAi(reader) if reader.reads_all())
    }

    /// A collected body.
    fn body(&mut self, collector: &Collector, outcome: &mut Outcome) {
        let whole = self.values(collector.head(), outcome);
        match collector.tail() {
            None => outcome.terminal = whole,
            Some(tail) => {
                self.tail(tail, outcome);
                outcome.terminal = matches!(tail.trim_ascii_end().last(), Some(b'}' | b']'));
            }
        }
    }

    /// JSON values one after the other, or in an array. Whether all are whole.
    fn values(&mut self, mut rest: &[u8], outcome: &mut Outcome) -> bool {
        rest = rest.trim_ascii();
        let list = rest.first() == Some(&b'[');
        if list {
            rest = rest.get(1..).unwrap_or_default().trim_ascii();
        }
        let mut any = false;
        while !rest.is_empty() {
            if list && rest == b"]" {
                return true;
            }
            // What stands whole in a body that breaks off still counts.
            let Some(used) = self.value(rest, false, outcome) else { return false };
            any = true;
            rest = rest.get(used..).unwrap_or_default().trim_ascii();
            if list && rest.first() == Some(&b',') {
                rest = rest.get(1..).unwrap_or_default().trim_ascii();
            }
        }
        any && !list
    }

    /// One JSON value; how many bytes it took, `None` when it is broken.
    /// `only_whole`: a broken one says nothing.
    fn value(&mut self, json: &[u8], only_whole: bool, outcome: &mut Outcome) -> Option<usize> {
        match self {
            Self::OpenAi(reader) => reader.value(json, only_whole, outcome),
            Self::Anthropic(reader) => reader.value(json, only_whole, outcome),
            Self::Gemini(reader) => reader.value(json, only_whole, outcome),
            Self::Other(reader) => reader.value(json, only_whole, outcome),
        }
    }

    /// The end of something too large to be read whole.
    fn tail(&mut self, tail: &[u8], outcome: &mut Outcome) {
        match self {
            Self::OpenAi(reader) => reader.tail(tail),
            Self::Anthropic(reader) => reader.tail(tail),
            Self::Gemini(reader) => reader.tail(tail),
            Self::Other(reader) => reader.tail(tail, outcome),
        }
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps;
