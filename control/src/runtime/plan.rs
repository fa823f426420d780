//! What to do next about one bot, and what to say of it. Pure.
//!
//! Nothing is remembered here: the same row and the same container give the
//! same answer, so a control plane that was killed in the middle goes on where
//! the world is, not where it was. What is wanted down is never an error,
//! however it ended.

use crate::store::containers::Seen;
use crate::store::types::{BotStatus, Health, Reason};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Up.
    Running,
    /// Down.
    Stopped,
    /// Down for as long as the bot is suspended.
    Suspended,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
}

/// A container of ours, as its runner told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The engine's id.
    pub container_id: String,
    /// What it was made from.
    pub generation: u64,
    /// What it does.
    pub state: CellState,
    /// The engine's own text: a name for this start.
    pub started_at: String,
    /// Of its end.
    pub exit_code: Option<i64>,
    /// It ended for want of memory.
    pub oom: bool,
    /// By its probe.
    pub health: Health,
    /// Starts after the first.
    pub restart_count: u64,
    /// What its image was resolved to.
    pub image_digest: String,
}

/// What is known of the bot's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight<'a> {
    /// Its runner has not told yet.
    Unknown,
    /// There is none.
    Nothing,
    /// There is one.
    Cell(&'a Cell),
}

/// Who would carry it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// No runner was chosen yet.
    NotPlaced,
    /// The runner is not connected.
    Away,
    /// The runner's engine does not answer.
    EngineUnavailable,
    /// It waits for orders.
    Ready,
}

/// What is known of one bot.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What is wanted.
    pub wanted: Wanted,
    /// Of what.
    pub generation: u64,
    /// The start that a restart is to end; empty: none.
    pub restart_of: &'a str,
    /// Without asking it first.
    pub killed: bool,
    /// Whether it has a probe.
    pub probed: bool,
    /// Who would do it.
    pub hands: Hands,
    /// What there is.
    pub sight: Sight<'a>,
    /// What was said last.
    pub seen: &'a Seen,
    /// An order is under way.
    pub busy: bool,
    /// Unix microseconds.
    pub now: i64,
}

/// How patient we are; all in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For a probe's first good answer after a start.
    pub start_timeout: i64,
    /// Before the first try after a failure; doubles.
    pub first_retry: i64,
    /// The most it doubles to.
    pub last_retry: i64,
    /// Who ran for so long has failed no more.
    pub stable: i64,
}

const SECOND: i64 = 1_000_000;
/// The exit code of a bot that refuses its configuration (EX_CONFIG).
const EX_CONFIG: i64 = 78;
/// A try that never comes by itself.
pub const NEVER: i64 = i64::MAX;

impl Default for Policy {
    fn default() -> Self {
        Self { start_timeout: 180 * SECOND, first_retry: 2 * SECOND, last_retry: 300 * SECOND, stable: 600 * SECOND }
    }
}

impl Policy {
    /// When to try again after `failures` in a row.
    #[must_use]
    pub fn retry_at(&self, failures: u32, now: i64) -> i64 {
        let doublings = failures.saturating_sub(1).min(20);
        now.saturating_add(self.first_retry.saturating_mul(1 << doublings).min(self.last_retry))
    }
}

/// One order, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing to do, or nothing that can be done now.
    Wait,
    /// Choose a runner.
    Place,
    /// Make the container.
    Create,
    /// Start it.
    Start,
    /// End it, and start it again.
    Restart,
    /// Ask it to end.
    Stop,
    /// End it.
    Kill,
    /// Take it away: it is of another generation. Its state stays.
    Remove,
}

/// What follows from the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// What to say, the failures and the time of the next try included.
    pub status: BotStatus,
    /// Why, as a code.
    pub reason: Reason,
    /// Failures in a row.
    pub failures: u32,
    /// Not before.
    pub retry_at: Option<i64>,
}

/// Decides.
#[must_use]
pub fn decide(facts: &Facts<'_>, policy: &Policy) -> Decision {
    let kept = Decision {
        action: Action::Wait,
        status: facts.seen.status,
        reason: facts.seen.reason,
        failures: facts.seen.failures,
        retry_at: facts.seen.retry_at,
    };
    if facts.busy {
        return kept;
    }
    match facts.wanted {
        Wanted::Running => up(facts, policy, kept),
        Wanted::Stopped => down(facts, BotStatus::Stopped),
        Wanted::Suspended => down(facts, BotStatus::Suspended),
    }
}

/// Wanted down: failures are forgotten, and no end is an error.
fn down(facts: &Facts<'_>, at_rest: BotStatus) -> Decision {
    let reason = if facts.killed { Reason::Killed } else { Reason::None };
    let rest = Decision { action: Action::Wait, status: at_rest, reason, failures: 0, retry_at: None };
    let runs = match facts.sight {
        Sight::Cell(cell) => cell.state == CellState::Running,
        Sight::Nothing => false,
        // What ran when it was last seen is believed to run.
        Sight::Unknown => believed_up(facts.seen.status),
    };
    if !runs {
        return rest;
    }
    let end = if facts.killed { Action::Kill } else { Action::Stop };
    let (action, reason) = match (facts.hands, facts.sight) {
        (Hands::Ready, Sight::Cell(_)) => (end, reason),
        (Hands::EngineUnavailable, _) => (Action::Wait, Reason::EngineUnavailable),
        (Hands::Away, _) => (Action::Wait, Reason::RunnerAway),
        _ => (Action::Wait, reason),
    };
    Decision { action, status: BotStatus::Stopping, reason, ..rest }
}

