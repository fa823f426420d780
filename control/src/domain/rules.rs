//! Rules of single fields. A collector gathers every broken one, so that a form
//! is corrected in one go.

use std::collections::{BTreeMap, HashSet};

use super::error::{DomainError, FieldError};

/// Tags of one bot or key.
pub(super) const MAX_TAGS: usize = 64;
/// Characters of a tag, a label key, a slug in a list.
const MAX_WORD: usize = 64;
/// Characters of a name or a label's value.
const MAX_NAME: usize = 128;
/// Characters of a model name or glob.
const MAX_MODEL: usize = 256;
/// Entries of any other list.
const MAX_LIST: usize = 256;
/// Models in one fallback chain.
const MAX_CHAIN: usize = 8;

/// Gathers broken rules.
#[derive(Default)]
pub(super) struct Errors(Vec<FieldError>);

impl Errors {
    pub(super) fn add(&mut self, field: impl Into<String>, rule: &'static str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), rule, message: message.into() });
    }

    /// Whether a field was noted already.
    pub(super) fn names(&self, field: &str) -> bool {
        self.0.iter().any(|error| error.field == field)
    }

    pub(super) fn finish(self) -> Result<(), DomainError> {
        if self.0.is_empty() { Ok(()) } else { Err(DomainError::Invalid { errors: self.0 }) }
    }

    /// A DNS label: what hostnames and slugs are.
    pub(super) fn dns_label(&mut self, field: &str, text: &str, max: usize, reserved: &[&str]) {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let plain = text.bytes().all(|b| inner(b) || b == b'-')
            && text.bytes().next().is_some_and(inner)
            && text.bytes().last().is_some_and(inner);
        if text.is_empty() || text.len() > max {
            self.add(field, "length", format!("must have 1 to {max} characters"));
        } else if !plain {
            self.add(field, "format", "must be a-z, 0-9 and -, and neither begin nor end with -");
        } else if reserved.contains(&text) {
            self.add(field, "reserved", "is reserved");
        }
    }

    /// Text for people: not blank, no control characters.
    pub(super) fn name(&mut self, field: &str, text: &str) {
        self.text(field, text, 1, MAX_NAME);
        if !text.is_empty() && text.trim() != text {
            self.add(field, "format", "must not begin or end with white space");
        }
    }

    /// Text with a length in characters and without control characters.
    pub(super) fn text(&mut self, field: &str, text: &str, min: usize, max: usize) {
        if !(min..=max).contains(&text.chars().count()) {
            self.add(field, "length", format!("must have {min} to {max} characters"));
        } else if text.chars().any(char::is_control) {
            self.add(field, "format", "must not hold control characters");
        }
    }

    /// One of a closed set; `None` after noting the error.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: &str,
        text: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let found = all.iter().copied().find(|value| name(*value) == text);
        if found.is_none() {
            let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
            self.add(field, "one_of", format!("must be one of {}", names.join(", ")));
        }
        found
    }

    pub(super) fn range(&mut self, field: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.add(field, "range", format!("must be from {min} to {max}"));
        }
    }

    fn count(&mut self, field: &str, found: usize, max: usize) -> bool {
        if found > max {
            self.add(field, "length", format!("must have at most {max} entries"));
        }
        found <= max
    }

    /// Tags travel in a header: printable ASCII without blanks and commas.
    pub(super) fn tags(&mut self, tags: &[String]) {
        if !self.count("tags", tags.len(), MAX_TAGS) {
            return;
        }
        let mut seen = HashSet::new();
        for (at, tag) in tags.iter().enumerate() {
            let plain = tag.bytes().all(|b| b.is_ascii_graphic() && b != b',');
            if tag.is_empty() || tag.len() > MAX_WORD {
                self.add(format!("tags[{at}]"), "length", format!("must have 1 to {MAX_WORD} characters"));
            } else if !plain {
                self.add(format!("tags[{at}]"), "format", "must be printable ASCII without blanks and commas");
            } else if !seen.insert(tag) {
                self.add(format!("tags[{at}]"), "duplicate", "is given twice");
            }
        }
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if !self.count("labels", labels.len(), MAX_TAGS) {
            return;
        }
        for (key, value) in labels {
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
            if key.is_empty() || key.len() > MAX_WORD || !plain {
                self.add(
                    "labels",
                    "format",
                    format!("a label's key must be 1 to {MAX_WORD} of a-z, A-Z, 0-9, '.', '_', '-' and '/'"),
                );
            } else {
                self.text(&format!("labels.{key}"), value, 0, MAX_NAME);
            }
        }
    }

    /// Model names or globs.
    pub(super) fn models(&mut self, field: &str, models: &[String]) {
        if !self.count(field, models.len(), MAX_LIST) {
            return;
        }
        let mut seen = HashSet::new();
        for (at, model) in models.iter().enumerate() {
            self.model(&format!("{field}[{at}]"), model);
            if !seen.insert(model) {
                self.add(format!("{field}[{at}]"), "duplicate", "is given twice");
            }
        }
    }

    pub(super) fn model(&mut self, field: &str, model: &str) {
        if model.is_empty() || model.len() > MAX_MODEL || !model.bytes().all(|b| b.is_ascii_graphic()) {
            self.add(field, "format", format!("must be 1 to {MAX_MODEL} printable ASCII characters without blanks"));
        }
    }

    pub(super) fn aliases(&mut self, aliases: &BTreeMap<String, String>) {
        if !self.count("model_aliases", aliases.len(), MAX_LIST) {
            return;
        }
        for (from, to) in aliases {
            self.model("model_aliases", from);
            self.model(&format!("model_aliases.{from}"), to);
        }
    }

    pub(super) fn fallbacks(&mut self, fallbacks: &BTreeMap<String, Vec<String>>) {
        if !self.count("fallbacks", fallbacks.len(), MAX_LIST) {
            return;
        }
        for (from, chain) in fallbacks {
            self.model("fallbacks", from);
            let field = format!("fallbacks.{from}");
            if self.count(&field, chain.len(), MAX_CHAIN) {
                self.models(&field, chain);
                if chain.contains(from) {
                    self.add(&field, "not_allowed", "must not hold the model itself");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(check: impl FnOnce(&mut Errors)) -> Vec<(String, &'static str)> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.0.into_iter().map(|error| (error.field, error.rule)).collect()
    }

    #[test]
    fn hostnames_are_dns_labels() {
        for (text, rule) in [
            ("a", None),
            ("bot-1", None),
            (&"a".repeat(63), None),
            (&"a".repeat(64), Some("length")),
            ("", Some("length")),
            ("-a", Some("format")),
            ("a-", Some("format")),
            ("A", Some("format")),
            ("a.b", Some("format")),
            ("b\u{f6}t", Some("format")),
            ("stats", Some("reserved")),
        ] {
            let found = broken(|errors| errors.dns_label("hostname", text, 63, &["stats"]));
            assert_eq!(found.first().map(|(_, rule)| *rule), rule, "{text:?}");
        }
    }

    #[test]
    fn every_broken_tag_is_named() {
        let tags: Vec<String> = ["ok", "", "a b", "ok", "x,y"].map(str::to_owned).to_vec();
        let found = broken(|errors| errors.tags(&tags));
        let wanted = [("tags[1]", "length"), ("tags[2]", "format"), ("tags[3]", "duplicate"), ("tags[4]", "format")];
        assert_eq!(found, wanted.map(|(field, rule)| (field.to_owned(), rule)));
        assert_eq!(broken(|errors| errors.tags(&vec!["x".to_owned(); 65])), [("tags".to_owned(), "length")]);
    }
}
