//! Anthropic's `complete`, which reports no usage at all.

use super::super::json::{Scanner, Step};
use super::count::object_or_skip;
use super::outcome::Said;

#[derive(Clone, Copy, Debug)]
pub(super) struct Complete;

impl Complete {
    pub(super) fn walk(scanner: &mut Scanner<'_>, said: &mut Said) -> Step {
        object_or_skip(scanner, |scanner, name| match name {
            b"stop_reason" => said.finish(scanner),
            _ => said.other(scanner, name),
        })
        .map(drop)
    }
}
