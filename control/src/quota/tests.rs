//! Leases and charges on a real database: what nodes do, lose and repeat.

use clawgate_shared::id;
use clawgate_shared::proto::node::{self as wire, EpochEnd, Open, Settle, UsageRecord, usage_record::Kind};
use prost::Message as _;

use super::trade::trade;
use super::*;
use crate::fleet::testing::Plane;
use crate::ingest::{Batch, accept};
use crate::prices::Table;
use crate::snapshot::rollout::Rollout;
use crate::store::quotas::{self, QuotaRow};
use crate::store::types::{
    QuotaAction, QuotaMetric, QuotaMode, QuotaOnExceed, QuotaOnOutage, QuotaScope, QuotaSpec, QuotaWindow,
};
use crate::store::{Db, quota_leases, quota_windows, revisions, tenants};

const SECOND: i64 = 1_000_000;
/// A day's window holds it.
const NOON: i64 = 1_763_726_400 * SECOND;

/// A control plane and the quotas it trades.
struct House {
    plane: Plane,
    quotas: Quotas,
}

fn spec(metric: QuotaMetric, limit: u64) -> QuotaSpec {
    QuotaSpec {
        metric,
        window: QuotaWindow::Day,
        limit,
        model: None,
        action: QuotaAction::Block,
        warn_pct: 80,
        mode: QuotaMode::Strict,
        on_exceed: QuotaOnExceed::Refuse,
        on_outage: QuotaOnOutage::Deny,
    }
}

/// What a window's ledger says: settled, outstanding.
type Ledger = (i64, i64);

impl House {
    async fn new() -> Self {
        let quotas = Quotas { books: Books::default(), desk: desk::Desk::default(), learning_until: 0 };
        Self { plane: Plane::new().await, quotas }
    }

    fn db(&self) -> &Db {
        &self.plane.db
    }

    /// A quota on `bot_1`, or on its tenant or key.
    async fn quota(&self, scope: QuotaScope, spec: QuotaSpec) -> String {
        let scope_id = match scope {
            QuotaScope::Bot => "bot_1",
            QuotaScope::Tenant => "ten_1",
            QuotaScope::Project => "prj_1",
            QuotaScope::ProviderKey => "key_1",
        };
        let row = QuotaRow {
            id: id::new(id::Kind::Quota),
            tenant_id: "ten_1".into(),
            scope,
            scope_id: scope_id.into(),
            spec,
            ordering: 0,
            created_at: NOON,
            updated_at: NOON,
        };
        let mut tx = self.db().begin().await.expect("begins");
        quotas::set_version(&mut tx, &row.id).await.expect("says so");
        quotas::insert(&mut tx, &row).await.expect("inserts");
        tx.commit().await.expect("commits");
        row.id
    }

    /// What an admin's write does.
    async fn change(&self, quota_id: &str, change: impl FnOnce(&mut QuotaSpec)) {
        let mut tx = self.db().begin().await.expect("begins");
        let rows = quotas::all(&mut tx).await.expect("reads");
        let mut row = rows.into_iter().find(|row| row.id == quota_id).expect("is there");
        change(&mut row.spec);
        assert!(quotas::update(&mut tx, &row).await.expect("writes"));
        quotas::set_version(&mut tx, &id::new(id::Kind::Quota)).await.expect("says so");
        tx.commit().await.expect("commits");
    }

    async fn tokens(&self, limit: u64) -> String {
        self.quota(QuotaScope::Bot, spec(QuotaMetric::TotalTokens, limit)).await
    }

    async fn ledger(&self, quota_id: &str) -> Ledger {
        let mut conn = self.db().read().await.expect("reads");
        let start = window::containing(QuotaWindow::Day, NOON, &jiff::tz::TimeZone::UTC).start;
        let key = quota_windows::WindowKey { quota_id: quota_id.into(), start };
        let rows = quota_windows::get(&mut conn, &[key]).await.expect("reads");
        let ledger = rows.first().map_or((0, 0), |row| (row.settled, row.outstanding));
        // The sum over leases, always.
        let sum = quota_leases::rest_of(&mut conn, quota_id).await.expect("sums");
        assert_eq!(sum, ledger.1, "outstanding is not its leases");
        ledger
    }

