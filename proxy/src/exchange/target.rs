//! Where a request may go: the place that its model's name says, and those behind
//! it that are tried when that one has nothing left.
//!
//! All of them speak the protocol that was asked for, and the bot may use them
//! all. What is not so is refused at the first place and left out behind it.

use std::borrow::Cow;

use clawgate_shared::catalogue::{Resolved, RouteClass, UnifiedRoute, Vendor, resolve};
use clawgate_shared::dialect::Protocol;
use clawgate_shared::token::masked;
use http::Method;
use smallvec::SmallVec;

use super::prepare::{Asked, Payload, may_use_vendor, model_elsewhere};
use super::receive::Received;
use super::record::Facts;
use super::reject::Refusal;
use crate::routing::{Place, Reading};
use crate::snapshot::Bot;
use crate::wire::error::Code;

/// One place that a request may go to.
#[derive(Debug)]
pub struct Target<'a> {
    /// Whose.
    pub vendor: &'a Vendor,
    /// The path below the vendor.
    pub rest: Cow<'a, str>,
    /// As the vendor knows it; empty: the request names none.
    pub model: Cow<'a, str>,
    /// The body names it otherwise.
    pub renamed: bool,
}

/// Most requests have one.
pub type Targets<'a> = SmallVec<[Target<'a>; 1]>;

/// Finds them.
///
/// # Errors
/// The request names no model and has to, or one that leads nowhere or where the
/// bot may not go.
pub fn targets<'a>(
    bot: &'a Bot,
    received: &'a Received,
    asked: &Asked<'a>,
    payload: &'a Payload<'_>,
    facts: &mut Facts,
) -> Result<Targets<'a>, Refusal> {
    match asked {
        Asked::Unified(route) => unified(bot, *route, payload, facts),
        Asked::Vendor { vendor, rest, resolved } => {
            of_vendor(bot, received, payload, &Route { vendor, rest, resolved }, facts)
        }
    }
}

/// Looks a place's vendor up, and whether the bot may use both.
fn reach<'a>(bot: &'a Bot, place: Place<'_>) -> Result<&'a Vendor, Refusal> {
    let unknown = || Refusal::new(Code::VendorUnknown, format!("vendor {:?} is not known here", masked(place.vendor)));
    let vendor = bot.tenant.vendor(place.vendor).ok_or_else(unknown)?;
    may_use_vendor(bot, place.vendor)?;
    if !bot.allows_model(place.vendor, place.model) {
        let model = masked(place.model);
        return Err(Refusal::new(Code::ModelNotAllowed, format!("this bot may not use model {model:?}")));
    }
    Ok(vendor)
}

fn unified<'a>(
    bot: &'a Bot,
    route: UnifiedRoute,
    payload: &'a Payload<'_>,
    facts: &mut Facts,
) -> Result<Targets<'a>, Refusal> {
    let named = payload.peek.as_ref().and_then(|peek| peek.model.as_ref()).map_or("", |model| model.name.as_str());
    if named.is_empty() {
        return Err(Refusal::new(Code::ModelMissing, "the request body names no model"));
    }
    let knows = |slug: &str| bot.tenant.vendor(slug).is_some();
    let reading = Reading { home: route.home(), open: true, knows };
    let place = bot.names.place(named, &reading);
    (facts.vendor, facts.model) = (place.vendor.to_owned(), masked(place.model).into_owned());
    let target = |vendor: &'a Vendor, rest, place: Place<'a>| Target {
        vendor,
        rest,
        model: Cow::Borrowed(place.model),
        renamed: place.model != named,
    };
    let vendor = reach(bot, place)?;
    let rest = route.at(vendor).ok_or_else(|| {
        let (slug, path) = (&vendor.slug, route.path());
        let text = format!("vendor {slug} has no route {path}; send model {:?} to a route that it has", facts.model);
        Refusal::new(Code::RouteUnknown, text)
    })?;
    let mut targets = Targets::new();
    targets.push(target(vendor, rest, place));
    for next in bot.names.fallbacks(named, place, &reading) {
        let Ok(vendor) = reach(bot, next) else { continue };
        targets.extend(route.at(vendor).map(|rest| target(vendor, rest, next)));
    }
    Ok(targets)
}

/// A vendor's route as it was asked for.
struct Route<'r, 'a> {
    vendor: &'a Vendor,
    rest: &'a str,
    resolved: &'r Resolved<'a>,
}

