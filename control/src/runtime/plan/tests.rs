use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60 * SECOND;

fn seen(status: BotStatus) -> Seen {
    Seen {
        status,
        reason: Reason::None,
        text: String::new(),
        since: 0,
        container_id: String::new(),
        image_digest: String::new(),
        started_at: String::new(),
        exit_code: None,
        oom: false,
        restart_count: 0,
        health: Health::Unknown,
        health_at: None,
        observed_at: None,
        failures: 0,
        retry_at: None,
    }
}

fn cell(state: CellState) -> Cell {
    Cell {
        container_id: "c1".into(),
        generation: 1,
        state,
        started_at: "t1".into(),
        exit_code: None,
        oom: false,
        health: Health::Unknown,
        restart_count: 0,
        image_digest: String::new(),
    }
}

fn facts<'a>(wanted: Wanted, sight: Sight<'a>, seen: &'a Seen) -> Facts<'a> {
    Facts {
        wanted,
        generation: 1,
        restart_of: "",
        killed: false,
        probed: false,
        hands: Hands::Ready,
        sight,
        seen,
        busy: false,
        now: 10 * MINUTE,
    }
}

fn of(facts: &Facts<'_>) -> (Action, BotStatus, Reason) {
    let decision = decide(facts, &Policy::default());
    (decision.action, decision.status, decision.reason)
}

#[test]
fn a_user_stop_is_no_error_whatever_the_exit_code() {
    for status in [BotStatus::Running, BotStatus::Stopping, BotStatus::Crashed, BotStatus::Error] {
        for (code, oom) in [(0, false), (137, false), (143, false), (78, false), (137, true)] {
            let (row, mut ended) = (seen(status), cell(CellState::Exited));
            (ended.exit_code, ended.oom) = (Some(code), oom);
            let found = of(&facts(Wanted::Stopped, Sight::Cell(&ended), &row));
            assert_eq!(found, (Action::Wait, BotStatus::Stopped, Reason::None), "{status:?} {code}");
        }
    }
}

#[test]
fn an_end_by_itself_is_a_crash_with_its_reason_and_is_noted_once() {
    for (code, oom, status, reason, retries) in [
        (Some(1), false, BotStatus::Crashed, Reason::Exited, true),
        (Some(0), false, BotStatus::Crashed, Reason::Exited, true),
        (Some(137), true, BotStatus::Crashed, Reason::OutOfMemory, true),
        (Some(78), false, BotStatus::Error, Reason::ConfigRefused, false),
    ] {
        let (mut row, mut ended) = (seen(BotStatus::Running), cell(CellState::Exited));
        (ended.exit_code, ended.oom) = (code, oom);
        let first = decide(&facts(Wanted::Running, Sight::Cell(&ended), &row), &Policy::default());
        assert_eq!((first.action, first.status, first.reason, first.failures), (Action::Wait, status, reason, 1));
        row.started_at.clone_from(&ended.started_at);
        (row.status, row.reason, row.failures, row.retry_at) = (status, reason, 1, first.retry_at);
        let again = decide(&facts(Wanted::Running, Sight::Cell(&ended), &row), &Policy::default());
        assert_eq!((again.action, again.failures), (Action::Wait, 1), "{reason:?}");
        let later = Facts { now: MINUTE * 600, ..facts(Wanted::Running, Sight::Cell(&ended), &row) };
        assert_eq!(of(&later).0, if retries { Action::Start } else { Action::Wait }, "{reason:?}");
    }
}

#[test]
fn what_was_stopped_and_is_wanted_again_is_started_and_did_not_crash() {
    for status in [BotStatus::Stopped, BotStatus::Suspended, BotStatus::Stopping] {
        let (row, ended) = (seen(status), cell(CellState::Exited));
        let found = of(&facts(Wanted::Running, Sight::Cell(&ended), &row));
        assert_eq!(found, (Action::Start, BotStatus::Starting, Reason::None), "{status:?}");
    }
}

