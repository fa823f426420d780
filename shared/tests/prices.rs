//! The whole price file: it is read, and the built-in prices are what it says.

#![allow(clippy::expect_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clawgate_shared::pricing::litellm::{self, PriceFile};
use clawgate_shared::pricing::{Band, Price, ServiceTier, builtin, candidates};

/// Where the price file is; `None`, said aloud, when it is not there.
fn price_file() -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "a test finds its data")]
    let given = |name| std::env::var(name).ok();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/prices");
    let path = given("CLAWGATE_PRICES").map_or(default, PathBuf::from).join("model_prices.json");
    if path.is_file() {
        return Some(path);
    }
    assert!(given("CI").is_none(), "no price file at {}", path.display());
    eprintln!("SKIPPED: no price file at {}", path.display());
    None
}

fn read() -> Option<PriceFile> {
    let bytes = std::fs::read(price_file()?).expect("readable");
    Some(litellm::parse(&bytes).expect("a price file"))
}

/// What the built-in list may know of a price.
fn standard(price: &Price) -> Price {
    Price::new(price.bands().iter().copied().filter(|band: &Band| band.tier == ServiceTier::Standard))
}

#[test]
fn the_whole_file_is_read() {
    let Some(file) = read() else { return };
    let mut vendors: BTreeMap<&str, usize> = BTreeMap::new();
    for listed in &file.models {
        *vendors.entry(listed.vendor).or_default() += 1;
    }
    eprintln!("{vendors:?}, {} of other vendors, {} not by token", file.other_vendors, file.not_by_token);
    assert!(file.models.len() > 1500, "{}", file.models.len());
    for (vendor, count) in [("openai", 130), ("anthropic", 20), ("google", 50), ("azure-openai", 300), ("bedrock", 400)]
    {
        assert!(vendors.get(vendor).is_some_and(|found| *found >= count), "{vendor}: {vendors:?}");
    }
    let tiers = |tier| file.models.iter().filter(|m| m.price.bands().iter().any(|band| band.tier == tier)).count();
    for tier in [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority] {
        assert!(tiers(tier) > 50, "{tier:?}");
    }
    for listed in &file.models {
        assert_eq!(Price::from_json(&listed.price.to_json()).as_ref(), Ok(&listed.price), "{}", listed.model);
    }
}

#[test]
fn built_in_prices_are_those_of_the_file() {
    let Some(file) = read() else { return };
    let mut wrong = Vec::new();
    for fact in builtin::all() {
        let listed = file.models.iter().find(|m| m.vendor == fact.vendor && m.model == fact.model);
        match listed.map(|listed| standard(&listed.price)) {
            Some(price) if price == fact.price => {}
            other => wrong.push(format!("{} {}: {:?}", fact.vendor, fact.model, other.map(|p| p.to_json()))),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A name that only resembles one of the list (a date, a variant) must not get
/// another model's price.
#[test]
fn no_model_gets_the_built_in_price_of_another() {
    let Some(file) = read() else { return };
    let mut wrong = Vec::new();
    for listed in &file.models {
        let names = candidates(listed.vendor, &listed.model);
        let Some(entry) = builtin::book().find(listed.vendor, &names, 0) else { continue };
        if *entry.price != standard(&listed.price) {
            wrong.push(format!("{} {} gets {}", listed.vendor, listed.model, entry.reference));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