impl<'a> Route<'_, 'a> {
    /// The same route of the same vendor for another model.
    fn renamed(&self, model: &str) -> Target<'a> {
        let in_path = self.resolved.with_model(self.rest, model);
        let renamed = in_path.is_none();
        let rest = in_path.map_or(Cow::Borrowed(self.rest), Cow::Owned);
        Target { vendor: self.vendor, rest, model: Cow::Owned(model.to_owned()), renamed }
    }

    /// The same for a model that may be at another vendor. `None`: that one does
    /// not speak this protocol.
    fn at(&self, vendor: &'a Vendor, model: &str) -> Option<Target<'a>> {
        let mut target = self.renamed(model);
        if vendor.slug != self.vendor.slug {
            target.vendor = vendor;
            match UnifiedRoute::of_route(self.resolved.route) {
                Some(route) => (target.rest, target.renamed) = (route.at(vendor)?, true),
                // Equal paths say nothing of what is spoken there.
                None if self.resolved.route.protocol == Protocol::Opaque => return None,
                None => {}
            }
        }
        let found = resolve(vendor, "POST", &target.rest).ok()?;
        let speaks = found.route.protocol == self.resolved.route.protocol && found.route.class == RouteClass::Inference;
        speaks.then_some(target)
    }
}

fn of_vendor<'a>(
    bot: &'a Bot,
    received: &'a Received,
    payload: &'a Payload<'_>,
    route: &Route<'_, 'a>,
    facts: &mut Facts,
) -> Result<Targets<'a>, Refusal> {
    let in_body = payload.peek.as_ref().and_then(|peek| peek.model.as_ref()).map(|model| model.name.as_str());
    let named = route.resolved.model.as_deref().or(in_body);
    if let Some(name) = named.filter(|name| !name.is_empty() && !bot.names.is_empty()) {
        return named_otherwise(bot, route, name, received.method == Method::POST, facts);
    }
    let model = match (route.resolved.model.as_deref(), in_body) {
        (Some(model), _) => Cow::Owned(model.to_owned()),
        (None, Some(model)) => Cow::Borrowed(model),
        (None, None) if bot.allowed_models.is_empty() && !payload.websocket => Cow::Borrowed(""),
        (None, None) => Cow::Owned(model_elsewhere(received, &payload.body)),
    };
    facts.model = masked(&model).into_owned();
    if model.is_empty() {
        may_go_without(bot, received, payload, route.resolved)?;
    } else {
        reach(bot, Place { vendor: &route.vendor.slug, model: &model })?;
    }
    let mut targets = Targets::new();
    targets.push(Target { vendor: route.vendor, rest: Cow::Borrowed(route.rest), model, renamed: false });
    Ok(targets)
}

/// A request of a bot that has names of its own.
fn named_otherwise<'a>(
    bot: &'a Bot,
    route: &Route<'_, 'a>,
    name: &str,
    falls_back: bool,
    facts: &mut Facts,
) -> Result<Targets<'a>, Refusal> {
    let slug: &str = &route.vendor.slug;
    let knows = |slug: &str| bot.tenant.vendor(slug).is_some();
    let reading = Reading { home: slug, open: false, knows };
    let place = bot.names.place(name, &reading);
    facts.model = masked(place.model).into_owned();
    if place.vendor != slug {
        let (alias, vendor) = (masked(name), place.vendor);
        let text = format!(
            "model alias {alias:?} leads to vendor {vendor}, and this is a route of {slug}; use a unified route such \
             as /v1/chat/completions, or a model of {slug}"
        );
        return Err(Refusal::new(Code::BadRequest, text));
    }
    reach(bot, place)?;
    let first = if place.model == name {
        let model = Cow::Owned(name.to_owned());
        Target { vendor: route.vendor, rest: Cow::Borrowed(route.rest), model, renamed: false }
    } else {
        route.renamed(place.model)
    };
    let mut targets = Targets::new();
    targets.push(first);
    if falls_back && route.resolved.route.class == RouteClass::Inference {
        for next in bot.names.fallbacks(name, place, &reading) {
            let Ok(vendor) = reach(bot, next) else { continue };
            targets.extend(route.at(vendor, next.model));
        }
    }
    Ok(targets)
}

/// Whether a request may leave without a model that can be seen.
fn may_go_without(
    bot: &Bot,
    received: &Received,
    payload: &Payload<'_>,
    resolved: &Resolved<'_>,
) -> Result<(), Refusal> {
    if needs_model(resolved) {
        return Err(Refusal::new(Code::ModelMissing, "the request body names no model"));
    }
    let reads = matches!(received.method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    let spends = payload.websocket || !reads;
    // Those sessions name it in their messages, which are looked at.
    let session = matches!(resolved.route.protocol, Protocol::GeminiLive | Protocol::OpenAiResponses);
    let later = payload.websocket && session;
    if spends && !later && resolved.route.class == RouteClass::Inference && !bot.allowed_models.is_empty() {
        let text = "this bot may use only some models, and this request does not say its model where it can be seen";
        return Err(Refusal::new(Code::ModelNotAllowed, text));
    }
    Ok(())
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
