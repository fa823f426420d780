//! Whether a vendor takes a key.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clawgate_shared::catalogue::{AuthForm, Vendor};
use clawgate_shared::clock;
use clawgate_shared::origin::{BaseUrl, Origin};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Change, binding, effective_url, find, target, vendor_of, write};
use crate::domain::{Caller, Domain, DomainError, Done, Permission};
use crate::store::provider_keys::ProviderKeyRow;
use crate::store::types::{KeyStatus, text_enum};
use crate::vault::{Probe, ProbeAnswer};

/// How long a name server may take.
const RESOLVE: Duration = Duration::from_secs(5);
/// Vendors asked at one time; further ones wait.
static PLACES: Semaphore = Semaphore::const_new(8);

text_enum!(
    /// What asking came to. Only the first three decide the key's status.
    Verdict {
        /// The vendor takes the key.
        Active => "active",
        /// The vendor does not know the key.
        Invalid => "invalid",
        /// The account has no credit.
        Exhausted => "exhausted",
        /// The account is asked too often; says nothing about the key.
        RateLimited => "rate_limited",
        /// The key may not list models; it may still be good for other routes.
        Forbidden => "forbidden",
        /// The vendor has no route that would prove a key.
        Unsupported => "unsupported",
        /// The vendor answered with something else.
        VendorError => "vendor_error",
        /// Nothing that is an answer came in time.
        Unreachable => "unreachable",
        /// The name leads to an address that may not be connected to.
        AddressDenied => "address_denied",
    }
);

/// A key, asked about.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The key as it is now.
    pub row: ProviderKeyRow,
    /// What asking came to.
    pub verdict: Verdict,
    /// The vendor's status, when it answered.
    pub http_status: Option<u16>,
    /// Unix microseconds.
    pub checked_at: i64,
    /// How long it took.
    pub duration: Duration,
}

/// Presents a key to its vendor on a cheap route, and notes what that says about
/// it. Nodes are not told: they find out for themselves.
///
/// # Errors
/// Needs `key.write`. A vendor that refuses or does not answer is no error.
pub async fn verify(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, key_id): (&str, &str),
) -> Result<Done<Verified>, DomainError> {
    caller.principal.require(Permission::KeyWrite, tenant_id)?;
    let (asked, vendor) = {
        let mut change = Change::begin(domain).await?;
        let row = find(&mut change, tenant_id, key_id).await?;
        let vendor = vendor_of(&mut change, &row).await?;
        (row, vendor.ok_or(DomainError::NotFound { what: "vendor" })?)
    };
    // No transaction is open while the vendor takes its time.
    let (checked_at, began) = (clock::now_micros(), Instant::now());
    let (verdict, http_status) = ask(domain, &vendor, &asked).await?;
    let duration = began.elapsed();
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id, key_id).await?;
    let same = (row.secret_version, &row.origin) == (asked.secret_version, &asked.origin);
    if let Some((status, reason)) = status_of(verdict).filter(|_| same)
        && (row.status, row.status_reason.as_str()) != (status, reason)
    {
        row.status = status;
        reason.clone_into(&mut row.status_reason);
        write(&mut change, &mut row).await?;
    }
    let detail = json!({"result": verdict.as_str(), "http_status": http_status, "fingerprint": asked.fingerprint});
    change.audit(caller, "provider_key.verify", target(&row), detail).await?;
    change.keep(Verified { row, verdict, http_status, checked_at, duration }).await
}

