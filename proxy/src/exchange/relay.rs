//! Streaming the vendor's answer to the client: bytes first, then the meter
//! sees them.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode};

use super::attempt::{Chosen, upstream_refusal};
use super::counting::{Answered, Recount};
use super::drains::Drain;
use super::grow::grow;
use super::ports::{Downstream, Gone, Length};
use super::prepare::Prepared;
use super::reject::Refusal;
use super::settle::{Outcome, Settlement};
use super::ties::Listens;
use super::watch::{self, Watch};
use super::within;
use crate::quota::Bound;
use crate::upstream::{Answer, Failure, for_bot};
use crate::wire::error::stream_error;
use crate::wire::{Meter, PromptSize, Report, UsageStripper, Vocabulary};

/// Said in the row of an exchange whose counts are not the vendor's own.
const ODD: &str =
    "the vendor reported a count that cannot be: negative, broken or beyond 2^53; the nearest that can be stands here";

/// A meter that has seen the answer's head.
fn meter(settlement: &Settlement<'_>, prepared: &Prepared<'_>, answer: &Answer) -> Meter {
    let mut meter = Meter::new(prepared.resolved.route.protocol, &prepared.vendor.slug);
    meter.told(|name| answer.headers.get(name).and_then(|value| value.to_str().ok()));
    match settlement.listens {
        Listens::Answer if answer.status.is_success() => meter.listen(None),
        Listens::Things(names) if answer.status.is_success() => meter.listen(Some(names)),
        _ => {}
    }
    meter
}

/// Takes over the ids that the meter found.
fn keep_ids(settlement: &mut Settlement<'_>, meter: &mut Meter) {
    let ids = meter.made();
    if !ids.is_empty() {
        settlement.keep(ids);
    }
}

/// Takes over what the meter found. What a vendor did not say of an answer that
/// it gave, or could not say because the answer broke off, is estimated from the
/// text; what it said stays, a zero too.
fn take_report(settlement: &mut Settlement<'_>, prepared: &Prepared<'_>, mut meter: Meter, whole: bool) -> Report {
    meter.whole();
    keep_ids(settlement, &mut meter);
    let mut report = meter.finish();
    settlement.note = note(&report, settlement.facts.status);
    within::heard(settlement, prepared, &report, whole);
    let usage = &mut report.usage;
    let silent = !usage.has_counts();
    let nothing = report.text.tokens() == 0 && report.error.is_some();
    let protocol = prepared.resolved.route.protocol;
    // Where not every request is answered with text, only text is estimated.
    let read = protocol.is_bounded() || (protocol.generates_text() && report.text.tokens() > 0);
    // An error in an answer that says nothing else costs nothing.
    settlement.owed &= !(nothing && silent);
    if read && settlement.owed && !nothing && (silent || !(whole || report.terminal)) {
        let counted = usage.output.unwrap_or(0);
        let output = counted.max(report.text.tokens());
        if silent || output > counted {
            // No estimate is more than what was held for it; of a prompt that only
            // the vendor knows, nothing less is certain.
            let most = settlement.bound.unwrap_or(Bound { input: u64::MAX, output: u64::MAX });
            let elsewhere = settlement.prompt_elsewhere && settlement.bound.is_some();
            let mut prompt = None;
            if usage.input.is_none() {
                let size = (!elsewhere).then(|| PromptSize::of(prepared.body));
                usage.input = Some(size.as_ref().map_or(most.input, |size| size.by_size().min(most.input)));
                prompt = size.map(|size| (size, most.input));
            }
            usage.output = Some(counted.max(output.min(most.output)));
            usage.total = None;
            settlement.estimated = true;
            let model = usage.model.as_deref().unwrap_or(&settlement.facts.model);
            let vocabulary = Vocabulary::of(protocol, model);
            settlement.recount = vocabulary.zip(report.sample.take()).map(|(vocabulary, sample)| {
                let answer = Answered { sample, all: report.text, least: counted, most: most.output };
                Recount { vocabulary, prompt, answer }
            });
        }
    }
    settlement.usage = std::mem::take(&mut report.usage);
    report
}

/// What is remarkable about an answer that looks good.
fn note(report: &Report, status: u16) -> Option<String> {
    match &report.error {
        Some(code) if status < 400 => Some(format!("the answer holds an error of the vendor: {code}")),
        _ => report.odd.then(|| ODD.to_owned()),
    }
}

/// What happened next on either side.
enum Event {
    Chunk(Result<Option<Bytes>, Failure>),
    ClientGone,
    Revoked,
}

