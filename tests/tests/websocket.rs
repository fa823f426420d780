//! WebSockets through the gateway: what passes is what was sent, each response
//! is a usage row that says what its vendor billed, whoever breaks off when; and
//! what a bot may not use does not get to a vendor.

use std::time::{Duration, Instant};

use clawgate_tests::http::Request;
use clawgate_tests::stack::{Bot, Stack};
use clawgate_tests::wait::{until, until_good};
use clawgate_tests::websocket::{BINARY, CLOSE, ENDS, MORE, PING, PONG, Peer, Seen, TEXT, Vendor, connect, leaks};
use serde_json::{Value, json};

const SECRET: &str = "sk-websocket-provider-key";
const REALTIME: &str = "/v1/openai/realtime?model=gpt-realtime";
const LIVE: &str = "/v1/google/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

fn stack() -> (Stack, Vendor) {
    let (stack, vendor) = (Stack::start(), Vendor::start());
    stack.key("openai", SECRET, &format!("http://{}/v1", vendor.address), &[], json!({}));
    stack.key("google", SECRET, &format!("http://{}/v1beta", vendor.address), &[], json!({}));
    (stack, vendor)
}

fn open(stack: &Stack, bot: &Bot, target: &str) -> Peer {
    let bearer = format!("Bearer {}", bot.token);
    let (head, peer) = connect(stack.data(), target, &[("authorization", &bearer)]);
    assert_eq!(head.status, 101, "{head:?}");
    peer
}

/// The session that ended last, once there are `count`.
fn ended(vendor: &Vendor, count: usize) -> Seen {
    until_good("the session's end at the vendor", ENDS, || vendor.sessions(), |all| all.len() >= count)
        .pop()
        .expect("at least one")
}

/// Rows of responses, oldest first, and those of sessions.
fn rows(stack: &Stack, bot: &Bot, count: usize) -> (Vec<Value>, Vec<Value>) {
    let mut rows = stack.rest().usage_rows(&bot.hostname, count);
    assert_eq!(rows.len(), count, "{rows:#?}");
    rows.sort_by_key(|row| row["request_id"].as_str().unwrap_or_default().to_owned());
    rows.into_iter().partition(|row| row["stream"] == true)
}

fn equals_ledger(rows: &[Value], ledger: &[Value]) {
    assert_eq!(rows.len(), ledger.len(), "{rows:#?}");
    for (row, billed) in rows.iter().zip(ledger) {
        let counts = [&row["input_tokens"], &row["cached_input_tokens"], &row["output_tokens"]];
        assert_eq!(counts, [&billed["input"], &billed["cached"], &billed["output"]], "{row}");
        assert_eq!((&row["usage_source"], &row["outcome"]), (&json!("upstream"), &json!("ok")), "{row}");
    }
}

#[test]
fn each_response_is_a_row_that_says_what_was_billed() {
    let (stack, vendor) = stack();
    let bot = stack.bot("talker", json!({}));
    let offered = format!("realtime, openai-insecure-api-key.{}", bot.token);
    let (head, mut client) = connect(
        stack.data(),
        REALTIME,
        &[
            ("sec-websocket-protocol", &offered),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("x-request-id", "my-session"),
        ],
    );
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.header("sec-websocket-protocol"), Some("realtime"));
    assert!(head.header("x-clawgate-request-id").is_some() && head.header("sec-websocket-extensions").is_none());
    for padding in [0, 10, 70_000, 1_200_000] {
        client.send(PING, true, b"idle").expect("sent");
        client.say(&json!({"type": "response.create", "padding": padding})).expect("sent");
        let done = client.until("response.done");
        assert_eq!(done["padding"].as_str().map(str::len), Some(padding));
    }
    client.close(1000).expect("sent");
    assert_eq!(client.json().expect_err("closed").code(), Some(1000));
    let seen = ended(&vendor, 1);
    assert_eq!((seen.received == client.sent, seen.sent == client.received), (true, true), "bytes are the same");
    assert_eq!(seen.end, "1000");
    let upstream = seen.head.to_ascii_lowercase();
    assert!(!leaks(&seen.head, &bot.token) && !upstream.contains("sec-websocket-extensions"), "{upstream}");
    assert!(upstream.contains("sec-websocket-protocol: realtime\r\n"), "{upstream}");
    assert_eq!(upstream.matches(SECRET).count(), 1, "{upstream}");

    let (responses, sessions) = rows(&stack, &bot, 5);
    equals_ledger(&responses, &vendor.ledger());
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!((&session["status_code"], &session["outcome"]), (&json!(101), &json!("ok")), "{session}");
    assert_eq!((&session["model"], &session["usage_source"]), (&json!("gpt-realtime"), &json!("none")), "{session}");
    for row in &responses {
        assert_eq!((&row["model"], &row["endpoint"]), (&json!("gpt-realtime"), &json!("realtime")), "{row}");
        assert_eq!((&row["session_id"], &row["client_request_id"]), (&session["request_id"], &json!("my-session")));
        assert!(row["ttft_ms"].as_f64().is_some() && row["provider_key_id"] == session["provider_key_id"], "{row}");
    }
}