    fn node(&self, name: char) -> Node<'_> {
        let node_id = format!("node_{}", name.to_string().repeat(32));
        Node { house: self, node_id, epoch: 1, position: 0 }
    }
}

/// A node as the protocol describes it.
struct Node<'a> {
    house: &'a House,
    node_id: String,
    epoch: i64,
    position: u64,
}

fn ask(quota_id: &str, granted: i64, returned: i64, want: i64, least: i64) -> Claim {
    Claim { quota_id: quota_id.into(), granted, returned, want, least, ..Claim::default() }
}

fn charge(quota_id: &str, amount: u64) -> wire::Charge {
    let start = window::containing(QuotaWindow::Day, NOON, &jiff::tz::TimeZone::UTC).start;
    wire::Charge { quota_id: quota_id.into(), window_start_micros: start, amount }
}

fn settle(tokens: u64, charges: Vec<wire::Charge>) -> Settle {
    Settle {
        exchange_id: id::new(id::Kind::Exchange),
        at_micros: NOON,
        tenant_id: "ten_1".into(),
        project_id: "prj_1".into(),
        bot_id: "bot_1".into(),
        provider_key_id: "key_1".into(),
        vendor: "openai".into(),
        model: "gpt-4o".into(),
        outcome: "ok".into(),
        status_code: 200,
        input_tokens: Some(tokens),
        output_tokens: Some(0),
        usage_source: "upstream".into(),
        charges,
        ..Settle::default()
    }
}

impl Node<'_> {
    fn holder(&self) -> Holder<'_> {
        Holder { node_id: &self.node_id, epoch: self.epoch }
    }

    async fn trade(&self, claims: &[Claim], now: i64) -> Result<Vec<Answer>, TradeError> {
        trade(self.house.db(), &self.house.quotas, self.holder(), claims, now).await
    }

    async fn one(&self, claim: Claim, now: i64) -> Answer {
        self.trade(&[claim], now).await.expect("is answered").remove(0)
    }

    async fn ship(&mut self, shard: u32, kinds: Vec<Kind>) {
        let records: Vec<Vec<u8>> =
            kinds.into_iter().map(|kind| UsageRecord { kind: Some(kind) }.encode_to_vec()).collect();
        let batch = Batch {
            node_id: &self.node_id,
            epoch: u64::try_from(self.epoch).expect("small"),
            shard,
            first_position: if shard == 0 { self.position } else { 0 },
            records: &records,
            instance_id: "i",
        };
        let (rollout, books) = (Rollout::default(), &self.house.quotas.books);
        let now = NOON + SECOND;
        accept(self.house.db(), &rollout, &Table::default(), books, batch, now).await.expect("is taken");
        // A second time changes nothing.
        accept(self.house.db(), &rollout, &Table::default(), books, batch, now).await.expect("is taken");
        if shard == 0 {
            self.position += records.len() as u64;
        }
    }

    async fn settles(&mut self, settles: Vec<Settle>) {
        self.ship(0, settles.into_iter().map(Kind::Settle).collect()).await;
    }
}

