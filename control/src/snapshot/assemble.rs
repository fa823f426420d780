//! Rows at one revision into a content.
//!
//! What is disabled or suspended stays in, with its state, so that a node can
//! say why it refuses; what is deleted is gone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clawgate_shared::content::{Content, ContentError};
use clawgate_shared::pricing::Source;
use clawgate_shared::proto::node::{
    Bot, BotState, BotToken, Label, ModelAlias, ModelFallback, Price, Project, ProviderKey, Quota, Resource, Settings,
    Tenant, Vendor, resource::Body,
};
use clawgate_shared::seal::SecretBinding;

use crate::store::bot_tokens::BotTokenRow;
use crate::store::bots::BotRow;
use crate::store::prices::{PriceRow, PriceSource};
use crate::store::provider_keys::{ProviderKeyRow, SealedColumns};
use crate::store::quotas::QuotaRow;
use crate::store::revisions::Revision;
use crate::store::types::{QuotaAction, QuotaMetric, TenantState};
use crate::store::{
    StoreError, Tx, bot_tokens, bots, prices, projects, provider_keys, quotas, revisions, tenants, vendors,
};
use crate::vault::Vault;

/// The id of the one settings resource.
const SETTINGS_ID: &str = "settings";

/// A provider key's secret as stored, with what it is bound to.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    /// Owner.
    pub tenant_id: String,
    /// Vendor slug.
    pub vendor: String,
    /// `scheme://host:port`
    pub origin: String,
    /// See [`SecretBinding`].
    pub secret_version: u64,
    /// Sealed by the vault.
    pub sealed: SealedColumns,
}

impl StoredSecret {
    /// What it opens under, as the secret of provider key `key_id`.
    #[must_use]
    pub fn binding<'a>(&'a self, key_id: &'a str) -> SecretBinding<'a> {
        SecretBinding {
            tenant_id: &self.tenant_id,
            key_id,
            vendor: &self.vendor,
            origin: &self.origin,
            secret_version: self.secret_version,
        }
    }
}

/// Everything that nodes are told, as of one revision.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// When it was so.
    pub revision: Revision,
    /// What is told.
    pub content: Content,
    /// Secrets of the enabled keys in `content`, by key id.
    pub secrets: BTreeMap<String, StoredSecret>,
}

/// What is told besides rows.
#[derive(Clone, Debug)]
pub struct Extra {
    /// How long a node may serve without contact.
    pub max_config_age: Duration,
    /// Test hook: why every node must refuse this content; empty: it need not.
    pub poison: String,
}

/// Why no content could be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`ContentError`].
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Reads everything in the caller's transaction, which must see one moment.
///
/// A key whose secret does not open is told as disabled: one damaged row must
/// not keep every node from every later change.
///
/// # Errors
/// See [`AssembleError`].
pub async fn assemble(tx: &mut Tx, vault: &Vault, extra: &Extra, now: i64) -> Result<Assembled, AssembleError> {
    let revision = revisions::current(tx).await?;
    let mut out = Assembled { revision, ..Assembled::default() };
    let settings = Settings { max_config_age_secs: extra.max_config_age.as_secs(), poison: extra.poison.clone() };
    out.put(SETTINGS_ID.to_owned(), Body::Settings(settings))?;
    for row in tenants::all(tx).await? {
        let suspended = row.state == TenantState::Suspended;
        let body = Tenant {
            slug: row.slug,
            suspended,
            time_zone: row.time_zone,
            requests_per_minute: narrow(row.limits.requests_per_minute),
            tokens_per_minute: row.limits.tokens_per_minute.unwrap_or(0),
            max_concurrency: narrow(row.limits.max_concurrency),
        };
        out.put(row.id, Body::Tenant(body))?;
    }
    for row in projects::all(tx).await? {
        out.put(row.id, Body::Project(Project { tenant_id: row.tenant_id, slug: row.slug }))?;
    }
    for row in vendors::all(tx).await? {
        let body = Vendor {
            tenant_id: row.tenant_id,
            slug: row.slug,
            title: row.title,
            base_url: row.base_url,
            auth: row.auth,
            dialect: row.dialect,
            include_usage: row.include_usage,
            routes: row.routes,
        };
        out.put(row.id, Body::Vendor(body))?;
    }
    let mut tokens: HashMap<String, Vec<BotToken>> = HashMap::new();
    for row in bot_tokens::usable(tx, now).await? {
        let BotTokenRow { id, bot_id, sha256, expires_at, network, .. } = row;
        let token =
            BotToken { id, sha256, expires_at_micros: expires_at.unwrap_or(0), network: network.unwrap_or_default() };
        tokens.entry(bot_id).or_default().push(token);
    }
    for row in bots::all(tx).await? {
        let (id, body) = bot(row, &mut tokens);
        out.put(id, Body::Bot(body))?;
    }
    for row in provider_keys::all(tx).await? {
        out.key(row, vault)?;
    }
    let mut counts_money = false;
    for row in quotas::all(tx).await?.into_iter().filter(|row| row.spec.action == QuotaAction::Block) {
        counts_money |= row.spec.metric == QuotaMetric::CostMicros;
        let (id, body) = quota(row);
        out.put(id, Body::Quota(body))?;
    }
    if counts_money {
        for row in prices::all(tx).await?.into_iter().filter(|row| row.ended_at.is_none_or(|at| at > now)) {
            let (id, body) = price(row);
            out.put(id, Body::Price(body))?;
        }
    }
    Ok(out)
}

