//! A node in this process, a scripted vendor, and a client that writes bytes.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawgate_proxy::exchange::{BodyBudget, Drains, Inflight, Services, WhenFull};
use clawgate_proxy::limits::{Gates, Granted, Learned, Slices, Standing};
use clawgate_proxy::metering::{Spool, SpoolOptions};
use clawgate_proxy::routing::{Healths, Turns};
use clawgate_proxy::server::{Bound, Front, Gateway, Listener, SourcePolicy, TlsFiles, bind};
use clawgate_proxy::snapshot::{Handle, Inputs, Snapshot, compile};
use clawgate_proxy::telemetry::{AccessLog, Metrics, Traces};
use clawgate_proxy::upstream::{Client, Egress, Timeouts};
use clawgate_shared::content::Content;
use clawgate_shared::egress::PrivateUpstreams;
use clawgate_shared::proto::node::{self as wire, resource::Body};
use clawgate_shared::seal::{SealingKey, SecretBinding};
use clawgate_shared::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The bot's token in all of these tests.
pub const TOKEN: &str = "cgb_test-token";
/// What the vendor must see instead.
pub const SECRET: &str = "sk-provider-secret";

/// The bot's quotas, when it is counted, and what they count.
pub const QUOTAS: [(&str, &str); 2] = [("quo_1", "total_tokens"), ("quo_2", "requests")];
/// So much that nothing is ever refused.
const PLENTY: u64 = 1 << 40;

/// Longest any single wait of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// A running node.
pub struct Node {
    pub address: SocketAddr,
    pub services: Arc<Services>,
    pub front: Front,
    pub stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

pub struct Options {
    pub max_connections: usize,
    pub tls: Option<TlsFiles>,
    pub sources: SourcePolicy,
    pub idle: Duration,
    /// Globs; none: all.
    pub models: &'static [&'static str],
    pub when_full: WhenFull,
    pub spool: SpoolOptions,
    /// The bot has quotas, all of them leased here, rates, and one place.
    pub counted: bool,
    /// Answers are read to their end when the client goes.
    pub drains: bool,
    /// What is tried after model `m`.
    pub fallbacks: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 1000,
            tls: None,
            sources: SourcePolicy::Any,
            idle: Duration::from_secs(60),
            models: &[],
            when_full: WhenFull::Refuse,
            spool: SpoolOptions::default(),
            counted: false,
            drains: false,
            fallbacks: &[],
        }
    }
}

/// What a node is made of; its only provider key leads to `vendor`.
pub fn services(vendor: SocketAddr, options: &Options, dir: &Path) -> Services {
    let (slices, gates) = (Arc::<Slices>::default(), Arc::<Gates>::default());
    let handle = Arc::new(Handle::default());
    handle.swap(Arc::new(snapshot(vendor, options, &slices, &gates)));
    if options.counted {
        lease(&slices);
    }
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        write: Duration::from_secs(5),
        head: Duration::from_secs(20),
        idle: options.idle,
    };
    let spool = Spool::open(dir, options.spool.clone()).expect("spool");
    Services {
        snapshots: handle,
        client: Arc::new(Client::new(Egress::new(PrivateUpstreams::loopback(), timeouts.connect), timeouts)),
        key_news: Arc::default(),
        spool: Arc::new(spool),
        when_full: options.when_full,
        slices,
        learned: Learned::default(),
        makers: Arc::default(),
        gates,
        metrics: Arc::new(Metrics::new()),
        access: AccessLog::open("off").expect("no log"),
        traces: Traces::default(),
        config_age_secs: Arc::new(|| 0),
        inflight: Inflight::new(1000),
        pressure: Arc::default(),
        bodies: BodyBudget::new(1 << 20, 8 << 20),
        counting: Arc::default(),
        drains: Drains::default(),
    }
}