#[test]
fn a_probe_decides_what_running_means() {
    let at = |status, since, health, started: &str| {
        let mut row = seen(status);
        (row.since, row.started_at) = (since, started.into());
        let mut up = cell(CellState::Running);
        up.health = health;
        let found = of(&Facts { probed: true, ..facts(Wanted::Running, Sight::Cell(&up), &row) });
        assert_eq!(found.0, Action::Wait);
        (found.1, found.2)
    };
    let now = 10 * MINUTE;
    assert_eq!(at(BotStatus::Starting, now, Health::Unknown, "t1"), (BotStatus::Starting, Reason::None));
    assert_eq!(at(BotStatus::Starting, now, Health::Unhealthy, "t1"), (BotStatus::Starting, Reason::None));
    assert_eq!(at(BotStatus::Starting, 0, Health::Unhealthy, "t1"), (BotStatus::Error, Reason::StartTimeout));
    assert_eq!(at(BotStatus::Starting, 0, Health::Healthy, "t1"), (BotStatus::Running, Reason::None));
    assert_eq!(at(BotStatus::Running, 0, Health::Unhealthy, "t1"), (BotStatus::Unhealthy, Reason::ProbeFailed));
    assert_eq!(at(BotStatus::Unhealthy, 0, Health::Healthy, "t1"), (BotStatus::Running, Reason::None));
    // Another start is measured by itself.
    assert_eq!(at(BotStatus::Running, 0, Health::Unhealthy, "t0"), (BotStatus::Starting, Reason::None));
}

#[test]
fn a_restart_ends_one_start_only() {
    let (row, up) = (seen(BotStatus::Running), cell(CellState::Running));
    let wanted = Facts { restart_of: "t1", ..facts(Wanted::Running, Sight::Cell(&up), &row) };
    assert_eq!(of(&wanted).0, Action::Restart);
    let mut next = up.clone();
    next.started_at = "t2".into();
    assert_eq!(of(&Facts { sight: Sight::Cell(&next), ..wanted }).0, Action::Wait);
}

#[test]
fn without_hands_nothing_is_ordered_and_the_reason_is_said() {
    let (row, up) = (seen(BotStatus::Running), cell(CellState::Running));
    for (hands, reason) in [(Hands::Away, Reason::RunnerAway), (Hands::EngineUnavailable, Reason::EngineUnavailable)] {
        let found = of(&Facts { hands, ..facts(Wanted::Running, Sight::Cell(&up), &row) });
        assert_eq!(found, (Action::Wait, BotStatus::Running, reason));
        let found = of(&Facts { hands, ..facts(Wanted::Stopped, Sight::Cell(&up), &row) });
        assert_eq!(found, (Action::Wait, BotStatus::Stopping, reason));
    }
    let found =
        of(&Facts { hands: Hands::NotPlaced, ..facts(Wanted::Running, Sight::Nothing, &seen(BotStatus::Stopped)) });
    assert_eq!(found.0, Action::Place);
}

#[test]
fn retries_wait_twice_as_long_each_time_up_to_a_limit() {
    let policy = Policy::default();
    let waits: Vec<i64> = (1..12).map(|failures| policy.retry_at(failures, 0) / SECOND).collect();
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(policy.retry_at(u32::MAX, 0), 300 * SECOND);
}

/// A runner and its engine in small.
#[derive(Clone, Debug, Default)]
struct World {
    cell: Option<Cell>,
    starts: u32,
}

impl World {
    /// Carries an order out; false: it failed.
    fn obey(&mut self, action: Action, generation: u64, works: bool) -> bool {
        if !works {
            return false;
        }
        match (action, &mut self.cell) {
            (Action::Create, None) => self.cell = Some(Cell { generation, ..cell(CellState::Created) }),
            (Action::Start | Action::Restart, Some(cell)) => {
                self.starts += 1;
                cell.started_at = format!("t{}", self.starts);
                (cell.state, cell.exit_code, cell.health) = (CellState::Running, None, Health::Healthy);
            }
            (Action::Stop | Action::Kill, Some(cell)) => {
                (cell.state, cell.exit_code) = (CellState::Exited, Some(137));
            }
            (Action::Remove, Some(cell)) => {
                assert_ne!(cell.state, CellState::Running, "what runs is never taken away");
                self.cell = None;
            }
            (Action::Place | Action::Wait, _) => {}
            (action, cell) => panic!("{action:?} makes no sense for {cell:?}"),
        }
        true
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Want(Wanted),
    NewGeneration,
    Crash(i64, bool),
    Vanish,
    Restart,
    Pass,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::Want(Wanted::Running)),
        Just(Happens::Want(Wanted::Stopped)),
        Just(Happens::Want(Wanted::Suspended)),
        Just(Happens::NewGeneration),
        (prop_oneof![Just(0_i64), Just(1), Just(78), Just(137)], any::<bool>()).prop_map(|(c, o)| Happens::Crash(c, o)),
        Just(Happens::Vanish),
        Just(Happens::Restart),
        Just(Happens::Pass),
    ]
}

