//! Keeps the stream to the control plane open: says what is held, takes
//! updates, reports status, comes back after every loss. Nothing of the data
//! plane ever waits for this.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::proto::node::config_sync_client::ConfigSyncClient;
use clawgate_shared::proto::node::{
    Ack, ControlMessage, Hello, KeyState, Nack, NodeMessage, NodeStatus, Update, control_message, node_message,
};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use zeroize::Zeroizing;

use super::channel::{ControlChannel, ControlTarget, TargetError, source_text};
use super::enroll::EnrollError;
use super::identity::IdentityCell;
use super::session::{Activate, Outcome, Session};
use super::state::SyncState;
use crate::metering::Backoff;
use crate::snapshot::cache::Cache;
use crate::upstream::KeyNews;

/// How often status is reported and contact is noted.
const STATUS: Duration = Duration::from_secs(5);
/// Between two reports that news of keys bring about.
const NEWS: Duration = Duration::from_millis(200);
/// How long the stream may take to open.
const OPEN: Duration = Duration::from_secs(10);
/// A stream without a word counts as contact after this time.
const PROBATION: Duration = Duration::from_millis(500);
/// How long a stream that we end may take to deliver what was said last.
const PARTING: Duration = Duration::from_millis(500);
/// Messages on their way out.
const OUTBOX: usize = 16;
/// Largest update: 100,000 bots and more.
const MAX_UPDATE: usize = 256 << 20;
/// The time of the last contact is written to disk so often.
const NOTE_CONTACT: Duration = Duration::from_secs(60);
/// After a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(600);
/// A stream that was in contact and lived so long was a success. Short: what is
/// revoked must also reach a node that loses its stream again and again.
const SETTLED: Duration = Duration::from_secs(1);

/// Gives the numbers of a status message.
pub type StatusSource = Arc<dyn Fn() -> NodeStatus + Send + Sync>;

/// Hears how many nodes are connected to the control plane.
pub type PeersSink = Arc<dyn Fn(u32) + Send + Sync>;

/// Hears which keys other nodes found invalid or exhausted.
pub type KeyStatesSink = Arc<dyn Fn(&[KeyState]) + Send + Sync>;

/// What the client is made of.
pub struct SyncParts {
    /// Who we are.
    pub identity: Arc<IdentityCell>,
    /// Where to.
    pub channel: Arc<ControlChannel>,
    /// For the first enrolment over TLS.
    pub enroll_token: Option<Zeroizing<String>>,
    /// Compiles and swaps; all or nothing.
    pub activate: Activate,
    /// Last known good.
    pub cache: Arc<Cache>,
    /// Written here, read elsewhere.
    pub state: Arc<SyncState>,
    /// For status messages.
    pub status: StatusSource,
    /// Told of every change; the last word stays when the stream is lost.
    pub peers: PeersSink,
    /// Told of every change.
    pub key_states: KeyStatesSink,
    /// Wakes when a status is due before its time.
    pub key_news: Arc<KeyNews>,
    /// Random per process start.
    pub instance_id: String,
    /// Of this program.
    pub software_version: String,
}

