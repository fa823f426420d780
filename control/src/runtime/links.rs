//! The runners that are connected to this process, and what they see.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::orders::{Failure, Order, Outcome, Verb};
use super::plan::{Cell, Hands};
use crate::store::runners::Capacity;
use crate::store::types::Reason;

/// Orders that may wait for one runner.
pub const QUEUE: usize = 64;
/// What the answer to an order may take beyond the order's own time.
const SLACK: Duration = Duration::from_secs(10);

/// What a runner told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerFacts {
    /// Whether its engine answers.
    pub ready: bool,
    /// What bots may ask for.
    pub labels: BTreeMap<String, String>,
    /// What bots may take of it together.
    pub capacity: Capacity,
    /// The bots' listener; its port counts, the address is each network's own.
    pub listener: Option<SocketAddr>,
}

/// A container with this installation's mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The bot that its label names.
    pub bot_id: String,
    /// The tenant that its label names.
    pub tenant_id: String,
    /// The bot's name then.
    pub hostname: String,
    /// What it is.
    pub cell: Cell,
}

/// Names one connection of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(u64);

struct Link {
    id: LinkId,
    orders: mpsc::Sender<Order>,
    facts: RunnerFacts,
    /// `None`: it has not listed yet.
    cells: Option<HashMap<String, Marked>>,
}

/// Connected runners by id.
#[derive(Default)]
pub struct Links {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    links: HashMap<String, Link>,
}

