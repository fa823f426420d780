//! One look at a request body: model, streaming, output limit, and where they
//! stand, without building a tree.

use std::ops::Range;

use clawgate_shared::dialect::Protocol;

use super::json::{Fault, Scanner, Step};
use super::references::Marks;

/// Longest model name that is one.
pub const MAX_MODEL_LEN: usize = 512;

/// Why a body cannot be looked into. Holds an offset, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// Not UTF-8 JSON from this byte on.
    #[error("the body is not valid JSON at byte {0}")]
    NotJson(usize),
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NotObject,
    /// More brackets inside each other than any request needs.
    #[error("the body is nested too deeply at byte {0}")]
    TooDeep(usize),
    /// `model` is longer than [`MAX_MODEL_LEN`].
    #[error("the model name is too long")]
    ModelTooLong,
}

/// What a request body says. Where a key stands twice the last one counts here;
/// [`Self::repeated`] names it, because a vendor may heed the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// The `model` member when it is a string.
    pub model: Option<Model>,
    /// The `model` member is neither a string nor null.
    pub model_is_no_text: bool,
    /// The `stream` member when it is a boolean.
    pub stream: Option<bool>,
    /// Every member that limits the output.
    pub limits: Limits,
    /// How many answers are asked for: the largest of `n`, `best_of` and
    /// `candidateCount`.
    pub n: Option<u64>,
    /// The `stream_options` member.
    pub stream_options: StreamOptions,
    /// `background` is true: the answer is fetched later.
    pub background: bool,
    /// The `store` member when it is a boolean.
    pub store: Option<bool>,
    /// What the names of its members, at any depth, may stand for.
    pub marks: Marks,
    /// Input the body only names: `previous_response_id`, `conversation`,
    /// `prompt` (stored), `cachedContent`.
    pub refers: bool,
    /// A key among those above that stands more than once.
    pub repeated: Option<&'static str>,
    /// The offset behind the body's opening brace, and whether the object is
    /// empty: where a member can be put.
    pub root: Slot,
    /// The same of `generationConfig`.
    pub generation_config: Option<Slot>,
    /// What stands in its place and is no object.
    pub no_config: Option<Range<usize>>,
    /// The members seen so far, one bit each.
    seen: u8,
}

/// Members that may stand once.
const ONCE: [&str; 8] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "generationConfig",
    "maxOutputTokens",
];

/// A model name and its place, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Decoded.
    pub name: String,
    /// The string token in the body.
    pub range: Range<usize>,
}

/// Where a member may be put into an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Behind the opening brace.
    pub at: usize,
    /// No comma is needed then.
    pub empty: bool,
}

/// A member that limits the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `None` when the member is null or no count: no limit.
    pub tokens: Option<u64>,
    /// The value in the body.
    pub range: Range<usize>,
}

/// The members that limit the output, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `max_tokens`
    pub max_tokens: Option<Limit>,
    /// `max_completion_tokens`
    pub max_completion_tokens: Option<Limit>,
    /// `max_output_tokens` at the top
    pub max_output_tokens: Option<Limit>,
    /// `generationConfig.maxOutputTokens`
    pub gemini: Option<Limit>,
}

impl Limits {
    /// The limit that a route of this protocol heeds: a member of another one's
    /// name is passed over by vendors, and limits nothing.
    #[must_use]
    pub fn heeded(&self, protocol: Protocol) -> Option<u64> {
        let names = match protocol {
            Protocol::OpenAiChat => [&self.max_tokens, &self.max_completion_tokens],
            Protocol::OpenAiCompletions | Protocol::AnthropicMessages => [&self.max_tokens, &self.max_tokens],
            Protocol::OpenAiResponses => [&self.max_output_tokens, &self.max_output_tokens],
            Protocol::Gemini => [&self.gemini, &self.gemini],
            _ => return None,
        };
        names.into_iter().filter_map(|limit| limit.as_ref()?.tokens).max()
    }
}