#[tokio::test]
async fn a_lease_is_granted_used_and_given_back() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let mut node = house.node('a');
    let answer = node.one(ask(&quota, 0, 0, 400, 100), NOON).await;
    assert_eq!((answer.granted, answer.limit, answer.settled, answer.outstanding), (400, 1000, 0, 400));
    assert_eq!(answer.window, window::containing(QuotaWindow::Day, NOON, &jiff::tz::TimeZone::UTC));
    node.settles(vec![settle(150, vec![charge(&quota, 150)])]).await;
    assert_eq!(house.ledger(&quota).await, (150, 250), "what is settled is no longer outstanding");
    // More than it held: recorded, and no longer outstanding.
    node.settles(vec![settle(300, vec![charge(&quota, 300)])]).await;
    assert_eq!(house.ledger(&quota).await, (450, 0));
    let answer = node.one(ask(&quota, 400, 0, 900, 100), NOON).await;
    assert_eq!((answer.granted, answer.outstanding), (1000, 550), "the lease's debt of 50 comes on top");
    let answer = node.one(ask(&quota, 1000, 450, 0, 0), NOON).await;
    assert_eq!((answer.returned, answer.outstanding), (450, 100));
    let answer = node.one(ask(&quota, 1000, 100, 0, 0), NOON).await;
    assert_eq!((answer.returned, answer.outstanding), (450, 100), "what was given back stays so");
    assert_eq!(house.ledger(&quota).await, (450, 100));
}

#[tokio::test]
async fn a_node_whose_lease_was_overdrawn_gets_what_it_asks_for() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let mut node = house.node('a');
    node.one(ask(&quota, 0, 0, 400, 100), NOON).await;
    // Nothing is heard of it for a hold time; then what it had used arrives.
    let later = NOON + HOLD + 120 * SECOND;
    assert_eq!(end::expire(house.db(), 0, later).await.expect("runs"), 1);
    node.settles(vec![settle(300, vec![charge(&quota, 300)])]).await;
    assert_eq!(house.ledger(&quota).await, (300, 0));
    let answer = node.one(ask(&quota, 400, 100, 5, 5), later).await;
    let free = answer.granted - answer.returned - 300;
    assert_eq!((free, answer.outstanding), (5, 5), "not after sixty calls of 5");
    assert_eq!(house.ledger(&quota).await, (300, 5));
}

