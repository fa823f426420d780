//! Quotas: what they have used, what is lent of them, and that two engines
//! agree on it.

use std::sync::Arc;

use clawgate_control::domain::quotas::{self, NewGrant, Place};
use clawgate_control::domain::{Domain, Role, bots, tenants};
use clawgate_control::ingest::{Batch, accept};
use clawgate_control::prices::Table;
use clawgate_control::quota::desk::Desk;
use clawgate_control::quota::{Answer, Books, Claim, HOLD, Holder, Quotas, end, learning, trade};
use clawgate_control::snapshot::rollout::Rollout;
use clawgate_control::store::quota_leases::{self, LeaseRow};
use clawgate_control::store::quota_windows::{self, NoticeRow, WindowChange, WindowGrant, WindowKey};
use clawgate_control::store::quotas as table;
use clawgate_control::store::types::{QuotaMetric, QuotaScope, QuotaWindow};
use clawgate_control::store::{Db, Engine, migrate};
use clawgate_shared::proto::node::{Charge, EpochEnd, Settle, UsageRecord, usage_record::Kind};
use clawgate_shared::{clock, id};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::{member, root};

fn place(tenant_id: &str, scope: QuotaScope, name: &str) -> Place {
    Place { tenant_id: tenant_id.into(), scope, name: name.into() }
}

fn house() -> Quotas {
    Quotas { books: Books::default(), desk: Desk::default(), learning_until: 0 }
}

/// What a node of this test ships: one exchange of the tenant, charged to a
/// quota's `total` window.
async fn ship(db: &Db, books: &Books, node_id: &str, (epoch, shard): (u64, u32), kinds: Vec<Kind>) {
    let records: Vec<Vec<u8>> =
        kinds.into_iter().map(|kind| UsageRecord { kind: Some(kind) }.encode_to_vec()).collect();
    let batch = Batch { node_id, epoch, shard, first_position: 0, records: &records, instance_id: "i" };
    accept(db, &Rollout::default(), &Table::default(), books, batch, clock::now_micros()).await.expect("taken");
}

fn settle(tenant_id: &str, quota_id: &str, amount: u64) -> Kind {
    Kind::Settle(Settle {
        exchange_id: id::new(id::Kind::Exchange),
        at_micros: clock::now_micros(),
        tenant_id: tenant_id.into(),
        bot_id: "bot_quota".into(),
        vendor: "openai".into(),
        model: "m".into(),
        outcome: "ok".into(),
        status_code: 200,
        total_tokens: Some(amount),
        usage_source: "upstream".into(),
        charges: vec![Charge { quota_id: quota_id.into(), window_start_micros: 0, amount }],
        ..Settle::default()
    })
}

fn ask(quota_id: &str, granted: i64, returned: i64, want: i64, least: i64) -> Claim {
    Claim { quota_id: quota_id.into(), granted, returned, want, least, ..Claim::default() }
}

pub async fn ledger(domain: &Domain, tenant_id: &str) {
    let admin = member(tenant_id, Role::Admin, "token:a");
    let total = json!({"metric": "total_tokens", "window": "total", "limit": 100_000});
    let whole = place(tenant_id, QuotaScope::Tenant, tenant_id);
    let wanted = [total.clone(), json!({"metric": "requests", "window": "day", "limit": 9, "model": "gpt-*"})];
    let made = quotas::replace(domain, &admin, &whole, &wanted).await.expect("sets");
    assert!(made.revision.is_some());
    let used = made.value[0].used;
    let counted = super::usage::tokens(domain, tenant_id).await;
    assert!(counted > 3000 && used == counted, "{used} for the {counted} of every event of the chapter before");
    assert_eq!((made.value[1].used, made.value[1].reserved), (0, 0), "none of them was today");
    let kept = quotas::replace(domain, &admin, &whole, &wanted[..1]).await.expect("keeps").value;
    assert_eq!((kept.len(), &kept[0].quota.id, kept[0].used), (1, &made.value[0].quota.id, used));
    let on = |scope, name: &str| {
        let place = place(tenant_id, scope, name);
        let total = [total.clone()];
        async move { quotas::replace(domain, &root(), &place, &total).await.expect("sets").value.remove(0) }
    };
    assert_eq!(on(QuotaScope::Bot, "helper").await.used, 0);
    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(quotas::list(&mut conn, &whole).await.expect("lists"), kept);
    let helper = clawgate_control::store::bots::get(&mut conn, tenant_id, "helper").await.expect("reads").expect("is");
    assert_eq!((helper.quotas.len(), helper.quotas[0].limit), (1, 100_000));
    assert_eq!(table::count(&mut conn, tenant_id).await.expect("counts"), 2);
    assert_eq!(table::all(&mut conn).await.expect("reads").len(), 2);
    assert_eq!(table::zones(&mut conn).await.expect("reads"), [(tenant_id.to_owned(), "UTC".to_owned())]);
    drop(conn);
    let grant = NewGrant {
        metric: "total_tokens".into(),
        window: "total".into(),
        model: None,
        amount: 500,
        reason: "contract".into(),
    };
    let topped = quotas::grant(domain, &admin, &whole, grant).await.expect("tops up");
    assert_eq!((topped.value.extra, topped.revision), (500, None));
    leases(domain, tenant_id, &kept[0].quota.id, used).await;
    statements(domain).await;
    bots::delete(domain, &root(), (tenant_id, "helper"), None).await.expect("deletes");
    let mut conn = domain.db.read().await.expect("reads");
    assert_eq!(table::count(&mut conn, tenant_id).await.expect("counts"), 1, "a bot's quotas go with it");
}

