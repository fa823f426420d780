//! What the control plane does with its nodes: who they are, what they hold,
//! what they sent.
//!
//! Invariant: a node is named by the certificate it presents (or by the Unix
//! socket it could open), never by a message alone; its sealing key is stored
//! sealed and given to that node only.
//! Deliberately absent: REST shapes, sockets (`grpc`), and anything about bots'
//! containers but who their runners are.

mod authority;
pub mod ca;
pub mod enroll;
mod keys;
mod runners;
mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::seal::{SealError, SealingKey};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ingest::{self, Accepted, Batch, IngestError};
use crate::prices::{self, Prices};
use crate::quota::desk::Desk;
use crate::quota::{Answer, Books, Claim, Holder, Quotas, TradeError, learning, trade};
use crate::snapshot::assemble::AssembleError;
use crate::snapshot::publisher::Publisher;
use crate::snapshot::rollout::{RECENT, Rollout};
use crate::store::account_ids::{self, Maker, Place};
use crate::store::{Db, StoreError, nodes};
use crate::vault::{Purpose, Vault, VaultError};
use ca::{Authority, CaError};

pub use crate::snapshot::rollout::RolloutCounts;
pub use enroll::{EnrollError, EnrollKind, Enrolled, MintedEnrollToken};
pub use keys::{Cooling, KeyStates};
pub use view::NodeView;
#[cfg(test)]
pub(crate) use view::short as short_version;

/// Most nodes that are listed or remembered.
const MAX_NODES: i64 = 10_000;

/// What the fleet is opened with.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Names or addresses in the gRPC server's certificate besides
    /// [`ca::SERVER_NAME`].
    pub server_names: Vec<String>,
    /// How long a node may serve without contact.
    pub max_config_age: Duration,
    /// Test hook: see [`Fleet::set_poison`].
    pub test_poison: bool,
}

/// Why the fleet cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`VaultError`].
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// See [`CaError`].
    #[error(transparent)]
    Ca(#[from] CaError),
    /// See [`SealError`].
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The first configuration could not be read.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// A stored value is not what it must be.
    #[error("{0}")]
    Damaged(&'static str),
}

/// Counts since the process started, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounts {
    /// Usage events that were new.
    pub events: u64,
    /// Of them, those whose end nobody saw.
    pub indeterminate: u64,
    /// Ends of exchanges that had an event already.
    pub duplicates: u64,
    /// Records that were lost.
    pub lost: u64,
}

#[derive(Default)]
struct IngestTotals {
    events: AtomicU64,
    indeterminate: AtomicU64,
    duplicates: AtomicU64,
    lost: AtomicU64,
}

/// Everything about nodes; share it in an [`Arc`].
pub struct Fleet {
    db: Db,
    vault: Arc<Vault>,
    authority: Authority,
    options: FleetOptions,
    rollout: Rollout,
    publisher: Publisher,
    prices: Prices,
    quotas: Quotas,
    ingested: IngestTotals,
    ingest_signal: watch::Sender<u64>,
}

impl Fleet {
    /// Takes up or makes the authority, remembers recent nodes, and publishes
    /// the configuration as it is.
    ///
    /// # Errors
    /// See [`FleetError`]. A configuration that does not validate is no error:
    /// nodes keep what they have until it does.
    pub async fn open(db: Db, vault: Arc<Vault>, options: FleetOptions) -> Result<Arc<Self>, FleetError> {
        let authority = authority::open(&db, &vault).await?;
        let rollout = Rollout::default();
        let horizon = clock::now_micros().saturating_sub(authority::micros(RECENT));
        let rows = nodes::list(&mut *db.read().await?, MAX_NODES).await?;
        rollout.remember(rows.into_iter().filter_map(|node| {
            let seen = node.state.last_seen_at.filter(|at| *at >= horizon)?;
            Some((node.id, seen))
        }));
        let publisher = Publisher::new(db.clone(), Arc::clone(&vault), options.max_config_age, options.test_poison);
        publisher.publish().await?;
        let prices = Prices::load(&db).await?;
        let learning_until = learning::begin(&db, clock::now_micros()).await?;
        let quotas = Quotas { books: Books::default(), desk: Desk::default(), learning_until };
        let (ingested, ingest_signal) = (IngestTotals::default(), watch::Sender::new(0));
        Ok(Arc::new(Self {
            db,
            vault,
            authority,
            options,
            rollout,
            publisher,
            prices,
            quotas,
            ingested,
            ingest_signal,
        }))
    }

    /// Starts the background tasks; they end when `stop` is true.
    pub fn start(self: &Arc<Self>, stop: watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let (publishing, writing, pricing) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let (until, stopped) = (stop.clone(), stop.clone());
        vec![
            tokio::spawn(async move { publishing.publisher.run(until).await }),
            tokio::spawn(async move { prices::watch_for_changes(&pricing.prices, &pricing.db, stopped).await }),
            tokio::spawn(async move { status::run(&writing.db, &writing.rollout, stop).await }),
        ]
    }

