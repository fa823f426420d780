//! Everything that decides which bytes will be sent, short of vendor and key: the
//! route, the body and what is in it; then, for each place it may go to, what
//! makes the request that place's own.

use bytes::Bytes;
use clawgate_shared::catalogue::{RESERVED_SLUGS, ResolveError, Resolved, RouteClass, UnifiedRoute, Vendor, resolve};
use clawgate_shared::dialect::Protocol;
use clawgate_shared::token::masked;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method};

use super::Services;
use super::budget::Held;
use super::ports::{BodyError, Downstream};
use super::receive::{Received, Wanted, unknown_route};
use super::record::Facts;
use super::reject::Refusal;
use super::target::Target;
use super::tunnel::asks_websocket;
use crate::snapshot::Bot;
use crate::wire::error::Code;
use crate::wire::peek::{Peek, peek};
use crate::wire::splice::{self, Splice};

/// The route that was asked for, once it is sure that it may be called.
#[derive(Debug)]
pub enum Asked<'a> {
    /// A vendor's.
    Vendor {
        /// Whose.
        vendor: &'a Vendor,
        /// What follows it in the path.
        rest: &'a str,
        /// What is called there.
        resolved: Resolved<'a>,
    },
    /// One of all vendors.
    Unified(UnifiedRoute),
}

impl Asked<'_> {
    /// What is spoken on it.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Vendor { resolved, .. } => resolved.route.protocol,
            Self::Unified(route) => route.protocol(),
        }
    }
}

/// What came with a request.
#[derive(Debug)]
pub struct Payload<'a> {
    /// The client's bytes.
    pub body: Bytes,
    /// What they say, when they are JSON that we read.
    pub peek: Option<Peek>,
    /// The client asks for a WebSocket.
    pub websocket: bool,
    _held: Held<'a>,
}

/// A request ready to be sent to one vendor with some key.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// Where it goes.
    pub vendor: &'a Vendor,
    /// What is called there.
    pub resolved: Resolved<'a>,
    /// The client's bytes.
    pub body: &'a Bytes,
    /// What the body says, when it is JSON that we read.
    pub peek: Option<&'a Peek>,
    /// The client asks for a WebSocket.
    pub websocket: bool,
    /// What puts the vendor's name of the model in the place of the client's.
    pub rename: Option<Splice>,
    /// Whether usage may be asked for on the client's behalf, as far as the
    /// request and the bot go; the key has its own say.
    pub may_ask_usage: bool,
}

/// Finds the route.
///
/// # Errors
/// There is none, or the bot may not call it.
pub fn asked<'a>(bot: &'a Bot, received: &'a Received, facts: &mut Facts) -> Result<Asked<'a>, Refusal> {
    let (slug, rest) = match &received.wanted {
        Wanted::Vendor { vendor, rest } => (vendor, rest),
        Wanted::Unified(route) => {
            facts.endpoint = route.path().to_owned();
            if received.method != Method::POST {
                let text = "the route does not take this method; allowed: POST";
                return Err(Refusal::new(Code::MethodNotAllowed, text));
            }
            return Ok(Asked::Unified(*route));
        }
        Wanted::Local(page) => return Err(unknown_route(page.path())),
    };
    facts.vendor = masked(slug).into_owned();
    let vendor = bot.tenant.vendor(slug).ok_or_else(|| {
        if RESERVED_SLUGS.contains(&slug.as_str()) {
            return unknown_route(&facts.path);
        }
        Refusal::new(Code::VendorUnknown, format!("vendor {:?} is not known here", masked(slug)))
    })?;
    may_use_vendor(bot, slug)?;
    let resolved = resolve(vendor, received.method.as_str(), rest).map_err(path_refusal)?;
    facts.dialect = resolved.dialect();
    facts.endpoint = masked(resolved.endpoint()).into_owned();
    if matches!(resolved.route.class, RouteClass::AccountResource(_)) && !bot.account_resources {
        let text = "this route holds account resources; the bot needs the permission account_resources";
        return Err(Refusal::new(Code::PathDenied, text));
    }
    if only_as_session(&resolved) && !wants_websocket(received) {
        let text = "this route takes GET only where a WebSocket is asked for";
        return Err(Refusal::new(Code::MethodNotAllowed, text));
    }
    Ok(Asked::Vendor { vendor, rest, resolved })
}

fn wants_websocket(received: &Received) -> bool {
    received.method == Method::GET && asks_websocket(&received.headers)
}

/// Whether the bot may use a vendor.
///
/// # Errors
/// It may not.
pub fn may_use_vendor(bot: &Bot, slug: &str) -> Result<(), Refusal> {
    if bot.allows_vendor(slug) {
        return Ok(());
    }
    Err(Refusal::new(Code::VendorNotAllowed, format!("this bot may not use vendor {slug}")))
}

/// Reads the body and looks into it.
///
/// # Errors
/// It cannot be had, or not be read and must be.
pub async fn payload<'s, D: Downstream>(
    services: &'s Services,
    bot: &Bot,
    received: &Received,
    asked: &Asked<'_>,
    facts: &mut Facts,
    down: &mut D,
) -> Result<Payload<'s>, Refusal> {
    let mut held = services.bodies.hold();
    let body = read_body(services, received, facts, &mut held, down).await?;
    let peek = look_into(bot, asked, received, &body)?;
    let by_path = matches!(asked, Asked::Vendor { resolved, .. } if resolved.streams_by_path());
    facts.stream = peek.as_ref().and_then(|peek| peek.stream).unwrap_or(false) || by_path;
    let websocket = wants_websocket(received);
    Ok(Payload { body, peek, websocket, _held: held })
}

