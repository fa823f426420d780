//! An exchange that is dropped wherever it waits, or that a bug ends, gives back
//! all that it had taken, and what a vendor may have seen of it is in the spool.
//!
//! The connection to the bot is a script in memory that waits once at each of
//! its steps; the vendor is a socket that writes in small pieces, each when the
//! exchange waits again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use clawgate_proxy::exchange::{BodyError, Downstream, Gone, Head, Held, Length, Services, run};
use clawgate_shared::clock;
use clawgate_shared::proto::node::{self as wire, usage_record::Kind};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message as _;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::yield_now;

use crate::support::{Options, QUOTAS, TOKEN, Vendor, services};

/// More waits than an exchange has.
const WAITS: usize = 400;

/// A step of the connection to the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Body,
    Head,
    Chunk,
    Finish,
    HungUp,
}

/// A bot that sends a request and reads the answer.
struct Scripted {
    stream: bool,
    /// It hangs up after so many pieces.
    leaves_after: Option<usize>,
    /// Where it panics.
    fails: Option<Step>,
    pieces: usize,
}

impl Scripted {
    const fn new(stream: bool) -> Self {
        Self { stream, leaves_after: None, fails: None, pieces: 0 }
    }

    async fn step(&self, step: Step) {
        yield_now().await;
        assert!(self.fails != Some(step), "told to fail");
    }
}

impl Downstream for Scripted {
    fn take_head(&mut self) -> Head {
        let mut headers = HeaderMap::new();
        let token = HeaderValue::from_str(&format!("Bearer {TOKEN}")).expect("a value");
        headers.insert("authorization", token);
        headers.insert("content-length", HeaderValue::from(100));
        Head {
            method: Method::POST,
            uri: "/v1/openai/chat/completions".parse().expect("a path"),
            headers,
            source: None,
        }
    }