async fn ask(domain: &Domain, vendor: &Vendor, row: &ProviderKeyRow) -> Result<(Verdict, Option<u16>), DomainError> {
    let own = row.base_url.as_ref().and_then(|_| effective_url(vendor, row).ok().flatten());
    let Some((url, query)) = vendor.check_url(own.as_ref()) else { return Ok((Verdict::Unsupported, None)) };
    // The secret is sealed for one origin; it goes to no other.
    if url.origin.to_string() != row.origin {
        return Ok((Verdict::Unsupported, None));
    }
    let Ok(_place) = PLACES.acquire().await else { return Ok((Verdict::Unreachable, None)) };
    let address = match address(domain, &url.origin).await {
        Ok(address) => address,
        Err(verdict) => return Ok((verdict, None)),
    };
    let mut headers: Vec<(&'static str, &str)> = vendor.default_headers.to_vec();
    headers.extend(row.options.organization.as_deref().map(|name| ("openai-organization", name)));
    let own_form = row.options.auth.as_deref().and_then(AuthForm::parse);
    let probe = Probe {
        url: &whole(&url, query),
        host: &url.origin.host,
        address,
        form: own_form.as_ref().unwrap_or(&vendor.auth),
        headers: &headers,
    };
    let binding = binding(row);
    let answer = domain.vault.probe(probe, row.sealed.as_ref().map(|sealed| (&binding, sealed))).await?;
    Ok(match answer {
        ProbeAnswer::Answered { status, body } => (judge(status, &body), Some(status)),
        ProbeAnswer::Silent => (Verdict::Unreachable, None),
    })
}

fn whole(url: &BaseUrl, query: &str) -> String {
    if query.is_empty() { url.to_string() } else { format!("{url}?{query}") }
}

/// The address that a node would connect to.
async fn address(domain: &Domain, origin: &Origin) -> Result<SocketAddr, Verdict> {
    let found: Vec<SocketAddr> = match origin.literal() {
        Some(ip) => vec![SocketAddr::new(ip, origin.port)],
        None => {
            let lookup = tokio::net::lookup_host((origin.host.as_str(), origin.port));
            match tokio::time::timeout(RESOLVE, lookup).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(_)) | Err(_) => return Err(Verdict::Unreachable),
            }
        }
    };
    domain.upstreams.choose(origin, found).map_err(|denial| match denial {
        Some(_) => Verdict::AddressDenied,
        None => Verdict::Unreachable,
    })
}

/// What an answer says about the key.
fn judge(status: u16, body: &[u8]) -> Verdict {
    let says = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    match status {
        200..=299 => Verdict::Active,
        401 => Verdict::Invalid,
        // Google answers a wrong key with 400.
        400 if says("API_KEY_INVALID") => Verdict::Invalid,
        402 => Verdict::Exhausted,
        429 if says("insufficient_quota") => Verdict::Exhausted,
        429 => Verdict::RateLimited,
        403 => Verdict::Forbidden,
        404 | 405 | 501 => Verdict::Unsupported,
        _ => Verdict::VendorError,
    }
}

const fn status_of(verdict: Verdict) -> Option<(KeyStatus, &'static str)> {
    match verdict {
        Verdict::Active => Some((KeyStatus::Active, "")),
        Verdict::Invalid => Some((KeyStatus::Invalid, "the vendor does not know the key")),
        Verdict::Exhausted => Some((KeyStatus::Exhausted, "the account has no credit")),
        Verdict::RateLimited
        | Verdict::Forbidden
        | Verdict::Unsupported
        | Verdict::VendorError
        | Verdict::Unreachable
        | Verdict::AddressDenied => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_as_failover_judges_them() {
        for (status, body, wanted) in [
            (200, "{}", Verdict::Active),
            (401, "", Verdict::Invalid),
            (400, r#"{"reason":"API_KEY_INVALID"}"#, Verdict::Invalid),
            (400, "{}", Verdict::VendorError),
            (402, "", Verdict::Exhausted),
            (429, r#"{"code":"insufficient_quota"}"#, Verdict::Exhausted),
            (429, "slow down", Verdict::RateLimited),
            (403, "", Verdict::Forbidden),
            (404, "", Verdict::Unsupported),
            (302, "", Verdict::VendorError),
            (503, "", Verdict::VendorError),
        ] {
            assert_eq!(judge(status, body.as_bytes()), wanted, "{status} {body}");
        }
    }
}
