//! The sync client against a small control plane in the same process, over the
//! Unix socket and over mutual TLS.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clawgate_shared::clock;
use clawgate_shared::content::Content;
use clawgate_shared::proto::node::config_sync_server::{ConfigSync, ConfigSyncServer};
use clawgate_shared::proto::node::fleet_server::{Fleet, FleetServer};
use clawgate_shared::proto::node::{
    ControlMessage, EnrollRequest, EnrollResponse, NodeMessage, NodeStatus, RenewRequest, Resource, Tenant, Update,
    Version, control_message, node_message, resource::Body,
};
use clawgate_shared::seal::SealingKey;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::transport::{Certificate, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::*;
use crate::snapshot::cache::Cache;

const SECRET: &str = "cge_right";
const HOUR: i64 = 3_600_000_000;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signs").pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

struct Inner {
    revoked: AtomicBool,
    ca: Ca,
    sealing_key: Mutex<SealingKey>,
    heard: Mutex<Vec<node_message::Kind>>,
    streams: Mutex<Vec<mpsc::Sender<Result<ControlMessage, Status>>>>,
    enrolled: AtomicUsize,
    over_tls: bool,
}

#[derive(Clone)]
struct Plane(Arc<Inner>);

impl Plane {
    fn new(over_tls: bool) -> Self {
        Self(Arc::new(Inner {
            ca: ca(),
            sealing_key: Mutex::new(SealingKey::generate().expect("random")),
            heard: Mutex::default(),
            streams: Mutex::default(),
            enrolled: AtomicUsize::new(0),
            revoked: AtomicBool::new(false),
            over_tls,
        }))
    }

    fn heard(&self) -> Vec<node_message::Kind> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, wanted: impl Fn(&node_message::Kind) -> bool) -> usize {
        self.heard().iter().filter(|kind| wanted(kind)).count()
    }

    fn haves(&self) -> Vec<Option<u64>> {
        let revision = |kind| match kind {
            node_message::Kind::Hello(hello) => Some(hello.have.map(|version: Version| version.revision)),
            _ => None,
        };
        self.heard().into_iter().filter_map(revision).collect()
    }

    async fn send(&self, update: Update) {
        let stream = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner).last().cloned().expect("a stream");
        let message = ControlMessage { kind: Some(control_message::Kind::Update(update)) };
        stream.send(Ok(message)).await.expect("sends");
    }

    fn answer(&self, csr_der: &[u8]) -> EnrollResponse {
        self.0.enrolled.fetch_add(1, Ordering::SeqCst);
        let key = self.0.sealing_key.lock().expect("lock").expose().to_vec();
        if csr_der.is_empty() {
            return EnrollResponse { sealing_key: key, ..EnrollResponse::default() };
        }
        let csr = CertificateSigningRequestParams::from_der(&csr_der.to_vec().into()).expect("a request");
        EnrollResponse {
            certificate_pem: csr.signed_by(&self.0.ca.issuer).expect("signs").pem(),
            ca_pem: self.0.ca.pem.clone(),
            sealing_key: key,
            certificate_expires_at_micros: clock::now_micros() + HOUR,
        }
    }

    fn serve_unix(&self, socket: &Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("binds");
        let router = Server::builder()
            .add_service(FleetServer::new(self.clone()))
            .add_service(ConfigSyncServer::new(self.clone()));
        tokio::spawn(async move {
            router.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("serves");
        })
    }

    async fn serve_tls(&self) -> (String, JoinHandle<()>) {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec!["clawgate-control".to_owned()]).expect("params");
        let pem = params.signed_by(&key, &self.0.ca.issuer).expect("signs").pem();
        let tls = ServerTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(pem, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(&self.0.ca.pem))
            .client_auth_optional(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = format!("https://{}", listener.local_addr().expect("address"));
        let router = Server::builder()
            .tls_config(tls)
            .expect("tls")
            .add_service(FleetServer::new(self.clone()))
            .add_service(ConfigSyncServer::new(self.clone()));
        let serve = async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves");
        };
        (address, tokio::spawn(serve))
    }
}

