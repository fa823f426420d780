//! What a client may say about a provider key.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

use crate::http::body::{nullable, present};

/// A secret in a request: wiped when dropped, never printed.
pub struct SecretText(pub Zeroizing<String>);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// A new provider key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProviderKey {
    /// Slug of a built-in or custom vendor.
    pub vendor: String,
    /// For people; unique among the vendor's keys.
    pub label: String,
    /// What the vendor is presented; left out only for vendors that want none.
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretText>,
    /// Where the secret is kept instead: `env:NAME`, `file:PATH`.
    pub secret_ref: Option<String>,
    /// What bots may require.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Another address than the vendor's own.
    pub base_url: Option<String>,
    /// Only for bots of this project.
    pub project_id: Option<String>,
    /// Share under `weighted`; 1 unless given.
    pub weight: Option<u32>,
    /// Order under `priority`; higher goes first; 0 unless given.
    pub priority: Option<i32>,
    /// Requests at one time; 0 or none: no limit.
    pub max_concurrency: Option<u32>,
    /// region, api_version, organization, auth, include_usage.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub options: Map<String, Value>,
    /// Whether it takes part in key choice; true unless given.
    pub enabled: Option<bool>,
}

/// How a provider key is made.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct CreateProviderKeyQuery {
    /// true: its vendor is asked about it before the answer; it is kept whatever
    /// the vendor says.
    pub verify: Option<bool>,
}

/// Changes to a provider key; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchProviderKey {
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub label: Option<String>,
    /// Needed when `base_url` changes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretText>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Vec<String>>,
    /// null: the vendor's own.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub base_url: Option<Option<String>>,
    /// null: for all projects.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<Option<String>>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub weight: Option<u32>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub priority: Option<i32>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub max_concurrency: Option<u32>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub options: Option<Map<String, Value>>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub enabled: Option<bool>,
}

/// A new secret for the same key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateProviderKey {
    /// What the vendor is presented from now on.
    #[schema(value_type = String)]
    pub secret: SecretText,
}
