//! Bodies and heads, both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{BODY, Node, Options, PATIENCE, SECRET, TOKEN, Vendor, chat, read_all, read_until, until};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_serves_many_requests_over_one_connection_on_each_leg() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    for _ in 0..20 {
        client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
        let answer = read_until(&mut client, |text| text.ends_with("{}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(vendor.connections.load(Ordering::SeqCst), 1);
    assert_eq!(vendor.seen.lock().expect("lock").len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_body_arrives_with_the_providers_key_and_nothing_of_the_bots() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    client.write_all(chat(BODY, "x-stainless-lang: rust\r\n").as_bytes()).await.expect("writes");
    read_until(&mut client, |text| text.ends_with("{}")).await;
    let seen = vendor.last();
    assert_eq!(seen.body, BODY.as_bytes());
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.head.matches(SECRET).count(), 1, "{}", seen.head);
    assert!(!seen.head.contains(TOKEN), "{}", seen.head);
    assert!(seen.head.contains("x-stainless-lang: rust"), "{}", seen.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_request_body_arrives_whole() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let head = format!(
        "POST /v1/openai/chat/completions HTTP/1.1\r\nhost: g\r\nx-api-key: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.expect("writes");
    for piece in [&BODY[..5], &BODY[5..6], &BODY[6..]] {
        client.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.expect("writes");
        client.flush().await.expect("flushes");
    }
    client.write_all(b"0\r\n\r\n").await.expect("writes");
    read_until(&mut client, |text| text.ends_with("{}")).await;
    let seen = vendor.last();
    assert_eq!(seen.body, BODY.as_bytes());
    assert!(!seen.head.to_ascii_lowercase().contains("transfer-encoding"), "{}", seen.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_answer_is_passed_as_it_comes() {
    let had_first = Arc::new(AtomicBool::new(false));
    let gate = had_first.clone();
    let vendor = Vendor::start(move |_, mut stream: TcpStream| {
        let gate = gate.clone();
        async move {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(b"9\r\ndata: a\n\n\r\n").await.ok()?;
            // The rest comes only after the client has had the first event.
            until("the client had the first event", || gate.load(Ordering::SeqCst)).await;
            stream.write_all(b"9\r\ndata: b\n\n\r\n0\r\n\r\n").await.ok()?;
            Some(stream)
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    let first = read_until(&mut client, |text| text.contains("data: a\n\n")).await;
    assert!(!first.contains("data: b"), "the first event waited for the second: {first}");
    had_first.store(true, Ordering::SeqCst);
    read_until(&mut client, |text| text.contains("data: b\n\n\r\n0\r\n\r\n")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered_before_the_body() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let request = chat(BODY, "expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - BODY.len());
    client.write_all(head.as_bytes()).await.expect("writes");
    let interim = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    client.write_all(body.as_bytes()).await.expect("writes");
    let answer = read_until(&mut client, |text| text.ends_with("{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!vendor.last().head.to_ascii_lowercase().contains("expect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_a_head_and_no_body_and_the_connection_lives() {
    let vendor =
        Vendor::fixed("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1234\r\n\r\n").await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    for _ in 0..2 {
        let request = format!("HEAD /v1/openai/models HTTP/1.1\r\nhost: g\r\nx-api-key: {TOKEN}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("writes");
        let answer = read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 405"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipelined_request_is_no_hang_up_and_is_served_next() {
    let answer_first = Arc::new(AtomicBool::new(false));
    let gate = answer_first.clone();
    let vendor = Vendor::start(move |seen, mut stream: TcpStream| {
        let gate = gate.clone();
        async move {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            if body.contains("first") {
                until("the first may be answered", || gate.load(Ordering::SeqCst)).await;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length:";
            stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    client.write_all(chat(r#"{"model":"first"}"#, "").as_bytes()).await.expect("writes");
    until("the vendor has the first", || !vendor.seen.lock().expect("lock").is_empty()).await;
    client.write_all(chat(r#"{"model":"second"}"#, "").as_bytes()).await.expect("writes");
    // The node has had every occasion to see the early bytes once others were
    // served after them.
    let mut other = node.connect().await;
    for _ in 0..10 {
        other.write_all(chat(r#"{"model":"other"}"#, "").as_bytes()).await.expect("writes");
        read_until(&mut other, |text| text.contains("other")).await;
    }
    answer_first.store(true, Ordering::SeqCst);
    let both = read_until(&mut client, |text| text.contains("second")).await;
    let (first, second) = (both.find("first").expect("first"), both.find("second").expect("second"));
    assert!(first < second, "{both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_is_refused_and_the_connection_closed() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let request = chat("0\r\n\r\n", "transfer-encoding: chunked\r\n");
    client.write_all(request.as_bytes()).await.expect("writes");
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("bad_request"), "{answer}");
    assert!(vendor.seen.lock().expect("lock").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_still_coming_count_against_the_memory_for_all() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let request = chat(&"x".repeat(1 << 20), "");
    // Eight of them fill the memory; none is whole.
    let part = &request.as_bytes()[..request.len() - 1000];
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut client = node.connect().await;
        client.write_all(part).await.expect("writes");
        slow.push(client);
    }
    let mut one_more = node.connect().await;
    let _ = one_more.write_all(part).await;
    until("one of the nine is refused", || {
        node.services.metrics.render().contains("clawgate_refusals_total{code=\"overloaded\"} 1")
    })
    .await;
    drop(slow);
    until("the memory is given back", || node.services.inflight.now() == 0).await;
    let mut client = node.connect().await;
    client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    read_until(&mut client, |text| text.ends_with("{}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_with_a_list_of_models_gets_no_other_by_any_route() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options { models: &["good-*"], ..Options::default() }).await;
    for (start, body, allowed) in [
        ("POST /v1/openai/chat/completions", r#"{"model":"good-1"}"#, true),
        ("POST /v1/openai/chat/completions", r#"{"model":"dear-1"}"#, false),
        ("POST /v1/openai/images/generations", r#"{"model":"good-image"}"#, true),
        ("POST /v1/openai/images/generations", r#"{"model":"dear-image"}"#, false),
        ("POST /v1/openai/images/generations", r#"{"model":"good-image","model":"dear-image"}"#, false),
        ("POST /v1/openai/audio/speech", r#"{"input":"x"}"#, false),
        ("POST /v1/openai/responses", r#"{"input":"x"}"#, false),
        ("GET /v1/openai/models", "", true),
    ] {
        let mut client = node.connect().await;
        let request = format!(
            "{start} HTTP/1.1\r\nhost: g\r\nx-api-key: {TOKEN}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        client.write_all(request.as_bytes()).await.expect("writes");
        let answer = read_all(&mut client).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), allowed, "{start} {body}: {answer}");
        assert_eq!(answer.contains("model_not_allowed"), !allowed, "{start} {body}: {answer}");
    }
    let upgrade = "connection: Upgrade\r\nupgrade: websocket";
    let mut client = node.connect().await;
    let request =
        format!("GET /v1/openai/realtime?model=dear-1 HTTP/1.1\r\nhost: g\r\nx-api-key: {TOKEN}\r\n{upgrade}\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("writes");
    read_until(&mut client, |text| text.contains("model_not_allowed")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_answer_that_nobody_asked_for_passes_as_it_is() {
    for (encoding, magic) in [("gzip", &b"\x1f\x8b"[..]), ("zstd", b"\x28\xb5\x2f\xfd"), ("br", b"\x1b\x03")] {
        for content_type in ["application/json", "text/event-stream"] {
            let body: Vec<u8> = magic.iter().copied().chain((0..=255).cycle().take(40_000)).collect();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let answer = [head.as_bytes(), &body].concat();
            let vendor = Vendor::start(move |_, mut stream: TcpStream| {
                let answer = answer.clone();
                async move {
                    stream.write_all(&answer).await.ok()?;
                    Some(stream)
                }
            })
            .await;
            let node = Node::start(vendor.address, Options::default()).await;
            let mut client = node.connect().await;
            let asks = "accept-encoding: gzip, br, zstd\r\nconnection: close\r\n";
            client.write_all(chat(BODY, asks).as_bytes()).await.expect("writes");
            let mut got = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut got);
            tokio::time::timeout(PATIENCE, read).await.expect("closes in time").expect("reads");
            let named = format!("content-encoding: {encoding}\r\n");
            assert!(String::from_utf8_lossy(&got).to_ascii_lowercase().contains(&named), "{encoding}");
            assert!(got.ends_with(&body), "{encoding} {content_type}: {} bytes", got.len());
            let seen = vendor.last().head.to_ascii_lowercase();
            assert!(seen.contains("accept-encoding: identity\r\n"), "{seen}");
        }
    }
}
