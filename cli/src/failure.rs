//! Why a command ends without success, and the exit code that says so.
//!
//! Exit codes are part of the contract: 0 ok, 1 error, 2 usage, 3 not found,
//! 4 not allowed. The text of a failure is for people; it never holds a secret.

use std::fmt::Display;
use std::process::ExitCode;

/// What went wrong, by what a script should do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong; running it again
    /// unchanged cannot help.
    #[error("{0}")]
    Usage(String),
    /// The named thing does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The credential is missing, wrong or too weak.
    #[error("{0}")]
    NotAllowed(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
    /// The reader of our output went away (`clawgate … | head`): no error.
    #[error("output closed")]
    OutputClosed,
}

impl Failure {
    /// A failure of the general kind, with what was being done.
    pub(crate) fn failed(doing: &str, cause: impl Display) -> Self {
        Self::Failed(format!("{doing}: {cause}"))
    }

    /// The process exit code of this failure.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::NotAllowed(_) => 4,
        }
    }

    /// The failure that an HTTP status of the REST API stands for.
    pub(crate) const fn from_status(status: u16, text: String) -> Self {
        match status {
            401 | 403 => Self::NotAllowed(text),
            404 => Self::NotFound(text),
            _ => Self::Failed(text),
        }
    }
}

/// Prints a failure on stderr and turns the outcome into an exit code.
pub(crate) fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                eprintln!("clawgate: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        for (status, code) in [(400, 1), (401, 4), (403, 4), (404, 3), (409, 1), (422, 1), (500, 1)] {
            assert_eq!(Failure::from_status(status, String::new()).code(), code, "{status}");
        }
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::OutputClosed.code(), 0);
    }
}
