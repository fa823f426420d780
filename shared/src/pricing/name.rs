//! Under which names a model's price may stand.
//!
//! Vendors answer with more than what is in a price list: a date
//! (`gpt-4o-2024-08-06`), a path (`models/gemini-2.5-pro`), a variant
//! (`deepseek/deepseek-r1:free`). The rules, in their order; the first name
//! that has a price counts:
//!
//! 1. the name as it is, in lower case, `@` as `-`;
//! 2. without `models/` or the vendor's own name before a slash;
//! 3. a fine-tuned model (`ft:BASE:…`) as `ft:BASE`;
//! 4. without what follows a colon;
//! 5. each of these without its last date or version: `-YYYY-MM-DD`,
//!    `-YYYYMMDD`, `-MM-YYYY`, `-MM-DD`, `-MMDD`, `-NNN`, `-latest`.
//!
//! Nothing is guessed beyond that: a model that resembles another has no price.

/// Most names that one model has.
const MAX: usize = 12;

/// The names to look for, best first. At most a dozen.
#[must_use]
pub fn candidates(vendor: &str, model: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !name.is_empty() && names.len() < MAX && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    let whole = model.to_ascii_lowercase().replace('@', "-");
    let bare = match whole.split_once('/') {
        Some((first, rest)) if first == "models" || first == vendor || also(vendor).contains(&first) => rest,
        _ => &whole,
    };
    let tuned = bare.strip_prefix("ft:").map(|rest| {
        let base = rest.split(':').next().unwrap_or(rest);
        format!("ft:{base}")
    });
    let plain = if bare.starts_with("ft:") { bare } else { bare.split(':').next().unwrap_or(bare) };
    let all = [Some(whole.as_str()), Some(bare), tuned.as_deref(), Some(plain)];
    for name in all.into_iter().flatten() {
        add(name);
    }
    for name in all.into_iter().flatten() {
        if let Some(shorter) = undated(name) {
            add(shorter);
        }
    }
    names
}

/// Other names of a vendor that stand before a slash.
fn also(vendor: &str) -> &'static [&'static str] {
    match vendor {
        "google" => &["gemini"],
        "azure-openai" => &["azure", "azure_ai"],
        "together" => &["together_ai"],
        "fireworks" => &["fireworks_ai"],
        "zhipu" => &["zai", "z-ai"],
        "moonshot" => &["moonshotai"],
        "vertex" => &["vertex_ai"],
        "xai" => &["x-ai"],
        "mistral" => &["mistralai"],
        _ => &[],
    }
}

/// The name without its last date or version, if it ends in one.
fn undated(name: &str) -> Option<&str> {
    if let Some(rest) = name.strip_suffix("-latest") {
        return Some(rest).filter(|rest| !rest.is_empty());
    }
    // The longest form first: a date with hyphens ends like a shorter one.
    for form in ["-dddd-dd-dd", "-dddddddd", "-dd-dddd", "-dd-dd", "-dddd", "-ddd"] {
        let Some(at) = name.len().checked_sub(form.len()) else { continue };
        let Some((rest, end)) = name.split_at_checked(at) else { continue };
        let fits = end.bytes().zip(form.bytes()).all(|(b, f)| if f == b'd' { b.is_ascii_digit() } else { b == f });
        if fits && !rest.is_empty() {
            return Some(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_tried_from_the_whole_to_the_bare() {
        for (vendor, model, wanted) in [
            ("openai", "gpt-4o", &["gpt-4o"][..]),
            ("openai", "gpt-4o-2024-08-06", &["gpt-4o-2024-08-06", "gpt-4o"]),
            ("openai", "gpt-4-0613", &["gpt-4-0613", "gpt-4"]),
            ("openai", "GPT-4O", &["gpt-4o"]),
            ("openai", "openai/gpt-4o-mini", &["openai/gpt-4o-mini", "gpt-4o-mini"]),
            (
                "openai",
                "ft:gpt-4o-2024-08-06:org::id",
                &["ft:gpt-4o-2024-08-06:org::id", "ft:gpt-4o-2024-08-06", "ft:gpt-4o"],
            ),
            ("anthropic", "claude-sonnet-4-5-20250929", &["claude-sonnet-4-5-20250929", "claude-sonnet-4-5"]),
            ("vertex", "claude-3-7-sonnet@20250219", &["claude-3-7-sonnet-20250219", "claude-3-7-sonnet"]),
            (
                "google",
                "models/gemini-2.0-flash-001",
                &["models/gemini-2.0-flash-001", "gemini-2.0-flash-001", "models/gemini-2.0-flash", "gemini-2.0-flash"],
            ),
            (
                "google",
                "gemini-2.5-flash-preview-09-2025",
                &["gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview"],
            ),
            ("google", "gemini-2.5-pro-preview-05-06", &["gemini-2.5-pro-preview-05-06", "gemini-2.5-pro-preview"]),
            ("groq", "openai/gpt-oss-20b", &["openai/gpt-oss-20b"]),
            ("mistral", "mistral-large-latest", &["mistral-large-latest", "mistral-large"]),
            ("openai", "davinci:2023-07-21-v2", &["davinci:2023-07-21-v2", "davinci"]),
            ("zhipu", "glm-4.5-flash", &["glm-4.5-flash"]),
        ] {
            assert_eq!(candidates(vendor, model), wanted, "{vendor} {model}");
        }
        assert!(candidates("openai", "").is_empty());
    }

    proptest! {
        #[test]
        fn any_name_is_looked_for_first_and_few_others(model in "\\PC{0,40}") {
            let names = candidates("openai", &model);
            prop_assert!(names.len() <= MAX);
            if !model.is_empty() {
                prop_assert_eq!(names.first(), Some(&model.to_ascii_lowercase().replace('@', "-")));
            }
        }
    }
}
