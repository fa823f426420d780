//! Verbs against a real engine, in a network and mount namespace of its own.
//! Without root or `dockerd` these tests say so; with `CI=true` they fail.

mod common;

use clawgate_runner::cell;
use clawgate_runner::problem::Problem;
use clawgate_runner::spec::CellSpec;
use clawgate_runner::verbs::Cells;
use clawgate_shared::proto::runner as wire;
use clawgate_shared::proto::runner::CellState;
use common::{IMAGE, Machine, with_machine};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

fn told() -> wire::CellSpec {
    wire::CellSpec {
        tenant_id: "ten_1".into(),
        hostname: "demo".into(),
        image: IMAGE.into(),
        command: ["/bin/busybox", "sleep", "600"].map(String::from).to_vec(),
        env: vec![wire::Variable { name: "BOT_TOKEN".into(), value: "cgb_secret".into() }],
        files: vec![wire::File { path: "/state/bot.json".into(), content: b"{\"a\":1}".to_vec(), mode: 0o600 }],
        state_path: "/state".into(),
        user: "1000:1000".into(),
        read_only: true,
        cpu_millis: 500,
        memory_mb: 64,
        pids_limit: 64,
        subnet: "10.231.7.0/28".into(),
        gateway: "10.231.7.1".into(),
        ..wire::CellSpec::default()
    }
}

fn spec(generation: u64, told: wire::CellSpec) -> CellSpec {
    CellSpec::parse("bot_1", generation, told).expect("a spec that may be")
}

async fn state(cells: &Cells) -> Option<(CellState, u64)> {
    cells.view("bot_1").await.expect("answers").map(|cell| (cell.state(), cell.generation))
}

#[test]
fn the_life_of_a_cell() {
    with_machine("the_life_of_a_cell", async |machine: &Machine| {
        let cells = machine.cells("ins_1").await;
        for _ in 0..2 {
            cells.create(&spec(1, told())).await.expect("made, and made again");
        }
        assert_eq!(state(&cells).await, Some((CellState::Created, 1)));
        let made = cells.look("bot_1").await.expect("answers").expect("is there");
        assert_eq!(cell::deviations(&spec(1, told()), &made), Vec::<&str>::new());
        let labels = format!("{:?}", made.config.as_ref().and_then(|config| config.labels.as_ref()));
        assert!(!labels.contains("cgb_secret"), "{labels}");
        for _ in 0..2 {
            cells.start("bot_1", 1).await.expect("runs");
        }
        assert_eq!(state(&cells).await, Some((CellState::Running, 1)));
        // What a bot sees of its machine: its own state, and no way out.
        let (code, said) = machine.inside(&["/bin/busybox", "cat", "/state/bot.json"]);
        assert_eq!((code, said.as_str()), (0, "{\"a\":1}"));
        assert_eq!(machine.inside(&["/bin/busybox", "touch", "/state/mine"]).0, 0, "its state is its own");
        assert_ne!(machine.inside(&["/bin/busybox", "touch", "/mine"]).0, 0, "its root is not");
        let (_, status) = machine.inside(&["/bin/busybox", "cat", "/proc/self/status"]);
        for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} in {status}");
        }
        let (_, internal) = machine.docker(&["network", "inspect", "--format", "{{.Internal}}", "clawgate-bot_1"]);
        assert_eq!(internal.trim(), "true", "the engine routes nothing out of a bot's network");
        assert!(matches!(cells.start("bot_1", 2).await, Err(Problem::StartFailed(_))));
        for _ in 0..2 {
            cells.kill("bot_1").await.expect("ends");
        }
        let ended = cells.view("bot_1").await.expect("answers").expect("is there");
        assert_eq!((ended.state(), ended.exit_code), (CellState::Exited, 137));
        cells.restart("bot_1", 1).await.expect("runs again");
        cells.create(&spec(2, told())).await.expect("replaced");
        assert_eq!(state(&cells).await, Some((CellState::Created, 2)));
        cells.start("bot_1", 2).await.expect("runs");
        assert_eq!(
            machine.inside(&["/bin/busybox", "test", "-e", "/state/mine"]).0,
            0,
            "the state outlives a container"
        );
        for _ in 0..2 {
            cells.remove("bot_1", true).await.expect("gone");
        }
        assert_eq!(state(&cells).await, None);
        for kind in ["container", "network", "volume"] {
            let all = ["ls", "--quiet", "--filter", "label=clawgate.io/bot"];
            let left = machine.docker(&[&[kind], &all[..]].concat());
            assert_eq!(left.1, "", "{kind}");
        }
    });
}

#[test]
fn what_is_not_ours_is_not_touched() {
    with_machine("what_is_not_ours_is_not_touched", async |machine: &Machine| {
        let (ours, theirs) = (machine.cells("ins_1").await, machine.cells("ins_2").await);
        theirs.create(&spec(1, told())).await.expect("made");
        theirs.start("bot_1", 1).await.expect("runs");
        let refused = [
            ours.create(&spec(1, told())).await.err(),
            ours.start("bot_1", 1).await.err(),
            ours.stop("bot_1").await.err(),
            ours.kill("bot_1").await.err(),
            ours.restart("bot_1", 1).await.err(),
            ours.remove("bot_1", true).await.err(),
            ours.logs("bot_1", 10).await.err(),
        ];
        assert!(refused.iter().all(|problem| matches!(problem, Some(Problem::NotOurs(_)))), "{refused:?}");
        assert!(ours.list().await.expect("answers").is_empty());
        assert_eq!(state(&theirs).await, Some((CellState::Running, 1)));
        theirs.remove("bot_1", true).await.expect("gone");
        let missing = spec(1, wire::CellSpec { image: "127.0.0.1:1/no/such:image".into(), ..told() });
        assert!(matches!(ours.create(&missing).await, Err(Problem::PullFailed(_) | Problem::ImageNotFound(_))));
    });
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9/:@._-]{0,80}",
        "(\\.\\./|/|--|\\$\\(id\\)|;|\\x00|\n|%2e|@sha256:|[A-Z]){1,8}",
    ]
}

#[test]
fn hostile_specs_are_refused_or_made_and_never_an_engines_fault() {
    with_machine("hostile_specs_are_refused_or_made_and_never_an_engines_fault", async |machine: &Machine| {
        let cells = machine.cells("ins_1").await;
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
        let case = (0..8_usize, hostile(), hostile());
        let (mut refused, mut reached) = (0, 0);
        for _ in 0..300 {
            let (field, one, other) = case.new_tree(&mut runner).expect("a case").current();
            let mut told = told();
            match field {
                0 => told.hostname = one,
                1 => told.image = one,
                2 => told.tenant_id = one,
                3 => told.env = vec![wire::Variable { name: one, value: other }],
                4 => told.env = vec![wire::Variable { name: "A".into(), value: one }],
                5 => told.state_path = one,
                6 => told.user = one,
                _ => told.files = vec![wire::File { path: one, content: other.into_bytes(), mode: 0o600 }],
            }
            let Ok(spec) = CellSpec::parse("bot_1", 1, told.clone()) else {
                refused += 1;
                continue;
            };
            reached += 1;
            match cells.create(&spec).await {
                Ok(()) | Err(Problem::PullFailed(_) | Problem::ImageNotFound(_)) => {}
                Err(problem) => panic!("{problem} for field {field} of {told:?}"),
            }
            cells.remove("bot_1", true).await.expect("gone");
        }
        assert!(refused > 50 && reached > 10, "{refused} refused, {reached} reached the engine");
    });
}
