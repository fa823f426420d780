//! The wire: framing both ways, splits, faults, and what the ledger says
//! about them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use common::{CHAT, CHAT_STREAM, Client, Mock};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn chunked_bodies_expect_continue_and_pipelining() {
    let mock = Mock::start().await;
    let whole = mock.post("/v1/chat/completions", &[], CHAT).await;
    let mut client = Client::connect(mock.address).await;
    let (first, second) = CHAT.split_at(20);
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n";
    client.stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(client.reply_head().await, "HTTP/1.1 100 Continue");
    let body = format!("{:x};x=1\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\ntrailer: 1\r\n\r\n", first.len(), second.len());
    // The next request is already in the same write.
    let next = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{CHAT}", CHAT.len());
    client.stream.write_all(format!("{body}{next}").as_bytes()).await.unwrap();
    assert_eq!(client.reply().await.body, whole.body);
    assert_eq!(client.reply().await.body, whole.body);
    mock.stop().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let mock = Mock::start().await;
    for (bad, status) in [
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        ("\u{1}garbage\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
    ] {
        let mut client = Client::connect(mock.address).await;
        client.stream.write_all(bad.as_bytes()).await.unwrap();
        assert_eq!(client.reply().await.status, status, "{bad}");
    }
    assert_eq!(mock.post("/v1/chat/completions", &[], CHAT).await.status, 200);
    mock.stop().await;
}

#[tokio::test]
async fn splits_change_chunks_but_no_bytes() {
    let mock = Mock::start().await;
    let plain = mock.post("/v1/chat/completions", &[], CHAT_STREAM).await;
    let mut counts = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let seed = seed.to_string();
        let split = mock.post("/v1/chat/completions", &[("x-mock-split", seed.as_str())], CHAT_STREAM).await;
        assert!(split.complete && split.body == plain.body, "seed {seed}");
        counts.insert(split.chunks);
    }
    assert!(counts.len() > 5, "{counts:?}");
    let whole = mock.post("/v1/chat/completions", &[("x-mock-split", "3")], CHAT).await;
    assert_eq!(whole.body, mock.post("/v1/chat/completions", &[], CHAT).await.body);
    mock.stop().await;
}

#[tokio::test]
async fn faults_strike_at_their_byte_and_are_recorded() {
    let mock = Mock::start().await;
    let plain = mock.post("/v1/chat/completions", &[], CHAT_STREAM).await;
    for (kind, exact) in [("close", true), ("bad_chunk", true), ("garbage", true), ("reset", false)] {
        let fault = format!("{kind}@700");
        let reply = mock.post("/v1/chat/completions", &[("x-mock-fault", &fault)], CHAT_STREAM).await;
        assert!(!reply.complete && reply.status == 200, "{kind}");
        assert!(plain.body.starts_with(&reply.body), "{kind}");
        assert!(!exact || reply.body.len() == 700, "{kind} {}", reply.body.len());
    }
    for kind in ["close@head", "reset@head", "garbage@head"] {
        assert_eq!(mock.post("/v1/chat/completions", &[("x-mock-fault", kind)], CHAT).await.status, 0, "{kind}");
    }
    let short = mock.post("/v1/chat/completions", &[("x-mock-fault", "close@50")], CHAT).await;
    assert!(!short.complete && short.body.len() == 50);
    let stalled = mock
        .post("/v1/chat/completions", &[("x-mock-fault", "stall@10"), ("x-mock-stall-ms", "30")], CHAT_STREAM)
        .await;
    assert_eq!((stalled.complete, stalled.body.len()), (false, 10));
    let ends = mock.ended(10).await;
    let ended: Vec<_> = ends.iter().map(|line| line["ended"].as_str().unwrap()).collect();
    assert_eq!(
        ended,
        [
            "complete",
            "fault_close",
            "fault_bad_chunk",
            "fault_garbage",
            "fault_reset",
            "fault_close",
            "fault_reset",
            "fault_garbage",
            "fault_close",
            "fault_stall"
        ]
    );
    assert_eq!(ends[1]["bytes_sent"], 700);
    let (sent, promised) = (ends[1]["sent_output"].as_u64().unwrap(), ends[1]["promised_output"].as_u64().unwrap());
    assert!(sent < promised && ends[1]["billed_output"] == sent);
    assert_eq!((&ends[5]["billed_input"], &ends[5]["status"]), (&0.into(), &0.into()));
    mock.stop().await;
}

