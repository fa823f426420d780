//! Why an order was not carried out: a closed set, each with its code.

use bollard::errors::Error;
use clawgate_shared::proto::runner::Problem as Code;

/// Longest text of an engine that is passed on, in characters.
const MAX_TEXT: usize = 300;

/// Why an order was not carried out. `Display` is for people and holds no
/// value of a variable and no content of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The engine does not answer.
    #[error("the container engine does not answer: {0}")]
    EngineUnavailable(String),
    /// No such image.
    #[error("the image is not to be found: {0}")]
    ImageNotFound(String),
    /// The image could not be fetched.
    #[error("the image could not be fetched: {0}")]
    PullFailed(String),
    /// The engine did not make network, volume or container.
    #[error("the container could not be made: {0}")]
    CreateFailed(String),
    /// It was made and does not start.
    #[error("the container does not start: {0}")]
    StartFailed(String),
    /// What was asked for may not be.
    #[error("refused: {0}")]
    SpecRefused(String),
    /// Something of that name is there and is not this installation's.
    #[error("{0} is not this installation's")]
    NotOurs(String),
    /// It took longer than it may.
    #[error("it was not done in time")]
    Late,
    /// Anything else the engine says.
    #[error("the container engine refused: {0}")]
    Other(String),
}

impl Problem {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::EngineUnavailable(_) => Code::EngineUnavailable,
            Self::ImageNotFound(_) => Code::ImageNotFound,
            Self::PullFailed(_) => Code::PullFailed,
            Self::CreateFailed(_) => Code::CreateFailed,
            Self::StartFailed(_) => Code::StartFailed,
            Self::SpecRefused(_) => Code::SpecRefused,
            Self::NotOurs(_) => Code::NotOurs,
            Self::Late => Code::Late,
            Self::Other(_) => Code::Other,
        }
    }

    /// What the engine answered, as `kind` of problem; no answer is always
    /// [`Self::EngineUnavailable`].
    pub fn of(error: &Error, kind: fn(String) -> Self) -> Self {
        match error {
            Error::DockerResponseServerError { message, .. } => kind(short(message)),
            Error::DockerStreamError { error } => kind(short(error)),
            Error::RequestTimeoutError => Self::Late,
            other => Self::EngineUnavailable(short(&other.to_string())),
        }
    }
}

/// Whether the engine says that there is no such thing.
#[must_use]
pub fn is_absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine says that it is so already.
#[must_use]
pub fn is_so_already(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 304 | 409, .. })
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
