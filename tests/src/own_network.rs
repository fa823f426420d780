//! A test that runs itself once more in a network of its own.
//!
//! A container engine changes the network of the machine it runs on: bridges,
//! routes, packet filter rules. None of that is ours to change, and fixed ports
//! may be taken. So such a test starts its own binary again in a fresh network
//! namespace; whatever it starts there lives there, and all of it goes with the
//! last process. Where the machine's own engine runs, that one is used,
//! in the machine's network: whoever runs it has agreed to what it does.

use std::path::Path;
use std::process::Command;

use crate::config::{OWN_NETWORK, in_own_network, missing};
use crate::engine::Engine;

/// Runs `story` with an engine that makes networks, in `folder`. `test` is the
/// test's full name as the test binary lists it.
///
/// # Panics
/// The story does, or there can be no engine and CI does not skip.
pub fn with_engine(test: &str, story: impl FnOnce(&Engine, &Path)) {
    if !in_own_network() && !Engine::of_the_machine_answers() {
        return again_inside(test);
    }
    let folder = tempfile::Builder::new().prefix("clawgate-engine-").tempdir().expect("a folder");
    let engine = if in_own_network() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "the loopback device cannot be set up");
        Engine::own(folder.path(), &[])
    } else {
        Engine::start(folder.path())
    };
    let Some(engine) = engine else { return missing("a Docker engine") };
    story(&engine, folder.path());
}

fn again_inside(test: &str) {
    if !nix::unistd::geteuid().is_root() || !crate::engine::is_installed() {
        return missing("a Docker engine that runs, or dockerd and root to start one");
    }
    let may = Command::new("unshare").args(["--net", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return missing("the right to make a network namespace (unshare)");
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let mut inner = Command::new("unshare");
    inner.args(["--net", "--"]).arg(this).args(["--exact", test, "--nocapture"]).env(OWN_NETWORK, "1");
    let output = inner.output().expect("unshare has just run");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    // A name that fits no test would pass with nothing run.
    assert!(output.status.success() && text.contains("1 passed"), "the inner run of {test}: {}", output.status);
}