/// A lease, its settlement and its three ends, as a node sees them.
async fn leases(domain: &Domain, tenant_id: &str, quota: &str, used: i64) {
    let (db, house) = (&domain.db, house());
    let node = id::new(id::Kind::Node);
    let holder = Holder { node_id: &node, epoch: 1 };
    let now = clock::now_micros();
    let call = |claim: Claim, now: i64| {
        let house = &house;
        async move { trade::trade(db, house, holder, &[claim], now).await.expect("answers").remove(0) }
    };
    let seen = |answer: &Answer| (answer.granted, answer.returned, answer.settled - used, answer.outstanding);
    let answer = call(ask(quota, 0, 0, 1000, 10), now).await;
    assert_eq!((seen(&answer), answer.limit), ((1000, 0, 0, 1000), 100_500));
    ship(db, &house.books, &node, (1, 0), vec![settle(tenant_id, quota, 300), settle(tenant_id, quota, 100)]).await;
    let answer = call(ask(quota, 1000, 100, 0, 0), now).await;
    assert_eq!(seen(&answer), (1000, 100, 400, 500));
    let much = call(ask(quota, 1000, 100, 200_000, 10), now).await;
    assert_eq!(much.granted, 1000 + 100_500 - used - 900, "all there is");
    assert_eq!(call(ask(quota, much.granted, 100, 1, 1), now).await.granted, much.granted, "and no more");
    assert_eq!(end::expire(db, 0, now + HOLD - 1).await.expect("runs"), 0);
    assert_eq!(end::expire(db, 0, now + HOLD + 60_000_001).await.expect("runs"), 1);
    let answer = call(ask(quota, much.granted, 100, 0, 0), now).await;
    assert_eq!(seen(&answer), (much.granted, much.granted - 400, 400, 0));

    let next = Holder { epoch: 2, ..holder };
    let one = [ask(quota, 0, 0, 50, 10)];
    assert_eq!(trade::trade(db, &house, next, &one, now).await.expect("answers")[0].outstanding, 50);
    let ended = || Kind::End(EpochEnd { abandoned: false, shards: 2 });
    ship(db, &house.books, &node, (2, 0), vec![ended()]).await;
    assert_eq!(call(ask(quota, 0, 0, 0, 0), now).await.outstanding, 50);
    ship(db, &house.books, &node, (2, 1), vec![settle(tenant_id, quota, 5), ended()]).await;
    assert_eq!(call(ask(quota, 0, 0, 0, 0), now).await.outstanding, 0);
    assert!(trade::trade(db, &house, next, &one, now).await.is_err(), "the epoch is over");
    assert_eq!(learning::begin(db, now).await.expect("reads"), 0);
}

