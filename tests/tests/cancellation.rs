//! A client may go at any moment of an exchange. Whenever it does, its place is
//! free again, nothing stays reserved, what a vendor saw is a usage row, and what
//! no vendor saw is not charged.
//!
//! Ground truth is the mock vendor's ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clawgate_tests::config::verify;
use clawgate_tests::hang_up::{FullListener, Leave, at_vendor, event_ends, leave, metric};
use clawgate_tests::http::{Connection, Request, call};
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

const SECRET: &str = "sk-cancellation-provider-key";
/// Of the two keys of one vendor: the first fails, the second is silent.
const FAILS: &str = "sk-cancellation-fails";
const SILENT: &str = "sk-cancellation-silent";
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: u64 = 50_000_000;

/// Answers are cut at so many places, from none of their bytes to all.
fn cuts() -> usize {
    if verify() { 120 } else { 14 }
}

/// What a vendor may have seen of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Never,
    Perhaps,
    Surely,
}

/// One bot's way through all moments, with JSON or a stream, its answers
/// cancelled or drained when it goes.
struct Walk<'a> {
    stack: &'a Stack,
    full: &'a FullListener,
    bot: Bot,
    stream: bool,
    drains: bool,
    visits: BTreeMap<String, Sent>,
}

/// One exchange of it.
struct Visit<'a> {
    walk: &'a Walk<'a>,
    id: String,
    how: Leave,
}

type Moment = (&'static str, Sent, fn(&Visit<'_>));

const MOMENTS: [Moment; 21] = [
    // First: it may take its place only when its client has long gone, and what
    // comes next needs none.
    ("just sent", Sent::Perhaps, |visit| visit.just_sent()),
    ("connected", Sent::Never, |visit| visit.part(|_| 0)),
    ("in the request line", Sent::Never, |visit| visit.part(|_| 10)),
    ("in the headers", Sent::Never, |visit| visit.part(|head| head / 2)),
    ("before the headers' end", Sent::Never, |visit| visit.part(|head| head - 2)),
    ("before the body", Sent::Never, |visit| visit.part(|head| head)),
    ("in the body, at its begin", Sent::Never, |visit| visit.part(|head| head + 1)),
    ("in the body", Sent::Never, |visit| visit.part(|head| head + 40)),
    ("before the body's end", Sent::Never, |visit| visit.part(|_| usize::MAX)),
    ("in a chunk of the body", Sent::Never, |visit| visit.in_chunk()),
    ("told to go on with the body", Sent::Never, |visit| visit.told_to_go_on()),
    ("waiting for a connection", Sent::Never, |visit| visit.connecting()),
    ("vendor silent", Sent::Surely, |visit| visit.silent("openai")),
    ("vendor silent, half closed", Sent::Surely, |visit| visit.half_closed()),
    ("second key after the first failed", Sent::Surely, |visit| visit.silent("deepseek")),
    ("before the first byte", Sent::Surely, |visit| visit.before_first_byte()),
    ("not reading", Sent::Surely, |visit| visit.not_reading()),
    ("vendor breaks off later", Sent::Surely, |visit| visit.paced("reset")),
    ("vendor goes on to its end", Sent::Surely, |visit| visit.paced("none")),
    ("second request of a connection", Sent::Surely, |visit| visit.second()),
    ("answered, not read", Sent::Surely, |visit| visit.unread()),
];

impl Walk<'_> {
    fn go(&mut self) {
        for how in [Leave::Close, Leave::Reset] {
            for (name, sent, act) in MOMENTS {
                self.visit(name, sent, how, act);
            }
        }
        for cut in 0..cuts() {
            let how = if cut % 2 == 0 { Leave::Close } else { Leave::Reset };
            self.visit(&format!("cut {cut}"), Sent::Surely, how, |visit| visit.at_byte("openai", cut));
        }
        let further: &[usize] = if self.stream { &[2, 6, 10] } else { &[] };
        for &cut in further {
            for dialect in ["anthropic", "google"] {
                self.visit(&format!("{dialect} cut {cut}"), Sent::Surely, Leave::Close, |visit| {
                    visit.at_byte(dialect, cut);
                });
            }
        }
    }

    fn visit(&mut self, name: &str, sent: Sent, how: Leave, act: impl Fn(&Visit<'_>)) {
        let id = format!("{}/{name}/{how:?}", self.bot.hostname).replace(' ', "-");
        act(&Visit { walk: self, id: id.clone(), how });
        // Its bot has one place only.
        let probe = || {
            let request = Request::post("/v1/openai/chat/completions", &chat_body(false)).bearer(&self.bot.token);
            call(self.stack.data(), &request.header("x-request-id", &format!("probe/{id}"))).status()
        };
        until_good(&format!("the place after {id}"), PATIENCE, probe, |status| *status == 200);
        self.visits.insert(id, sent);
    }
}

