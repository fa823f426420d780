//! What is taken away is gone on the very next request after the write returns;
//! what is changed disturbs nothing in flight; a poisoned snapshot is refused
//! and seen; a node out of contact is reported.

use std::time::{Duration, Instant};

use clawgate_tests::http::{Connection, Request, Response, call};
use clawgate_tests::stack::{Service, Stack, chat_body, chat_request, enroll};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
}

#[test]
fn a_deleted_bot_is_refused_on_the_next_request() {
    let stack = Stack::start();
    let _other = stack.ordinary("sk-one", "stays");
    for round in 0..20 {
        let bot = stack.bot(&format!("goes-{round}"), json!({}));
        assert_eq!(stack.chat(&bot).status(), 200);
        let deleted = stack.rest().delete(&format!("/bots/{}", bot.hostname));
        assert_eq!(deleted.head.header("preference-applied"), Some("wait"), "{:?}", deleted.head);
        let rollout = deleted.head.header("x-clawgate-rollout").unwrap_or_default();
        assert!(rollout.contains("acked=1") && rollout.contains("pending=0"), "{rollout}");
        refused(&stack.chat(&bot), 401, "bot_token_invalid");
    }
}

#[test]
fn a_deleted_key_is_not_used_on_the_next_request() {
    let stack = Stack::start();
    let bot = stack.bot("worker", json!({}));
    let base = stack.mock.url("/v1");
    for round in 0..10 {
        let key = stack.key("openai", &format!("sk-{round}"), &base, &[], json!({}));
        assert_eq!(stack.chat(&bot).status(), 200);
        stack.rest().delete(&format!("/provider-keys/{key}"));
        let answer = stack.chat(&bot);
        refused(&answer, 503, "no_key_available");
        assert!(answer.text().contains("none_configured"), "{}", answer.text());
        assert_eq!(answer.head.header("x-should-retry"), Some("false"), "{:?}", answer.head);
    }
}

#[test]
fn suspension_kill_and_token_deletion_end_live_streams() {
    let stack = Stack::start();
    let _other = stack.ordinary("sk-one", "stays");
    for name in ["suspended", "without-token", "deleted", "killed"] {
        let bot = stack.bot(name, json!({}));
        // A token that the stream was not opened with saves nothing.
        stack.rest().post(&format!("/bots/{name}/tokens"), &json!({ "name": "another" }));
        let slow = Request::post("/v1/openai/chat/completions", &chat_body(true))
            .bearer(&bot.token)
            .header("x-mock-tps", "10")
            .header("x-mock-tokens", "600");
        let mut connection = Connection::open(stack.data()).expect("connected");
        connection.send(&slow).expect("sent");
        assert_eq!(connection.head("POST").expect("head").status, 200);
        assert!(connection.piece().expect("a piece").is_some());
        let start = Instant::now();
        let rest = stack.rest();
        match name {
            "suspended" => drop(rest.post("/bots/suspended/suspend", &json!({}))),
            "deleted" => drop(rest.delete("/bots/deleted")),
            "killed" => drop(rest.post("/bots/killed/kill", &json!({}))),
            _ => {
                let tokens = rest.all(&format!("/bots/{name}/tokens"));
                let id = tokens[0]["id"].as_str().unwrap_or_default();
                rest.delete(&format!("/bots/{name}/tokens/{id}"));
            }
        }
        let mut last = Vec::new();
        while let Ok(Some(piece)) = connection.piece() {
            last = piece;
            assert!(start.elapsed() < Duration::from_secs(5), "{name}: the stream goes on");
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{name}: ended after {:?}", start.elapsed());
        let last = String::from_utf8_lossy(&last).into_owned();
        assert!(!last.contains("[DONE]"), "{name}: looks complete: {last}");
        let next = stack.chat(&bot);
        if name == "suspended" {
            refused(&next, 403, "bot_suspended");
        } else {
            refused(&next, 401, "bot_token_invalid");
        }
    }
}

#[test]
fn a_stream_outlives_the_deletion_of_another_token() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-one", "worker");
    let rest = stack.rest();
    let other = rest.post("/bots/worker/tokens", &json!({ "name": "another" }));
    let slow = Request { body: chat_body(true).to_string().into_bytes(), ..chat_request(&bot.token) }
        .header("x-mock-tps", "40")
        .header("x-mock-tokens", "40");
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&slow).expect("sent");
    assert_eq!(connection.head("POST").expect("head").status, 200);
    rest.delete(&format!("/bots/worker/tokens/{}", other["id"].as_str().unwrap_or_default()));
    let mut text = Vec::new();
    while let Some(piece) = connection.piece().expect("the stream goes on") {
        text.extend(piece);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_revoked_node_loses_its_stream_and_is_not_waited_for() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-one", "worker");
    let mut second = Service::node("second", stack.folder.path());
    second.spec.set("--private-upstreams", "127.0.0.0/8:*");
    enroll(&stack.control, &mut second);
    second.start();
    let rest = stack.rest();
    let nodes = until_good(
        "two connected nodes",
        Duration::from_secs(10),
        || rest.all("/nodes"),
        |nodes| nodes.iter().filter(|node| node["connected"] == true).count() == 2,
    );
    until_good(
        "the second node's first configuration",
        Duration::from_secs(10),
        || call(second.address("data"), &chat_request(&bot.token)).status(),
        |status| *status == 200,
    );
    // The node of the stack was there first; ids sort by creation.
    let revoked = nodes.iter().filter_map(|node| node["id"].as_str()).max().unwrap_or_default();
    rest.delete(&format!("/nodes/{revoked}"));
    let write = rest.call(Request::post("/bots", &json!({ "hostname": "later" })));
    let rollout = write.head.header("x-clawgate-rollout").unwrap_or_default().to_owned();
    assert_eq!(rollout, "acked=1 nacked=0 pending=0 disconnected=0");
    until("the end of the node's stream", Duration::from_secs(15), || {
        let log = second.process().log();
        log.lines().any(|line| line.contains("no stream") && line.contains("revoked")).then_some(())
    });
    let late = stack.bot("unknown-to-it", json!({}));
    assert_eq!(stack.chat(&late).status(), 200);
    refused(&call(second.address("data"), &chat_request(&late.token)), 401, "bot_token_invalid");
    assert_eq!(rest.all("/nodes").len(), 1);
}

