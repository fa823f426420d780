//! The stream to the control plane: dialled from here, and again after every
//! loss.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clawgate_shared::proto::runner::runner_client::RunnerClient;
use clawgate_shared::proto::runner::{
    CellChange, CellList, ControlMessage, EnrollRequest, Facts, Hello, Order, OrderResult, RunnerMessage,
    control_message, order::Verb, runner_message,
};
use futures::StreamExt as _;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::app::RunnerConfig;
use crate::problem::Problem;
use crate::spec::{CellSpec, is_id};
use crate::verbs::Cells;
use crate::{cell, engine, observe};

/// How long an answer to a first word may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Keepalive: a control plane that is silent is noticed after twice this time.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often everything is listed and probed.
const LIST: Duration = Duration::from_secs(30);
/// How soon an engine that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages that wait for the control plane.
const OUTBOX: usize = 256;
/// Orders at a time; more are refused.
const MAX_ORDERS: usize = 256;
/// Longest time that an order may ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// Probes at a time.
const PROBES: usize = 16;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be dialled.
    #[error("the control plane's address cannot be used: {0}")]
    Address(tonic::transport::Error),
    /// The control plane said no, or went away.
    #[error("the control plane: {0}")]
    Status(String),
    /// It is silent.
    #[error("the control plane does not answer")]
    Silent,
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        Self::Status(format!("{:?}: {}", status.code(), status.message()))
    }
}

type Outbox = mpsc::Sender<RunnerMessage>;

