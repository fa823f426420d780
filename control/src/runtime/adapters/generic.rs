//! Any image: the variables that the usual SDKs read, and the owner's own.

use zeroize::Zeroizing;

use super::{Inside, Rendered};

/// What may stand between `{{` and `}}` in values and files.
pub const PLACEHOLDERS: &[&str] = &["bot_id", "hostname", "name", "base_url", "bot_token", "gateway_token"];

/// Permission bits of a file unless given.
const MODE: u32 = 0o600;

pub(super) fn render(inside: &Inside<'_>) -> Rendered {
    let base = format!("http://{}", inside.listener);
    let filled = |text: &str| fill(text, inside, &base);
    let mut env = ours(inside, &base);
    for (name, value) in &inside.run.env {
        // The owner's word counts, except for what we need to run it.
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), filled(value)));
    }
    let files = inside
        .run
        .files
        .iter()
        .map(|file| (file.path.clone(), filled(&file.content), file.mode.unwrap_or(MODE)))
        .collect();
    Rendered { command: inside.run.command.clone(), env, files }
}

fn ours(inside: &Inside<'_>, base: &str) -> Vec<(String, Zeroizing<String>)> {
    let token = inside.token;
    [
        ("CLAWGATE_BOT_ID", inside.bot.id.as_str()),
        ("CLAWGATE_BOT_HOSTNAME", inside.bot.hostname.as_str()),
        ("CLAWGATE_BASE_URL", base),
        ("CLAWGATE_BOT_TOKEN", token),
        ("CLAWGATE_GATEWAY_TOKEN", inside.gateway_token),
        ("OPENAI_BASE_URL", &format!("{base}/v1/openai")),
        ("OPENAI_API_KEY", token),
        ("ANTHROPIC_BASE_URL", &format!("{base}/v1/anthropic")),
        ("ANTHROPIC_AUTH_TOKEN", token),
        ("GOOGLE_GEMINI_BASE_URL", &format!("{base}/v1/google")),
        ("GOOGLE_API_KEY", token),
    ]
    .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())))
    .to_vec()
}

/// Puts values for placeholders, in one pass: what a value holds is not read
/// again.
fn fill(text: &str, inside: &Inside<'_>, base: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        match name.trim() {
            "bot_id" => out.push_str(&inside.bot.id),
            "hostname" => out.push_str(&inside.bot.hostname),
            "name" => out.push_str(&inside.bot.name),
            "base_url" => out.push_str(base),
            "bot_token" => out.push_str(inside.token),
            "gateway_token" => out.push_str(inside.gateway_token),
            _ => {
                out.push_str("{{");
                rest = after;
                continue;
            }
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::testing;
    use crate::runtime::spec::{FileSpec, RunSpec};

    #[test]
    fn clients_find_the_listener_and_the_owners_word_counts() {
        let mut bot = testing::bot(0);
        bot.hostname = "alpha".into();
        let run = RunSpec {
            command: vec!["serve".into()],
            env: [("URL", "{{base_url}}/v1?t={{ bot_token }}"), ("OPENAI_API_KEY", "other"), ("X", "{{nope}} {{")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            files: vec![FileSpec {
                path: "/etc/x".into(),
                content: "{{hostname}}={{gateway_token}}".into(),
                mode: None,
            }],
            ..RunSpec::default()
        };
        let listener = "10.231.0.1:8084".parse().expect("address");
        // A token that looks like a placeholder is not one.
        let inside = Inside { bot: &bot, run: &run, listener, token: "{{name}}", gateway_token: "gw" };
        let rendered = render(&inside);
        let of = |wanted: &str| {
            let found: Vec<&str> =
                rendered.env.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect();
            assert_eq!(found.len(), 1, "{wanted}");
            found.first().copied().unwrap_or_default().to_owned()
        };
        assert_eq!(of("OPENAI_BASE_URL"), "http://10.231.0.1:8084/v1/openai");
        assert_eq!(of("ANTHROPIC_AUTH_TOKEN"), "{{name}}");
        assert_eq!(of("OPENAI_API_KEY"), "other");
        assert_eq!(of("URL"), "http://10.231.0.1:8084/v1?t={{name}}");
        assert_eq!(of("X"), "{{nope}} {{");
        assert_eq!(rendered.files[0].1.as_str(), "alpha=gw");
        assert_eq!((rendered.files[0].2, rendered.command.as_slice()), (0o600, ["serve".to_owned()].as_slice()));
        assert!(!format!("{rendered:?}").contains("gw"));
    }
}