impl Node {
    /// A node whose only provider key leads to `vendor`.
    pub async fn start(vendor: SocketAddr, options: Options) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let services = Arc::new(services(vendor, &options, dir.path()));
        let bound = bind(&listener(options.tls, options.sources), None).expect("binds");
        let front = Front::new(Arc::new(Gateway::new(services.clone())), options.max_connections);
        let (stop, shutdown) = watch::channel(false);
        let address = bound.address;
        let (metrics, pressure) = (services.metrics.clone(), Some(services.pressure.clone()));
        let at = front.at(&bound);
        tokio::spawn(bound.run(at, metrics, pressure, shutdown));
        Self { address, services, front, stop, _dir: dir }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }
}

pub fn listener(tls: Option<TlsFiles>, sources: SourcePolicy) -> Listener {
    Listener { name: "data", address: "127.0.0.1:0".parse().expect("address"), sources, per_source: None, tls }
}

/// Runs a bound listener in a successor's stead.
pub fn run_successor(bound: Bound, front: &Front) -> watch::Sender<bool> {
    let (stop, shutdown) = watch::channel(false);
    let front = front.at(&bound);
    tokio::spawn(bound.run(front, Arc::new(Metrics::new()), None, shutdown));
    stop
}

fn quota(metric: &str) -> Body {
    Body::Quota(wire::Quota {
        tenant_id: "ten_1".into(),
        scope: "bot".into(),
        scope_id: "bot_1".into(),
        metric: metric.into(),
        window: "total".into(),
        limit: PLENTY,
        mode: "strict".into(),
        on_exceed: "refuse".into(),
        on_outage: "deny".into(),
        ..Default::default()
    })
}

fn snapshot(vendor: SocketAddr, options: &Options, slices: &Slices, gates: &Gates) -> Snapshot {
    let sealing_key = SealingKey::generate().expect("key");
    let base_url = format!("http://{vendor}/v1");
    let origin = format!("http://{vendor}");
    let binding =
        SecretBinding { tenant_id: "ten_1", key_id: "key_1", vendor: "openai", origin: &origin, secret_version: 1 };
    let sealed = sealing_key.seal(SECRET.as_bytes(), &binding.aad()).expect("seals");
    let secret = wire::SealedSecret {
        key_id: "key_1".into(),
        secret_version: 1,
        nonce: sealed.nonce.to_vec(),
        ciphertext: sealed.ciphertext,
    };
    let resource = |id: &str, body| wire::Resource { id: id.into(), body: Some(body) };
    let mut content = Content::default();
    let bodies = [
        ("ten_1", Body::Tenant(wire::Tenant { slug: "t".into(), time_zone: "UTC".into(), ..Default::default() })),
        (
            "key_1",
            Body::ProviderKey(wire::ProviderKey {
                tenant_id: "ten_1".into(),
                vendor: "openai".into(),
                base_url,
                secret_version: 1,
                enabled: true,
                weight: 1,
                ..Default::default()
            }),
        ),
        (
            "bot_1",
            Body::Bot(wire::Bot {
                tenant_id: "ten_1".into(),
                hostname: "b".into(),
                state: wire::BotState::Enabled.into(),
                allowed_models: options.models.iter().map(|&model| model.to_owned()).collect(),
                on_disconnect: if options.drains { "drain" } else { "cancel" }.into(),
                fallbacks: vec![chain(options.fallbacks)],
                default_max_tokens: 100,
                requests_per_minute: if options.counted { 1_000_000 } else { 0 },
                tokens_per_minute: if options.counted { PLENTY } else { 0 },
                max_concurrency: u32::from(options.counted),
                tokens: vec![wire::BotToken {
                    id: "tok_1".into(),
                    sha256: token::hash(TOKEN.as_bytes()).to_vec(),
                    expires_at_micros: 0,
                    network: String::new(),
                }],
                ..Default::default()
            }),
        ),
    ];
    for (id, body) in bodies {
        content.upsert(resource(id, body)).expect("known kind");
    }
    let quotas = QUOTAS.iter().filter(|_| options.counted);
    quotas.for_each(|(id, metric)| content.upsert(resource(id, quota(metric))).expect("known kind"));
    let secrets = HashMap::from([("key_1".to_owned(), secret)]);
    let version = wire::Version { generation: 1, revision: 1, hash: content.hash() };
    let (turns, healths) = (Turns::default(), Healths::default());
    let inputs =
        Inputs { sealing_key: &sealing_key, secrets: &secrets, turns: &turns, healths: &healths, slices, gates };
    compile(&content, &version, &inputs).expect("compiles")
}