/// A small generator, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("fits") % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }
}

#[test]
fn whatever_frames_are_sent_arrive_as_they_were() {
    let (stack, vendor) = stack();
    // With a list of models every message is looked at before it goes on.
    for (number, models) in [json!([]), json!(["gpt-realtime"])].into_iter().enumerate() {
        let bot = stack.bot(&format!("echo-{number}"), json!({ "allowed_models": models }));
        let mut client = open(&stack, &bot, REALTIME);
        let mut random = Random(7 + number as u64);
        let (mut came, mut echoes) = (0, 0);
        for round in 0..60 {
            let pieces = 1 + random.below(3);
            let size = [0, 1, 125, 126, 3000, 70_000][random.below(6)];
            let mut bytes = Vec::new();
            for piece in 0..pieces {
                let opcode = if piece > 0 { MORE } else { [TEXT, BINARY][random.below(2)] };
                let noise = random.bytes(size);
                // Looked at, it has to be JSON.
                let text = noise.iter().map(|byte| char::from(b'a' + byte % 26)).collect::<String>();
                let payload = match (number, piece) {
                    (0, _) => noise,
                    (_, 0) => format!("{{\"type\":\"noise\",\"a\":\"{text}").into_bytes(),
                    _ => text.into_bytes(),
                };
                let last = piece + 1 == pieces;
                let payload = if number == 1 && last { [payload, b"\"}".to_vec()].concat() } else { payload };
                bytes.extend(client.encode(opcode, last, &payload));
                echoes += 1;
                if random.below(4) == 0 {
                    bytes.extend(client.encode(PING, true, b"still there?"));
                    echoes += 1;
                }
            }
            if round == 30 {
                // By itself: nobody reads echoes while this is sent.
                let big = format!("{{\"type\":\"big\",\"x\":\"{}\"}}", "x".repeat(1 << 20));
                bytes = client.encode(TEXT, true, big.as_bytes());
                echoes = came + 1;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + random.below(40_000)).min(rest.len()));
                client.send_raw(piece).expect("sent");
                rest = after;
            }
            while came < echoes {
                assert_ne!(client.frame().expect("an echo").opcode, CLOSE);
                came += 1;
            }
        }
        client.close(4321).expect("sent");
        assert_eq!(client.json().expect_err("closed").code(), Some(4321));
        let seen = ended(&vendor, number + 1);
        assert!(seen.received == client.sent && seen.sent == client.received, "bytes are the same");
        let (responses, sessions) = rows(&stack, &bot, 1);
        assert_eq!((responses.len(), &sessions[0]["outcome"]), (0, &json!("ok")));
    }
}