impl Visit<'_> {
    fn request(&self, dialect: &str) -> Request {
        let (target, body) = ask(dialect, self.walk.stream);
        Request::post(&format!("/v1/{dialect}{target}"), &body)
            .bearer(&self.walk.bot.token)
            .header("x-request-id", &self.id)
    }

    fn open(&self) -> Connection {
        Connection::open(self.walk.stack.data()).expect("connected")
    }

    fn sent(&self, request: &Request) -> Connection {
        let mut connection = self.open();
        connection.send(request).expect("sent");
        connection
    }

    fn leave(&self, connection: Connection) {
        leave(connection, self.how);
    }

    /// What a drained vendor takes, and nobody waits for.
    const fn long(&self) -> &'static str {
        if self.walk.drains { "150" } else { "60000" }
    }

    /// The first bytes only; never all of them.
    fn part(&self, end: impl Fn(usize) -> usize) {
        let mut connection = self.open();
        let bytes = self.request("openai").encode(self.walk.stack.data());
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        connection.send_raw(&bytes[..end(head).min(bytes.len() - 1)]).expect("sent");
        self.leave(connection);
    }

    fn without_length(&self, header: &str) -> Vec<u8> {
        let Request { target, .. } = self.request("openai");
        let Visit { walk, id, .. } = self;
        format!(
            "POST {target} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\nx-request-id: {id}\r\n\
             content-type: application/json\r\n{header}\r\n\r\n",
            walk.bot.token
        )
        .into_bytes()
    }

    fn in_chunk(&self) {
        let mut connection = self.open();
        let head = self.without_length("transfer-encoding: chunked");
        connection.send_raw(&[&head[..], b"40\r\n{\"model\":"].concat()).expect("sent");
        self.leave(connection);
    }

    fn told_to_go_on(&self) {
        let mut connection = self.open();
        connection.send_raw(&self.without_length("content-length: 100\r\nexpect: 100-continue")).expect("sent");
        let mut told = [0; 12];
        std::io::Read::read_exact(&mut connection.stream(), &mut told).expect("an answer");
        assert_eq!(&told, b"HTTP/1.1 100");
        self.leave(connection);
    }

    fn connecting(&self) {
        let full = self.walk.full;
        let connection = self.sent(&self.request("groq"));
        until("the gateway to wait for a connection", PATIENCE, || (full.waiting() > 0).then_some(()));
        self.leave(connection);
    }

    fn just_sent(&self) {
        let request = self.request("openai").header("x-mock-delay", self.long());
        self.leave(self.sent(&request));
    }

    fn silent(&self, vendor: &str) {
        let mut request = self.request(vendor);
        if vendor == "openai" {
            request = request.header("x-mock-delay", self.long());
        }
        let connection = self.sent(&request);
        at_vendor(self.walk.stack, &self.id);
        self.leave(connection);
    }

    fn half_closed(&self) {
        let connection = self.sent(&self.request("openai").header("x-mock-delay", self.long()));
        at_vendor(self.walk.stack, &self.id);
        connection.stream().shutdown(std::net::Shutdown::Write).expect("half closed");
        self.leave(connection);
    }

    /// The head is there, of a stream; a whole answer's is not yet.
    fn before_first_byte(&self) {
        let mut connection = self.sent(&self.request("openai").header("x-mock-ttft", self.long()));
        at_vendor(self.walk.stack, &self.id);
        if self.walk.stream {
            assert_eq!(connection.head("POST").expect("a head").status, 200);
        }
        self.leave(connection);
    }

    fn not_reading(&self) {
        let request = self.request("openai").header("x-mock-tokens", "60000");
        let connection = self.sent(&request);
        until("something to read", PATIENCE, || {
            let mut byte = [0];
            connection.stream().peek(&mut byte).ok().filter(|read| *read > 0)
        });
        self.leave(connection);
    }

    /// In the middle of what takes its time.
    fn paced(&self, fault: &str) {
        let fault = format!("{fault}{}", if fault == "none" { "" } else { "@2000" });
        let request = self.request("openai").header("x-mock-tokens", "40").header("x-mock-tps", "200");
        let mut connection = self.sent(&request.header("x-mock-fault", &fault));
        at_vendor(self.walk.stack, &self.id);
        if self.walk.stream {
            assert_eq!(connection.head("POST").expect("a head").status, 200);
            connection.piece().expect("a piece");
        }
        self.leave(connection);
    }

    fn second(&self) {
        let mut connection = self.open();
        let first = self.request("openai").header("x-mock-tokens", "1");
        let first = Request { headers: first.headers.into_iter().filter(|h| h.0 != "x-request-id").collect(), ..first };
        assert_eq!(connection.call(&first).expect("answered").status(), 200);
        connection.send(&self.request("openai").header("x-mock-delay", self.long())).expect("sent");
        at_vendor(self.walk.stack, &self.id);
        self.leave(connection);
    }

    fn unread(&self) {
        let connection = self.sent(&self.request("openai"));
        until("the answer", PATIENCE, || {
            let mut bytes = [0; 4096];
            connection.stream().peek(&mut bytes).ok().filter(|read| *read > 100)
        });
        self.leave(connection);
    }

    /// When all that the vendor wrote before it fell silent has come.
    fn at_byte(&self, dialect: &str, cut: usize) {
        let Walk { stack, stream, drains, .. } = *self.walk;
        let whole = whole_answer(stack, dialect, stream);
        let at = whole.len() * cut / (cuts() - 1);
        let mut request = self.request(dialect).header("x-mock-fault", &format!("stall@{at}"));
        if drains {
            request = request.header("x-mock-stall-ms", "100");
        }
        let mut connection = self.sent(&request);
        if !stream && at < whole.len() {
            // An answer of known length may be passed on when more of it is there.
            at_vendor(stack, &self.id);
            return self.leave(connection);
        }
        assert_eq!(connection.head("POST").expect("a head").status, 200);
        let comes = if stream { in_whole_events(&whole[..at]) } else { at };
        let mut came = 0;
        while came < comes {
            came += connection.piece().expect("a piece").expect("more").len();
        }
        self.leave(connection);
    }
}