    async fn read_body(&mut self, _limit: usize, held: &mut Held<'_>) -> Result<Bytes, BodyError> {
        self.step(Step::Body).await;
        let body = format!(r#"{{"model":"m","messages":[],"stream":{}}}"#, self.stream);
        assert!(held.grow(body.len()), "earlier bodies are still held");
        Ok(body.into())
    }

    async fn write_head(&mut self, _: StatusCode, _: HeaderMap, _: Length) -> Result<(), Gone> {
        self.step(Step::Head).await;
        Ok(())
    }

    async fn write_chunk(&mut self, _chunk: Bytes) -> Result<(), Gone> {
        self.step(Step::Chunk).await;
        self.pieces += 1;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        self.step(Step::Finish).await;
        Ok(())
    }

    async fn hung_up(&mut self) {
        if self.fails == Some(Step::HungUp) {
            self.step(Step::HungUp).await;
        }
        if self.leaves_after.is_none_or(|pieces| self.pieces < pieces) {
            std::future::pending::<()>().await;
        }
        yield_now().await;
    }

    async fn read_upgraded(&mut self) -> Option<Bytes> {
        None
    }

    fn abort(&mut self) {}
}

/// How often the exchange has waited.
type Waits = watch::Sender<usize>;

/// A request that is not renamed.
const FIRST_MODEL: &str = r#""model":"m""#;

/// Answers in pieces, the next one when the exchange has waited since the last;
/// `refuses`: with an error, where the body holds this.
async fn slow_vendor(waits: &Waits, refuses: Option<&'static str>) -> Vendor {
    let waits = waits.subscribe();
    Vendor::start(move |seen, mut stream| {
        let mut waits = waits.clone();
        async move {
            let asked = String::from_utf8_lossy(&seen.body).into_owned();
            let streams = asked.contains("\"stream\":true");
            let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}"#;
            let mut pieces = vec![String::new()];
            if refuses.is_some_and(|model| asked.contains(model)) {
                pieces.push("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n".into());
                pieces.push("{}".into());
            } else if streams {
                pieces.push(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".into(),
                );
                let frame =
                    |inner: &str| format!("data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",{inner}}}\n\n");
                let delta = frame(r#""choices":[{"index":0,"delta":{"content":"hello"}}]"#);
                let end = frame(&format!(r#""choices":[],{usage}"#));
                let frames = [&delta, &delta, &delta, &end, "data: [DONE]\n\n"];
                pieces.extend(frames.map(|frame| format!("{:x}\r\n{frame}\r\n", frame.len())));
                pieces.push("0\r\n\r\n".into());
            } else {
                let body = format!(r#"{{"id":"c","choices":[],{usage}}}"#);
                let (first, second) = body.split_at(20);
                pieces.push(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
                pieces.extend([first.to_owned(), second.to_owned()]);
            }
            for piece in pieces {
                waits.mark_unchanged();
                stream.write_all(piece.as_bytes()).await.ok()?;
                // Never again, when the exchange was dropped.
                waits.changed().await.ok()?;
            }
            Some(stream)
        }
    })
    .await
}

/// Lets `future` wait `most` times and drops it at the next; whether it ended
/// before that.
async fn dropped_after(most: usize, waits: &Waits, future: impl Future<Output = ()>) -> bool {
    let mut future = Box::pin(future);
    let mut waited = 0;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if waited == most => Poll::Ready(false),
        Poll::Pending => {
            waited += 1;
            waits.send_modify(|count| *count += 1);
            Poll::Pending
        }
    })
    .await
}

/// What the spool says of all exchanges: one OPEN, one SETTLE, or a refusal.
/// Returns what is charged per quota, and how many ended how.
fn records(services: &Services) -> (BTreeMap<String, u64>, BTreeMap<String, usize>) {
    let mut open = BTreeMap::<String, usize>::new();
    let (mut charged, mut ended) = (BTreeMap::new(), BTreeMap::new());
    // Only what is on disk is read.
    services.spool.sync();
    let logs = services.spool.pending();
    let records = logs.iter().flat_map(|log| log.read(1 << 20, 1 << 30).expect("reads").records);
    for record in records {
        match wire::UsageRecord::decode(&record[..]).expect("a record").kind {
            Some(Kind::Open(record)) => *open.entry(record.exchange_id).or_default() += 1,
            Some(Kind::Settle(record)) => {
                let opened = open.remove(&record.exchange_id).unwrap_or(0);
                assert_eq!(opened > 0, record.outcome != "refused", "{record:?}");
                // Once for each place that was tried.
                let last = usize::from(record.outcome != "ok");
                assert!(opened <= (record.tried.len() + last).max(1), "{opened} times: {record:?}");
                *ended.entry(record.outcome).or_default() += 1;
                for charge in record.charges {
                    *charged.entry(charge.quota_id).or_default() += charge.amount;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(open.is_empty(), "not settled: {open:?}");
    (charged, ended)
}

/// Everything is free again, and the slices know what the spool says.
fn nothing_leaked(services: &Services, what: &str) -> BTreeMap<String, usize> {
    assert_eq!((services.inflight.now(), services.metrics.inflight.get()), (0, 0), "{what}");
    assert_eq!(services.gates.of("bot_1").slots.taken(), 0, "{what}: a place is taken");
    let (charged, ended) = records(services);
    for (id, _) in QUOTAS {
        let window = services.slices.of(id).window(clock::boot_micros()).expect("leased");
        let recorded = charged.get(id).copied().unwrap_or(0);
        assert_eq!((window.held(), window.used()), (0, recorded), "{what}: {id}");
    }
    ended
}

async fn dropped_everywhere(stream: bool, drains: bool, leaves_after: Option<usize>, chain: bool) {
    let turns = Waits::new(0);
    let vendor = slow_vendor(&turns, chain.then_some(FIRST_MODEL)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let fallbacks: &[&str] = if chain { &["m2"] } else { &[] };
    let options = Options { counted: true, drains, fallbacks, ..Options::default() };
    let services = services(vendor.address, &options, dir.path());
    let mut waits = 0;
    loop {
        let mut down = Scripted { leaves_after, ..Scripted::new(stream) };
        let over = dropped_after(waits, &turns, run(&services, &mut down)).await;
        let ended = nothing_leaked(&services, &format!("after {waits} waits"));
        if over {
            eprintln!("{waits} waits: {ended:?}");
            let whole = if leaves_after.is_some() { "client_disconnect" } else { "ok" };
            assert!(
                waits > if leaves_after.is_some() { 1 } else { 4 }
                    && ended.contains_key("interrupted")
                    && ended.contains_key(whole),
                "{ended:?}"
            );
            return;
        }
        waits += 1;
        assert!(waits < WAITS, "it never ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_dropped_wherever_it_waits_leaks_nothing() {
    for stream in [false, true] {
        for drains in [false, true] {
            dropped_everywhere(stream, drains, None, false).await;
            dropped_everywhere(stream, drains, Some(0), false).await;
        }
    }
    dropped_everywhere(true, true, Some(2), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_dropped_wherever_it_waits_leaks_nothing_and_is_charged_once() {
    for stream in [false, true] {
        dropped_everywhere(stream, false, None, true).await;
        dropped_everywhere(stream, true, Some(0), true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_a_bug_ends_leaks_nothing() {
    for stream in [false, true] {
        let turns = Arc::new(Waits::new(0));
        let vendor = slow_vendor(&turns, None).await;
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { counted: true, ..Options::default() };
        let services = Arc::new(services(vendor.address, &options, dir.path()));
        let steps = [Step::Body, Step::Head, Step::Chunk, Step::Finish, Step::HungUp];
        for (number, step) in steps.into_iter().enumerate() {
            let (shared, turns) = (services.clone(), turns.clone());
            let failed = tokio::spawn(async move {
                let mut down = Scripted { fails: Some(step), ..Scripted::new(stream) };
                dropped_after(WAITS, &turns, run(&shared, &mut down)).await
            });
            assert!(failed.await.expect_err("it panics").is_panic());
            let ended = nothing_leaked(&services, &format!("{step:?}"));
            // The first had sent nothing yet.
            assert_eq!(ended.get("interrupted").copied().unwrap_or(0), number, "{step:?}: {ended:?}");
        }
        // The node goes on.
        assert!(dropped_after(WAITS, &turns, run(&services, &mut Scripted::new(stream))).await, "it ends");
        assert_eq!(nothing_leaked(&services, "afterwards").get("ok"), Some(&1));
    }
}

/// While there is no connection yet, no vendor knows of the request.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_sent_when_its_client_went_costs_nothing() {
    let full = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).expect("a length")).expect("listens");
    let address = full.local_addr().expect("its address");
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(stream);
    }
    for drains in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let services = services(address, &Options { counted: true, drains, ..Options::default() }, dir.path());
        run(&services, &mut Scripted { leaves_after: Some(0), ..Scripted::new(true) }).await;
        assert_eq!(nothing_leaked(&services, "connecting").get("client_disconnect"), Some(&1));
        assert!(records(&services).0.values().all(|amount| *amount == 0), "{:?}", records(&services));
    }
}
