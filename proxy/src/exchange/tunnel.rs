//! A WebSocket through the gateway: after the vendor's 101 both directions are
//! plain bytes, passed on as they come; `talk` reads them on their way.

use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::attempt::Chosen;
use super::ports::{Downstream, Length};
use super::prepare::Prepared;
use super::reject::Refusal;
use super::settle::{Outcome, Settlement};
use super::talk::Talk;
use super::watch::{self, Watch};
use crate::upstream::{Answer, for_bot};
use crate::wire::error::session_error;
use crate::wire::websocket::{GOING_AWAY, POLICY, close_frame, masked_close_frame, text_frame};

/// A connection on which neither side says anything for so long is closed.
const SILENCE: Duration = Duration::from_secs(600);

/// Subprotocol entries that carry a key.
const KEY_SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// Whether the client asks for a WebSocket.
pub fn asks_websocket(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Puts back what the header policy strips from every request, takes the bot's
/// token out of the subprotocols, and offers no extension: a compressed message
/// could not be read.
pub fn prepare_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let name = HeaderName::from_static("sec-websocket-protocol");
    let offered = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok());
    let kept: Vec<&str> =
        offered.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.starts_with(KEY_SUBPROTOCOL)).collect();
    let kept = kept.join(", ");
    headers.remove(&name);
    headers.remove("sec-websocket-extensions");
    if let Some(value) = HeaderValue::from_str(&kept).ok().filter(|v| !v.is_empty()) {
        headers.insert(name, value);
    }
}

/// Which side has something to say; without bytes it ends.
enum Side {
    Client(Option<bytes::Bytes>),
    Vendor(Option<bytes::Bytes>),
    /// Nobody for too long.
    Neither,
    /// The bot may no longer call.
    Revoked,
}

/// How a session ends.
struct End {
    outcome: Outcome,
    refusal: Option<Refusal>,
}

impl End {
    const fn of(outcome: Outcome) -> Self {
        Self { outcome, refusal: None }
    }

    const fn refused(refusal: Refusal) -> Self {
        Self { outcome: Outcome::Interrupted, refusal: Some(refusal) }
    }
}

/// Passes bytes both ways until one side ends.
pub async fn tunnel<D: Downstream>(
    settlement: &mut Settlement<'_>,
    prepared: &Prepared<'_>,
    chosen: Chosen<'_>,
    mut watch: Watch<'_>,
    down: &mut D,
) -> (Outcome, Option<Refusal>) {
    let mut answer = chosen.answer;
    settlement.facts.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    settlement.facts.ttft_micros = Some(settlement.facts.elapsed_micros());
    let mut headers = std::mem::take(&mut answer.headers);
    for_bot(&mut headers);
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    settlement.facts.stamp(&mut headers);
    if down.write_head(StatusCode::SWITCHING_PROTOCOLS, headers, Length::Upgraded).await.is_err() {
        return (Outcome::ClientDisconnect, None);
    }
    answer.begin_upgraded();
    let mut talk = Talk::new(settlement, prepared);
    let end = pass(settlement, &mut talk, &mut answer, &mut watch, down).await;
    say(settlement, &talk, &end, &mut answer, down).await;
    settlement.facts.waited_micros = settlement.facts.elapsed_micros();
    down.abort();
    talk.end(end.outcome);
    (end.outcome, end.refusal)
}

async fn pass<'a, D: Downstream>(
    settlement: &mut Settlement<'a>,
    talk: &mut Talk<'a>,
    answer: &mut Answer,
    watch: &mut Watch<'_>,
    down: &mut D,
) -> End {
    loop {
        // Before every wait, not only after a silent one: a busy tunnel has none.
        if watch.revoked() {
            return End::refused(watch::refusal());
        }
        let side = tokio::select! {
            chunk = answer.upgraded_chunk() => Side::Vendor(chunk),
            chunk = down.read_upgraded() => Side::Client(chunk),
            () = watch.ended() => Side::Revoked,
            () = tokio::time::sleep(SILENCE) => Side::Neither,
        };
        match side {
            Side::Vendor(Some(mut chunk)) => {
                let stop = talk.vendor_said(settlement, &chunk).await.err();
                if let Some(stop) = &stop {
                    chunk.truncate(stop.pass);
                }
                if down.write_chunk(chunk).await.is_err() {
                    return End::of(Outcome::ClientDisconnect);
                }
                if let Some(stop) = stop {
                    return End::refused(stop.refusal);
                }
            }
            Side::Client(Some(chunk)) => match talk.client_said(settlement, chunk).await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    if answer.send_upgraded(chunk).await.is_err() {
                        return End::of(Outcome::Interrupted);
                    }
                }
                Err(refusal) => return End::refused(refusal),
            },
            // A side that has said goodbye may go.
            Side::Vendor(None) | Side::Client(None)
                if talk.to_client().closed().is_some() || talk.to_vendor().closed().is_some() =>
            {
                return End::of(Outcome::Ok);
            }
            Side::Vendor(None) => return End::of(Outcome::Interrupted),
            Side::Client(None) => return End::of(Outcome::ClientDisconnect),
            Side::Revoked => return End::refused(watch::refusal()),
            Side::Neither => return End::of(Outcome::Interrupted),
        }
    }
}

/// Tells both sides what they do not know, where a frame fits in. The client is
/// told nothing of a vendor that broke off: that looks as it would without us.
async fn say<D: Downstream>(
    settlement: &Settlement<'_>,
    talk: &Talk<'_>,
    end: &End,
    answer: &mut Answer,
    down: &mut D,
) {
    if let Some(refusal) = &end.refusal
        && talk.to_client().closed().is_none()
        && talk.to_client().between_frames()
    {
        let facts = &settlement.facts;
        let mut bytes = Vec::new();
        if talk.to_client().between_messages()
            && let Some(error) = session_error(facts.dialect, refusal.code, &refusal.message, &facts.id)
        {
            bytes = text_frame(&error);
        }
        bytes.extend(close_frame(POLICY, &format!("{}: {}", refusal.code.as_str(), refusal.message)));
        let _ = down.write_chunk(bytes.into()).await;
    }
    let vendor_is_there = end.refusal.is_some() || end.outcome == Outcome::ClientDisconnect;
    if vendor_is_there && talk.to_vendor().closed().is_none() && talk.vendor_takes_a_frame() {
        let _ = answer.send_upgraded(masked_close_frame(GOING_AWAY).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_leaves_the_subprotocols_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("WebSocket"));
        assert!(asks_websocket(&headers));
        let offered = HeaderValue::from_static("realtime, openai-insecure-api-key.cgb_1, openai-beta.realtime-v1");
        headers.insert("sec-websocket-protocol", offered);
        headers.insert("sec-websocket-extensions", HeaderValue::from_static("permessage-deflate"));
        prepare_headers(&mut headers);
        let kept = headers.get("sec-websocket-protocol").map(HeaderValue::as_bytes);
        assert_eq!(kept, Some(b"realtime, openai-beta.realtime-v1".as_slice()));
        assert!(headers.get("sec-websocket-extensions").is_none());
        headers.remove("upgrade");
        assert!(!asks_websocket(&headers));
    }
}
