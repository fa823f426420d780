//! The door, with real sockets and real TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use clawgate_shared::content::{Change, Content};
use clawgate_shared::id;
use clawgate_shared::proto::node::config_sync_client::ConfigSyncClient;
use clawgate_shared::proto::node::fleet_client::FleetClient;
use clawgate_shared::proto::node::quota_leases_client::QuotaLeasesClient;
use clawgate_shared::proto::node::usage_ingest_client::UsageIngestClient;
use clawgate_shared::proto::node::{
    Ack, ControlMessage, EnrollRequest, EnrollResponse, Hello, LeaseClaim, LeaseReply, LeaseRequest, Nack, NodeMessage,
    NodeStatus, RenewRequest, ShipRequest, Update, Version, control_message, node_message::Kind,
};
use clawgate_shared::seal::{Sealed, SealingKey, SecretBinding};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Streaming};

use super::*;
use crate::fleet::ca::SERVER_NAME;
use crate::fleet::testing::{BINDING, Plane, SECRET};

const PATIENCE: Duration = Duration::from_secs(20);

fn node_id() -> String {
    id::new(id::Kind::Node)
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).expect("request").der().to_vec()
}

/// The secret and the certificate in an enrolment token.
fn parts(text: &str) -> (String, String) {
    let json = text.strip_prefix("cge1_").expect("prefix");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(json).expect("base64url");
    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    (value["t"].as_str().expect("secret").into(), value["ca"].as_str().expect("certificate").into())
}

async fn minted(plane: &Plane) -> (String, String) {
    let mut tx = plane.db.begin().await.expect("begins");
    let token = plane.fleet.mint_enroll_token(&mut tx, crate::fleet::EnrollKind::Node, "test").await.expect("mints");
    tx.commit().await.expect("commits");
    parts(&token.text)
}

async fn tls_address(plane: &Plane) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    tokio::spawn(serve_mtls(listener, (plane.fleet.clone(), plane.runtime().await), plane.stop()));
    address
}

async fn dial(address: std::net::SocketAddr, ca: &str, identity: Option<(&str, &KeyPair)>) -> Channel {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(SERVER_NAME);
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key.serialize_pem()));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("address").tls_config(tls).expect("tls");
    endpoint.connect().await.expect("connects")
}

async fn unix_channel(plane: &Plane) -> Channel {
    let path = plane.path("grpc.sock");
    tokio::spawn({
        let (path, fleet, stop) = (path.clone(), (plane.fleet.clone(), plane.runtime().await), plane.stop());
        async move { serve_unix(&path, fleet, stop).await }
    });
    dial_unix(&path).await
}

