//! The loop: every bot that we run is looked at, at every signal and every few
//! seconds, and at most one order for it is under way.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::{clock, id};
use tokio::sync::watch;

use super::adapters::{self, Inside};
use super::links::Look;
use super::live::BotStatusEvent;
use super::orders::{CellSpec, Failure, Outcome, Verb};
use super::place::{self, Candidate};
use super::plan::{self, Action, Cell, Decision, Facts, Hands, Sight, Wanted};
use super::spec::RunSpec;
use super::{Runtime, observe};
use crate::store::bot_events::{self, BotEventRow};
use crate::store::bots::{self, BotRow};
use crate::store::containers::{self, ContainerRow, RemainsRow, Seen};
use crate::store::runners::Capacity;
use crate::store::types::{BotEventKind, BotStatus, DesiredState, Reason, RunnerState};
use crate::store::{Conn, StoreError, runners};
use crate::vault::Purpose;

/// How often everything is looked at without a signal.
const PERIOD: Duration = Duration::from_secs(5);
/// A runner that was not heard of for so long is connected to nobody, in
/// microseconds.
const ALIVE: i64 = 45_000_000;
/// Most runners that are looked at.
const MAX_RUNNERS: i64 = 10_000;
/// For orders that move no image.
pub const SHORT: Duration = Duration::from_secs(60);

impl Runtime {
    /// Runs until `stop` is true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "bots were not looked at; they are at the next time");
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks at every bot once.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn round(self: &Arc<Self>) -> Result<(), StoreError> {
        let (rows, remains, elsewhere) = {
            let mut conn = self.db.read().await?;
            let remains = containers::remains(&mut conn).await?;
            (bots::run_by_us(&mut conn).await?, remains, self.elsewhere(&mut conn).await?)
        };
        let mut taken = taken(&rows);
        for row in rows {
            let Some(container) = &row.container else { continue };
            let speaks = match &container.runner_id {
                Some(runner_id) => !elsewhere.contains(runner_id),
                None => elsewhere.is_empty() || !self.links.ready().is_empty(),
            };
            if speaks {
                self.look_at(&row, container, &mut taken).await?;
            }
        }
        for row in remains {
            self.clear_away(row);
        }
        Ok(())
    }

    /// Runners that are connected to another process of the control plane: that
    /// one speaks of their bots.
    async fn elsewhere(&self, conn: &mut Conn) -> Result<HashSet<String>, StoreError> {
        let horizon = clock::now_micros().saturating_sub(ALIVE);
        let mut found: HashSet<String> = runners::list(conn, MAX_RUNNERS)
            .await?
            .into_iter()
            .filter(|row| row.state != RunnerState::Unknown && row.last_seen_at.is_some_and(|at| at > horizon))
            .map(|row| row.id)
            .collect();
        for own in self.links.connected() {
            found.remove(&own);
        }
        Ok(found)
    }

    async fn look_at(
        self: &Arc<Self>,
        bot: &BotRow,
        container: &ContainerRow,
        taken: &mut BTreeMap<String, Capacity>,
    ) -> Result<(), StoreError> {
        let look = self.links.look(container.runner_id.as_deref(), &bot.id);
        let run = RunSpec::stored(&container.run);
        let decision = decide(bot, container, &look, run.probe.is_some(), self);
        let cell = look.cell.as_ref().and_then(Option::as_ref);
        match decision.action {
            Action::Wait => self.say(bot, container, &decision, cell, None).await,
            Action::Place => self.find_place(bot, container, &run, decision, taken).await,
            action => {
                let Some(runner_id) = container.runner_id.clone() else { return Ok(()) };
                if !self.begin(&bot.id) {
                    return Ok(());
                }
                let said = self.say(bot, container, &decision, cell, None).await;
                if said.is_err() {
                    self.end(&bot.id);
                    return said;
                }
                let (this, bot) = (Arc::clone(self), bot.clone());
                tokio::spawn(async move {
                    if let Err(error) = this.act(&bot, &runner_id, action).await {
                        tracing::warn!(bot = bot.id, %error, "what came of an order was not written");
                    }
                    this.end(&bot.id);
                    this.wake();
                });
                Ok(())
            }
        }
    }

