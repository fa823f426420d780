//! Usage: what ingest writes, what REST reads, and that both agree.

use clawgate_control::domain::Domain;
use clawgate_control::store::types::Charge;
use clawgate_control::store::usage_ingest::{self, EventRow, OpenRow, Shard};
use clawgate_control::store::usage_log::{self, LogFilter};
use clawgate_control::store::usage_query::{self, By, HOUR, Scope, Span};
use clawgate_control::store::usage_rollup::{self, RollupKey, RollupSums};

const SHARD: Shard<'_> = Shard { node_id: "node_1", epoch: 7, shard: 2 };
/// A full hour.
const START: i64 = 472_222 * HOUR;
/// More than the largest multi-row statement holds, and no power of two.
const EVENTS: i64 = 75;

fn event(tenant_id: &str, n: i64) -> EventRow {
    EventRow {
        open: OpenRow {
            exchange_id: format!("req_{n:05}"),
            position: n,
            created_at: START + n * 60_000_000,
            tenant_id: tenant_id.to_owned(),
            bot_id: if n % 2 == 0 { "bot_even".into() } else { "bot_odd".into() },
            project_id: if n % 3 == 0 { "prj_3".into() } else { String::new() },
            vendor: "openai".into(),
            model: if n % 5 == 0 { "gpt-4o".into() } else { "gpt-4o-mini".into() },
            endpoint: "chat/completions".into(),
            client_request_id: format!("client-{n}"),
            provider_key_id: "key_1".into(),
            stream: n % 2 == 0,
            reserved_tokens: 5,
            config_version: "1.2.abc".into(),
            agent_id: format!("agent-{}", n % 2),
            session_id: "s".into(),
            reserved: vec![Charge { quota_id: "quo_1".into(), window_start: START, amount: n }],
        },
        labels: r#"{"team":"x"}"#.into(),
        status_code: if n % 10 == 0 { 502 } else { 200 },
        outcome: if n % 10 == 0 { "upstream_error".into() } else { "ok".into() },
        input_tokens: (n % 10 != 0).then_some(10),
        cached_input_tokens: Some(0),
        output_tokens: (n % 10 != 0).then_some(n),
        total_tokens: (n % 10 != 0).then_some(10 + n),
        usage_source: "upstream".into(),
        cost_micros: (n % 10 != 0).then_some(7 * n),
        price_ref: if n % 10 == 0 { String::new() } else { "builtin/openai/gpt-4o@2026-11-21".into() },
        tried: "[]".into(),
        duration_micros: 1000 + n,
        ttft_micros: (n % 2 == 0).then_some(500),
        ..EventRow::default()
    }
}

fn rollup(event: &EventRow) -> (RollupKey, RollupSums) {
    let open = &event.open;
    let key = RollupKey {
        tenant_id: open.tenant_id.clone(),
        bot_id: open.bot_id.clone(),
        hour_start: open.created_at - open.created_at % HOUR,
        project_id: open.project_id.clone(),
        vendor: open.vendor.clone(),
        model: open.model.clone(),
        provider_key_id: open.provider_key_id.clone(),
        status_code: event.status_code,
        outcome: event.outcome.clone(),
    };
    let sums = RollupSums {
        requests: 1,
        errors: i64::from(event.outcome != "ok"),
        input: event.input_tokens.unwrap_or(0),
        output: event.output_tokens.unwrap_or(0),
        total: event.total_tokens.unwrap_or(0),
        duration_sum: event.duration_micros,
        duration_count: 1,
        ttft_sum: event.ttft_micros.unwrap_or(0),
        ttft_count: i64::from(event.ttft_micros.is_some()),
        cost: event.cost_micros.unwrap_or(0),
        ..RollupSums::default()
    };
    (key, sums)
}

pub async fn ingest_and_queries(domain: &Domain, tenant_id: &str) {
    let events: Vec<EventRow> = (1..=EVENTS).map(|n| event(tenant_id, n)).collect();
    ingest(domain, &events).await;
    sums(domain, tenant_id, &events).await;
    log(domain, tenant_id, &events).await;
}