/// The `stream_options` member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamOptions {
    /// Not there.
    #[default]
    Absent,
    /// `null`, at this place.
    Null(Range<usize>),
    /// An object.
    Object {
        /// Where a member can be put.
        slot: Slot,
        /// The value of `include_usage` and its place; `None` inside: neither
        /// true nor false.
        include_usage: Option<(Option<bool>, Range<usize>)>,
    },
    /// Something the vendor will refuse.
    Other,
}

impl StreamOptions {
    /// Whether the client itself asked for usage.
    #[must_use]
    pub const fn asks(&self) -> bool {
        matches!(self, Self::Object { include_usage: Some((Some(true), _)), .. })
    }
}

/// Looks into a JSON request body.
///
/// # Errors
/// See [`PeekError`].
pub fn peek(body: &[u8]) -> Result<Peek, PeekError> {
    if let Err(error) = std::str::from_utf8(body) {
        return Err(PeekError::NotJson(error.valid_up_to()));
    }
    // A byte order mark is no JSON, and vendors refuse it: so do we.
    let mut scanner = Scanner::strict(body);
    if !matches!(scanner.next(), Some(b'{')) {
        let fine = scanner.skip().and_then(|_| scanner.end());
        return Err(fine.map_or_else(refusal, |()| PeekError::NotObject));
    }
    let mut found = Peek::default();
    let at = scanner.at() + 1;
    let mut empty = true;
    scanner
        .object(|scanner, name| {
            empty = false;
            found.member(scanner, name)
        })
        .and_then(|_| scanner.end())
        .map_err(refusal)?;
    found.root = Slot { at, empty };
    found.marks = scanner.marks();
    if found.model.as_ref().is_some_and(|model| model.name.len() > MAX_MODEL_LEN) {
        return Err(PeekError::ModelTooLong);
    }
    Ok(found)
}

const fn refusal(fault: Fault) -> PeekError {
    if fault.deep { PeekError::TooDeep(fault.at) } else { PeekError::NotJson(fault.at) }
}

