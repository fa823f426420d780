//! Prices: set, replaced, imported, and what is in effect when.

use clawgate_control::domain::prices::{self, Imported, NewPrice};
use clawgate_control::domain::{Domain, Role};
use clawgate_control::prices::{Prices, Source};
use clawgate_control::store;
use clawgate_control::store::prices::PriceSource;
use clawgate_shared::clock;
use clawgate_shared::pricing::litellm::{Listed, PriceFile};
use clawgate_shared::pricing::{Component, Price, Rate, Rates, ServiceTier, candidates};

use crate::config::{broken, member, root};

fn price(input: &str) -> Price {
    let rate = Rate::per_million(input).expect("a rate");
    Price::flat(Rates::default().with(Component::Input, rate))
}

fn new(model: &str, input: &str, effective_from: Option<i64>) -> NewPrice {
    NewPrice { vendor: "openai".into(), model: model.into(), price: price(input), effective_from }
}

fn file(models: &[(&str, &str)]) -> PriceFile {
    let listed =
        |(model, input): &(&str, &str)| Listed { vendor: "openai", model: (*model).to_owned(), price: price(input) };
    PriceFile { models: models.iter().map(listed).collect(), ..PriceFile::default() }
}

/// Where a model's price comes from at a time, and its input rate.
fn found(prices: &Prices, tenant_id: &str, model: &str, at: i64) -> Option<(Source, String)> {
    let table = prices.table();
    let (source, entry) = table.find(tenant_id, "openai", &candidates("openai", model), at)?;
    let rate = entry.price.rate(Component::Input, ServiceTier::Standard, 0)?;
    Some((source, rate.to_per_million()))
}

pub async fn layers_and_history(domain: &Domain, tenant_id: &str) {
    let owner = member(tenant_id, Role::Owner, "token:o");
    let loaded = Prices::load(&domain.db).await.expect("loads");
    let start = clock::now_micros();
    assert_eq!(found(&loaded, tenant_id, "o1", start), Some((Source::Builtin, "15".into())));

    // More than one statement holds, and no power of two.
    let many: Vec<NewPrice> = (0..150).map(|n| new(&format!("m-{n}"), "0.25", None)).collect();
    let made = prices::replace(domain, &owner, Some(tenant_id), many.clone()).await.expect("sets");
    assert_eq!((made.value.len(), made.revision.is_some()), (150, true), "nodes may have to know");
    let again = prices::replace(domain, &owner, Some(tenant_id), many).await.expect("keeps").value;
    assert_eq!(again, made.value, "what stays the same keeps its row");
    assert_eq!(found(&loaded, tenant_id, "m-7", clock::now_micros()), None, "not read yet");
    loaded.refresh(&domain.db).await.expect("reads");
    let during = clock::now_micros();
    assert_eq!(found(&loaded, tenant_id, "m-7", during), Some((Source::Tenant, "0.25".into())));
    assert_eq!(found(&loaded, "ten_other", "m-7", during), None);

    // One remains, at another price; what was, stays true of its time.
    let rest = vec![new("m-7", "0.5", None), new("o1", "9", Some(start - 1000))];
    prices::replace(domain, &owner, Some(tenant_id), rest).await.expect("replaces");
    loaded.refresh(&domain.db).await.expect("reads");
    let now = clock::now_micros();
    for (model, at, wanted) in [
        ("m-7", during, Some((Source::Tenant, "0.25".to_owned()))),
        ("m-7", now, Some((Source::Tenant, "0.5".to_owned()))),
        ("m-8", during, Some((Source::Tenant, "0.25".to_owned()))),
        ("m-8", now, None),
        ("o1-2024-12-17", start, Some((Source::Tenant, "9".to_owned()))),
        ("o1-2024-12-17", start - 2000, Some((Source::Builtin, "15".to_owned()))),
    ] {
        assert_eq!(found(&loaded, tenant_id, model, at), wanted, "{model} {at}");
    }

    let imported = prices::import(domain, &root(), file(&[("o1", "14"), ("m-8", "1")]), None).await.expect("imports");
    assert_eq!(imported.value, Imported { added: 2, changed: 0, unchanged: 0 });
    let second = prices::import(domain, &root(), file(&[("o1", "13"), ("m-8", "1")]), None).await.expect("imports");
    assert_eq!(second.value, Imported { added: 0, changed: 1, unchanged: 1 });
    prices::replace(domain, &root(), None, vec![new("m-8", "2", None)]).await.expect("sets");
    loaded.refresh(&domain.db).await.expect("reads");
    let now = clock::now_micros();
    assert_eq!(found(&loaded, "ten_other", "o1", now), Some((Source::Import, "13".into())));
    assert_eq!(found(&loaded, "ten_other", "m-8", now), Some((Source::Platform, "2".into())));
    assert_eq!(found(&loaded, tenant_id, "o1", now), Some((Source::Tenant, "9".into())));

    for refused in [
        prices::replace(domain, &owner, None, Vec::new()).await.map(|_| ()),
        prices::import(domain, &owner, PriceFile::default(), None).await.map(|_| ()),
        prices::replace(domain, &member(tenant_id, Role::Admin, "token:a"), Some(tenant_id), Vec::new())
            .await
            .map(|_| ()),
    ] {
        assert_eq!(refused.expect_err("is refused").code(), "forbidden");
    }
    let wrong = NewPrice { vendor: "nobody".into(), price: Price::default(), ..new("m", "1", Some(-1)) };
    let fields: Vec<String> =
        broken(prices::replace(domain, &root(), None, vec![wrong]).await).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["prices[0].vendor", "prices[0].effective_from", "prices[0].bands"]);

    let mut conn = domain.db.read().await.expect("reads");
    let current = store::prices::current(&mut conn, tenant_id, PriceSource::Override).await.expect("reads");
    assert_eq!(current.len(), 2);
    assert_eq!(store::prices::all(&mut conn).await.expect("reads").len(), 150 + 2 + 3 + 1);
}
