//! Prices to look up by vendor, model and time.

use std::collections::HashMap;
use std::sync::Arc;

use super::price::Price;

/// A price and when it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unix microseconds, inclusive.
    pub from: i64,
    /// Exclusive.
    pub until: i64,
    /// Names this price for good, wherever a cost was computed with it.
    pub reference: Arc<str>,
    /// The price.
    pub price: Arc<Price>,
}

/// Prices from one source.
#[derive(Clone, Debug, Default)]
pub struct Book {
    vendors: HashMap<String, HashMap<String, Model>>,
}

/// All prices of one model, newest first.
#[derive(Clone, Debug)]
struct Model {
    /// As whoever set the first of them wrote it.
    name: Box<str>,
    entries: Vec<Entry>,
}

impl Book {
    /// Adds a price; an older one of the same model stays for the time before.
    pub fn add(&mut self, vendor: &str, model: &str, entry: Entry) {
        let models = self.vendors.entry(vendor.to_owned()).or_default();
        let known = models.entry(key(model)).or_insert_with(|| Model { name: model.into(), entries: Vec::new() });
        let entries = &mut known.entries;
        // Newest first; of two from the same moment, the one added last.
        let at = entries.partition_point(|known| known.from > entry.from);
        entries.insert(at, entry);
    }

    /// The price of the first of `names` (see [`super::candidates`]) that has
    /// one in effect at `at`.
    #[must_use]
    pub fn find(&self, vendor: &str, names: &[String], at: i64) -> Option<&Entry> {
        let models = self.vendors.get(vendor)?;
        names.iter().filter_map(|name| models.get(name)).find_map(|known| in_effect(&known.entries, at))
    }

    /// Every price in effect at `at`: vendor, model as it is looked up, price.
    pub fn at(&self, at: i64) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.vendors.iter().flat_map(move |(vendor, models)| {
            models.iter().filter_map(move |(model, known)| {
                Some((vendor.as_str(), model.as_str(), in_effect(&known.entries, at)?))
            })
        })
    }

    /// Every price of a vendor in effect at `at`: model as it is looked up, as it
    /// was written, price.
    pub fn of_vendor(&self, vendor: &str, at: i64) -> impl Iterator<Item = (&str, &str, &Entry)> {
        let models = self.vendors.get(vendor).into_iter().flatten();
        models.filter_map(move |(model, known)| Some((model.as_str(), &*known.name, in_effect(&known.entries, at)?)))
    }
}

fn in_effect(entries: &[Entry], at: i64) -> Option<&Entry> {
    entries.iter().find(|entry| entry.from <= at && at < entry.until)
}

/// How a model's name is compared: without case, `@` as `-`.
fn key(model: &str) -> String {
    model.to_ascii_lowercase().replace('@', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::{Component, Rate, Rates, candidates};

    fn entry(from: i64, until: i64, name: &str) -> Entry {
        let rates = Rates::default().with(Component::Input, Rate::ZERO);
        Entry { from, until, reference: name.into(), price: Arc::new(Price::flat(rates)) }
    }

    #[test]
    fn the_newest_price_in_effect_counts() {
        let mut book = Book::default();
        for (from, until, name) in [(0, i64::MAX, "old"), (100, i64::MAX, "new"), (200, 300, "promotion")] {
            book.add("openai", "GPT-4o", entry(from, until, name));
        }
        book.add("openai", "gpt-4o-2024-05-13", entry(0, i64::MAX, "dated"));
        let find = |model: &str, at| {
            book.find("openai", &candidates("openai", model), at).map(|entry| entry.reference.to_string())
        };
        for (model, at, wanted) in [
            ("gpt-4o", -1, None),
            ("gpt-4o", 0, Some("old")),
            ("gpt-4o", 99, Some("old")),
            ("gpt-4o", 100, Some("new")),
            ("gpt-4o", 200, Some("promotion")),
            ("gpt-4o", 300, Some("new")),
            ("gpt-4o-2024-08-06", 0, Some("old")),
            ("gpt-4o-2024-05-13", 0, Some("dated")),
            ("gpt-4o-mini", 0, None),
        ] {
            assert_eq!(find(model, at).as_deref(), wanted, "{model} {at}");
        }
        assert!(book.find("azure-openai", &candidates("azure-openai", "gpt-4o"), 0).is_none());
        assert_eq!(book.at(250).count(), 2);
        let mut written: Vec<_> = book.of_vendor("openai", 250).map(|(_, name, _)| name).collect();
        written.sort_unstable();
        assert_eq!(written, ["GPT-4o", "gpt-4o-2024-05-13"]);
        assert_eq!(book.of_vendor("anthropic", 250).count(), 0);
    }
}
