//! Who is calling: the bot token, from any of its carriers, looked up by hash.

use std::net::IpAddr;
use std::sync::Arc;

use clawgate_shared::clock;
use clawgate_shared::network::Network;
use clawgate_shared::token::{self, TokenHash, TokenKind};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::receive::Received;
use super::reject::Refusal;
use crate::snapshot::{Bot, BotState, Snapshot};
use crate::wire::error::Code;

/// The subprotocol prefix under which a browser's WebSocket sends a key.
const WEBSOCKET_CARRIER: &str = "openai-insecure-api-key.";

/// Who calls, and with what.
#[derive(Debug)]
pub struct Caller {
    /// The bot.
    pub bot: Arc<Bot>,
    /// The token it presented, and when that ends.
    pub token: Presented,
}

/// A token that was found good.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// What it is looked up by.
    pub hash: TokenHash,
    /// Unix microseconds; 0: never.
    pub expires_at_micros: i64,
    /// Where it is good from; `None`: anywhere.
    pub network: Option<Network>,
}

/// Finds the bot.
///
/// # Errors
/// No token, several different ones, an unknown or expired one, or a bot that
/// may not call now.
pub fn authenticate(snapshot: &Snapshot, received: &Received) -> Result<Caller, Refusal> {
    let token = presented(&received.headers, received.query_token.as_deref())?;
    let hash = token::hash(token.as_bytes());
    let Some(entry) = snapshot.tokens.get(&hash) else {
        return Err(unknown(token));
    };
    if entry.expires_at_micros != 0 && entry.expires_at_micros <= clock::now_micros() {
        return Err(Refusal::new(Code::BotTokenExpired, "the bot token has expired; create a new one for this bot"));
    }
    let token = Presented { hash, expires_at_micros: entry.expires_at_micros, network: entry.network };
    Ok(Caller { bot: entry.bot.clone(), token })
}

/// Whether a token is presented from where it is good: what was stolen out of a
/// container is of no use elsewhere.
///
/// # Errors
/// It has a network and this caller is not in it.
pub fn from_its_network(token: &Presented, source: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(network) = token.network else { return Ok(()) };
    if source.is_some_and(|address| network.contains(address)) {
        return Ok(());
    }
    let text =
        "this token is good inside the network of its bot's container only; create another one for use elsewhere";
    Err(Refusal::new(Code::TokenNetworkMismatch, text))
}

/// Whether a known bot may call now.
///
/// # Errors
/// The bot or its tenant is switched off.
pub fn may_call(bot: &Bot) -> Result<(), Refusal> {
    if bot.tenant.suspended {
        return Err(Refusal::new(Code::TenantSuspended, "the tenant of this bot is suspended"));
    }
    match bot.state {
        BotState::Enabled => Ok(()),
        BotState::Disabled => {
            Err(Refusal::new(Code::BotDisabled, "this bot is disabled; an admin can enable it again"))
        }
        BotState::Suspended => Err(Refusal::new(Code::BotSuspended, "this bot is suspended; an admin can resume it")),
    }
}

/// The one token that was presented.
fn presented<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Result<&'a str, Refusal> {
    let mut found: Option<&str> = None;
    let mut offer = |token: &'a str| match found {
        Some(other) if other != token => Err(Refusal::new(
            Code::ConflictingCredentials,
            "two different credentials were sent; send the bot token once, for example as Authorization: Bearer",
        )),
        _ => {
            found = Some(token);
            Ok(())
        }
    };
    for value in headers.get_all(AUTHORIZATION) {
        let text = value.to_str().unwrap_or("");
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") && !rest.trim().is_empty() {
            offer(rest.trim())?;
        }
    }
    for name in ["x-api-key", "x-goog-api-key", "api-key"] {
        for value in headers.get_all(name) {
            let text = value.to_str().unwrap_or("").trim();
            if !text.is_empty() {
                offer(text)?;
            }
        }
    }
    for value in headers.get_all("sec-websocket-protocol") {
        for protocol in value.to_str().unwrap_or("").split(',') {
            if let Some(text) = protocol.trim().strip_prefix(WEBSOCKET_CARRIER) {
                offer(text)?;
            }
        }
    }
    if let Some(text) = query.filter(|text| !text.is_empty()) {
        offer(text)?;
    }
    found.ok_or_else(|| {
        Refusal::new(
            Code::BotTokenMissing,
            "no bot token was sent; send it as Authorization: Bearer, x-api-key, x-goog-api-key, api-key or ?key=",
        )
    })
}

fn unknown(token: &str) -> Refusal {
    let message = if token::well_formed(TokenKind::Bot, token) {
        "the bot token is not known; it may have been deleted or rotated"
    } else if token.starts_with(TokenKind::Bot.prefix()) {
        "the bot token is mistyped or cut off: its checksum does not match"
    } else {
        "this is not a bot token: bot tokens start with cgb_"
    };
    Refusal::new(Code::BotTokenInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_token_is_good_in_its_own_network_only() {
        let network = Some("10.231.0.16/28".parse().expect("a block"));
        let address = |text: &str| Some(text.parse().expect("an address"));
        for (network, source, good) in [
            (None, None, true),
            (None, address("203.0.113.1"), true),
            (network, address("10.231.0.18"), true),
            (network, address("10.231.0.34"), false),
            (network, address("127.0.0.1"), false),
            (network, None, false),
        ] {
            let token = Presented { hash: [0; 32], expires_at_micros: 0, network };
            let found = from_its_network(&token, source);
            assert_eq!(found.is_ok(), good, "{network:?} {source:?}");
            assert!(found.err().is_none_or(|refusal| refusal.code == Code::TokenNetworkMismatch));
        }
    }

    #[test]
    fn every_carrier_counts_and_two_values_conflict() {
        for (name, value) in [
            ("authorization", "Bearer cgb_1"),
            ("authorization", "bearer  cgb_1"),
            ("x-api-key", "cgb_1"),
            ("x-goog-api-key", "cgb_1"),
            ("api-key", "cgb_1"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.cgb_1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(presented(&headers, None).ok(), Some("cgb_1"), "{name}");
            assert_eq!(presented(&headers, Some("cgb_1")).ok(), Some("cgb_1"), "{name}");
            let conflict = presented(&headers, Some("cgb_2")).expect_err(name);
            assert_eq!(conflict.code, Code::ConflictingCredentials, "{name}");
        }
        assert_eq!(presented(&HeaderMap::new(), Some("cgb_1")).ok(), Some("cgb_1"));
        let mut basic = HeaderMap::new();
        basic.insert("authorization", HeaderValue::from_static("Basic Y2di"));
        assert_eq!(presented(&basic, None).expect_err("none").code, Code::BotTokenMissing);
    }
}
