//! Sends spans to a collector: OTLP over gRPC.
//!
//! The few messages that are needed stand here, by the field numbers of OTLP
//! 1.x. A collector that is away or slow costs spans, never an exchange.

use std::time::Duration;

use http::uri::PathAndQuery;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::trace::{Kind, Span, Value};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Spans of one call.
const BATCH: usize = 512;
/// Longest time a span waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// One call, connecting included.
const CALL: Duration = Duration::from_secs(5);
/// As in OTLP.
const KIND_SERVER: i32 = 2;
const KIND_CLIENT: i32 = 3;
const STATUS_ERROR: i32 = 2;

/// Why there is no exporter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not http://HOST:PORT, where a collector takes OTLP over gRPC")]
pub struct EndpointError(pub String);

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(String);

impl std::str::FromStr for Collector {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.split('@').next_back().unwrap_or_default().to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self(format!("http://{authority}")))
    }
}

/// Sends what it receives.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    channel: Channel,
    dropped: Counter,
    failing: bool,
}

impl Exporter {
    /// To `collector`; what does not arrive is counted in `dropped`.
    ///
    /// # Errors
    /// The library refuses the address.
    pub fn new(collector: &Collector, spans: mpsc::Receiver<Span>, dropped: Counter) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::from_shared(collector.0.clone()).map_err(|_| EndpointError(collector.0.clone()))?;
        let channel = endpoint.connect_timeout(CALL).connect_lazy();
        Ok(Self { spans, channel, dropped, failing: false })
    }

    /// Runs until `stop` is true, and sends what has come by then.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let came = tokio::select! {
                came = self.spans.recv_many(&mut batch, BATCH) => came,
                _ = stop.wait_for(|stop| *stop) => 0,
            };
            if came == 0 {
                break;
            }
            let more = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                () = more => {}
                () = tokio::time::sleep(LINGER) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            self.send(&mut batch).await;
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
            if batch.len() == BATCH {
                self.send(&mut batch).await;
            }
        }
        if !batch.is_empty() {
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<Span>) {
        let count = batch.len() as u64;
        let request = ExportRequest::of(batch.drain(..));
        let sent = timeout(CALL, self.call(request)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(status.code().description().to_owned()),
            Err(_) => Some("it does not answer in time".to_owned()),
        };
        if let Some(cause) = &failed {
            self.dropped.inc_by(count);
            if !self.failing {
                tracing::warn!(cause, "the trace collector does not take spans; they are dropped");
            }
        } else if self.failing {
            tracing::info!("the trace collector takes spans again");
        }
        self.failing = failed.is_some();
    }

    async fn call(&self, request: ExportRequest) -> Result<(), tonic::Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|_| tonic::Status::unavailable("no connection"))?;
        let codec: ProstCodec<ExportRequest, ExportResponse> = ProstCodec::default();
        grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(EXPORT), codec).await.map(drop)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// What it says of rejected spans is not read.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSpan {
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
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<WireStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "One", tags = "1, 2, 3")]
    value: Option<One>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum One {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

impl ExportRequest {
    fn of(spans: impl Iterator<Item = Span>) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let text = |key: &'static str, value: &str| key_value((key, Value::Text(value.to_owned())));
        let attributes = vec![text("service.name", "clawgate"), text("service.version", version)];
        let scope = Scope { name: "clawgate".to_owned(), version: version.to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.map(wire).collect() }];
        Self { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
    }
}

fn wire(span: Span) -> WireSpan {
    let nanos = |micros: i64| u64::try_from(micros).unwrap_or(0).saturating_mul(1000);
    WireSpan {
        trace_id: span.trace.trace_id.to_vec(),
        span_id: span.trace.span_id.to_vec(),
        parent_span_id: span.trace.parent.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            Kind::Server => KIND_SERVER,
            Kind::Client => KIND_CLIENT,
        },
        start_time_unix_nano: nanos(span.began_micros),
        end_time_unix_nano: nanos(span.ended_micros),
        attributes: span.attributes.into_iter().map(key_value).collect(),
        status: span.error.map(|message| WireStatus { message, code: STATUS_ERROR }),
    }
}

fn key_value((key, value): (&'static str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => One::Text(text),
        Value::Number(number) => One::Number(number),
        Value::Flag(flag) => One::Flag(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_plainly() {
        for good in ["http://127.0.0.1:4317", "http://collector:4317/", "http://[::1]:4317"] {
            assert!(good.parse::<Collector>().is_ok(), "{good}");
        }
        for bad in
            ["", "collector:4317", "https://collector:4317", "http://collector", "http://u:secret@c:1", "http://"]
        {
            let error = bad.parse::<Collector>().expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