    /// A config write was committed: nodes are told within milliseconds.
    pub fn config_changed(&self) {
        self.publisher.changed();
    }

    /// Test hook: from now on every snapshot asks to be refused, or no longer.
    pub fn set_poison(&self, on: bool) {
        self.publisher.set_poison(on);
    }

    /// Waits until every connected node has answered for this or a later
    /// revision, at most `wait`.
    pub async fn wait_rollout(&self, revision: u64, wait: Duration) -> RolloutCounts {
        self.rollout.wait(revision, wait).await
    }

    /// Who holds what.
    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// What nodes are told.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// A node was revoked: it is no longer waited for or missed. Its stream ends
    /// when it next looks, within seconds.
    pub fn forget(&self, node_id: &str) {
        self.rollout.forget(node_id);
    }

    /// Every node that enrolled and was not revoked, by id.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn list_nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let rows = nodes::list(&mut *self.db.read().await?, MAX_NODES).await?;
        Ok(view::merge(rows, self.rollout.nodes()))
    }

    /// Where provider keys stand, as connected nodes found them.
    #[must_use]
    pub fn key_states(&self) -> KeyStates {
        KeyStates::merge(self.rollout.key_states(), clock::now_micros())
    }

    /// Takes a batch of usage records.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub async fn ingest(&self, batch: Batch<'_>) -> Result<Accepted, IngestError> {
        if self.is_revoked(batch.node_id).await? {
            return Err(IngestError::Revoked);
        }
        let (prices, books, now) = (self.prices.table(), &self.quotas.books, clock::now_micros());
        let accepted = ingest::accept(&self.db, &self.rollout, &prices, books, batch, now).await?;
        self.ingested.events.fetch_add(accepted.events, Ordering::Relaxed);
        self.ingested.indeterminate.fetch_add(accepted.indeterminate, Ordering::Relaxed);
        self.ingested.duplicates.fetch_add(accepted.duplicates, Ordering::Relaxed);
        self.ingested.lost.fetch_add(accepted.lost, Ordering::Relaxed);
        if accepted.events > 0 {
            self.ingest_signal.send_modify(|total| *total = total.wrapping_add(accepted.events));
        }
        Ok(accepted)
    }

    /// Answers what a node claims of quotas.
    ///
    /// # Errors
    /// See [`TradeError`].
    pub async fn trade(&self, holder: Holder<'_>, claims: &[Claim]) -> Result<Vec<Answer>, TradeError> {
        if self.is_revoked(holder.node_id).await? {
            return Err(TradeError::Revoked);
        }
        trade::trade(&self.db, &self.quotas, holder, claims, clock::now_micros()).await
    }

    /// Who made these things in a vendor's account; `None` where it is not known.
    /// `None` of all: the node was revoked.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn find_makers(
        &self,
        node_id: &str,
        place: Place<'_>,
        ids: &[String],
    ) -> Result<Option<Vec<Option<Maker>>>, StoreError> {
        if self.is_revoked(node_id).await? {
            return Ok(None);
        }
        let makers = account_ids::find(&mut *self.db.read().await?, place, ids).await?;
        let now = clock::now_micros();
        let unused: Vec<&str> =
            makers.iter().flatten().filter(|maker| maker.is_due(now)).map(|maker| maker.id.as_str()).collect();
        if !unused.is_empty() {
            let mut tx = self.db.begin().await?;
            account_ids::touch(&mut tx, place, &unused, now).await?;
            tx.commit().await?;
        }
        Ok(Some(makers))
    }

    async fn is_revoked(&self, node_id: &str) -> Result<bool, StoreError> {
        let node = nodes::find(&mut *self.db.read().await?, node_id).await?;
        Ok(node.is_some_and(|node| node.revoked_at.is_some()))
    }

    /// The prices that events are given.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// Wakes when usage events were added; the value counts them.
    #[must_use]
    pub fn usage_added(&self) -> watch::Receiver<u64> {
        self.ingest_signal.subscribe()
    }

    /// Counts since the process started.
    #[must_use]
    pub fn ingest_counts(&self) -> IngestCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        IngestCounts {
            events: read(&self.ingested.events),
            indeterminate: read(&self.ingested.indeterminate),
            duplicates: read(&self.ingested.duplicates),
            lost: read(&self.ingested.lost),
        }
    }

    /// The sealing key of a node that may be served; `None` for an unknown or
    /// revoked one.
    pub(crate) async fn node_key(&self, node_id: &str) -> Result<Option<SealingKey>, FleetError> {
        let Some(node) = nodes::find(&mut *self.db.read().await?, node_id).await? else { return Ok(None) };
        if node.revoked_at.is_some() {
            return Ok(None);
        }
        let key = self.vault.open_blob(Purpose::NodeSealingKey, node_id, &node.sealed_sealing_key)?;
        Ok(Some(SealingKey::from_slice(&key)?))
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    pub(crate) fn server_identity(&self) -> Result<ca::ServerIdentity, CaError> {
        self.authority.server_identity(&self.options.server_names)
    }

    pub(crate) fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }
}
