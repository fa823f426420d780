//! The loop against a runner that is a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clawgate_shared::egress::PrivateUpstreams;
use serde_json::json;
use tokio::sync::watch;

use super::links::{LinkId, Marked, RunnerFacts};
use super::orders::{Failure, Order, Outcome, Verb};
use super::orphans::Orphan;
use super::plan::{Cell, CellState};
use super::*;
use crate::domain::bots::{self as domain, BotFields, Drive};
use crate::domain::{Caller, Domain, DomainError, resources};
use crate::fleet::testing::Plane;
use crate::store::bot_events;
use crate::store::bots;
use crate::store::containers;
use crate::store::page::Page;
use crate::store::resource_quotas::ResourceQuota;
use crate::store::runners;
use crate::store::types::{BotStatus, Health, Reason};

const PATIENCE: Duration = Duration::from_secs(20);
const TENANT: &str = "ten_1";
const RUNNER: &str = "run_1";

/// What the script's engine has, and what it was told.
#[derive(Default)]
struct Engine {
    cells: BTreeMap<String, Cell>,
    told: Vec<String>,
    refuse: BTreeMap<&'static str, Failure>,
    hold: BTreeMap<&'static str, Arc<tokio::sync::Notify>>,
    starts: u32,
    env: BTreeMap<String, String>,
}

struct House {
    plane: Plane,
    domain: Domain,
    runtime: Arc<Runtime>,
    engine: Arc<Mutex<Engine>>,
    stop: watch::Sender<bool>,
}

impl House {
    async fn new() -> Self {
        let plane = Plane::new().await;
        let (runtime, again) = (plane.runtime().await, plane.runtime().await);
        assert_eq!(runtime.installation(), again.installation(), "the mark is made once");
        let upstreams = Arc::new(PrivateUpstreams::none());
        let domain = Domain { db: plane.db.clone(), vault: plane.vault.clone(), upstreams, pool: BotPool::default() };
        let mut tx = plane.db.begin().await.expect("begins");
        runners::save_identity(&mut tx, RUNNER, (None, None), "0.1.0", 1).await.expect("saves");
        tx.commit().await.expect("commits");
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(runtime.clone().run(stopped));
        Self { plane, domain, runtime, engine: Arc::default(), stop }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().expect("whole")
    }

