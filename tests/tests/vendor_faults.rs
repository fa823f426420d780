//! What can go wrong on the wire between gateway and vendor, at every place of an
//! answer, with another key to go to and without: the bot gets an error that its
//! SDK knows, nothing hangs, and nothing is sent twice once a byte was passed on.

use std::time::{Duration, Instant};

use clawgate_tests::config::verify;
use clawgate_tests::edge::authority::Authority;
use clawgate_tests::edge::faulty::{Fault, Faulty};
use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::stack::{Bot, Stack, chat_body};
use serde_json::json;

/// Bytes of an answer.
const SIZE: usize = 64 << 10;
/// Until a vendor's silence is an error, in milliseconds.
const SILENCE: &str = "1500";
/// The longest a request may take: a deadline and a second, for each key.
const LONGEST: Duration = Duration::from_secs(5);

/// A node with short deadlines; `alone` has only the faulty vendor's key, and
/// `pooled` a good one behind it.
struct House {
    stack: Stack,
    faulty: Faulty,
    alone: Bot,
    pooled: Bot,
}

/// What one request came to.
#[derive(Debug)]
struct Seen {
    answer: Response,
    took: Duration,
    /// Requests that the faulty vendor and the good one got.
    asked: (usize, usize),
}

impl House {
    fn start() -> Self {
        let stack = Stack::start_with(|_, node| {
            for name in ["HEAD", "IDLE"] {
                let name = format!("CLAWGATE_UPSTREAM_{name}_TIMEOUT_MS");
                node.spec.environment.push((name, SILENCE.to_owned()));
            }
        });
        let faulty = Faulty::start(SIZE);
        let base = format!("http://{}/v1", faulty.address);
        stack.key("openai", "sk-faulty", &base, &["faulty", "pool"], json!({ "priority": 10 }));
        stack.key("openai", "sk-good", &stack.mock.url("/v1"), &["pool"], json!({ "priority": 1 }));
        let alone = stack.bot("alone", json!({ "tags": ["faulty"] }));
        let pooled = stack.bot("pooled", json!({ "tags": ["pool"], "key_strategy": "priority" }));
        Self { stack, faulty, alone, pooled }
    }

    fn ask(&self, bot: &Bot, streams: bool, fault: Option<Fault>) -> Seen {
        let mut request = Request::post("/v1/openai/chat/completions", &chat_body(streams)).bearer(&bot.token);
        if let Some(fault) = fault {
            request = request.header("x-fault", &fault.text());
        }
        let before = (self.faulty.requests(), self.stack.mock.requests());
        let began = Instant::now();
        let answer = call(self.stack.data(), &request);
        let took = began.elapsed();
        let asked = (self.faulty.requests() - before.0, self.stack.mock.requests() - before.1);
        Seen { answer, took, asked }
    }

    /// The fault struck before a head came: the other key answers, or the bot is
    /// told.
    fn before_the_head(&self, streams: bool, fault: Fault, refusals: &[(u16, &str)], goes_on: bool) {
        let told = self.ask(&self.alone, streams, Some(fault));
        let got = (told.answer.status(), told.answer.code());
        assert!(
            refusals.iter().any(|(status, code)| (*status, *code) == (got.0, got.1.as_str())),
            "{fault:?}: {told:?}"
        );
        assert!(told.answer.json()["error"]["message"].is_string(), "no error of OpenAI's kind: {told:?}");
        assert!(told.took < LONGEST && told.asked.1 == 0, "{fault:?}: {told:?}");
        let pooled = self.ask(&self.pooled, streams, Some(fault));
        let wanted = if goes_on { (200, 1) } else { (got.0, 0) };
        assert_eq!((pooled.answer.status(), pooled.asked.1), wanted, "{fault:?}: {pooled:?}");
        assert!(pooled.took < LONGEST && pooled.asked.0 == 1, "{fault:?}: {pooled:?}");
    }

    /// It struck within the body: what came is passed on, the end is no good one,
    /// and no other key is asked.
    fn within_the_body(&self, streams: bool, fault: Fault) {
        for bot in [&self.alone, &self.pooled] {
            let seen = self.ask(bot, streams, Some(fault));
            let (answer, whole) = (&seen.answer, self.faulty.body(streams));
            assert_eq!((answer.status(), seen.asked), (200, (1, 0)), "{fault:?}: {seen:?}");
            assert!(seen.took < LONGEST, "{fault:?} took {:?}", seen.took);
            let text = answer.text();
            let told = text.rfind("\n\nevent: error\ndata: ");
            let passed = told.unwrap_or(answer.body.len());
            assert!(told.is_some() || answer.cut.is_some(), "{fault:?} looks complete");
            assert!(passed < whole.len() && whole.starts_with(&answer.body[..passed]), "{fault:?}: other bytes");
        }
    }