impl Peek {
    fn member(&mut self, scanner: &mut Scanner<'_>, name: &[u8]) -> Step {
        match name {
            b"model" => {
                self.once("model");
                let null = scanner.next() == Some(b'n');
                self.model = scanner.text()?.map(|(name, range)| Model { name, range });
                self.model_is_no_text = self.model.is_none() && !null;
            }
            b"stream" => {
                self.once("stream");
                self.stream = boolean(scanner)?;
            }
            b"background" => self.background = boolean(scanner)? == Some(true),
            b"store" => self.store = boolean(scanner)?,
            b"stream_options" => {
                self.once("stream_options");
                self.stream_options = stream_options(scanner)?;
            }
            b"max_tokens" => {
                self.once("max_tokens");
                self.limits.max_tokens = Some(limit(scanner)?);
            }
            b"max_completion_tokens" => {
                self.once("max_completion_tokens");
                self.limits.max_completion_tokens = Some(limit(scanner)?);
            }
            b"max_output_tokens" => {
                self.once("max_output_tokens");
                self.limits.max_output_tokens = Some(limit(scanner)?);
            }
            b"n" | b"best_of" => self.n = self.n.max(count(scanner)?),
            b"generationConfig" | b"generation_config" => {
                self.once("generationConfig");
                if scanner.next() == Some(b'{') {
                    self.config(scanner)?;
                } else {
                    self.no_config = Some(scanner.skip()?);
                }
            }
            b"previous_response_id" | b"conversation" | b"cachedContent" | b"cached_content" => {
                self.refers |= scanner.raw()? != b"null";
            }
            b"prompt" => {
                // A string or a list is a completion's prompt; an object names a
                // stored one.
                self.refers |= scanner.next() == Some(b'{');
                scanner.skip()?;
            }
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    }

    fn config(&mut self, scanner: &mut Scanner<'_>) -> Step {
        let at = scanner.at() + 1;
        let mut empty = true;
        scanner.object(|scanner, name| {
            empty = false;
            match name {
                b"maxOutputTokens" | b"max_output_tokens" => {
                    self.once("maxOutputTokens");
                    self.limits.gemini = Some(limit(scanner)?);
                }
                b"candidateCount" | b"candidate_count" => self.n = self.n.max(count(scanner)?),
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })?;
        self.generation_config = Some(Slot { at, empty });
        Ok(())
    }

    fn once(&mut self, name: &'static str) {
        let bit = ONCE.iter().position(|known| *known == name).map_or(0, |at| 1_u8 << at);
        if self.seen & bit != 0 {
            self.repeated = self.repeated.or(Some(name));
        }
        self.seen |= bit;
    }
}

fn boolean(scanner: &mut Scanner<'_>) -> Step<Option<bool>> {
    Ok(match scanner.raw()? {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    })
}

/// A non-negative count; a fraction is rounded up, since it is used as a bound.
fn count(scanner: &mut Scanner<'_>) -> Step<Option<u64>> {
    Ok(scanner.number()?.and_then(|digits| {
        let text = std::str::from_utf8(digits).ok()?;
        text.parse::<u64>().ok().or_else(|| {
            let number = text.parse::<f64>().ok()?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            (number >= 0.0).then(|| number.ceil() as u64)
        })
    }))
}

fn limit(scanner: &mut Scanner<'_>) -> Step<Limit> {
    let _ = scanner.next();
    let start = scanner.at();
    let tokens = count(scanner)?;
    Ok(Limit { tokens, range: start..scanner.at() })
}

fn stream_options(scanner: &mut Scanner<'_>) -> Step<StreamOptions> {
    match scanner.next() {
        Some(b'{') => {
            let at = scanner.at() + 1;
            let mut empty = true;
            let mut include_usage = None;
            scanner.object(|scanner, name| {
                empty = false;
                if name == b"include_usage" {
                    let _ = scanner.next();
                    let start = scanner.at();
                    include_usage = Some((boolean(scanner)?, start..scanner.at()));
                    Ok(())
                } else {
                    scanner.skip().map(drop)
                }
            })?;
            Ok(StreamOptions::Object { slot: Slot { at, empty }, include_usage })
        }
        Some(b'n') => Ok(StreamOptions::Null(scanner.skip()?)),
        _ => {
            scanner.skip()?;
            Ok(StreamOptions::Other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_request() {
        let body = br#"{"model":"gpt-4o","messages":[{"role":"user","content":"\"model\":\"x\", \"stream\":false"}],"stream":true,"max_tokens":64,"n":2}"#;
        let found = peek(body).expect("json");
        let model = found.model.expect("model");
        assert_eq!(model.name, "gpt-4o");
        assert_eq!(&body[model.range], b"\"gpt-4o\"");
        assert_eq!((found.stream, found.limits.heeded(Protocol::OpenAiChat), found.n), (Some(true), Some(64), Some(2)));
        assert_eq!((found.stream_options, found.repeated), (StreamOptions::Absent, None));
        assert_eq!(found.root, Slot { at: 1, empty: false });
    }

    #[test]
    fn limits_of_every_name() {
        let largest = |body: &str| {
            let limits = peek(body.as_bytes()).expect(body).limits;
            let all = [Protocol::OpenAiChat, Protocol::OpenAiResponses, Protocol::Gemini];
            all.into_iter().filter_map(|protocol| limits.heeded(protocol)).max()
        };
        for (body, want) in [
            (r"{}", None),
            (r#"{"max_tokens":null}"#, None),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{"max_tokens":1.5e3}"#, Some(1500)),
            (r#"{"max_tokens":"9"}"#, None),
            (r#"{"max_completion_tokens":7}"#, Some(7)),
            (r#"{"max_output_tokens":8}"#, Some(8)),
            (r#"{"max_tokens":7,"max_completion_tokens":900}"#, Some(900)),
            (r#"{"generationConfig":{"maxOutputTokens":5,"candidateCount":3}}"#, Some(5)),
            (r#"{"generation_config":{"max_output_tokens":6}}"#, Some(6)),
            (r#"{"messages":[{"max_tokens":5}]}"#, None),
        ] {
            assert_eq!(largest(body), want, "{body}");
        }
    }

    #[test]
    fn a_limit_of_another_protocols_name_limits_nothing() {
        let found = peek(br#"{"max_output_tokens":1}"#).expect("json").limits;
        let heeded = [Protocol::OpenAiChat, Protocol::AnthropicMessages, Protocol::OpenAiResponses, Protocol::Gemini];
        assert_eq!(heeded.map(|protocol| found.heeded(protocol)), [None, None, Some(1), None]);
    }

    #[test]
    fn repeated_keys_count_last_and_are_named() {
        let found = peek(br#"{"model":"a","mod\u0065l":"b","stream":true,"stream":false}"#).expect("json");
        assert_eq!(found.model.map(|model| model.name).as_deref(), Some("b"));
        assert_eq!(found.stream, Some(false));
        assert_eq!(found.repeated, Some("model"));
    }

    #[test]
    fn a_repeated_key_is_named_whatever_its_values() {
        let repeated = |body: &str| peek(body.as_bytes()).expect(body).repeated;
        for (body, wanted) in [
            (r#"{"model":7,"model":"b"}"#, Some("model")),
            (r#"{"model":null,"model":"b"}"#, Some("model")),
            (r#"{"stream":"yes","stream":true}"#, Some("stream")),
            (r#"{"stream_options":null,"stream_options":{}}"#, Some("stream_options")),
            (r#"{"max_tokens":1,"max_tokens":null}"#, Some("max_tokens")),
            (r#"{"max_tokens":1,"max_completion_tokens":2}"#, None),
            (r#"{"messages":[{"model":"a","model":"b"}],"x":1,"x":2}"#, None),
            (r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":2}}"#, Some("maxOutputTokens")),
        ] {
            assert_eq!(repeated(body), wanted, "{body}");
        }
    }

    #[test]
    fn a_model_of_the_wrong_type_is_told_from_none() {
        for (body, wrong) in [
            (r#"{"model":7}"#, true),
            (r#"{"model":["m"]}"#, true),
            (r#"{"model":{"name":"m"}}"#, true),
            (r#"{"model":true}"#, true),
            (r#"{"model":null}"#, false),
            (r#"{"model":"m"}"#, false),
            (r"{}", false),
        ] {
            let found = peek(body.as_bytes()).expect(body);
            assert_eq!(
                (found.model_is_no_text, found.model.is_some()),
                (wrong, body.contains(r#":"m"}"#) && !wrong),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_refused_with_an_offset() {
        for (body, want) in [
            (&b""[..], PeekError::NotJson(0)),
            (b"[1]", PeekError::NotObject),
            (b"\"x\"", PeekError::NotObject),
            (b"{\"a\":secret}", PeekError::NotJson(5)),
            (b"{\"a\":1} x", PeekError::NotJson(8)),
            (b"{\"a\":\"\xff\"}", PeekError::NotJson(6)),
            (b"{\"a\0b\":1}", PeekError::NotJson(6)),
            (b"{\"a\":\"x\ny\"}", PeekError::NotJson(10)),
            (b"{\"a\":[\"x\ty\"]}", PeekError::NotJson(11)),
            (b"\xef\xbb\xbf{}", PeekError::NotJson(0)),
            (b"{\"a\":1", PeekError::NotJson(6)),
        ] {
            let error = peek(body).expect_err("no object");
            assert_eq!(error, want, "{body:?}");
            assert!(!error.to_string().contains("secret"));
        }
        let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(MAX_MODEL_LEN + 1));
        assert_eq!(peek(long.as_bytes()), Err(PeekError::ModelTooLong));
        assert!(matches!(peek("{\"a\":".repeat(300).as_bytes()), Err(PeekError::TooDeep(_))));
    }

    #[test]
    fn references_and_background() {
        let refers = |body: &str| peek(body.as_bytes()).expect(body).refers;
        assert!(refers(r#"{"previous_response_id":"r"}"#));
        assert!(refers(r#"{"cachedContent":"c"}"#));
        assert!(refers(r#"{"prompt":{"id":"p"}}"#));
        assert!(!refers(r#"{"previous_response_id":null,"prompt":"hello"}"#));
        assert!(peek(br#"{"background":true}"#).expect("json").background);
    }
}
