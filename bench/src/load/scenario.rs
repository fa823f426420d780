//! What is asked: the request of each scenario.

use std::str::FromStr;

use super::target::Target;

/// Names and what they are, for help and errors.
pub(crate) const SCENARIOS: [(&str, &str); 4] = [
    ("chat", "a small JSON chat request, answered in one piece"),
    ("chat-50k", "a chat request with a prompt of 50 KB"),
    ("stream", "a small chat request, answered as 64 tokens of server-sent events"),
    ("stream-usage", "the same, asking for usage"),
];

/// One of [`SCENARIOS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Chat,
    Chat50k,
    Stream,
    StreamUsage,
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "chat" => Self::Chat,
            "chat-50k" => Self::Chat50k,
            "stream" => Self::Stream,
            "stream-usage" => Self::StreamUsage,
            _ => {
                let known: Vec<_> = SCENARIOS.iter().map(|(name, what)| format!("{name} ({what})")).collect();
                return Err(format!("no scenario {text:?}; there are {}", known.join(", ")));
            }
        })
    }
}

impl Scenario {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        let index = self as usize;
        SCENARIOS.get(index).map_or("?", |(name, _)| *name)
    }

    fn body(self, model: &str) -> String {
        let prompt = match self {
            Self::Chat50k => "The quick brown fox jumps over the lazy dog. ".repeat(50 * 1024 / 45),
            _ => "Say hello in one short sentence, please.".to_owned(),
        };
        let options = match self {
            Self::Chat | Self::Chat50k => "",
            Self::Stream => r#","stream":true"#,
            Self::StreamUsage => r#","stream":true,"stream_options":{"include_usage":true}"#,
        };
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{prompt}"}}]{options}}}"#)
    }

    /// The bytes of one request, ready to be written again and again.
    pub(crate) fn request(self, target: &Target, token: &str, model: &str) -> Vec<u8> {
        let body = self.body(model);
        let knobs = match self {
            Self::Chat | Self::Chat50k => "",
            // Only the mock vendor knows this header; others ignore it.
            Self::Stream | Self::StreamUsage => "x-mock-tokens: 64\r\n",
        };
        format!(
            "POST {}/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json\r\nuser-agent: clawgate-bench\r\n\
             {knobs}content-length: {}\r\n\r\n{body}",
            target.base,
            target.host,
            body.len(),
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_its_name_and_a_valid_body() {
        for (name, _) in SCENARIOS {
            let scenario: Scenario = name.parse().unwrap();
            assert_eq!(scenario.name(), name);
            let body: serde_json::Value = serde_json::from_str(&scenario.body("m")).unwrap();
            assert_eq!(body["model"], "m");
        }
        assert!("nothing".parse::<Scenario>().is_err());
    }
}
