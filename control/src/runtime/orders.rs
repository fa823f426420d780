//! What a runner may be told to do with one bot's container, and what comes of
//! it. The closed list: nothing else can be said.

use std::time::Duration;

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::adapters::Rendered;
use super::plan::Cell;
use super::spec::RunSpec;
use super::subnet::Block;
use crate::store::containers::Size;
use crate::store::types::Reason;

/// What a container is made of.
#[derive(Debug)]
pub struct CellSpec {
    /// Owner of the bot.
    pub tenant_id: String,
    /// How people name the bot.
    pub hostname: String,
    /// As its owner says it.
    pub image: String,
    /// As its owner says it.
    pub run: RunSpec,
    /// What the adapter made of it.
    pub rendered: Rendered,
    /// What it may take.
    pub size: Size,
    /// Its network.
    pub block: Block,
}

/// One thing to do. Doing it again changes nothing.
#[derive(Debug)]
pub enum Verb {
    /// Fetch the image, make network, state and container; do not start it.
    Create(Box<CellSpec>),
    /// Start it.
    Start,
    /// Ask it to end, and end it when it does not.
    Stop,
    /// End it.
    Kill,
    /// Stop and start.
    Restart,
    /// Take container and network away; the state too, when its bot is gone.
    Remove {
        /// Whether the state goes.
        with_state: bool,
    },
    /// The last lines it wrote.
    Logs {
        /// How many.
        lines: u32,
    },
}

impl Verb {
    /// For logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Remove { .. } => "remove",
            Self::Logs { .. } => "logs",
        }
    }
}

/// What came of a verb that was carried out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The container after it; `None`: there is none, or it was not asked about.
    pub cell: Option<Cell>,
    /// Whether `cell` says what there is.
    pub tells: bool,
    /// What was read.
    pub text: Zeroizing<String>,
}

/// Why it was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// As a code.
    pub reason: Reason,
    /// For people; holds no secret.
    pub text: String,
}

impl Failure {
    /// The runner went away meanwhile, or was never there.
    #[must_use]
    pub fn away() -> Self {
        Self { reason: Reason::RunnerAway, text: "the runner is not connected".into() }
    }
}

/// A verb on its way to a runner.
#[derive(Debug)]
pub struct Order {
    /// Whose container.
    pub bot_id: String,
    /// What it was made from, or is to be made from.
    pub generation: u64,
    /// What to do.
    pub verb: Verb,
    /// How long the runner may take.
    pub within: Duration,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Outcome, Failure>>,
}
