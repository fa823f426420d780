//! Trying keys until one gives an answer that may be relayed.
//!
//! Nothing has been sent to the client yet, so another key may be tried; once
//! `relay` begins, never again.

use std::iter::Peekable;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clawgate_shared::catalogue::{IncludeUsage, RootTarget, base_for_key};
use clawgate_shared::clock;
use smallvec::SmallVec;

use super::Services;
use super::admit::{Weight, admit};
use super::drains::Drain;
use super::pass;
use super::plan::no_key;
use super::ports::Downstream;
use super::prepare::Prepared;
use super::receive::Received;
use super::record::{Facts, Tried};
use super::reject::Refusal;
use super::settle::Settlement;
use super::tunnel;
use super::watch::{self, Watch};
use super::within;
use crate::routing::health::{PEEK, wants_body};
use crate::routing::{Key, Ordered, Signal};
use crate::upstream::classify::{self, MAX_ATTEMPTS, MAX_FAILURES, Verdict};
use crate::upstream::{Answer, Failure, FailureKind, Outgoing, for_vendor, target_uri};
use crate::wire::error::{Code, KeyReason};
use crate::wire::splice::{self, Splice};

/// No further key or place is tried after so long: the client has waited enough.
pub(super) const NEXT_KEY_UNTIL: Duration = Duration::from_secs(120);

/// The answer that will be relayed.
#[derive(Debug)]
pub struct Chosen<'a> {
    /// Its head is read.
    pub answer: Answer,
    /// We asked for usage, so its frame must be taken out again.
    pub asked_usage: bool,
    /// The client went meanwhile; the answer is read for its usage only.
    pub drain: Option<Drain<'a>>,
}

/// What is to be sent, with whichever key.
#[derive(Debug)]
pub struct Task<'a> {
    /// The request's head.
    pub received: &'a Received,
    /// Where it goes and its body.
    pub prepared: &'a Prepared<'a>,
    /// What it may cost, when a quota wants to know.
    pub weight: Option<&'a Weight>,
}

/// No key of a vendor gave an answer for the client.
#[derive(Debug)]
pub struct Failed {
    /// What the client is told, if nothing else helps.
    pub refusal: Refusal,
    /// Another vendor or model may do better, and nothing is owed here.
    pub next: bool,
    /// The vendor was asked.
    pub asked: bool,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, next: false, asked: true }
    }
}

/// Tries candidates in order. `spare`: there is another place to go to, so that an
/// error of the last candidate need not be the last word.
///
/// # Errors
/// No candidate gave an answer for the client.
pub async fn attempt<'a, D: Downstream>(
    settlement: &mut Settlement<'a>,
    task: &Task<'_>,
    mut candidates: Peekable<Ordered<'_>>,
    spare: impl Fn(&Facts) -> bool + Send + Sync,
    watch: &mut Watch<'_>,
    down: &mut D,
) -> Result<Chosen<'a>, Failed> {
    let services = settlement.services();
    let Task { received, prepared, weight } = *task;
    let vendor: &str = &prepared.vendor.slug;
    let mut tally = Tally::default();
    while let Some(key) = candidates.next() {
        if !reserve(settlement, key, weight, &mut tally).await {
            continue;
        }
        settlement.facts.key = Some((key.id.clone(), key.id_header.clone()));
        settlement.open()?;
        let (splices, asked_usage) = splices(prepared, key, weight);
        let began = settlement.facts.elapsed_micros();
        // Pinned where it is made: it is large, and would be copied on its way.
        let event = first(pin!(send(settlement, received, prepared, key, &splices)), settlement, watch, down).await;
        // Without an answer nobody knows what a vendor does that may have it.
        let left = std::mem::take(settlement.leaving.get_mut());
        let took = settlement.facts.elapsed_micros().saturating_sub(began);
        settlement.facts.waited_micros += took;
        let note = |facts: &mut Facts, status, reason| facts.tried.push(tried(key, status, reason, began, took));
        settlement.owed |= left && matches!(event, Event::ClientGone | Event::Revoked);
        match event {
            Event::ClientGone => {
                note(&mut settlement.facts, 0, "client_gone");
                settlement.client_gone = true;
                return Err(client_gone());
            }
            Event::Revoked => {
                note(&mut settlement.facts, 0, "revoked");
                return Err(watch::refusal().into());
            }
            Event::Drained(answer, drain) => {
                note(&mut settlement.facts, answer.status.as_u16(), "");
                return Ok(Chosen { answer, asked_usage, drain: Some(drain) });
            }
            Event::Answered(Ok((answer, signal))) => {
                let status = answer.status.as_u16();
                let in_time = settlement.facts.started.elapsed() < NEXT_KEY_UNTIL;
                let more = candidates.peek().is_some() && in_time;
                let (reason, last) = tally.judge(status, signal, more);
                note(&mut settlement.facts, status, reason);
                let elsewhere = last && !reason.is_empty() && in_time && spare(&settlement.facts);
                if last && !elsewhere {
                    return Ok(Chosen { answer, asked_usage, drain: None });
                }
                services.metrics.upstream_failed(vendor, reason);
                if elsewhere {
                    return Err(Failed { refusal: turned_away(vendor, status), next: true, asked: true });
                }
            }
            Event::Answered(Err(failure)) => {
                note(&mut settlement.facts, 0, failure.kind.label());
                settlement.owed |= failure.kind.may_have_been_sent();
                services.metrics.upstream_failed(vendor, failure.kind.label());
                tally.failed(failure, weight.is_some());
            }
        }
        if tally.spent() || settlement.facts.started.elapsed() >= NEXT_KEY_UNTIL {
            break;
        }
    }
    Err(tally.gives_up(vendor, weight.is_some()))
}

