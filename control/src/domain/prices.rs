//! Prices: those of the platform, and those that a tenant has agreed for
//! itself.

use std::collections::{BTreeSet, HashMap};

use clawgate_shared::pricing::Price;
use clawgate_shared::pricing::litellm::PriceFile;
use clawgate_shared::{catalogue, clock, id};
use serde_json::json;

use super::change::{Change, Target};
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::store::prices::{self, PriceRow, PriceSource};
use crate::store::{tenants, vendors};

/// Prices set by hand, of the platform or of one tenant.
pub const MAX_PRICES: usize = 1000;
/// Bands of one price.
pub const MAX_BANDS: usize = 32;
/// How far ahead a price may be set, in microseconds.
const MAX_AHEAD: i64 = 10 * 366 * 24 * 3600 * 1_000_000;

/// A price to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPrice {
    /// A slug of the catalogue, or one of the tenant's own.
    pub vendor: String,
    /// As the vendor calls it.
    pub model: String,
    /// Not empty.
    pub price: Price,
    /// From when on; `None`: since it was first set like this, else from now on.
    pub effective_from: Option<i64>,
}

/// What an import changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Models that were not there.
    pub added: usize,
    /// Models that cost something else than before.
    pub changed: usize,
    /// Models as before.
    pub unchanged: usize,
}

/// Replaces the prices set by hand: a tenant's, or with `None` the platform's.
/// What is left out ends now; what stays the same keeps its row.
///
/// # Errors
/// Needs `price.write`, for the platform as a platform administrator.
pub async fn replace(
    domain: &Domain,
    caller: &Caller,
    tenant_id: Option<&str>,
    wanted: Vec<NewPrice>,
) -> Result<Done<Vec<PriceRow>>, DomainError> {
    match tenant_id {
        Some(tenant_id) => caller.principal.require(Permission::PriceWrite, tenant_id)?,
        None => caller.principal.require_platform(Permission::PriceWrite)?,
    }
    let now = clock::now_micros();
    let mut change = Change::begin(domain).await?;
    let own = own_vendors(&mut change, tenant_id).await?;
    validate(&wanted, &own, now)?;
    let place = tenant_id.unwrap_or_default();
    let mut before = prices::current(&mut change, place, PriceSource::Override).await?;
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for price in wanted {
        let same = |row: &PriceRow| {
            (&row.vendor, &row.model, &row.price) == (&price.vendor, &price.model, &price.price)
                && price.effective_from.is_none_or(|from| from == row.effective_from)
        };
        match before.iter().position(same) {
            Some(at) => kept.push(before.swap_remove(at)),
            None => new.push(row(caller, place, PriceSource::Override, price, now)),
        }
    }
    for row in &before {
        prices::end(&mut change, &row.id, now).await?;
    }
    prices::insert(&mut change, &new).await?;
    let detail = json!({"set": new.len(), "kept": kept.len(), "ended": before.len(), "models": named(&new)});
    written(&mut change, caller, tenant_id, "price.replace", detail).await?;
    kept.append(&mut new);
    kept.sort_by(|a, b| (&a.vendor, &a.model, a.effective_from).cmp(&(&b.vendor, &b.model, b.effective_from)));
    change.publish(kept).await
}