/// The background task. Dropping its future ends the stream and nothing else.
pub struct SyncClient {
    parts: SyncParts,
    session: Arc<Mutex<Session>>,
    /// Over the Unix socket: whether this process has introduced itself.
    introduced: bool,
    next_renewal: Instant,
    next_note: Instant,
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{0}")]
    Enroll(#[from] EnrollError),
    #[error("{0}")]
    Target(#[from] TargetError),
    #[error("the control plane did not open the stream in time")]
    Timeout,
    #[error("{:?}: {}", .0.code(), source_text(.0.as_ref()))]
    Status(Box<Status>),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the two sides disagree about what this node holds")]
    Resync,
    #[error("a blocking task was cancelled")]
    Cancelled,
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl SyncClient {
    /// Nothing happens yet.
    #[must_use]
    pub fn new(parts: SyncParts) -> Self {
        let session = Arc::new(Mutex::new(Session::new(parts.activate.clone())));
        let now = Instant::now();
        Self { parts, session, introduced: false, next_renewal: now, next_note: now }
    }

    /// Serves the newest last known good that opens and activates. Blocks on
    /// the disk; call it before listening. Returns whether there was one.
    pub fn restore(&mut self) -> bool {
        let Some(key) = self.parts.identity.sealing_key() else { return false };
        if let Some(micros) = self.parts.cache.last_contact() {
            self.parts.state.set_contact(micros);
        }
        for saved in self.parts.cache.load(&key) {
            let version = saved.version.clone();
            match locked(&self.session).restore(saved) {
                Ok(()) => {
                    tracing::info!(revision = version.revision, "serving the last known good configuration");
                    self.parts.state.set_version(version);
                    return true;
                }
                Err(reasons) => {
                    tracing::warn!(?reasons, revision = version.revision, "a saved configuration is skipped")
                }
            }
        }
        false
    }

    /// Enrols if need be, then keeps the stream open for ever.
    ///
    /// # Errors
    /// The node cannot enrol and asking again does not help; it goes on
    /// serving what it has.
    pub async fn run(mut self) -> Result<Infallible, EnrollError> {
        let target = self.parts.channel.target().clone();
        let parts = &self.parts;
        let newcomer = parts.identity.load().is_none();
        let identity = parts.identity.ensure(&target, parts.enroll_token.as_ref(), &parts.software_version).await?;
        self.introduced = newcomer;
        self.parts.channel.connect(identity.tls.as_ref())?;
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let Err(error) = self.stream().await;
            let served = self.parts.state.connected();
            self.parts.state.set_connected(false);
            if served && began.elapsed() > SETTLED {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(%error, millis, "no stream to the control plane");
            sleep(delay).await;
        }
    }

    /// One stream, until it ends.
    async fn stream(&mut self) -> Result<Infallible, StreamError> {
        self.introduce().await?;
        let channel = self.parts.channel.get().ok_or(StreamError::Cancelled)?;
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let hello = Hello {
            node_id: self.parts.identity.node_id().to_owned(),
            instance_id: self.parts.instance_id.clone(),
            software_version: self.parts.software_version.clone(),
            have: locked(&self.session).have(),
        };
        send(&outbox, node_message::Kind::Hello(hello)).await?;
        let mut client = ConfigSyncClient::new(channel.clone()).max_decoding_message_size(MAX_UPDATE);
        let opening = timeout(OPEN, client.subscribe(ReceiverStream::new(queue))).await;
        let opened = opening.map_err(|_| StreamError::Timeout)?;
        let mut inbox = opened.inspect_err(|status| self.introduced = !is_stranger(status))?.into_inner();
        let end = self.converse(&mut inbox, &outbox, &channel).await;
        if matches!(end, Err(StreamError::Resync)) {
            // The refusal is still on its way; an abandoned stream would take
            // it along.
            drop(outbox);
            let rest = async { while let Ok(Some(_)) = inbox.message().await {} };
            let _ = timeout(PARTING, rest).await;
        }
        end
    }

    async fn converse(
        &mut self,
        inbox: &mut Streaming<ControlMessage>,
        outbox: &mpsc::Sender<NodeMessage>,
        channel: &Channel,
    ) -> Result<Infallible, StreamError> {
        // A stream that opens is not yet one that is served: a node that was
        // revoked hears of it right after. Only then is it contact.
        let mut tick = interval_at(Instant::now() + PROBATION, STATUS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_news = Instant::now();
        loop {
            tokio::select! {
                message = inbox.message() => {
                    let message = message.inspect_err(|status| self.introduced = !is_stranger(status))?;
                    let message = message.ok_or(StreamError::Closed)?;
                    self.in_contact();
                    match message.kind {
                        Some(control_message::Kind::Update(update)) => self.take(update, outbox).await?,
                        Some(control_message::Kind::Peers(peers)) => (self.parts.peers)(peers.nodes),
                        Some(control_message::Kind::KeyStates(said)) => (self.parts.key_states)(&said.keys),
                        // A newer control plane may say more than we know.
                        None => {}
                    }
                }
                () = self.parts.key_news.to_report() => {
                    if Instant::now() >= next_news {
                        self.report(outbox);
                        next_news = Instant::now() + NEWS;
                    } else {
                        tick.reset_after(NEWS);
                    }
                }
                _ = tick.tick() => {
                    // The stream's keepalive vouches for the other side.
                    self.in_contact();
                    self.report(outbox);
                    self.note_contact().await;
                    self.renew(channel).await;
                }
            }
        }
    }

    /// When the outbox is full, the next report will do.
    fn report(&self, outbox: &mpsc::Sender<NodeMessage>) {
        let status = node_message::Kind::Status((self.parts.status)());
        let _ = outbox.try_send(NodeMessage { kind: Some(status) });
    }

    fn in_contact(&self) {
        let state = &self.parts.state;
        state.set_contact(clock::now_micros());
        if !state.connected() {
            state.set_connected(true);
            tracing::info!(control = %self.parts.channel.target(), "connected to the control plane");
        }
    }

    /// Activate, save, answer: in this order, so that what is acknowledged is
    /// served, and still is after a restart.
    async fn take(&mut self, update: Update, outbox: &mpsc::Sender<NodeMessage>) -> Result<(), StreamError> {
        let (session, identity, cache) = (self.session.clone(), self.parts.identity.clone(), self.parts.cache.clone());
        let work = move || {
            let mut session = locked(&session);
            let outcome = session.on_update(update);
            if let (Outcome::Ack { changed: true, .. }, Some(held), Some(key)) =
                (&outcome, session.held(), identity.sealing_key())
                && let Err(error) = cache.store(&key, held).and_then(|()| cache.note_contact(clock::now_micros()))
            {
                tracing::error!(%error, "the configuration is served but was not saved");
            }
            outcome
        };
        match spawn_blocking(work).await.map_err(|_| StreamError::Cancelled)? {
            Outcome::Ack { version, changed } => {
                tracing::info!(
                    generation = version.generation,
                    revision = version.revision,
                    changed,
                    "configuration taken"
                );
                self.parts.state.set_version(version.clone());
                send(outbox, node_message::Kind::Ack(Ack { version: Some(version) })).await
            }
            Outcome::Nack { version, reasons, resync } => {
                tracing::error!(revision = version.revision, ?reasons, "configuration refused; the old one stays");
                self.parts.state.count_nack();
                send(outbox, node_message::Kind::Nack(Nack { version: Some(version), reasons })).await?;
                if resync { Err(StreamError::Resync) } else { Ok(()) }
            }
        }
    }

    /// Over the Unix socket a node introduces itself once per process, and
    /// again when it is not known: the database behind may be another one.
    async fn introduce(&mut self) -> Result<(), StreamError> {
        let target = self.parts.channel.target();
        if self.introduced || !matches!(target, ControlTarget::Unix(_)) {
            return Ok(());
        }
        let other_key = self.parts.identity.enroll(target, None, &self.parts.software_version).await?;
        if other_key {
            tracing::warn!("the control plane gave this node another sealing key");
            locked(&self.session).forget();
        }
        self.introduced = true;
        Ok(())
    }

    async fn note_contact(&mut self) {
        if Instant::now() < self.next_note {
            return;
        }
        self.next_note = Instant::now() + NOTE_CONTACT;
        let (cache, micros) = (self.parts.cache.clone(), self.parts.state.last_contact_micros());
        if let Ok(Err(error)) = spawn_blocking(move || cache.note_contact(micros)).await {
            tracing::warn!(%error, "the last contact was not noted");
        }
    }

    /// A new certificate when two thirds of the old one's life are over. New
    /// connections use it; this stream stays as it is.
    async fn renew(&mut self, channel: &Channel) {
        let identity = self.parts.identity.load();
        let Some(tls) = identity.as_ref().and_then(|identity| identity.tls.as_ref()) else { return };
        if !tls.should_renew(clock::now_micros()) || Instant::now() < self.next_renewal {
            return;
        }
        self.next_renewal = Instant::now() + RENEW_AGAIN;
        let renewed = self.parts.identity.renew(channel.clone(), tls).await;
        let used = renewed.and_then(|new| Ok(self.parts.channel.connect(new.tls.as_ref())?));
        match used {
            Ok(()) => tracing::info!("this node's certificate was renewed"),
            Err(error) => tracing::warn!(%error, "this node's certificate was not renewed"),
        }
    }
}

async fn send(outbox: &mpsc::Sender<NodeMessage>, kind: node_message::Kind) -> Result<(), StreamError> {
    outbox.send(NodeMessage { kind: Some(kind) }).await.map_err(|_| StreamError::Closed)
}

/// Whether the control plane does not know this node.
fn is_stranger(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition)
}

fn locked(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
