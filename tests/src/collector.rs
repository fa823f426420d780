//! A trace collector: OTLP over gRPC, as much of it as spans need.
//!
//! It shares no message with the exporter, so that a wrong field number in one
//! does not hide in the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use serde_json::{Value, json};

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resources {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scopes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scopes {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Wire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Pair>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    flag: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// Hex.
    pub trace_id: String,
    /// Hex.
    pub span_id: String,
    /// Hex; empty: none.
    pub parent: String,
    /// For people.
    pub name: String,
    /// 2: server, 3: client.
    pub kind: i32,
    /// Unix nanoseconds of beginning and end.
    pub time: (u64, u64),
    /// By name.
    pub attributes: BTreeMap<String, Value>,
    /// It says that it failed.
    pub failed: bool,
}

impl Span {
    /// An attribute; null when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Value {
        self.attributes.get(name).cloned().unwrap_or_default()
    }
}

/// A running collector.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    got: Arc<Mutex<(Vec<Span>, Vec<u8>)>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<Wire> for Span {
    fn from(wire: Wire) -> Self {
        let value = |any: Any| match (any.text, any.flag, any.number) {
            (Some(text), ..) => json!(text),
            (_, Some(flag), _) => json!(flag),
            (.., number) => json!(number),
        };
        Self {
            trace_id: hex(&wire.trace_id),
            span_id: hex(&wire.span_id),
            parent: hex(&wire.parent_span_id),
            name: wire.name,
            kind: wire.kind,
            time: (wire.start, wire.end),
            attributes: wire.attributes.into_iter().map(|p| (p.key, p.value.map(value).unwrap_or_default())).collect(),
            failed: wire.status.is_some_and(|status| status.code == 2),
        }
    }
}

impl Collector {
    /// Starts one.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let collector = Self { address: listener.local_addr().expect("bound"), got: Arc::default() };
        let serving = collector.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let serving = serving.clone();
                    tokio::spawn(async move { serving.serve(stream).await });
                }
            });
        });
        collector
    }

    async fn serve(&self, stream: tokio::net::TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let collector = self.clone();
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let mut body = request.into_body();
                let mut bytes = Vec::new();
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    bytes.extend_from_slice(&piece);
                }
                collector.take(&path, &bytes);
                let head = http::Response::builder().header("content-type", "application/grpc").body(());
                let Ok(mut send) = respond.send_response(head.expect("a head"), false) else { return };
                let _ = send.send_data(vec![0; 5].into(), false);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                let _ = send.send_trailers(trailers);
            });
        }
    }

    /// One uncompressed message behind its five bytes.
    fn take(&self, path: &str, bytes: &[u8]) {
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let message = bytes.get(5..).unwrap_or_default();
        let request = Request::decode(message).expect("an export request");
        let wire = request.resources.into_iter().flat_map(|r| r.scopes).flat_map(|s| s.spans);
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.0.extend(wire.map(Span::from));
        got.1.extend_from_slice(message);
    }

    /// What has come.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Every byte of it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().unwrap_or_else(PoisonError::into_inner).1).into_owned()
    }
}
