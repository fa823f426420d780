//! How much text there is in a piece of JSON, for when nobody reports tokens.
//!
//! A few bytes of text are a token, how many depends on the script. The sizes
//! are those of the newest public vocabulary (`o200k_base`): English and code
//! have some four letters to a token, Cyrillic and Greek some two and a half,
//! Chinese, Japanese and Korean a little more than one.

use memchr::memchr2;

use super::sample::Sample;

/// Text by what it costs, in hundredths of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextSize(u64);

const ASCII: u64 = 24;
const TWO_BYTES: u64 = 40;
const THREE_BYTES: u64 = 75;
const FOUR_BYTES: u64 = 150;

/// What a template puts before an answer, and around a message with its role.
const ANSWER: u64 = 300;
const MESSAGE: u64 = 400;
/// A member's name that a model is shown, as in the schema of a tool.
const NAME: u64 = 100;
/// What a picture in a request usually costs.
const PICTURE: u64 = 80_000;
/// Longer strings whose end is base64 are no text but something encoded.
const ENCODED: usize = 512;

/// Members of an answer whose strings were generated.
const GENERATED: [&[u8]; 12] = [
    b"content",
    b"text",
    b"delta",
    b"partial_json",
    b"arguments",
    b"thinking",
    b"reasoning",
    b"reasoning_content",
    b"refusal",
    b"transcript",
    b"input",
    b"code",
];

/// The same in the answers of the other dialects.
const WRITTEN: [&[u8]; 12] = [
    b"content",
    b"text",
    b"response",
    b"completion",
    b"generation",
    b"outputText",
    b"thinking",
    b"partial_json",
    b"arguments",
    b"input",
    b"tool_plan",
    b"Content",
];

/// Members of a request that a model is not shown, nor their strings.
const UNSEEN: [&[u8]; 14] = [
    b"model",
    b"type",
    b"id",
    b"tool_call_id",
    b"stream",
    b"stream_options",
    b"include_usage",
    b"max_tokens",
    b"max_completion_tokens",
    b"max_output_tokens",
    b"temperature",
    b"top_p",
    b"user",
    b"detail",
];
/// Members whose strings are text, but not their names.
const TEXTS: [&[u8]; 7] = [b"messages", b"content", b"text", b"prompt", b"input", b"contents", b"parts"];

impl TextSize {
    /// Adds what one value of an answer says; names, ids and the like are not
    /// counted.
    pub(super) fn answer(&mut self, json: &[u8], sample: Option<&mut Sample>) {
        self.members(&GENERATED, json, sample);
    }

    /// The same in a dialect of one vendor.
    pub(super) fn written(&mut self, json: &[u8]) {
        self.members(&WRITTEN, json, None);
    }

    #[inline]
    fn members(&mut self, names: &[&[u8]; 12], json: &[u8], mut sample: Option<&mut Sample>) {
        let mut counts = false;
        strings(json, |text, is_name| {
            if is_name {
                counts = names.contains(&text);
            } else if counts {
                let mut size = Self::default();
                size.text(text);
                *self = self.and(size);
                if let Some(sample) = &mut sample {
                    sample.answer(text, size);
                }
            }
        });
    }

    /// The size of a whole request: everything in it is shown to the model in one
    /// form or another, but pictures are not shown as letters.
    #[must_use]
    pub fn of_request(json: &[u8]) -> Self {
        let (text, rest) = Self::parts_of_request(json, |_| {});
        text.and(rest)
    }

    /// The same in two parts: text, of which every piece is given to `found`, and
    /// what stands around it.
    pub(super) fn parts_of_request(json: &[u8], mut found: impl FnMut(&[u8])) -> (Self, Self) {
        let (mut size, mut rest) = (Self::default(), Self(ANSWER));
        let mut shown = true;
        strings(json, |text, is_name| {
            let around = if is_name {
                shown = text != b"role" && !UNSEEN.contains(&text);
                match shown {
                    true if TEXTS.contains(&text) => 0,
                    true => NAME,
                    false if text == b"role" => MESSAGE,
                    false => 0,
                }
            } else if text.len() > ENCODED && text.iter().rev().take(ENCODED).all(is_base64) {
                PICTURE
            } else {
                if shown {
                    size.text(text);
                    found(text);
                }
                0
            };
            rest.0 = rest.0.saturating_add(around);
        });
        (size, rest)
    }

