//! `clawgate.runner.v1.Runner`: one task per runner's stream.
//!
//! Invariant: orders go out and answers come in; what a runner tells is kept
//! for the runner that the transport proves, and for no other.
//! Deliberately absent: what is ordered and why (`runtime`).

mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::proto::runner::runner_server::Runner as RunnerService;
use clawgate_shared::proto::runner::{
    ControlMessage, EnrollRequest, EnrollResponse, Hello, RenewRequest, RunnerMessage, Welcome, control_message,
    runner_message::Kind,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::enroll::refusal;
use super::peer::{Peer, Transport};
use super::stopped;
use crate::fleet::Fleet;
use crate::fleet::ca::NodeCertificate;
use crate::runtime::Runtime;
use crate::runtime::links::LinkId;
use crate::runtime::orders::{Failure, Order, Outcome};
use crate::store::StoreError;

/// How long a runner may take to introduce itself.
const HELLO: Duration = Duration::from_secs(10);
/// How long a message may wait for a runner that does not read.
const SEND: Duration = Duration::from_secs(30);
/// How often a stream looks whether its runner was revoked.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written that a runner is there.
const SEEN: Duration = Duration::from_secs(15);
/// Containers of one list.
const MAX_CELLS: usize = 10_000;

type Outbox = mpsc::Sender<Result<ControlMessage, Status>>;
type Answer = oneshot::Sender<Result<Outcome, Failure>>;

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) transport: Transport,
    pub(super) stop: watch::Receiver<bool>,
}

#[async_trait]
impl RunnerService for Service {
    type WorkStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let EnrollRequest { token, runner_id, csr_der, software_version } = request.into_inner();
        let certificate = match self.transport {
            Transport::Local => self.fleet.enroll_local_runner(&runner_id, &software_version).await.map(|()| None),
            Transport::Tls => self.fleet.enroll_runner(&runner_id, &token, &csr_der, &software_version).await.map(Some),
        };
        Ok(self.answer(certificate.map_err(|error| refusal(&error))?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrollResponse>, Status> {
        let peer = Peer::of(self.transport, &request);
        let RenewRequest { runner_id, csr_der } = request.into_inner();
        peer.check_runner(&runner_id)?;
        let certificate = match peer {
            Peer::Local => self.fleet.enroll_local_runner(&runner_id, "").await.map(|()| None),
            _ => self.fleet.renew_runner(&runner_id, &csr_der).await.map(Some),
        };
        Ok(self.answer(certificate.map_err(|error| refusal(&error))?))
    }

    async fn work(&self, request: Request<Streaming<RunnerMessage>>) -> Result<Response<Self::WorkStream>, Status> {
        let peer = Peer::of(self.transport, &request);
        if peer == Peer::Stranger {
            peer.check_runner("")?;
        }
        let (outbox, stream) = mpsc::channel(1);
        let (fleet, runtime, stop) = (Arc::clone(&self.fleet), Arc::clone(&self.runtime), self.stop.clone());
        let inbound = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = serve(&fleet, &runtime, &peer, inbound, &outbox, stop).await {
                tracing::debug!(code = ?status.code(), "a runner's stream ended");
                let _ = timeout(SEND, outbox.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Service {
    fn answer(&self, certificate: Option<NodeCertificate>) -> Response<EnrollResponse> {
        let ca_pem = if certificate.is_some() { self.fleet.ca_pem().to_owned() } else { String::new() };
        let (certificate_pem, expires_at) = certificate.map(|made| (made.pem, made.expires_at)).unwrap_or_default();
        Response::new(EnrollResponse { certificate_pem, ca_pem, certificate_expires_at_micros: expires_at })
    }
}

/// Leaves the registry when the stream ends, however it ends; who waits for an
/// answer is told with it.
struct Connected<'a> {
    runtime: &'a Runtime,
    runner_id: String,
    software: String,
    link: LinkId,
    last: u64,
    pending: HashMap<u64, (Answer, Instant)>,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.runtime.links.disconnect(&self.runner_id, self.link);
        self.runtime.wake();
    }
}

async fn serve(
    fleet: &Fleet,
    runtime: &Runtime,
    peer: &Peer,
    mut inbound: Streaming<RunnerMessage>,
    outbox: &Outbox,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Status> {
    let first = timeout(HELLO, inbound.message()).await.map_err(|_| Status::deadline_exceeded("no hello came"))??;
    let Some(Kind::Hello(hello)) = first.and_then(|message| message.kind) else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    peer.check_runner(&hello.runner_id)?;
    may_work(fleet, &hello.runner_id).await?;
    let runner_id = hello.runner_id.clone();
    let (connected, queue) = connect(runtime, hello).await?;
    let ended = talk(fleet, connected, (&mut inbound, queue), outbox, &mut stop).await;
    if let Err(error) = runtime.runner_left(&runner_id).await {
        tracing::warn!(%error, "it was not written that a runner left");
    }
    runtime.wake();
    ended
}

/// Until one side ends it.
async fn talk(
    fleet: &Fleet,
    mut connected: Connected<'_>,
    (inbound, mut queue): (&mut Streaming<RunnerMessage>, mpsc::Receiver<Order>),
    outbox: &Outbox,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Status> {
    let runtime = connected.runtime;
    let welcome = Welcome { installation: runtime.installation().to_owned(), bot_pool: runtime.pool().to_string() };
    send(outbox, control_message::Kind::Welcome(welcome)).await?;
    let (mut look, mut seen) = (tokio::time::interval(LOOK), tokio::time::interval(SEEN));
    loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(message)) => connected.take(message).await.map_err(|error| unavailable(&error))?,
                Ok(None) | Err(_) => return Ok(()),
            },
            order = queue.recv() => match order {
                Some(order) => {
                    let order = connected.note(order);
                    send(outbox, control_message::Kind::Order(order)).await?;
                }
                // Another stream of the same runner took its place, or it was revoked.
                None => return Err(Status::aborted("this stream is no longer the runner's")),
            },
            _ = look.tick() => {
                connected.forget_late();
                match may_work(fleet, &connected.runner_id).await {
                    Err(status) if status.code() == tonic::Code::PermissionDenied => return Err(status),
                    // A database that is away for a moment is no reason to part.
                    _ => {}
                }
            }
            _ = seen.tick() => if let Err(error) = runtime.runner_seen(&connected.runner_id).await {
                tracing::warn!(%error, "it was not written that a runner is there");
            },
            () = stopped(stop) => return Err(Status::unavailable("the control plane stops")),
        }
    }
}

async fn may_work(fleet: &Fleet, runner_id: &str) -> Result<(), Status> {
    match fleet.runner_may_work(runner_id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Status::permission_denied("this runner is not enrolled, or was revoked")),
        Err(error) => Err(unavailable(&error)),
    }
}

fn unavailable(cause: &StoreError) -> Status {
    tracing::warn!(%cause, "the database did not take what a runner said");
    Status::unavailable("the database is not available now")
}

async fn connect<'a>(runtime: &'a Runtime, hello: Hello) -> Result<(Connected<'a>, mpsc::Receiver<Order>), Status> {
    let told = hello.facts.unwrap_or_default();
    let (facts, row) = wire::facts(&hello.runner_id, &hello.software_version, told, clock::now_micros());
    runtime.runner_told(&row).await.map_err(|error| unavailable(&error))?;
    let (link, queue) = runtime.links.connect(&hello.runner_id, facts);
    let connected = Connected {
        runtime,
        runner_id: hello.runner_id,
        software: hello.software_version,
        link,
        last: 0,
        pending: HashMap::new(),
    };
    Ok((connected, queue))
}

