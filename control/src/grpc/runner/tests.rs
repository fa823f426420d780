//! A runner that is a script, over the real socket.

use std::time::Duration;

use clawgate_shared::egress::PrivateUpstreams;
use clawgate_shared::id;
use clawgate_shared::proto::runner::runner_client::RunnerClient;
use clawgate_shared::proto::runner::{
    Cell, CellChange, CellList, CellState, ControlMessage, Facts, Minute, Order, OrderResult, Problem, Stats,
    order::Verb,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::*;
use crate::domain::bots::{self as domain, BotFields};
use crate::domain::{Caller, Domain};
use crate::fleet::testing::Plane;
use crate::store::page::Page;
use crate::store::types::{BotEventKind, BotStatus, Reason, RunnerState};
use crate::store::{bot_events, bots, runners};

const PATIENCE: Duration = Duration::from_secs(20);
const TENANT: &str = "ten_1";

struct House {
    plane: Plane,
    runtime: Arc<Runtime>,
    channel: Channel,
}

struct Script {
    out: mpsc::Sender<RunnerMessage>,
    inbound: Streaming<ControlMessage>,
}

impl House {
    async fn new() -> Self {
        let plane = Plane::new().await;
        let runtime = plane.runtime().await;
        tokio::spawn(runtime.clone().run(plane.stop()));
        let path = plane.path("grpc.sock");
        let (behind, stop) = ((plane.fleet.clone(), runtime.clone()), plane.stop());
        tokio::spawn({
            let path = path.clone();
            async move { super::super::serve_unix(&path, behind, stop).await }
        });
        let uri = format!("unix://{}", path.display());
        let dialing = async {
            loop {
                match Endpoint::from_shared(uri.clone()).expect("address").connect().await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let channel = timeout(PATIENCE, dialing).await.expect("the socket answers");
        Self { plane, runtime, channel }
    }

    async fn enroll(&self) -> String {
        let runner_id = id::new(id::Kind::Runner);
        let request = EnrollRequest { runner_id: runner_id.clone(), ..EnrollRequest::default() };
        let answer = RunnerClient::new(self.channel.clone()).enroll(request).await.expect("enrols").into_inner();
        assert_eq!(answer.certificate_pem, "");
        runner_id
    }

    async fn connect(&self, runner_id: &str, facts: Facts) -> Script {
        let (out, outbox) = mpsc::channel(16);
        let hello = Hello { runner_id: runner_id.into(), software_version: "0.1.1".into(), facts: Some(facts) };
        out.send(RunnerMessage { kind: Some(Kind::Hello(hello)) }).await.expect("sends");
        let stream = RunnerClient::new(self.channel.clone()).work(ReceiverStream::new(outbox)).await;
        Script { out, inbound: stream.expect("works").into_inner() }
    }

    async fn create(&self, hostname: &str) -> bots::BotRow {
        let (db, vault) = (self.plane.db.clone(), self.plane.vault.clone());
        let domain = Domain { db, vault, upstreams: Arc::new(PrivateUpstreams::none()), pool: self.runtime.pool() };
        let fields = BotFields {
            adapter: Some("generic".into()),
            image: Some(Some("acme/bot:1".into())),
            ..BotFields::default()
        };
        let made = domain::create(&domain, &Caller::system(), TENANT, hostname.into(), fields).await;
        self.runtime.wake();
        made.expect("is made").value.bot
    }

    async fn until(&self, hostname: &str, what: impl Fn(&bots::BotRow) -> bool) -> bots::BotRow {
        let waiting = async {
            loop {
                let mut conn = self.plane.db.read().await.expect("reads");
                let bot = bots::get(&mut conn, TENANT, hostname).await.expect("reads").expect("is there");
                drop(conn);
                if what(&bot) {
                    return bot;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it comes true")
    }
}

impl Script {
    async fn say(&self, kind: Kind) {
        self.out.send(RunnerMessage { kind: Some(kind) }).await.expect("sends");
    }

    async fn hear(&mut self) -> Result<control_message::Kind, Code> {
        let heard = timeout(PATIENCE, self.inbound.message()).await.expect("something comes");
        heard.map_err(|status| status.code())?.and_then(|message| message.kind).ok_or(Code::Ok)
    }

    async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            Ok(control_message::Kind::Welcome(welcome)) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    async fn order(&mut self) -> Order {
        match self.hear().await {
            Ok(control_message::Kind::Order(order)) => order,
            other => panic!("no order: {other:?}"),
        }
    }

    async fn done(&self, order: &Order, cell: Option<Cell>) {
        let result = OrderResult { order_id: order.id, tells_cell: true, cell, ..OrderResult::default() };
        self.say(Kind::Result(result)).await;
    }
}

fn ready() -> Facts {
    Facts {
        name: "one".into(),
        engine: [("kind".to_owned(), "docker".to_owned())].into(),
        bot_listener: "0.0.0.0:8084".into(),
        ..Facts::default()
    }
}

fn cell(bot_id: &str, state: CellState, started_at: &str) -> Cell {
    Cell {
        bot_id: bot_id.into(),
        tenant_id: TENANT.into(),
        hostname: "box".into(),
        generation: 1,
        container_id: "c1".into(),
        state: state.into(),
        started_at: started_at.into(),
        ..Cell::default()
    }
}

#[tokio::test]
async fn a_runner_is_told_what_to_do_and_believed_about_its_own() {
    let house = House::new().await;
    let runner_id = house.enroll().await;
    let mut script = house.connect(&runner_id, ready()).await;
    let welcome = script.welcome().await;
    assert_eq!(
        (welcome.installation.as_str(), welcome.bot_pool.as_str()),
        (house.runtime.installation(), "10.231.0.0/16")
    );
    script.say(Kind::List(CellList::default())).await;
    let bot = house.create("box").await;
    let order = script.order().await;
    let Some(Verb::Create(spec)) = &order.verb else { panic!("{order:?}") };
    assert_eq!((order.bot_id.as_str(), order.generation, spec.image.as_str()), (bot.id.as_str(), 1, "acme/bot:1"));
    assert_eq!((spec.subnet.as_str(), spec.gateway.as_str()), ("10.231.0.0/28", "10.231.0.1"));
    assert!(spec.env.iter().any(|v| v.name == "OPENAI_BASE_URL" && v.value == "http://10.231.0.1:8084/v1/openai"));
    script.done(&order, Some(cell(&bot.id, CellState::Created, ""))).await;
    let order = script.order().await;
    assert!(matches!(order.verb, Some(Verb::Start(_))), "{order:?}");
    script.done(&order, Some(cell(&bot.id, CellState::Running, "t1"))).await;
    house.until("box", |bot| bot.status == BotStatus::Running).await;

    // Its words are kept for bots that live with it, and for no others.
    for bot_id in [bot.id.as_str(), "bot_1"] {
        let change =
            CellChange { cell: Some(cell(bot_id, CellState::Running, "t1")), gone: false, event: "start".into() };
        script.say(Kind::Change(change)).await;
        let minute = Minute { bot_id: bot_id.into(), start_micros: 60_000_000, cpu_millis: 7, ..Minute::default() };
        script.say(Kind::Stats(Stats { minutes: vec![minute] })).await;
    }
    let oom = Cell { exit_code: 137, oom: true, ..cell(&bot.id, CellState::Exited, "t1") };
    script.say(Kind::Change(CellChange { cell: Some(oom), gone: false, event: "oom".into() })).await;
    let crashed = house.until("box", |bot| bot.status == BotStatus::Crashed).await;
    let seen = crashed.container.expect("is run").seen;
    assert_eq!((seen.reason, seen.exit_code, seen.oom), (Reason::OutOfMemory, Some(137), true));
    let mut conn = house.plane.db.read().await.expect("reads");
    let said = async |conn: &mut crate::store::ReadConn, bot_id: &str| {
        let found = bot_events::list(conn, bot_id, Some(BotEventKind::Engine), &Page::default()).await;
        found.expect("lists").rows.into_iter().map(|row| row.status).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut conn, &bot.id).await, ["oom", "start"]);
    assert!(said(&mut conn, "bot_1").await.is_empty());
    let minutes = bot_events::minutes(&mut conn, &bot.id, (0, i64::MAX), 10).await.expect("reads");
    assert_eq!(minutes.iter().map(|minute| minute.cpu_millis).collect::<Vec<_>>(), [7]);
    assert!(bot_events::minutes(&mut conn, "bot_1", (0, i64::MAX), 10).await.expect("reads").is_empty());
    let row = runners::find(&mut conn, &runner_id).await.expect("reads").expect("is there");
    assert_eq!(
        (row.state, row.name.as_str(), row.engine["kind"].as_str()),
        (RunnerState::Ready, "one", Some("docker"))
    );
}

#[tokio::test]
async fn a_problem_is_the_bots_reason_and_a_runner_that_goes_is_said() {
    let house = House::new().await;
    let runner_id = house.enroll().await;
    let mut script = house.connect(&runner_id, ready()).await;
    script.welcome().await;
    script.say(Kind::List(CellList::default())).await;
    house.create("box").await;
    let order = script.order().await;
    let result = OrderResult {
        order_id: order.id,
        problem: Problem::ImageNotFound.into(),
        problem_text: "no such image\u{0}".into(),
        ..OrderResult::default()
    };
    script.say(Kind::Result(result)).await;
    let failed = house.until("box", |bot| bot.status == BotStatus::Error).await;
    assert_eq!(failed.status_reason, "no such image");
    let facts = Facts { engine_problem: "the socket is gone".into(), ..ready() };
    script.say(Kind::Facts(facts)).await;
    let reason = |wanted| move |bot: &bots::BotRow| bot.container.as_ref().is_some_and(|c| c.seen.reason == wanted);
    house.until("box", reason(Reason::EngineUnavailable)).await;
    drop(script);
    house.until("box", reason(Reason::RunnerAway)).await;
    assert!(house.runtime.links.connected().is_empty());
}

#[tokio::test]
async fn strangers_and_revoked_runners_get_no_orders() {
    let house = House::new().await;
    let mut stranger = house.connect(&id::new(id::Kind::Runner), ready()).await;
    assert_eq!(stranger.hear().await.err(), Some(Code::PermissionDenied));
    let request = EnrollRequest { runner_id: "me".into(), ..EnrollRequest::default() };
    let refused = RunnerClient::new(house.channel.clone()).enroll(request).await.expect_err("is refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let runner_id = house.enroll().await;
    let mut script = house.connect(&runner_id, ready()).await;
    script.welcome().await;
    // A second stream takes the place of the first.
    let mut second = house.connect(&runner_id, ready()).await;
    second.welcome().await;
    assert_eq!(script.hear().await.err(), Some(Code::Aborted));
    let mut tx = house.plane.db.begin().await.expect("begins");
    assert!(runners::revoke(&mut tx, &runner_id, 1).await.expect("revokes"));
    tx.commit().await.expect("commits");
    assert_eq!(second.hear().await.err(), Some(Code::PermissionDenied));
    let mut again = house.connect(&runner_id, ready()).await;
    assert_eq!(again.hear().await.err(), Some(Code::PermissionDenied));
}
