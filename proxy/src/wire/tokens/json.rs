//! What a JSON string says.

/// The text between the quotes of a JSON string, broken off anywhere; what is
/// no text becomes the replacement character.
pub(super) fn unescaped(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        text.push_str(&String::from_utf8_lossy(before));
        let (character, length) = character(escape);
        text.extend(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// What an escape at the beginning of `text` means, and its length.
fn character(text: &[u8]) -> (Option<char>, usize) {
    let simple = match text.get(1) {
        Some(b'u') => return unicode(text),
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        // Quote, slash, backslash; anything else is no escape and stays.
        Some(other @ 0..0x80) => char::from(*other),
        Some(_) | None => return (None, 1),
    };
    (Some(simple), 2)
}

/// `\u4f60`, or two of them for one character.
fn unicode(text: &[u8]) -> (Option<char>, usize) {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(first) = unit(text) else { return (None, text.len().min(6)) };
    let second = text.get(6..).and_then(unit);
    let pair = char::decode_utf16([Some(first), second].into_iter().flatten()).next();
    match pair {
        Some(Ok(character)) => (Some(character), if character.len_utf16() == 2 { 12 } else { 6 }),
        _ => (Some(char::REPLACEMENT_CHARACTER), 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_what_they_mean() {
        for (raw, text) in [
            ("plain 你好", "plain 你好"),
            (r#"a\n\t\"\\\/b"#, "a\n\t\"\\/b"),
            (r"\u4f60\u597d", "你好"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"end\", "end"),
            (r"end\u00", "end"),
        ] {
            assert_eq!(unescaped(raw.as_bytes()), text, "{raw}");
        }
    }
}
