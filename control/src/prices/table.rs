//! Every price, in memory. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use clawgate_shared::pricing::{Entry, ServiceTier, Source, Sources, Spent, candidates, cost};
use clawgate_shared::usage::Usage;

use crate::store::prices::{PriceRow, PriceSource};
use crate::store::usage_ingest::EventRow;

/// Prices of every source.
#[derive(Clone, Debug, Default)]
pub struct Table {
    version: String,
    sources: Sources,
}

impl Table {
    /// From rows in the order they were added.
    #[must_use]
    pub fn new(version: String, rows: Vec<PriceRow>) -> Self {
        let mut table = Self { version, ..Self::default() };
        for row in rows {
            let reference = Arc::from(format!("{}/{}/{}", row.id, row.vendor, row.model));
            let until = row.ended_at.unwrap_or(i64::MAX);
            let entry = Entry { from: row.effective_from, until, reference, price: Arc::new(row.price) };
            let source = match (row.source, row.tenant_id.is_empty()) {
                (PriceSource::Import, _) => Source::Import,
                (PriceSource::Override, true) => Source::Platform,
                (PriceSource::Override, false) => Source::Tenant,
            };
            table.sources.add(source, &row.tenant_id, &row.vendor, &row.model, entry);
        }
        table
    }

    /// Which state of the stored prices this is.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The price of a model at a time, for a tenant; `names` as
    /// [`candidates`] gives them.
    #[must_use]
    pub fn find(&self, tenant_id: &str, vendor: &str, names: &[String], at: i64) -> Option<(Source, &Entry)> {
        self.sources.find(tenant_id, vendor, names, at)
    }

    /// Every price in effect at a time, for a tenant (empty: for a tenant
    /// without its own), by vendor and model.
    #[must_use]
    pub fn in_effect(&self, tenant_id: &str, at: i64) -> BTreeMap<(&str, &str), (Source, &Entry)> {
        let mut found = BTreeMap::new();
        for (source, book) in self.sources.of(tenant_id) {
            for (vendor, model, entry) in book.at(at) {
                found.entry((vendor, model)).or_insert((source, entry));
            }
        }
        found
    }

    /// Gives events their cost, as it was when they began. An event without
    /// counts or without a price gets none.
    pub fn price(&self, events: &mut [EventRow]) {
        // A batch has few models and many events.
        let mut known: HashMap<String, Vec<String>> = HashMap::new();
        let mut key = String::new();
        for event in events {
            let Some(spent) = Spent::of(&usage(event)) else { continue };
            let open = &event.open;
            key.clear();
            key.extend([open.vendor.as_str(), "\n", open.model.as_str()]);
            if !known.contains_key(&key) {
                known.insert(key.clone(), candidates(&open.vendor, &open.model));
            }
            let names = known.get(&key).map(Vec::as_slice).unwrap_or_default();
            let Some((_, entry)) = self.find(&open.tenant_id, &open.vendor, names, open.created_at) else { continue };
            event.cost_micros = cost(&spent, &entry.price, event.billing.tier);
            if event.cost_micros.is_some() {
                event.price_ref = match event.billing.tier {
                    ServiceTier::Standard => entry.reference.to_string(),
                    tier => format!("{}#{}", entry.reference, tier.as_str()),
                };
            }
        }
    }
}

