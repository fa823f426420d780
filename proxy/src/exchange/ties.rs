//! What a request names in a vendor account, and so which key it must use; and
//! whether its answer names what it made there.
//!
//! A vendor knows only keys, and several bots share one: whose a file or a stored
//! response is, is known here alone. What a bot did not make itself is refused in
//! the same words whether it exists or not.

use std::sync::Arc;

use clawgate_shared::catalogue::{Account, MAX_ACCOUNT_IDS, Resolved};
use clawgate_shared::dialect::Protocol;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method};

use super::Services;
use super::prepare::{Asked, Payload};
use super::receive::Received;
use super::reject::Refusal;
use super::target::Target;
use crate::accounts::{Away, Maker};
use crate::snapshot::Bot;
use crate::wire::error::Code;
use crate::wire::made::Names;
use crate::wire::peek::peek;
use crate::wire::references::{Marks, Unreadable, Wanted, in_form, in_query, references};

/// Some clients begin their JSON with it, and some vendors pass over it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the answer may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listens {
    /// Nothing that anybody could name later.
    #[default]
    No,
    /// Itself and its parts, which the vendor keeps for a while.
    Answer,
    /// Things in the account.
    Things(Names),
}

/// What binds a request to a vendor account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// The only key that reaches what it names.
    pub key: Option<Arc<str>>,
    /// It makes something: all that a bot makes is best in one account.
    pub stays: bool,
    /// What its answer may name.
    pub listens: Listens,
}