#[test]
fn a_key_edit_changes_nothing_in_flight() {
    let stack = Stack::start();
    let bot = stack.bot("worker", json!({}));
    let key = stack.key("openai", "sk-before", &stack.mock.url("/v1"), &[], json!({}));
    let slow = chat_request(&bot.token);
    let slow = Request { body: chat_body(true).to_string().into_bytes(), ..slow }
        .header("x-mock-tps", "40")
        .header("x-mock-tokens", "40");
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&slow).expect("sent");
    assert_eq!(connection.head("POST").expect("head").status, 200);
    let rest = stack.rest();
    rest.patch(&format!("/provider-keys/{key}"), &json!({ "tags": ["moved"], "weight": 3 }));
    rest.post(&format!("/provider-keys/{key}/rotate"), &json!({ "secret": "sk-after" }));
    let mut text = Vec::new();
    while let Some(piece) = connection.piece().expect("the stream goes on") {
        text.extend(piece);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    assert_eq!(stack.chat(&bot).status(), 200);
    let entries = stack.mock.entries();
    let key_of = |entry: &Value| entry["credentials"][0]["sha256"].as_str().unwrap_or_default().to_owned();
    assert_eq!(key_of(&entries[0]), clawgate_tests::mock::sha256_hex("sk-before"));
    assert_eq!(key_of(&entries[1]), clawgate_tests::mock::sha256_hex("sk-after"));
}

