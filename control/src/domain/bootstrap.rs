//! What exists from the first start on, and the demo.

use std::collections::BTreeMap;

use clawgate_shared::catalogue;
use clawgate_shared::origin::BaseUrl;
use clawgate_shared::token;
use zeroize::Zeroizing;

use super::bots::{self, BotFields, NewBotToken};
use super::provider_keys::{self, NewProviderKey, ProviderKeyPatch, SecretText};
use super::tenants::{self, DEFAULT_TENANT, NewTenant};
use super::{Caller, Domain, DomainError};
use crate::store;
use crate::store::tenants::TenantRow;

/// Slug of the demo's tenant and hostname of its bot.
pub const DEMO: &str = "demo";
/// Vendors whose dialects the mock vendor speaks.
const DEMO_VENDORS: [&str; 3] = ["openai", "anthropic", "google"];
/// What the demo's keys present to the mock vendor; it guards nothing.
const DEMO_SECRET: &str = "sk-demo-not-a-real-key-0000";

/// The demo as it stands now.
pub struct Demo {
    /// Its tenant.
    pub tenant: TenantRow,
    /// The bot's hostname.
    pub hostname: &'static str,
    /// The bot's token.
    pub token: Zeroizing<String>,
    /// Whether the token is new: the caller keeps it.
    pub minted: bool,
    /// The last revision that this wrote; `None`: everything was there.
    pub revision: Option<u64>,
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo").field("tenant", &self.tenant.slug).finish_non_exhaustive()
    }
}

/// Makes the tenant `default` unless there is one.
///
/// # Errors
/// As the database.
pub async fn ensure_default_tenant(domain: &Domain) -> Result<TenantRow, DomainError> {
    Ok(ensure_tenant(domain, DEFAULT_TENANT).await?.0)
}

/// Makes tenant, bot and provider keys of the demo, or what of them is missing.
/// `mock` is the mock vendor's address (`http://127.0.0.1:9001`); `kept` is the
/// token of an earlier call, which is kept while it works.
///
/// # Errors
/// `Invalid` when `mock` is no base URL or not in the private upstreams.
pub async fn ensure_demo(domain: &Domain, mock: &str, kept: Option<&str>) -> Result<Demo, DomainError> {
    let caller = Caller::system();
    let (tenant, mut revision) = ensure_tenant(domain, DEMO).await?;
    for vendor in DEMO_VENDORS {
        revision = ensure_key(domain, &caller, &tenant.id, vendor, mock).await?.or(revision);
    }
    let place = (tenant.id.as_str(), DEMO);
    let known = {
        let mut conn = domain.db.read().await?;
        store::bots::get(&mut conn, &tenant.id, DEMO).await?
    };
    let Some(bot) = known else {
        let labels = BTreeMap::from([("purpose".to_owned(), "demo".to_owned())]);
        let given = BotFields { name: Some("Demo".into()), labels: Some(labels), ..BotFields::default() };
        let done = bots::create(domain, &caller, &tenant.id, DEMO.to_owned(), given).await?;
        let token = done.value.token.text;
        return Ok(Demo { tenant, hostname: DEMO, token, minted: true, revision: done.revision.or(revision) });
    };
    if let Some(kept) = kept
        && is_usable(domain, &bot.id, kept).await?
    {
        let token = Zeroizing::new(kept.to_owned());
        return Ok(Demo { tenant, hostname: DEMO, token, minted: false, revision });
    }
    let new = NewBotToken { name: Some(DEMO.into()), expires_at: None };
    let done = match bots::mint_token(domain, &caller, place, new).await {
        // Someone throws the file away again and again.
        Err(DomainError::LimitReached { .. }) => bots::rotate_token(domain, &caller, place, 0).await?,
        other => other?,
    };
    Ok(Demo { tenant, hostname: DEMO, token: done.value.text, minted: true, revision: done.revision.or(revision) })
}

async fn ensure_tenant(domain: &Domain, slug: &str) -> Result<(TenantRow, Option<u64>), DomainError> {
    let known = {
        let mut conn = domain.db.read().await?;
        store::tenants::by_slug(&mut conn, slug).await?
    };
    if let Some(row) = known {
        return Ok((row, None));
    }
    let new = NewTenant { slug: slug.to_owned(), ..NewTenant::default() };
    match tenants::create(domain, &Caller::system(), new).await {
        Ok(done) => Ok((done.value, done.revision)),
        // Another process was faster.
        Err(DomainError::AlreadyExists { .. }) => {
            let mut conn = domain.db.read().await?;
            let row = store::tenants::by_slug(&mut conn, slug).await?;
            Ok((row.ok_or(DomainError::NotFound { what: "tenant" })?, None))
        }
        Err(error) => Err(error),
    }
}

/// The mock vendor answers below each vendor's documented path.
async fn ensure_key(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    vendor: &str,
    mock: &str,
) -> Result<Option<u64>, DomainError> {
    let documented = catalogue::find(vendor).and_then(|vendor| vendor.base_url.as_deref());
    let path = documented.and_then(|url| BaseUrl::parse(url).ok()).map(|url| url.path).unwrap_or_default();
    let base_url = format!("{}{path}", mock.trim_end_matches('/'));
    let known = {
        let mut conn = domain.db.read().await?;
        store::provider_keys::by_label(&mut conn, tenant_id, vendor, DEMO).await?
    };
    let secret = Some(SecretText(Zeroizing::new(DEMO_SECRET.to_owned())));
    let done = match known {
        Some(row) if row.base_url.as_deref() == Some(base_url.as_str()) => return Ok(None),
        Some(row) => {
            let patch = ProviderKeyPatch { base_url: Some(Some(base_url)), secret, ..ProviderKeyPatch::default() };
            provider_keys::update(domain, caller, (tenant_id, &row.id), patch, None).await?
        }
        None => {
            let new = NewProviderKey {
                vendor: vendor.to_owned(),
                label: DEMO.to_owned(),
                base_url: Some(base_url),
                secret,
                ..NewProviderKey::default()
            };
            provider_keys::create(domain, caller, tenant_id, new).await?
        }
    };
    Ok(done.revision)
}

async fn is_usable(domain: &Domain, bot_id: &str, text: &str) -> Result<bool, DomainError> {
    let hash = token::hash(text.as_bytes());
    let now = clawgate_shared::clock::now_micros();
    let mut conn = domain.db.read().await?;
    let tokens = store::bot_tokens::of_bot(&mut conn, bot_id).await?;
    Ok(tokens
        .iter()
        .any(|row| row.sha256 == hash && row.revoked_at.is_none() && row.expires_at.is_none_or(|at| at > now)))
}
