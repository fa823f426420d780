//! Trying one target after another, each with all of its keys.
//!
//! Each is weighed and admitted by itself, and what was held for the one before
//! goes back first: only one can be billed, or the one before stays the last.

use clawgate_shared::catalogue::Resolved;

use super::admit::{self, admit, weigh};
use super::attempt::{Chosen, Failed, NEXT_KEY_UNTIL, Task, attempt};
use super::plan::{has_keys, plan};
use super::ports::Downstream;
use super::prepare::{Asked, Payload, Prepared, aim};
use super::receive::Received;
use super::record::Facts;
use super::reject::Refusal;
use super::settle::Settlement;
use super::target::Target;
use super::ties::Ties;
use super::watch::Watch;
use crate::snapshot::Bot;
use crate::wire::error::Code;

/// What is asked, wherever it goes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'t> {
    /// Who asks.
    pub bot: &'t Bot,
    /// The request's head.
    pub received: &'t Received,
    /// Its body.
    pub payload: &'t Payload<'t>,
    /// What it names in a vendor's account.
    pub ties: &'t Ties,
}

/// Tries targets in order until one gives an answer that may be relayed.
///
/// # Errors
/// None did; the refusal is that of the last one that was asked, else of the
/// first, and the facts are that one's too.
pub async fn serve<'a, 't, D: Downstream>(
    settlement: &mut Settlement<'a>,
    request: &Request<'t>,
    targets: &'t [Target<'t>],
    asked: Asked<'t>,
    watch: &mut Watch<'_>,
    down: &mut D,
) -> Result<(Prepared<'t>, Chosen<'a>), Refusal> {
    let mut known = as_asked(asked, targets);
    let mut told: Option<(&Target<'_>, Refusal)> = None;
    // What it names is in one vendor's account only.
    let mut rest = if request.ties.key.is_some() { targets.get(..1).unwrap_or_default() } else { targets };
    while let Some((target, others)) = rest.split_first() {
        rest = others;
        let first = told.is_none();
        if !first {
            settlement.turn_away();
        }
        let Request { bot, received, payload, .. } = *request;
        let prepared = aim(bot, received, payload, target, known.take(), &mut settlement.facts)?;
        if first && !settlement.pass.is_empty() && admit::spends(received, &prepared) {
            settlement.pass.tokens(bot, prepared.body.len())?;
        }
        let spare = |facts: &Facts| {
            others.iter().any(|other| has_keys(bot, &other.vendor.slug, &other.model, &received.headers, facts))
        };
        let failed = match with_keys(settlement, request, &prepared, spare, watch, down).await {
            Ok(chosen) => return Ok((prepared, chosen)),
            Err(failed) => failed,
        };
        // What is refused before it is sent is final only where it was meant to go.
        if !failed.next && (first || failed.asked) {
            return Err(failed.refusal);
        }
        if failed.asked || first {
            told = Some((target, failed.refusal));
        }
        if settlement.facts.started.elapsed() >= NEXT_KEY_UNTIL {
            break;
        }
    }
    let Some((target, refusal)) = told else {
        return Err(Refusal::new(Code::RouteUnknown, "the request leads nowhere"));
    };
    settlement.facts.point(&target.vendor.slug, &target.model);
    Err(refusal)
}

/// What resolving the client's path found, if the first target is at that path.
fn as_asked<'t>(asked: Asked<'t>, targets: &[Target<'_>]) -> Option<Resolved<'t>> {
    match asked {
        Asked::Vendor { rest, resolved, .. } => {
            targets.first().is_some_and(|target| target.rest == rest).then_some(resolved)
        }
        Asked::Unified(_) => None,
    }
}

/// Holds what one target may cost and tries its keys.
async fn with_keys<'a, D: Downstream>(
    settlement: &mut Settlement<'a>,
    request: &Request<'_>,
    prepared: &Prepared<'_>,
    spare: impl Fn(&Facts) -> bool + Send + Sync,
    watch: &mut Watch<'_>,
    down: &mut D,
) -> Result<Chosen<'a>, Failed> {
    let Request { bot, received, ties, .. } = *request;
    let refused = |refusal| Failed { refusal, next: false, asked: false };
    let services = settlement.services();
    let weight = weigh(services, bot, received, prepared, &settlement.facts.model).map_err(refused)?;
    if let Some(weight) = &weight {
        settlement.price = weight.price.clone();
        settlement.usual.clone_from(&weight.usual);
        settlement.held_output = weight.held_output();
        settlement.bound = weight.counted();
        settlement.prompt_elsewhere = weight.prompt_elsewhere;
        settlement.facts.max_tokens = weight.limit.as_ref().map(|(_, tokens)| *tokens);
        settlement.permit = admit(services, &bot.quotas, weight).await.map_err(refused)?;
    }
    let candidates =
        plan(bot, &prepared.vendor.slug, &received.headers, ties, &settlement.facts).map_err(|refusal| {
            let next = matches!(refusal.code, Code::NoKeyAvailable(_));
            Failed { refusal, next, asked: false }
        })?;
    let task = Task { received, prepared, weight: weight.as_ref() };
    attempt(settlement, &task, candidates.peekable(), spare, watch, down).await
}