#[test]
fn a_poisoned_snapshot_is_refused_and_seen() {
    let stack = Stack::start_with(|control, _| {
        control.spec.environment.push(("CLAWGATE_TEST_POISON".to_owned(), "1".to_owned()));
    });
    let bot = stack.ordinary("sk-one", "worker");
    assert_eq!(stack.chat(&bot).status(), 200);
    let rest = stack.rest();
    let poisoned = rest.call(Request::post("/test/poison", &json!({ "poison": true })));
    assert!(poisoned.status() < 300, "{} {}", poisoned.status(), poisoned.text());
    let nodes = until_good(
        "the node's refusal",
        Duration::from_secs(10),
        || rest.get("/nodes"),
        |nodes| nodes["data"][0]["nack_reason"].as_str().is_some_and(|r| !r.is_empty()),
    );
    assert_eq!(nodes["data"][0]["connected"], true, "{nodes}");
    assert_eq!(stack.chat(&bot).status(), 200, "the old snapshot stays");
    let write = rest.call(Request::post("/bots", &json!({ "hostname": "unseen" })));
    let rollout = write.head.header("x-clawgate-rollout").unwrap_or_default();
    assert!(rollout.contains("nacked=1"), "{rollout}");
    assert_eq!(write.head.header("preference-applied"), None, "{:?}", write.head);
    let healed = rest.call(Request::post("/test/poison", &json!({ "poison": false })));
    assert!(healed.status() < 300, "{} {}", healed.status(), healed.text());
    until_good(
        "recovery",
        Duration::from_secs(10),
        || rest.get("/nodes"),
        |nodes| nodes["data"][0]["nack_reason"].as_str().is_none_or(str::is_empty),
    );
    assert_eq!(stack.chat(&bot).status(), 200);
}

#[test]
fn a_configuration_that_ends_the_node_is_tried_three_times_and_then_refused() {
    let mut stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("CLAWGATE_TEST_CRASH_ON".to_owned(), "deadly".to_owned()));
    });
    let bot = stack.ordinary("sk-one", "worker");
    assert_eq!(stack.chat(&bot).status(), 200);
    let _pending =
        stack.rest().call(Request::post("/bots", &json!({ "hostname": "deadly" })).header("prefer", "respond-async"));
    for round in 0..3 {
        let status = until("the node's end", Duration::from_secs(20), || stack.node.process().ended());
        assert!(!status.success(), "round {round}: {status}");
        // The third one stays.
        if round < 2 { stack.node.start_unannounced() } else { stack.node.start() }
    }
    let refused = until_good(
        "the node's refusal",
        Duration::from_secs(20),
        || stack.rest().get("/nodes"),
        |nodes| nodes["data"][0]["nack_reason"].as_str().is_some_and(|reason| reason.contains("ended 3 times")),
    );
    assert_eq!(refused["data"][0]["connected"], true, "{refused}");
    assert_eq!(stack.chat(&bot).status(), 200, "the one before is served");
    stack.rest().delete("/bots/deadly");
    let later = stack.bot("later", json!({}));
    assert_eq!(stack.chat(&later).status(), 200, "and the next good one is taken");
}

#[test]
fn a_node_out_of_contact_is_reported_as_disconnected() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-one", "worker");
    let mut second = Service::node("second", stack.folder.path());
    second.spec.set("--private-upstreams", "127.0.0.0/8:*");
    enroll(&stack.control, &mut second);
    second.start();
    until_good(
        "two connected nodes",
        Duration::from_secs(10),
        || stack.rest().get("/nodes"),
        |nodes| nodes["data"].as_array().is_some_and(|n| n.iter().filter(|n| n["connected"] == true).count() == 2),
    );
    let write = stack.rest().call(Request::post("/bots", &json!({ "hostname": "seen-by-both" })));
    let rollout = write.head.header("x-clawgate-rollout").unwrap_or_default().to_owned();
    assert!(rollout.contains("acked=2") && rollout.contains("disconnected=0"), "{rollout}");
    assert_eq!(call(second.address("data"), &chat_request(&bot.token)).status(), 200);

    second.kill();
    let seen = until_good(
        "the dead node to be reported",
        Duration::from_secs(30),
        || {
            let mut rename = Request::post("/bots/worker", &json!({ "name": "n" }));
            rename.method = "PATCH".to_owned();
            let write = stack.rest().call(rename);
            write.head.header("x-clawgate-rollout").unwrap_or_default().to_owned()
        },
        |rollout| rollout.contains("disconnected=1"),
    );
    assert!(seen.contains("acked=1"), "{seen}");
    assert_eq!(stack.chat(&bot).status(), 200);
    stack.node.terminate();
}