fn tried(key: &Key, status: u16, reason: &'static str, began_micros: u64, took_micros: u64) -> Tried {
    let millis = u32::try_from(took_micros / 1000).unwrap_or(u32::MAX);
    Tried { key_id: key.id.clone(), status, reason, began_micros, millis }
}

/// Lets the key's state hear what an answer said of it; the request left so long
/// ago.
pub(super) fn hear(services: &Services, key: &Key, signal: Signal, model: &str, took: Duration) {
    // What is usual costs no look at the clock.
    if signal == Signal::Nothing || (signal == Signal::Good && key.health.is_calm()) {
        return;
    }
    let now = clock::boot_micros();
    let sent = now.saturating_sub(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
    services.key_news.spread(key.health.hear(signal, model, sent, now));
}

/// Takes what the key itself limits: a place, and room in its quotas.
async fn reserve(settlement: &mut Settlement<'_>, key: &Key, weight: Option<&Weight>, tally: &mut Tally) -> bool {
    settlement.free_key();
    let Ok(slot) = pass::key_slot(key.slots.as_ref()) else {
        tally.crowded = true;
        return false;
    };
    if let Some(weight) = weight.filter(|_| !key.quotas.is_empty()) {
        match admit(settlement.services(), &key.quotas, weight).await {
            Ok(permit) => settlement.key_permit = permit,
            Err(refusal) => {
                tally.refused(refusal);
                return false;
            }
        }
    }
    settlement.pass.with_key(slot);
    true
}

/// An answer, and what it says of the key.
type Heard = (Answer, Signal);

/// What came of one attempt.
#[allow(clippy::large_enum_variant, reason = "lives for one match; the large one is the usual one")]
enum Event<'a> {
    Answered(Result<Heard, Failure>),
    /// It came after the client had gone.
    Drained(Answer, Drain<'a>),
    ClientGone,
    Revoked,
}

/// Waits for the vendor, and meanwhile for the client to hang up and for the
/// bot to be revoked. A bot whose answers are drained waits on without its
/// client once the request has left: what the vendor does will be billed, and so
/// it is read.
async fn first<'a, D: Downstream>(
    mut answered: Pin<&mut impl Future<Output = Result<Heard, Failure>>>,
    settlement: &Settlement<'a>,
    watch: &mut Watch<'_>,
    down: &mut D,
) -> Event<'a> {
    tokio::select! {
        biased;
        answered = &mut answered => return Event::Answered(answered),
        () = down.hung_up() => {}
        () = watch.ended() => return Event::Revoked,
    }
    let drains = settlement.facts.bot.as_ref().is_some_and(|bot| bot.drain_on_disconnect);
    let drains = drains && settlement.leaving.load(Ordering::Relaxed);
    let Some(drain) = drains.then(|| settlement.services().drains.begin()).flatten() else {
        return Event::ClientGone;
    };
    tokio::select! {
        biased;
        answered = tokio::time::timeout(drain.left(), answered) => match answered {
            Ok(Ok((answer, _))) => Event::Drained(answer, drain),
            Ok(Err(_)) | Err(_) => Event::ClientGone,
        },
        () = watch.ended() => Event::Revoked,
    }
}

/// What changes the body for this key, and whether usage is asked for by it.
fn splices(prepared: &Prepared<'_>, key: &Key, weight: Option<&Weight>) -> (SmallVec<[Splice; 3]>, bool) {
    let ask = asks_usage(prepared, key);
    let asked_usage = ask.is_some();
    let limit = weight.and_then(Weight::splice);
    (ask.into_iter().chain(limit).chain(prepared.rename.clone()).collect(), asked_usage)
}

