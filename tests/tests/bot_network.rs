//! The bots' listener and a real container engine: a container on an `internal`
//! network reaches it on its bridge's address, and no other listener of ours;
//! whoever comes from outside the pool is closed at accept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use clawgate_tests::config::installed;
use clawgate_tests::engine::Engine;
use clawgate_tests::http::{Request, call};
use clawgate_tests::mock::assert_only_credential;
use clawgate_tests::own_network;
use clawgate_tests::process::Finished;
use clawgate_tests::rootfs::RootFs;
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use serde_json::Value;

const SECRET: &str = "sk-bot-network-provider-key";
/// Longer than a refusal takes, shorter than the node waits for a first byte.
const SOON: Duration = Duration::from_secs(5);
/// What curl says: no connection; an empty answer; a reset.
const NO_CONNECTION: [i32; 2] = [7, 28];
const NO_ANSWER: [i32; 2] = [52, 56];

/// A network that goes when the test does.
struct Network<'a> {
    engine: &'a Engine,
    name: String,
    gateway: String,
}

impl<'a> Network<'a> {
    /// An `internal` network with a subnet of its own, `PREFIX.n.0/24`.
    fn internal(engine: &'a Engine, name: &str, prefix: &str) -> Self {
        let name = format!("clawgate-test-{name}-{}", std::process::id());
        let made = (1..=50).map(|n| format!("{prefix}.{n}")).find(|net| {
            let (subnet, gateway) = (format!("{net}.0/24"), format!("{net}.1"));
            let create = ["network", "create", "--internal", "--subnet", &subnet, "--gateway", &gateway, &name];
            engine.run("docker", &create).status.success()
        });
        let net = made.unwrap_or_else(|| panic!("no free network in {prefix}"));
        Self { engine, name, gateway: format!("{net}.1") }
    }

    /// curl in a container on this network.
    fn curl(&self, image: &str, arguments: &[&str]) -> Finished {
        let mut all = vec!["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", &self.name, image];
        all.extend(["--silent", "--show-error", "--max-time", "10"]);
        all.extend(arguments);
        self.engine.run("docker", &all)
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let _gone = self.engine.run("docker", &["network", "rm", &self.name]);
    }
}

/// An image with curl and nothing else.
struct Curl<'a> {
    engine: &'a Engine,
    tag: String,
}

impl<'a> Curl<'a> {
    fn build(engine: &'a Engine, folder: &Path) -> Self {
        let tag = format!("clawgate-test-curl:{}", std::process::id());
        let curl = installed("curl").expect("curl is installed");
        let root = RootFs::new(folder, "curl");
        root.program(&curl);
        root.build(engine, &tag, &[], &[&format!("ENTRYPOINT [\"{}\"]", curl.display())]);
        Self { engine, tag }
    }
}

impl Drop for Curl<'_> {
    fn drop(&mut self) {
        let _gone = self.engine.run("docker", &["image", "rm", "--force", &self.tag]);
    }
}

fn bots_listener(stack: &Stack) -> SocketAddr {
    let announced = std::fs::read(stack.node.data.join("run/proxy.json")).expect("proxy.json");
    let announced: Value = serde_json::from_slice(&announced).expect("JSON");
    announced["bots"].as_str().and_then(|a| a.parse().ok()).unwrap_or_else(|| panic!("no bots' listener: {announced}"))
}

fn refused_sources(stack: &Stack) -> u64 {
    let metrics = call(stack.node.address("admin"), &Request::new("GET", "/metrics")).text();
    let name = "clawgate_connections_refused_total{reason=\"source\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

/// Connects, says `first`, and returns what came until the other side closed.
fn what_comes(address: SocketAddr, first: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&address, SOON).expect("the kernel accepts before the node does");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let _may_be_closed_already = stream.write_all(first);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "not closed at accept; so far {bytes:?}");
    }
    bytes
}

#[test]
fn a_container_on_an_internal_network_reaches_the_bots_listener_and_an_outsider_is_closed_at_accept() {
    own_network::with_engine(
        "a_container_on_an_internal_network_reaches_the_bots_listener_and_an_outsider_is_closed_at_accept",
        story,
    );
}

fn story(engine: &Engine, folder: &Path) {
    let image = Curl::build(engine, folder);
    // Inside and outside of the default pool, 10.231.0.0/16.
    let bots = Network::internal(engine, "bots", "10.231");
    let strangers = Network::internal(engine, "strangers", "10.232");
    let stack = Stack::start_with(|_, node| node.spec.set("--bot-listen", "0.0.0.0:0"));
    let bot = stack.ordinary(SECRET, "contained");
    let port = bots_listener(&stack).port();
    let url = |host: &str| format!("http://{host}:{port}/v1/openai/chat/completions");
    let (authorization, body) = (format!("authorization: Bearer {}", bot.token), chat_body(false).to_string());
    let ask = |network: &Network<'_>, host: &str| {
        let status = "\n%{http_code}";
        let request = ["--header", "content-type: application/json", "--header", &authorization, "--data", &body];
        network.curl(&image.tag, &[&request[..], &["--write-out", status, &url(host)]].concat())
    };

    // The main job, from a container, over the bridge's address.
    let answer = ask(&bots, &bots.gateway).success();
    let (text, status) = answer.rsplit_once('\n').expect("a body and a status");
    assert_eq!(status, "200", "{answer}");
    let completion: Value = serde_json::from_str(text).expect("a JSON answer");
    assert!(completion["choices"][0]["message"]["content"].is_string(), "{completion}");
    assert_only_credential(&stack.mock.entries(), SECRET);
    let rows = stack.rest().usage_rows("contained", 1);
    assert_eq!((&rows[0]["outcome"], &rows[0]["status_code"]), (&"ok".into(), &200.into()), "{}", rows[0]);
    assert_eq!(refused_sources(&stack), 0);

    // Of all our listeners it reaches that one only: the others are on loopback.
    let others = [stack.data(), stack.node.address("admin"), stack.control.address("console"), stack.mock.address];
    for listener in others {
        let tried = bots.curl(&image.tag, &[&format!("http://{}:{}/", bots.gateway, listener.port())]);
        assert!(tried.status.code().is_some_and(|code| NO_CONNECTION.contains(&code)), "{listener}: {tried:?}");
    }

    // Outside the pool: this machine itself, silent or not, and a container.
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(what_comes(here, b""), b"", "a silent outsider");
    assert_eq!(what_comes(here, &chat_request(&bot.token).encode(here)), b"", "an outsider with a good token");
    let stranger = ask(&strangers, &strangers.gateway);
    assert!(stranger.status.code().is_some_and(|code| NO_ANSWER.contains(&code)), "{stranger:?}");
    assert_eq!(stranger.stdout.trim(), "000", "an answer came: {stranger:?}");
    assert_eq!(refused_sources(&stack), 3);

    // None of that reached the vendor or became a row; the next good request does.
    assert!(ask(&bots, &bots.gateway).success().ends_with("\n200"));
    assert_eq!(stack.mock.entries().len(), 2);
    assert_eq!(stack.rest().usage_rows("contained", 2).len(), 2);
}
