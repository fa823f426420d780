//! Hang-ups, deadlines, caps and sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use clawgate_proxy::server::SourcePolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BODY, Node, Options, Vendor, chat, read_all, read_until, until, until_within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_noticed_while_the_vendor_is_silent() {
    let closed = Arc::new(AtomicBool::new(false));
    let seen = closed.clone();
    let vendor = Vendor::start(move |_, mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let mut byte = [0; 1];
            // Says nothing until the gateway closes.
            if matches!(stream.read(&mut byte).await, Ok(0) | Err(_)) {
                seen.store(true, Ordering::SeqCst);
            }
            None
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    until("the vendor got the request", || !vendor.seen.lock().expect("lock").is_empty()).await;
    drop(client);
    until("the vendor's connection was closed", || closed.load(Ordering::SeqCst)).await;
    until("the exchange ended", || node.services.inflight.now() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_cut_off() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let (mut reader, mut writer) = client.split();
    writer.write_all(b"POST /v1/openai/chat/completions HTTP/1.1\r\n").await.expect("writes");
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(b"x-drip: 1\r\n").await.is_err() {
                return;
            }
        }
    };
    let answer = tokio::select! {
        answer = read_until(&mut reader, |text| text.contains("request_timeout")) => answer,
        () = drip => panic!("closed without an answer"),
    };
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_cut_off() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let request = chat(BODY, "");
    client.write_all(&request.as_bytes()[..request.len() - 3]).await.expect("writes");
    let answer = read_until(&mut client, |text| text.contains("request_timeout")).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(vendor.seen.lock().expect("lock").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_stalls_midway_ends_the_stream_with_an_error_event() {
    let vendor = Vendor::start(|_, mut stream: TcpStream| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(b"9\r\ndata: a\n\n\r\n").await.ok()?;
        std::future::pending().await
    })
    .await;
    let options = Options { idle: Duration::from_millis(200), ..Options::default() };
    let node = Node::start(vendor.address, options).await;
    let mut client = node.connect().await;
    client.write_all(chat(r#"{"model":"m","stream":true}"#, "").as_bytes()).await.expect("writes");
    let answer = read_until(&mut client, |text| text.contains("upstream_timeout") && text.ends_with("0\r\n\r\n")).await;
    assert!(answer.contains("data: a\n\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_are_closed_and_the_others_served() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options { max_connections: 2, ..Options::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = node.connect().await;
        client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
        read_until(&mut client, |text| text.ends_with("{}")).await;
        held.push(client);
    }
    let mut third = node.connect().await;
    let _ = third.write_all(chat(BODY, "").as_bytes()).await;
    assert_eq!(read_all(&mut third).await, "");
    let metrics = node.services.metrics.render();
    assert!(metrics.contains("clawgate_connections_refused_total{reason=\"cap\"} 1"), "{metrics}");
    held.pop();
    let served = async {
        loop {
            let mut client = node.connect().await;
            let _ = client.write_all(chat(BODY, "connection: close\r\n").as_bytes()).await;
            if read_all(&mut client).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, served).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_outside_the_pool_is_closed_at_accept() {
    let vendor = Vendor::fixed(OK).await;
    let pool = |network: &str| SourcePolicy::Within { network: network.parse().expect("ip"), prefix: 16 };
    let outside = Node::start(vendor.address, Options { sources: pool("10.231.0.0"), ..Options::default() }).await;
    let mut client = outside.connect().await;
    let _ = client.write_all(chat(BODY, "").as_bytes()).await;
    assert_eq!(read_all(&mut client).await, "");
    assert!(vendor.seen.lock().expect("lock").is_empty());
    let metrics = outside.services.metrics.render();
    assert!(metrics.contains("clawgate_connections_refused_total{reason=\"source\"} 1"), "{metrics}");
    let inside = Node::start(vendor.address, Options { sources: pool("127.0.0.0"), ..Options::default() }).await;
    let mut client = inside.connect().await;
    client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    read_until(&mut client, |text| text.ends_with("{}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_let_go() {
    let vendor = Vendor::start(|_, mut stream: TcpStream| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        loop {
            stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).await.ok()?;
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    client.write_all(chat(r#"{"model":"m","stream":true}"#, "").as_bytes()).await.expect("writes");
    until("it is served", || node.services.inflight.now() == 1).await;
    // The deadline of a write is longer than other waits of these tests.
    let gone = || node.services.metrics.render().contains("clawgate_connections 0");
    until_within(Duration::from_secs(60), "its place is free again", gone).await;
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_may_have_seen_a_request_does_not_get_it_again() {
    for part in ["", "HTTP/1.1 200 OK\r\ncontent-"] {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let vendor = Vendor::start(move |_, mut stream: TcpStream| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                if number == 0 {
                    stream.write_all(OK.as_bytes()).await.ok()?;
                    return Some(stream);
                }
                if part.is_empty() {
                    // It thinks about it, for longer than a kept connection may be
                    // taken for closed before the request came, and dies of it.
                    tokio::time::sleep(Duration::from_millis(1200)).await;
                }
                stream.write_all(part.as_bytes()).await.ok()?;
                None
            }
        })
        .await;
        let node = Node::start(vendor.address, Options::default()).await;
        let mut client = node.connect().await;
        client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
        read_until(&mut client, |text| text.ends_with("{}")).await;
        client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
        let answer = read_until(&mut client, |text| text.contains("upstream_protocol")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!((requests.load(Ordering::SeqCst), vendor.connections.load(Ordering::SeqCst)), (2, 1), "{part:?}");
    }
}
