//! `clawgate env`: the exact lines that point a client here.
//!
//! Invariant: pure text. Whether a client appends `/v1` itself differs from
//! client to client, and getting it wrong is the commonest mistake; this table
//! is the one place that knows it.

use clap::ValueEnum;
use clawgate_shared::origin::BaseUrl;

/// A client that we know how to point here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// OpenAI's Python package
    OpenaiPython,
    /// OpenAI's Node package
    OpenaiNode,
    /// Anthropic's Python and TypeScript packages
    Anthropic,
    /// Vercel AI SDK
    AiSdk,
    /// Google's Gen AI packages
    GoogleGenai,
    /// Claude Code
    ClaudeCode,
    /// Codex CLI
    Codex,
    /// `OpenClaw`
    Openclaw,
    /// A command line to try it
    Curl,
}

/// The bot's token as it is to stand in the lines.
#[derive(Clone, Debug)]
pub(crate) enum TokenText {
    /// The token itself; only base64url characters.
    Literal(String),
    /// The shell variable `CLAWGATE_BOT_TOKEN`, which the user sets.
    Variable,
    /// `$(cat 'PATH')`: the token stays out of sight.
    File(String),
}

impl TokenText {
    fn shell(&self) -> String {
        match self {
            Self::Literal(token) => token.clone(),
            Self::Variable => "$CLAWGATE_BOT_TOKEN".to_owned(),
            Self::File(path) => format!("$(cat '{}')", path.replace('\'', r"'\''")),
        }
    }
}

/// Why a public URL cannot stand in these lines.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublicUrlError {
    /// Not a base URL at all.
    #[error("the public URL {0}")]
    Url(#[from] clawgate_shared::origin::BaseUrlError),
    /// Characters that a shell or a configuration file would not leave alone.
    #[error("the public URL has characters that are not safe in a shell")]
    Characters,
}

/// Checks a public URL and takes off its trailing slash.
///
/// # Errors
/// Not a base URL, or not safe inside double quotes.
pub(crate) fn public_url(text: &str) -> Result<String, PublicUrlError> {
    let url = BaseUrl::parse(text)?.to_string();
    let safe = url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]@,;=+".contains(&b));
    if safe { Ok(url) } else { Err(PublicUrlError::Characters) }
}

/// The lines for `client`. `base` comes from [`public_url`]; `model` is used
/// where a client's configuration or a trial request must name one.
pub(crate) fn lines(client: Client, base: &str, token: &TokenText, model: &str) -> Vec<String> {
    let t = token.shell();
    match client {
        // The package appends `/chat/completions`, `/responses`, …
        Client::OpenaiPython | Client::OpenaiNode => {
            vec![export("OPENAI_BASE_URL", &format!("{base}/v1/openai")), export("OPENAI_API_KEY", &t)]
        }
        // The package appends `/v1/messages`: no `/v1` here.
        Client::Anthropic => {
            vec![export("ANTHROPIC_BASE_URL", &format!("{base}/v1/anthropic")), export("ANTHROPIC_API_KEY", &t)]
        }
        // A left-over API key would win over the token.
        Client::ClaudeCode => vec![
            "unset ANTHROPIC_API_KEY".to_owned(),
            export("ANTHROPIC_BASE_URL", &format!("{base}/v1/anthropic")),
            export("ANTHROPIC_AUTH_TOKEN", &t),
        ],
        Client::AiSdk => ai_sdk(base, &t),
        // The package appends `/v1beta/models/…`.
        Client::GoogleGenai => {
            vec![export("GOOGLE_GEMINI_BASE_URL", &format!("{base}/v1/google")), export("GOOGLE_API_KEY", &t)]
        }
        Client::Codex => codex(base, token),
        Client::Openclaw => openclaw(base, token, model),
        Client::Curl => vec![curl(base, &t, model)],
    }
}

fn export(name: &str, value: &str) -> String {
    format!("export {name}=\"{value}\"")
}

/// Unlike Anthropic's own packages this one wants `/v1` in the Anthropic base
/// URL, and for Google it reads no variable for the base URL at all.
fn ai_sdk(base: &str, token: &str) -> Vec<String> {
    vec![
        export("OPENAI_BASE_URL", &format!("{base}/v1/openai")),
        export("OPENAI_API_KEY", token),
        export("ANTHROPIC_BASE_URL", &format!("{base}/v1/anthropic/v1")),
        export("ANTHROPIC_API_KEY", token),
        export("GOOGLE_GENERATIVE_AI_API_KEY", token),
        format!("# Google, in code: createGoogleGenerativeAI({{ baseURL: \"{base}/v1/google/v1beta\" }})"),
    ]
}

/// For `~/.codex/config.toml`; the token is read from a variable, so that it
/// is not in that file. The client appends `/responses`.
fn codex(base: &str, token: &TokenText) -> Vec<String> {
    let mut lines = token_comment(token, "#");
    lines.extend([
        "# ~/.codex/config.toml".to_owned(),
        "model_provider = \"clawgate\"".to_owned(),
        String::new(),
        "[model_providers.clawgate]".to_owned(),
        "name = \"Clawgate\"".to_owned(),
        format!("base_url = \"{base}/v1/openai\""),
        "wire_api = \"responses\"".to_owned(),
        "env_key = \"CLAWGATE_BOT_TOKEN\"".to_owned(),
    ]);
    lines
}

