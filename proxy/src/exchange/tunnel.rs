//! A WebSocket through the gateway: after the vendor's 101 both directions are
//! plain bytes, passed on as they come.

use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::attempt::Chosen;
use super::ports::{Downstream, Length};
use super::reject::Refusal;
use super::settle::{Outcome, Settlement};
use super::watch::Watch;
use crate::upstream::for_bot;

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

/// Puts back what the header policy strips from every request, and takes the
/// bot's token out of the subprotocols.
pub fn prepare_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let name = HeaderName::from_static("sec-websocket-protocol");
    let offered = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok());
    let kept: Vec<&str> =
        offered.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.starts_with(KEY_SUBPROTOCOL)).collect();
    let kept = kept.join(", ");
    headers.remove(&name);
    if let Some(value) = HeaderValue::from_str(&kept).ok().filter(|v| !v.is_empty()) {
        headers.insert(name, value);
    }
}

/// Which side has something to say; without bytes it ends.
enum Side {
    Client(Option<bytes::Bytes>),
    Vendor(Option<bytes::Bytes>),
    /// Nobody for too long, or the bot may no longer call.
    Neither,
}

/// Passes bytes both ways until one side ends.
pub async fn tunnel<D: Downstream>(
    settlement: &mut Settlement<'_>,
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
    let outcome = loop {
        // Before every wait, not only after a silent one: a busy tunnel has none.
        if watch.revoked() {
            break Outcome::Interrupted;
        }
        let side = tokio::select! {
            chunk = answer.upgraded_chunk() => Side::Vendor(chunk),
            chunk = down.read_upgraded() => Side::Client(chunk),
            () = watch.ended() => Side::Neither,
            () = tokio::time::sleep(SILENCE) => Side::Neither,
        };
        match side {
            Side::Vendor(Some(chunk)) => {
                if down.write_chunk(chunk).await.is_err() {
                    break Outcome::ClientDisconnect;
                }
            }
            Side::Client(Some(chunk)) => {
                if answer.send_upgraded(chunk).await.is_err() {
                    break Outcome::Interrupted;
                }
            }
            Side::Vendor(None) | Side::Client(None) => break Outcome::Ok,
            Side::Neither => break Outcome::Interrupted,
        }
    };
    settlement.facts.waited_micros = settlement.facts.elapsed_micros();
    down.abort();
    (outcome, None)
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
        prepare_headers(&mut headers);
        let kept = headers.get("sec-websocket-protocol").map(HeaderValue::as_bytes);
        assert_eq!(kept, Some(b"realtime, openai-beta.realtime-v1".as_slice()));
        headers.remove("upgrade");
        assert!(!asks_websocket(&headers));
    }
}
