//! Control plane, node and mock vendor as real processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::{binary, recordings};
use crate::http::{Request, Response, call};
use crate::mock::Mock;
use crate::process::{Process, Spec};
use crate::rest::Rest;
use crate::wait::until;

/// How long a start may take here; the product's own limit has its own test.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A plane that announces its addresses in `run/NAME.json`.
#[derive(Debug)]
pub struct Service {
    /// How it is started.
    pub spec: Spec,
    /// Its data directory.
    pub data: PathBuf,
    /// Name of the ready file and, with the flag, of each listener in it.
    ready: &'static str,
    listeners: &'static [(&'static str, &'static str)],
    addresses: BTreeMap<String, SocketAddr>,
    process: Option<Process>,
}

impl Service {
    fn new(
        name: &'static str,
        folder: &Path,
        ready: &'static str,
        listeners: &'static [(&'static str, &'static str)],
    ) -> Self {
        let data = folder.join(name);
        let mut spec = Spec::new(name, binary("clawgate"), folder, &[ready.trim_end_matches(".json")]);
        spec.set("--data-dir", &data.display().to_string());
        for (flag, _) in listeners {
            spec.set(flag, "127.0.0.1:0");
        }
        Self { spec, data, ready, listeners, addresses: BTreeMap::new(), process: None }
    }

    /// A control plane with its own data directory below `folder`.
    #[must_use]
    pub fn control(name: &'static str, folder: &Path) -> Self {
        let listeners =
            &[("--console-listen", "console"), ("--grpc-listen", "grpc"), ("--control-admin-listen", "admin")];
        Self::new(name, folder, "control.json", listeners)
    }

    /// A node with its own data directory below `folder`.
    #[must_use]
    pub fn node(name: &'static str, folder: &Path) -> Self {
        Self::new(name, folder, "proxy.json", &[("--listen", "data"), ("--admin-listen", "admin")])
    }

    fn ready_file(&self) -> PathBuf {
        self.data.join("run").join(self.ready)
    }

    /// Starts it and waits until it has announced itself. From the second
    /// start on it keeps its ports.
    ///
    /// # Panics
    /// It ends or stays silent.
    pub fn start(&mut self) {
        let mut process = self.launch();
        let name = self.spec.name.clone();
        let path = self.ready_file();
        let announced = until(&format!("{name} to be ready"), START_LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("{name} ended: {status}; {}", process.log());
            }
            let value: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            Some(value)
        });
        for (flag, listener) in self.listeners {
            let text = announced[*listener].as_str().unwrap_or_default();
            if let Ok(address) = text.parse::<SocketAddr>() {
                self.addresses.insert((*listener).to_owned(), address);
                self.spec.set(flag, text);
            }
        }
        self.process = Some(process);
    }

    /// Starts what may end before it announces itself.
    pub fn start_unannounced(&mut self) {
        self.process = Some(self.launch());
    }

    fn launch(&mut self) -> Process {
        let _absent = std::fs::remove_file(self.ready_file());
        self.spec.start()
    }

    /// The running process.
    ///
    /// # Panics
    /// It is not running.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} is not running", self.spec.name))
    }

    /// The running process's id.
    ///
    /// # Panics
    /// It is not running.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap_or_else(|| panic!("{} is not running", self.spec.name)).id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM; says how long the end took.
    ///
    /// # Panics
    /// It does not end well.
    pub fn terminate(&mut self) -> Duration {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} is not running", self.spec.name));
        process.terminate()
    }

    /// The address of a listener.
    ///
    /// # Panics
    /// It was not announced.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.addresses.get(listener).unwrap_or_else(|| panic!("{}: no {listener}: {self:?}", self.spec.name))
    }
}

impl Service {
    /// An administrator of this control plane with its bootstrap token.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn rest(&self) -> Rest {
        let token = std::fs::read_to_string(self.data.join("admin.token")).expect("bootstrap token");
        Rest { address: self.address("console"), token: token.trim().to_owned() }
    }
}

/// Gives a node a one-time token, kept beside its data directory, and the
/// control plane's address.
///
/// # Panics
/// The token cannot be minted or written.
pub fn enroll(control: &Service, node: &mut Service) {
    let minted = control.rest().post("/nodes/enroll-tokens", &json!({}));
    let token = minted["token"].as_str().unwrap_or_else(|| panic!("no token in {minted}"));
    let file = node.data.with_extension("enroll");
    std::fs::write(&file, token).expect("token file");
    node.spec.set("--control", &format!("https://{}", control.address("grpc")));
    node.spec.set("--enroll-token-file", &file.display().to_string());
}

/// A bot as the administrator got it.
#[derive(Clone, Debug)]
pub struct Bot {
    /// Its name.
    pub hostname: String,
    /// Its token.
    pub token: String,
}