/// For `openclaw.json` (comments are allowed there). A provider id of its own,
/// because one that equals a built-in is merged with the built-in's base URL;
/// `supportsUsageInStreaming`, because it does not ask custom providers for
/// usage otherwise.
fn openclaw(base: &str, token: &TokenText, model: &str) -> Vec<String> {
    let mut lines = token_comment(token, "//");
    let text = [
        "{",
        "  \"models\": {",
        "    \"providers\": {",
        "      \"clawgate-openai\": {",
        &format!("        \"baseUrl\": \"{base}/v1/openai\","),
        "        \"apiKey\": \"${CLAWGATE_BOT_TOKEN}\",",
        "        \"api\": \"openai-completions\",",
        &format!(
            "        \"models\": [{{ \"id\": \"{model}\", \"name\": \"{model}\", \"compat\": {{ \"supportsUsageInStreaming\": true }} }}]"
        ),
        "      }",
        "    }",
        "  },",
        &format!("  \"agents\": {{ \"defaults\": {{ \"model\": {{ \"primary\": \"clawgate-openai/{model}\" }} }} }}"),
        "}",
    ]
    .map(str::to_owned);
    lines.extend(text);
    lines
}

fn token_comment(token: &TokenText, mark: &str) -> Vec<String> {
    match token {
        TokenText::Variable => vec![format!("{mark} needs the bot's token in the environment: CLAWGATE_BOT_TOKEN")],
        _ => vec![format!("{mark} environment: {}", export("CLAWGATE_BOT_TOKEN", &token.shell()))],
    }
}

fn curl(base: &str, token: &str, model: &str) -> String {
    format!(
        "curl -N \"{base}/v1/openai/chat/completions\" -H \"Authorization: Bearer {token}\" \
         -H 'Content-Type: application/json' \
         -d '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Say hello.\"}}]}}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "http://127.0.0.1:8080";

    fn text(client: Client, token: &TokenText) -> String {
        lines(client, BASE, token, "gpt-4o-mini").join("\n")
    }

    fn url_of(client: Client, variable: &str) -> String {
        let all = text(client, &TokenText::Variable);
        let line = all.lines().find(|l| l.contains(&format!("{variable}="))).expect(variable);
        line.split('"').nth(1).expect("quoted").to_owned()
    }

    #[test]
    fn what_each_client_appends_leads_to_a_route() {
        for (client, variable, appended, path) in [
            (Client::OpenaiPython, "OPENAI_BASE_URL", "/chat/completions", "/v1/openai/chat/completions"),
            (Client::OpenaiNode, "OPENAI_BASE_URL", "/responses", "/v1/openai/responses"),
            (Client::Anthropic, "ANTHROPIC_BASE_URL", "/v1/messages", "/v1/anthropic/v1/messages"),
            (Client::ClaudeCode, "ANTHROPIC_BASE_URL", "/v1/messages", "/v1/anthropic/v1/messages"),
            (Client::AiSdk, "OPENAI_BASE_URL", "/responses", "/v1/openai/responses"),
            (Client::AiSdk, "ANTHROPIC_BASE_URL", "/messages", "/v1/anthropic/v1/messages"),
            (Client::GoogleGenai, "GOOGLE_GEMINI_BASE_URL", "/v1beta/models/m:x", "/v1/google/v1beta/models/m:x"),
        ] {
            assert_eq!(url_of(client, variable) + appended, format!("{BASE}{path}"), "{client:?}");
        }
    }

    #[test]
    fn configuration_files_never_hold_the_token() {
        let token = TokenText::Literal("cgb_x".to_owned());
        for client in [Client::Codex, Client::Openclaw] {
            let all = text(client, &token);
            let outside: Vec<_> = all.lines().filter(|l| !l.starts_with('#') && !l.starts_with("//")).collect();
            assert!(!outside.join("\n").contains("cgb_x"), "{client:?}");
            assert!(all.contains("export CLAWGATE_BOT_TOKEN=\"cgb_x\""), "{client:?}");
        }
    }

    #[test]
    fn codex_and_openclaw_lines_parse() {
        let table: toml::Table = text(Client::Codex, &TokenText::Variable).parse().expect("TOML");
        assert_eq!(table["model_providers"]["clawgate"]["base_url"].as_str(), Some("http://127.0.0.1:8080/v1/openai"));
        let all = text(Client::Openclaw, &TokenText::Variable);
        let json: String = all.lines().filter(|l| !l.starts_with("//")).collect();
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["models"]["providers"]["clawgate-openai"]["api"], "openai-completions");
    }

    #[test]
    fn the_token_appears_as_asked() {
        let curl = text(Client::Curl, &TokenText::File("/a b/demo.token".to_owned()));
        assert!(curl.contains("Bearer $(cat '/a b/demo.token')\""), "{curl}");
        assert!(text(Client::OpenaiPython, &TokenText::Variable).contains("\"$CLAWGATE_BOT_TOKEN\""));
        assert!(text(Client::Anthropic, &TokenText::Literal("cgb_x".into())).contains("ANTHROPIC_API_KEY=\"cgb_x\""));
        assert!(text(Client::ClaudeCode, &TokenText::Variable).starts_with("unset ANTHROPIC_API_KEY"));
    }

    #[test]
    fn a_public_url_that_a_shell_would_interpret_is_refused() {
        assert_eq!(public_url("https://gate.example/llm/"), Ok("https://gate.example/llm".to_owned()));
        for bad in ["https://gate.example/$(id)", "https://gate.example/`id`", "https://gate.example/\"", "gate"] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }
}
