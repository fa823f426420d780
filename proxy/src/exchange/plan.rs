//! Which keys are tried, in which order.

use http::HeaderMap;

use super::reject::Refusal;
use crate::routing::{Ordered, required_tags};
use crate::snapshot::Bot;
use crate::wire::error::{Code, KeyReason};

/// Longest `x-clawgate-tag` list.
const MAX_TAGS: usize = 16;

/// The candidates of one exchange.
///
/// # Errors
/// There is no key, or none with the tags.
pub fn plan<'a>(bot: &'a Bot, vendor: &str, headers: &HeaderMap) -> Result<Ordered<'a>, Refusal> {
    let wanted = headers.get("x-clawgate-tag").map(|v| required_tags(v.to_str().unwrap_or(""))).unwrap_or_default();
    if wanted.len() > MAX_TAGS {
        return Err(Refusal::new(Code::TagNotAllowed, format!("x-clawgate-tag has more than {MAX_TAGS} tags")));
    }
    let Some(pool) = bot.pools.get(vendor) else {
        return Err(no_key(
            KeyReason::NoneConfigured,
            format!("no provider key for vendor {vendor} is configured; add one"),
        ));
    };
    if pool.keys.is_empty() {
        return Err(if pool.any_configured {
            let text = format!("no provider key for vendor {vendor} carries all tags this bot requires");
            no_key(KeyReason::NoMatchingTags, text)
        } else {
            no_key(KeyReason::NoneConfigured, format!("no provider key for vendor {vendor} is configured; add one"))
        });
    }
    if !wanted.is_empty() && !pool.keys.iter().any(|key| key.carries(&wanted)) {
        return Err(no_key(
            KeyReason::NoMatchingTags,
            "no provider key of this bot carries the tags of x-clawgate-tag".to_owned(),
        ));
    }
    Ok(pool.ordered(&wanted))
}

/// `no_key_available` with its reason.
pub fn no_key(reason: KeyReason, message: String) -> Refusal {
    Refusal::new(Code::NoKeyAvailable(reason), message)
}
