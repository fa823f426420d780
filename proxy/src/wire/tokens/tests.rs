use proptest::prelude::*;

use super::*;

/// Texts and what the reference tokenizer makes of them, in the newer and the
/// older vocabulary.
const COUNTED: [(&str, u64, u64); 13] = [
    (
        "The quarterly report isn't finished yet: we'll need three more days, I'd guess, before the numbers for 2026 are in.\n\nPlease don't send it to anyone.",
        33,
        37,
    ),
    ("数据平面位于机器人与模型供应商之间：它验证令牌、检查配额、选择密钥，并在流式传输时统计用量。", 35, 46),
    ("こんにちは、世界。今日はとても良い天気ですね。", 13, 21),
    ("Быстрая коричневая лиса перепрыгивает через ленивую собаку.", 20, 30),
    (
        "fn main() -> Result<(), Box<dyn Error>> {\n    let total: u64 = items.iter().map(|item| item.size).sum();\n    println!(\"{total:>10}\");\n    Ok(())\n}\n",
        43,
        41,
    ),
    (
        "{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Paris\\\",\\\"days\\\":3}\"}}",
        30,
        30,
    ),
    ("Done 🎉🚀👩\u{200d}👩\u{200d}👧\u{200d}👦 — thank you 🙏🏽!", 24, 35),
    ("a    b\t\tc   \n\n   d \u{3000}\u{3000}e  ", 12, 13),
    ("https://example.com/a/b?c=d#e // /usr/lib/x86_64-linux-gnu/\n/", 23, 23),
    ("3.14159265358979 1234567 0xdeadbeef 2026-11-21T19:48:33Z", 31, 31),
    ("HTTPServerRequestHandler parseXMLFile camelCaseWords IT'S THEY'LL", 15, 15),
    ("<|endoftext|> is plain text here", 11, 11),
    (
        "antidisestablishmentarianism antidisestablishmentarianism antidisestablishmentarianism xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx ----------------------------------------------------------------------------------------------------",
        27,
        27,
    ),
];

#[test]
fn texts_have_the_tokens_that_the_reference_gives_them() {
    let mut counter = Counter::default();
    for (text, newer, older) in COUNTED {
        assert_eq!(counter.text(Vocabulary::O200k, text), Some(newer), "{text}");
        assert_eq!(counter.text(Vocabulary::Cl100k, text), Some(older), "{text}");
    }
}

#[test]
fn a_word_without_end_is_counted_in_parts() {
    let mut counter = Counter::default();
    let mut count = |length: usize| counter.text(Vocabulary::O200k, &"ab".repeat(length / 2)).unwrap_or_default();
    // Its time would grow with the square of its length.
    assert_eq!(count(100 * MAX_PIECE), 100 * count(MAX_PIECE));
    for (text, least, most) in [("a", 10_000, 13_500), (" ", 500, 1500), ("你", 30_000, 110_000)] {
        let tokens = counter.text(Vocabulary::O200k, &text.repeat(100_000)).unwrap_or_default();
        assert!((least..=most).contains(&tokens), "{text:?}: {tokens}");
    }
}

#[test]
fn the_vocabulary_follows_from_dialect_and_name() {
    use Protocol::{AnthropicMessages, Gemini, Opaque, OpenAiChat, OpenAiEmbeddings, OpenAiResponses};
    let (newer, older) = (Some(Vocabulary::O200k), Some(Vocabulary::Cl100k));
    for (protocol, model, wanted) in [
        (OpenAiChat, "gpt-4o-mini", newer),
        (OpenAiChat, "gpt-4.1-nano", newer),
        (OpenAiResponses, "gpt-5", newer),
        (OpenAiResponses, "o3", newer),
        (OpenAiChat, "some-other-model", newer),
        (OpenAiChat, "gpt-4", older),
        (OpenAiChat, "openai/gpt-4-turbo", older),
        (OpenAiChat, "gpt-3.5-turbo-0125", older),
        (OpenAiEmbeddings, "text-embedding-3-small", older),
        (AnthropicMessages, "claude-sonnet-4-5", None),
        (Gemini, "gemini-2.5-pro", None),
        (Opaque, "gpt-4o", None),
    ] {
        assert_eq!(Vocabulary::of(protocol, model), wanted, "{model}");
    }
}

#[test]
fn strings_that_do_not_touch_are_counted_apart() {
    let mut counter = Counter::default();
    let count = |counter: &mut Counter, raw: &[u8]| counter.json(Vocabulary::O200k, raw);
    assert_eq!(count(&mut counter, b"hello\\u0020world"), Some(2));
    assert_eq!(count(&mut counter, b"hel\0lo"), Some(2));
    assert_eq!(count(&mut counter, b""), Some(0));
}

proptest! {
    #[test]
    fn any_text_has_a_count_between_none_and_its_bytes(text in ".{0,200}") {
        let tokens = Counter::default().text(Vocabulary::O200k, &text).unwrap_or(u64::MAX);
        prop_assert!(tokens <= text.len() as u64 && (tokens == 0) == text.is_empty());
    }
}