/// The client went before the answer came: it is read for its usage.
pub async fn without_client(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    chosen: Chosen<'_>,
    mut watch: Watch<'_>,
) -> (Outcome, Option<Refusal>) {
    let meter = meter(settlement, prepared, &chosen.answer);
    let status = chosen.answer.status;
    settlement.facts.status = status.as_u16();
    settlement.owed |= !status.is_client_error() && !status.is_server_error();
    let whole = match chosen.drain {
        Some(drain) => read_on(settlement, drain, chosen.answer, &mut watch, meter).await,
        None => (meter, false),
    };
    let _ = take_report(settlement, prepared, whole.0, whole.1);
    (Outcome::ClientDisconnect, None)
}

/// Relays the answer; see the module.
///
/// # Errors
/// The client went before it got the head.
pub async fn relay<D: Downstream>(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    chosen: Chosen<'_>,
    mut watch: Watch<'_>,
    down: &mut D,
) -> Result<(Outcome, Option<Refusal>), Refusal> {
    let Chosen { mut answer, asked_usage, .. } = chosen;
    let services = settlement.services();
    let status = answer.status;
    let mut meter = meter(settlement, prepared, &answer);
    let mut stripper = asked_usage.then(UsageStripper::new);
    settlement.facts.status = status.as_u16();
    settlement.owed |= !status.is_client_error() && !status.is_server_error();
    let length = length_of(&settlement.facts.method, &answer, stripper.is_some());
    let is_stream = is_event_stream(&answer);
    let can_say = is_stream && length == Length::Open;
    let cuts = is_stream && (settlement.permit.cuts() || settlement.key_permit.cuts());
    let mut headers = std::mem::take(&mut answer.headers);
    for_bot(&mut headers);
    settlement.facts.stamp(&mut headers);
    if down.write_head(status, headers, length).await.is_err() {
        return Ok(end_without_client(settlement, prepared, answer, &mut watch, meter).await);
    }
    loop {
        let before = settlement.facts.elapsed_micros();
        let event = next(&mut answer, &mut watch, down).await;
        let now = settlement.facts.elapsed_micros();
        settlement.facts.waited_micros += now.saturating_sub(before);
        match event {
            Event::Chunk(Ok(Some(chunk))) => {
                settlement.facts.ttft_micros.get_or_insert(now);
                if answer.done() {
                    // Before the client can ask again.
                    settlement.pass.leave();
                    // Back to the pool before the client can ask again.
                    services.client.release(answer).await;
                    let sent = pass_on(settlement, &mut meter, stripper.as_mut(), chunk, true, down).await;
                    return Ok(complete(settlement, prepared, sent, meter, stripper, down).await);
                }
                let sent = pass_on(settlement, &mut meter, stripper.as_mut(), chunk, false, down).await;
                if cuts && let Err(refusal) = grow(settlement, prepared, &mut meter).await {
                    return Ok(break_off(settlement, prepared, meter, can_say, refusal, down).await);
                }
                if sent.is_err() {
                    return Ok(end_without_client(settlement, prepared, answer, &mut watch, meter).await);
                }
            }
            Event::Chunk(Ok(None)) => {
                settlement.pass.leave();
                services.client.release(answer).await;
                return Ok(complete(settlement, prepared, Ok(()), meter, stripper, down).await);
            }
            Event::Chunk(Err(failure)) => {
                services.metrics.upstream_failed(&settlement.facts.vendor, failure.kind.label());
                let refusal = upstream_refusal(&settlement.facts.vendor, failure);
                return Ok(break_off(settlement, prepared, meter, can_say, refusal, down).await);
            }
            Event::ClientGone => {
                return Ok(end_without_client(settlement, prepared, answer, &mut watch, meter).await);
            }
            Event::Revoked => {
                return Ok(break_off(settlement, prepared, meter, can_say, watch::refusal(), down).await);
            }
        }
    }
}

/// Waits for the vendor, and meanwhile for the client to hang up and for the
/// bot to be revoked. The read is never dropped half done by the watch.
async fn next<D: Downstream>(answer: &mut Answer, watch: &mut Watch<'_>, down: &mut D) -> Event {
    if watch.revoked() {
        return Event::Revoked;
    }
    tokio::select! {
        biased;
        chunk = answer.chunk() => Event::Chunk(chunk),
        () = down.hung_up() => Event::ClientGone,
        () = watch.ended() => Event::Revoked,
    }
}

/// Bytes first, then the meter sees them; but an id may be named as soon as the
/// client has it, and so must be known before.
async fn pass_on<D: Downstream>(
    settlement: &mut Settlement<'_>,
    meter: &mut Meter,
    stripper: Option<&mut UsageStripper>,
    chunk: Bytes,
    last: bool,
    down: &mut D,
) -> Result<(), Gone> {
    if settlement.listens == Listens::No {
        let sent = forward(down, stripper, chunk.clone()).await;
        meter.push(&chunk);
        return sent;
    }
    meter.push(&chunk);
    if last {
        meter.whole();
    }
    keep_ids(settlement, meter);
    forward(down, stripper, chunk).await
}