/// Path below the vendor, and body.
fn ask(dialect: &str, stream: bool) -> (&'static str, Value) {
    let said = "Say something about lobsters.";
    let mut body = match dialect {
        "anthropic" => json!({ "model": "claude-sonnet-4-5", "max_tokens": 600,
            "messages": [{ "role": "user", "content": said }] }),
        "google" => {
            let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": said }] }] });
            return ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", body);
        }
        _ => chat_body(false),
    };
    if stream {
        body["stream"] = json!(true);
    }
    (if dialect == "anthropic" { "/v1/messages" } else { "/chat/completions" }, body)
}

/// What the vendor answers to the request as the gateway sends it.
fn whole_answer(stack: &Stack, dialect: &str, stream: bool) -> Vec<u8> {
    let (target, mut body) = ask(dialect, stream);
    if dialect == "openai" && stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let prefix = if dialect == "openai" { "/v1" } else { "" };
    let request = Request::post(&format!("{prefix}{target}"), &body).header("x-request-id", "direct");
    call(stack.mock.address, &request).body
}

/// Bytes of the events that are whole, less the usage event that the client had
/// not asked for.
fn in_whole_events(bytes: &[u8]) -> usize {
    let mut begin = 0;
    let event = |end| String::from_utf8_lossy(&bytes[std::mem::replace(&mut begin, end)..end]).into_owned();
    let events: Vec<String> = event_ends(bytes).into_iter().map(event).collect();
    events.iter().filter(|event| !event.contains("\"choices\":[]")).map(String::len).sum()
}

