//! Why a run could not be made, as opposed to a target that was missed.

/// A failure of the tool, its input or its surroundings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something given is wrong.
    #[error("{0}")]
    Input(String),
    /// A process, file or socket could not be had.
    #[error("{0}")]
    Setup(String),
    /// The run took place but its figures mean nothing.
    #[error("the run is void: {0}")]
    Void(String),
}

impl Failure {
    /// For `map_err`: what was being done, and why it failed.
    pub(crate) fn setup<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |cause| Self::Setup(format!("{what}: {cause}"))
    }
}
