//! `clawgate.node.v1.ConfigSync`: one task per node's stream.

use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::proto::node::config_sync_server::ConfigSync;
use clawgate_shared::proto::node::{
    ControlMessage, Hello, KeyStates, NodeMessage, Peers, Update, Version, control_message, node_message::Kind,
};
use clawgate_shared::seal::SealingKey;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::peer::{Peer, Transport};
use super::stopped;
use crate::fleet::Fleet;
use crate::snapshot::history::{Published, enabled_keys};
use crate::snapshot::rollout::SessionId;
use crate::snapshot::session::{Answer, Session};

/// How long a node may take to introduce itself.
const HELLO: Duration = Duration::from_secs(10);
/// How long a message may wait for a node that does not read.
const SEND: Duration = Duration::from_secs(30);
/// How often a stream looks whether its node was revoked, or is late.
const LOOK: Duration = Duration::from_secs(1);
/// Longest instance id and software version that are kept, in characters.
const MAX_NAME: usize = 128;

type Answers = mpsc::Sender<Result<ControlMessage, Status>>;

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) transport: Transport,
    pub(super) stop: watch::Receiver<bool>,
}

#[async_trait]
impl ConfigSync for Service {
    type SubscribeStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let peer = Peer::of(self.transport, &request);
        if peer == Peer::Stranger {
            peer.check("")?;
        }
        let (answers, stream) = mpsc::channel(1);
        let (fleet, stop, inbound) = (Arc::clone(&self.fleet), self.stop.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = serve(&fleet, &peer, inbound, &answers, stop).await {
                tracing::debug!(code = ?status.code(), "a node's stream ended");
                let _ = timeout(SEND, answers.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Leaves the registry when the stream ends, however it ends.
struct Connected<'a> {
    fleet: &'a Fleet,
    id: SessionId,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.fleet.rollout().disconnect(self.id);
    }
}

async fn serve(
    fleet: &Fleet,
    peer: &Peer,
    mut inbound: Streaming<NodeMessage>,
    answers: &Answers,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Status> {
    let hello = introduction(&mut inbound).await?;
    peer.check(&hello.node_id)?;
    sealing_key(fleet, &hello.node_id).await?;
    let mut current = fleet.publisher().subscribe();
    let (mut session, connected) = connect(fleet, &hello);
    let mut peers = fleet.rollout().subscribe();
    let (mut told, mut told_keys) = (0, Vec::new());
    let mut look = tokio::time::interval(LOOK);
    loop {
        peers.mark_unchanged();
        let nodes = fleet.rollout().connected_nodes();
        if nodes != told {
            send(answers, control_message::Kind::Peers(Peers { nodes })).await?;
            told = nodes;
        }
        let target = current.borrow_and_update().clone();
        if let Some(target) = target
            && let Some(update) = session.next(&target, Instant::now())
        {
            // Read again each time: a node that was revoked meanwhile gets nothing.
            let key = sealing_key(fleet, &hello.node_id).await?;
            let update = sealed(fleet, &key, &target, update);
            send(answers, control_message::Kind::Update(update)).await?;
        }
        // After the keys that it speaks of: a node that starts has none before.
        let keys = fleet.rollout().bad_keys_elsewhere(&hello.node_id);
        if keys != told_keys {
            told_keys.clone_from(&keys);
            send(answers, control_message::Kind::KeyStates(KeyStates { keys })).await?;
        }
        tokio::select! {
            changed = current.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane stops"))?;
            }
            changed = peers.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane stops"))?;
            }
            message = inbound.message() => match message {
                Ok(Some(message)) => take(fleet, &mut session, connected.id, message),
                Ok(None) | Err(_) => return Ok(()),
            },
            _ = look.tick() => match sealing_key(fleet, &hello.node_id).await {
                Err(status) if status.code() == Code::PermissionDenied => return Err(status),
                // A database that is away for a moment is no reason to part.
                _ => {}
            },
            () = stopped(&mut stop) => return Err(Status::unavailable("the control plane stops")),
        }
    }
}

async fn introduction(inbound: &mut Streaming<NodeMessage>) -> Result<Hello, Status> {
    let first = timeout(HELLO, inbound.message()).await.map_err(|_| Status::deadline_exceeded("no hello came"))??;
    match first.and_then(|message| message.kind) {
        Some(Kind::Hello(hello)) if !hello.instance_id.is_empty() => Ok(hello),
        _ => Err(Status::invalid_argument("the first message must be a hello with an instance id")),
    }
}

/// Also the check that the node may be served at all.
async fn sealing_key(fleet: &Fleet, node_id: &str) -> Result<SealingKey, Status> {
    match fleet.node_key(node_id).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Status::permission_denied("this node is not enrolled, or was revoked")),
        Err(cause) => {
            tracing::error!(node = node_id, %cause, "a node's key could not be read");
            Err(Status::unavailable("the node's key cannot be read now"))
        }
    }
}

fn connect<'a>(fleet: &'a Fleet, hello: &Hello) -> (Session, Connected<'a>) {
    let name = |text: &str| text.chars().filter(|c| *c != '\0').take(MAX_NAME).collect::<String>();
    let current = fleet.publisher().subscribe().borrow().clone();
    // Revisions of another generation, or ahead of ours, are those of another
    // database: what the node holds then says nothing about our revisions.
    let ours = |have: &Version| {
        current.as_ref().is_some_and(|current| {
            have.generation == current.version.generation && have.revision <= current.version.revision
        })
    };
    let have = hello.have.clone().filter(ours);
    let known = hello.have.as_ref().and_then(|have| fleet.publisher().find(&have.hash));
    let (instance, software) = (name(&hello.instance_id), name(&hello.software_version));
    let id = fleet.rollout().connect(&hello.node_id, &instance, &software, have);
    (Session::new(hello.have.clone(), known), Connected { fleet, id })
}

fn take(fleet: &Fleet, session: &mut Session, id: SessionId, message: NodeMessage) {
    let rollout = fleet.rollout();
    match message.kind {
        Some(Kind::Ack(ack)) => {
            let Some(version) = ack.version else { return };
            if session.ack(&version) == Answer::Serves {
                rollout.ack(id, version);
            }
        }
        Some(Kind::Nack(nack)) => {
            let Some(version) = nack.version else { return };
            let answer = session.nack(&version);
            tracing::warn!(revision = version.revision, ?answer, reasons = ?nack.reasons, "a node refused an update");
            if answer == Answer::Refuses {
                rollout.nack(id, version, &nack.reasons);
            }
        }
        Some(Kind::Status(status)) => rollout.report(id, status),
        // A second hello, or what a later release says.
        Some(Kind::Hello(_)) | None => {}
    }
}

/// Adds the secrets of the provider keys in `update`, sealed for this node.
fn sealed(fleet: &Fleet, key: &SealingKey, target: &Published, mut update: Update) -> Update {
    let secrets = enabled_keys(&update.upserts).filter_map(|id| {
        let secret = target.secrets.get(id)?;
        match fleet.vault().reseal_for_node(key, &secret.binding(id), &secret.sealed) {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                tracing::error!(key = id, %error, "a provider key's secret could not be sealed for a node");
                None
            }
        }
    });
    update.secrets = secrets.collect();
    update.control_time_micros = clock::now_micros();
    update
}

async fn send(answers: &Answers, kind: control_message::Kind) -> Result<(), Status> {
    let message = ControlMessage { kind: Some(kind) };
    match timeout(SEND, answers.send(Ok(message))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the node closed the stream")),
        Err(_) => Err(Status::deadline_exceeded("the node does not read")),
    }
}
