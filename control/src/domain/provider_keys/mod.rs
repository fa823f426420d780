//! Provider keys: the secrets of the house.
//!
//! Invariant: a secret is sealed for the one origin its row names; whatever
//! changes the origin needs the secret again.
//! Deliberately absent: plaintext (`vault`), choice and health of keys while
//! requests are served (the data plane's).

mod verify;

use std::borrow::Cow;

use clawgate_shared::catalogue::{self, AuthForm, IncludeUsage, Vendor};
use clawgate_shared::egress;
use clawgate_shared::origin::BaseUrl;
use clawgate_shared::seal::SecretBinding;
use clawgate_shared::{clock, id};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

pub use self::verify::{Verdict, Verified, verify};
use super::change::{Change, Target, check_version, check_written};
use super::error::conflict;
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission, quotas};
use crate::store::provider_keys::{self, ProviderKeyRow};
use crate::store::tombstones::{self, Tombstone};
use crate::store::types::{KeyOptions, KeyStatus, QuotaScope};
use crate::store::{tenants, vendors};
use crate::vault::NewSecret;

/// Keys of one tenant.
const MAX_KEYS: u64 = 10_000;
const MAX_WEIGHT: u64 = 1000;
const MAX_PRIORITY: i32 = 1000;
const MAX_CONCURRENCY: u64 = 100_000;
const MAX_OPTION: usize = 128;

/// A key to be made.
#[derive(Debug, Default)]
pub struct NewProviderKey {
    /// Built in or the tenant's own.
    pub vendor: String,
    /// For people; unique for the vendor.
    pub label: String,
    /// Left out only for vendors that want none.
    pub secret: Option<SecretText>,
    /// Where the secret is kept instead; refused as long as no reference
    /// prefixes are configured.
    pub secret_ref: Option<String>,
    /// What a bot may require.
    pub tags: Vec<String>,
    /// The vendor's own unless given.
    pub base_url: Option<String>,
    /// For all projects unless given.
    pub project_id: Option<String>,
    /// 1 unless given.
    pub weight: Option<u32>,
    /// 0 unless given.
    pub priority: Option<i32>,
    /// No limit unless given.
    pub max_concurrency: Option<u32>,
    /// `region`, `api_version`, `organization`, `auth`, `include_usage`.
    pub options: Map<String, Value>,
    /// true unless given.
    pub enabled: Option<bool>,
}

/// What to change; `None`: nothing.
#[derive(Debug, Default)]
pub struct ProviderKeyPatch {
    /// For people.
    pub label: Option<String>,
    /// A new secret; needed with a new base URL.
    pub secret: Option<SecretText>,
    /// Replaces all.
    pub tags: Option<Vec<String>>,
    /// `Some(None)`: the vendor's own.
    pub base_url: Option<Option<String>>,
    /// `Some(None)`: for all projects.
    pub project_id: Option<Option<String>>,
    /// 1–1000.
    pub weight: Option<u32>,
    /// -1000–1000.
    pub priority: Option<i32>,
    /// 0: no limit.
    pub max_concurrency: Option<u32>,
    /// Replaces all.
    pub options: Option<Map<String, Value>>,
    /// Off: never picked.
    pub enabled: Option<bool>,
}