/// Finds out; `targets`: where the request goes, the first of them first.
///
/// # Errors
/// It names what the bot did not make, or what cannot be had with one key, or it
/// cannot be read or known what it names.
pub async fn ties(
    services: &Services,
    bot: &Bot,
    received: &Received,
    asked: &Asked<'_>,
    payload: &Payload<'_>,
    targets: &[Target<'_>],
) -> Result<Ties, Refusal> {
    let method = received.method.as_str();
    let resolved = match asked {
        Asked::Vendor { resolved, .. } => Some(resolved),
        Asked::Unified(_) => None,
    };
    let account = resolved.and_then(|resolved| resolved.account(method));
    let listens = listens(asked, account.as_ref(), resolved, received, payload);
    let stays = account == Some(Account::Make);
    let names = match &account {
        Some(account) => named_on_account_route(account, received, &payload.body)?,
        None => named_elsewhere(asked.protocol(), received, payload)?,
    };
    let Some(target) = targets.first().filter(|_| !names.is_empty()) else {
        return Ok(Ties { key: None, stays, listens });
    };
    let key = key_of(services, bot, &target.vendor.slug, &names).await?;
    Ok(Ties { key: Some(key), stays, listens })
}

/// The one key that made all of `names` for this bot.
///
/// # Errors
/// Another bot made one, or nobody did; or the control plane must be asked and is
/// away; or two keys made them.
pub async fn key_of(services: &Services, bot: &Bot, vendor: &str, names: &[String]) -> Result<Arc<str>, Refusal> {
    let makers = services.makers.find(&bot.tenant.id, vendor, names).await.map_err(|Away| away())?;
    let mut key: Option<Arc<str>> = None;
    for maker in makers {
        let own = maker.filter(|maker| *maker.bot == *bot.id);
        let Maker { key: with, .. } = own.ok_or_else(|| nobody(vendor))?;
        if key.as_ref().is_some_and(|other| *other != with) {
            let text = format!(
                "the request names things that live in the accounts of two provider keys of vendor {vendor}; one \
                 request can only go to one: make them again in one place"
            );
            return Err(Refusal::new(Code::BadRequest, text));
        }
        key = Some(with);
    }
    key.ok_or_else(|| nobody(vendor))
}

fn nobody(vendor: &str) -> Refusal {
    let text = format!(
        "the request names something in the account of vendor {vendor} that this bot has not made; a bot reaches what \
         it made itself, by the id that the answer gave it"
    );
    Refusal::new(Code::PathDenied, text)
}

fn away() -> Refusal {
    let text = "this node does not know who made what the request names, and cannot ask the control plane now; try \
                again in a moment";
    Refusal::new(Code::NotConfigured, text)
}

/// What the answer may name.
fn listens(
    asked: &Asked<'_>,
    account: Option<&Account>,
    resolved: Option<&Resolved<'_>>,
    received: &Received,
    payload: &Payload<'_>,
) -> Listens {
    if let Some(account) = account {
        let works = |pattern: &str| ["batch", "fine_tuning"].iter().any(|word| pattern.contains(word));
        return match account {
            Account::Make | Account::Use { makes: true, .. } => Listens::Things(Names::Made),
            Account::Elsewhere => Listens::Things(Names::Work),
            Account::Use { .. } if resolved.is_some_and(|found| works(&found.route.pattern)) => {
                Listens::Things(Names::Results)
            }
            Account::Use { .. } | Account::List => Listens::No,
        };
    }
    if received.method != Method::POST {
        return Listens::No;
    }
    let store = payload.peek.as_ref().and_then(|peek| peek.store);
    match asked.protocol() {
        Protocol::OpenAiResponses | Protocol::GeminiInteractions if store != Some(false) => Listens::Answer,
        Protocol::OpenAiChat if store == Some(true) => Listens::Answer,
        _ => Listens::No,
    }
}

/// What a request about things in the account names, in path, query and body.
fn named_on_account_route(account: &Account, received: &Received, body: &[u8]) -> Result<Vec<String>, Refusal> {
    let mut names = match account {
        Account::List => {
            let text = "the list would show what other bots made in the vendor account; ask for one thing by its id";
            return Err(Refusal::new(Code::PathDenied, text));
        }
        Account::Use { id, .. } => vec![id.clone()],
        Account::Make | Account::Elsewhere => Vec::new(),
    };
    names.extend(received.query.as_deref().map(in_query).unwrap_or_default());
    names.extend(named_in_body(&received.headers, body)?);
    if names.len() > MAX_ACCOUNT_IDS {
        return Err(unreadable(Unreadable::TooMany));
    }
    if *account == Account::Elsewhere && names.is_empty() {
        let text = "the request names nothing that this bot made; give the id where the vendor documents it";
        return Err(Refusal::new(Code::PathDenied, text));
    }
    Ok(names)
}

/// A body must show what it names; a file that is uploaded names nothing.
fn named_in_body(headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, Refusal> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    if is_encoded(headers) || kind.contains("urlencoded") || (kind.contains("multipart/form-data") && in_form(body)) {
        return Err(hidden());
    }
    if kind.contains("multipart") {
        return Ok(Vec::new());
    }
    match references(body, Wanted { account: true, items: false }) {
        Ok(names) => Ok(names),
        Err(Unreadable::NotJson) if !kind.contains("json") && body.trim_ascii_start().first() != Some(&b'{') => {
            Ok(Vec::new())
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// What a request to a model names.
fn named_elsewhere(protocol: Protocol, received: &Received, payload: &Payload<'_>) -> Result<Vec<String>, Refusal> {
    let items = protocol == Protocol::OpenAiResponses;
    let marks = match &payload.peek {
        Some(found) => found.marks,
        None => unseen(&received.method, &received.headers, &payload.body)?,
    };
    if !marks.any(items) {
        return Ok(Vec::new());
    }
    references(&payload.body, Wanted { account: false, items }).map_err(unreadable)
}

/// The marks of a body that was not looked into for anything else. What is no JSON
/// (sounds, forms) names nothing here; what may be one that cannot be read is
/// refused.
fn unseen(method: &Method, headers: &HeaderMap, body: &[u8]) -> Result<Marks, Refusal> {
    if *method != Method::POST || body.is_empty() {
        return Ok(Marks::NONE);
    }
    if is_encoded(headers) {
        return Err(hidden());
    }
    match body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start().first() {
        Some(b'{') => peek(body).map(|found| found.marks).map_err(|_| unreadable(Unreadable::NotJson)),
        _ => Ok(Marks::NONE),
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn hidden() -> Refusal {
    Refusal::new(Code::BadRequest, "ids can only be looked at in JSON; send the request as JSON, not encoded otherwise")
}

fn unreadable(error: Unreadable) -> Refusal {
    Refusal::new(Code::BadRequest, error.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(kind: &'static str) -> HeaderMap {
        [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect()
    }

    #[test]
    fn a_body_that_nobody_looked_into_hides_no_name() {
        let plain = HeaderMap::new();
        let marks = |body: &[u8]| unseen(&Method::POST, &plain, body).map(|marks| marks.any(false));
        assert!(marks(br#" {"previous_interaction_id":"v1_a"}"#).expect("JSON"));
        for body in [&b""[..], b"RIFF", b"--b\r\n", br#"{"input":"file_id"}"#] {
            assert!(!marks(body).expect("names nothing"));
        }
        for body in [&b"\xef\xbb\xbf{\"file_id\":\"a\"}"[..], b"{\"file_id\":\"a\",}", b"{"] {
            assert_eq!(marks(body).expect_err("may be JSON to the vendor").code, Code::BadRequest);
        }
        let packed: HeaderMap = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))].into_iter().collect();
        assert_eq!(unseen(&Method::POST, &packed, b"\x1f\x8b").expect_err("packed").code, Code::BadRequest);
        assert_eq!(unseen(&Method::POST, &packed, b"").expect("empty"), Marks::NONE);
    }

    #[test]
    fn a_body_shows_what_it_names_or_names_nothing() {
        let body = br#"{"input_file_id":"file-1"}"#;
        for kind in ["application/json", "text/plain", "image/png"] {
            assert_eq!(named_in_body(&headers(kind), body).expect(kind), ["file-1"]);
        }
        assert_eq!(named_in_body(&headers("image/png"), b"\x89PNG").expect("a picture"), [""; 0]);
        let form = b"--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b--";
        assert_eq!(named_in_body(&headers("multipart/form-data; boundary=b"), form).expect("an upload"), [""; 0]);
        let hides = b"--b\r\ncontent-disposition: form-data; name=\"file_id\"\r\n\r\nfile-1\r\n--b--";
        for (kind, body) in [
            ("application/json", &b"{,}"[..]),
            ("text/plain", b"{,}"),
            ("application/x-www-form-urlencoded", b"input_file_id=file-1"),
            ("multipart/form-data; boundary=b", hides),
        ] {
            assert_eq!(named_in_body(&headers(kind), body).expect_err(kind).code, Code::BadRequest, "{kind}");
        }
        let mut packed = headers("application/octet-stream");
        packed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(named_in_body(&packed, b"\x1f\x8b").is_err());
    }
}