fn client_gone() -> Failed {
    Refusal::new(Code::RequestTimeout, "the client closed the connection").into()
}

/// The splice that asks for usage on the client's behalf with this key.
fn asks_usage(prepared: &Prepared<'_>, key: &Key) -> Option<Splice> {
    let may = prepared.may_ask_usage && key.include_usage == IncludeUsage::Inject;
    prepared.peek.filter(|_| may).and_then(splice::include_usage)
}

/// Sends the request and reads the answer's head, and of some errors the body
/// too. The key's state hears of it at once, whatever becomes of the exchange.
async fn send(
    settlement: &Settlement<'_>,
    received: &Received,
    prepared: &Prepared<'_>,
    key: &Key,
    splices: &[Splice],
) -> Result<Heard, Failure> {
    let moved = prepared.resolved.root.filter(|root| matches!(root.target, RootTarget::Path(_)));
    let other = moved.and_then(|root| base_for_key(prepared.vendor, key.base_url.as_ref(), Some(root)));
    let base = other.as_ref().unwrap_or(&key.base);
    let services = settlement.services();
    let target = services.client.target(&base.origin)?;
    let body = splice::apply(prepared.body, splices);
    let has_body = !body.is_empty() || received.headers.contains_key(http::header::CONTENT_LENGTH);
    let length = has_body.then_some(body.len());
    let uri = target_uri(prepared.resolved.upstream_path(base), received.query.as_deref(), &key.credential)?;
    let request = || {
        let mut headers = received.headers.clone();
        for_vendor(&mut headers, prepared.vendor, key, &target.host, length);
        if prepared.websocket {
            tunnel::prepare_headers(&mut headers);
        }
        Outgoing { method: received.method.clone(), uri: uri.clone(), headers, body: body.clone() }
    };
    let began = Instant::now();
    let mut answer = services.client.send(&target, &settlement.leaving, request).await?;
    let status = answer.status.as_u16();
    let seen = if wants_body(status) { answer.peek(PEEK).await } else { Vec::new() };
    let signal = Signal::read(status, &answer.headers, &seen, clock::now_micros);
    let signal = within::look(&mut answer, prepared, settlement.facts.stream, signal).await;
    hear(services, key, signal, &settlement.facts.model, began.elapsed());
    Ok((answer, signal))
}

/// What the attempts so far amount to.
#[derive(Debug, Default)]
struct Tally {
    attempts: usize,
    failures: usize,
    forbidden: usize,
    last: Option<Last>,
    /// A key's own quota had no room.
    quota: Option<Refusal>,
    /// A key had as many requests as it may.
    crowded: bool,
}

#[derive(Debug)]
enum Last {
    Failure(Failure),
    Unauthorized,
    Forbidden,
}

impl Tally {
    /// Why an answer is not the last word, and whether it goes to the client.
    fn judge(&mut self, status: u16, signal: Signal, more: bool) -> (&'static str, bool) {
        let verdict = classify::answer(status, signal);
        let limited = status == 429 || matches!(signal, Signal::Limited(_));
        if !limited {
            self.attempts += 1;
        }
        match verdict {
            Verdict::Relay => ("", true),
            Verdict::Failover(reason) => {
                self.failures += usize::from(status == 408 || status >= 500);
                (reason, !more || self.spent())
            }
            Verdict::FailoverHidden(reason) => {
                self.last = Some(Last::Unauthorized);
                (reason, false)
            }
            Verdict::Forbidden => {
                self.forbidden += 1;
                self.last = Some(Last::Forbidden);
                ("forbidden", false)
            }
        }
    }

    /// A vendor that did not answer in time may be at work on the request, and
    /// another one would be paid as well: no further key is tried then. Under a
    /// quota so is one that may have got the request: one answer's cost is held.
    fn failed(&mut self, failure: Failure, quota: bool) {
        self.attempts += 1;
        let last = failure.kind == FailureKind::HeadTimeout || (quota && failure.kind.may_have_been_sent());
        self.failures += if last { MAX_FAILURES } else { 1 };
        self.last = Some(Last::Failure(failure));
    }

    /// The key was left out.
    fn refused(&mut self, refusal: Refusal) {
        self.quota.get_or_insert(refusal);
    }

    fn gives_up(self, vendor: &str, quota: bool) -> Failed {
        let (next, asked) = (self.may_go_on(quota), self.last.is_some());
        Failed { refusal: self.refusal(vendor), next, asked }
    }

