//! Which keys are tried, in which order.

use clawgate_shared::clock;
use http::{HeaderMap, HeaderName};

use super::record::Facts;
use super::reject::Refusal;
use super::ties::Ties;
use crate::routing::{Ask, NoneLeft, Ordered, required_tags};
use crate::snapshot::Bot;
use crate::wire::error::{Code, KeyReason};

static TAG: HeaderName = HeaderName::from_static("x-clawgate-tag");
/// Longest `x-clawgate-tag` list.
const MAX_TAGS: usize = 16;
/// Clients sleep for whatever they are told; this is the most, in seconds.
const LONGEST_WAIT: i64 = 30;

/// The candidates of one exchange.
///
/// # Errors
/// There is no key, none with the tags, or none that may be tried now.
pub fn plan<'a>(
    bot: &'a Bot,
    vendor: &str,
    headers: &HeaderMap,
    ties: &Ties,
    facts: &Facts,
) -> Result<Ordered<'a>, Refusal> {
    let wanted = wanted_tags(headers);
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
    if let Some(id) = &ties.key {
        let ask = ask(bot, &wanted, &facts.model, facts);
        return match pool.only(id, &ask) {
            Some(ordered) => ordered.map_err(|left| none_left(vendor, left)),
            None => Err(key_gone(vendor)),
        };
    }
    // A turn is taken only where it is used.
    if let Some(ordered) = (wanted.is_empty() && !ties.stays).then(|| pool.quick()).flatten() {
        return Ok(ordered);
    }
    let mut ask = ask(bot, &wanted, &facts.model, facts);
    if ties.stays {
        ask = Ask { conversation: [&*bot.id, ""], stays: true, ..ask };
    }
    pool.ordered(&ask).map_err(|left| none_left(vendor, left))
}

/// Whether a vendor has a key that may be tried now for a model. Takes no turn.
pub fn has_keys(bot: &Bot, vendor: &str, model: &str, headers: &HeaderMap, facts: &Facts) -> bool {
    let wanted = wanted_tags(headers);
    bot.pools.get(vendor).is_some_and(|pool| pool.any_usable(&ask(bot, &wanted, model, facts)))
}

fn wanted_tags(headers: &HeaderMap) -> Vec<String> {
    headers.get(&TAG).map(|v| required_tags(v.to_str().unwrap_or(""))).unwrap_or_default()
}

fn ask<'a>(bot: &'a Bot, tags: &'a [String], model: &'a str, facts: &'a Facts) -> Ask<'a> {
    let session = if facts.session_id.is_empty() { &facts.agent_id } else { &facts.session_id };
    Ask { tags, model, conversation: [&*bot.id, session], stays: false, now: clock::boot_micros() }
}

/// The request names something that only a key reaches which this bot has not.
fn key_gone(vendor: &str) -> Refusal {
    let text = format!(
        "what the request names lives in the account of a provider key of vendor {vendor} that was removed, is switched \
         off, or may not serve this request; no other key reaches it"
    );
    no_key(KeyReason::NoneConfigured, text)
}

/// Every key is left out.
fn none_left(vendor: &str, left: NoneLeft) -> Refusal {
    let Some(wait) = left.cooling else {
        let text = format!(
            "vendor {vendor} does not accept the provider keys of this bot, or their accounts have no credit; \
             see GET /api/v1/provider-keys/health"
        );
        return no_key(KeyReason::AllInvalid, text);
    };
    let seconds = (wait.saturating_add(999_999) / 1_000_000).clamp(1, LONGEST_WAIT);
    let text =
        format!("all provider keys for vendor {vendor} wait for their limits to reset; try again in {seconds} s");
    Refusal { retry_after: u32::try_from(seconds).ok(), ..no_key(KeyReason::AllCooling, text) }
}

/// `no_key_available` with its reason.
pub fn no_key(reason: KeyReason, message: String) -> Refusal {
    Refusal::new(Code::NoKeyAvailable(reason), message)
}
