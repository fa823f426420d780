//! A blocking HTTP client for a handful of requests.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::failure::Failure;
use crate::load::{Connection, Target};

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(40);

/// One kept connection.
pub(crate) struct Client {
    runtime: Runtime,
    target: Target,
    connection: Option<Connection>,
}

/// A status and a JSON body (null when there is none).
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Client {
    /// Connects when first used.
    pub(crate) fn new(name: &str, address: SocketAddr) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::setup("client runtime"))?;
        Ok(Self { runtime, target: Target::local(name, address, ""), connection: None })
    }

    /// One request. `headers` are whole lines.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[String],
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.target.host);
        for line in headers {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        let reused = self.connection.is_some();
        let mut exchanged = self.exchange(text.as_bytes());
        // A server may close a connection that was idle; asking again is safe
        // for what only reads.
        if exchanged.is_err() && reused && method == "GET" {
            exchanged = self.exchange(text.as_bytes());
        }
        let name = &self.target.name;
        let (status, body) = exchanged.map_err(Failure::setup(format!("{name}: {method} {path}")))?;
        Ok(Reply { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
    fn exchange(&mut self, request: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let Self { runtime, target, connection } = self;
        runtime.block_on(async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(target).await?,
            };
            let (exchange, body) = tokio::time::timeout(LIMIT, open.fetch(request)).await??;
            *connection = exchange.reusable.then_some(open);
            Ok((exchange.status, body))
        })
    }
}
