//! Everything that decides which bytes will be sent, short of the key: the
//! vendor, the route, the body and what is in it.

use std::borrow::Cow;

use bytes::Bytes;
use clawgate_shared::catalogue::{self, ResolveError, Resolved, RouteClass, Vendor, resolve};
use clawgate_shared::dialect::{Dialect, Protocol};
use clawgate_shared::token::masked;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method};

use super::Services;
use super::budget::Held;
use super::ports::{BodyError, Downstream};
use super::receive::Received;
use super::record::Facts;
use super::reject::Refusal;
use super::tunnel::asks_websocket;
use crate::snapshot::Bot;
use crate::wire::error::Code;
use crate::wire::peek::{Peek, peek};

/// A request ready to be sent with some key.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// Where it goes.
    pub vendor: &'a Vendor,
    /// What is called there.
    pub resolved: Resolved<'a>,
    /// The client's bytes.
    pub body: Bytes,
    /// What the body says, when it is JSON that we read.
    pub peek: Option<Peek>,
    /// The client asks for a WebSocket.
    pub websocket: bool,
    /// Whether usage may be asked for on the client's behalf, as far as the
    /// request and the bot go; the key has its own say.
    pub may_ask_usage: bool,
    _held: Held<'a>,
}

/// The dialect a caller of this path expects in a refusal, before anything is
/// known for sure.
pub fn likely_dialect(path: &str) -> Dialect {
    let below = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1/").unwrap_or("");
    let slug = below.split('/').next().unwrap_or("");
    catalogue::find(slug).map_or(Dialect::OpenAi, |vendor| vendor.dialect)
}

/// Finds vendor and route, reads the body and looks into it.
///
/// # Errors
/// Anything the bot may not do, and any body that cannot be had or read.
pub async fn prepare<'a, D: Downstream>(
    services: &'a Services,
    bot: &'a Bot,
    received: &'a Received,
    facts: &mut Facts,
    down: &mut D,
) -> Result<Prepared<'a>, Refusal> {
    let vendor = bot.tenant.vendor(&received.vendor).ok_or_else(|| {
        Refusal::new(Code::VendorUnknown, format!("vendor {:?} is not known here", masked(&received.vendor)))
    })?;
    if !bot.allowed_vendors.is_empty() && !bot.allowed_vendors.contains(&received.vendor) {
        return Err(Refusal::new(Code::VendorNotAllowed, format!("this bot may not use vendor {}", received.vendor)));
    }
    let resolved = resolve(vendor, received.method.as_str(), &received.rest).map_err(path_refusal)?;
    facts.dialect = resolved.dialect();
    facts.endpoint = masked(resolved.endpoint()).into_owned();
    if resolved.route.class == RouteClass::AccountResource && !bot.account_resources {
        let text = "this route holds account resources; the bot needs the permission account_resources";
        return Err(Refusal::new(Code::PathDenied, text));
    }
    let websocket = received.method == Method::GET && asks_websocket(&received.headers);
    if !websocket && only_as_session(&resolved) {
        let text = "this route takes GET only where a WebSocket is asked for";
        return Err(Refusal::new(Code::MethodNotAllowed, text));
    }
    let mut held = services.bodies.hold();
    let body = read_body(services, received, facts, &mut held, down).await?;
    let peek = look_into(&resolved, received, &body)?;
    facts.stream = peek.as_ref().and_then(|peek| peek.stream).unwrap_or(false) || resolved.streams_by_path();
    let named = resolved.model.as_deref().or(peek.as_ref().and_then(|p| p.model.as_ref()).map(|m| m.name.as_str()));
    let model = match named {
        Some(model) => Cow::Borrowed(model),
        None if bot.allowed_models.is_empty() && !websocket => Cow::Borrowed(""),
        None => Cow::Owned(model_elsewhere(received, &body)),
    };
    facts.model = masked(&model).into_owned();
    if model.is_empty() {
        if needs_model(&resolved) {
            return Err(Refusal::new(Code::ModelMissing, "the request body names no model"));
        }
        let spends =
            websocket || !matches!(received.method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
        // Those sessions name it in their messages, which are looked at.
        let later = websocket && matches!(resolved.route.protocol, Protocol::GeminiLive | Protocol::OpenAiResponses);
        if spends && !later && resolved.route.class == RouteClass::Inference && !bot.allowed_models.is_empty() {
            let text =
                "this bot may use only some models, and this request does not say its model where it can be seen";
            return Err(Refusal::new(Code::ModelNotAllowed, text));
        }
    } else if !bot.allows_model(&model) {
        return Err(Refusal::new(Code::ModelNotAllowed, format!("this bot may not use model {:?}", facts.model)));
    }
    let may_ask_usage = !bot.never_include_usage && facts.stream && resolved.route.protocol.has_stream_options();
    Ok(Prepared { vendor, resolved, body, peek, websocket, may_ask_usage, _held: held })
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

/// Reads the JSON of routes whose usage we read. Other bodies (audio, forms)
/// pass unseen, and so does what is not plain where nothing depends on it.
fn look_into(resolved: &Resolved<'_>, received: &Received, body: &Bytes) -> Result<Option<Peek>, Refusal> {
    if resolved.route.protocol == Protocol::Opaque || received.method != Method::POST || !is_json(&received.headers) {
        return Ok(None);
    }
    if !resolved.route.protocol.is_bounded() {
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
fn model_elsewhere(received: &Received, body: &Bytes) -> String {
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

const fn needs_model(resolved: &Resolved<'_>) -> bool {
    matches!(
        resolved.route.protocol,
        Protocol::OpenAiChat
            | Protocol::OpenAiCompletions
            | Protocol::OpenAiEmbeddings
            | Protocol::AnthropicMessages
            | Protocol::Gemini
    )
}