#[tokio::test]
async fn a_lost_answer_is_part_of_what_is_wanted() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let node = house.node('a');
    for _ in 0..3 {
        // The answer never arrives, so the node says the same again.
        let answer = node.one(ask(&quota, 0, 0, 400, 100), NOON).await;
        assert_eq!((answer.granted, answer.outstanding), (400, 400));
    }
    let answer = node.one(ask(&quota, 0, 0, 600, 500), NOON).await;
    assert_eq!(answer.granted, 600, "only what is missing comes on top");
    let answer = node.one(ask(&quota, 600, 0, 1000, 500), NOON).await;
    assert_eq!((answer.granted, answer.outstanding), (600, 600), "less than the least is not granted");
    assert_eq!(house.ledger(&quota).await, (0, 600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_at_once_never_get_more_than_there_is() {
    let house = std::sync::Arc::new(House::new().await);
    let quota = house.tokens(10_000).await;
    let nodes = ('a'..='f').map(|name| {
        let (house, quota) = (house.clone(), quota.clone());
        tokio::spawn(async move {
            let (node, mut granted) = (house.node(name), 0);
            for round in 0..25 {
                granted = node.one(ask(&quota, granted, 0, 300, 70), NOON + round * SECOND).await.granted;
            }
            granted
        })
    });
    let mut sum = 0;
    for node in nodes.collect::<Vec<_>>() {
        sum += node.await.expect("runs");
    }
    assert!(sum <= 10_000 && sum > 10_000 - 70, "{sum}");
    assert_eq!(house.ledger(&quota).await, (0, sum));
}

#[tokio::test]
async fn a_node_that_is_short_is_given_what_others_can_spare() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let (rich, poor) = (house.node('a'), house.node('b'));
    assert_eq!(rich.one(ask(&quota, 0, 0, 950, 100), NOON).await.granted, 950, "it is alone");
    let answer = poor.one(ask(&quota, 0, 0, 200, 100), NOON + SECOND).await;
    assert_eq!((answer.granted, answer.recall), (0, 0));
    let told = rich.one(ask(&quota, 950, 0, 0, 0), NOON + 2 * SECOND).await;
    assert_eq!(told.recall, 150);
    let unasked = rich.trade(&[], NOON + 2 * SECOND).await.expect("is answered");
    assert_eq!((unasked.len(), unasked[0].recall, unasked[0].granted), (1, 150, 950), "also when it names nothing");
    assert_eq!(poor.trade(&[], NOON + 2 * SECOND).await.expect("is answered"), []);
    rich.one(ask(&quota, 950, 300, 0, 0), NOON + 3 * SECOND).await;
    let answer = poor.one(ask(&quota, 0, 0, 200, 100), NOON + 4 * SECOND).await;
    assert_eq!(answer.granted, 100, "the least, because its fair share is less");
    assert_eq!(rich.one(ask(&quota, 950, 300, 0, 0), NOON + 5 * SECOND).await.recall, 0, "it is met");
    assert_eq!(house.ledger(&quota).await, (0, 750));
    // A shortage is forgotten after some seconds.
    poor.one(ask(&quota, 100, 0, 900, 900), NOON + 6 * SECOND).await;
    assert_eq!(rich.one(ask(&quota, 950, 300, 0, 0), NOON + 7 * SECOND).await.recall, 650);
    assert_eq!(rich.one(ask(&quota, 950, 300, 0, 0), NOON + 12 * SECOND).await.recall, 0);
}

#[tokio::test]
async fn what_a_node_can_name_is_adopted() {
    let mut house = House::new().await;
    let quota = house.tokens(1000).await;
    // The database was restored: it knows nothing of these.
    let mut tx = house.db().begin().await.expect("begins");
    revisions::next_generation(&mut tx).await.expect("is restored");
    tx.commit().await.expect("commits");
    house.quotas.learning_until = learning::begin(house.db(), NOON).await.expect("reads");
    assert_eq!(house.quotas.learning_until, NOON + HOLD);
    assert_eq!(learning::begin(house.db(), NOON + 5).await.expect("reads"), NOON + HOLD, "also after a restart");
    let (one, two) = (house.node('a'), house.node('b'));
    let answer = one.one(ask(&quota, 600, 100, 0, 0), NOON).await;
    assert_eq!((answer.granted, answer.returned, answer.outstanding), (600, 100, 500));
    assert_eq!(two.one(ask(&quota, 0, 0, 400, 10), NOON).await.granted, 62, "a fair part of half of what remains");
    let answer = two.one(ask(&quota, 700, 0, 100, 10), NOON).await;
    assert_eq!((answer.granted, answer.outstanding), (700, 1200), "even past the limit; then nothing is granted");
    assert_eq!(house.ledger(&quota).await, (0, 1200));
}

#[tokio::test]
async fn a_lease_whose_time_has_passed_is_taken_back() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let mut node = house.node('a');
    node.one(ask(&quota, 0, 0, 800, 100), NOON).await;
    node.settles(vec![settle(100, vec![charge(&quota, 100)])]).await;
    let later = NOON + 10 * 60 * SECOND;
    node.one(ask(&quota, 800, 0, 0, 0), later).await;
    assert_eq!(end::expire(house.db(), 0, NOON + HOLD + 60 * SECOND).await.expect("runs"), 0, "it was named since");
    assert_eq!(end::expire(house.db(), 0, later + HOLD - 1).await.expect("runs"), 0);
    assert_eq!(end::expire(house.db(), 0, later + HOLD + 61 * SECOND).await.expect("runs"), 1);
    assert_eq!(house.ledger(&quota).await, (100, 0));
    // What was under way settles all the same, and the node is told.
    node.settles(vec![settle(50, vec![charge(&quota, 50)])]).await;
    assert_eq!(house.ledger(&quota).await, (150, 0));
    let back = later + 20 * 60 * SECOND;
    let answer = node.one(ask(&quota, 800, 0, 0, 0), back).await;
    assert_eq!((answer.granted, answer.returned, answer.outstanding), (800, 700, 0));
    let answer = node.one(ask(&quota, 800, 0, 200, 100), back).await;
    assert_eq!((answer.granted, answer.returned, answer.outstanding), (1050, 700, 200), "the debt of 50 comes on top");
    assert_eq!(house.ledger(&quota).await, (150, 200));
}