    /// Whether another place may be tried: nothing of what was sent here may still
    /// be at work, or no key of this one was free.
    fn may_go_on(&self, quota: bool) -> bool {
        match &self.last {
            None | Some(Last::Unauthorized) => true,
            Some(Last::Forbidden) => false,
            Some(Last::Failure(failure)) => {
                failure.kind != FailureKind::HeadTimeout && !(quota && failure.kind.may_have_been_sent())
            }
        }
    }

    const fn spent(&self) -> bool {
        self.attempts >= MAX_ATTEMPTS || self.failures >= MAX_FAILURES || self.forbidden >= 2
    }

    fn refusal(self, vendor: &str) -> Refusal {
        if self.last.is_none() {
            // What passes by itself is said first.
            if self.crowded {
                return pass::keys_crowded(vendor);
            }
            if let Some(refusal) = self.quota {
                return refusal;
            }
        }
        match self.last {
            Some(Last::Failure(failure)) => upstream_refusal(vendor, failure),
            Some(Last::Forbidden) => Refusal::new(
                Code::UpstreamForbidden,
                format!("vendor {vendor} forbids this request to the provider keys of this bot"),
            ),
            Some(Last::Unauthorized) => {
                no_key(KeyReason::AllInvalid, format!("vendor {vendor} accepts none of the provider keys of this bot"))
            }
            None => no_key(KeyReason::NoneConfigured, format!("no provider key for vendor {vendor} could be tried")),
        }
    }
}

/// Every key of a vendor was answered with an error that concerns the key or the
/// vendor; told only when the place that was to be tried then is gone too.
fn turned_away(vendor: &str, status: u16) -> Refusal {
    no_key(
        KeyReason::AllCooling,
        format!("vendor {vendor} answered every provider key of this bot with status {status}"),
    )
}

/// A failed attempt in public words; the cause goes to the log.
pub fn upstream_refusal(vendor: &str, failure: Failure) -> Refusal {
    let (code, text) = match failure.kind {
        FailureKind::Connect => (Code::UpstreamConnect, "could not be reached"),
        FailureKind::Denied => (Code::UpstreamConnect, "is at an address that this node may not connect to"),
        FailureKind::Tls => (Code::UpstreamTls, "could not be reached over TLS"),
        FailureKind::HeadTimeout | FailureKind::IdleTimeout => (Code::UpstreamTimeout, "did not answer in time"),
        FailureKind::Closed => (Code::UpstreamProtocol, "closed the connection before its answer was complete"),
        FailureKind::Protocol => (Code::UpstreamProtocol, "sent something that is not valid HTTP"),
    };
    Refusal { cause: Some(failure.to_string()), ..Refusal::new(code, format!("vendor {vendor} {text}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_candidates_error_is_relayed_and_hidden_ones_never() {
        let mut tally = Tally::default();
        assert_eq!(tally.judge(429, Signal::Nothing, true), ("rate_limited", false));
        assert_eq!(tally.judge(503, Signal::Nothing, true), ("server_error", false));
        assert_eq!(tally.judge(503, Signal::Nothing, false), ("server_error", true));
        let mut tally = Tally::default();
        assert_eq!(tally.judge(401, Signal::Nothing, false), ("unauthorized", false));
        assert_eq!(tally.refusal("v").code, Code::NoKeyAvailable(KeyReason::AllInvalid));
        let mut tally = Tally::default();
        assert!(!tally.judge(403, Signal::Nothing, true).1 && !tally.spent());
        assert!(!tally.judge(403, Signal::Nothing, true).1 && tally.spent());
        assert_eq!(tally.refusal("v").code, Code::UpstreamForbidden);
        let mut tally = Tally::default();
        tally.refused(Refusal::new(Code::QuotaExceeded, "one key"));
        tally.crowded = true;
        assert_eq!(tally.refusal("v").code, Code::ConcurrencyLimited, "another key will have room");
    }

    #[test]
    fn attempts_are_bounded_but_rate_limits_do_not_count() {
        let mut tally = Tally::default();
        (0..50).for_each(|_| assert!(!tally.judge(429, Signal::Nothing, true).1));
        assert!(!tally.spent());
        (0..2).for_each(|_| assert!(!tally.judge(500, Signal::Nothing, true).1));
        assert!(tally.judge(500, Signal::Nothing, true).1, "the third server error is the last");
        let mut tally = Tally::default();
        (0..50).for_each(|_| assert!(!tally.judge(200, Signal::Limited(1), true).1));
        assert_eq!(tally.judge(200, Signal::Limited(1), false), ("rate_limited", true), "it says 200, and is relayed");
    }
}