/// What is known of one bot's container, and who could act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Who would act.
    pub hands: Hands,
    /// `None`: nothing was told yet.
    pub cell: Option<Option<Cell>>,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this; what is in it stays whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner came; a connection it had before is replaced.
    #[must_use]
    pub fn connect(&self, runner_id: &str, facts: RunnerFacts) -> (LinkId, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(QUEUE);
        let mut inner = self.lock();
        inner.last += 1;
        let id = LinkId(inner.last);
        inner.links.insert(runner_id.to_owned(), Link { id, orders, facts, cells: None });
        (id, queue)
    }

    /// Its connection ended; one that replaced it stays.
    pub fn disconnect(&self, runner_id: &str, id: LinkId) {
        let mut inner = self.lock();
        if inner.links.get(runner_id).is_some_and(|link| link.id == id) {
            inner.links.remove(runner_id);
        }
    }

    /// It is shut out.
    pub fn forget(&self, runner_id: &str) {
        self.lock().links.remove(runner_id);
    }

    /// What it tells of itself has changed.
    pub fn set_facts(&self, runner_id: &str, id: LinkId, facts: RunnerFacts) {
        let mut inner = self.lock();
        if let Some(link) = inner.links.get_mut(runner_id).filter(|link| link.id == id) {
            if !facts.ready {
                link.cells = None;
            }
            link.facts = facts;
        }
    }

    /// Everything it has.
    pub fn set_list(&self, runner_id: &str, id: LinkId, cells: Vec<Marked>) {
        let mut inner = self.lock();
        if let Some(link) = inner.links.get_mut(runner_id).filter(|link| link.id == id) {
            link.cells = Some(cells.into_iter().map(|marked| (marked.bot_id.clone(), marked)).collect());
        }
    }

    /// One of what it has, as it is now.
    pub fn set_cell(&self, runner_id: &str, id: LinkId, marked: Marked) {
        let mut inner = self.lock();
        let link = inner.links.get_mut(runner_id).filter(|link| link.id == id);
        if let Some(cells) = link.and_then(|link| link.cells.as_mut()) {
            cells.insert(marked.bot_id.clone(), marked);
        }
    }

    /// One of what it had is gone.
    pub fn drop_cell(&self, runner_id: &str, id: LinkId, bot_id: &str) {
        let mut inner = self.lock();
        let link = inner.links.get_mut(runner_id).filter(|link| link.id == id);
        if let Some(cells) = link.and_then(|link| link.cells.as_mut()) {
            cells.remove(bot_id);
        }
    }

    /// Writes what came of an order over what was listed before it.
    pub fn learn(&self, runner_id: &str, bot_id: &str, cell: Option<Cell>) {
        let mut inner = self.lock();
        let Some(cells) = inner.links.get_mut(runner_id).and_then(|link| link.cells.as_mut()) else { return };
        match (cell, cells.get_mut(bot_id)) {
            (None, _) => {
                cells.remove(bot_id);
            }
            (Some(cell), Some(known)) => known.cell = cell,
            (Some(cell), None) => {
                let (tenant_id, hostname) = (String::new(), String::new());
                cells.insert(bot_id.to_owned(), Marked { bot_id: bot_id.to_owned(), tenant_id, hostname, cell });
            }
        }
    }

    /// What is known of a bot that lives at a runner.
    #[must_use]
    pub fn look(&self, runner_id: Option<&str>, bot_id: &str) -> Look {
        let Some(runner_id) = runner_id else { return Look { hands: Hands::NotPlaced, cell: Some(None) } };
        let inner = self.lock();
        let Some(link) = inner.links.get(runner_id) else { return Look { hands: Hands::Away, cell: None } };
        let hands = if link.facts.ready { Hands::Ready } else { Hands::EngineUnavailable };
        let cell = link.cells.as_ref().map(|cells| cells.get(bot_id).map(|marked| marked.cell.clone()));
        Look { hands, cell }
    }

    /// The bots' listener of a runner.
    #[must_use]
    pub fn listener(&self, runner_id: &str) -> Option<SocketAddr> {
        self.lock().links.get(runner_id).and_then(|link| link.facts.listener)
    }

    /// Runners that could take a bot now.
    #[must_use]
    pub fn ready(&self) -> Vec<(String, RunnerFacts)> {
        let inner = self.lock();
        let ready = inner.links.iter().filter(|(_, link)| link.facts.ready && link.cells.is_some());
        ready.map(|(id, link)| (id.clone(), link.facts.clone())).collect()
    }

    /// Connected runners.
    #[must_use]
    pub fn connected(&self) -> Vec<String> {
        self.lock().links.keys().cloned().collect()
    }

    /// Everything with this installation's mark that connected runners have, by
    /// runner.
    #[must_use]
    pub fn everything(&self) -> Vec<(String, Vec<Marked>)> {
        let inner = self.lock();
        let listed = inner.links.iter().filter_map(|(id, link)| {
            let mut cells: Vec<Marked> = link.cells.as_ref()?.values().cloned().collect();
            cells.sort_by(|a, b| a.bot_id.cmp(&b.bot_id));
            Some((id.clone(), cells))
        });
        let mut all: Vec<_> = listed.collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Gives an order and waits for its answer.
    ///
    /// # Errors
    /// See [`Failure`]; also when the runner does not answer in time.
    pub async fn order(
        &self,
        runner_id: &str,
        (bot_id, generation): (&str, u64),
        verb: Verb,
        within: Duration,
    ) -> Result<Outcome, Failure> {
        let name = verb.name();
        let queue = self.lock().links.get(runner_id).map(|link| link.orders.clone()).ok_or_else(Failure::away)?;
        let (answer, answered) = oneshot::channel();
        let order = Order { bot_id: bot_id.to_owned(), generation, verb, within, answer };
        let late = || Failure { reason: late(name), text: format!("{name} took longer than {} s", within.as_secs()) };
        queue.try_send(order).map_err(|_| Failure {
            reason: Reason::RunnerFailed,
            text: "the runner has as many orders as it can take".into(),
        })?;
        match tokio::time::timeout(within + SLACK, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Failure::away()),
            Err(_) => Err(late()),
        }
    }
}

fn late(verb: &str) -> Reason {
    match verb {
        "create" => Reason::PullTimeout,
        "start" | "restart" => Reason::StartTimeout,
        _ => Reason::RunnerFailed,
    }
}