#[tokio::test]
async fn an_epoch_ends_with_the_last_of_its_shards() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let mut node = house.node('a');
    let other = house.node('b');
    node.one(ask(&quota, 0, 0, 600, 100), NOON).await;
    other.one(ask(&quota, 0, 0, 100, 100), NOON).await;
    let open = |reserved: Vec<wire::Charge>| {
        let Settle { exchange_id, at_micros, tenant_id, bot_id, vendor, model, .. } = settle(0, Vec::new());
        let open = Open { exchange_id, at_micros, tenant_id, bot_id, vendor, model, ..Open::default() };
        Kind::Open(Open { reserved_tokens: 70, reserved, ..open })
    };
    let notify = QuotaSpec { action: QuotaAction::Notify, ..spec(QuotaMetric::TotalTokens, 5000) };
    let watched = house.quota(QuotaScope::Tenant, notify).await;
    node.ship(0, vec![open(vec![charge(&quota, 50)])]).await;
    assert_eq!(house.ledger(&quota).await, (0, 700), "still under way");
    let ended = || Kind::End(EpochEnd { abandoned: true, shards: 2 });
    node.ship(0, vec![ended()]).await;
    assert_eq!(house.ledger(&quota).await, (50, 650), "charged at what it held");
    assert_eq!(house.ledger(&watched).await, (70, 0), "one that it did not hold counts its tokens");
    node.ship(1, vec![Kind::Settle(settle(30, vec![charge(&quota, 30)])), ended()]).await;
    assert_eq!(house.ledger(&quota).await, (80, 100), "the other node's lease stays");
    assert!(matches!(node.trade(&[ask(&quota, 600, 0, 10, 1)], NOON).await, Err(TradeError::Ended)));
    let next = Node { epoch: 2, ..house.node('a') };
    assert_eq!(next.one(ask(&quota, 0, 0, 820, 820), NOON).await.granted, 820);
}

#[tokio::test]
async fn charges_reach_every_quota_that_covers_an_event() {
    let house = House::new().await;
    let held = house.tokens(10_000).await;
    let of = |scope, metric| house.quota(scope, spec(metric, 10_000));
    let requests = of(QuotaScope::Tenant, QuotaMetric::Requests).await;
    let input = of(QuotaScope::Project, QuotaMetric::InputTokens).await;
    let output = of(QuotaScope::ProviderKey, QuotaMetric::OutputTokens).await;
    let some = QuotaSpec { model: Some("gpt-*".into()), ..spec(QuotaMetric::TotalTokens, 10_000) };
    let some = house.quota(QuotaScope::Bot, some).await;
    let mut node = house.node('a');
    let listed = Settle { output_tokens: Some(4), ..settle(10, vec![charge(&held, 3)]) };
    let elsewhere = Settle {
        bot_id: "bot_2".into(),
        project_id: String::new(),
        provider_key_id: String::new(),
        ..settle(100, Vec::new())
    };
    let refused = Settle { outcome: "refused".into(), ..settle(0, Vec::new()) };
    let stranger = Settle { tenant_id: "ten_2".into(), ..settle(9, vec![charge(&held, 9)]) };
    let other_model = Settle { model: "claude".into(), ..settle(1000, vec![charge("quo_none", 5), charge(&held, 0)]) };
    node.settles(vec![listed, elsewhere, refused, stranger, other_model]).await;
    let mut found = Vec::new();
    for quota in [&held, &requests, &input, &output, &some] {
        found.push(house.ledger(quota).await.0);
    }
    assert_eq!(found, [3, 3, 1010, 4, 14]);
}

