//! The rules of the house that a compiler does not check.
//!
//! Invariant: every checker is a function from sources to violations, so that
//! it can be shown to fail on a bad sample; only [`source`] touches the disk.
//! Deliberately absent: exceptions without a name. A file or function that is
//! over its limit stands in a list that may only shrink.

pub mod arrows;
pub mod fences;
pub mod layout;
pub mod ratchet;
pub mod source;
pub mod words;

pub use source::{Source, Tokens, tracked};

/// One broken rule: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fails with all violations at once.
///
/// # Panics
/// When there are any.
pub fn assert_none(rule: &str, violations: &[Violation]) {
    let list: Vec<String> = violations.iter().map(|v| format!("  {v}")).collect();
    assert!(violations.is_empty(), "{rule}:\n{}", list.join("\n"));
}
