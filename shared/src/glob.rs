//! Model globs: `*` stands for any run of characters, everything else for
//! itself. Matching is linear in the text for each star, and case sensitive,
//! as model names are.

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// The literal pieces between the stars; one piece means no star.
    pieces: Vec<String>,
}

impl Glob {
    /// Every text is a glob.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self { pieces: pattern.split('*').map(str::to_owned).collect() }
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return text.is_empty() };
        let Some((last, middle)) = rest.split_last() else { return text == first };
        let Some(mut left) = text.strip_prefix(first.as_str()).and_then(|t| t.strip_suffix(last.as_str())) else {
            return false;
        };
        for piece in middle {
            match left.find(piece.as_str()) {
                Some(at) => left = left.get(at + piece.len()..).unwrap_or(""),
                None => return false,
            }
        }
        true
    }
}

/// Whether a model of a vendor is on a list, by its own name or with the vendor's
/// before a slash (`openai/*`). An empty list has every model.
#[must_use]
pub fn lists_model(list: &[Glob], vendor: &str, model: &str) -> bool {
    if list.is_empty() || list.iter().any(|glob| glob.matches(model)) {
        return true;
    }
    let full = format!("{vendor}/{model}");
    list.iter().any(|glob| glob.matches(&full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_runs_and_nothing_else_is_special() {
        for (pattern, text, expected) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*", "", true),
            ("*", "anything", true),
            ("claude-*-4*", "claude-sonnet-4-20250514", true),
            ("claude-*-4*", "claude-opus-3", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("a.c", "abc", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_list_has_models_by_either_name() {
        let list = |patterns: &[&str]| patterns.iter().map(|pattern| Glob::new(pattern)).collect::<Vec<_>>();
        for (patterns, model, listed) in [
            (&[][..], "m", true),
            (&["m"], "m", true),
            (&["openai/m"], "m", true),
            (&["openai/*"], "any", true),
            (&["groq/*"], "m", false),
            (&["other", "m*"], "mini", true),
        ] {
            assert_eq!(lists_model(&list(patterns), "openai", model), listed, "{patterns:?} {model}");
        }
    }
}