fn usage(event: &EventRow) -> Usage {
    let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    Usage {
        input: count(event.input_tokens),
        cached_input: count(event.cached_input_tokens),
        cache_write: count(event.cache_write_tokens),
        output: count(event.output_tokens),
        reasoning: count(event.reasoning_tokens),
        billing: event.billing,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use clawgate_shared::pricing::Price;
    use clawgate_shared::usage::Billing;
    use serde_json::json;

    use super::*;
    use crate::store::usage_ingest::OpenRow;

    fn row(id: &str, tenant: &str, source: PriceSource, input: &str, span: (i64, Option<i64>)) -> PriceRow {
        PriceRow {
            id: id.into(),
            tenant_id: tenant.into(),
            source,
            vendor: "openai".into(),
            model: "gpt-4o".into(),
            price: Price::from_json(&json!([{"input": input, "output": "0"}])).expect("a price"),
            effective_from: span.0,
            ended_at: span.1,
            created_by: String::new(),
            created_at: 0,
        }
    }

    fn event(tenant: &str, model: &str, at: i64, input: Option<i64>) -> EventRow {
        let open = OpenRow {
            tenant_id: tenant.into(),
            vendor: "openai".into(),
            model: model.into(),
            created_at: at,
            ..OpenRow::default()
        };
        EventRow { open, input_tokens: input, ..EventRow::default() }
    }

    #[test]
    fn the_first_source_that_was_in_effect_counts() {
        let table = Table::new(
            "1".into(),
            vec![
                row("prc_import", "", PriceSource::Import, "4", (100, None)),
                row("prc_newer", "", PriceSource::Import, "5", (400, None)),
                row("prc_platform", "", PriceSource::Override, "6", (200, Some(300))),
                row("prc_tenant", "ten_1", PriceSource::Override, "7", (250, None)),
            ],
        );
        for (tenant, at, micros, reference) in [
            ("ten_1", 99, 2500, "builtin/openai/gpt-4o@"),
            ("ten_1", 100, 4000, "prc_import/openai/gpt-4o"),
            ("ten_1", 200, 6000, "prc_platform/"),
            ("ten_1", 250, 7000, "prc_tenant/"),
            ("ten_2", 250, 6000, "prc_platform/"),
            ("ten_2", 300, 4000, "prc_import/"),
            ("ten_2", 400, 5000, "prc_newer/"),
        ] {
            let mut events = [event(tenant, "gpt-4o-2024-08-06", at, Some(1000))];
            table.price(&mut events);
            assert_eq!(events[0].cost_micros, Some(micros), "{tenant} {at}");
            assert!(events[0].price_ref.starts_with(reference), "{}", events[0].price_ref);
        }
        let seen = table.in_effect("ten_1", 500);
        assert_eq!(seen.get(&("openai", "gpt-4o")).map(|(source, _)| *source), Some(Source::Tenant));
        assert!(seen.len() > 150, "{}", seen.len());
    }

    #[test]
    fn how_it_was_served_decides_the_price() {
        let bands = json!([
            {"input": "1", "cache_write": "2", "cache_write_1h": "4", "output": "8", "input_audio": "16"},
            {"tier": "priority", "input": "3", "output": "24"},
        ]);
        let price = Price::from_json(&bands).expect("a price");
        let row = PriceRow { price, ..row("prc_1", "", PriceSource::Override, "1", (0, None)) };
        let table = Table::new("1".into(), vec![row]);
        let plain = EventRow {
            cache_write_tokens: Some(200),
            output_tokens: Some(10),
            ..event("ten_1", "gpt-4o", 1, Some(1000))
        };
        let billed =
            |tier, cache_write_1h, input_audio| Billing { tier, cache_write_1h, input_audio, ..Billing::default() };
        let mut events = [
            plain.clone(),
            EventRow { billing: billed(ServiceTier::Priority, None, None), ..plain.clone() },
            EventRow { billing: billed(ServiceTier::Standard, Some(50), None), ..plain.clone() },
            EventRow { billing: billed(ServiceTier::Standard, None, Some(100)), ..plain },
        ];
        table.price(&mut events);
        let costs: Vec<_> = events.iter().map(|event| event.cost_micros).collect();
        let of = |input: i64, write: i64, long: i64, audio: i64, output: i64| {
            Some(input + 2 * write + 4 * long + 16 * audio + 8 * output)
        };
        let wanted = [
            of(800, 200, 0, 0, 10),
            Some(3 * 800 + 2 * 200 + 24 * 10),
            of(800, 150, 50, 0, 10),
            of(700, 200, 0, 100, 10),
        ];
        assert_eq!(costs, wanted);
        let tier = |event: &EventRow| event.price_ref.rsplit_once('#').map(|(_, tier)| tier.to_owned());
        assert_eq!((tier(&events[0]), tier(&events[1])), (None, Some("priority".to_owned())));
    }

    #[test]
    fn what_has_no_counts_or_no_price_has_no_cost() {
        let table = Table::default();
        let mut events = [
            event("t", "gpt-4o", 0, None),
            event("t", "no-such-model", 0, Some(5)),
            event("t", "text-embedding-3-small", 0, Some(0)),
            EventRow { total_tokens: Some(9), ..event("t", "gpt-4o", 0, None) },
        ];
        table.price(&mut events);
        let costs: Vec<_> = events.iter().map(|event| (event.cost_micros, event.price_ref.is_empty())).collect();
        assert_eq!(costs, [(None, true), (None, true), (Some(0), false), (None, true)]);
    }
}
