//! The protocols of one vendor each, off the beaten path: every value of an
//! answer is read, whatever is in it.

use clawgate_shared::dialect::Protocol;
use clawgate_shared::usage::Usage;

use super::super::eventstream::Message;
use super::super::json::{Scanner, Step};
use super::super::sse::Event;
use super::bedrock::Bedrock;
use super::cohere::Cohere;
use super::complete::Complete;
use super::dashscope::DashScope;
use super::gemini_embed::GeminiEmbed;
use super::hunyuan::Hunyuan;
use super::interactions::Interactions;
use super::ollama::Ollama;
use super::outcome::{Outcome, Said, is_code};
use super::prompt_count::PromptCount;
use super::rerank::Rerank;
use super::spot;

/// Members that hold a report, looked for in the end of what is too long.
const REPORTS: [&[u8]; 7] = [
    b"\"usage\"",
    b"\"meta\"",
    b"\"usageMetadata\"",
    b"\"prompt_eval_count\"",
    b"\"eval_count\"",
    b"\"inputTextTokenCount\"",
    b"\"input_tokens\"",
];

/// A reader; see the module of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Other {
    Bedrock(Bedrock),
    Cohere(Cohere),
    Complete(Complete),
    DashScope(DashScope),
    GeminiEmbed(GeminiEmbed),
    Hunyuan(Hunyuan),
    Interactions(Interactions),
    Ollama(Ollama),
    PromptCount(PromptCount),
    Rerank(Rerank),
}

impl Other {
    /// The reader of a protocol; `None` for those that have one elsewhere.
    pub(super) fn new(protocol: Protocol) -> Option<Self> {
        Some(match protocol {
            Protocol::BedrockConverse | Protocol::BedrockInvoke => Self::Bedrock(Bedrock::default()),
            Protocol::Cohere | Protocol::CohereEmbed => Self::Cohere(Cohere::default()),
            Protocol::AnthropicComplete => Self::Complete(Complete),
            Protocol::DashScope => Self::DashScope(DashScope::default()),
            Protocol::GeminiEmbed => Self::GeminiEmbed(GeminiEmbed::default()),
            Protocol::Hunyuan => Self::Hunyuan(Hunyuan::default()),
            Protocol::GeminiInteractions => Self::Interactions(Interactions::default()),
            Protocol::Ollama | Protocol::OllamaEmbed => Self::Ollama(Ollama::default()),
            Protocol::PromptCount => Self::PromptCount(PromptCount::default()),
            Protocol::Rerank => Self::Rerank(Rerank::default()),
            _ => return None,
        })
    }

    fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        match self {
            Self::Bedrock(reader) => reader.walk(scanner, said),
            Self::Cohere(reader) => reader.walk(scanner, said),
            Self::Complete(_) => Complete::walk(scanner, said),
            Self::DashScope(reader) => reader.walk(scanner, said),
            Self::GeminiEmbed(reader) => reader.walk(scanner, said),
            Self::Hunyuan(reader) => reader.walk(scanner, said),
            Self::Interactions(reader) => reader.walk(scanner, said),
            Self::Ollama(reader) => reader.walk(scanner, said),
            Self::PromptCount(reader) => reader.walk(scanner),
            Self::Rerank(reader) => reader.walk(scanner, said),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Bedrock(reader) => reader.usage(),
            Self::Cohere(reader) => reader.usage(),
            Self::Complete(_) => Usage::default(),
            Self::DashScope(reader) => reader.usage(),
            Self::GeminiEmbed(reader) => reader.usage(),
            Self::Hunyuan(reader) => reader.usage(),
            Self::Interactions(reader) => reader.usage(),
            Self::Ollama(reader) => reader.usage(),
            Self::PromptCount(reader) => reader.usage(),
            Self::Rerank(reader) => reader.usage(),
        }
    }

    /// What the head of an answer says.
    pub(super) fn told<'h>(&mut self, header: impl Fn(&str) -> Option<&'h str>) {
        if let Self::Bedrock(reader) = self {
            reader.told(header);
        }
    }

    /// One JSON value; how many bytes it took, `None` when it is broken.
    pub(super) fn value(&mut self, json: &[u8], only_whole: bool, outcome: &mut Outcome) -> Option<usize> {
        let mut said = Said::default();
        let taken = self.hear(json, only_whole, &mut said, outcome);
        if taken.is_some() || !only_whole {
            outcome.absorb(said);
        }
        taken
    }

    fn hear(&mut self, json: &[u8], only_whole: bool, said: &mut Said, outcome: &mut Outcome) -> Option<usize> {
        let mut next = *self;
        let mut scanner = Scanner::lenient(json);
        let whole = next.walk(&mut scanner, said).is_ok();
        if whole || !only_whole {
            *self = next;
            outcome.odd |= scanner.doubted();
        }
        whole.then(|| scanner.at())
    }

    /// One event of a stream.
    pub(super) fn event(&mut self, event: &Event<'_>, outcome: &mut Outcome) {
        let _ = self.value(event.data, true, outcome);
        // Only what no running total accompanies has to be measured.
        let piece = event.name.is_empty() || event.name.ends_with(b"delta") || event.name == b"completion";
        if piece && !self.usage().has_counts() {
            outcome.text.written(event.data);
        }
        if event.name == b"error" {
            outcome.fail("error");
        }
    }

    /// One value of a stream of values; `first`: perhaps it is the only one.
    /// Whether it says that more will follow.
    pub(super) fn piece(&mut self, json: &[u8], first: bool, outcome: &mut Outcome) -> bool {
        let mut said = Said::default();
        let whole = self.hear(json, !first, &mut said, outcome).is_some();
        let open = said.open;
        // What ends a stream may say all of it again.
        if (first || open) && !self.usage().has_counts() {
            outcome.text.written(json);
        }
        if whole || first {
            outcome.absorb(said);
        }
        open
    }

    /// One message of a binary stream.
    pub(super) fn message(&mut self, message: &Message<'_>, scratch: &mut Vec<u8>, outcome: &mut Outcome) {
        if matches!(message.kind, b"exception" | b"error") {
            let name = std::str::from_utf8(message.name).ok().filter(|name| is_code(name));
            outcome.fail(name.unwrap_or("error"));
            return;
        }
        let json = if message.name == b"chunk" { Bedrock::unpacked(message.payload, scratch) } else { message.payload };
        let _ = self.value(json, true, outcome);
        if message.name == b"chunk" || message.name.ends_with(b"Delta") {
            outcome.text.written(json);
        }
    }

    /// The end of something too large to be read whole.
    pub(super) fn tail(&mut self, tail: &[u8], outcome: &mut Outcome) {
        for name in REPORTS {
            if let Some(value) = spot::last_report(tail, name) {
                let report = [b"{", name, b":", value, b"}"].concat();
                let _ = self.value(&report, true, outcome);
            }
        }
    }
}
