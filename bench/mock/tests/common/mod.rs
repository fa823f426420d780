//! A mock started inside the test, and a raw client that sees every byte.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clawgate_mock::{Knobs, Ledger, LedgerTarget, MockConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running mock with a ledger in a temporary folder.
pub struct Mock {
    pub address: SocketAddr,
    pub ledger: Arc<Ledger>,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Mock {
    pub async fn start() -> Self {
        Self::with(None).await
    }

    pub async fn with(recordings: Option<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&LedgerTarget::File { path, two_phase: true }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = MockConfig { ledger: Arc::clone(&ledger), recordings, knobs: Knobs::default() };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(clawgate_mock::serve(listener, config, async move {
            let _stopped = stopped.await;
        }));
        Self { address, ledger, folder, stop: Some(stop), task }
    }

    /// The ledger's lines once `count` requests have ended.
    pub async fn ended(&self, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..500 {
            self.ledger.flush().unwrap();
            let ends: Vec<_> = self.lines().into_iter().filter(|line| line["event"] == "end").collect();
            if ends.len() >= count {
                return ends;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{count} requests did not end: {:?}", self.lines());
    }

    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("ledger.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    pub async fn post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        Client::connect(self.address).await.request("POST", target, headers, body).await
    }

    pub async fn get(&self, target: &str) -> Reply {
        Client::connect(self.address).await.request("GET", target, &[], "").await
    }
}

/// A response taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// HTTP chunks, when chunked.
    pub chunks: usize,
    /// The framing was kept to the end.
    pub complete: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("{cause}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON data of every SSE event.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send(method, target, headers, body).await;
        self.reply().await
    }

    pub async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(count) if count > 0)
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..at + 2).collect::<Vec<_>>();
                return Some(line[..at].to_vec());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < count {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..count).collect(), true)
    }

    /// The status line of a response whose body is not of interest yet.
    pub async fn reply_head(&mut self) -> String {
        let first = self.line().await.unwrap();
        while !self.line().await.unwrap().is_empty() {}
        String::from_utf8(first).unwrap()
    }

    pub async fn reply(&mut self) -> Reply {
        let mut reply = Reply { status: 0, head: String::new(), body: Vec::new(), chunks: 0, complete: false };
        loop {
            match self.line().await {
                None => return reply,
                Some(line) if line.is_empty() => break,
                Some(line) => reply.head.push_str(&format!("{}\n", String::from_utf8_lossy(&line))),
            }
        }
        reply.status = reply.head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(length) = reply.header("content-length") {
            (reply.body, reply.complete) = self.exactly(length.parse().unwrap()).await;
        } else if reply.header("transfer-encoding").is_some() {
            self.chunked(&mut reply).await;
        } else {
            while self.more().await {}
            reply.body = std::mem::take(&mut self.buffer);
            reply.complete = true;
        }
        reply
    }

    async fn chunked(&mut self, reply: &mut Reply) {
        while let Some(line) = self.line().await {
            let Ok(size) = usize::from_str_radix(&String::from_utf8_lossy(&line), 16) else { return };
            if size == 0 {
                reply.complete = self.line().await.is_some();
                return;
            }
            let (data, whole) = self.exactly(size).await;
            reply.body.extend_from_slice(&data);
            if !whole || self.line().await.is_none() {
                return;
            }
            reply.chunks += 1;
        }
    }
}

pub const CHAT: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello there"}]}"#;
pub const CHAT_STREAM: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hello there"}]}"#;
