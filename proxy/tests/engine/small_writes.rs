//! TCP_NODELAY on both legs.
//!
//! In a conversation, a byte that follows an unacknowledged one is held back by
//! Nagle's algorithm until the receiver's delayed acknowledgement, some 40 ms
//! later. The same conversation is held through a tunnel and, turn about, over a
//! plain connection that has Nagle's algorithm on; the tunnel, with two sockets
//! of the node in it, must still be far quicker. Load slows both.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Node, Options, PATIENCE, TOKEN, Vendor, read_until};

/// Rounds of the conversation; in the first dozen a kernel acknowledges at once.
const ROUNDS: usize = 41;

#[tokio::test(flavor = "multi_thread")]
async fn small_writes_are_not_held_back_on_either_leg() {
    let (tunnelled, mut arrivals) = mpsc::channel(1);
    let vendor = Vendor::start(move |_, mut stream: TcpStream| {
        let tunnelled = tunnelled.clone();
        async move {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            tunnelled.send(stream).await.ok()?;
            None
        }
    })
    .await;
    let node = Node::start(vendor.address, Options::default()).await;
    let mut client = node.connect().await;
    let request = format!(
        "GET /v1/openai/realtime?model=m HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
         authorization: Bearer {TOKEN}\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.expect("writes");
    read_until(&mut client, |text| text.ends_with("\r\n\r\n")).await;
    let mut far = arrivals.recv().await.expect("the vendor's end");
    // Our own ends hold nothing back: what is measured are the node's two.
    client.set_nodelay(true).expect("sets");
    far.set_nodelay(true).expect("sets");
    let (mut slow_near, mut slow_far) = plain_pair().await;
    for direction in ["to the vendor", "to the client"] {
        let (mut through, mut held) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (from, to) =
                if direction == "to the vendor" { (&mut client, &mut far) } else { (&mut far, &mut client) };
            through.push(round(from, to).await);
            held.push(round(&mut slow_near, &mut slow_far).await);
        }
        let (through, held) = (median(through), median(held));
        assert!(through * 2 < held, "{direction}: {through:?} through the node, {held:?} held back");
        std::mem::swap(&mut slow_near, &mut slow_far);
    }
}

/// Two ends of a connection with Nagle's algorithm on.
async fn plain_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.expect("connects"), far.expect("accepts").0);
    near.set_nodelay(false).expect("sets");
    far.set_nodelay(false).expect("sets");
    (near, far)
}

/// Two bytes there and one back: how long the second takes, which is sent when
/// the first has arrived but was not acknowledged.
async fn round(from: &mut TcpStream, to: &mut TcpStream) -> Duration {
    one_byte(from, to).await;
    let second = one_byte(from, to).await;
    one_byte(to, from).await;
    second
}

/// How long one byte takes.
async fn one_byte(from: &mut TcpStream, to: &mut TcpStream) -> Duration {
    let began = Instant::now();
    from.write_all(b"x").await.expect("writes");
    let mut byte = [0];
    tokio::time::timeout(PATIENCE, to.read_exact(&mut byte)).await.expect("in time").expect("reads");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