#[tokio::test]
async fn gzip_and_huge_lines_keep_the_framing() {
    let mock = Mock::start().await;
    let zipped = mock.post("/v1/chat/completions", &[("x-mock-fault", "gzip")], CHAT).await;
    assert_eq!(zipped.header("content-encoding").as_deref(), Some("gzip"));
    assert!(zipped.complete && zipped.body.starts_with(&[0x1f, 0x8b]));
    let huge = mock.post("/v1/chat/completions", &[("x-mock-fault", "huge_line@900")], CHAT_STREAM).await;
    assert!(huge.complete && huge.body.len() > 1024 * 1024);
    assert_eq!(huge.events(), mock.post("/v1/chat/completions", &[], CHAT_STREAM).await.events());
    mock.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_billed_for_what_was_made() {
    let mock = Mock::start().await;
    let mut client = Client::connect(mock.address).await;
    let headers = [("x-mock-tps", "20"), ("x-mock-tokens", "1000"), ("x-request-id", "leaver")];
    client.send("POST", "/v1/chat/completions", &headers, CHAT_STREAM).await;
    assert_eq!(client.reply_head().await, "HTTP/1.1 200 OK");
    let open = mock.get("/__mock/inflight").await.json();
    assert_eq!(open["requests"][0]["request_id"], "leaver");
    drop(client);
    let ends = mock.ended(1).await;
    assert_eq!((&ends[0]["ended"], &ends[0]["request_id"]), (&"client_gone".into(), &"leaver".into()));
    assert_eq!(
        (ends[0]["billed_output"].as_u64(), ends[0]["promised_output"].as_u64()),
        (ends[0]["sent_output"].as_u64(), Some(1000))
    );
    assert!(ends[0]["sent_output"].as_u64().unwrap() < 1000);
    mock.stop().await;
}

#[tokio::test]
async fn the_ledger_has_every_request_once_and_no_secret() {
    let mock = Mock::start().await;
    let headers = [("Authorization", "Bearer sk-canary-1"), ("x-request-id", "r-1"), ("x-custom", "kept")];
    let mut client = Client::connect(mock.address).await;
    for _ in 0..3 {
        client.request("POST", "/v1/chat/completions?beta=1", &headers, CHAT).await;
    }
    client.request("POST", "/v1beta/models/g:generateContent?key=sk-canary-2", &[], "{}").await;
    let ends = mock.ended(4).await;
    let begins = mock.lines().iter().filter(|line| line["event"] == "begin").count();
    assert_eq!((ends.len(), begins), (4, 4));
    assert_eq!(ends[0]["credentials"].as_array().unwrap().len(), 1);
    assert_eq!(ends[0]["credentials"][0]["where"], "header:authorization");
    assert_eq!(ends[0]["credentials"][0]["sha256"], clawgate_mock::sha256_hex(b"sk-canary-1"));
    assert_eq!(ends[3]["credentials"][0]["where"], "query:key");
    assert_eq!((&ends[0]["query"], &ends[0]["body_len"]), (&"beta=1".into(), &CHAT.len().into()));
    assert_eq!(ends[0]["body_sha256"], clawgate_mock::sha256_hex(CHAT.as_bytes()));
    assert!(mock.lines().iter().all(|line| !line.to_string().contains("canary")));
    assert!(ends[0].to_string().contains("kept"));
    let summary = mock.get("/__mock/ledger").await.json();
    assert_eq!((&summary["requests"], &summary["completed"]), (&4.into(), &4.into()));
    assert_eq!(summary["credentials"][clawgate_mock::sha256_hex(b"sk-canary-1")]["requests"], 3);
    let billed: u64 = ends.iter().map(|line| line["billed_output"].as_u64().unwrap()).sum();
    assert_eq!(summary["output_tokens"], billed);
    mock.get("/__mock/flush").await;
    Client::connect(mock.address).await.request("POST", "/__mock/reset", &[], "").await;
    assert_eq!(mock.ledger.totals().requests, 0);
    mock.stop().await;
}

#[tokio::test]
async fn one_key_of_a_pool_can_be_made_to_fail() {
    let mock = Mock::start().await;
    let rule = format!(
        r#"{{"credential":"{}","knobs":{{"status":429,"header":"retry-after:1"}},"times":1}}"#,
        clawgate_mock::sha256_hex(b"sk-a")
    );
    assert_eq!(mock.post("/__mock/rules", &[], &rule).await.status, 200);
    let ask = async |key: &str| mock.post("/v1/chat/completions", &[("x-api-key", key)], CHAT).await.status;
    assert_eq!((ask("sk-b").await, ask("sk-a").await, ask("sk-a").await), (200, 429, 200));
    mock.stop().await;
}

#[tokio::test]
async fn stopping_records_what_was_under_way() {
    let mock = Mock::start().await;
    let mut client = Client::connect(mock.address).await;
    client.send("POST", "/v1/chat/completions", &[("x-mock-delay", "60000")], CHAT).await;
    while mock.ledger.totals().inflight == 0 {
        tokio::task::yield_now().await;
    }
    let ledger = std::sync::Arc::clone(&mock.ledger);
    mock.stop().await;
    assert_eq!((ledger.totals().inflight, ledger.totals().requests), (0, 1));
}