const fn believed_up(status: BotStatus) -> bool {
    matches!(status, BotStatus::Starting | BotStatus::Running | BotStatus::Unhealthy | BotStatus::Stopping)
}

fn up(facts: &Facts<'_>, policy: &Policy, kept: Decision) -> Decision {
    let fresh = matches!(kept.status, BotStatus::Stopped | BotStatus::Suspended | BotStatus::Stopping);
    let said = if fresh { Decision { status: BotStatus::Pending, reason: Reason::None, ..kept } } else { kept };
    match facts.hands {
        Hands::NotPlaced => return Decision { action: Action::Place, status: BotStatus::Pending, ..said },
        Hands::Away => return Decision { reason: Reason::RunnerAway, ..said },
        Hands::EngineUnavailable => return Decision { reason: Reason::EngineUnavailable, ..said },
        Hands::Ready => {}
    }
    let said = match said.reason {
        Reason::RunnerAway | Reason::EngineUnavailable | Reason::NoRunner => Decision { reason: Reason::None, ..said },
        _ => said,
    };
    let waits = facts.seen.retry_at.is_some_and(|at| at > facts.now);
    match facts.sight {
        Sight::Unknown => said,
        Sight::Cell(cell) if cell.generation == facts.generation && cell.state == CellState::Running => {
            running(facts, cell, policy, said)
        }
        Sight::Cell(cell) if cell.generation == facts.generation && cell.state == CellState::Exited => {
            ended(facts, cell, policy, said)
        }
        _ if waits => said,
        Sight::Nothing => {
            Decision { action: Action::Create, status: BotStatus::Creating, reason: Reason::None, ..said }
        }
        Sight::Cell(cell) if cell.generation != facts.generation => {
            let action = if cell.state == CellState::Running { Action::Stop } else { Action::Remove };
            Decision { action, status: BotStatus::Creating, reason: Reason::None, ..said }
        }
        Sight::Cell(_) => start(said),
    }
}

fn start(said: Decision) -> Decision {
    Decision { action: Action::Start, status: BotStatus::Starting, reason: Reason::None, ..said }
}

fn running(facts: &Facts<'_>, cell: &Cell, policy: &Policy, said: Decision) -> Decision {
    if !facts.restart_of.is_empty() && facts.restart_of == cell.started_at {
        return Decision { action: Action::Restart, status: BotStatus::Starting, reason: Reason::None, ..said };
    }
    let age = facts.now.saturating_sub(facts.seen.since);
    let same_start = facts.seen.started_at == cell.started_at;
    let late = same_start
        && (facts.seen.reason == Reason::StartTimeout
            || (facts.seen.status == BotStatus::Starting && age >= policy.start_timeout));
    let was_well = same_start && matches!(facts.seen.status, BotStatus::Running | BotStatus::Unhealthy);
    let (status, reason) = match (facts.probed, cell.health) {
        (false, _) | (true, Health::Healthy) => (BotStatus::Running, Reason::None),
        (true, Health::Unhealthy) if was_well => (BotStatus::Unhealthy, Reason::ProbeFailed),
        (true, Health::Unknown) if was_well => (facts.seen.status, facts.seen.reason),
        (true, _) if late => (BotStatus::Error, Reason::StartTimeout),
        (true, _) => (BotStatus::Starting, Reason::None),
    };
    let settled = status == BotStatus::Running && facts.seen.status == status && age >= policy.stable;
    let failures = if settled { 0 } else { said.failures };
    Decision { action: Action::Wait, status, reason, failures, retry_at: None }
}

/// Wanted up and not: it crashed, unless it was stopped while that was wanted.
fn ended(facts: &Facts<'_>, cell: &Cell, policy: &Policy, said: Decision) -> Decision {
    let noted = matches!(facts.seen.status, BotStatus::Crashed | BotStatus::Error);
    let crashed = matches!(facts.seen.status, BotStatus::Starting | BotStatus::Running | BotStatus::Unhealthy)
        || (noted && facts.seen.started_at != cell.started_at);
    if crashed {
        let failures = said.failures.saturating_add(1);
        let (status, reason, retry_at) = match (cell.oom, cell.exit_code) {
            (true, _) => (BotStatus::Crashed, Reason::OutOfMemory, policy.retry_at(failures, facts.now)),
            (false, Some(EX_CONFIG)) => (BotStatus::Error, Reason::ConfigRefused, NEVER),
            (false, _) => (BotStatus::Crashed, Reason::Exited, policy.retry_at(failures, facts.now)),
        };
        return Decision { action: Action::Wait, status, reason, failures, retry_at: Some(retry_at) };
    }
    if facts.seen.retry_at.is_some_and(|at| at > facts.now) {
        return said;
    }
    start(said)
}

#[cfg(test)]
mod tests;