impl Assembled {
    fn put(&mut self, id: String, body: Body) -> Result<(), ContentError> {
        self.content.upsert(Resource { id, body: Some(body) })
    }

    fn key(&mut self, row: ProviderKeyRow, vault: &Vault) -> Result<(), ContentError> {
        let mut enabled = row.enabled;
        if let Some(sealed) = row.sealed.filter(|_| enabled) {
            let secret = StoredSecret {
                tenant_id: row.tenant_id.clone(),
                vendor: row.vendor.clone(),
                origin: row.origin,
                secret_version: row.secret_version,
                sealed,
            };
            match vault.check_secret(&secret.binding(&row.id), &secret.sealed) {
                Ok(()) => {
                    self.secrets.insert(row.id.clone(), secret);
                }
                Err(error) => {
                    tracing::error!(key = row.id, %error, "provider key left out: its secret does not open");
                    enabled = false;
                }
            }
        }
        let body = ProviderKey {
            tenant_id: row.tenant_id,
            project_id: row.project_id.unwrap_or_default(),
            vendor: row.vendor,
            base_url: row.base_url.unwrap_or_default(),
            tags: row.tags,
            weight: row.weight,
            priority: row.priority,
            max_concurrency: row.max_concurrency,
            auth: row.options.auth.unwrap_or_default(),
            include_usage: row.options.include_usage.unwrap_or_default(),
            api_version: row.options.api_version.unwrap_or_default(),
            organization: row.options.organization.unwrap_or_default(),
            region: row.options.region.unwrap_or_default(),
            secret_version: row.secret_version,
            enabled,
        };
        self.put(row.id, Body::ProviderKey(body))
    }
}

/// A stored price that is or will be in effect.
fn price(row: PriceRow) -> (String, Price) {
    let source = match (row.source, row.tenant_id.is_empty()) {
        (PriceSource::Import, _) => Source::Import,
        (PriceSource::Override, true) => Source::Platform,
        (PriceSource::Override, false) => Source::Tenant,
    };
    let body = Price {
        source: source.as_str().to_owned(),
        tenant_id: row.tenant_id,
        vendor: row.vendor,
        model: row.model,
        bands: row.price.to_json().to_string(),
        from_micros: row.effective_from,
        until_micros: row.ended_at.unwrap_or(0),
    };
    (row.id, body)
}

/// A quota that nodes enforce, as it is told, by its id.
#[must_use]
pub fn quota(row: QuotaRow) -> (String, Quota) {
    let spec = row.spec;
    let body = Quota {
        tenant_id: row.tenant_id,
        scope: row.scope.as_str().to_owned(),
        scope_id: row.scope_id,
        metric: spec.metric.as_str().to_owned(),
        window: spec.window.as_str().to_owned(),
        limit: spec.limit,
        model: spec.model.unwrap_or_default(),
        mode: spec.mode.as_str().to_owned(),
        on_exceed: spec.on_exceed.as_str().to_owned(),
        on_outage: spec.on_outage.as_str().to_owned(),
    };
    (row.id, body)
}

/// A limit; 0: none.
fn narrow(limit: Option<u64>) -> u32 {
    limit.map_or(0, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

fn bot(row: BotRow, tokens: &mut HashMap<String, Vec<BotToken>>) -> (String, Bot) {
    let state = match (row.suspended, row.enabled) {
        (true, _) => BotState::Suspended,
        (false, false) => BotState::Disabled,
        (false, true) => BotState::Enabled,
    };
    let body = Bot {
        tenant_id: row.tenant_id,
        project_id: row.project_id.unwrap_or_default(),
        hostname: row.hostname,
        state: state.into(),
        tokens: tokens.remove(&row.id).unwrap_or_default(),
        tags: row.tags,
        allowed_vendors: row.allowed_vendors,
        allowed_models: row.allowed_models,
        model_aliases: row.model_aliases.into_iter().map(|(from, to)| ModelAlias { from, to }).collect(),
        fallbacks: row.fallbacks.into_iter().map(|(from, to)| ModelFallback { from, to }).collect(),
        key_strategy: row.key_strategy.as_str().to_owned(),
        on_disconnect: row.on_disconnect.as_str().to_owned(),
        default_max_tokens: row.default_max_tokens.unwrap_or(0),
        include_usage: row.include_usage.as_str().to_owned(),
        permissions: row.permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
        labels: row.labels.into_iter().map(|(key, value)| Label { key, value }).collect(),
        requests_per_minute: narrow(row.limits.requests_per_minute),
        tokens_per_minute: row.limits.tokens_per_minute.unwrap_or(0),
        max_concurrency: narrow(row.limits.max_concurrency),
    };
    (row.id, body)
}
