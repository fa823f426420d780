//! Knobs: how a test tells the mock to misbehave.
//!
//! The same names arrive as header `x-mock-NAME`, query `mock_NAME`, path
//! segment `/knobs/NAME=VALUE;NAME=VALUE/`, environment `MOCK_NAME` and
//! `POST /__mock/rules`. A knob that does not parse is refused, never ignored:
//! a typo must not turn a fault test into a happy path.

/// A knob that was named or written wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnobError {
    /// No such knob.
    #[error("no mock knob is called {0:?}")]
    Unknown(String),
    /// The value does not parse.
    #[error("mock knob {name} cannot be {value:?}; expected {expected}")]
    Value {
        /// Which knob.
        name: String,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// TCP reset (`SO_LINGER` 0).
    Reset,
    /// A plain close in the middle.
    Close,
    /// Silence until the client goes, or `stall_ms`.
    Stall,
    /// Bytes that are not HTTP, then a close.
    Garbage,
    /// A chunk size that is not a number, then a close.
    BadChunk,
    /// The body gzipped although nobody asked; the position is not used.
    Gzip,
    /// One line of 1 MiB inserted at a frame boundary (streams only).
    HugeLine,
}

impl FaultKind {
    /// The name in knobs and, after `fault_`, in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Stall => "stall",
            Self::Garbage => "garbage",
            Self::BadChunk => "bad_chunk",
            Self::Gzip => "gzip",
            Self::HugeLine => "huge_line",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Reset, Self::Close, Self::Stall, Self::Garbage, Self::BadChunk, Self::Gzip, Self::HugeLine]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A fault and where it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// After how many body bytes; `None`: before the status line.
    pub at: Option<u64>,
}

/// How usage is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageVariant {
    /// As the vendor does.
    #[default]
    Normal,
    /// Never.
    Missing,
    /// Explicit zeros (and nothing is billed).
    Zero,
    /// Running totals in every frame.
    Split,
    /// The final report twice.
    Duplicated,
    /// After the terminator (OpenAI streams; elsewhere as normal).
    AfterDone,
    /// On the finish frame without having been asked (OpenAI streams).
    Unasked,
}

/// How a stream is cut into writes when no split seed is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// One write and one HTTP chunk per event.
    #[default]
    Frame,
    /// Everything in one write.
    Whole,
}

/// Every knob. The default is a healthy, immediate vendor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// Milliseconds before the first body byte.
    pub ttft_ms: u64,
    /// Output tokens per second; 0: as fast as possible.
    pub tps: u64,
    /// Output tokens instead of the number derived from the request.
    pub output_tokens: Option<u64>,
    /// Input tokens billed instead of the number derived from the request.
    pub input_tokens: Option<u64>,
    /// Of the input, read from a cache.
    pub cached_tokens: u64,
    /// Of the output, reasoning.
    pub reasoning_tokens: u64,
    /// Cut the answer into HTTP chunks and writes by this seed.
    pub split: Option<u64>,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Milliseconds a stall lasts before the connection closes; 0: until the
    /// client goes.
    pub stall_ms: u64,
    /// Answer with this status and the dialect's error body.
    pub status: Option<u16>,
    /// `code` (OpenAI) or `type` (Anthropic) or `reason` (Gemini) of that error.
    pub error_code: Option<String>,
    /// This text instead of an answer: events of a stream unless it begins with a
    /// brace.
    pub body: Option<String>,
    /// Further response headers.
    pub headers: Vec<(String, String)>,
    /// How usage is reported.
    pub usage: UsageVariant,
    /// Milliseconds before the response head.
    pub delay_ms: u64,
    /// How a stream is written.
    pub flush: Flush,
    /// Plain English instead of words in several scripts: every word one token
    /// of `o200k_base`.
    pub plain_words: bool,
}