impl Connected<'_> {
    /// Remembers who waits for the answer.
    fn note(&mut self, order: Order) -> clawgate_shared::proto::runner::Order {
        self.last += 1;
        let told = wire::order(self.last, &order);
        self.pending.insert(self.last, (order.answer, Instant::now() + order.within));
        told
    }

    /// Nobody waits any more for what should have been answered long ago.
    fn forget_late(&mut self) {
        self.pending.retain(|_, (answer, _)| !answer.is_closed());
    }

    async fn take(&mut self, message: RunnerMessage) -> Result<(), StoreError> {
        let links = &self.runtime.links;
        match message.kind {
            Some(Kind::Facts(told)) => {
                let (facts, row) = wire::facts(&self.runner_id, &self.software, told, clock::now_micros());
                links.set_facts(&self.runner_id, self.link, facts);
                self.runtime.runner_told(&row).await?;
            }
            Some(Kind::List(list)) => {
                let cells = list.cells.into_iter().take(MAX_CELLS).filter_map(wire::marked).collect();
                links.set_list(&self.runner_id, self.link, cells);
            }
            Some(Kind::Change(change)) => {
                let event = change.event;
                match change.cell {
                    Some(cell) if change.gone => links.drop_cell(&self.runner_id, self.link, &cell.bot_id),
                    Some(cell) => {
                        let Some(marked) = wire::marked(cell) else { return Ok(()) };
                        let (bot_id, code) = (marked.bot_id.clone(), marked.cell.exit_code);
                        links.set_cell(&self.runner_id, self.link, marked);
                        self.runtime.engine_said(&self.runner_id, &bot_id, &event, code).await?;
                    }
                    None => {}
                }
            }
            Some(Kind::Result(result)) => {
                if let Some((answer, _)) = self.pending.remove(&result.order_id) {
                    // Who asked may have given up.
                    let _ = answer.send(wire::outcome(result));
                }
            }
            Some(Kind::Stats(stats)) => {
                let minutes = stats.minutes.iter().take(MAX_CELLS);
                let minutes = minutes.map(|told| (told.bot_id.clone(), wire::minute(told))).collect::<Vec<_>>();
                self.runtime.minutes(&self.runner_id, &minutes).await?;
            }
            // A second hello, or what a later release says.
            Some(Kind::Hello(_)) | None => return Ok(()),
        }
        self.runtime.wake();
        Ok(())
    }
}

async fn send(outbox: &Outbox, kind: control_message::Kind) -> Result<(), Status> {
    match timeout(SEND, outbox.send(Ok(ControlMessage { kind: Some(kind) }))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the runner closed the stream")),
        Err(_) => Err(Status::deadline_exceeded("the runner does not read")),
    }
}

#[cfg(test)]
mod tests;
