//! Bots.
//!
//! Invariant: a bot's row passes every rule of [`fields`] before it is written,
//! whatever part of it changed; a token's text exists only in the answer that
//! mints it.
//! Deliberately absent: whatever is done with containers (`runtime`); here is
//! said what is wanted of them.

mod container;
pub mod explain;
mod fields;
mod tokens;

use std::collections::BTreeMap;

use clawgate_shared::clock;
use serde_json::{Value, json};

use super::change::{Change, Target, check_version, check_written};
use super::error::conflict;
use super::{Caller, Domain, DomainError, Done, Permission, quotas, resources};
use crate::store::bots::{self, BotRow, Limits};
use crate::store::tombstones::{self, Tombstone};
use crate::store::types::{Adapter, BotStatus, DesiredState, QuotaScope};
use crate::store::{account_ids, bot_tokens, tenants};

pub(super) use tokens::last4;
pub use tokens::{MAX_OVERLAP_SECONDS, MintedBotToken, NewBotToken, delete_token, mint_token, rotate_token};

/// Bots of one tenant.
const MAX_BOTS: u64 = 100_000;

/// Everything a client may say about a bot, as texts; `None`: the default, or
/// for a change: as it is.
#[derive(Clone, Debug, Default)]
pub struct BotFields {
    /// For people.
    pub name: Option<String>,
    /// `Some(None)`: bound to none.
    pub project_id: Option<Option<String>>,
    /// Recorded with every usage row.
    pub labels: Option<BTreeMap<String, String>>,
    /// Tags that a key must carry.
    pub tags: Option<Vec<String>>,
    /// Empty: all.
    pub allowed_vendors: Option<Vec<String>>,
    /// Globs; empty: all.
    pub allowed_models: Option<Vec<String>>,
    /// What the client says → what is meant.
    pub model_aliases: Option<BTreeMap<String, String>>,
    /// Model → models to try next.
    pub fallbacks: Option<BTreeMap<String, Vec<String>>>,
    /// `round_robin` unless given.
    pub key_strategy: Option<String>,
    /// `cancel` unless given.
    pub on_disconnect: Option<String>,
    /// `Some(None)`: none.
    pub default_max_tokens: Option<Option<u64>>,
    /// `auto` unless given.
    pub include_usage: Option<String>,
    /// Beyond inference.
    pub permissions: Option<Vec<String>>,
    /// JSON objects as in `PUT …/quotas`; needs `quota.write` unless empty.
    pub quotas: Option<Vec<Value>>,
    /// Replaces all three.
    pub limits: Option<Limits>,
    /// `external` unless given; cannot be changed.
    pub adapter: Option<String>,
    /// `Some(None)`: none.
    pub image: Option<Option<String>>,
    /// JSON object; `Some(None)`: none.
    pub resources: Option<Option<Value>>,
    /// JSON object as in `runtime::spec`; `Some(None)`: nothing said.
    pub container: Option<Option<Value>>,
    /// `Some(None)`: none.
    pub template: Option<Option<String>>,
    /// true unless given.
    pub enabled: Option<bool>,
}

/// A new bot with its first token, whose text is shown once.
#[derive(Debug)]
pub struct CreatedBot {
    /// What is stored.
    pub bot: BotRow,
    /// Its first token.
    pub token: MintedBotToken,
}

/// What may be done with a bot that we run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Wants it up.
    Start,
    /// Wants it down; its token keeps working.
    Stop,
    /// Down and up again.
    Restart,
}

impl Drive {
    const fn action(self) -> &'static str {
        match self {
            Self::Start => "bot.start",
            Self::Stop => "bot.stop",
            Self::Restart => "bot.restart",
        }
    }
}

/// Makes a bot and its first token.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own`: the caller becomes its owner.
pub async fn create(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    hostname: String,
    given: BotFields,
) -> Result<Done<CreatedBot>, DomainError> {
    caller.principal.require_bot(tenant_id, &caller.principal.actor)?;
    let now = clock::now_micros();
    let mut row = fields::blank(tenant_id, hostname, &caller.principal.actor, now);
    let mut change = Change::begin(domain).await?;
    tenants::get(&mut change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    require_quotas(caller, tenant_id, &given)?;
    let run = fields::apply(&mut change, &mut row, given).await?;
    let run_by_us = row.adapter != Adapter::External;
    if run_by_us {
        row.desired_state = DesiredState::Running;
    } else {
        row.status = BotStatus::External;
    }
    let takes = run_by_us.then(|| container::size(row.resources));
    resources::check_new(&mut change, tenant_id, takes).await?;
    let counted: u64 = bots::stats(&mut change, tenant_id).await?.iter().map(|group| group.count).sum();
    if counted >= MAX_BOTS {
        return Err(DomainError::LimitReached { what: "bots", limit: MAX_BOTS });
    }
    bots::insert(&mut change, &row).await.map_err(conflict)?;
    quotas::write_set(&mut change, tenant_id, (QuotaScope::Bot, &row.id), &row.quotas).await?;
    let token = tokens::add(&mut change, &row.id, "default", None, now).await?;
    if run_by_us {
        container::attach(&mut change, domain, &mut row, &run.unwrap_or_default(), now).await?;
    }
    let mut said = detail(&row);
    if let Some(object) = said.as_object_mut() {
        object.insert("token_id".into(), json!(token.row.id));
    }
    change.audit(caller, "bot.create", target(&row), said).await?;
    change.publish(CreatedBot { bot: row, token }).await
}

/// Changes a bot.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own` on an own one.
pub async fn update(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    given: BotFields,
    expected: Option<u64>,
) -> Result<Done<BotRow>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, caller, tenant_id, hostname).await?;
    check_version(expected, row.version)?;
    if given.adapter.as_deref().is_some_and(|adapter| adapter != row.adapter.as_str()) {
        return Err(DomainError::field("adapter", "not_allowed", "cannot be changed; make a new bot"));
    }
    require_quotas(caller, tenant_id, &given)?;
    let replaces_quotas = given.quotas.is_some();
    let before = row.clone();
    let run = fields::apply(&mut change, &mut row, given).await?;
    write(&mut change, &mut row).await?;
    container::changed(&mut change, (&before, &mut row), run).await?;
    if replaces_quotas {
        quotas::write_set(&mut change, tenant_id, (QuotaScope::Bot, &row.id), &row.quotas).await?;
    }
    change.audit(caller, "bot.update", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Refuses a bot's requests, or serves them again; its tokens stay.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own` on an own one.
pub async fn suspend(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    suspended: bool,
) -> Result<Done<BotRow>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, caller, tenant_id, hostname).await?;
    row.suspended = suspended;
    write(&mut change, &mut row).await?;
    let action = if suspended { "bot.suspend" } else { "bot.resume" };
    change.audit(caller, action, target(&row), json!({"hostname": row.hostname})).await?;
    change.publish(row).await
}

