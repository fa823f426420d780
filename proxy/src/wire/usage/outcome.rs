//! What an answer says besides its counts.

use super::super::json::{Scanner, Step};
use super::super::made::note;
use super::count::object_or_skip;
use super::sample::Sample;
use super::text::TextSize;

/// Longest error code that is kept.
const MAX_CODE: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// The last model named.
    pub(super) model: Option<String>,
    pub(super) terminal: bool,
    pub(super) error: Option<String>,
    pub(super) text: TextSize,
    /// Of the text, when its tokens could be counted later.
    pub(super) sample: Option<Sample>,
    /// A number was said that cannot be what it stands for.
    pub(super) odd: bool,
    /// Ids of what the vendor made on the way and keeps.
    pub(super) made: Vec<String>,
}

impl Outcome {
    /// The first error stays: what follows is its consequence.
    pub(super) fn fail(&mut self, code: &str) {
        if self.error.is_none() {
            self.error = Some(code.to_owned());
        }
    }

    /// Adds what one value of the stream said.
    pub(super) fn absorb(&mut self, said: Said) {
        if let Some(model) = said.model.filter(|model| !model.is_empty()) {
            self.model = Some(model);
        }
        if let Some(code) = said.error {
            self.fail(&code);
        }
        self.terminal |= said.terminal;
        said.made.into_iter().for_each(|id| note(&mut self.made, id));
    }
}

/// What one value of a stream says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) model: Option<String>,
    pub(super) error: Option<String>,
    pub(super) terminal: bool,
    /// By its own word this is a piece and more will follow.
    pub(super) open: bool,
    /// See [`Outcome::made`].
    pub(super) made: Vec<String>,
}

impl Said {
    /// The members that every dialect may have: `model` and `error`; anything
    /// else is passed over.
    pub(super) fn other(&mut self, scanner: &mut Scanner<'_>, name: &[u8]) -> Step {
        match name {
            b"model" => self.model(scanner),
            b"error" => {
                if let Some(code) = error(scanner)? {
                    self.error = Some(code);
                }
                Ok(())
            }
            _ => scanner.skip().map(drop),
        }
    }

    /// A reason for finishing; an empty one and the word `null` are none.
    pub(super) fn finish(&mut self, scanner: &mut Scanner<'_>) -> Step {
        if let Some((reason, _)) = scanner.text()? {
            self.terminal |= !matches!(reason.as_str(), "" | "null");
            if reason.starts_with("ERROR") {
                self.fail(reason);
            }
        }
        Ok(())
    }

    /// A list of choices, each with its reason for finishing as `member`.
    pub(super) fn choices(&mut self, scanner: &mut Scanner<'_>, member: &[u8]) -> Step {
        if scanner.next() != Some(b'[') {
            return scanner.skip().map(drop);
        }
        scanner
            .array(|scanner| {
                object_or_skip(
                    scanner,
                    |scanner, name| {
                        if name == member { self.finish(scanner) } else { scanner.skip().map(drop) }
                    },
                )
                .map(drop)
            })
            .map(drop)
    }

    /// A flag that says whether this is the end or more will follow.
    pub(super) fn ended(&mut self, scanner: &mut Scanner<'_>) -> Step {
        match scanner.raw()? {
            b"true" => self.terminal = true,
            b"false" => self.open = true,
            _ => {}
        }
        Ok(())
    }

    /// What went wrong in the vendor's word, or only that something did.
    pub(super) fn fail(&mut self, code: String) {
        self.error = Some(if is_code(&code) { code } else { "error".to_owned() });
    }

    /// The id of something that the vendor keeps.
    pub(super) fn made(&mut self, scanner: &mut Scanner<'_>) -> Step {
        if let Some((id, _)) = scanner.text()? {
            note(&mut self.made, id);
        }
        Ok(())
    }

    pub(super) fn model(&mut self, scanner: &mut Scanner<'_>) -> Step {
        if let Some((name, _)) = scanner.text()?
            && !name.is_empty()
        {
            self.model = Some(name);
        }
        Ok(())
    }
}

/// Reads the value of an `error` member: null is none; of an object the code,
/// else the status or the type; of a text only that it is one.
pub(super) fn error(scanner: &mut Scanner<'_>) -> Step<Option<String>> {
    match scanner.next() {
        Some(b'{') => {}
        Some(b'n' | b'f') => {
            scanner.skip()?;
            return Ok(None);
        }
        _ => {
            scanner.skip()?;
            return Ok(Some("error".to_owned()));
        }
    }
    let mut found: [Option<String>; 4] = [None, None, None, None];
    scanner.object(|scanner, name| {
        let [word, status, kind, number] = &mut found;
        match name {
            b"code" if scanner.next() == Some(b'"') => {
                let code = text(scanner)?;
                let place = if code.as_deref().is_some_and(is_numeric) { number } else { word };
                *place = code;
            }
            b"code" => *number = scanner.number()?.map(|digits| String::from_utf8_lossy(digits).into_owned()),
            b"status" => *status = text(scanner)?,
            b"type" => *kind = text(scanner)?,
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })?;
    let code = found.into_iter().flatten().find(|code| is_code(code));
    Ok(Some(code.unwrap_or_else(|| "error".to_owned())))
}

fn text(scanner: &mut Scanner<'_>) -> Step<Option<String>> {
    Ok(scanner.text()?.map(|(text, _)| text))
}

fn is_numeric(code: &str) -> bool {
    code.bytes().all(|byte| byte.is_ascii_digit())
}

/// A word a vendor uses for a kind of error, not a sentence.
pub(super) fn is_code(code: &str) -> bool {
    (1..=MAX_CODE).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_words() {
        for (text, want) in [
            ("null", None),
            (r#""some text""#, Some("error")),
            (r#"{"code":"tool_use_failed","type":"x"}"#, Some("tool_use_failed")),
            (r#"{"code":502,"message":"secret"}"#, Some("502")),
            (r#"{"code":"401","type":"auth"}"#, Some("auth")),
            (r#"{"code":"1302","message":"m"}"#, Some("1302")),
            (r#"{"code":429,"status":"RESOURCE_EXHAUSTED"}"#, Some("RESOURCE_EXHAUSTED")),
            (r#"{"type":"overloaded_error","message":"m"}"#, Some("overloaded_error")),
            (r#"{"code":"your key sk-1 is bad"}"#, Some("error")),
            (r"{}", Some("error")),
        ] {
            let found = error(&mut Scanner::lenient(text.as_bytes())).expect("json");
            assert_eq!(found.as_deref(), want, "{text}");
        }
    }
}