#[tokio::test]
async fn people_are_warned_once() {
    let house = House::new().await;
    let quota = house.tokens(100).await;
    let mut node = house.node('a');
    for tokens in [79, 1, 5, 15, 40] {
        node.settles(vec![settle(tokens, Vec::new())]).await;
    }
    let mut conn = house.db().read().await.expect("reads");
    let notices = quota_windows::notices(&mut conn, &quota).await.expect("reads");
    let told: Vec<_> = notices.iter().map(|notice| (notice.exhausted, notice.used, notice.limit)).collect();
    assert_eq!(told, [(false, 80, 100), (true, 100, 100)]);
}

#[tokio::test]
async fn windows_are_named_by_the_control_plane_alone() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let watched = QuotaSpec { action: QuotaAction::Notify, ..spec(QuotaMetric::Requests, 5) };
    let watched = house.quota(QuotaScope::Bot, watched).await;
    let node = house.node('a');
    let today = window::containing(QuotaWindow::Day, NOON, &jiff::tz::TimeZone::UTC);
    // What it has of the named window is not said of the next one.
    let next = Claim { next: true, window_start: today.start, ..ask(&quota, 100, 0, 300, 10) };
    let both = node.trade(&[ask(&quota, 0, 0, 100, 10), next, ask(&watched, 0, 0, 1, 1)], NOON).await.expect("answers");
    assert_eq!((both[0].window, both[0].granted), (today, 100));
    assert_eq!((both[1].window.start, both[1].granted, both[1].outstanding), (today.end, 300, 300));
    assert!(!both[0].gone && both[2].gone, "one that only tells is not enforced");
    assert!(node.one(ask("quo_none", 0, 0, 1, 1), NOON).await.gone);
    // The day has turned: the prefetched window is the one that is now.
    let after = today.end + SECOND;
    let held = Claim { window_start: today.end, ..ask(&quota, 300, 0, 50, 10) };
    assert_eq!(node.one(held, after).await.granted, 350);
    assert_eq!(node.one(ask(&quota, 350, 0, 0, 0), after).await.window.start, today.end);
    let past = Claim { window_start: today.start, ..ask(&quota, 100, 0, 500, 10) };
    assert_eq!(node.one(past, after).await.granted, 100, "what is over is not granted from");
    let too_many = vec![ask(&quota, 0, 0, 1, 1); trade::MAX_CLAIMS + 1];
    assert!(matches!(node.trade(&too_many, NOON).await, Err(TradeError::Invalid(_))));
}

#[tokio::test]
async fn a_lowered_limit_calls_leases_back() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let (busy, silent) = (house.node('a'), house.node('b'));
    assert_eq!(busy.one(ask(&quota, 0, 0, 500, 100), NOON).await.granted, 500);
    let granted = silent.one(ask(&quota, 0, 0, 500, 100), NOON).await.granted;
    house.change(&quota, |spec| spec.limit = 400).await;
    let told = busy.one(ask(&quota, 500, 0, 0, 0), NOON + SECOND).await;
    assert_eq!((told.limit, told.recall), (400, 100 + granted), "all that is too much, whoever gives it first");
    let unasked = silent.trade(&[], NOON + SECOND).await.expect("is answered");
    assert_eq!(unasked.iter().map(|answer| answer.recall).collect::<Vec<_>>(), [100 + granted]);
    busy.one(ask(&quota, 500, 500, 0, 0), NOON + 2 * SECOND).await;
    silent.one(ask(&quota, granted, 0, 0, 0), NOON + 2 * SECOND).await;
    assert_eq!(house.ledger(&quota).await, (0, granted));
    let told = silent.one(ask(&quota, granted, 0, 0, 0), NOON + 3 * SECOND).await;
    assert_eq!(told.recall, 0, "what is left fits");
}

