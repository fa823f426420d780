//! Errors inside answers that say 200: what they tell of the key counts like the
//! same error with its own status.
//!
//! A vendor that is known to do so puts such an error alone into a small JSON body:
//! that is looked at before the client gets anything, and another key may be tried.
//! What comes within a stream, or from anyone else, is heard when the answer is
//! over.

use std::time::Duration;

use clawgate_shared::dialect::Protocol;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::attempt::hear;
use super::prepare::Prepared;
use super::settle::Settlement;
use crate::routing::Signal;
use crate::routing::health::PEEK;
use crate::upstream::Answer;
use crate::wire::Report;
use crate::wire::usage::read_body;

/// Whether a status of 200 alone proves nothing.
fn hides(prepared: &Prepared<'_>) -> bool {
    // The APIs that Alibaba and Tencent had before those of others.
    let own = matches!(prepared.resolved.route.protocol, Protocol::DashScope | Protocol::Hunyuan);
    own || prepared.vendor.hides_errors
}

/// What a good-looking answer says of its key once its body was looked at, as far
/// as it may be: `head` is what its head says; `stream`: the client asked for one.
pub async fn look(answer: &mut Answer, prepared: &Prepared<'_>, stream: bool, head: Signal) -> Signal {
    if !hides(prepared) || answer.status != StatusCode::OK {
        return head;
    }
    let protocol = prepared.resolved.route.protocol;
    if protocol == Protocol::Opaque || !is_small_json(answer, stream) {
        // Not yet: the end of the answer will tell.
        return if head == Signal::Good { Signal::Nothing } else { head };
    }
    let seen = answer.peek(PEEK).await;
    match read_body(protocol, &prepared.vendor.slug, &seen).error {
        Some(code) => prepared.vendor.key_error(&code).map_or(Signal::Nothing, Signal::from),
        None => head,
    }
}

/// Lets the key hear what the whole answer said of it.
pub fn heard(settlement: &Settlement<'_>, prepared: &Prepared<'_>, report: &Report, whole: bool) {
    let facts = &settlement.facts;
    if !(200..300).contains(&facts.status) {
        return;
    }
    let said = match &report.error {
        Some(code) => prepared.vendor.key_error(code).map(Signal::from),
        None => (whole && hides(prepared)).then_some(Signal::Good),
    };
    let (Some(said), Some((id, _)), Some(bot)) = (said, &facts.key, &facts.bot) else { return };
    // As the exchange knows it: meanwhile it may have got another secret.
    let key = bot.pools.get(&*facts.vendor).and_then(|pool| pool.keys.iter().find(|key| key.id == *id));
    if let Some(key) = key {
        let began = facts.tried.last().map_or(0, |tried| tried.began_micros);
        let ago = Duration::from_micros(facts.elapsed_micros().saturating_sub(began));
        hear(settlement.services(), key, said, &facts.model, ago);
    }
}

/// An error is never more than that. What may be a stream under a wrong name is not
/// waited for.
fn is_small_json(answer: &Answer, stream: bool) -> bool {
    let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let json = text(CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("application/json"));
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    json && length.map_or(!stream, |length| length <= PEEK)
}
