//! What becomes of requests while the spool takes nothing.

use clawgate_proxy::exchange::WhenFull;
use clawgate_proxy::metering::SpoolOptions;
use tokio::io::AsyncWriteExt;

use crate::support::{BODY, Node, Options, Vendor, chat, read_all, until};

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

async fn ask(when_full: WhenFull) -> (String, usize, u64) {
    let vendor = Vendor::fixed(OK).await;
    let spool = SpoolOptions { limit_bytes: 1, ..SpoolOptions::default() };
    let node = Node::start(vendor.address, Options { when_full, spool, ..Options::default() }).await;
    assert!(node.services.spool.is_full());
    let mut stream = node.connect().await;
    stream.write_all(chat(BODY, "connection: close\r\n").as_bytes()).await.expect("writes");
    let answer = read_all(&mut stream).await;
    until("nothing is left", || node.services.inflight.now() == 0).await;
    let asked = vendor.seen.lock().expect("lock").len();
    (answer, asked, node.services.metrics.unmetered.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_and_the_vendor_is_not_asked() {
    let (answer, asked, unmetered) = ask(WhenFull::Refuse).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("spool_full"), "{answer}");
    assert_eq!((asked, unmetered), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_said_so_it_serves_and_counts_what_it_could_not_record() {
    let (answer, asked, unmetered) = ask(WhenFull::Serve).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((asked, unmetered), (1, 1));
}