/// What the bot is charged for is what its vendor saw, and nothing is held.
fn balanced(walk: &Walk<'_>) {
    let Walk { stack, bot, visits, .. } = walk;
    let rest = stack.rest();
    let entries = stack.mock.entries();
    let id = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let own = |id: &str| id.trim_start_matches("probe/").starts_with(&format!("{}/", bot.hostname));
    let seen: BTreeSet<String> = entries.iter().map(|entry| id(entry, "request_id")).filter(|id| own(id)).collect();
    for (visit, sent) in visits {
        let expected = *sent == Sent::Perhaps || (*sent == Sent::Surely) == seen.contains(visit);
        assert!(expected, "{visit}: the vendor saw it: {}", seen.contains(visit));
    }
    let rows = until_good(
        "a row of each exchange",
        PATIENCE,
        || rest.all(&format!("/usage/logs?bot={}", bot.hostname)),
        |rows| {
            let ids: BTreeSet<String> = rows.iter().map(|row| id(row, "client_request_id")).collect();
            seen.is_subset(&ids)
        },
    );
    let (mut tokens, mut requests, mut once) = (0, 0, BTreeSet::new());
    for row in &rows {
        let id = id(row, "client_request_id");
        let charged = row["total_tokens"].as_u64();
        if row["outcome"] == "refused" || !(seen.contains(&id) || id.is_empty()) {
            assert_eq!(charged.unwrap_or(0), 0, "no vendor saw it: {row}");
            continue;
        }
        assert!(id.is_empty() || once.insert(id), "twice: {row}");
        requests += 1;
        tokens += charged.or(row["reserved"].as_u64()).expect("tokens");
    }
    let billed =
        |entry: &Value| entry["billed_input"].as_u64().unwrap_or(0) + entry["billed_output"].as_u64().unwrap_or(0);
    let billed: u64 = entries.iter().filter(|entry| own(&id(entry, "request_id"))).map(billed).sum();
    println!("{}: {} visits, {requests} dispatched, {tokens} charged, {billed} billed", bot.hostname, visits.len());
    assert!(tokens * 10 >= billed * 9, "{tokens} charged, {billed} billed");
    let quotas = || rest.get(&format!("/bots/{}/quotas", bot.hostname))["data"].clone();
    let of = |quotas: &Value, metric: &str, name: &str| {
        let mut all = quotas.as_array().expect("quotas").iter();
        all.find(|quota| quota["metric"] == metric).map(|quota| quota[name].clone()).expect("a quota")
    };
    let charged =
        |quotas: &Value| of(quotas, "total_tokens", "used") == tokens && of(quotas, "requests", "used") == requests;
    until_good(&format!("{tokens} tokens and {requests} requests"), PATIENCE, quotas, charged);
    // More than there ever was: a node that has nothing in use gives all back.
    let mut large = chat_body(false);
    large["max_tokens"] = json!(LIMIT * 2);
    let large = Request::post("/v1/openai/chat/completions", &large).bearer(&bot.token);
    until_good(
        "a refusal",
        PATIENCE,
        || call(stack.data(), &large).code(),
        |code| code == "quota_reservation_too_large",
    );
    until_good("nothing reserved", PATIENCE, quotas, |quotas| of(quotas, "total_tokens", "reserved") == 0);
}

fn prepared(stack: &Stack, full: &FullListener) {
    let _ordinary = stack.ordinary(SECRET, "ordinary");
    for (secret, priority) in [(FAILS, 2), (SILENT, 1)] {
        stack.key("deepseek", secret, &stack.mock.url("/v1"), &[], json!({ "priority": priority }));
    }
    stack.key("groq", "sk-nobody", &format!("http://{}/v1", full.address), &[], json!({}));
}

/// What the two keys of one vendor do.
fn rule(stack: &Stack, secret: &str, knobs: &Value) {
    let rule = Request::post("/__mock/rules", &json!({ "credential": sha256_hex(secret), "knobs": knobs }));
    assert_eq!(call(stack.mock.address, &rule).status(), 200);
}