async fn dial_unix(path: &Path) -> Channel {
    let uri = format!("unix://{}", path.display());
    let waiting = async {
        loop {
            match Endpoint::from_shared(uri.clone()).expect("address").connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the socket answers")
}

async fn enroll(channel: Channel, node: &str, token: &str, csr_der: Vec<u8>) -> Result<EnrollResponse, Code> {
    let request =
        EnrollRequest { token: token.into(), node_id: node.into(), csr_der, software_version: "0.1.0".into() };
    FleetClient::new(channel).enroll(request).await.map(tonic::Response::into_inner).map_err(|s| s.code())
}

async fn ship(channel: Channel, node: &str) -> Result<u64, Code> {
    let request = ShipRequest { node_id: node.into(), instance_id: "i".into(), epoch: 1, ..ShipRequest::default() };
    UsageIngestClient::new(channel).ship(request).await.map(|r| r.into_inner().next_position).map_err(|s| s.code())
}

#[tokio::test]
async fn a_node_enrols_once_and_speaks_only_for_itself() {
    let plane = Plane::new().await;
    let address = tls_address(&plane).await;
    let ((token, ca), node, key) = (minted(&plane).await, node_id(), KeyPair::generate().expect("key"));
    let stranger = dial(address, &ca, None).await;
    assert_eq!(ship(stranger.clone(), &node).await, Err(Code::Unauthenticated));
    let bad = [("", Code::Unauthenticated), ("cge_x", Code::Unauthenticated)];
    for (wrong, code) in bad {
        assert_eq!(enroll(stranger.clone(), &node, wrong, csr(&key)).await.err(), Some(code), "{wrong}");
    }
    let unknown = clawgate_shared::token::mint(clawgate_shared::token::TokenKind::Enroll).expect("random");
    assert_eq!(enroll(stranger.clone(), &node, &unknown, csr(&key)).await.err(), Some(Code::Unauthenticated));
    assert_eq!(enroll(stranger.clone(), "me", &token, csr(&key)).await.err(), Some(Code::InvalidArgument));
    assert_eq!(enroll(stranger.clone(), &node, &token, vec![1]).await.err(), Some(Code::InvalidArgument));

    let first = enroll(stranger.clone(), &node, &token, csr(&key)).await.expect("enrols");
    let again = enroll(stranger.clone(), &node, &token, csr(&key)).await.expect("the answer may be lost");
    assert_eq!((first.sealing_key.len(), &first.sealing_key), (32, &again.sealing_key));
    assert_eq!(first.ca_pem, ca);
    let thief = KeyPair::generate().expect("key");
    assert_eq!(enroll(stranger.clone(), &node, &token, csr(&thief)).await.err(), Some(Code::PermissionDenied));
    assert_eq!(enroll(stranger.clone(), &node_id(), &token, csr(&key)).await.err(), Some(Code::PermissionDenied));
    // Another token does not make another key pair this node.
    let (second, _) = minted(&plane).await;
    assert_eq!(enroll(stranger, &node, &second, csr(&thief)).await.err(), Some(Code::AlreadyExists));

    let channel = dial(address, &ca, Some((&first.certificate_pem, &key))).await;
    assert_eq!(ship(channel.clone(), &node).await, Ok(0));
    assert_eq!(ship(channel.clone(), &node_id()).await, Err(Code::PermissionDenied));
    let renew = |node: &str| RenewRequest { node_id: node.into(), csr_der: csr(&key) };
    let mut client = FleetClient::new(channel);
    let renewed = client.renew(renew(&node)).await.expect("renews").into_inner();
    assert_eq!(renewed.sealing_key, first.sealing_key);
    assert_eq!(client.renew(renew(&node_id())).await.map_err(|s| s.code()).err(), Some(Code::PermissionDenied));
    let channel = dial(address, &ca, Some((&renewed.certificate_pem, &key))).await;
    assert_eq!(ship(channel, &node).await, Ok(0));
}

async fn trade(channel: Channel, node: &str, claims: Vec<LeaseClaim>) -> Result<LeaseReply, Code> {
    let request = LeaseRequest { node_id: node.into(), epoch: 1, instance_id: "i".into(), claims };
    QuotaLeasesClient::new(channel).trade(request).await.map(tonic::Response::into_inner).map_err(|s| s.code())
}

#[tokio::test]
async fn a_node_trades_for_itself_until_it_is_revoked() {
    let plane = Plane::new().await;
    let address = tls_address(&plane).await;
    let ((token, ca), node, key) = (minted(&plane).await, node_id(), KeyPair::generate().expect("key"));
    let stranger = dial(address, &ca, None).await;
    assert_eq!(trade(stranger.clone(), &node, Vec::new()).await.err(), Some(Code::Unauthenticated));
    let enrolled = enroll(stranger, &node, &token, csr(&key)).await.expect("enrols");
    let channel = dial(address, &ca, Some((&enrolled.certificate_pem, &key))).await;
    assert_eq!(trade(channel.clone(), &node_id(), Vec::new()).await.err(), Some(Code::PermissionDenied));
    let claim = LeaseClaim { quota_id: id::new(id::Kind::Quota), want: 5, ..LeaseClaim::default() };
    let reply = trade(channel.clone(), &node, vec![claim.clone()]).await.expect("answers");
    assert!(reply.leases.len() == 1 && reply.leases[0].gone && reply.leases[0].quota_id == claim.quota_id);
    assert!(reply.usable_millis == 780_000 && reply.control_time_micros > 0);
    let many = vec![claim; 4097];
    assert_eq!(trade(channel.clone(), &node, many).await.err(), Some(Code::InvalidArgument));
    let mut tx = plane.db.begin().await.expect("begins");
    assert!(crate::store::nodes::revoke(&mut tx, &node, 1).await.expect("revokes"));
    tx.commit().await.expect("commits");
    assert_eq!(trade(channel, &node, Vec::new()).await.err(), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_worth_nothing() {
    let (plane, other) = (Plane::new().await, Plane::new().await);
    let (address, elsewhere) = (tls_address(&plane).await, tls_address(&other).await);
    let ((token, ca), node, key) = (minted(&other).await, node_id(), KeyPair::generate().expect("key"));
    let foreign = enroll(dial(elsewhere, &ca, None).await, &node, &token, csr(&key)).await.expect("enrols");
    let (_, ours) = minted(&plane).await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ours))
        .domain_name(SERVER_NAME)
        .identity(Identity::from_pem(&foreign.certificate_pem, key.serialize_pem()));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("address").tls_config(tls).expect("tls");
    // TLS 1.3 tells the client after its handshake: one of the two fails.
    if let Ok(channel) = endpoint.connect().await {
        assert!(ship(channel, &node).await.is_err());
    }
    // And a server that is not ours is not trusted by a node that pins ours.
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours)).domain_name(SERVER_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{elsewhere}")).expect("address");
    assert!(endpoint.tls_config(tls).expect("tls").connect().await.is_err());
}

#[tokio::test]
async fn the_socket_is_private_and_replaced_only_when_nobody_listens() {
    let plane = Plane::new().await;
    let path = plane.path("grpc.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a leftover"));
    let channel = unix_channel(&plane).await;
    assert_eq!(std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
    let second = serve_unix(&path, (plane.fleet.clone(), plane.runtime().await), plane.stop()).await;
    assert!(matches!(second, Err(ServeError::InUse(_))));
    let node = node_id();
    let one = enroll(channel.clone(), &node, "", Vec::new()).await.expect("the socket is the right");
    let two = enroll(channel.clone(), &node, "", Vec::new()).await.expect("again");
    assert_eq!((one.sealing_key, one.certificate_pem), (two.sealing_key, String::new()));
    assert_eq!(ship(channel, &node).await, Ok(0));
}

/// A node that applies updates as a real one does.
struct Node {
    id: String,
    key: SealingKey,
    out: mpsc::Sender<NodeMessage>,
    inbound: Streaming<ControlMessage>,
    content: Content,
    version: Option<Version>,
}

impl Node {
    async fn enrolled(channel: &Channel) -> (String, SealingKey) {
        let id = node_id();
        let answer = enroll(channel.clone(), &id, "", Vec::new()).await.expect("enrols");
        (id, SealingKey::from_slice(&answer.sealing_key).expect("32 bytes"))
    }

    async fn connect(channel: &Channel, id: &str, key: SealingKey, have: Option<(Content, Version)>) -> Self {
        let (out, outbox) = mpsc::channel(8);
        let (content, version) = have.unzip();
        let hello = Hello {
            node_id: id.into(),
            instance_id: "i".into(),
            software_version: "0.1.0".into(),
            have: version.clone(),
        };
        out.send(NodeMessage { kind: Some(Kind::Hello(hello)) }).await.expect("sends");
        let outbox = tokio_stream::wrappers::ReceiverStream::new(outbox);
        let client = ConfigSyncClient::new(channel.clone()).max_decoding_message_size(64 << 20).subscribe(outbox).await;
        let inbound = client.expect("subscribes").into_inner();
        Self { id: id.into(), key, out, inbound, content: content.unwrap_or_default(), version }
    }

    async fn update(&mut self) -> Update {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("an update comes");
            match message.expect("no error").and_then(|message| message.kind) {
                Some(control_message::Kind::Update(update)) => return update,
                Some(control_message::Kind::Peers(_) | control_message::Kind::KeyStates(_)) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    /// Takes the update over, checks its hash, acks.
    async fn take(&mut self, update: Update) {
        assert_eq!(update.base.is_some(), self.version.is_some());
        if update.base.is_none() {
            self.content = Content::default();
        }
        assert_eq!(update.base, self.version);
        let change = Change { upserts: update.upserts, removals: update.removals };
        self.content.apply(change).expect("applies");
        let version = update.version.expect("version");
        assert_eq!(self.content.hash(), version.hash);
        self.version = Some(version.clone());
        self.say(Kind::Ack(Ack { version: Some(version) })).await;
    }

    async fn refuse(&mut self, update: Update) {
        self.say(Kind::Nack(Nack { version: update.version, reasons: vec!["it is bad".into()] })).await;
    }

    async fn say(&self, kind: Kind) {
        self.out.send(NodeMessage { kind: Some(kind) }).await.expect("sends");
    }
}

#[tokio::test]
async fn full_then_deltas_and_a_write_waits_for_the_nodes() {
    let plane = Plane::new().await;
    let channel = unix_channel(&plane).await;
    let (id, key) = Node::enrolled(&channel).await;
    let mut node = Node::connect(&channel, &id, key, None).await;
    let full = node.update().await;
    assert_eq!((full.base.is_none(), full.upserts.len(), full.secrets.len()), (true, 4, 1));
    // The secret opens with this node's key, under its own binding only.
    let sent = Sealed::from_parts(&full.secrets[0].nonce, &full.secrets[0].ciphertext).expect("form");
    assert_eq!(node.key.open(&sent, &BINDING.aad()).expect("opens").as_slice(), SECRET.as_bytes());
    let moved = SecretBinding { origin: "https://evil.example:443", ..BINDING };
    assert!(node.key.open(&sent, &moved.aad()).is_err());
    assert!(SealingKey::generate().expect("random").open(&sent, &BINDING.aad()).is_err());
    node.take(full).await;

    let revision = plane.rename_bot("beta").await;
    let delta = node.update().await;
    assert_eq!((delta.upserts.len(), delta.removals.len(), delta.secrets.len()), (1, 0, 0));
    assert_eq!(plane.fleet.wait_rollout(revision, Duration::ZERO).await.pending, 1);
    let waiting = tokio::spawn({
        let fleet = plane.fleet.clone();
        async move { fleet.wait_rollout(revision, PATIENCE).await }
    });
    node.take(delta).await;
    assert_eq!(waiting.await.expect("ends").to_string(), "acked=1 nacked=0 pending=0 disconnected=0");

    // A revision without a change is announced, so that waits end.
    let revision = plane.bump().await;
    let empty = node.update().await;
    assert_eq!((empty.upserts.len(), empty.removals.len()), (0, 0));
    node.take(empty).await;
    assert!(plane.fleet.wait_rollout(revision, PATIENCE).await.complete());

    // A node that comes back with what it has gets the change only.
    let held = (node.content.clone(), node.version.clone().expect("holds"));
    let key = node.key.clone();
    drop(node);
    until(|| plane.fleet.rollout().counts(revision).disconnected == 1).await;
    let revision = plane.rename_bot("gamma").await;
    assert_eq!(plane.fleet.wait_rollout(revision, PATIENCE).await.disconnected, 1);
    let mut node = Node::connect(&channel, &id, key, Some(held)).await;
    let delta = node.update().await;
    assert_eq!(delta.upserts.len(), 1);
    node.take(delta).await;
    assert!(plane.fleet.wait_rollout(revision, PATIENCE).await.complete());
}

#[tokio::test]
async fn a_refused_snapshot_is_seen_and_the_next_good_one_is_taken() {
    let plane = Plane::new().await;
    let channel = unix_channel(&plane).await;
    let (id, key) = Node::enrolled(&channel).await;
    let mut node = Node::connect(&channel, &id, key, None).await;
    let full = node.update().await;
    node.take(full).await;
    until(|| plane.fleet.rollout().counts(1).acked == 1).await;
    plane.fleet.set_poison(true);
    let poisoned = node.update().await;
    node.refuse(poisoned).await;
    // A change that is refused is followed by the whole once.
    let whole = node.update().await;
    assert!(whole.base.is_none());
    node.refuse(whole).await;
    let status = NodeStatus { spool_records: 3, spool_oldest_millis: 1500, inflight: 2, ..NodeStatus::default() };
    node.say(Kind::Status(status)).await;
    until(|| plane.fleet.rollout().nodes().iter().any(|live| live.nack_reason.is_some() && live.status.inflight == 2))
        .await;
    let views = plane.fleet.list_nodes().await.expect("lists");
    let view = views.first().expect("one node");
    assert_eq!((view.id.as_str(), view.connected), (node.id.as_str(), true));
    assert_eq!(view.nack_reason.as_deref(), Some("it is bad"));
    assert_eq!(view.acked_version, node.version.as_ref().map(crate::fleet::short_version));
    assert_eq!((view.spool_backlog, view.inflight), (3, 2));
    assert!((view.spool_oldest_seconds - 1.5).abs() < 1e-9);
    let revision = plane.rename_bot("beta").await;
    let update = node.update().await;
    node.refuse(update).await;
    assert_eq!(plane.fleet.wait_rollout(revision, PATIENCE).await.nacked, 1);
    plane.fleet.set_poison(false);
    let good = node.update().await;
    assert!(good.base.is_none());
    node.version = None;
    node.take(good).await;
    until(|| plane.fleet.rollout().counts(revision).complete()).await;
    // States reach the table, for the next process of the control plane.
    let stored = async {
        loop {
            let view = plane.again().await.list_nodes().await.expect("lists").remove(0);
            if view.acked_revision == Some(revision) && view.nack_reason.is_none() && !view.connected {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, stored).await.expect("is written").spool_backlog, 3);
    assert_eq!(plane.again().await.rollout().counts(revision).disconnected, 1);
}

#[tokio::test]
async fn unknown_nodes_are_refused_and_streams_end_with_the_server() {
    let plane = Plane::new().await;
    let channel = unix_channel(&plane).await;
    let key = SealingKey::generate().expect("random");
    let mut stranger = Node::connect(&channel, &node_id(), key, None).await;
    assert_eq!(stranger.inbound.message().await.map_err(|s| s.code()), Err(Code::PermissionDenied));
    let (id, key) = Node::enrolled(&channel).await;
    let mut node = Node::connect(&channel, &id, key, None).await;
    let full = node.update().await;
    node.take(full).await;
    plane.shut_down();
    let ended = tokio::time::timeout(PATIENCE, node.inbound.message()).await.expect("the stream ends");
    assert!(ended.is_err() || ended.is_ok_and(|message| message.is_none()));
    until(|| !plane.path("grpc.sock").exists()).await;
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition comes true");
}