/// What is tried after model `m`.
fn chain(to: &[&str]) -> wire::ModelFallback {
    wire::ModelFallback { from: "m".into(), to: to.iter().map(|&model| model.to_owned()).collect() }
}

/// Leases what the quotas have.
fn lease(slices: &Slices) {
    let leased = Granted {
        ends: i64::MAX,
        granted: PLENTY,
        usable_until: i64::MAX,
        standing: Standing { limit: PLENTY, ..Standing::default() },
        ..Granted::default()
    };
    QUOTAS.iter().for_each(|(id, _)| slices.renew(id, &leased, 0));
}

/// A configuration with nothing in it.
pub fn nothing() -> Snapshot {
    let sealing_key = SealingKey::generate().expect("key");
    let content = Content::default();
    let version = wire::Version { generation: 1, revision: 2, hash: content.hash() };
    let inputs = Inputs {
        sealing_key: &sealing_key,
        secrets: &HashMap::new(),
        turns: &Turns::default(),
        healths: &Healths::default(),
        slices: &Slices::default(),
        gates: &Gates::default(),
    };
    compile(&content, &version, &inputs).expect("compiles")
}

type Handler = Arc<dyn Fn(Seen, TcpStream) -> Pin<Box<dyn Future<Output = Option<TcpStream>> + Send>> + Send + Sync>;

/// A request as the vendor got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

/// A vendor that hands every request to a script.
pub struct Vendor {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Vendor {
    /// The script answers on the stream and gives it back to go on.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Seen, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let handler: Handler = Arc::new(move |seen, stream| Box::pin(script(seen, stream)));
        let (log, count) = (seen.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, handler.clone(), log.clone()));
            }
        });
        Self { address, seen, connections }
    }

    /// Answers everything with `response`.
    pub async fn fixed(response: &'static str) -> Self {
        Self::start(move |_, mut stream| async move {
            stream.write_all(response.as_bytes()).await.ok()?;
            Some(stream)
        })
        .await
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().expect("lock").last().cloned().expect("the vendor saw a request")
    }
}

async fn serve(mut stream: TcpStream, handler: Handler, log: Arc<Mutex<Vec<Seen>>>) {
    while let Some(seen) = read_request(&mut stream).await {
        log.lock().expect("lock").push(seen.clone());
        match handler(seen, stream).await {
            Some(next) => stream = next,
            None => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().to_owned()))
        .and_then(|v| v.parse::<usize>().ok())
        .unwrap_or(0);
    let mut body = bytes.split_off(end);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { head, body })
}

/// A chat request with the test's token.
pub fn chat(body: &str, extra: &str) -> String {
    format!(
        "POST /v1/openai/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{extra}\r\n{body}",
        body.len()
    )
}

/// The smallest body that is a request.
pub const BODY: &str = r#"{"model":"m","messages":[]}"#;

/// Reads until `done` is satisfied with what came; panics with it otherwise.
pub async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), done: impl Fn(&str) -> bool) -> String {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if done(&text) {
                return text;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) => panic!("the connection ended after {:?}", String::from_utf8_lossy(&bytes)),
                Ok(_) => {}
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("in time")
}

/// Everything until the other side closes.
pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async { while matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(PATIENCE, read).await.expect("closes in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    until_within(PATIENCE, what, condition).await;
}

/// The same for what takes longer by its nature.
pub async fn until_within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, wait).await.is_ok(), "never happened: {what}");
}

/// A certificate for `localhost` in files.
pub fn certificate(dir: &std::path::Path) -> (TlsFiles, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let (cert, key): (PathBuf, PathBuf) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writes");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    (TlsFiles { certificate: cert, key }, made.cert.der().to_vec())
}