    async fn find_place(
        &self,
        bot: &BotRow,
        container: &ContainerRow,
        run: &RunSpec,
        decision: Decision,
        taken: &mut BTreeMap<String, Capacity>,
    ) -> Result<(), StoreError> {
        let ready = self.links.ready();
        let candidates: Vec<Candidate> = ready
            .into_iter()
            .filter(|(_, facts)| facts.listener.is_some())
            .map(|(id, facts)| Candidate {
                taken: taken.get(&id).copied().unwrap_or_default(),
                labels: facts.labels,
                capacity: facts.capacity,
                id,
            })
            .collect();
        let Some(chosen) = place::choose(&candidates, &run.runner_labels, &container.size) else {
            let none = Decision { reason: Reason::NoRunner, ..decision };
            return self.say(bot, container, &none, None, None).await;
        };
        let mut tx = self.db.begin().await?;
        let placed = containers::place(&mut tx, &bot.id, &chosen.id).await?;
        tx.commit().await?;
        if placed {
            add(taken.entry(chosen.id.clone()).or_default(), container);
            tracing::info!(bot = bot.id, runner = chosen.id, "a bot was placed");
        }
        self.wake();
        Ok(())
    }

    /// Has an order carried out, unless something else is wanted by now.
    async fn act(&self, decided: &BotRow, runner_id: &str, action: Action) -> Result<(), StoreError> {
        let Some(bot) = bots::by_id(&mut *self.db.read().await?, &decided.id).await? else { return Ok(()) };
        let made_of = |bot: &BotRow| bot.container.as_deref().map(|container| (container.generation, container.killed));
        if wanted(&bot) != wanted(decided) || made_of(&bot) != made_of(decided) {
            return Ok(());
        }
        let done = self.carry_out(&bot, runner_id, action).await;
        self.settle(&bot.id, runner_id, done).await
    }

    /// One order from beginning to end.
    async fn carry_out(&self, bot: &BotRow, runner_id: &str, action: Action) -> Result<Outcome, Failure> {
        let Some(container) = bot.container.as_deref() else { return Ok(Outcome::default()) };
        let (verb, within) = match action {
            Action::Create => (Verb::Create(Box::new(self.cell_spec(bot, container, runner_id)?)), self.pull_timeout),
            Action::Start => (Verb::Start, SHORT),
            Action::Restart => (Verb::Restart, SHORT),
            Action::Stop => (Verb::Stop, SHORT),
            Action::Kill => (Verb::Kill, SHORT),
            Action::Remove => (Verb::Remove { with_state: false }, SHORT),
            Action::Wait | Action::Place => return Ok(Outcome::default()),
        };
        self.links.order(runner_id, (&bot.id, container.generation), verb, within).await
    }

    fn cell_spec(&self, bot: &BotRow, container: &ContainerRow, runner_id: &str) -> Result<CellSpec, Failure> {
        let refuse = |text: &str| Failure { reason: Reason::SpecRefused, text: text.to_owned() };
        let run = RunSpec::stored(&container.run);
        let block = self.pool.block(container.subnet).ok_or_else(|| refuse("its network is outside the bots' pool"))?;
        let port = self.links.listener(runner_id).ok_or_else(Failure::away)?.port();
        let open = |purpose, sealed: &[u8]| {
            let bytes = self.vault.open_blob(purpose, &bot.id, sealed).map_err(|error| {
                tracing::error!(bot = bot.id, %error, "a container's secret does not open");
                refuse("its secrets do not open with this master key")
            })?;
            let text = std::str::from_utf8(&bytes).map_err(|_| refuse("its secrets are no text"))?;
            Ok::<_, Failure>(zeroize::Zeroizing::new(text.to_owned()))
        };
        let token = open(Purpose::ContainerToken, &container.sealed_token)?;
        let gateway_token = open(Purpose::GatewayToken, &container.sealed_gateway_token)?;
        let inside = Inside {
            bot,
            run: &run,
            listener: SocketAddr::new(block.gateway().into(), port),
            token: &token,
            gateway_token: &gateway_token,
        };
        let rendered = adapters::render(&inside).ok_or_else(|| refuse("this release does not run its adapter"))?;
        Ok(CellSpec {
            tenant_id: bot.tenant_id.clone(),
            hostname: bot.hostname.clone(),
            image: bot.image.clone().unwrap_or_default(),
            rendered,
            size: container.size,
            block,
            run,
        })
    }

