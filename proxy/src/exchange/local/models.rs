//! Which models a bot may use, as far as anybody has named them: its aliases,
//! the literal names on its list, and those with a price at vendors for which it
//! has a key.

use std::collections::BTreeMap;

use clawgate_shared::catalogue::Vendor;
use clawgate_shared::clock;
use clawgate_shared::pricing::Entry;
use clawgate_shared::token::masked;
use serde_json::{Value, json};

use super::Refusal;
use crate::routing::names::qualified;
use crate::routing::{Place, Reading};
use crate::snapshot::Bot;
use crate::wire::error::Code;

/// Most models of one list.
const MAX_LISTED: usize = 5000;

/// A model at a vendor for which the bot has a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    /// Whose.
    pub vendor: &'a Vendor,
    /// As the vendor knows it.
    pub model: &'a str,
    /// What it costs, if that is known.
    pub price: Option<&'a Entry>,
}

/// One name on the list, and whose it is; empty: the route decides.
struct Listed<'a> {
    id: String,
    owner: &'a str,
}

/// Every vendor that the bot may use and has a key for, by slug.
pub(super) fn vendors(bot: &Bot) -> BTreeMap<&str, &Vendor> {
    let with_keys = bot.pools.iter().filter(|(_, pool)| !pool.keys.is_empty()).map(|(slug, _)| &**slug);
    with_keys.filter(|slug| bot.allows_vendor(slug)).filter_map(|slug| Some((slug, bot.tenant.vendor(slug)?))).collect()
}

/// The models of one vendor that the bot may use, by name.
pub(super) fn offers<'a>(bot: &'a Bot, vendor: &'a Vendor, now: i64) -> Vec<Offer<'a>> {
    let slug: &str = &vendor.slug;
    let mut found: BTreeMap<&str, Offer<'a>> = BTreeMap::new();
    for (_, book) in bot.tenant.prices.of(&bot.tenant.id) {
        for (key, model, entry) in book.of_vendor(slug, now) {
            found.entry(key).or_insert(Offer { vendor, model, price: Some(entry) });
        }
    }
    let mut offers: Vec<_> = found.into_values().filter(|offer| bot.allows_model(slug, offer.model)).collect();
    for place in bot.literal_models.iter().filter_map(|name| qualified(name, |known| known == slug)) {
        if !offers.iter().any(|offer| offer.model == place.model) {
            offers.push(Offer { vendor, model: place.model, price: None });
        }
    }
    offers.truncate(MAX_LISTED);
    offers
}

/// Every alias that leads to a vendor for which the bot has a key, by name.
pub(super) fn aliases<'a>(bot: &'a Bot, home: &'a str) -> BTreeMap<&'a str, Place<'a>> {
    let vendors = vendors(bot);
    let knows = |slug: &str| bot.tenant.vendor(slug).is_some();
    let reading = Reading { home, open: true, knows };
    let places = bot.names.aliases().map(|(alias, _)| (alias, bot.names.place(alias, &reading)));
    places
        .filter(|(_, place)| vendors.contains_key(place.vendor) && bot.allows_model(place.vendor, place.model))
        .collect()
}

fn listed<'a>(bot: &'a Bot, home: &'a str) -> Vec<Listed<'a>> {
    let aliases = aliases(bot, home);
    let mut all: Vec<_> =
        aliases.into_iter().map(|(alias, place)| Listed { id: alias.to_owned(), owner: place.vendor }).collect();
    let now = clock::now_micros();
    let mut named = Vec::new();
    for vendor in vendors(bot).into_values() {
        for Offer { vendor, model, .. } in offers(bot, vendor, now) {
            all.push(Listed { id: format!("{}/{model}", vendor.slug), owner: &vendor.slug });
            named.push(model);
        }
    }
    let knows = |slug: &str| bot.tenant.vendor(slug).is_some();
    let bare = bot.literal_models.iter().filter(|name| qualified(name, knows).is_none());
    let unpriced = bare.filter(|name| !named.contains(&name.as_str()) && !all.iter().any(|one| one.id == **name));
    let unpriced: Vec<_> = unpriced.map(|name| Listed { id: name.clone(), owner: "" }).collect();
    all.extend(unpriced);
    all.truncate(MAX_LISTED);
    all
}

const fn home(anthropic: bool) -> &'static str {
    if anthropic { "anthropic" } else { "openai" }
}

/// `GET /v1/models`
pub(super) fn list(bot: &Bot, anthropic: bool) -> Value {
    let all = listed(bot, home(anthropic));
    let data: Vec<Value> = all.iter().map(|one| shape(one, anthropic)).collect();
    if anthropic {
        let id = |one: Option<&Listed<'_>>| one.map(|one| one.id.clone());
        return json!({ "first_id": id(all.first()), "last_id": id(all.last()), "has_more": false, "data": data });
    }
    json!({ "object": "list", "data": data })
}

/// `GET /v1/models/{id}`: by the name on the list, or without the vendor that is
/// meant when there is none.
///
/// # Errors
/// The bot has no such model.
pub(super) fn one(bot: &Bot, anthropic: bool, id: &str) -> Result<Value, Refusal> {
    let home = home(anthropic);
    let all = listed(bot, home);
    let full = format!("{home}/{id}");
    let found = [id, &full].into_iter().find_map(|id| all.iter().find(|one| one.id == id));
    found.map(|one| shape(one, anthropic)).ok_or_else(|| {
        let text = format!("model {:?} is not among those of this bot; see GET /v1/models", masked(id));
        Refusal::new(Code::RouteUnknown, text)
    })
}

fn shape(one: &Listed<'_>, anthropic: bool) -> Value {
    // When a model was made is not known here; both dialects want to be told.
    if anthropic {
        return json!({
            "type": "model", "id": one.id, "display_name": one.id, "created_at": "1970-01-01T00:00:00Z",
        });
    }
    json!({ "id": one.id, "object": "model", "created": 0, "owned_by": one.owner })
}
