//! From what a client says to a bot's row, with every broken rule at once.

use clawgate_shared::{catalogue, id};
use serde_json::Value;

use super::{BotFields, Change, container};
use crate::domain::rules::Errors;
use crate::domain::{DomainError, limits, projects, quotas};
use crate::runtime::spec::RunSpec;
use crate::store::bots::{BotRow, Limits};
use crate::store::types::{
    Adapter, BotIncludeUsage, BotPermission, BotStatus, DesiredState, KeyStrategy, OnDisconnect, Resources,
};
use crate::store::vendors;

/// Segments of `/bots/{hostname}` that are something else.
const RESERVED: &[&str] = &["stats", "admin", "status-stream"];
const MAX_HOSTNAME: usize = 63;
const MAX_TOKENS_PER_ANSWER: u64 = 10_000_000;
const MAX_TEXT: usize = 512;
const MAX_VENDORS: usize = 64;

/// A bot as it is when nothing is said about it.
pub(super) fn blank(tenant_id: &str, hostname: String, owner: &str, now: i64) -> BotRow {
    BotRow {
        id: id::new(id::Kind::Bot),
        tenant_id: tenant_id.to_owned(),
        project_id: None,
        name: hostname.clone(),
        hostname,
        owner: owner.to_owned(),
        labels: Default::default(),
        tags: Vec::new(),
        allowed_vendors: Vec::new(),
        allowed_models: Vec::new(),
        model_aliases: Default::default(),
        fallbacks: Default::default(),
        key_strategy: KeyStrategy::RoundRobin,
        on_disconnect: OnDisconnect::Cancel,
        default_max_tokens: None,
        include_usage: BotIncludeUsage::Auto,
        permissions: Vec::new(),
        quotas: Vec::new(),
        limits: Limits::default(),
        adapter: Adapter::External,
        image: None,
        resources: None,
        template: None,
        desired_state: DesiredState::Stopped,
        status: BotStatus::Stopped,
        status_reason: String::new(),
        status_since: now,
        enabled: true,
        suspended: false,
        version: 1,
        created_at: now,
        updated_at: now,
        container: None,
    }
}

/// Applies what was said and checks the whole row. Answers with what was said
/// of the container, which is no part of it.
pub(super) async fn apply(
    change: &mut Change,
    row: &mut BotRow,
    given: BotFields,
) -> Result<Option<RunSpec>, DomainError> {
    let mut errors = Errors::default();
    choices(&mut errors, row, &given);
    if let Some(values) = &given.quotas {
        row.quotas = quotas::parse(&mut errors, "quotas", values);
    }
    if let Some(value) = &given.resources {
        row.resources = value.as_ref().map(|value| resources(&mut errors, value));
    }
    let run = given.container.as_ref().map(|value| value.as_ref().map(|value| container::parse(&mut errors, value)));
    row.name = given.name.unwrap_or_else(|| std::mem::take(&mut row.name));
    row.project_id = given.project_id.unwrap_or_else(|| row.project_id.take());
    row.labels = given.labels.unwrap_or_else(|| std::mem::take(&mut row.labels));
    row.tags = given.tags.unwrap_or_else(|| std::mem::take(&mut row.tags));
    row.allowed_vendors = given.allowed_vendors.unwrap_or_else(|| std::mem::take(&mut row.allowed_vendors));
    row.allowed_models = given.allowed_models.unwrap_or_else(|| std::mem::take(&mut row.allowed_models));
    row.model_aliases = given.model_aliases.unwrap_or_else(|| std::mem::take(&mut row.model_aliases));
    row.fallbacks = given.fallbacks.unwrap_or_else(|| std::mem::take(&mut row.fallbacks));
    row.default_max_tokens = given.default_max_tokens.unwrap_or(row.default_max_tokens);
    row.limits = given.limits.unwrap_or(row.limits);
    row.image = given.image.unwrap_or_else(|| row.image.take());
    row.template = given.template.unwrap_or_else(|| row.template.take());
    row.enabled = given.enabled.unwrap_or(row.enabled);
    container::check(&mut errors, row, run.as_ref().and_then(Option::as_ref));
    check(change, &mut errors, row).await?;
    errors.finish()?;
    Ok(run.map(Option::unwrap_or_default))
}

