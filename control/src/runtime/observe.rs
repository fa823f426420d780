//! From a decision and a container to what is said of a bot. Pure.

use super::plan::{Cell, CellState, Decision};
use crate::store::containers::Seen;
use crate::store::types::{BotStatus, Reason};

/// What is said now, after `before`.
#[must_use]
pub fn next(before: &Seen, decision: &Decision, cell: Option<&Cell>, text: Option<&str>, now: i64) -> Seen {
    let mut seen = before.clone();
    let another_start = cell.is_some_and(|cell| cell.started_at != before.started_at);
    if decision.status != before.status || (another_start && decision.status == BotStatus::Starting) {
        seen.since = now;
    }
    if let Some(text) = text {
        seen.text = text.to_owned();
    } else if decision.reason != before.reason {
        seen.text = explain(decision.reason, cell);
    }
    (seen.status, seen.reason) = (decision.status, decision.reason);
    (seen.failures, seen.retry_at) = (decision.failures, decision.retry_at);
    let Some(cell) = cell else { return seen };
    seen.container_id.clone_from(&cell.container_id);
    seen.image_digest.clone_from(&cell.image_digest);
    seen.started_at.clone_from(&cell.started_at);
    seen.restart_count = cell.restart_count;
    if seen.health != cell.health || before.health_at.is_none() {
        seen.health_at = Some(now);
    }
    seen.health = cell.health;
    if cell.state == CellState::Exited {
        (seen.exit_code, seen.oom) = (cell.exit_code, cell.oom);
    }
    if seen != *before {
        seen.observed_at = Some(now);
    }
    seen
}

/// The text of a reason that came without one.
#[must_use]
pub fn explain(reason: Reason, cell: Option<&Cell>) -> String {
    let code = cell.and_then(|cell| cell.exit_code);
    match (reason, code) {
        (Reason::None, _) => String::new(),
        (Reason::Exited, Some(code)) => format!("it ended by itself with exit code {code}"),
        (Reason::Exited, None) => "it ended by itself".into(),
        (Reason::OutOfMemory, _) => "it took more memory than it may; give it more, or find what it keeps".into(),
        (Reason::ConfigRefused, _) => "it refused its configuration (exit code 78); change it, then start it".into(),
        (Reason::NoRunner, _) => "no connected runner has the labels it asks for and room for it".into(),
        (Reason::RunnerAway, _) => "its runner is not connected".into(),
        (Reason::EngineUnavailable, _) => "its runner's container engine does not answer".into(),
        (Reason::StartTimeout, _) => "its probe has not answered well in time since it was started".into(),
        (Reason::ProbeFailed, _) => "its probe does not answer well any more".into(),
        (Reason::Killed, _) => "it was killed; start gives it a new token".into(),
        (other, _) => other.as_str().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::plan::Action;
    use crate::store::types::Health;

    #[test]
    fn a_status_has_the_time_of_its_change_and_an_end_its_code() {
        let before = Seen {
            status: BotStatus::Running,
            reason: Reason::None,
            text: String::new(),
            since: 1,
            container_id: "c".into(),
            image_digest: String::new(),
            started_at: "t1".into(),
            exit_code: None,
            oom: false,
            restart_count: 0,
            health: Health::Healthy,
            health_at: Some(1),
            observed_at: Some(1),
            failures: 0,
            retry_at: None,
        };
        let mut cell = Cell {
            container_id: "c".into(),
            generation: 1,
            state: CellState::Running,
            started_at: "t1".into(),
            exit_code: None,
            oom: false,
            health: Health::Healthy,
            restart_count: 0,
            image_digest: String::new(),
        };
        let keep = Decision {
            action: Action::Wait,
            status: BotStatus::Running,
            reason: Reason::None,
            failures: 0,
            retry_at: None,
        };
        assert_eq!(next(&before, &keep, Some(&cell), None, 9), before, "nothing new is nothing to write");
        (cell.state, cell.exit_code) = (CellState::Exited, Some(3));
        let crash = Decision { status: BotStatus::Crashed, reason: Reason::Exited, failures: 1, ..keep };
        let after = next(&before, &crash, Some(&cell), None, 9);
        assert_eq!((after.since, after.exit_code, after.failures, after.observed_at), (9, Some(3), 1, Some(9)));
        assert_eq!(after.text, "it ended by itself with exit code 3");
        let said = next(&before, &crash, None, Some("the runner said so"), 9);
        assert_eq!((said.text.as_str(), said.exit_code), ("the runner said so", None));
    }
}