/// A secret as it came in: wiped when dropped, never printed.
pub struct SecretText(pub Zeroizing<String>);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Makes a key.
///
/// # Errors
/// Needs `key.write`.
pub async fn create(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    new: NewProviderKey,
) -> Result<Done<ProviderKeyRow>, DomainError> {
    caller.principal.require(Permission::KeyWrite, tenant_id)?;
    let mut errors = Errors::default();
    if new.secret_ref.is_some() {
        errors.add("secret_ref", "not_allowed", "secret references are not configured here; give the secret itself");
    }
    let now = clock::now_micros();
    let mut row = ProviderKeyRow {
        id: id::new(id::Kind::ProviderKey),
        tenant_id: tenant_id.to_owned(),
        project_id: new.project_id,
        vendor: new.vendor,
        label: new.label,
        tags: new.tags,
        base_url: new.base_url,
        origin: String::new(),
        sealed: None,
        secret_version: 1,
        last4: String::new(),
        fingerprint: String::new(),
        status: KeyStatus::Active,
        status_reason: String::new(),
        weight: new.weight.unwrap_or(1),
        priority: new.priority.unwrap_or(0),
        max_concurrency: new.max_concurrency.unwrap_or(0),
        options: options(&mut errors, &new.options),
        enabled: new.enabled.unwrap_or(true),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let secret = secret(&mut errors, new.secret);
    let mut change = Change::begin(domain).await?;
    tenants::get(&mut change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    let place = validate(domain, &mut change, &mut errors, &mut row).await?;
    if let (Some(place), None, None, false) = (&place, &secret, &new.secret_ref, errors.names("secret"))
        && place.wants_secret
    {
        errors.add("secret", "required", "this vendor wants a key");
    }
    errors.finish()?;
    if provider_keys::count(&mut change, tenant_id).await? >= MAX_KEYS {
        return Err(DomainError::LimitReached { what: "provider keys", limit: MAX_KEYS });
    }
    if let Some(secret) = secret {
        seal(domain, &mut row, &secret)?;
    }
    provider_keys::insert(&mut change, &row).await.map_err(conflict)?;
    change.audit(caller, "provider_key.create", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Changes a key; what is in flight keeps what it has.
///
/// # Errors
/// Needs `key.write`; `SecretRequired` for a new base URL without the secret.
pub async fn update(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, key_id): (&str, &str),
    patch: ProviderKeyPatch,
    expected: Option<u64>,
) -> Result<Done<ProviderKeyRow>, DomainError> {
    caller.principal.require(Permission::KeyWrite, tenant_id)?;
    let mut errors = Errors::default();
    let secret = secret(&mut errors, patch.secret);
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id, key_id).await?;
    check_version(expected, row.version)?;
    let before = row.clone();
    let old_url = vendor_of(&mut change, &row).await?.and_then(|vendor| effective_url(&vendor, &row).ok().flatten());
    row.label = patch.label.unwrap_or(row.label);
    row.tags = patch.tags.unwrap_or(row.tags);
    row.base_url = patch.base_url.unwrap_or(row.base_url);
    row.project_id = patch.project_id.unwrap_or(row.project_id);
    row.weight = patch.weight.unwrap_or(row.weight);
    row.priority = patch.priority.unwrap_or(row.priority);
    row.max_concurrency = patch.max_concurrency.unwrap_or(row.max_concurrency);
    if let Some(given) = &patch.options {
        row.options = options(&mut errors, given);
    }
    row.enabled = patch.enabled.unwrap_or(row.enabled);
    let place = validate(domain, &mut change, &mut errors, &mut row).await?;
    if let Some(place) = &place
        && place.wants_secret
        && secret.is_none()
        && before.sealed.is_none()
        && !errors.names("secret")
    {
        errors.add("secret", "required", "this vendor wants a key");
    }
    errors.finish()?;
    let moved = place.map(|place| place.url) != old_url || row.origin != before.origin;
    match &secret {
        Some(secret) => renew(domain, &mut row, secret)?,
        None if moved && before.sealed.is_some() => return Err(DomainError::SecretRequired),
        None => {}
    }
    write(&mut change, &mut row).await?;
    change.audit(caller, "provider_key.update", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Gives a key a new secret at the same place.
///
/// # Errors
/// Needs `key.write`.
pub async fn rotate(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, key_id): (&str, &str),
    new: SecretText,
    expected: Option<u64>,
) -> Result<Done<ProviderKeyRow>, DomainError> {
    caller.principal.require(Permission::KeyWrite, tenant_id)?;
    let mut errors = Errors::default();
    let secret = secret(&mut errors, Some(new));
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id, key_id).await?;
    check_version(expected, row.version)?;
    if let Some(secret) = &secret {
        renew(domain, &mut row, secret)?;
    }
    write(&mut change, &mut row).await?;
    change.audit(caller, "provider_key.rotate", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Deletes a key with its sealed secret.
///
/// # Errors
/// Needs `key.write`.
pub async fn delete(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, key_id): (&str, &str),
    expected: Option<u64>,
) -> Result<Done<()>, DomainError> {
    caller.principal.require(Permission::KeyWrite, tenant_id)?;
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, tenant_id, key_id).await?;
    check_version(expected, row.version)?;
    provider_keys::delete(&mut change, tenant_id, key_id).await?;
    quotas::forget(&mut change, QuotaScope::ProviderKey, key_id).await?;
    let name = format!("{}/{}", row.vendor, row.label);
    let stone = Tombstone { id: &row.id, kind: "provider_key", tenant_id, name: &name };
    tombstones::insert(&mut change, stone, clock::now_micros()).await?;
    change.audit(caller, "provider_key.delete", target(&row), detail(&row)).await?;
    change.publish(()).await
}

async fn find(change: &mut Change, tenant_id: &str, key_id: &str) -> Result<ProviderKeyRow, DomainError> {
    provider_keys::get(change, tenant_id, key_id).await?.ok_or(DomainError::NotFound { what: "provider key" })
}

async fn write(change: &mut Change, row: &mut ProviderKeyRow) -> Result<(), DomainError> {
    row.updated_at = clock::now_micros();
    check_written(provider_keys::update(change, row).await.map_err(conflict)?)?;
    row.version += 1;
    Ok(())
}

/// A new secret for an existing row: a new version, and a clean slate.
fn renew(domain: &Domain, row: &mut ProviderKeyRow, secret: &NewSecret) -> Result<(), DomainError> {
    row.secret_version += 1;
    row.status = KeyStatus::Active;
    row.status_reason.clear();
    seal(domain, row, secret)
}

fn seal(domain: &Domain, row: &mut ProviderKeyRow, secret: &NewSecret) -> Result<(), DomainError> {
    row.sealed = Some(domain.vault.seal_secret(&binding(row), secret)?);
    let shown = domain.vault.fingerprint(secret);
    row.last4 = shown.last4;
    row.fingerprint = shown.fingerprint;
    Ok(())
}

/// What the row's secret is bound to.
fn binding(row: &ProviderKeyRow) -> SecretBinding<'_> {
    SecretBinding {
        tenant_id: &row.tenant_id,
        key_id: &row.id,
        vendor: &row.vendor,
        origin: &row.origin,
        secret_version: row.secret_version,
    }
}

fn secret(errors: &mut Errors, given: Option<SecretText>) -> Option<NewSecret> {
    let parsed = NewSecret::parse(given?.0);
    if parsed.is_err() {
        errors.add("secret", "format", "must be 1 to 8192 printable ASCII characters");
    }
    parsed.ok()
}

/// Where a key leads.
struct Place {
    url: BaseUrl,
    wants_secret: bool,
}

/// Checks every field and sets `row.origin`. `None`: there is no such vendor or
/// no usable base URL, which is noted.
async fn validate(
    domain: &Domain,
    change: &mut Change,
    errors: &mut Errors,
    row: &mut ProviderKeyRow,
) -> Result<Option<Place>, DomainError> {
    errors.name("label", &row.label);
    errors.tags(&row.tags);
    errors.range("weight", row.weight.into(), 1, MAX_WEIGHT);
    errors.range("max_concurrency", row.max_concurrency.into(), 0, MAX_CONCURRENCY);
    if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&row.priority) {
        errors.add("priority", "range", format!("must be from -{MAX_PRIORITY} to {MAX_PRIORITY}"));
    }
    super::projects::check_exists(change, errors, &row.tenant_id, row.project_id.as_deref()).await?;
    let Some(vendor) = vendor_of(change, row).await? else {
        errors.add("vendor", "exists", "names neither a built-in vendor nor one of this tenant's own");
        return Ok(None);
    };
    let url = match effective_url(&vendor, row) {
        Ok(Some(url)) => url,
        Ok(None) => {
            errors.add("base_url", "required", "this vendor has no base URL of its own");
            return Ok(None);
        }
        Err(error) => {
            errors.add("base_url", "format", error.to_string());
            return Ok(None);
        }
    };
    if let egress::Verdict::Denied(denial) = domain.upstreams.origin_verdict(&url.origin) {
        errors.add("base_url", "not_allowed", denial.to_string());
    }
    row.base_url = row.base_url.as_ref().map(|_| url.to_string());
    row.origin = url.origin.to_string();
    let own_form = row.options.auth.as_deref().and_then(AuthForm::parse);
    let wants_secret = own_form.as_ref().unwrap_or(&vendor.auth) != &AuthForm::None;
    Ok(Some(Place { url, wants_secret }))
}

