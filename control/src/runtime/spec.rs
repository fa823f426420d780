//! What a bot's container is made of, as its owner says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// JSON of `bot_containers.run`, and of `container` in the REST API. None of it
/// is secret: secrets go in by placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// Instead of the image's own; empty: that one.
    pub command: Vec<String>,
    /// Values may hold placeholders; see `adapters`.
    pub env: BTreeMap<String, String>,
    /// How it is asked whether it is well.
    pub probe: Option<ProbeSpec>,
    /// Put in before it starts; contents may hold placeholders.
    pub files: Vec<FileSpec>,
    /// Where its state lives; what is written elsewhere does not outlive it.
    pub state_path: Option<String>,
    /// `uid` or `uid:gid`, not root; 1000:1000 unless given.
    pub user: Option<String>,
    /// Nothing but state and `/tmp` can be written.
    pub read_only: bool,
    /// Labels that its runner must have.
    pub runner_labels: BTreeMap<String, String>,
}

/// A health probe over HTTP, asked inside the bot's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// Where the bot listens.
    pub port: u16,
    /// Asked with GET; 2xx is well.
    pub path: String,
    /// The answer must be JSON with this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_key: Option<String>,
    /// Whose value, as JSON writes it, is this: `true`, `"live"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_value: Option<String>,
}

/// A file inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Absolute.
    pub path: String,
    /// Text.
    pub content: String,
    /// Permission bits; 0o600 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl RunSpec {
    /// What is stored; what cannot be read is as if nothing had been said, and
    /// the rules keep such a text from being stored.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}
