//! Ollama's own API: `chat` and `generate`, a stream of values unless asked
//! otherwise, and `embed`.

use clawgate_shared::usage::Usage;

use super::super::json::{Scanner, Step};
use super::count::{count, object_or_skip};
use super::outcome::Said;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ollama {
    prompt: Option<u64>,
    answer: Option<u64>,
}

impl Ollama {
    pub(super) fn walk(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"prompt_eval_count" => {
                self.prompt = count(scanner)?.or(self.prompt);
                Ok(())
            }
            b"eval_count" => {
                self.answer = count(scanner)?.or(self.answer);
                Ok(())
            }
            b"done" => said.ended(scanner),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }

    /// The server leaves zeros out: where it counts one of the two, the other
    /// was zero (a prompt that it had evaluated before). Where it counts
    /// neither, nothing is known.
    pub(super) fn usage(&self) -> Usage {
        if self.prompt.is_none() && self.answer.is_none() {
            return Usage::default();
        }
        Usage { input: self.prompt.or(Some(0)), output: self.answer.or(Some(0)), ..Usage::default() }
    }
}