#[tonic::async_trait]
impl Fleet for Plane {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if self.0.over_tls && request.token != SECRET {
            return Err(Status::unauthenticated("this token is not known"));
        }
        Ok(Response::new(self.answer(&request.csr_der)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrollResponse>, Status> {
        if request.peer_certs().is_none_or(|certificates| certificates.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        Ok(Response::new(self.answer(&request.into_inner().csr_der)))
    }
}

#[tonic::async_trait]
impl ConfigSync for Plane {
    type SubscribeStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        if self.0.over_tls && request.peer_certs().is_none_or(|certificates| certificates.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let (sender, receiver) = mpsc::channel(4);
        if self.0.revoked.load(Ordering::SeqCst) {
            sender.send(Err(Status::permission_denied("revoked"))).await.expect("sends");
        }
        self.0.streams.lock().expect("lock").push(sender);
        let (this, mut inbox) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbox.message().await {
                this.0.heard.lock().expect("lock").extend(message.kind);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Node {
    data: PathBuf,
    state: Arc<SyncState>,
    identity: Arc<IdentityCell>,
    channel: Arc<ControlChannel>,
    restored: bool,
    task: JoinHandle<Result<std::convert::Infallible, EnrollError>>,
}

/// A node whose configurations are good unless a tenant is called `poison`.
fn node(data: &Path, target: &str, token: Option<&str>) -> Node {
    let identity = Arc::new(IdentityCell::open(data).expect("opens"));
    let channel = ControlChannel::new(target.parse().expect("target"));
    let state = Arc::new(SyncState::default());
    let activate: Activate = Arc::new(|content, _, _| {
        let poisoned = content.iter().any(|resource| resource.id == "poison");
        if poisoned { Err(vec!["poisoned".to_owned()]) } else { Ok(()) }
    });
    let mut client = SyncClient::new(SyncParts {
        identity: identity.clone(),
        channel: channel.clone(),
        enroll_token: token.map(|text| Zeroizing::new(text.to_owned())),
        activate,
        cache: Arc::new(Cache::open(&data.join("config")).expect("opens")),
        state: state.clone(),
        status: Arc::new(NodeStatus::default),
        peers: Arc::new(|_| {}),
        key_states: Arc::new(|_| {}),
        key_news: Arc::default(),
        instance_id: "instance_1".to_owned(),
        software_version: "1".to_owned(),
    });
    let restored = client.restore();
    Node { data: data.to_owned(), state, identity, channel, restored, task: tokio::spawn(client.run()) }
}

impl Node {
    fn revision(&self) -> Option<u64> {
        self.state.version().map(|version| version.revision)
    }
}

fn update(revision: u64, ids: &[&str]) -> Update {
    let mut content = Content::default();
    for id in ids {
        let body = Body::Tenant(Tenant { slug: (*id).to_owned(), ..Tenant::default() });
        content.upsert(Resource { id: (*id).to_owned(), body: Some(body) }).expect("known kind");
    }
    let version = Version { generation: 1, revision, hash: content.hash() };
    Update { version: Some(version), upserts: content.iter().cloned().collect(), ..Update::default() }
}

fn token_text(ca_pem: &str, secret: &str) -> String {
    format!("cge1_{}", URL_SAFE_NO_PAD.encode(serde_json::json!({ "t": secret, "ca": ca_pem }).to_string()))
}

/// Waits for a condition; fails after 20 s.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not happen");
        sleep(Duration::from_millis(5)).await;
    }
}

fn is_ack(kind: &node_message::Kind) -> bool {
    matches!(kind, node_message::Kind::Ack(_))
}

fn is_nack(kind: &node_message::Kind) -> bool {
    matches!(kind, node_message::Kind::Nack(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_are_taken_refused_and_survive_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("c.sock");
    let target = format!("unix:{}", socket.display());
    let node_dir = dir.path().join("node");
    let first = node(&node_dir, &target, None);
    assert!(!first.restored);
    // The control plane comes later than the node.
    let plane = Plane::new(false);
    let server = plane.serve_unix(&socket);
    until("a stream", || first.state.connected()).await;
    plane.send(update(1, &["ten_1"])).await;
    until("the acknowledgement", || plane.count(is_ack) == 1).await;
    assert_eq!((first.revision(), plane.haves()), (Some(1), vec![None]));
    plane.send(update(2, &["ten_1", "poison"])).await;
    until("the refusal", || plane.count(is_nack) == 1).await;
    assert_eq!((first.revision(), first.state.nacks()), (Some(1), 1));
    plane.send(update(3, &["ten_1", "ten_2"])).await;
    until("the next acknowledgement", || plane.count(is_ack) == 2).await;
    until("a status report", || plane.count(|kind| matches!(kind, node_message::Kind::Status(_))) > 0).await;
    let id = first.identity.node_id().to_owned();
    first.task.abort();
    server.abort();
    let _ = (first.task.await, server.await);
    // Nobody is there: the node serves what it had.
    std::fs::remove_file(&socket).expect("removes");
    let second = node(&first.data, &target, None);
    assert!(second.restored);
    assert_eq!((second.revision(), second.state.connected()), (Some(3), false));
    assert_eq!(second.identity.node_id(), id);
    assert!(second.state.last_contact_micros() > 0);
    let _server = plane.serve_unix(&socket);
    until("a stream again", || second.state.connected()).await;
    until("what it has", || plane.haves().last() == Some(&Some(3))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_stream_comes_back_and_a_disagreement_asks_for_everything() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("c.sock");
    let plane = Plane::new(false);
    let _server = plane.serve_unix(&socket);
    let node = node(&dir.path().join("node"), &format!("unix:{}", socket.display()), None);
    until("a stream", || node.state.connected()).await;
    plane.send(update(1, &["ten_1"])).await;
    until("the acknowledgement", || plane.count(is_ack) == 1).await;
    // The stream ends; the node comes back with what it has.
    plane.0.streams.lock().expect("lock").clear();
    until("a second greeting", || plane.haves().len() == 2).await;
    assert_eq!(plane.haves(), [None, Some(1)]);
    until("a stream", || node.state.connected() && !plane.0.streams.lock().expect("lock").is_empty()).await;
    // A change against something else: refused, and then asked for in full.
    let foreign = Version { generation: 1, revision: 7, hash: "0".repeat(64) };
    plane.send(Update { base: Some(foreign), ..update(8, &["ten_9"]) }).await;
    until("a third greeting", || plane.haves().len() == 3).await;
    assert_eq!(plane.haves()[2], None);
    assert_eq!((node.revision(), plane.count(is_nack)), (Some(1), 1));
    until("a stream", || node.state.connected()).await;
    plane.send(update(9, &["ten_9"])).await;
    until("the full snapshot", || node.revision() == Some(9)).await;
    assert_eq!(plane.0.enrolled.load(Ordering::SeqCst), 1, "it introduces itself once per process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_not_in_contact() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("c.sock");
    let plane = Plane::new(false);
    plane.0.revoked.store(true, Ordering::SeqCst);
    let _server = plane.serve_unix(&socket);
    let node = node(&dir.path().join("node"), &format!("unix:{}", socket.display()), None);
    until("three refusals", || plane.haves().len() >= 3).await;
    assert_eq!((node.state.connected(), node.state.last_contact_micros()), (false, 0));
    plane.0.revoked.store(false, Ordering::SeqCst);
    until("a stream", || node.state.connected()).await;
    assert!(node.state.last_contact_micros() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_control_plane_behind_the_same_socket_is_followed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (socket, data) = (dir.path().join("c.sock"), dir.path().join("node"));
    let target = format!("unix:{}", socket.display());
    let old = Plane::new(false);
    let server = old.serve_unix(&socket);
    let first = node(&data, &target, None);
    until("a stream", || first.state.connected()).await;
    old.send(update(50, &["ten_1"])).await;
    until("the acknowledgement", || old.count(is_ack) == 1).await;
    first.task.abort();
    server.abort();
    let _ = (first.task.await, server.await);
    let new = Plane::new(false);
    let _server = new.serve_unix(&socket);
    let second = node(&data, &target, None);
    assert!(second.restored);
    until("a stream", || second.state.connected()).await;
    until("a greeting", || !new.haves().is_empty()).await;
    assert_eq!(new.haves(), [None], "its revisions are another control plane's");
    new.send(update(2, &["ten_2"])).await;
    until("the lower revision", || second.revision() == Some(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_enrols_over_tls_with_a_token_and_then_shows_its_certificate() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let plane = Plane::new(true);
    let (target, _server) = plane.serve_tls().await;
    let refused = node(&dir.path().join("a"), &target, Some(&token_text(&plane.0.ca.pem, "cge_wrong")));
    let error = refused.task.await.expect("runs").expect_err("refused");
    assert!(matches!(error, EnrollError::Refused(_)), "{error}");
    assert!(!error.to_string().contains("cge_wrong"));
    let other_ca = ca();
    let away = node(&dir.path().join("b"), &target, Some(&token_text(&other_ca.pem, SECRET)));
    let node = node(&dir.path().join("c"), &target, Some(&token_text(&plane.0.ca.pem, SECRET)));
    until("a stream", || node.state.connected()).await;
    plane.send(update(1, &["ten_1"])).await;
    until("the acknowledgement", || plane.count(is_ack) == 1).await;
    // Renewal needs the certificate and keeps the sealing key.
    let before = node.identity.load().expect("enrolled");
    let tls = before.tls.clone().expect("has a certificate");
    let channel = node.channel.get().expect("connected");
    let after = node.identity.renew(channel, &tls).await.expect("renews");
    assert_ne!(after.tls.as_ref().expect("has a certificate").certificate_pem, tls.certificate_pem);
    assert_eq!(after.sealing_key.expose(), before.sealing_key.expose());
    node.channel.connect(after.tls.as_ref()).expect("uses it");
    // A server that another authority vouches for is never told the token.
    assert!(!away.state.connected() && away.identity.load().is_none());
    assert_eq!(plane.0.enrolled.load(Ordering::SeqCst), 2);
    // Saved: the next start needs no token, and no control plane.
    let again = Identity::load_or_enroll(&dir.path().join("c"), node.channel.target(), None).await.expect("saved");
    assert_eq!(again.sealing_key.expose(), before.sealing_key.expose());
    away.task.abort();
}