/// What no story above runs.
async fn statements(domain: &Domain) {
    let mut tx = domain.db.begin().await.expect("begins");
    assert_eq!(quota_windows::purge(&mut tx, 0, 0).await.expect("purges"), 2, "those of quotas that were left out");
    assert_eq!(table::hold_version(&mut tx).await.expect("reads"), table::version(&mut tx).await.expect("reads"));
    let key = |start| WindowKey { quota_id: "quo_statements".into(), start };
    let changes: Vec<WindowChange> =
        (1..=70).map(|start| WindowChange { key: key(start), end: start + 1, amount: start }).collect();
    assert_eq!(quota_windows::settle(&mut tx, &changes).await.expect("settles").len(), 70);
    let again = quota_windows::settle(&mut tx, &changes[..3]).await.expect("settles");
    assert_eq!(again.iter().map(|row| row.settled).collect::<Vec<_>>(), [2, 4, 6]);
    let keys: Vec<WindowKey> = (0..=70).map(key).collect();
    assert_eq!(quota_windows::get(&mut tx, &keys).await.expect("reads").len(), 70);
    // Two and four are settled: only the second has room for seven more.
    let grants = [1, 2].map(|n| WindowGrant { key: key(n), amount: 7, limit: 7 + n * 2 - (n % 2) });
    let had_room = quota_windows::grant(&mut tx, &grants).await.expect("grants");
    assert_eq!(had_room.iter().map(|row| (row.key.start, row.outstanding)).collect::<Vec<_>>(), [(2, 7)]);
    quota_windows::shift(&mut tx, &[WindowChange { key: key(2), end: 3, amount: -7 }]).await.expect("shifts");
    let notice = |exhausted, id: &str| NoticeRow { id: id.into(), key: key(2), exhausted, used: 4, limit: 4, at: 9 };
    for (exhausted, id, new) in [(false, "a", true), (false, "b", false), (true, "c", true), (true, "d", false)] {
        assert_eq!(quota_windows::note(&mut tx, &notice(exhausted, id)).await.expect("notes"), new, "{id}");
    }
    let noted = quota_windows::notices(&mut tx, "quo_statements").await.expect("reads");
    assert_eq!(noted, [notice(false, "a"), notice(true, "c")]);
    let lease = LeaseRow {
        key: key(2),
        node_id: "node_s".into(),
        epoch: 3,
        granted: 9,
        returned: 1,
        settled: 0,
        expires_at: 5,
    };
    let leases = [lease];
    quota_leases::write(&mut tx, &leases).await.expect("writes");
    assert_eq!(quota_leases::again(&mut tx, &leases).await.expect("reads"), leases);
    assert_eq!(quota_leases::expired(&mut tx, 5, 10).await.expect("reads"), leases);
    let purged = quota_windows::purge(&mut tx, 0, 0).await.expect("purges");
    assert_eq!(purged, 70, "there is no such quota");
    assert_eq!(quota_leases::purge(&mut tx).await.expect("purges"), 1);
    assert!(quota_windows::notices(&mut tx, "quo_statements").await.expect("reads").is_empty());
    tx.rollback().await.expect("rolls back");
}

/// Nodes that trade and ship at the same time: what is granted and settled adds
/// up, and nobody waits for another in a circle.
pub async fn many_at_once(domain: &Domain) {
    const NODES: usize = 6;
    let new = tenants::NewTenant { slug: "crowd".into(), ..tenants::NewTenant::default() };
    let crowd = tenants::create(domain, &root(), new).await.expect("creates").value.id;
    let values: Vec<Value> = ["total_tokens", "requests", "output_tokens", "input_tokens"]
        .iter()
        .map(|metric| json!({"metric": metric, "window": "total", "limit": 20_000}))
        .collect();
    let whole = place(&crowd, QuotaScope::Tenant, &crowd);
    let states = quotas::replace(domain, &root(), &whole, &values).await.expect("sets").value;
    let ids: Arc<Vec<String>> = Arc::new(states.iter().map(|state| state.quota.id.clone()).collect());
    let house = Arc::new(house());
    let tasks = (0..NODES).map(|n| {
        let (db, house, ids, crowd) = (domain.db.clone(), house.clone(), ids.clone(), crowd.clone());
        tokio::spawn(async move { crowded(&db, &house, &ids, &crowd, n).await })
    });
    let mut sums = vec![0; ids.len()];
    for task in tasks.collect::<Vec<_>>() {
        for (sum, settled) in sums.iter_mut().zip(task.await.expect("runs")) {
            *sum += settled;
        }
    }
    let mut conn = domain.db.read().await.expect("reads");
    for (state, sum) in quotas::list(&mut conn, &whole).await.expect("lists").iter().zip(&sums) {
        assert_eq!((state.used, state.overrun()), (*sum, 0));
        assert!(state.used + state.reserved <= 20_000, "{state:?}");
    }
}