/// A channel over the control plane's Unix socket, connected when it is used.
fn channel(socket: &Path) -> Result<Channel, LinkError> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(LinkError::Address)?;
    Ok(endpoint
        .connect_timeout(KEEPALIVE)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// One session, until it is lost.
///
/// # Errors
/// See [`LinkError`].
pub async fn session(config: &RunnerConfig, runner_id: &str) -> Result<(), LinkError> {
    let mut client = RunnerClient::new(channel(&config.control)?);
    let software_version = env!("CARGO_PKG_VERSION").to_owned();
    let request = EnrollRequest {
        runner_id: runner_id.to_owned(),
        software_version: software_version.clone(),
        ..EnrollRequest::default()
    };
    timeout(ANSWER, client.enroll(request)).await.map_err(|_| LinkError::Silent)??;
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let opened = engine::open(config.engine.as_deref()).await;
    let hello = Hello { runner_id: runner_id.to_owned(), software_version, facts: Some(facts(config, &opened)) };
    // The queue is empty: this cannot wait.
    let _ = outbox.send(message(runner_message::Kind::Hello(hello))).await;
    let work = timeout(ANSWER, client.work(ReceiverStream::new(messages))).await.map_err(|_| LinkError::Silent)??;
    let mut inbound = work.into_inner();
    let first = timeout(ANSWER, inbound.message()).await.map_err(|_| LinkError::Silent)??;
    let Some(ControlMessage { kind: Some(control_message::Kind::Welcome(welcome)) }) = first else {
        return Err(LinkError::Status("the first message is no welcome".to_owned()));
    };
    tracing::info!(installation = welcome.installation, "connected to the control plane");
    let (cells, current) = watch::channel(Err(Problem::EngineUnavailable("it was not asked yet".to_owned())));
    let watcher = Watcher { config, installation: welcome.installation, outbox: outbox.clone(), cells };
    tokio::select! {
        () = watcher.watch(opened.ok()) => Ok(()),
        ended = orders(&mut inbound, &outbox, &current) => ended,
    }
}

fn message(kind: runner_message::Kind) -> RunnerMessage {
    RunnerMessage { kind: Some(kind) }
}

fn facts(config: &RunnerConfig, opened: &Result<engine::Engine, Problem>) -> Facts {
    Facts {
        name: config.name.clone(),
        labels: config.labels.clone(),
        engine: opened.as_ref().map(|engine| engine.facts.clone()).unwrap_or_default(),
        engine_problem: opened.as_ref().err().map(ToString::to_string).unwrap_or_default(),
        cpu_millis: config.cpu_millis,
        memory_mb: config.memory_mb,
        max_bots: config.max_bots,
        bot_listener: config.bot_listener.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// Follows the engine: there or away, its events, and a full list by period.
struct Watcher<'a> {
    config: &'a RunnerConfig,
    installation: String,
    outbox: Outbox,
    cells: watch::Sender<Result<Cells, Problem>>,
}

impl Watcher<'_> {
    /// Until nobody listens.
    async fn watch(self, mut opened: Option<engine::Engine>) {
        loop {
            let answered = match opened.take() {
                Some(engine) => Ok(engine),
                None => engine::open(self.config.engine.as_deref()).await,
            };
            let news = match (&answered, &*self.cells.borrow()) {
                (Ok(_), _) => true,
                (Err(now), Err(before)) => now != before,
                (Err(_), Ok(_)) => true,
            };
            if news && !self.say(runner_message::Kind::Facts(facts(self.config, &answered))).await {
                return;
            }
            match answered {
                Ok(engine) => {
                    let cells = Cells { docker: engine.docker, installation: self.installation.clone() };
                    let _ = self.cells.send(Ok(cells.clone()));
                    let Some(problem) = self.follow(&cells).await else { return };
                    tracing::warn!(%problem, "the container engine was lost");
                }
                Err(problem) => {
                    let _ = self.cells.send(Err(problem));
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Until the engine is lost (why), or nobody listens (`None`).
    async fn follow(&self, cells: &Cells) -> Option<Problem> {
        // What happens while the first list is made is told twice, not missed.
        let since = clawgate_shared::clock::now_micros() / 1_000_000 - 1;
        let mut events = std::pin::pin!(observe::events(&cells.docker, &self.installation, since));
        let mut period = interval(LIST);
        loop {
            let said = tokio::select! {
                _ = period.tick() => self.list(cells).await,
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(cells, &event).await,
                    Some(Err(error)) => return Some(Problem::of(&error, Problem::EngineUnavailable)),
                    None => return Some(Problem::EngineUnavailable("its events ended".to_owned())),
                },
            };
            match said {
                Ok(true) => {}
                Ok(false) => return None,
                Err(problem @ Problem::EngineUnavailable(_)) => return Some(problem),
                Err(problem) => tracing::warn!(%problem, "the engine did not say what there is"),
            }
        }
    }

    async fn list(&self, cells: &Cells) -> Result<bool, Problem> {
        let made = cells.list().await?;
        let asked = futures::stream::iter(made.iter().map(async |one| {
            let told = cell::view(one)?;
            Some(clawgate_shared::proto::runner::Cell { health: observe::health(one).await.into(), ..told })
        }));
        let cells = asked.buffer_unordered(PROBES).filter_map(async |cell| cell).collect().await;
        Ok(self.say(runner_message::Kind::List(CellList { cells })).await)
    }

    async fn event(&self, cells: &Cells, event: &bollard::models::EventMessage) -> Result<bool, Problem> {
        let Some(bot_id) = observe::bot_of(event).filter(|id| is_id(id)) else { return Ok(true) };
        let action = event.action.clone().unwrap_or_default();
        // Executions within a container are not its life.
        if action.starts_with("exec_") {
            return Ok(true);
        }
        let cell = match cells.view(bot_id).await {
            Ok(cell) => cell,
            Err(Problem::NotOurs(_)) => return Ok(true),
            Err(problem) => return Err(problem),
        };
        let gone = cell.is_none();
        let nobody = || clawgate_shared::proto::runner::Cell { bot_id: bot_id.to_owned(), ..Default::default() };
        let change = CellChange { gone, cell: Some(cell.unwrap_or_else(nobody)), event: action };
        Ok(self.say(runner_message::Kind::Change(change)).await)
    }

    async fn say(&self, kind: runner_message::Kind) -> bool {
        self.outbox.send(message(kind)).await.is_ok()
    }
}

/// One at a time for each bot that has orders.
type Turns = Arc<std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>>;

/// Takes orders until the stream ends. Those under way end with it: whoever
/// ordered orders again, and a repeated order changes nothing.
async fn orders(
    inbound: &mut Streaming<ControlMessage>,
    outbox: &Outbox,
    current: &watch::Receiver<Result<Cells, Problem>>,
) -> Result<(), LinkError> {
    let (mut running, turns) = (JoinSet::new(), Turns::default());
    loop {
        let next = tokio::select! {
            next = inbound.message() => next?,
            Some(_) = running.join_next() => continue,
        };
        let order = match next {
            None => return Ok(()),
            Some(ControlMessage { kind: Some(control_message::Kind::Order(order)) }) => order,
            // A second welcome, or what a later release says.
            Some(_) => continue,
        };
        if running.len() >= MAX_ORDERS {
            let refused = answer(order.id, Err(Problem::Other("too many orders are under way".to_owned())));
            let _ = outbox.send(message(runner_message::Kind::Result(refused))).await;
            continue;
        }
        let (cells, outbox, turns) = (current.borrow().clone(), outbox.clone(), Arc::clone(&turns));
        running.spawn(async move {
            let result = carry_out(order, cells, &turns).await;
            let _ = outbox.send(message(runner_message::Kind::Result(result))).await;
        });
    }
}

fn turn(turns: &Turns, bot_id: &str) -> Arc<Mutex<()>> {
    let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    Arc::clone(turns.entry(bot_id.to_owned()).or_default())
}

fn answer(order_id: u64, done: Result<Vec<u8>, Problem>) -> OrderResult {
    let mut result = OrderResult { order_id, ..OrderResult::default() };
    match done {
        Ok(text) => result.text = text,
        Err(problem) => {
            result.problem = problem.code().into();
            result.problem_text = problem.to_string();
        }
    }
    result
}

async fn carry_out(order: Order, cells: Result<Cells, Problem>, turns: &Turns) -> OrderResult {
    let (id, bot_id) = (order.id, order.bot_id.clone());
    if !is_id(&bot_id) {
        return answer(id, Err(Problem::SpecRefused("the bot's id is no id".to_owned())));
    }
    let cells = match cells {
        Ok(cells) => cells,
        Err(problem) => return answer(id, Err(problem)),
    };
    let within = Duration::from_millis(order.within_millis).min(LONGEST);
    let done = timeout(within, async {
        let turn = turn(turns, &bot_id);
        // A kill does not wait for what it is to end.
        let _held = if matches!(order.verb, Some(Verb::Kill(_))) { None } else { Some(turn.lock().await) };
        verb(&cells, order).await
    });
    let done = done.await.unwrap_or(Err(Problem::Late));
    if let Err(problem) = &done {
        tracing::warn!(bot = bot_id, %problem, "an order was not carried out");
    }
    let mut result = answer(id, done);
    if let Ok(Ok(cell)) = timeout(ANSWER, cells.view(&bot_id)).await {
        result.tells_cell = true;
        result.cell = cell;
    }
    result
}

async fn verb(cells: &Cells, order: Order) -> Result<Vec<u8>, Problem> {
    let (bot_id, generation) = (order.bot_id.as_str(), order.generation);
    let done = match order.verb {
        Some(Verb::Create(told)) => {
            let spec = CellSpec::parse(bot_id, generation, told);
            cells.create(&spec.map_err(|error| Problem::SpecRefused(error.to_string()))?).await
        }
        Some(Verb::Start(_)) => cells.start(bot_id, generation).await,
        Some(Verb::Stop(_)) => cells.stop(bot_id).await,
        Some(Verb::Kill(_)) => cells.kill(bot_id).await,
        Some(Verb::Restart(_)) => cells.restart(bot_id, generation).await,
        Some(Verb::Remove(told)) => cells.remove(bot_id, told.with_state).await,
        Some(Verb::Logs(told)) => return cells.logs(bot_id, told.lines).await,
        None => Err(Problem::SpecRefused("this runner does not know the verb".to_owned())),
    };
    done.map(|()| Vec::new())
}