    /// After it an ordinary request is answered as ever.
    fn goes_on(&self, after: &str) {
        for (bot, streams) in [(&self.alone, false), (&self.alone, true), (&self.pooled, false)] {
            let seen = self.ask(bot, streams, None);
            let good = seen.answer.status() == 200 && seen.answer.body == self.faulty.body(streams);
            let text = seen.answer.text();
            let stripped = streams && text.ends_with("data: [DONE]\n\n") && !text.contains("usage");
            assert!(good || stripped, "after {after}: {seen:?}");
        }
    }
}

#[test]
fn a_reset_at_any_place_is_told_and_nothing_is_sent_twice() {
    let house = House::start();
    let step = if verify() { 1 << 10 } else { 4 << 10 };
    for streams in [false, true] {
        house.before_the_head(streams, Fault::Reset(0), &[(502, "upstream_connect"), (502, "upstream_protocol")], true);
        house.before_the_head(
            streams,
            Fault::Reset(30),
            &[(502, "upstream_protocol"), (502, "upstream_connect")],
            true,
        );
        for after in (1 << 10..SIZE).step_by(step) {
            house.within_the_body(streams, Fault::Reset(after));
        }
        house.goes_on("resets");
    }
}

#[test]
fn silence_is_waited_for_once() {
    let house = House::start();
    for streams in [false, true] {
        // It may be at work on the request: no other key is asked.
        house.before_the_head(streams, Fault::Stall(0), &[(504, "upstream_timeout")], false);
        house.within_the_body(streams, Fault::Stall(8 << 10));
    }
    house.goes_on("silence");
    // A slow one is no silent one.
    let slow = house.ask(&house.alone, false, Some(Fault::Drip(4)));
    assert_eq!((slow.answer.status(), slow.answer.body.as_slice()), (200, house.faulty.body(false)), "{:?}", slow.took);
    assert!(slow.took >= Duration::from_secs(3), "{:?}", slow.took);
}

#[test]
fn broken_framing_is_never_a_good_end_and_spoils_no_other_answer() {
    let house = House::start();
    for _ in 0..5 {
        let short = house.ask(&house.alone, false, Some(Fault::Short));
        assert_eq!((short.answer.status(), short.answer.body.as_slice()), (200, house.faulty.body(false)));
        // What followed on the vendor's connection is nobody's answer.
        house.goes_on("an answer longer than announced");
    }
    let long = house.ask(&house.alone, false, Some(Fault::Long));
    assert!(long.answer.cut.is_some() || long.answer.status() >= 500, "{:?}", long.answer.head);
    let bad = house.ask(&house.alone, true, Some(Fault::BadChunk));
    let told = bad.answer.cut.is_some() || bad.answer.text().contains("\"error\"");
    assert!(told && bad.took < LONGEST, "{:?} {}", bad.answer.cut, bad.took.as_millis());
    house.goes_on("broken framing");
}

#[test]
fn answers_before_the_answer_are_bounded() {
    let house = House::start();
    let few = house.ask(&house.alone, false, Some(Fault::Informational(3)));
    assert_eq!((few.answer.status(), few.answer.body.as_slice()), (200, house.faulty.body(false)));
    house.before_the_head(false, Fault::Informational(2000), &[(502, "upstream_protocol")], true);
    house.before_the_head(false, Fault::Switch, &[(502, "upstream_protocol")], true);
    house.goes_on("interim answers");
}

#[test]
fn a_vendor_whose_certificate_is_over_gets_no_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::fresh();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.certificate()).expect("written");
    let stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("SSL_CERT_FILE".to_owned(), roots.display().to_string()));
    });
    let (good, over) = (authority.server(false), authority.server(true));
    for (name, vendor) in [("good", &good), ("over", &over)] {
        let base = format!("https://localhost:{}/v1", vendor.address.port());
        stack.key("openai", &format!("sk-{name}"), &base, &[name], json!({}));
        stack.bot(name, json!({ "tags": [name] }));
    }
    let ask = |name: &str| {
        let token = stack.rest().post(&format!("/bots/{name}/tokens"), &json!({ "name": "test" }));
        let token = token["token"].as_str().expect("a token").to_owned();
        call(stack.data(), &Request::post("/v1/openai/chat/completions", &chat_body(false)).bearer(&token))
    };
    let answer = ask("good");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(good.seen().iter().any(|request| request.contains("sk-good")), "{:?}", good.seen());
    let answer = ask("over");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_tls"), "{}", answer.text());
    assert!(over.seen().is_empty(), "it was told: {:?}", over.seen());
}
