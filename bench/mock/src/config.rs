//! What the mock is started with, and the only place that reads the
//! environment.

use std::path::PathBuf;
use std::sync::Arc;

use crate::knobs::{KnobError, Knobs};
use crate::ledger::Ledger;

/// Everything [`crate::serve`] needs besides its listener.
#[derive(Clone)]
pub struct MockConfig {
    /// Where requests are recorded; the caller keeps a clone to read totals.
    pub ledger: Arc<Ledger>,
    /// Folder of recordings for `/replay/…`; without one those paths are 404.
    pub recordings: Option<PathBuf>,
    /// Knobs every request starts from.
    pub knobs: Knobs,
}

/// The knobs named in the environment as `MOCK_NAME=value`.
///
/// # Errors
/// A variable that names no knob or has a value that does not parse.
pub fn environment_knobs() -> Result<Knobs, KnobError> {
    let mut knobs = Knobs::default();
    let mut named: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.to_str()?.strip_prefix("MOCK_")?.to_owned();
            Some((name, value.to_string_lossy().into_owned()))
        })
        .collect();
    named.sort();
    for (name, value) in named {
        knobs.set(&name, &value)?;
    }
    Ok(knobs)
}
