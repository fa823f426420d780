//! Clients that go away: how they go, and how one can see where they got to.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use crate::http::{Connection, Request, call};
use crate::stack::{Service, Stack};
use crate::wait::until;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It closes its socket.
    Close,
    /// Its socket is reset, as by a killed process or a network that forgot it.
    Reset,
}

/// Goes.
pub fn leave(connection: Connection, how: Leave) {
    if how == Leave::Reset {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(connection.stream(), sockopt::Linger, &now).expect("a socket option");
    }
    drop(connection);
}

/// A listener whose queue is full: who connects waits, and is neither accepted
/// nor refused.
#[derive(Debug)]
pub struct FullListener {
    /// Where it listens.
    pub address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl FullListener {
    /// One on a loopback port of its own.
    ///
    /// # Panics
    /// It cannot be made, or does not fill up.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listen(&listener, Backlog::new(0).expect("a length")).expect("listens");
        let address = listener.local_addr().expect("its address");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queue.push(stream);
            assert!(queue.len() < 64, "a queue of no length takes everybody");
        }
        Self { address, _listener: listener, _queue: queue }
    }

    /// How many wait to be connected, of this whole network.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
        let syn_sent = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(2).is_some_and(|remote| remote.ends_with(&port)) && words.get(3) == Some(&"02")
        };
        table.lines().filter(syn_sent).count()
    }
}

/// A gauge or counter of a node, without labels.
///
/// # Panics
/// There is none of that name.
#[must_use]
pub fn metric(node: &Service, name: &str) -> i64 {
    let text = call(node.address("admin"), &Request::new("GET", "/metrics")).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Where each event of a stream ends.
#[must_use]
pub fn event_ends(stream: &[u8]) -> Vec<usize> {
    let blank: &[u8] = if stream.windows(4).any(|end| end == b"\r\n\r\n") { b"\r\n\r\n" } else { b"\n\n" };
    let ends = stream.windows(blank.len()).enumerate().filter(|(_, end)| *end == blank);
    ends.map(|(at, _)| at + blank.len()).collect()
}

/// Waits until the mock vendor is at work on the request with this id.
///
/// # Panics
/// It does not get it.
pub fn at_vendor(stack: &Stack, id: &str) {
    until(&format!("{id} to reach the vendor"), Duration::from_secs(20), || {
        let now = call(stack.mock.address, &Request::new("GET", "/__mock/inflight")).json();
        let has = |request: &serde_json::Value| request["request_id"] == id;
        now["requests"].as_array()?.iter().any(has).then_some(())
    });
}
