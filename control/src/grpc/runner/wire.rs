//! What runners say and are told, into the types of `runtime` and out of them.
//!
//! What a runner says is bounded: texts are cut, and what has no bot or no
//! known state is left out.

use std::collections::BTreeMap;

use clawgate_shared::proto::runner::{
    self as wire, CellHealth, CellState as WireState, Problem, order::Verb as WireVerb,
};

use crate::runtime::links::{Marked, RunnerFacts};
use crate::runtime::orders::{CellSpec, Failure, Order, Outcome, Verb};
use crate::runtime::plan::{Cell, CellState};
use crate::store::bot_events::Minute;
use crate::store::row::clean;
use crate::store::runners::{Capacity, RunnerRow};
use crate::store::types::{Health, Reason, RunnerState};

/// Longest text of a runner's that is kept, in characters.
const MAX_TEXT: usize = 512;
/// Labels and facts of an engine that are kept.
const MAX_FACTS: usize = 64;
/// Bytes of a log that are kept.
const MAX_LOG: usize = 2 << 20;

fn short(text: &str) -> String {
    clean(&text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect::<String>())
}

fn pairs(map: std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    let sorted: BTreeMap<String, String> = map.into_iter().map(|(key, value)| (short(&key), short(&value))).collect();
    sorted.into_iter().take(MAX_FACTS).collect()
}

/// What a runner told of itself, for placing and for the table.
pub(super) fn facts(id: &str, software: &str, told: wire::Facts, now: i64) -> (RunnerFacts, RunnerRow) {
    let capacity = Capacity { cpu_millis: told.cpu_millis, memory_mb: told.memory_mb, max_bots: told.max_bots };
    let ready = told.engine_problem.is_empty();
    let labels = pairs(told.labels);
    let live = RunnerFacts { ready, labels: labels.clone(), capacity, listener: told.bot_listener.parse().ok() };
    let row = RunnerRow {
        id: id.to_owned(),
        name: short(&told.name),
        public_key: None,
        certificate_expires_at: None,
        software_version: short(software),
        labels,
        engine: serde_json::json!(pairs(told.engine)),
        state: if ready { RunnerState::Ready } else { RunnerState::EngineUnavailable },
        state_reason: short(&told.engine_problem),
        capacity,
        last_seen_at: Some(now),
        revoked_at: None,
        created_at: now,
    };
    (live, row)
}

/// A container; `None`: it says too little to be one.
pub(super) fn marked(told: wire::Cell) -> Option<Marked> {
    let health = match told.health() {
        CellHealth::Healthy => Health::Healthy,
        CellHealth::Unhealthy => Health::Unhealthy,
        CellHealth::Unspecified => Health::Unknown,
    };
    let state = match told.state() {
        WireState::Created => CellState::Created,
        WireState::Running => CellState::Running,
        WireState::Exited => CellState::Exited,
        WireState::Unspecified => return None,
    };
    if told.bot_id.is_empty() || told.bot_id.len() > MAX_TEXT {
        return None;
    }
    Some(Marked {
        bot_id: short(&told.bot_id),
        tenant_id: short(&told.tenant_id),
        hostname: short(&told.hostname),
        cell: Cell {
            container_id: short(&told.container_id),
            generation: told.generation,
            state,
            started_at: short(&told.started_at),
            exit_code: (state == CellState::Exited).then_some(told.exit_code),
            oom: told.oom,
            health,
            // The columns hold what i64 holds.
            restart_count: told.restart_count.min(u64::from(u32::MAX)),
            image_digest: short(&told.image_digest),
        },
    })
}

/// A minute of a container.
pub(super) fn minute(told: &wire::Minute) -> Minute {
    Minute {
        at: told.start_micros,
        cpu_millis: told.cpu_millis,
        memory_bytes: told.memory_bytes,
        rx_bytes: told.rx_bytes,
        tx_bytes: told.tx_bytes,
        pids: told.pids,
    }
}

/// What came of an order.
pub(super) fn outcome(told: wire::OrderResult) -> Result<Outcome, Failure> {
    let reason = match told.problem() {
        Problem::Unspecified => {
            let mut text = told.text;
            text.truncate(MAX_LOG);
            return Ok(Outcome {
                cell: told.cell.and_then(marked).map(|marked| marked.cell),
                tells: told.tells_cell,
                text: String::from_utf8_lossy(&text).into_owned().into(),
            });
        }
        Problem::EngineUnavailable => Reason::EngineUnavailable,
        Problem::ImageNotFound => Reason::ImageNotFound,
        Problem::PullFailed => Reason::PullFailed,
        Problem::CreateFailed => Reason::CreateFailed,
        Problem::StartFailed => Reason::StartFailed,
        Problem::SpecRefused => Reason::SpecRefused,
        Problem::NotOurs => Reason::NotOurs,
        Problem::Late => Reason::PullTimeout,
        Problem::Other => Reason::RunnerFailed,
    };
    Err(Failure { reason, text: short(&told.problem_text) })
}

/// An order as a runner is told.
pub(super) fn order(id: u64, order: &Order) -> wire::Order {
    let verb = match &order.verb {
        Verb::Create(spec) => WireVerb::Create(cell_spec(spec)),
        Verb::Start => WireVerb::Start(wire::Start {}),
        Verb::Stop => WireVerb::Stop(wire::Stop {}),
        Verb::Kill => WireVerb::Kill(wire::Kill {}),
        Verb::Restart => WireVerb::Restart(wire::Restart {}),
        Verb::Remove { with_state } => WireVerb::Remove(wire::Remove { with_state: *with_state }),
        Verb::Logs { lines } => WireVerb::Logs(wire::Logs { lines: *lines }),
    };
    wire::Order {
        id,
        bot_id: order.bot_id.clone(),
        generation: order.generation,
        within_millis: u64::try_from(order.within.as_millis()).unwrap_or(u64::MAX),
        verb: Some(verb),
    }
}

fn cell_spec(spec: &CellSpec) -> wire::CellSpec {
    let rendered = &spec.rendered;
    let env = rendered.env.iter().map(|(name, value)| wire::Variable { name: name.clone(), value: value.to_string() });
    let files = rendered.files.iter().map(|(path, content, mode)| wire::File {
        path: path.clone(),
        content: content.as_bytes().to_vec(),
        mode: *mode,
    });
    wire::CellSpec {
        tenant_id: spec.tenant_id.clone(),
        hostname: spec.hostname.clone(),
        image: spec.image.clone(),
        command: rendered.command.clone(),
        env: env.collect(),
        files: files.collect(),
        state_path: spec.run.state_path.clone().unwrap_or_default(),
        user: spec.run.user.clone().unwrap_or_default(),
        read_only: spec.run.read_only,
        probe: spec.run.probe.as_ref().map(|probe| wire::Probe {
            port: probe.port.into(),
            path: probe.path.clone(),
            json_key: probe.json_key.clone().unwrap_or_default(),
            json_value: probe.json_value.clone().unwrap_or_default(),
        }),
        cpu_millis: spec.size.cpu_millis,
        memory_mb: spec.size.memory_mb,
        pids_limit: spec.size.pids_limit,
        disk_mb: spec.size.disk_mb,
        subnet: spec.block.to_string(),
        gateway: spec.block.gateway().to_string(),
    }
}