/// One control plane, one node, one mock vendor.
#[derive(Debug)]
pub struct Stack {
    /// The node. Dropped first.
    pub node: Service,
    /// The control plane.
    pub control: Service,
    /// The vendor.
    pub mock: Mock,
    /// Everything's folder.
    pub folder: TempDir,
}

impl Stack {
    /// Starts all three.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// Starts all three after `change` had a look at control plane and node.
    ///
    /// # Panics
    /// One does not start.
    #[must_use]
    pub fn start_with(change: impl FnOnce(&mut Service, &mut Service)) -> Self {
        Self::start_routed(change, |address| address)
    }

    /// The same; `route` says for the control plane's address where the node
    /// finds it.
    ///
    /// # Panics
    /// One does not start.
    #[must_use]
    pub fn start_routed(
        change: impl FnOnce(&mut Service, &mut Service),
        route: impl FnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("clawgate-").tempdir().expect("a temporary folder");
        let mock = Mock::start(folder.path(), recordings().as_deref());
        let mut control = Service::control("control", folder.path());
        let mut node = Service::node("node", folder.path());
        for service in [&mut control, &mut node] {
            service.spec.set("--private-upstreams", "127.0.0.0/8:*");
        }
        change(&mut control, &mut node);
        control.start();
        enroll(&control, &mut node);
        node.spec.set("--control", &format!("https://{}", route(control.address("grpc"))));
        node.start();
        let stack = Self { node, control, mock, folder };
        stack.wait_node_ready();
        stack
    }

    /// Waits until the node says it is ready.
    ///
    /// # Panics
    /// It does not.
    pub fn wait_node_ready(&self) {
        self.wait_ready(&self.node);
    }

    /// Waits until a node says it is ready.
    ///
    /// # Panics
    /// It does not.
    pub fn wait_ready(&self, node: &Service) {
        let admin = node.address("admin");
        until("the node's /readyz", START_LIMIT, || {
            let ready = crate::http::try_call(admin, &Request::new("GET", "/readyz")).ok()?;
            (ready.status() == 200).then_some(())
        });
    }

    /// An administrator with the bootstrap token.
    #[must_use]
    pub fn rest(&self) -> Rest {
        self.control.rest()
    }

    /// Where bots connect.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.node.address("data")
    }

    /// Creates a provider key; `more` adds or replaces fields. Returns its id.
    ///
    /// # Panics
    /// It is refused.
    pub fn key(&self, vendor: &str, secret: &str, base_url: &str, tags: &[&str], more: Value) -> String {
        let mut body = json!({
            "vendor": vendor, "label": format!("{vendor} {}", next_number()), "secret": secret,
            "base_url": base_url, "tags": tags,
        });
        merge(&mut body, more);
        let key = self.rest().post("/provider-keys", &body);
        key["id"].as_str().unwrap_or_else(|| panic!("no id in {key}")).to_owned()
    }

    /// Creates a bot; `more` adds or replaces fields.
    ///
    /// # Panics
    /// It is refused.
    pub fn bot(&self, hostname: &str, more: Value) -> Bot {
        let mut body = json!({ "hostname": hostname });
        merge(&mut body, more);
        let bot = self.rest().post("/bots", &body);
        let token = bot["token"].as_str().unwrap_or_else(|| panic!("no token in {bot}"));
        Bot { hostname: hostname.to_owned(), token: token.to_owned() }
    }

    /// A provider key at the mock for each of the three dialects, and a bot.
    #[must_use]
    pub fn ordinary(&self, secret: &str, hostname: &str) -> Bot {
        for (vendor, root) in [("openai", "/v1"), ("anthropic", "/v1"), ("google", "/v1beta")] {
            self.key(vendor, secret, &self.mock.url(root), &[], json!({}));
        }
        self.bot(hostname, json!({}))
    }

    /// A chat completion of `bot`.
    #[must_use]
    pub fn chat(&self, bot: &Bot) -> Response {
        self.chat_at(self.data(), bot)
    }

    /// The same on another listener.
    #[must_use]
    pub fn chat_at(&self, address: SocketAddr, bot: &Bot) -> Response {
        call(address, &chat_request(&bot.token))
    }
}

/// A small chat completion.
#[must_use]
pub fn chat_request(token: &str) -> Request {
    Request::post("/v1/openai/chat/completions", &chat_body(false)).bearer(token)
}

/// Its body.
#[must_use]
pub fn chat_body(stream: bool) -> Value {
    let mut body = json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "Say hello." }] });
    if stream {
        body["stream"] = json!(true);
    }
    body
}

/// Labels must be unique within a tenant, and must not be the secret.
fn next_number() -> usize {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn merge(body: &mut Value, more: Value) {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
}
