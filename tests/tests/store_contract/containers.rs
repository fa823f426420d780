//! Bots that we run: containers, runners, their history and their limits.

use clawgate_control::domain::Domain;
use clawgate_control::domain::bots::{self as domain_bots, BotFields, Drive};
use clawgate_control::store::bot_events::{self, BotEventRow, Minute};
use clawgate_control::store::containers::{self, RemainsRow};
use clawgate_control::store::page::Page;
use clawgate_control::store::resource_quotas::{self, ResourceQuota};
use clawgate_control::store::runners::{self, Capacity, RunnerRow};
use clawgate_control::store::types::{BotEventKind, BotStatus, Health, Reason, RunnerState};
use clawgate_control::store::{StoreError, bots, error::Constraint};
use serde_json::json;

use crate::config::root;

fn runner() -> RunnerRow {
    RunnerRow {
        id: "run_1".into(),
        name: "one".into(),
        public_key: Some(vec![1; 32]),
        certificate_expires_at: Some(9),
        software_version: "0.1.1".into(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        engine: json!({"kind": "docker", "cpus": 4}),
        state: RunnerState::EngineUnavailable,
        state_reason: "nobody answers".into(),
        capacity: Capacity { cpu_millis: 4000, memory_mb: 8192, max_bots: 10 },
        last_seen_at: Some(8),
        revoked_at: None,
        created_at: 7,
    }
}

pub async fn wanted_and_seen(domain: &Domain, tenant_id: &str) {
    identities(domain).await;
    let given = || BotFields {
        adapter: Some("generic".into()),
        image: Some(Some("acme/bot:1".into())),
        resources: Some(Some(json!({"cpu_millis": 250, "memory_mb": 128, "disk_mb": 64}))),
        container: Some(Some(json!({"env": {"A": "\u{e4}"}, "probe": {"port": 80, "path": "/"}}))),
        ..BotFields::default()
    };
    let before = containers::taken(&mut domain.db.read().await.expect("reads"), tenant_id).await.expect("sums");
    let made = domain_bots::create(domain, &root(), tenant_id, "boxed".into(), given()).await.expect("is made");
    let bot = made.value.bot;
    let mut conn = domain.db.read().await.expect("reads");
    let after = containers::taken(&mut conn, tenant_id).await.expect("sums");
    assert_eq!(
        (after.bots - before.bots, after.cpu_millis - before.cpu_millis, after.memory_mb - before.memory_mb),
        (1, 250, 128)
    );
    let read = bots::get(&mut conn, tenant_id, "boxed").await.expect("reads").expect("is there");
    assert_eq!(read.container, bot.container);
    assert_eq!(bots::by_id(&mut conn, &bot.id).await.expect("reads").expect("is there").status, BotStatus::Pending);
    assert!(bots::run_by_us(&mut conn).await.expect("reads").iter().any(|row| row.id == bot.id));
    let row = containers::get(&mut conn, &bot.id).await.expect("reads").expect("is there");
    assert_eq!(read.container.as_deref(), Some(&row));
    drop(conn);

    let mut tx = domain.db.begin().await.expect("begins");
    let mut seen = row.seen.clone();
    (seen.status, seen.reason, seen.text) = (BotStatus::Crashed, Reason::OutOfMemory, "why".into());
    (seen.exit_code, seen.oom, seen.health) = (Some(137), true, Health::Unhealthy);
    (seen.failures, seen.retry_at, seen.health_at, seen.observed_at) = (2, Some(5), Some(6), Some(7));
    assert!(containers::observe(&mut tx, &bot.id, &row.seen, &seen).await.expect("writes"));
    assert!(!containers::observe(&mut tx, &bot.id, &row.seen, &seen).await.expect("is late"), "written meanwhile");
    assert!(containers::place(&mut tx, &bot.id, "run_1").await.expect("places"));
    assert!(!containers::place(&mut tx, &bot.id, "run_1").await.expect("is placed"));
    assert!(matches!(containers::place(&mut tx, "bot_none", "run_1").await, Ok(false)));
    tx.commit().await.expect("commits");
    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(containers::get(&mut conn, &bot.id).await.expect("reads").expect("is there").seen, seen);
    let counts = bots::stats(&mut conn, tenant_id).await.expect("counts");
    assert_eq!(counts.iter().filter(|one| one.status == BotStatus::Crashed).map(|one| one.count).sum::<u64>(), 1);
    assert!(bots::stats_of_all(&mut conn).await.expect("counts").iter().any(|one| one.status == BotStatus::Crashed));
    drop(conn);

    let place = (tenant_id, "boxed");
    let said = domain_bots::drive(domain, &root(), place, Drive::Restart).await.expect("is said").value;
    let container = said.container.expect("is run");
    assert_eq!((container.seen.failures, container.seen.retry_at), (0, None), "what failed before counts no more");
    let mut tx = domain.db.begin().await.expect("begins");
    assert!(containers::try_now(&mut tx, &bot.id).await.expect("writes"));
    // Of the same bot, and so in the same block.
    let twin = containers::insert(&mut tx, &container).await;
    assert!(matches!(twin, Err(StoreError::Conflict(Constraint::Other | Constraint::Subnet))));
    tx.rollback().await.expect("rolls back");
    history(domain, &bot.id).await;
    ends(domain, tenant_id, &bot.id, container.subnet).await;
}

async fn identities(domain: &Domain) {
    let mut tx = domain.db.begin().await.expect("begins");
    runners::save_identity(&mut tx, "run_1", (None, None), "0.1.0", 7).await.expect("saves");
    runners::save_identity(&mut tx, "run_1", (Some(vec![1; 32]), Some(9)), "0.1.0", 8).await.expect("saves again");
    assert!(runners::save_state(&mut tx, &runner()).await.expect("saves"));
    assert_eq!(runners::find(&mut tx, "run_1").await.expect("reads"), Some(runner()));
    assert!(runners::seen(&mut tx, "run_1", 8).await.expect("writes"));
    assert_eq!(runners::list(&mut tx, 10).await.expect("lists"), [runner()]);
    runners::save_identity(&mut tx, "run_2", (None, None), "", 7).await.expect("saves");
    assert!(runners::revoke(&mut tx, "run_2", 9).await.expect("revokes"));
    assert!(!runners::revoke(&mut tx, "run_2", 9).await.expect("once only"));
    assert_eq!(runners::list(&mut tx, 10).await.expect("lists").len(), 1);
    tx.commit().await.expect("commits");
}

async fn history(domain: &Domain, bot_id: &str) {
    let mut tx = domain.db.begin().await.expect("begins");
    let event = |number: u32, kind| BotEventRow {
        id: format!("evt_{number}"),
        bot_id: bot_id.to_owned(),
        kind,
        status: "crashed".into(),
        reason_code: "exited".into(),
        reason: "why".into(),
        exit_code: (number == 1).then_some(3),
        at: i64::from(number),
    };
    for number in 1..=3 {
        let kind = if number == 2 { BotEventKind::Engine } else { BotEventKind::Status };
        bot_events::insert(&mut tx, &event(number, kind)).await.expect("adds");
    }
    let gone = BotEventRow { id: "evt_9".into(), bot_id: "bot_none".into(), ..event(1, BotEventKind::Status) };
    bot_events::insert(&mut tx, &gone).await.expect("what is gone has no history");
    let page = Page::new(Some(2), None).expect("valid");
    let first = bot_events::list(&mut tx, bot_id, None, &page).await.expect("lists");
    assert_eq!(first.rows.iter().map(|row| row.at).collect::<Vec<_>>(), [3, 2]);
    let next = Page::new(Some(2), first.next_cursor.as_deref()).expect("valid");
    assert_eq!(
        bot_events::list(&mut tx, bot_id, None, &next).await.expect("lists").rows,
        [event(1, BotEventKind::Status)]
    );
    let statuses = bot_events::list(&mut tx, bot_id, Some(BotEventKind::Status), &page).await.expect("lists");
    assert_eq!(statuses.rows.iter().map(|row| row.at).collect::<Vec<_>>(), [3, 1]);
    let minute = Minute { at: 60, cpu_millis: 1, memory_bytes: 2, rx_bytes: 3, tx_bytes: 4, pids: 5 };
    for minute in [minute, Minute { pids: 6, ..minute }] {
        bot_events::put_minute(&mut tx, bot_id, &minute).await.expect("puts");
    }
    let found = bot_events::minutes(&mut tx, bot_id, (0, 100), 10).await.expect("reads");
    assert_eq!(found, [Minute { pids: 6, ..minute }]);
    assert_eq!(bot_events::purge(&mut tx, 2).await.expect("purges"), 1);
    tx.commit().await.expect("commits");
}

async fn ends(domain: &Domain, tenant_id: &str, bot_id: &str, subnet: u32) {
    let quota = ResourceQuota { bots: Some(1000), disk_mb: Some(5), ..ResourceQuota::default() };
    let mut tx = domain.db.begin().await.expect("begins");
    assert_eq!(resource_quotas::get(&mut tx, tenant_id).await.expect("reads"), ResourceQuota::default());
    resource_quotas::put(&mut tx, tenant_id, quota, 1).await.expect("puts");
    resource_quotas::put(&mut tx, tenant_id, ResourceQuota { bots: None, ..quota }, 2).await.expect("puts again");
    let found = resource_quotas::get(&mut tx, tenant_id).await.expect("reads");
    assert_eq!(found, ResourceQuota { bots: None, ..quota });
    tx.rollback().await.expect("rolls back");
    domain_bots::delete(domain, &root(), (tenant_id, "boxed"), None).await.expect("is deleted");
    let mut tx = domain.db.begin().await.expect("begins");
    let left = containers::remains(&mut tx).await.expect("reads");
    let one = left.iter().find(|row| row.bot_id == bot_id).expect("something is left");
    let RemainsRow { runner_id, hostname, .. } = one;
    assert_eq!((runner_id.as_str(), hostname.as_str(), one.subnet), ("run_1", "boxed", subnet));
    assert_ne!(containers::free_subnet(&mut tx, 4096).await.expect("looks"), Some(subnet), "it may still be in use");
    assert!(containers::forget_remains(&mut tx, bot_id).await.expect("forgets"));
    assert_eq!(containers::free_subnet(&mut tx, 4096).await.expect("looks"), Some(subnet));
    assert_eq!(containers::free_subnet(&mut tx, subnet).await.expect("looks"), None, "a smaller pool is full");
    assert!(!containers::displace(&mut tx, bot_id).await.expect("is gone"));
    tx.commit().await.expect("commits");
}
