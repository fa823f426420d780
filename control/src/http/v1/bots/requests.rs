//! What a client may say about a bot.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::body::{nullable, present};

/// A new bot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names)]
pub struct CreateBot {
    /// Lower-case letters, digits and hyphens; unique in the tenant.
    pub hostname: String,
    /// For people; the hostname unless given.
    pub name: Option<String>,
    /// The project it belongs to.
    pub project_id: Option<String>,
    /// For reports.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Tags its provider keys must carry.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Vendor slugs; empty: all.
    #[serde(default)]
    pub allowed_vendors: Vec<String>,
    /// Model globs, of the model's name alone or with its vendor before a slash;
    /// empty: all. Aliases are resolved first.
    #[serde(default)]
    pub allowed_models: Vec<String>,
    /// Other names for models; a vendor's slug may stand before the model's name.
    #[serde(default)]
    pub model_aliases: BTreeMap<String, String>,
    /// Models to try instead when a model's vendor has nothing left, in order; at
    /// most 8 for each.
    #[serde(default)]
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// round_robin (default), weighted, priority, least_used or sticky.
    pub key_strategy: Option<String>,
    /// cancel (default) or drain.
    pub on_disconnect: Option<String>,
    /// Output limit put in under a strict quota when the client sends none.
    pub default_max_tokens: Option<u64>,
    /// auto (default) or never.
    pub include_usage: Option<String>,
    /// account_resources.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// Quotas as in `/bots/{hostname}/quotas`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub quotas: Vec<Value>,
    /// Rate limits.
    pub limits: Option<LimitsBody>,
    /// external (default), openclaw or generic.
    pub adapter: Option<String>,
    /// Container image, for bots that we run.
    pub image: Option<String>,
    /// Container resources, for bots that we run.
    #[schema(value_type = Option<Object>)]
    pub resources: Option<Value>,
    /// What the container is made of besides its image, for bots that we run:
    /// command, env, probe, files, state_path, user, read_only, runner_labels.
    #[schema(value_type = Option<Object>)]
    pub container: Option<Value>,
    /// Template, for bots that we run.
    pub template: Option<String>,
}

/// Changes to a bot; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchBot {
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub name: Option<String>,
    /// null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<Option<String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Vec<String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub allowed_vendors: Option<Vec<String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub allowed_models: Option<Vec<String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub model_aliases: Option<BTreeMap<String, String>>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub fallbacks: Option<BTreeMap<String, Vec<String>>>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub key_strategy: Option<String>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub on_disconnect: Option<String>,
    /// null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    pub default_max_tokens: Option<Option<u64>>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub include_usage: Option<String>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub permissions: Option<Vec<String>>,
    /// Replaces all three.
    #[serde(default, deserialize_with = "present")]
    pub limits: Option<LimitsBody>,
    /// false: its requests are refused with `bot_disabled`.
    #[serde(default, deserialize_with = "present")]
    pub enabled: Option<bool>,
    /// null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Option<String>>,
    /// null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    pub resources: Option<Option<Value>>,
    /// As in create; replaces all, null: nothing said.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    pub container: Option<Option<Value>>,
    /// null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub template: Option<Option<String>>,
}

/// Rate and concurrency limits of a bot or tenant; null: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Limits)]
pub struct LimitsBody {
    /// Requests in any minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in any minute.
    pub tokens_per_minute: Option<u64>,
    /// Requests at one time.
    pub max_concurrency: Option<u64>,
}

/// A new bot token.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBotToken {
    /// For people.
    pub name: Option<String>,
    /// RFC 3339; without it the token does not expire.
    pub expires_at: Option<String>,
}

/// A rotation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateBotToken {
    /// How long the old tokens still work; 600 unless given, at most 86400.
    pub overlap_seconds: Option<u32>,
}