/// The client's bytes first, without a usage frame that only we asked for.
async fn forward<D: Downstream>(down: &mut D, stripper: Option<&mut UsageStripper>, chunk: Bytes) -> Result<(), Gone> {
    let Some(stripper) = stripper else { return down.write_chunk(chunk).await };
    let mut kept = Vec::new();
    stripper.push(chunk, &mut kept);
    for piece in kept {
        down.write_chunk(piece).await?;
    }
    Ok(())
}

/// The vendor's answer ended properly.
async fn complete<D: Downstream>(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    mut sent: Result<(), Gone>,
    mut meter: Meter,
    stripper: Option<UsageStripper>,
    down: &mut D,
) -> (Outcome, Option<Refusal>) {
    if let Some(stripper) = stripper {
        let mut kept = Vec::new();
        stripper.finish(&mut kept);
        for piece in kept {
            if sent.is_ok() {
                sent = down.write_chunk(piece).await;
            }
        }
    }
    if settlement.listens != Listens::No {
        meter.whole();
        keep_ids(settlement, &mut meter);
    }
    if sent.is_ok() {
        sent = down.finish().await;
    }
    let report = take_report(settlement, prepared, meter, true);
    let failed = settlement.facts.status >= 400 || report.error.is_some();
    let outcome = match (sent, failed) {
        (Err(Gone), _) => Outcome::ClientDisconnect,
        (Ok(()), true) => Outcome::UpstreamError,
        (Ok(()), false) => Outcome::Ok,
    };
    (outcome, None)
}

/// The client is gone: drop the vendor's answer, or read it to its end so that
/// its usage is known, as the bot's policy says and the node's caps allow.
async fn end_without_client(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    answer: Answer,
    watch: &mut Watch<'_>,
    meter: Meter,
) -> (Outcome, Option<Refusal>) {
    let drains = settlement.facts.bot.as_ref().is_some_and(|bot| bot.drain_on_disconnect);
    let (meter, whole) = match drains.then(|| settlement.services().drains.begin()).flatten() {
        Some(drain) => read_on(settlement, drain, answer, watch, meter).await,
        None => (meter, false),
    };
    let _ = take_report(settlement, prepared, meter, whole);
    (Outcome::ClientDisconnect, None)
}

/// Reads what is left of an answer for its usage. Whether it came to its end.
async fn read_on(
    settlement: &Settlement<'_>,
    mut drain: Drain<'_>,
    mut answer: Answer,
    watch: &mut Watch<'_>,
    mut meter: Meter,
) -> (Meter, bool) {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = tokio::time::timeout(drain.left(), answer.chunk()) => chunk,
            () = watch.ended() => return (meter, false),
        };
        match chunk {
            Ok(Ok(Some(chunk))) => {
                meter.push(&chunk);
                if !drain.goes_on(&chunk, &meter) {
                    return (meter, false);
                }
            }
            Ok(Ok(None)) => {
                settlement.services().client.release(answer).await;
                return (meter, true);
            }
            Ok(Err(_)) | Err(_) => return (meter, false),
        }
    }
}

/// Ends a broken answer so that the client notices: a stream with its dialect's
/// error event, anything else with a broken connection. Half an event that was
/// held back is dropped: the client could not read it.
async fn break_off<D: Downstream>(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    meter: Meter,
    can_say: bool,
    refusal: Refusal,
    down: &mut D,
) -> (Outcome, Option<Refusal>) {
    let _ = take_report(settlement, prepared, meter, false);
    if can_say {
        let facts = &settlement.facts;
        let event = stream_error(facts.dialect, refusal.code, &refusal.message, &facts.id);
        if down.write_chunk(Bytes::from(event)).await.is_ok() {
            let _ = down.finish().await;
        }
    } else {
        down.abort();
    }
    (Outcome::Interrupted, Some(refusal))
}

fn length_of(method: &Method, answer: &Answer, strips: bool) -> Length {
    let none =
        method == Method::HEAD || answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_MODIFIED;
    if none {
        return Length::NoBody;
    }
    let announced = answer.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    match announced {
        Some(length) if !strips => Length::Known(length),
        _ => Length::Open,
    }
}

fn is_event_stream(answer: &Answer) -> bool {
    let value = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    value.trim_start().get(..17).is_some_and(|start| start.eq_ignore_ascii_case("text/event-stream"))
}