/// Takes over a price file, for everybody, from `from` on (`None`: from now
/// on). Models that the file does not have keep the price they had.
///
/// # Errors
/// Needs `price.write` as a platform administrator.
pub async fn import(
    domain: &Domain,
    caller: &Caller,
    file: PriceFile,
    from: Option<i64>,
) -> Result<Done<Imported>, DomainError> {
    caller.principal.require_platform(Permission::PriceWrite)?;
    let now = clock::now_micros();
    let mut errors = Errors::default();
    instant(&mut errors, "effective_from", from, now);
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let mut latest = HashMap::new();
    for row in prices::current(&mut change, "", PriceSource::Import).await? {
        // In the order of their times: the last one stays.
        latest.insert((row.vendor, row.model), row.price);
    }
    let mut done = Imported::default();
    let mut new = Vec::new();
    for listed in file.models {
        match latest.get(&(listed.vendor.to_owned(), listed.model.clone())) {
            Some(price) if *price == listed.price => {
                done.unchanged += 1;
                continue;
            }
            Some(_) => done.changed += 1,
            None => done.added += 1,
        }
        let vendor = listed.vendor.to_owned();
        let price = NewPrice { vendor, model: listed.model, price: listed.price, effective_from: from };
        new.push(row(caller, "", PriceSource::Import, price, now));
    }
    prices::insert(&mut change, &new).await?;
    let detail = json!({"added": done.added, "changed": done.changed, "unchanged": done.unchanged});
    written(&mut change, caller, None, "price.import", detail).await?;
    change.publish(done).await
}

async fn own_vendors(change: &mut Change, tenant_id: Option<&str>) -> Result<BTreeSet<String>, DomainError> {
    let Some(tenant_id) = tenant_id else { return Ok(BTreeSet::new()) };
    tenants::get(change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    let all = vendors::all(change).await?;
    Ok(all.into_iter().filter(|vendor| vendor.tenant_id == tenant_id).map(|vendor| vendor.slug).collect())
}

/// The audit row, and the word to every process that prices have changed.
async fn written(
    change: &mut Change,
    caller: &Caller,
    tenant_id: Option<&str>,
    action: &'static str,
    detail: serde_json::Value,
) -> Result<(), DomainError> {
    let version = id::new(id::Kind::Price);
    prices::set_version(change, &version).await?;
    let target = Target { tenant_id, kind: "price", id: &version };
    change.audit(caller, action, target, detail).await
}

fn row(caller: &Caller, tenant_id: &str, source: PriceSource, new: NewPrice, now: i64) -> PriceRow {
    PriceRow {
        id: id::new(id::Kind::Price),
        tenant_id: tenant_id.to_owned(),
        source,
        vendor: new.vendor,
        model: new.model,
        price: new.price,
        effective_from: new.effective_from.unwrap_or(now),
        ended_at: None,
        created_by: caller.principal.actor.clone(),
        created_at: now,
    }
}

/// The first few, for the audit row.
fn named(rows: &[PriceRow]) -> Vec<String> {
    rows.iter().take(50).map(|row| format!("{}/{}", row.vendor, row.model)).collect()
}

fn instant(errors: &mut Errors, field: &str, at: Option<i64>, now: i64) {
    if at.is_some_and(|at| at < 0 || at > now.saturating_add(MAX_AHEAD)) {
        errors.add(field, "range", "must be between 1970 and ten years from now");
    }
}

fn validate(wanted: &[NewPrice], own: &BTreeSet<String>, now: i64) -> Result<(), DomainError> {
    let mut errors = Errors::default();
    if wanted.len() > MAX_PRICES {
        errors.add("prices", "length", format!("must have at most {MAX_PRICES} entries"));
        return errors.finish();
    }
    let mut seen = BTreeSet::new();
    for (at, price) in wanted.iter().enumerate() {
        let field = |name: &str| format!("prices[{at}].{name}");
        if catalogue::find(&price.vendor).is_none() && !own.contains(&price.vendor) {
            errors.add(field("vendor"), "exists", "must be a vendor of the catalogue or of the tenant");
        }
        errors.model(&field("model"), &price.model);
        instant(&mut errors, &field("effective_from"), price.effective_from, now);
        if price.price.is_empty() {
            errors.add(field("bands"), "required", "must have at least one rate");
        }
        if price.price.bands().len() > MAX_BANDS {
            errors.add(field("bands"), "length", format!("must have at most {MAX_BANDS} bands"));
        }
        if !seen.insert((&price.vendor, price.model.to_ascii_lowercase(), price.effective_from)) {
            errors.add(field("model"), "duplicate", "has another price from the same time on");
        }
    }
    errors.finish()
}
