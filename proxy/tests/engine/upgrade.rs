//! A WebSocket passes through.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Node, Options, PATIENCE, SECRET, TOKEN, Vendor, nothing, read_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_through_in_both_directions() {
    let vendor = echo().await;
    let node = Node::start(vendor.address, Options::default()).await;
    let (mut client, head) = upgraded(&node).await;
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: abc"), "{head}");
    for (sent, expected) in [("hello", "HELLO"), ("again", "AGAIN")] {
        client.write_all(sent.as_bytes()).await.expect("writes");
        read_until(&mut client, |text| text == expected).await;
    }
    let seen = vendor.last();
    assert_eq!(seen.head.matches(SECRET).count(), 1, "{}", seen.head);
    assert!(!seen.head.contains(TOKEN), "{}", seen.head);
    assert!(seen.head.to_ascii_lowercase().contains("sec-websocket-protocol: realtime\r\n"), "{}", seen.head);
    drop(client);
    crate::support::until("the tunnel ended", || node.services.inflight.now() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_never_rests_ends_when_its_bot_is_gone() {
    let vendor = echo().await;
    let node = Node::start(vendor.address, Options::default()).await;
    let (mut client, _) = upgraded(&node).await;
    node.services.snapshots.swap(Arc::new(nothing()));
    let chatter = async {
        let mut buffer = [0; 16];
        while client.write_all(b"more").await.is_ok() && matches!(client.read(&mut buffer).await, Ok(n) if n > 0) {}
    };
    tokio::time::timeout(PATIENCE, chatter).await.expect("the tunnel ends under traffic");
}

/// A vendor that takes a WebSocket and says everything again, louder.
async fn echo() -> Vendor {
    Vendor::start(|_, mut stream| async move {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-accept: abc\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut buffer = [0; 1024];
        loop {
            let read = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            stream.write_all(&buffer[..read].to_ascii_uppercase()).await.ok()?;
        }
    })
    .await
}

/// A client behind its 101, and the head of that.
async fn upgraded(node: &Node) -> (TcpStream, String) {
    let mut client = node.connect().await;
    let request = format!(
        "GET /v1/openai/realtime?model=m HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: realtime, openai-insecure-api-key.{TOKEN}\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.expect("writes");
    let head = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    (client, head)
}