/// Says what is wanted of a bot's container.
///
/// # Errors
/// `NotRunByUs` for an external bot; needs `bot.write`, or `bot.write_own` on
/// an own one.
pub async fn drive(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    verb: Drive,
) -> Result<Done<BotRow>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, caller, tenant_id, hostname).await?;
    if row.adapter == Adapter::External {
        return Err(DomainError::NotRunByUs);
    }
    row.desired_state = match verb {
        Drive::Start | Drive::Restart => DesiredState::Running,
        Drive::Stop => DesiredState::Stopped,
    };
    write(&mut change, &mut row).await?;
    match verb {
        Drive::Start => container::up(&mut change, domain, &mut row, false, clock::now_micros()).await?,
        Drive::Restart => container::up(&mut change, domain, &mut row, true, clock::now_micros()).await?,
        Drive::Stop => container::down(&mut change, &mut row, false).await?,
    }
    change.audit(caller, verb.action(), target(&row), json!({"hostname": row.hostname})).await?;
    change.publish(row).await
}

/// Takes away every token of a bot, so that its streams end and no request is
/// served, and wants it down when we run it. A new token lets it back in.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own` on an own one.
pub async fn kill(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
) -> Result<Done<BotRow>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, caller, tenant_id, hostname).await?;
    let revoked = bot_tokens::revoke_all(&mut change, &row.id, clock::now_micros()).await?;
    if row.adapter != Adapter::External {
        row.desired_state = DesiredState::Stopped;
    }
    write(&mut change, &mut row).await?;
    container::down(&mut change, &mut row, true).await?;
    let detail = json!({"hostname": row.hostname, "tokens_revoked": revoked});
    change.audit(caller, "bot.kill", target(&row), detail).await?;
    change.publish(row).await
}

/// Deletes a bot and its tokens; its usage stays.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own` on an own one.
pub async fn delete(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    expected: Option<u64>,
) -> Result<Done<()>, DomainError> {
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, caller, tenant_id, hostname).await?;
    check_version(expected, row.version)?;
    container::leave(&mut change, &row, clock::now_micros()).await?;
    bots::delete(&mut change, &row.id).await?;
    quotas::forget(&mut change, QuotaScope::Bot, &row.id).await?;
    let stone = Tombstone { id: &row.id, kind: "bot", tenant_id, name: &row.hostname };
    tombstones::insert(&mut change, stone, clock::now_micros()).await?;
    // What it made stays in the vendor's account, and is nobody's from now on.
    account_ids::delete_of_bot(&mut change, &row.id).await?;
    change.audit(caller, "bot.delete", target(&row), json!({"hostname": row.hostname})).await?;
    change.publish(()).await
}

/// The bot, for somebody who may change it. Who may not even see bots learns
/// nothing about which there are.
async fn find(change: &mut Change, caller: &Caller, tenant_id: &str, hostname: &str) -> Result<BotRow, DomainError> {
    let principal = &caller.principal;
    principal.require_bot(tenant_id, &principal.actor)?;
    let row = bots::get(change, tenant_id, hostname).await?.ok_or(DomainError::NotFound { what: "bot" })?;
    principal.require_bot(tenant_id, &row.owner)?;
    Ok(row)
}

async fn write(change: &mut Change, row: &mut BotRow) -> Result<(), DomainError> {
    row.updated_at = clock::now_micros();
    check_written(bots::update(change, row).await.map_err(conflict)?)?;
    row.version += 1;
    Ok(())
}

fn require_quotas(caller: &Caller, tenant_id: &str, given: &BotFields) -> Result<(), DomainError> {
    match &given.quotas {
        Some(quotas) if !quotas.is_empty() => caller.principal.require(Permission::QuotaWrite, tenant_id),
        _ => Ok(()),
    }
}

fn detail(row: &BotRow) -> Value {
    json!({
        "hostname": row.hostname, "name": row.name, "project_id": row.project_id, "tags": row.tags,
        "allowed_vendors": row.allowed_vendors, "allowed_models": row.allowed_models,
        "model_aliases": row.model_aliases, "fallbacks": row.fallbacks, "permissions": row.permissions,
        "quotas": row.quotas, "key_strategy": row.key_strategy, "on_disconnect": row.on_disconnect,
        "include_usage": row.include_usage, "default_max_tokens": row.default_max_tokens,
        "adapter": row.adapter, "image": row.image, "enabled": row.enabled,
    })
}

fn target(row: &BotRow) -> Target<'_> {
    Target { tenant_id: Some(&row.tenant_id), kind: "bot", id: &row.id }
}