impl Knobs {
    /// Sets one knob. `name` without prefix, `-` and `_` alike.
    ///
    /// # Errors
    /// An unknown name, or a value that does not parse.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), KnobError> {
        let value = value.trim();
        let canonical = name.to_ascii_lowercase().replace('-', "_");
        match canonical.as_str() {
            "ttft" | "ttft_ms" => self.ttft_ms = number(name, value)?,
            "tps" => self.tps = number(name, value)?,
            "tokens" | "output_tokens" => self.output_tokens = Some(number(name, value)?),
            "input_tokens" => self.input_tokens = Some(number(name, value)?),
            "cached_tokens" => self.cached_tokens = number(name, value)?,
            "reasoning_tokens" => self.reasoning_tokens = number(name, value)?,
            "split" => self.split = Some(number(name, value)?),
            "fault" => self.fault = parse_fault(name, value, self.fault)?,
            "fault_at" => self.place_fault(name, value)?,
            "stall_ms" => self.stall_ms = number(name, value)?,
            "status" => self.status = Some(parse_status(name, value)?),
            "error_code" => self.error_code = Some(value.to_owned()),
            "body" => self.body = Some(value.to_owned()),
            "header" => self.headers.push(parse_header(name, value)?),
            "usage" => self.usage = parse_usage(name, value)?,
            "delay" | "delay_ms" => self.delay_ms = number(name, value)?,
            "words" => {
                self.plain_words = match value {
                    "plain" => true,
                    "mixed" => false,
                    _ => return Err(wrong(name, value, "plain or mixed")),
                };
            }
            "flush" => {
                self.flush = match value {
                    "frame" => Flush::Frame,
                    "whole" => Flush::Whole,
                    _ => return Err(wrong(name, value, "frame or whole")),
                };
            }
            _ => return Err(KnobError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Sets several, written `name=value;name=value`.
    ///
    /// # Errors
    /// As [`Self::set`]; a piece without `=` counts as an unknown name.
    pub fn set_all(&mut self, text: &str) -> Result<(), KnobError> {
        for piece in text.split(';').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').ok_or_else(|| KnobError::Unknown(piece.to_owned()))?;
            self.set(name, value)?;
        }
        Ok(())
    }

    /// The position may be named before or after the kind; a position alone
    /// is a close, the mildest of the faults.
    fn place_fault(&mut self, name: &str, value: &str) -> Result<(), KnobError> {
        let at = parse_position(name, value)?;
        let kind = self.fault.map_or(FaultKind::Close, |fault| fault.kind);
        self.fault = Some(Fault { kind, at });
        Ok(())
    }
}

fn wrong(name: &str, value: &str, expected: &'static str) -> KnobError {
    KnobError::Value { name: name.to_owned(), value: value.to_owned(), expected }
}

fn number(name: &str, value: &str) -> Result<u64, KnobError> {
    value.parse().map_err(|_| wrong(name, value, "a whole number"))
}

fn parse_status(name: &str, value: &str) -> Result<u16, KnobError> {
    value
        .parse()
        .ok()
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| wrong(name, value, "a status from 200 to 599"))
}

fn parse_position(name: &str, value: &str) -> Result<Option<u64>, KnobError> {
    if value == "head" {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| wrong(name, value, "a byte position or head"))
}

fn parse_fault(name: &str, value: &str, earlier: Option<Fault>) -> Result<Option<Fault>, KnobError> {
    const EXPECTED: &str = "none, or reset|close|stall|garbage|bad_chunk|gzip|huge_line with @BYTE or @head";
    if value == "none" {
        return Ok(None);
    }
    let (kind, at) = match value.split_once('@') {
        Some((kind, at)) => (kind, parse_position(name, at)?),
        None => (value, earlier.map_or(Some(0), |fault| fault.at)),
    };
    let kind = FaultKind::parse(kind).ok_or_else(|| wrong(name, value, EXPECTED))?;
    Ok(Some(Fault { kind, at }))
}

fn parse_header(name: &str, value: &str) -> Result<(String, String), KnobError> {
    let (key, text) = value.split_once(':').ok_or_else(|| wrong(name, value, "name:value"))?;
    let clean = |part: &str| !part.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
    if key.is_empty() || !clean(key) || !clean(text) {
        return Err(wrong(name, value, "name:value without control characters"));
    }
    Ok((key.trim().to_owned(), text.trim().to_owned()))
}

fn parse_usage(name: &str, value: &str) -> Result<UsageVariant, KnobError> {
    Ok(match value {
        "normal" => UsageVariant::Normal,
        "missing" => UsageVariant::Missing,
        "zero" => UsageVariant::Zero,
        "split" => UsageVariant::Split,
        "duplicated" => UsageVariant::Duplicated,
        "after_done" => UsageVariant::AfterDone,
        "unasked" => UsageVariant::Unasked,
        _ => return Err(wrong(name, value, "normal|missing|zero|split|duplicated|after_done|unasked")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_parse_in_any_spelling_and_order() {
        let mut knobs = Knobs::default();
        knobs.set_all("fault-at=7;fault=reset;Output-Tokens=3;header=retry-after: 2").unwrap();
        assert_eq!(knobs.fault, Some(Fault { kind: FaultKind::Reset, at: Some(7) }));
        assert_eq!(knobs.output_tokens, Some(3));
        assert_eq!(knobs.headers, vec![("retry-after".to_owned(), "2".to_owned())]);
        knobs.set("fault", "garbage@head").unwrap();
        assert_eq!(knobs.fault, Some(Fault { kind: FaultKind::Garbage, at: None }));
        knobs.set("fault", "none").unwrap();
        assert_eq!(knobs.fault, None);
    }

    #[test]
    fn a_typo_is_refused() {
        let mut knobs = Knobs::default();
        for bad in [
            "ttf=1",
            "ttft=x",
            "fault=explode",
            "status=42",
            "usage=odd",
            "header=x",
            "flush=maybe",
            "words=odd",
            "loose",
        ] {
            assert!(knobs.set_all(bad).is_err(), "{bad}");
        }
        assert!(knobs.set("header", "a: b\r\nc: d").is_err());
        assert_eq!(knobs, Knobs::default());
    }
}