async fn ingest(domain: &Domain, events: &[EventRow]) {
    let mut tx = domain.db.begin().await.expect("begins");
    assert_eq!(usage_ingest::newest_epoch(&mut tx, "node_1", "i1").await.expect("reads"), None);
    let mut cursor = usage_ingest::lock_cursor(&mut tx, SHARD, 1, "i1", START).await.expect("locks");
    assert_eq!((cursor.next_position, cursor.ended.as_str()), (1, ""));
    let opens: Vec<OpenRow> = events.iter().map(|event| event.open.clone()).collect();
    usage_ingest::insert_opens(&mut tx, SHARD, &opens).await.expect("inserts");
    usage_ingest::insert_opens(&mut tx, SHARD, &opens).await.expect("known ones stay");
    assert_eq!(usage_ingest::lone_opens(&mut tx, SHARD, 1000).await.expect("reads"), opens);
    let new = usage_ingest::insert_events(&mut tx, SHARD, START, events).await.expect("inserts");
    assert!(new.iter().all(|new| *new));
    let elsewhere = Shard { epoch: 8, ..SHARD };
    let again = usage_ingest::insert_events(&mut tx, elsewhere, START, &events[..3]).await.expect("skips");
    assert_eq!(again, [false; 3], "an exchange is counted once");
    let rows: Vec<_> = events.iter().map(rollup).collect();
    for row in rows {
        usage_rollup::add(&mut tx, &[row]).await.expect("adds");
    }
    let settled: Vec<&str> = opens.iter().skip(2).map(|open| open.exchange_id.as_str()).collect();
    usage_ingest::delete_opens(&mut tx, &settled).await.expect("deletes");
    assert_eq!(usage_ingest::lone_opens(&mut tx, SHARD, 1000).await.expect("reads").len(), 2);
    assert_eq!(usage_ingest::delete_settled_opens(&mut tx, START + 100 * HOUR).await.expect("cleans"), 2);
    cursor.next_position = EVENTS + 1;
    cursor.ended = "closed".into();
    usage_ingest::move_cursor(&mut tx, SHARD, &cursor, 3).await.expect("moves");
    let found = usage_ingest::lock_cursor(&mut tx, SHARD, 1, "i2", START).await.expect("locks");
    assert_eq!(found, cursor);
    assert_eq!(usage_ingest::newest_epoch(&mut tx, "node_1", "i1").await.expect("reads"), Some(7));
    assert!(usage_rollup::mismatches(&mut tx, START, START + 3 * HOUR, 10).await.expect("compares").is_empty());
    tx.commit().await.expect("commits");

    let mut tx = domain.db.begin().await.expect("begins");
    let (key, mut sums) = rollup(&events[0]);
    sums.input = 0;
    usage_rollup::add(&mut tx, &[(key, sums)]).await.expect("adds once too often");
    let found = usage_rollup::mismatches(&mut tx, START, START + 3 * HOUR, 10).await.expect("compares");
    assert_eq!((found.len(), found[0].requests, found[0].output), (1, 1, 1));
    tx.rollback().await.expect("rolls back");
}