fn choices(errors: &mut Errors, row: &mut BotRow, given: &BotFields) {
    if let Some(text) = &given.key_strategy
        && let Some(value) = errors.choice("key_strategy", text, KeyStrategy::ALL, KeyStrategy::as_str)
    {
        row.key_strategy = value;
    }
    if let Some(text) = &given.on_disconnect
        && let Some(value) = errors.choice("on_disconnect", text, OnDisconnect::ALL, OnDisconnect::as_str)
    {
        row.on_disconnect = value;
    }
    if let Some(text) = &given.include_usage
        && let Some(value) = errors.choice("include_usage", text, BotIncludeUsage::ALL, BotIncludeUsage::as_str)
    {
        row.include_usage = value;
    }
    if let Some(text) = &given.adapter
        && let Some(value) = errors.choice("adapter", text, Adapter::ALL, Adapter::as_str)
    {
        row.adapter = value;
    }
    if let Some(texts) = &given.permissions {
        row.permissions.clear();
        for (at, text) in texts.iter().enumerate() {
            let field = format!("permissions[{at}]");
            match errors.choice(&field, text, BotPermission::ALL, BotPermission::as_str) {
                Some(value) if row.permissions.contains(&value) => errors.add(field, "duplicate", "is given twice"),
                Some(value) => row.permissions.push(value),
                None => {}
            }
        }
    }
}

async fn check(change: &mut Change, errors: &mut Errors, row: &BotRow) -> Result<(), DomainError> {
    errors.dns_label("hostname", &row.hostname, MAX_HOSTNAME, RESERVED);
    errors.name("name", &row.name);
    errors.labels(&row.labels);
    errors.tags(&row.tags);
    errors.models("allowed_models", &row.allowed_models);
    errors.aliases(&row.model_aliases);
    errors.fallbacks(&row.fallbacks);
    if let Some(value) = row.default_max_tokens {
        errors.range("default_max_tokens", value, 1, MAX_TOKENS_PER_ANSWER);
    }
    limits::check(errors, "limits.", &row.limits);
    if let Some(text) = &row.template {
        errors.text("template", text, 1, MAX_TEXT);
    }
    projects::check_exists(change, errors, &row.tenant_id, row.project_id.as_deref()).await?;
    check_vendors(change, errors, row).await
}

async fn check_vendors(change: &mut Change, errors: &mut Errors, row: &BotRow) -> Result<(), DomainError> {
    if row.allowed_vendors.len() > MAX_VENDORS {
        errors.add("allowed_vendors", "length", format!("must have at most {MAX_VENDORS} entries"));
        return Ok(());
    }
    for (at, slug) in row.allowed_vendors.iter().enumerate() {
        let known = catalogue::find(slug).is_some() || vendors::get(change, &row.tenant_id, slug).await?.is_some();
        let field = format!("allowed_vendors[{at}]");
        if !known {
            errors.add(field, "exists", "names neither a built-in vendor nor one of this tenant's own");
        } else if row.allowed_vendors.iter().take(at).any(|other| other == slug) {
            errors.add(field, "duplicate", "is given twice");
        }
    }
    Ok(())
}

fn resources(errors: &mut Errors, value: &Value) -> Resources {
    let mut out = Resources::default();
    let Some(object) = value.as_object() else {
        errors.add("resources", "type", "must be an object");
        return out;
    };
    for (name, value) in object {
        let field = format!("resources.{name}");
        let (slot, min, max) = match name.as_str() {
            "cpu_millis" => (&mut out.cpu_millis, 50, 256_000),
            "memory_mb" => (&mut out.memory_mb, 64, 4_000_000),
            "pids_limit" => (&mut out.pids_limit, 16, 1_000_000),
            "disk_mb" => (&mut out.disk_mb, 64, 100_000_000),
            _ => {
                errors.add(field, "unknown", "is no resource; there are cpu_millis, memory_mb, pids_limit, disk_mb");
                continue;
            }
        };
        match value.as_u64() {
            _ if value.is_null() => {}
            Some(number) => {
                errors.range(&field, number, min, max);
                *slot = u32::try_from(number).ok();
            }
            None => errors.add(field, "type", "must be a whole number"),
        }
    }
    out
}