    /// Both together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The tokens of all this, when a part of size `part` has `counted`.
    pub(super) fn scaled(self, part: Self, counted: u64) -> u64 {
        if part.0 == 0 {
            return self.tokens();
        }
        let tokens = (u128::from(self.0) * u128::from(counted)).div_ceil(u128::from(part.0));
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// In tokens, rounded up.
    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.0.div_ceil(100)
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let (length, size) = match byte {
                b'\\' if text.get(at + 1) == Some(&b'u') => (6, THREE_BYTES),
                b'\\' => (2, ASCII),
                0..0x80 => (1, ASCII),
                0x80..0xe0 => (2, TWO_BYTES),
                0xe0..0xf0 => (3, THREE_BYTES),
                0xf0.. => (4, FOUR_BYTES),
            };
            at += length;
            self.0 = self.0.saturating_add(size);
        }
    }
}

const fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Gives every string of a JSON text in order, without its quotes and as it
/// stands there, and whether it is a member's name. What is no JSON gives what
/// looks like strings.
fn strings(json: &[u8], mut found: impl FnMut(&[u8], bool)) {
    let mut at = 0;
    while let Some(open) = json.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
        let start = at + open + 1;
        let mut end = start;
        loop {
            match json.get(end..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
                Some(next) if json.get(end + next) == Some(&b'\\') => end += next + 2,
                Some(next) => {
                    end += next;
                    break;
                }
                None => {
                    // Broken off: what is there counts.
                    return found(json.get(start..).unwrap_or_default(), false);
                }
            }
        }
        let after = json.get(end + 1..).unwrap_or_default();
        let is_name = after.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        found(json.get(start..end).unwrap_or_default(), is_name);
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn generated_text_counts_and_nothing_else() {
        for (json, tokens) in [
            (r#"{"id":"chatcmpl-123","choices":[{"delta":{"content":"four"}}],"object":"chat.completion.chunk"}"#, 1),
            (r#"{"choices":[{"delta":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#, 1),
            (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello there, you"}}"#, 4),
            (r#"{"candidates":[{"content":{"parts":[{"text":"你好世界"}],"role":"model"}}]}"#, 3),
            (r#"{"type":"response.output_text.delta","delta":"a\nb\u4f60"}"#, 2),
            (r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"a\":1}"}}]}}]}"#, 2),
            (r#"{"choices":[],"usage":null}"#, 0),
            (r#"{"choices":[{"delta":{"content":"broken off in the mid"#, 6),
        ] {
            let mut size = TextSize::default();
            size.answer(json.as_bytes(), None);
            assert_eq!(size.tokens(), tokens, "{json}");
        }
    }

    #[test]
    fn a_request_counts_whole_and_a_picture_as_a_picture() {
        let request =
            |content: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
        let size = |content: &str| TextSize::of_request(request(content).as_bytes()).tokens();
        let words = "The quick brown fox jumps over the lazy dog. ";
        let (short, long) = (size(""), size(&words.repeat(100)));
        // 1001 tokens by the vocabulary's own count.
        assert!((900..1101).contains(&(long - short)), "{}", long - short);
        assert!(size(&"A".repeat(100_000)) < 1000);
        assert!(size(&"你".repeat(10_000)) > 7000);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_size(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut size = TextSize::default();
            size.answer(&bytes, None);
            prop_assert!(size.tokens() <= 3 + bytes.len() as u64 * 2);
            let _ = TextSize::of_request(&bytes);
        }
    }
}
