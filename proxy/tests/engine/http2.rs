//! HTTP/2 on the bots' side, over TLS with ALPN.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{BODY, Node, Options, PATIENCE, TOKEN, Vendor, certificate, until};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_of_one_http2_connection_are_served() {
    let vendor = Vendor::fixed(OK).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let (files, der) = certificate(dir.path());
    let node = Node::start(vendor.address, Options { tls: Some(files), ..Options::default() }).await;
    let (mut sender, connection) = connect(&node, der).await;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut answers = Vec::new();
    for _ in 0..8 {
        sender = sender.ready().await.expect("ready");
        let request = http::Request::post("https://localhost/v1/openai/chat/completions")
            .header("x-api-key", TOKEN)
            .header("content-type", "application/json")
            .body(())
            .expect("request");
        let (answer, mut body) = sender.send_request(request, false).expect("sends");
        body.send_data(Bytes::from_static(BODY.as_bytes()), true).expect("sends");
        answers.push(answer);
    }
    for answer in answers {
        let mut answer = answer.await.expect("answers");
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("x-clawgate-request-id"));
        let mut body = Vec::new();
        while let Some(chunk) = answer.body_mut().data().await {
            body.extend_from_slice(&chunk.expect("chunk"));
        }
        assert_eq!(body, b"{}");
    }
    assert_eq!(vendor.seen.lock().expect("lock").len(), 8);
    until("nothing is left", || node.services.inflight.now() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_is_closed() {
    let vendor = Vendor::fixed(OK).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let (files, der) = certificate(dir.path());
    let node = Node::start(vendor.address, Options { tls: Some(files), ..Options::default() }).await;
    let mut mute = secured(&node, der.clone()).await;
    let (_sender, connection) = connect(&node, der).await;
    let mut byte = [0; 1];
    let closed = async { while matches!(mute.read(&mut byte).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("closed before its preface came");
    tokio::time::timeout(PATIENCE, connection).await.expect("closed before its first request came").ok();
    until("both places are free", || node.services.metrics.render().contains("clawgate_connections 0")).await;
}

async fn connect(
    node: &Node,
    der: Vec<u8>,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<TlsStream<TcpStream>, Bytes>) {
    h2::client::handshake(secured(node, der).await).await.expect("HTTP/2")
}

/// TLS with HTTP/2 agreed on, and nothing said yet.
async fn secured(node: &Node, der: Vec<u8>) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der)).expect("root");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = node.connect().await;
    let name = ServerName::try_from("localhost").expect("name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}
