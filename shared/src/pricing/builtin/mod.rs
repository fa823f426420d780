//! The built-in catalogue of prices.
//!
//! Invariant: `prices.txt` has facts as the vendors publish them, each vendor's
//! with its source and the day it was read; a test compares them with a price
//! file where there is one.
//! Deliberately absent: batch, flex and priority rates, and models that few use;
//! those come by import.

use std::sync::{Arc, LazyLock};

use super::book::{Book, Entry};
use super::price::{Band, Component, Price, Rates, ServiceTier};

const TEXT: &str = include_str!("prices.txt");

/// Columns of a line, after the model.
const COLUMNS: [Component; 5] =
    [Component::Input, Component::CachedInput, Component::CacheWrite, Component::CacheWrite1h, Component::Output];

/// The price of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Slug of the catalogue.
    pub vendor: &'static str,
    /// In lower case.
    pub model: &'static str,
    /// The price.
    pub price: Price,
    /// Where the vendor publishes it.
    pub source: &'static str,
    /// The day it was read, `YYYY-MM-DD`.
    pub date: &'static str,
}

static FACTS: LazyLock<Vec<Fact>> = LazyLock::new(|| parse(TEXT).unwrap_or_default());

static BOOK: LazyLock<Book> = LazyLock::new(|| {
    let mut book = Book::default();
    for fact in all() {
        let reference = Arc::from(format!("builtin/{}/{}@{}", fact.vendor, fact.model, fact.date));
        let price = Arc::new(fact.price.clone());
        book.add(fact.vendor, fact.model, Entry { from: i64::MIN, until: i64::MAX, reference, price });
    }
    book
});

/// Every fact, in the order of the list.
#[must_use]
pub fn all() -> &'static [Fact] {
    &FACTS
}

/// The facts, to look up. They hold at any time: what a model cost before is
/// not known here.
#[must_use]
pub fn book() -> &'static Book {
    &BOOK
}

/// `None`: a line cannot be read; which a test rules out.
fn parse(text: &'static str) -> Option<Vec<Fact>> {
    let mut facts: Vec<Fact> = Vec::new();
    let mut heading = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(' ');
        let model = words.next()?;
        if model == "vendor" {
            heading = Some((words.next()?, words.next()?, words.next()?));
            continue;
        }
        let (vendor, source, date) = heading?;
        let mut words = words.peekable();
        let above = match words.next_if(|word| word.starts_with('>')) {
            Some(word) => word.get(1..)?.parse().ok()?,
            None => 0,
        };
        let band = Band { tier: ServiceTier::Standard, above, rates: rates(words)? };
        match facts.last_mut() {
            Some(last) if last.model == model && last.vendor == vendor => {
                let bands = last.price.bands().iter().copied().chain([band]);
                last.price = Price::new(bands);
            }
            _ => facts.push(Fact { vendor, model, price: Price::new([band]), source, date }),
        }
    }
    Some(facts)
}

fn rates<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Rates> {
    let mut rates = Rates::default();
    for component in COLUMNS {
        match words.next()? {
            "-" => {}
            text => rates.set(component, component.rate(text).ok()?),
        }
    }
    for word in words {
        let (name, text) = word.split_once('=')?;
        let component = Component::ALL.into_iter().find(|component| component.as_str() == name)?;
        rates.set(component, component.rate(text).ok()?);
    }
    Some(rates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::pricing::{Spent, candidates, cost};

    #[test]
    fn every_line_is_read_and_every_vendor_known() {
        let facts = parse(TEXT).expect("readable");
        assert!(facts.len() > 150, "{}", facts.len());
        for fact in &facts {
            assert!(catalogue::find(fact.vendor).is_some(), "{}", fact.vendor);
            assert!(fact.source.starts_with("https://") && fact.date.len() == 10, "{}", fact.model);
            assert_eq!(fact.model, fact.model.to_ascii_lowercase());
            assert!(fact.price.own_rate(Component::Input, ServiceTier::Standard, 0).is_some(), "{}", fact.model);
            let same = |other: &&Fact| (other.vendor, other.model) == (fact.vendor, fact.model);
            assert_eq!(facts.iter().filter(same).count(), 1, "{} twice", fact.model);
        }
        for (vendor, count) in [("openai", 50), ("anthropic", 15), ("google", 15), ("deepseek", 4), ("mistral", 15)] {
            let found = facts.iter().filter(|fact| fact.vendor == vendor).count();
            assert!(found >= count, "{vendor}: {found}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read_are_refused() {
        for text in
            ["m 1 - - - 1", "vendor v s d\nm 1 - - -", "vendor v s d\nm x - - - 1", "vendor v s d\nm 1 - - - 1 a=1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_dated_model_is_found_and_costs_what_it_does() {
        let names = candidates("openai", "gpt-4o-2024-08-06");
        let entry = book().find("openai", &names, 0).expect("a price");
        assert!(entry.reference.starts_with("builtin/openai/gpt-4o@"), "{}", entry.reference);
        let spent = Spent { input: 1000, cached_input: 400, output: 100, ..Spent::default() };
        assert_eq!(cost(&spent, &entry.price, ServiceTier::Standard), Some(1500 + 500 + 1000));
    }
}
