//! What every handler can reach.

use std::ops::Deref;
use std::sync::Arc;

use axum::response::Response;
use clawgate_shared::token::TokenHash;

use super::outcome::Outcome;
use super::problem::Problem;
use super::rollout::Prefer;
use crate::domain::{Domain, Done};
use crate::fleet::Fleet;
use crate::runtime::Runtime;
use crate::store::{Db, ReadConn, StoreError};

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What [`App`] is made of.
pub struct Parts {
    /// Use cases, with database and vault.
    pub domain: Domain,
    /// Nodes.
    pub fleet: Arc<Fleet>,
    /// Bots that we run.
    pub runtime: Arc<Runtime>,
    /// Base of the URLs a new bot is told.
    pub public_url: String,
    /// Hash of the bootstrap admin token.
    pub bootstrap: TokenHash,
}

impl App {
    /// Shares the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.domain.db
    }

    /// A connection for reads.
    ///
    /// # Errors
    /// None is free in time.
    pub async fn read(&self) -> Result<ReadConn, StoreError> {
        self.domain.db.read().await
    }

    /// Takes the result of a committed change, and tells the nodes of it.
    pub fn committed<T>(&self, done: Done<T>) -> (T, Option<u64>) {
        if done.revision.is_some() {
            self.fleet.config_changed();
            // What is wanted of a bot may have changed with it.
            self.runtime.wake();
        }
        (done.value, done.revision)
    }

    /// The outcome of a committed change, in the shape of its resource; the nodes
    /// are told of it.
    ///
    /// # Errors
    /// As `shape`'s.
    pub fn outcome<T>(
        &self,
        done: Done<T>,
        shape: impl FnOnce(T) -> Result<Outcome, Problem>,
    ) -> Result<Outcome, Problem> {
        let (value, revision) = self.committed(done);
        Ok(shape(value)?.revision(revision))
    }

    /// Answers an update with the resource as it is now.
    ///
    /// # Errors
    /// As `shape`'s.
    pub async fn changed<T>(
        &self,
        prefer: Prefer,
        done: Done<T>,
        shape: impl FnOnce(T) -> Result<Outcome, Problem>,
    ) -> Result<Response, Problem> {
        let outcome = self.outcome(done, shape)?;
        Ok(self.answer(prefer, outcome).await)
    }

    /// Answers a deletion.
    pub async fn gone(&self, prefer: Prefer, done: Done<()>) -> Response {
        let ((), revision) = self.committed(done);
        self.answer(prefer, Outcome::gone().revision(revision)).await
    }

    /// Turns a write's outcome into its answer, after the nodes have had their
    /// time.
    pub async fn answer(&self, prefer: Prefer, outcome: Outcome) -> Response {
        let revision = outcome.revision;
        let mut response = outcome.into_response();
        if let Some(revision) = revision {
            let counts = self.fleet.wait_rollout(revision, prefer.wait).await;
            prefer.announce(&mut response, counts);
        }
        response
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