#[tokio::test]
async fn a_window_of_the_old_time_zone_is_over_at_once() {
    let house = House::new().await;
    let quota = house.tokens(1000).await;
    let node = house.node('a');
    let day = node.one(ask(&quota, 0, 0, 100, 10), NOON).await.window;
    let mut tx = house.db().begin().await.expect("begins");
    let mut tenant = tenants::get(&mut tx, "ten_1").await.expect("reads").expect("is there");
    "Asia/Kathmandu".clone_into(&mut tenant.time_zone);
    assert!(tenants::update(&mut tx, &tenant).await.expect("writes"));
    quotas::set_version(&mut tx, "moved").await.expect("says so");
    tx.commit().await.expect("commits");
    let old = Claim { window_start: day.start, ..ask(&quota, 100, 0, 50, 10) };
    let answer = node.one(old, NOON + SECOND).await;
    assert_eq!((answer.window.start, answer.window.end, answer.granted), (day.start, NOON + SECOND, 100));
    let new = node.one(ask(&quota, 0, 0, 50, 10), NOON + SECOND).await;
    assert_eq!((new.window.start, new.granted), (day.start - (5 * 3600 + 45 * 60) * SECOND, 50));
}

#[tokio::test]
async fn thousands_of_claims_are_one_call() {
    let house = House::new().await;
    let mut claims = Vec::new();
    let mut tx = house.db().begin().await.expect("begins");
    for n in 0..2000 {
        let row = QuotaRow {
            id: id::new(id::Kind::Quota),
            tenant_id: "ten_1".into(),
            scope: QuotaScope::Bot,
            scope_id: format!("bot_{n}"),
            spec: spec(QuotaMetric::TotalTokens, 1000),
            ordering: 0,
            created_at: NOON,
            updated_at: NOON,
        };
        quotas::insert(&mut tx, &row).await.expect("inserts");
        claims.push(ask(&row.id, 0, 0, 400, 10));
    }
    quotas::set_version(&mut tx, "many").await.expect("says so");
    tx.commit().await.expect("commits");
    let node = house.node('a');
    claims.reverse();
    let first = node.trade(&claims, NOON).await.expect("answers");
    assert!(
        first.iter().zip(&claims).all(|(answer, claim)| answer.granted == 400 && answer.quota_id == claim.quota_id)
    );
    let again = node.trade(&claims, NOON).await.expect("answers");
    assert_eq!(first, again);
    let mut conn = house.db().read().await.expect("reads");
    assert_eq!(quota_leases::of(&mut conn, node.holder(), 5000).await.expect("reads").len(), 2000);
}

/// Its node may have named it since: what is taken back too soon is given to
/// others while the node goes on with it.
#[tokio::test]
async fn a_restored_lease_that_looks_over_is_not_taken_back_while_nodes_are_learnt_of() {
    let mut house = House::new().await;
    let quota = house.tokens(693).await;
    house.node('a').one(ask(&quota, 0, 0, 370, 74), NOON).await;
    assert_eq!(learning::begin(house.db(), NOON).await.expect("reads"), 0);
    // Long after that the database is put back to here. Meanwhile the node has
    // returned 784 of 1,153.
    let mut tx = house.db().begin().await.expect("begins");
    revisions::next_generation(&mut tx).await.expect("is restored");
    tx.commit().await.expect("commits");
    let later = NOON + 2 * HOLD;
    let until = learning::begin(house.db(), later).await.expect("reads");
    house.quotas.learning_until = until;
    let (one, two) = (house.node('a'), house.node('b'));
    assert_eq!(end::expire(house.db(), until, later + 1).await.expect("runs"), 0);
    two.one(ask(&quota, 0, 0, 323, 10), later + 1).await;
    let answer = one.one(ask(&quota, 1153, 784, 0, 0), later + 2).await;
    assert_eq!((answer.granted, answer.returned), (1153, 784));
    assert!(answer.outstanding <= 693, "{answer:?}");
    assert_eq!(end::expire(house.db(), until, later + HOLD).await.expect("runs"), 0, "it was named since");
    assert_eq!(end::expire(house.db(), until, later + 2 * HOLD).await.expect("runs"), 2);
}