#[test]
fn whoever_breaks_off_when_leaves_a_row() {
    let (stack, vendor) = stack();
    for (number, (name, outcome, at_vendor)) in [
        ("vendor-drops", "interrupted", "dropped"),
        ("client-drops", "client_disconnect", "1001"),
        ("vendor-leaves", "ok", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let bot = stack.bot(name, json!({}));
        let mut client = open(&stack, &bot, REALTIME);
        client.say(&json!({"type": "response.create"})).expect("sent");
        client.until("response.done");
        client.say(&json!({"type": "stall"})).expect("sent");
        client.until("response.created");
        match name {
            "vendor-drops" => {
                client.say(&json!({"type": "drop"})).expect("sent");
                assert!(client.frame().is_err(), "the connection ended");
            }
            "client-drops" => client.drop_connection(),
            _ => {
                client.say(&json!({"type": "leave", "code": 4000})).expect("sent");
                assert_eq!(client.json().expect_err("closed").code(), Some(4000));
                client.close(4000).expect("sent");
            }
        }
        let seen = ended(&vendor, number + 1);
        assert!(at_vendor.is_empty() || seen.end == at_vendor, "{name}: {}", seen.end);
        let (responses, sessions) = rows(&stack, &bot, 3);
        let outcomes: Vec<&str> = responses.iter().filter_map(|row| row["outcome"].as_str()).collect();
        let broken = if outcome == "ok" { "interrupted" } else { outcome };
        assert_eq!((outcomes, &sessions[0]["outcome"]), (vec!["ok", broken], &json!(outcome)), "{name}");
        assert_eq!(responses[1]["usage_source"], "none", "{name}");
    }
}

#[test]
fn a_killed_node_has_counted_every_response_that_was_complete() {
    let (mut stack, vendor) = stack();
    let bot = stack.bot("survivor", json!({}));
    let mut client = open(&stack, &bot, REALTIME);
    for _ in 0..4 {
        client.say(&json!({"type": "response.create"})).expect("sent");
        client.until("response.done");
    }
    client.say(&json!({"type": "stall"})).expect("sent");
    client.until("response.created");
    // Seen complete is written down: killed at once, not a moment later.
    stack.node.kill();
    stack.node.start();
    stack.wait_node_ready();
    let (responses, sessions) = rows(&stack, &bot, 6);
    let (complete, open): (Vec<Value>, Vec<Value>) = responses.into_iter().partition(|row| row["outcome"] == "ok");
    equals_ledger(&complete, &vendor.ledger());
    let unseen: Vec<&Value> = open.iter().chain(&sessions).map(|row| &row["outcome"]).collect();
    assert_eq!(unseen, ["indeterminate", "indeterminate"]);
}

/// The code of the error that was said last before the close frame, and that
/// frame's code and reason.
fn refused(client: &mut Peer) -> (String, u16, String) {
    let mut code = String::new();
    loop {
        match client.json() {
            Ok(message) => code = message["error"]["code"].as_str().unwrap_or_default().to_owned(),
            Err(close) => {
                let reason = String::from_utf8_lossy(close.payload.get(2..).unwrap_or_default()).into_owned();
                return (code, close.code().unwrap_or_default(), reason);
            }
        }
    }
}

#[test]
fn what_a_bot_may_not_use_does_not_get_to_a_vendor() {
    let (stack, vendor) = stack();
    let bot = stack.bot("narrow", json!({ "allowed_models": ["gpt-realtime", "gemini-live-*"] }));
    let bearer = format!("Bearer {}", bot.token);
    for target in ["/v1/openai/realtime?model=gpt-other", "/v1/openai/realtime"] {
        assert_eq!(connect(stack.data(), target, &[("authorization", &bearer)]).0.status, 403, "{target}");
    }
    let mut client = open(&stack, &bot, REALTIME);
    client.say(&json!({"type": "response.create"})).expect("sent");
    client.until("response.done");
    let before = client.sent.len();
    let audio = json!({"input": {"transcription": {"model": "whisper-1"}}});
    client.say(&json!({"type": "session.update", "session": {"audio": audio}})).expect("sent");
    let (code, close, reason) = refused(&mut client);
    assert_eq!((code.as_str(), close), ("model_not_allowed", 1008), "{reason}");
    assert!(reason.starts_with("model_not_allowed: "), "{reason}");
    let seen = ended(&vendor, 1);
    assert_eq!(seen.received[..before], client.sent[..before]);
    assert_eq!((seen.received.len(), seen.end.as_str()), (before + 8, "1001"), "only a goodbye followed");

    // Gemini names its model in the first message.
    for (number, (model, allowed)) in [("gemini-live-2", true), ("gemini-other", false)].into_iter().enumerate() {
        let mut client = open(&stack, &bot, LIVE);
        client.say(&json!({"setup": {"model": format!("models/{model}")}})).expect("sent");
        if allowed {
            assert_eq!(client.json().expect("an echo")["setup"]["model"], "models/gemini-live-2");
            client.say(&json!({"clientContent": {"turns": []}})).expect("sent");
            while client.json().expect("a message").get("usageMetadata").is_none() {}
            client.close(1000).expect("sent");
            assert_eq!(client.json().expect_err("closed").code(), Some(1000));
        } else {
            let (code, close, reason) = refused(&mut client);
            assert_eq!((code.as_str(), close), ("", 1008));
            assert!(reason.starts_with("model_not_allowed: "), "{reason}");
            assert_eq!(ended(&vendor, 2 + number).received.len(), 8, "only a goodbye");
        }
    }
    let (responses, sessions) = rows(&stack, &bot, 7);
    equals_ledger(&responses, &vendor.ledger());
    assert_eq!(responses[1]["model"], "gemini-live-2");
    let codes: Vec<&Value> = sessions.iter().map(|row| &row["error_code"]).collect();
    let refusals = codes.iter().filter(|code| code.as_str() == Some("model_not_allowed")).count();
    assert_eq!(refusals, 4, "{codes:?}");
}

#[test]
fn limits_hold_within_a_session() {
    let (stack, vendor) = stack();
    let counted =
        stack.bot("counted", json!({ "quotas": [{"metric": "total_tokens", "window": "day", "limit": 1_000_000}] }));
    let bearer = format!("Bearer {}", counted.token);
    let (head, _) = connect(stack.data(), REALTIME, &[("authorization", &bearer)]);
    assert_eq!(head.status, 403, "a quota on tokens cannot be held within a session: {head:?}");
    // The session is one request, so two responses are left.
    let few = stack.bot("few", json!({ "quotas": [{"metric": "requests", "window": "day", "limit": 3}] }));
    let mut client = open(&stack, &few, REALTIME);
    for _ in 0..2 {
        client.say(&json!({"type": "response.create"})).expect("sent");
        client.until("response.done");
    }
    client.say(&json!({"type": "response.create"})).expect("sent");
    let (code, close, _) = refused(&mut client);
    assert!(code == "quota_exceeded" || code == "quota_pending", "{code}");
    assert_eq!(close, 1008);
    let (responses, sessions) = rows(&stack, &few, 4);
    equals_ledger(&responses[..2], &vendor.ledger()[..2]);
    assert_eq!((&responses[2]["outcome"], &sessions[0]["error_code"]), (&json!("interrupted"), &json!(code)));
    let quotas = until("the quota's use", Duration::from_secs(10), || {
        let quotas = stack.rest().get("/bots/few/quotas");
        (quotas["data"][0]["used"].as_i64()? >= 4).then_some(quotas)
    });
    // The one that was cut off had begun: it counts, and shows.
    assert_eq!((&quotas["data"][0]["used"], &quotas["data"][0]["overrun"]), (&json!(4), &json!(1)), "{quotas}");
}

#[test]
fn a_suspended_bot_is_told_goodbye() {
    let (stack, vendor) = stack();
    let bot = stack.bot("outcast", json!({}));
    let mut client = open(&stack, &bot, REALTIME);
    client.send(PING, true, b"").expect("sent");
    assert_eq!(client.frame().expect("a frame").opcode, PONG);
    let began = Instant::now();
    let _ = stack.rest().call(Request::post("/bots/outcast/suspend", &json!({})));
    let (code, close, _) = refused(&mut client);
    assert_eq!((code.as_str(), close), ("bot_suspended", 1008));
    assert!(began.elapsed() < ENDS, "{:?}", began.elapsed());
    assert_eq!(ended(&vendor, 1).end, "1001");
}