/// Makes the request that of one target. `known`: its path, resolved already.
///
/// # Errors
/// The target's path is none that may be called.
pub fn aim<'t>(
    bot: &Bot,
    received: &Received,
    payload: &'t Payload<'_>,
    target: &'t Target<'_>,
    known: Option<Resolved<'t>>,
    facts: &mut Facts,
) -> Result<Prepared<'t>, Refusal> {
    let vendor: &'t Vendor = target.vendor;
    facts.point(&vendor.slug, &target.model);
    let resolved = match known {
        Some(resolved) => resolved,
        None => {
            let resolved = resolve(vendor, received.method.as_str(), &target.rest).map_err(path_refusal)?;
            facts.endpoint = masked(resolved.endpoint()).into_owned();
            resolved
        }
    };
    let peek = payload.peek.as_ref();
    let rename = if target.renamed { peek.and_then(|peek| splice::model(peek, &target.model)) } else { None };
    let may_ask_usage = !bot.never_include_usage && facts.stream && resolved.route.protocol.has_stream_options();
    let Payload { body, websocket, .. } = payload;
    Ok(Prepared { vendor, resolved, body, peek, websocket: *websocket, rename, may_ask_usage })
}

fn path_refusal(error: ResolveError) -> Refusal {
    let code = match error {
        ResolveError::Empty => Code::RouteUnknown,
        ResolveError::Unsafe => Code::BadRequest,
        ResolveError::NotListed | ResolveError::Forbidden => Code::PathDenied,
        ResolveError::Method { .. } => Code::MethodNotAllowed,
    };
    let message = match &error {
        ResolveError::Method { allowed } => format!("{error}; allowed: {}", allowed.join(", ")),
        _ => error.to_string(),
    };
    Refusal::new(code, message)
}

async fn read_body<D: Downstream>(
    services: &Services,
    received: &Received,
    facts: &mut Facts,
    held: &mut Held<'_>,
    down: &mut D,
) -> Result<Bytes, Refusal> {
    let framed = received.headers.contains_key(CONTENT_LENGTH) || received.headers.contains_key(TRANSFER_ENCODING);
    if !framed && matches!(received.method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS) {
        return Ok(Bytes::new());
    }
    let limit = services.bodies.each;
    let before = facts.elapsed_micros();
    let read = down.read_body(limit, held).await;
    facts.waited_micros += facts.elapsed_micros().saturating_sub(before);
    read.map_err(|error| match error {
        BodyError::TooLarge => {
            Refusal::new(Code::RequestTooLarge, format!("the request body is larger than {limit} bytes"))
        }
        BodyError::NoRoom => {
            Refusal::new(Code::Overloaded, "this node holds as many request bodies as it may; try again in a moment")
        }
        BodyError::Timeout => Refusal::new(Code::RequestTimeout, "the request body did not arrive in time"),
        BodyError::Gone => Refusal::new(Code::BadRequest, "the client closed the connection within the request body"),
        BodyError::Malformed => Refusal::new(Code::BadRequest, "the request body's framing is not valid HTTP"),
    })
}

/// Reads the JSON of routes whose usage we read or whose model decides where they
/// lead. Other bodies (audio, forms) pass unseen, and so does what is not plain
/// where nothing depends on it.
fn look_into(bot: &Bot, asked: &Asked<'_>, received: &Received, body: &Bytes) -> Result<Option<Peek>, Refusal> {
    let protocol = asked.protocol();
    if received.method != Method::POST || !is_json(&received.headers) {
        return Ok(None);
    }
    if protocol == Protocol::Opaque && bot.names.is_empty() {
        return Ok(None);
    }
    if !protocol.is_bounded() && matches!(asked, Asked::Vendor { .. }) {
        return Ok(plain(body));
    }
    let refused = |text: String| Refusal::new(Code::BadRequest, text);
    let found = peek(body).map_err(|error| refused(error.to_string()))?;
    if let Some(name) = found.repeated {
        // The vendor might heed another one than was checked here.
        return Err(refused(format!("the field {name:?} stands more than once in the request body; send it once")));
    }
    if found.model_is_no_text {
        return Err(refused("the field \"model\" of the request body must be a string".to_owned()));
    }
    Ok(Some(found))
}

/// The model of a request that is not looked into otherwise (an image, speech,
/// a WebSocket): from its JSON, or from its query. Empty when it is not plain.
pub(super) fn model_elsewhere(received: &Received, body: &Bytes) -> String {
    if received.method == Method::POST {
        let found = is_json(&received.headers).then(|| plain(body)).flatten();
        return found.and_then(|found| found.model).map(|model| model.name).unwrap_or_default();
    }
    let deployments = received.query_values("deployment");
    let mut values = received.query_values("model").chain(deployments);
    values.next().filter(|_| values.next().is_none()).unwrap_or_default()
}

/// What is answered to a plain GET there is another thing than a session.
fn only_as_session(resolved: &Resolved<'_>) -> bool {
    resolved.route.protocol == Protocol::OpenAiResponses && *resolved.route.methods == ["GET"]
}

/// What a body says, if it says everything once.
fn plain(body: &Bytes) -> Option<Peek> {
    peek(body).ok().filter(|found| found.repeated.is_none() && !found.model_is_no_text)
}

/// A missing content type is taken for JSON, as vendors do.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let text = value.to_str().unwrap_or("");
    let kind = text.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json") || !kind.contains("multipart")
}
