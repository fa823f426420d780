//! Hunyuan's own API. An answer is wrapped into `Response`, the events of a
//! stream are not; each of them has running totals.

use clawgate_shared::usage::Usage;

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hunyuan {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
}

impl Hunyuan {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        self.level(scanner, said, true)
    }

    /// `outer`: not yet inside `Response`.
    fn level(&mut self, scanner: &mut Scanner<'_>, said: &mut Said, outer: bool) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"Response" if outer => self.level(scanner, said, false),
            b"Usage" => self.counts(scanner),
            b"Choices" => said.choices(scanner, b"FinishReason"),
            b"Error" | b"ErrorMsg" => error(scanner, said),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    fn counts(&mut self, scanner: &mut Scanner<'_>) -> Step {
        object_or_skip(scanner, |scanner, name| {
            let value = count(scanner)?;
            match name {
                b"PromptTokens" => self.input = value.or(self.input),
                b"CompletionTokens" => self.output = value.or(self.output),
                b"TotalTokens" => self.total = value.or(self.total),
                _ => {}
            }
            Ok(())
        })
        .map(drop)
    }

    pub(super) fn usage(&self) -> Usage {
        let Self { input, output, total } = *self;
        Usage { input, output: output.or(input.map(|_| 0)), total, ..Usage::default() }
    }
}

/// `{"Code":"AuthFailure.…","Message":"…"}`, or with a number in a stream.
fn error(scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
    object_or_skip(scanner, |scanner, name| {
        if name != b"Code" {
            return scanner.skip().map(drop);
        }
        let code = String::from_utf8_lossy(scanner.raw()?).trim_matches('"').to_owned();
        if !matches!(code.as_str(), "null" | "0" | "") {
            said.fail(code);
        }
        Ok(())
    })
    .map(drop)
}