    /// The runner comes; its list is what its engine has.
    fn connect(&self) -> LinkId {
        let facts = RunnerFacts {
            ready: true,
            listener: Some("0.0.0.0:8084".parse().expect("address")),
            ..RunnerFacts::default()
        };
        let (id, mut queue) = self.runtime.links.connect(RUNNER, facts);
        self.list(id);
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            while let Some(order) = queue.recv().await {
                tokio::spawn(obey(Arc::clone(&engine), order));
            }
        });
        id
    }

    fn list(&self, id: LinkId) {
        let cells = self.engine().cells.iter().map(|(bot_id, cell)| marked(bot_id, cell)).collect();
        self.runtime.links.set_list(RUNNER, id, cells);
        self.runtime.wake();
    }

    async fn create(&self, hostname: &str) -> bots::BotRow {
        let fields = BotFields {
            adapter: Some("generic".into()),
            image: Some(Some("acme/bot:1".into())),
            ..BotFields::default()
        };
        let made = domain::create(&self.domain, &Caller::system(), TENANT, hostname.into(), fields).await;
        self.runtime.wake();
        made.expect("is made").value.bot
    }

    async fn drive(&self, hostname: &str, verb: Drive) {
        domain::drive(&self.domain, &Caller::system(), (TENANT, hostname), verb).await.expect("is said");
        self.runtime.wake();
    }

    async fn bot(&self, hostname: &str) -> bots::BotRow {
        let mut conn = self.plane.db.read().await.expect("reads");
        bots::get(&mut conn, TENANT, hostname).await.expect("reads").expect("is there")
    }

    async fn until(&self, hostname: &str, status: BotStatus) -> bots::BotRow {
        let waiting = async {
            loop {
                let bot = self.bot(hostname).await;
                if bot.status == status {
                    return bot;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(bot) => bot,
            Err(_) => panic!("not {status:?}: {:?}", self.bot(hostname).await.container.map(|c| c.seen)),
        }
    }

    async fn history(&self, bot: &bots::BotRow) -> Vec<String> {
        let mut conn = self.plane.db.read().await.expect("reads");
        let page = bot_events::list(&mut conn, &bot.id, None, &Page::default()).await.expect("lists");
        page.rows.into_iter().rev().map(|row| row.status).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn marked(bot_id: &str, cell: &Cell) -> Marked {
    Marked { bot_id: bot_id.into(), tenant_id: TENANT.into(), hostname: "h".into(), cell: cell.clone() }
}

fn made(generation: u64) -> Cell {
    Cell {
        container_id: format!("c{generation}"),
        generation,
        state: CellState::Created,
        started_at: String::new(),
        exit_code: None,
        oom: false,
        health: Health::Unknown,
        restart_count: 0,
        image_digest: "sha256:1".into(),
    }
}

async fn obey(engine: Arc<Mutex<Engine>>, order: Order) {
    let name = order.verb.name();
    let gate = engine.lock().expect("whole").hold.get(name).cloned();
    if let Some(gate) = gate {
        gate.notified().await;
    }
    let answer = carry_out(&mut engine.lock().expect("whole"), &order);
    let _ = order.answer.send(answer);
}

fn carry_out(engine: &mut Engine, order: &Order) -> Result<Outcome, Failure> {
    let name = order.verb.name();
    engine.told.push(name.to_owned());
    if let Some(failure) = engine.refuse.get(name) {
        return Err(failure.clone());
    }
    engine.starts += 1;
    let start = format!("t{}", engine.starts);
    match &order.verb {
        Verb::Create(spec) => {
            engine.env = spec.rendered.env.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
            engine.cells.insert(order.bot_id.clone(), made(order.generation));
        }
        Verb::Remove { .. } => {
            engine.cells.remove(&order.bot_id);
        }
        Verb::Logs { .. } => {
            return Ok(Outcome { text: zeroize::Zeroizing::new("one\ntwo\n".into()), ..Outcome::default() });
        }
        Verb::Start | Verb::Restart => {
            if let Some(cell) = engine.cells.get_mut(&order.bot_id) {
                (cell.state, cell.started_at) = (CellState::Running, start);
            }
        }
        Verb::Stop | Verb::Kill => {
            if let Some(cell) = engine.cells.get_mut(&order.bot_id) {
                (cell.state, cell.exit_code) = (CellState::Exited, Some(137));
            }
        }
    }
    Ok(Outcome { cell: engine.cells.get(&order.bot_id).cloned(), tells: true, ..Outcome::default() })
}

#[tokio::test]
async fn a_bot_comes_up_crashes_comes_back_and_stops_without_an_error() {
    let house = House::new().await;
    let bot = house.create("worker").await;
    let nobody = async {
        while house.until("worker", BotStatus::Pending).await.container.expect("is run").seen.reason != Reason::NoRunner
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, nobody).await.expect("is said");
    let mut watch = house.runtime.live.watch(None);
    let link = house.connect();
    let up = house.until("worker", BotStatus::Running).await;
    let container = up.container.expect("is run");
    assert_eq!((container.runner_id.as_deref(), container.generation), (Some(RUNNER), 1));
    assert_eq!(container.seen.image_digest, "sha256:1");
    assert_eq!(house.engine().told, ["create", "start"]);
    let env = house.engine().env.clone();
    assert_eq!(env["OPENAI_BASE_URL"], "http://10.231.0.1:8084/v1/openai");
    assert!(env["CLAWGATE_BOT_TOKEN"].starts_with("cgb_") && env["CLAWGATE_GATEWAY_TOKEN"].len() == 64);
    let mut heard = Vec::new();
    while heard.last() != Some(&"running") {
        heard.push(watch.stream.recv().await.expect("is told").event.status);
    }
    assert_eq!(heard.first(), Some(&"creating"), "{heard:?}");

    for cell in house.engine().cells.values_mut() {
        (cell.state, cell.exit_code) = (CellState::Exited, Some(3));
    }
    house.list(link);
    let crashed = house.until("worker", BotStatus::Crashed).await;
    assert_eq!(crashed.status_reason, "it ended by itself with exit code 3");
    // It waits two seconds; somebody who asks need not.
    house.drive("worker", Drive::Start).await;
    house.until("worker", BotStatus::Running).await;
    house.drive("worker", Drive::Stop).await;
    let down = house.until("worker", BotStatus::Stopped).await;
    assert_eq!(down.container.expect("is run").seen.failures, 0);
    let history = house.history(&bot).await;
    assert_eq!(history.iter().filter(|status| *status == "crashed").count(), 1, "{history:?}");
    assert!(!history.iter().any(|status| status == "error"), "{history:?}");
    assert_eq!(house.runtime.logs(&bot, 2).await, Ok(String::new()), "the row of before its place");
    let bot = house.bot("worker").await;
    assert_eq!(house.runtime.logs(&bot, 2).await.as_deref(), Ok("one\ntwo\n"));
}

#[tokio::test]
async fn what_it_is_made_of_makes_it_anew_and_a_deleted_bot_leaves_nothing() {
    let house = House::new().await;
    house.connect();
    house.create("worker").await;
    house.until("worker", BotStatus::Running).await;
    let image = BotFields { image: Some(Some("acme/bot:2".into())), ..BotFields::default() };
    let same = BotFields { name: Some("Other".into()), ..BotFields::default() };
    for (fields, generation) in [(same, 1), (image, 2)] {
        let done = domain::update(&house.domain, &Caller::system(), (TENANT, "worker"), fields, None).await;
        let container = done.expect("is changed").value.container.expect("is run");
        assert_eq!(container.generation, generation);
    }
    house.runtime.wake();
    let waiting = async {
        while house.engine().cells.values().next().is_none_or(|cell| cell.generation != 2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("is made anew");
    let bot = house.until("worker", BotStatus::Running).await;
    assert_eq!(house.engine().told, ["create", "start", "stop", "remove", "create", "start"]);

    domain::delete(&house.domain, &Caller::system(), (TENANT, "worker"), None).await.expect("is deleted");
    let subnets = async |house: &House| {
        containers::free_subnet(&mut house.plane.db.read().await.expect("reads"), 4096).await.expect("reads")
    };
    house.runtime.wake();
    let waiting = async {
        while !house.engine().cells.is_empty() || subnets(&house).await != Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("nothing is left");
    assert!(house.runtime.orphans(None).await.expect("looks").is_empty(), "{}", bot.id);
}

#[tokio::test]
async fn a_kill_does_not_wait_for_what_is_under_way() {
    let house = House::new().await;
    house.connect();
    house.create("worker").await;
    house.until("worker", BotStatus::Running).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    house.engine().hold.insert("stop", gate.clone());
    house.drive("worker", Drive::Stop).await;
    house.until("worker", BotStatus::Stopping).await;
    let done = domain::kill(&house.domain, &Caller::system(), (TENANT, "worker")).await.expect("is said");
    let killing = house.runtime.kill(&done.value);
    tokio::time::timeout(Duration::from_secs(2), killing).await.expect("at once").expect("is done");
    assert_eq!(house.engine().told.last().map(String::as_str), Some("kill"));
    gate.notify_one();
    let killed = house.until("worker", BotStatus::Stopped).await;
    assert_eq!(killed.container.as_ref().expect("is run").seen.reason, Reason::Killed);
    // A start gives it a token that works, so it is made anew.
    house.engine().hold.clear();
    let before = killed.container.expect("is run");
    house.drive("worker", Drive::Start).await;
    let up = house.until("worker", BotStatus::Running).await.container.expect("is run");
    assert_ne!(up.token_id, before.token_id);
    assert_eq!(up.generation, before.generation + 1);
}

#[tokio::test]
async fn what_fails_says_why_and_is_tried_again() {
    let house = House::new().await;
    let failure = Failure { reason: Reason::ImageNotFound, text: "there is no acme/bot:1".into() };
    house.engine().refuse.insert("create", failure);
    house.connect();
    house.create("worker").await;
    let failed = house.until("worker", BotStatus::Error).await;
    let seen = failed.container.expect("is run").seen;
    assert_eq!((seen.reason, seen.text.as_str(), seen.failures), (Reason::ImageNotFound, "there is no acme/bot:1", 1));
    assert!(seen.retry_at.is_some());
    house.engine().refuse.clear();
    house.until("worker", BotStatus::Running).await;
}

#[tokio::test]
async fn suspended_is_down_and_resumed_is_as_it_was() {
    let house = House::new().await;
    house.connect();
    house.create("worker").await;
    house.until("worker", BotStatus::Running).await;
    for (suspended, status) in [(true, BotStatus::Suspended), (false, BotStatus::Running)] {
        let said = domain::suspend(&house.domain, &Caller::system(), (TENANT, "worker"), suspended).await;
        said.expect("is said");
        house.runtime.wake();
        house.until("worker", status).await;
    }
}

#[tokio::test]
async fn orphans_are_told_both_ways_and_cleared() {
    let house = House::new().await;
    house.engine().cells.insert("bot_gone".into(), made(1));
    let link = house.connect();
    let bot = house.create("worker").await;
    house.until("worker", BotStatus::Running).await;
    let kinds = |orphans: &[Orphan]| -> Vec<&'static str> {
        orphans.iter().map(|orphan| if matches!(orphan, Orphan::Bot { .. }) { "bot" } else { "container" }).collect()
    };
    assert_eq!(kinds(&house.runtime.orphans(Some(TENANT)).await.expect("looks")), ["container"]);
    assert!(house.runtime.orphans(Some("ten_2")).await.expect("looks").is_empty(), "another tenant's");
    assert_eq!(house.engine().told, ["create", "start"], "what has no bot is not touched before it is asked for");
    house.runtime.clean_up(Some(TENANT)).await.expect("clears");
    assert!(!house.engine().cells.contains_key("bot_gone"));
    // Somebody took the container away behind our back: it is made again.
    house.engine().cells.clear();
    house.list(link);
    let waiting = async {
        while !house.engine().cells.contains_key(&bot.id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("is made again");
    // A runner that is shut out has its bots only until they are cleared up.
    house.until("worker", BotStatus::Running).await;
    let mut tx = house.plane.db.begin().await.expect("begins");
    assert!(runners::revoke(&mut tx, RUNNER, 2).await.expect("revokes"));
    tx.commit().await.expect("commits");
    house.runtime.links.forget(RUNNER);
    let found = house.runtime.orphans(None).await.expect("looks");
    assert!(matches!(found.as_slice(), [Orphan::Bot { runner_gone: true, .. }]), "{found:?}");
    house.runtime.clean_up(None).await.expect("clears");
    assert_eq!(house.bot("worker").await.container.expect("is run").runner_id, None);
}

#[tokio::test]
async fn the_last_place_of_a_tenant_is_given_once() {
    let house = House::new().await;
    // The plane has one external bot already.
    let quota = ResourceQuota { bots: Some(2), memory_mb: Some(600), ..ResourceQuota::default() };
    resources::replace(&house.domain, &Caller::system(), TENANT, quota).await.expect("is set");
    let make = |hostname: &str, memory: u64| {
        let (domain, hostname) = (house.domain.clone(), hostname.to_owned());
        let fields = BotFields {
            adapter: Some("generic".into()),
            image: Some(Some("acme/bot:1".into())),
            resources: Some(Some(json!({"memory_mb": memory}))),
            ..BotFields::default()
        };
        tokio::spawn(async move { domain::create(&domain, &Caller::system(), TENANT, hostname, fields).await })
    };
    let both = [make("a", 500), make("b", 500)];
    let mut made = 0;
    for one in both {
        match one.await.expect("ends") {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, DomainError::LimitReached { what: "bots", limit: 2 }), "{error}"),
        }
    }
    assert_eq!(made, 1);
    let quota = ResourceQuota { bots: None, ..quota };
    resources::replace(&house.domain, &Caller::system(), TENANT, quota).await.expect("is set");
    let refused = make("c", 101).await.expect("ends").expect_err("too much");
    assert!(matches!(refused, DomainError::LimitReached { limit: 600, .. }), "{refused}");
    make("c", 100).await.expect("ends").expect("fits");
}