async fn sums(domain: &Domain, tenant_id: &str, events: &[EventRow]) {
    let mut conn = domain.db.read().await.expect("reads");
    let total: i64 = events.iter().filter_map(|event| event.total_tokens).sum();
    let errors = events.iter().filter(|event| event.outcome != "ok").count() as i64;
    let part = |id: &str| events.iter().filter(|event| event.open.bot_id == id).count() as i64;
    // Whole hours read the rollups, the other span the events; both agree.
    for (from, to) in [(START, START + 2 * HOUR), (START + 1, START + 2 * HOUR + 1)] {
        let span = Span { tenant_id, scope: Scope::Tenant, from, to };
        let found = usage_query::totals(&mut conn, &span).await.expect("sums");
        assert_eq!((found.requests, found.errors, found.total), (EVENTS, errors, total), "{from}");
        assert_eq!(found.cost, events.iter().filter_map(|event| event.cost_micros).sum::<i64>());
        let bot = Span { scope: Scope::Bot("bot_odd"), ..span };
        assert_eq!(usage_query::totals(&mut conn, &bot).await.expect("sums").requests, part("bot_odd"));
        let project = Span { scope: Scope::Project("prj_3"), ..span };
        assert_eq!(usage_query::totals(&mut conn, &project).await.expect("sums").requests, EVENTS / 3);
        let other = Span { tenant_id: "ten_other", ..span };
        assert_eq!(usage_query::totals(&mut conn, &other).await.expect("sums").requests, 0);
        for scope in [Scope::Tenant, Scope::Project("prj_3"), Scope::Bot("bot_even")] {
            for by in
                [By::Vendor, By::Model, By::Status, By::Key, By::Bot, By::Project, By::Labels, By::Agent, By::Session]
            {
                let span = Span { scope, ..span };
                let groups = usage_query::groups(&mut conn, &span, by).await.expect("groups");
                let whole = usage_query::totals(&mut conn, &span).await.expect("sums");
                assert_eq!(groups.iter().map(|cell| cell.sums.requests).sum::<i64>(), whole.requests, "{by:?}");
            }
            for hourly in [true, false] {
                let span = Span { scope, ..span };
                let slots = usage_query::slots(&mut conn, &span, hourly).await.expect("slots");
                let whole = usage_query::totals(&mut conn, &span).await.expect("sums");
                assert_eq!(slots.iter().map(|cell| cell.sums.output).sum::<i64>(), whole.output);
                assert!(slots.iter().all(|cell| cell.slot % 900_000_000 == 0));
            }
        }
        let groups = usage_query::groups(&mut conn, &span, By::Status).await.expect("groups");
        let mut codes: Vec<&str> = groups.iter().map(|cell| cell.group.as_str()).collect();
        codes.sort_unstable();
        assert_eq!(codes, ["200", "502"]);
    }
    let names = usage_query::names(&mut conn, tenant_id, By::Bot).await.expect("names");
    assert!(names.values().any(|name| name == "helper") && names.values().any(|name| name == "mine"), "{names:?}");
    assert!(usage_query::names(&mut conn, tenant_id, By::Project).await.expect("names").is_empty());
}

async fn log(domain: &Domain, tenant_id: &str, events: &[EventRow]) {
    let mut conn = domain.db.read().await.expect("reads");
    let everything = LogFilter {
        tenant_id: tenant_id.to_owned(),
        from: START,
        to: START + 3 * HOUR,
        bot_id: String::new(),
        vendor: String::new(),
        model: String::new(),
        status: None,
        outcome: String::new(),
        key: String::new(),
        after: None,
        limit: 40,
    };
    let first = usage_log::page(&mut conn, &everything).await.expect("reads");
    let last = first.last().expect("rows");
    let after = Some((last.created_at, last.exchange_id.clone()));
    let second = usage_log::page(&mut conn, &LogFilter { after, ..everything.clone() }).await.expect("reads");
    let found: Vec<&str> = first.iter().chain(&second).map(|row| row.exchange_id.as_str()).collect();
    let wanted: Vec<&str> = events.iter().rev().map(|event| event.open.exchange_id.as_str()).collect();
    assert_eq!(found, wanted, "newest first, none twice, none left out");
    for (filter, count) in [
        (LogFilter { bot_id: "bot_even".into(), ..everything.clone() }, EVENTS / 2),
        (LogFilter { model: "gpt-4o".into(), ..everything.clone() }, EVENTS / 5),
        (LogFilter { status: Some(502), outcome: "upstream_error".into(), ..everything.clone() }, EVENTS / 10),
        (LogFilter { vendor: "anthropic".into(), ..everything.clone() }, 0),
        (LogFilter { key: "key_2".into(), ..everything.clone() }, 0),
        (LogFilter { tenant_id: "ten_other".into(), ..everything.clone() }, 0),
    ] {
        assert_eq!(usage_log::page(&mut conn, &filter).await.expect("reads").len() as i64, count, "{filter:?}");
    }
    let one = usage_log::get(&mut conn, tenant_id, "req_00010").await.expect("reads").expect("there");
    assert_eq!((one.input_tokens, one.cached_input_tokens, one.ttft_micros), (None, Some(0), Some(500)));
    assert_eq!((one.client_request_id.as_str(), one.stream, one.reserved_tokens), ("client-10", true, 5));
    assert_eq!((one.cost_micros, one.price_ref.as_str()), (None, ""));
    let priced = usage_log::get(&mut conn, tenant_id, "req_00011").await.expect("reads").expect("there");
    assert_eq!((priced.cost_micros, priced.price_ref.as_str()), (Some(77), "builtin/openai/gpt-4o@2026-11-21"));
    assert!(usage_log::get(&mut conn, "ten_other", "req_00010").await.expect("reads").is_none());
}
