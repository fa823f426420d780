//! Usage: what ingest writes, what REST reads, and that both agree.

use clawgate_control::domain::Domain;
use clawgate_control::ingest::{self, rollup};
use clawgate_control::jobs::{fold, reconcile, retention};
use clawgate_control::store::types::Charge;
use clawgate_control::store::usage_ingest::{self, EventRow, OpenRow, Shard};
use clawgate_control::store::usage_log::{self, LogFilter};
use clawgate_control::store::usage_query::{self, By, DAY, HOUR, Scope, Slot, Span};
use clawgate_control::store::usage_rollup::Fold;
use clawgate_control::store::{Db, Engine, usage_dims, usage_partitions, usage_proof, usage_rollup, usage_sessions};

const SHARD: Shard<'_> = Shard { node_id: "node_1", epoch: 7, shard: 2 };
/// A full hour.
const START: i64 = 472_222 * HOUR;
/// More than the largest multi-row statement holds, and no power of two.
const EVENTS: i64 = 75;
/// What [`by_session`] adds to them.
const LATE: i64 = 2;

fn exchange(n: i64) -> String {
    format!("req_{n:032x}")
}

fn event(tenant_id: &str, n: i64) -> EventRow {
    EventRow {
        open: OpenRow {
            exchange_id: exchange(n),
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
            ..OpenRow::default()
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

pub async fn ingest_and_queries(domain: &Domain, tenant_id: &str) {
    let events: Vec<EventRow> = (1..=EVENTS).map(|n| event(tenant_id, n)).collect();
    ingest(domain, &events).await;
    sums(domain, tenant_id, &events).await;
    log(domain, tenant_id, &events).await;
    by_session(domain, tenant_id).await;
    days(domain, tenant_id, &events).await;
    old_events(domain, tenant_id).await;
}

/// Summing up by session changes no number, and what comes later is in it too.
async fn by_session(domain: &Domain, tenant_id: &str) {
    let db = &domain.db;
    let seen = async || {
        let mut conn = db.snapshot().await.expect("reads");
        let mut all = Vec::new();
        for scope in [Scope::Tenant, Scope::Project("prj_3"), Scope::Bot("bot_even")] {
            // Days wholly inside, days cut off, and a day whose part is summed up.
            for (from, to) in [(START - 3 * DAY, START + 3 * DAY), (START + 1, START + HOUR), (0, START + HOUR / 2)] {
                for by in [By::Agent, By::Session] {
                    let span = Span { tenant_id, scope, from, to };
                    let mut groups = usage_query::groups(&mut conn, &span, by).await.expect("groups");
                    groups.sort_by(|a, b| a.group.cmp(&b.group));
                    all.push((format!("{scope:?} {from} {by:?}"), groups));
                }
            }
        }
        all
    };
    let before = seen().await;
    assert!(before[0].1.len() == 2 && before[0].1[0].group == "agent-0", "{before:?}");
    let mut parts = 0;
    loop {
        let mut tx = db.begin().await.expect("begins");
        let more = usage_sessions::sum_some(&mut tx, START + HOUR, 7).await.expect("sums up");
        tx.commit().await.expect("commits");
        parts += 1;
        assert_eq!(seen().await, before, "after {parts} parts");
        if !more {
            break;
        }
    }
    assert!(parts >= 59 / 7, "{parts}");
    let until = usage_sessions::before(&mut db.read().await.expect("reads")).await.expect("reads");
    assert_eq!(until, START + HOUR);
    late(db, tenant_id, 500).await;
    let mut early = event(tenant_id, EVENTS + 501);
    (early.open.created_at, early.open.session_id) = (START + 1, "é".repeat(1000));
    let mut tx = db.begin().await.expect("begins");
    ingest::add_events(&mut tx, db.usage_dims(), SHARD, &[early], START).await.expect("inserts");
    tx.commit().await.expect("commits");
    let with_late = seen().await;
    assert_eq!(with_late[1].1.iter().map(|cell| cell.sums.requests).sum::<i64>(), EVENTS + 2);
    assert!(with_late[1].1.iter().any(|cell| cell.group == "é".repeat(256) && cell.sums.requests == 1));
    fold::sessions(db, START + 3 * DAY).await.expect("sums up");
    assert_eq!(seen().await, with_late);
    assert_eq!(reconcile::run(db, START).await.expect("compares"), [], "sessions and hours agree");
}

/// What is counted over a span that reads every kind of sum.
async fn counted(db: &Db, tenant_id: &str) -> usage_query::Sums {
    let mut conn = db.snapshot().await.expect("reads");
    let span = Span { tenant_id, scope: Scope::Tenant, from: START - 3 * DAY - 1, to: START + 3 * DAY + 1 };
    usage_query::totals(&mut conn, &span).await.expect("sums")
}

/// Tokens of all events.
pub async fn tokens(domain: &Domain, tenant_id: &str) -> i64 {
    let mut conn = domain.db.snapshot().await.expect("reads");
    let span = Span { tenant_id, scope: Scope::Tenant, from: 0, to: START + 4000 * DAY };
    usage_query::totals(&mut conn, &span).await.expect("sums").total
}

/// Folding a day changes no sum, and what comes later is in it too, also what
/// comes when a part of it is folded.
async fn days(domain: &Domain, tenant_id: &str, events: &[EventRow]) {
    let db = &domain.db;
    let before = counted(db, tenant_id).await;
    assert_eq!(fold::run(db, START + HOUR).await.expect("folds"), 0, "the hour is not over");
    assert_eq!(fold::run(db, START + HOUR + HOUR / 6).await.expect("folds"), 1, "the day is not over");
    assert_eq!(counted(db, tenant_id).await, before, "with a part of the running day");
    assert_eq!(reconcile::run(db, START).await.expect("compares"), [], "a day that runs is not compared");
    assert_eq!(fold::run(db, START + 2 * HOUR + HOUR / 6).await.expect("folds"), 1, "the day's last hour");
    let mut parts = 0;
    while fold_one_dim(db).await == Fold::Part {
        parts += 1;
        late(db, tenant_id, parts).await;
        let sums = counted(db, tenant_id).await;
        assert_eq!(sums.requests, before.requests + parts, "after {parts} parts");
        assert_eq!(reconcile::run(db, START).await.expect("compares"), [], "a day that is folded in part is none yet");
    }
    assert!(parts > 10, "{parts}");
    let whole_day = 24;
    let hours = u64::try_from(START % DAY / HOUR).expect("hours") - 1;
    assert_eq!(fold::run(db, START + 3 * DAY).await.expect("folds"), whole_day + hours, "nothing but time in them");
    assert_eq!(fold::run(db, START + 3 * DAY).await.expect("folds"), 0, "once");
    late(db, tenant_id, parts + 1).await;
    let mut conn = db.snapshot().await.expect("reads");
    let folded = usage_rollup::folded_before(&mut conn).await.expect("reads");
    assert!(folded > START && folded <= START + 3 * DAY && folded % HOUR == 0, "{folded}");
    drop(conn);
    assert_eq!(counted(db, tenant_id).await.requests, before.requests + parts + 1);
    let today = Span { tenant_id, scope: Scope::Tenant, from: START - START % DAY, to: START + HOUR };
    let mut conn = db.snapshot().await.expect("reads");
    assert!(usage_query::totals(&mut conn, &today).await.expect("sums").requests < before.requests, "cut off");
    drop(conn);
    assert_eq!(before.requests, i64::try_from(events.len()).expect("few") + LATE, "and what came late");
    assert_eq!(reconcile::run(db, START).await.expect("compares"), [], "days, hours and events agree");
}

async fn fold_one_dim(db: &Db) -> Fold {
    let mut tx = db.begin().await.expect("begins");
    let fold = usage_rollup::fold_some(&mut tx, START + 2 * DAY, 1).await.expect("folds");
    tx.commit().await.expect("commits");
    fold
}

/// Another event, of the next day, whose dims are there already.
async fn late(db: &Db, tenant_id: &str, n: i64) {
    let mut late = event(tenant_id, EVENTS + n);
    late.open.created_at = START + 2 * HOUR;
    let mut tx = db.begin().await.expect("begins");
    ingest::add_events(&mut tx, db.usage_dims(), SHARD, &[late], START).await.expect("inserts");
    tx.commit().await.expect("commits");
}

/// Old events go and their sums stay; on PostgreSQL months are there ahead.
async fn old_events(domain: &Domain, tenant_id: &str) {
    let db = &domain.db;
    let now = START + 4000 * DAY;
    let before = counted(db, tenant_id).await;
    let months = retention::run(db, 0, now).await.expect("keeps");
    assert_eq!((months.deleted, months.dropped.len()), (0, 0), "nothing is old for ever");
    let postgres = db.engine() == Engine::Postgres;
    assert_eq!(months.added.len(), if postgres { 5 } else { 0 }, "{months:?}");
    if postgres {
        // A month that comes later takes its rows out of the default partition.
        assert_eq!(usage_partitions::ensure(db, START).await.expect("adds").len(), 5);
        assert_eq!(usage_partitions::ensure(db, START).await.expect("adds"), [0; 0]);
    }
    let mut late = event(tenant_id, 1000);
    late.open.created_at = START - 1500 * DAY;
    let mut tx = db.begin().await.expect("begins");
    ingest::add_events(&mut tx, db.usage_dims(), SHARD, &[late], START).await.expect("no month is no failure");
    tx.commit().await.expect("commits");
    assert_eq!(counted(db, tenant_id).await, before);

    let kept = retention::run(db, 30, now).await.expect("deletes");
    let deleted = if postgres { 1 } else { u64::try_from(before.requests).expect("few") + 1 };
    // The month of the events, and those beside it.
    let dropped = [202_311, 202_309, 202_401].map(|month| kept.dropped.contains(&month));
    assert_eq!((dropped, kept.deleted), ([postgres; 3], deleted), "{kept:?}");
    assert!(
        usage_log::get(&mut db.read().await.expect("reads"), tenant_id, &exchange(10)).await.expect("reads").is_none()
    );
    assert_eq!(counted(db, tenant_id).await, before, "sums stay");
    assert_eq!(reconcile::run(db, 0).await.expect("compares"), [], "what was deleted is not missed");
}

async fn ingest(domain: &Domain, events: &[EventRow]) {
    let mut tx = domain.db.begin().await.expect("begins");
    assert_eq!(usage_ingest::newest_epoch(&mut tx, "node_1", "i1").await.expect("reads"), None);
    let mut cursor = usage_ingest::lock_cursor(&mut tx, SHARD, 1, "i1", START).await.expect("locks");
    assert_eq!((cursor.next_position, cursor.ended.as_str()), (1, ""));
    let opens: Vec<OpenRow> = events.iter().map(|event| event.open.clone()).collect();
    let mut before = opens.clone();
    for open in &mut before {
        (open.position, open.provider_key_id) = (open.position - EVENTS, "key_before".into());
    }
    usage_ingest::insert_opens(&mut tx, SHARD, &before).await.expect("inserts");
    usage_ingest::insert_opens(&mut tx, SHARD, &opens).await.expect("written again");
    usage_ingest::insert_opens(&mut tx, SHARD, &before).await.expect("the newest stay");
    before.iter_mut().for_each(|open| open.position += 2 * EVENTS);
    usage_ingest::insert_opens(&mut tx, Shard { epoch: 8, ..SHARD }, &before).await.expect("another shard's stay");
    assert_eq!(usage_ingest::lone_opens(&mut tx, SHARD, 1000).await.expect("reads"), opens);
    let known = domain.db.usage_dims();
    let mut new = Vec::new();
    for part in [&events[..1], &events[1..5], &events[5..]] {
        new.extend(ingest::add_events(&mut tx, known, SHARD, part, START).await.expect("inserts").0);
    }
    assert!(new.len() == events.len() && new.iter().all(|new| *new));
    let elsewhere = Shard { epoch: 8, ..SHARD };
    let (again, _) = ingest::add_events(&mut tx, known, elsewhere, &events[..3], START).await.expect("skips");
    assert_eq!(again, [false; 3], "an exchange is counted once");
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
    assert_eq!(usage_proof::mismatches(&mut tx, START, START + 3 * HOUR, 10).await.expect("compares"), []);
    tx.commit().await.expect("commits");

    let mut tx = domain.db.begin().await.expect("begins");
    let (places, _) = usage_dims::places(&mut tx, known, SHARD, &events[..1]).await.expect("known");
    let mut rows = rollup::sum(events[..1].iter().zip(&places));
    rows.retain(|(key, _)| key.dim_id == places[0].dims.exchange);
    rows[0].1.input = 0;
    usage_rollup::add(&mut tx, &rows).await.expect("adds once too often");
    let found = usage_proof::mismatches(&mut tx, START, START + 3 * HOUR, 10).await.expect("compares");
    let differs = |what: &str| found.iter().filter(|row| row.what == what).map(|row| row.requests).collect::<Vec<_>>();
    assert_eq!((differs("hour"), differs("wider"), differs("day")), (vec![1], vec![-1; 3], vec![]));
    tx.rollback().await.expect("rolls back");
}

async fn sums(domain: &Domain, tenant_id: &str, events: &[EventRow]) {
    let mut conn = domain.db.snapshot().await.expect("reads");
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
            for slot in [Slot::Whole, Slot::Quarter, Slot::Hour, Slot::Day] {
                let span = Span { scope, ..span };
                let slots = usage_query::slots(&mut conn, &span, slot).await.expect("slots");
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
    let one = usage_log::get(&mut conn, tenant_id, &exchange(10)).await.expect("reads").expect("there");
    assert_eq!((one.input_tokens, one.cached_input_tokens, one.ttft_micros), (None, Some(0), Some(500)));
    assert_eq!((one.client_request_id.as_str(), one.stream, one.reserved_tokens), ("client-10", true, 5));
    assert_eq!((one.cost_micros, one.price_ref.as_str()), (None, ""));
    let priced = usage_log::get(&mut conn, tenant_id, &exchange(11)).await.expect("reads").expect("there");
    assert_eq!((priced.cost_micros, priced.price_ref.as_str()), (Some(77), "builtin/openai/gpt-4o@2026-11-21"));
    assert!(usage_log::get(&mut conn, "ten_other", &exchange(10)).await.expect("reads").is_none());
}