fn walk(stack: &Stack, full: &FullListener, drains: bool) {
    let stalled = if drains { 150 } else { 60_000 };
    rule(stack, FAILS, &json!({ "status": 503 }));
    rule(stack, SILENT, &json!({ "delay": stalled }));
    let mut walks = [("json", false), ("stream", true)].map(|(name, stream)| {
        let hostname = format!("{name}-{}", if drains { "drained" } else { "cancelled" });
        let policy = if drains { "drain" } else { "cancel" };
        let more = json!({ "on_disconnect": policy, "key_strategy": "priority", "default_max_tokens": 4096 });
        let bot = stack.bot(&hostname, more);
        let limits =
            json!({ "max_concurrency": 1, "requests_per_minute": 100_000, "tokens_per_minute": 1_000_000_000 });
        stack.rest().put(&format!("/bots/{hostname}/limits"), &limits);
        let quota = |metric: &str| json!({ "metric": metric, "window": "total", "limit": LIMIT });
        stack.rest().put(&format!("/bots/{hostname}/quotas"), &json!([quota("total_tokens"), quota("requests")]));
        Walk { stack, full, bot, stream, drains, visits: BTreeMap::new() }
    });
    std::thread::scope(|scope| walks.iter_mut().for_each(|walk| _ = scope.spawn(move || walk.go())));
    until_good("no exchange at the node", PATIENCE, || metric(&stack.node, "clawgate_inflight"), |now| *now == 0);
    walks.iter().for_each(balanced);
}

#[test]
fn nothing_leaks_wherever_a_client_goes_and_its_answer_is_cancelled() {
    let (stack, full) = (Stack::start(), FullListener::start());
    prepared(&stack, &full);
    walk(&stack, &full, false);
}

#[test]
fn nothing_leaks_wherever_a_client_goes_and_its_answer_is_drained() {
    let (stack, full) = (Stack::start(), FullListener::start());
    prepared(&stack, &full);
    walk(&stack, &full, true);
}

#[test]
fn nothing_leaks_when_a_client_goes_while_it_waits_for_a_quota() {
    let stack = Stack::start();
    let _ordinary = stack.ordinary(SECRET, "ordinary");
    let bot = stack.bot("waiting", json!({ "default_max_tokens": 1000 }));
    let quotas = json!([{ "metric": "total_tokens", "window": "total", "limit": 1500 }]);
    stack.rest().put("/bots/waiting/quotas", &quotas);
    let request = |id: &str| {
        let body = chat_body(id == "first");
        Request::post("/v1/openai/chat/completions", &body).bearer(&bot.token).header("x-request-id", id)
    };
    let inflight = |wanted: i64| {
        let now = || metric(&stack.node, "clawgate_inflight");
        until_good(&format!("{wanted} exchanges"), PATIENCE, now, |now| *now == wanted);
    };
    let mut first = Connection::open(stack.data()).expect("connected");
    first.send(&request("first").header("x-mock-ttft", "60000")).expect("sent");
    assert_eq!(first.head("POST").expect("a head").status, 200);
    for turn in 0..12 {
        let mut second = Connection::open(stack.data()).expect("connected");
        second.send(&request(&format!("waiting-{turn}"))).expect("sent");
        inflight(2);
        leave(second, if turn % 2 == 0 { Leave::Close } else { Leave::Reset });
        inflight(1);
    }
    leave(first, Leave::Close);
    inflight(0);
    let entries = stack.mock.entries();
    assert_eq!(entries.len(), 1, "only what was held was sent: {entries:#?}");
    let rows = stack.rest().usage_rows("waiting", 13);
    let refused = |row: &&Value| row["error_code"] == "quota_pending" && row["total_tokens"].is_null();
    assert_eq!(rows.iter().filter(refused).count(), 12, "{rows:#?}");
    // What the first one left is all there.
    let row = rows.iter().find(|row| row["client_request_id"] == "first").expect("its row");
    let charged = row["total_tokens"].as_u64().or(row["reserved"].as_u64()).expect("tokens");
    let quota = || stack.rest().get("/bots/waiting/quotas")["data"][0].clone();
    until_good("what is charged", PATIENCE, quota, |quota| quota["used"] == charged);
}
