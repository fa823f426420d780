//! Draining and handing listeners over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clawgate_proxy::server::{Handover, SourcePolicy, bind, receive_listeners};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BODY, Node, Options, Vendor, chat, listener, read_all, run_successor, until};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread")]
async fn stopping_closes_idle_connections_and_lets_an_exchange_finish() {
    let go = Arc::new(AtomicBool::new(false));
    let gate = go.clone();
    let vendor = Vendor::start(move |_, mut stream: TcpStream| {
        let gate = gate.clone();
        async move {
            until("the test says go", || gate.load(Ordering::SeqCst)).await;
            stream.write_all(OK.as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut idle = node.connect().await;
    let mut busy = node.connect().await;
    busy.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    until("the vendor got the request", || !vendor.seen.lock().expect("lock").is_empty()).await;
    node.stop.send(true).expect("sends");
    assert_eq!(read_all(&mut idle).await, "", "an idle connection closes");
    until("new connections are refused", || std::net::TcpStream::connect(node.address).is_err()).await;
    go.store(true, Ordering::SeqCst);
    let answer = read_all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    until("nothing is left", || node.services.inflight.now() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_accepted_just_before_the_stop_is_served() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    until("it is accepted", || node.front.fresh() == 1).await;
    node.stop.send(true).expect("sends");
    client.write_all(chat(BODY, "").as_bytes()).await.expect("writes");
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    until("it no longer holds the drain", || node.front.fresh() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_change_hands_without_a_refused_connection() {
    let vendor = Vendor::fixed(OK).await;
    let node = Node::start(vendor.address, Options::default()).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let socket = dir.path().join("upgrade.sock");
    // A second listener of the same node stands for the running process.
    let old = bind(&listener(None, SourcePolicy::Any), None).expect("binds");
    let address = old.address;
    let handover = Handover::new(socket.clone(), std::slice::from_ref(&old));
    let old_stop = run_successor(old, &node.front);
    let failures = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stop_load = Arc::new(AtomicBool::new(false));
    let (log, stop) = (failures.clone(), stop_load.clone());
    let load = tokio::spawn(async move {
        let mut served = 0;
        while !stop.load(Ordering::SeqCst) {
            match one_request(address).await {
                Ok(()) => served += 1,
                Err(error) => log.lock().expect("lock").push(error),
            }
        }
        served
    });
    let received = tokio::task::spawn_blocking(move || receive_listeners(&socket));
    tokio::task::spawn_blocking(move || handover.send()).await.expect("joins").expect("sends");
    let inherited = received.await.expect("joins").expect("receives");
    let successor = bind(&listener(None, SourcePolicy::Any), Some(&inherited)).expect("inherits");
    assert_eq!(successor.address, address);
    let _new_stop = run_successor(successor, &node.front);
    old_stop.send(true).expect("sends");
    for _ in 0..50 {
        one_request(address).await.expect("the successor serves");
    }
    stop_load.store(true, Ordering::SeqCst);
    let served = load.await.expect("joins");
    assert!(served > 0);
    assert_eq!(*failures.lock().expect("lock"), Vec::<String>::new());
}

async fn one_request(address: std::net::SocketAddr) -> Result<(), String> {
    let mut client = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
    client.write_all(chat(BODY, "connection: close\r\n").as_bytes()).await.map_err(|e| format!("write: {e}"))?;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.map_err(|e| format!("read: {e}"))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("got {text:?}")) }
}