/// One node: it takes what it can get and uses up all of it.
async fn crowded(db: &Db, house: &Quotas, ids: &[String], tenant_id: &str, n: usize) -> Vec<i64> {
    let node = id::new(id::Kind::Node);
    let holder = Holder { node_id: &node, epoch: 1 };
    let (mut granted, mut settled) = (vec![0; ids.len()], vec![0; ids.len()]);
    for round in 0..12 {
        // Each names the quotas in another order.
        let order: Vec<usize> = (0..ids.len()).map(|at| (at + n + round) % ids.len()).collect();
        let claims: Vec<Claim> = order.iter().map(|at| ask(&ids[*at], granted[*at], 0, 400, 30)).collect();
        // A deadlock that the server breaks would be a busy database.
        let answers = trade::trade(db, house, holder, &claims, clock::now_micros()).await.expect("no deadlock");
        let mut charges = Vec::new();
        for (at, answer) in order.iter().zip(answers) {
            granted[*at] = answer.granted;
            let amount = granted[*at] - settled[*at];
            settled[*at] += amount;
            let amount = u64::try_from(amount).expect("positive");
            charges.push(Charge { quota_id: ids[*at].clone(), window_start_micros: 0, amount });
        }
        let Kind::Settle(settle) = settle(tenant_id, &ids[0], 0) else { unreachable!() };
        let shard = u32::try_from(round).expect("small");
        ship(db, &house.books, &node, (1, shard), vec![Kind::Settle(Settle { charges, ..settle })]).await;
    }
    settled
}

/// A database of the release before, with quotas in the bots' own column.
pub async fn bots_quotas_move_into_their_table(url: &str) {
    let db = Db::connect(url).await.expect("opens");
    let sql: [(i64, &str, &'static str); 2] = match db.engine() {
        Engine::Sqlite => [
            (1, "initial", include_str!("../../../migrations/sqlite/0001_initial.sql")),
            (2, "prices", include_str!("../../../migrations/sqlite/0002_prices.sql")),
        ],
        Engine::Postgres => [
            (1, "initial", include_str!("../../../migrations/postgres/0001_initial.sql")),
            (2, "prices", include_str!("../../../migrations/postgres/0002_prices.sql")),
        ],
    };
    migrate::pending(&db).await.expect("makes its own table");
    let mut tx = db.begin().await.expect("begins");
    for (version, name, sql) in sql {
        sqlx::raw_sql(sql).execute(&mut *tx).await.expect("applies");
        let checksum: String = Sha256::digest(sql).iter().map(|byte| format!("{byte:02x}")).collect();
        sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, 0)")
            .bind(version)
            .bind(name)
            .bind(checksum)
            .execute(&mut *tx)
            .await
            .expect("notes");
    }
    sqlx::raw_sql(
        "INSERT INTO tenants VALUES ('ten_1', 't', 't', 'active', 'UTC', 1, 5, 5); \
         INSERT INTO bots VALUES ('bot_1', 'ten_1', NULL, 'b', 'b', 'o', '{}', '[]', '[]', '[]', '{}', '{}', \
         'round_robin', 'cancel', NULL, 'auto', '[]', '[{\"metric\":\"requests\",\"window\":\"day\",\"limit\":\
         9223372036854775807,\"model\":null,\"action\":\"block\",\"warn_pct\":80,\"mode\":\"strict\",\"on_exceed\":\
         \"refuse\",\"on_outage\":\"deny\"},{\"metric\":\"cost_micros\",\"window\":\"total\",\"limit\":7,\"model\":\
         \"gpt-*\",\"action\":\"notify\",\"warn_pct\":50,\"mode\":\"estimate\",\"on_exceed\":\"cut\",\"on_outage\":\
         \"allow\"}]', NULL, NULL, NULL, 'external', NULL, NULL, NULL, 'stopped', 'external', '', 5, 1, 0, 1, 5, 5); \
         INSERT INTO bots VALUES ('bot_2', 'ten_1', NULL, 'c', 'b', 'o', '{}', '[]', '[]', '[]', '{}', '{}', \
         'round_robin', 'cancel', NULL, 'auto', '[]', '[]', NULL, NULL, NULL, 'external', NULL, NULL, NULL, \
         'stopped', 'external', '', 5, 1, 0, 1, 5, 5)",
    )
    .execute(&mut *tx)
    .await
    .expect("fills");
    tx.commit().await.expect("commits");
    migrate::run(&db, None).await.expect("migrates");
    let mut conn = db.read().await.expect("reads");
    let rows = table::of(&mut conn, QuotaScope::Bot, "bot_1").await.expect("reads");
    let seen: Vec<_> = rows.iter().map(|row| (row.spec.metric, row.spec.window, row.spec.limit)).collect();
    let wanted = [
        (QuotaMetric::Requests, QuotaWindow::Day, 1_000_000_000_000_000_000),
        (QuotaMetric::CostMicros, QuotaWindow::Total, 7),
    ];
    assert_eq!(seen, wanted);
    assert_eq!((rows[0].spec.model.as_deref(), rows[1].spec.model.as_deref()), (None, Some("gpt-*")));
    assert!(rows.iter().all(|row| id::Kind::Quota.matches(&row.id) && row.created_at == 5 && row.tenant_id == "ten_1"));
    assert_eq!(table::all(&mut conn).await.expect("reads").len(), 2);
    drop(conn);
    db.close().await;
}