async fn vendor_of(change: &mut Change, row: &ProviderKeyRow) -> Result<Option<Cow<'static, Vendor>>, DomainError> {
    if let Some(vendor) = catalogue::find(&row.vendor) {
        return Ok(Some(Cow::Borrowed(vendor)));
    }
    let own = vendors::get(change, &row.tenant_id, &row.vendor).await?;
    Ok(own.and_then(|row| super::vendors::entry(&row).ok()).map(Cow::Owned))
}

fn effective_url(
    vendor: &Vendor,
    row: &ProviderKeyRow,
) -> Result<Option<BaseUrl>, clawgate_shared::origin::BaseUrlError> {
    row.base_url.as_deref().or(vendor.base_url.as_deref()).map(BaseUrl::parse).transpose()
}

fn options(errors: &mut Errors, given: &Map<String, Value>) -> KeyOptions {
    let mut options = KeyOptions::default();
    for (name, value) in given {
        let field = format!("options.{name}");
        let slot = match name.as_str() {
            "region" => &mut options.region,
            "api_version" => &mut options.api_version,
            "organization" => &mut options.organization,
            "auth" => &mut options.auth,
            "include_usage" => &mut options.include_usage,
            _ => {
                errors.add(
                    field,
                    "unknown",
                    "is no option; there are region, api_version, organization, auth, \
                    include_usage",
                );
                continue;
            }
        };
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            _ => {
                errors.add(field, "type", "must be a string");
                continue;
            }
        };
        if text.is_empty() || text.len() > MAX_OPTION || !text.bytes().all(|b| b.is_ascii_graphic()) {
            errors.add(
                &field,
                "format",
                format!("must be 1 to {MAX_OPTION} printable ASCII characters without blanks"),
            );
        } else if name == "auth" && AuthForm::parse(text).is_none() {
            errors.add(&field, "one_of", "must be bearer, x-api-key, x-goog-api-key, api-key, query:NAME or none");
        } else if name == "include_usage" && IncludeUsage::parse(text).is_none() {
            errors.add(&field, "one_of", "must be inject, never or passthrough");
        }
        *slot = Some(text.clone());
    }
    options
}

/// What the audit log says: all but the secret.
fn detail(row: &ProviderKeyRow) -> Value {
    json!({
        "vendor": row.vendor, "label": row.label, "tags": row.tags, "base_url": row.base_url,
        "project_id": row.project_id, "origin": row.origin, "secret_version": row.secret_version,
        "fingerprint": row.fingerprint, "weight": row.weight, "priority": row.priority,
        "max_concurrency": row.max_concurrency, "enabled": row.enabled, "options": row.options,
    })
}

fn target(row: &ProviderKeyRow) -> Target<'_> {
    Target { tenant_id: Some(&row.tenant_id), kind: "provider_key", id: &row.id }
}