struct Bot {
    wanted: Wanted,
    generation: u64,
    restart_of: String,
    row: Seen,
    now: i64,
}

impl Bot {
    /// One round: decide, say, do.
    fn round(&mut self, world: &mut World, works: bool, policy: &Policy) -> Decision {
        let sight = world.cell.as_ref().map_or(Sight::Nothing, Sight::Cell);
        let before = Facts {
            generation: self.generation,
            restart_of: &self.restart_of,
            probed: true,
            now: self.now,
            ..facts(self.wanted, sight, &self.row)
        };
        let decision = decide(&before, policy);
        assert_eq!(decide(&before, policy), decision, "the same facts, the same answer");
        if self.wanted != Wanted::Running {
            assert!(!matches!(decision.status, BotStatus::Error | BotStatus::Crashed), "{decision:?}");
            assert!(matches!(decision.action, Action::Wait | Action::Stop | Action::Kill), "{decision:?}");
        }
        let started_at = world.cell.as_ref().map(|cell| cell.started_at.clone()).unwrap_or_default();
        if decision.status != self.row.status {
            self.row.since = self.now;
        }
        (self.row.status, self.row.reason) = (decision.status, decision.reason);
        (self.row.failures, self.row.retry_at) = (decision.failures, decision.retry_at);
        self.row.started_at = started_at;
        if !world.obey(decision.action, self.generation, works) {
            self.row.failures += 1;
            self.row.retry_at = Some(policy.retry_at(self.row.failures, self.now));
            if self.wanted == Wanted::Running {
                self.row.status = BotStatus::Error;
            }
        }
        decision
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_it_converges_and_then_orders_nothing(
        story in proptest::collection::vec((happens(), any::<bool>()), 0..40),
        last in prop_oneof![Just(Wanted::Running), Just(Wanted::Stopped), Just(Wanted::Suspended)],
    ) {
        let policy = Policy::default();
        let mut world = World::default();
        let mut bot = Bot {
            wanted: Wanted::Running, generation: 1, restart_of: String::new(), row: seen(BotStatus::Stopped), now: MINUTE,
        };
        for (what, works) in story {
            match what {
                Happens::Want(wanted) => {
                    bot.wanted = wanted;
                    (bot.row.failures, bot.row.retry_at) = (0, None);
                }
                Happens::NewGeneration => {
                    bot.generation += 1;
                    (bot.row.failures, bot.row.retry_at) = (0, None);
                }
                Happens::Crash(code, oom) => if let Some(cell) = &mut world.cell && cell.state == CellState::Running {
                    (cell.state, cell.exit_code, cell.oom) = (CellState::Exited, Some(code), oom);
                },
                Happens::Vanish => world.cell = None,
                Happens::Restart => if let Some(cell) = &world.cell { bot.restart_of.clone_from(&cell.started_at) },
                Happens::Pass => bot.now += 7 * SECOND,
            }
            bot.round(&mut world, works, &policy);
            bot.now += SECOND;
        }
        bot.wanted = last;
        (bot.row.failures, bot.row.retry_at) = (0, None);
        let mut quiet = 0;
        for _ in 0..32 {
            let decision = bot.round(&mut world, true, &policy);
            quiet = if decision.action == Action::Wait { quiet + 1 } else { 0 };
            bot.now += 400 * SECOND;
        }
        prop_assert!(quiet >= 20, "still busy: {:?} {:?}", bot.row, world);
        let runs = world.cell.as_ref().is_some_and(|cell| cell.state == CellState::Running);
        match last {
            Wanted::Running => {
                prop_assert!(runs && bot.row.status == BotStatus::Running, "{:?} {:?}", bot.row, world);
                prop_assert_eq!(world.cell.map(|cell| cell.generation), Some(bot.generation));
                prop_assert_eq!(bot.row.failures, 0);
            }
            Wanted::Stopped => prop_assert!(!runs && bot.row.status == BotStatus::Stopped),
            Wanted::Suspended => prop_assert!(!runs && bot.row.status == BotStatus::Suspended),
        }
    }
}