    /// Writes what came of an order: a failure only if the bot is still wanted
    /// up, because what is wanted down has no failures.
    async fn settle(&self, bot_id: &str, runner_id: &str, done: Result<Outcome, Failure>) -> Result<(), StoreError> {
        let failure = match done {
            Ok(outcome) => {
                if outcome.tells {
                    self.links.learn(runner_id, bot_id, outcome.cell);
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        tracing::warn!(bot = bot_id, runner = runner_id, reason = failure.reason.as_str(), "an order failed");
        let Some(bot) = bots::by_id(&mut *self.db.read().await?, bot_id).await? else { return Ok(()) };
        let Some(container) = bot.container.as_deref() else { return Ok(()) };
        if wanted(&bot) != Wanted::Running {
            return Ok(());
        }
        let failures = container.seen.failures.saturating_add(1);
        let decision = Decision {
            action: Action::Wait,
            status: BotStatus::Error,
            reason: failure.reason,
            failures,
            retry_at: Some(self.policy.retry_at(failures, clock::now_micros())),
        };
        self.say(&bot, container, &decision, None, Some(&failure.text)).await
    }

    /// Writes what is to be said of a bot, when it is not what was said.
    async fn say(
        &self,
        bot: &BotRow,
        container: &ContainerRow,
        decision: &Decision,
        cell: Option<&Cell>,
        text: Option<&str>,
    ) -> Result<(), StoreError> {
        let now = clock::now_micros();
        let (before, seen) = (&container.seen, observe::next(&container.seen, decision, cell, text, now));
        if seen == *before {
            return Ok(());
        }
        let changed = seen.status != before.status || seen.reason != before.reason;
        let mut tx = self.db.begin().await?;
        if !containers::observe(&mut tx, &bot.id, before, &seen).await? {
            return Ok(());
        }
        if changed {
            bot_events::insert(&mut tx, &status_event(&bot.id, &seen, now)).await?;
        }
        tx.commit().await?;
        if changed {
            self.live.tell(BotStatusEvent {
                tenant_id: bot.tenant_id.clone(),
                hostname: bot.hostname.clone(),
                status: seen.status.as_str(),
                reason_code: seen.reason.as_str(),
                at: now,
            });
        }
        Ok(())
    }

    /// Has what is left of a deleted bot taken away.
    fn clear_away(self: &Arc<Self>, row: RemainsRow) {
        if self.links.look(Some(&row.runner_id), &row.bot_id).hands != Hands::Ready || !self.begin(&row.bot_id) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let place = (row.bot_id.as_str(), 0);
            match this.links.order(&row.runner_id, place, Verb::Remove { with_state: true }, SHORT).await {
                Ok(_) => {
                    this.links.learn(&row.runner_id, &row.bot_id, None);
                    if let Err(error) = this.forget_remains(&row.bot_id).await {
                        tracing::warn!(bot = row.bot_id, %error, "a deleted bot's remains were not written off");
                    }
                }
                Err(failure) => {
                    tracing::warn!(
                        bot = row.bot_id,
                        reason = failure.reason.as_str(),
                        "a deleted bot was not taken away"
                    );
                }
            }
            this.end(&row.bot_id);
        });
    }

    async fn forget_remains(&self, bot_id: &str) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        containers::forget_remains(&mut tx, bot_id).await?;
        tx.commit().await
    }
}

/// What is wanted of a bot's container.
#[must_use]
pub fn wanted(bot: &BotRow) -> Wanted {
    match (bot.suspended, bot.desired_state) {
        (true, _) => Wanted::Suspended,
        (false, DesiredState::Running) => Wanted::Running,
        (false, DesiredState::Stopped) => Wanted::Stopped,
    }
}

fn decide(bot: &BotRow, container: &ContainerRow, look: &Look, probed: bool, runtime: &Runtime) -> Decision {
    let sight = match &look.cell {
        None => Sight::Unknown,
        Some(None) => Sight::Nothing,
        Some(Some(cell)) => Sight::Cell(cell),
    };
    let facts = Facts {
        wanted: wanted(bot),
        generation: container.generation,
        restart_of: &container.restart_of,
        killed: container.killed,
        probed,
        hands: look.hands,
        sight,
        seen: &container.seen,
        busy: runtime.is_busy(&bot.id),
        now: clock::now_micros(),
    };
    plan::decide(&facts, &runtime.policy)
}

fn status_event(bot_id: &str, seen: &Seen, at: i64) -> BotEventRow {
    BotEventRow {
        id: id::new(id::Kind::BotEvent),
        bot_id: bot_id.to_owned(),
        kind: BotEventKind::Status,
        status: seen.status.as_str().to_owned(),
        reason_code: seen.reason.as_str().to_owned(),
        reason: seen.text.clone(),
        exit_code: seen.exit_code.filter(|_| matches!(seen.status, BotStatus::Crashed | BotStatus::Error)),
        at,
    }
}

/// What is taken of each runner.
fn taken(rows: &[BotRow]) -> BTreeMap<String, Capacity> {
    let mut taken: BTreeMap<String, Capacity> = BTreeMap::new();
    for container in rows.iter().filter_map(|row| row.container.as_deref()) {
        if let Some(runner_id) = &container.runner_id {
            add(taken.entry(runner_id.clone()).or_default(), container);
        }
    }
    taken
}

const fn add(taken: &mut Capacity, container: &ContainerRow) {
    taken.cpu_millis = taken.cpu_millis.saturating_add(container.size.cpu_millis);
    taken.memory_mb = taken.memory_mb.saturating_add(container.size.memory_mb);
    taken.max_bots = taken.max_bots.saturating_add(1);
}
