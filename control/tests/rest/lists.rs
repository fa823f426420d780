//! Pages.

use serde_json::{Value, json};

use crate::common::Control;

#[tokio::test]
async fn every_row_comes_once() {
    let control = Control::start().await;
    for number in 0..7 {
        control.create("/bots", json!({"hostname": format!("bot-{number}")})).await;
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = control.get(&format!("/bots?limit=3{after}")).await;
        assert_eq!(page["total"], 7);
        let rows = page["data"].as_array().expect("data");
        assert!(rows.len() <= 3);
        seen.extend(rows.iter().map(|row| row["hostname"].as_str().expect("hostname").to_owned()));
        if page["has_more"] == false {
            assert_eq!(page["next_cursor"], Value::Null);
            break;
        }
        after = format!("&after={}", page["next_cursor"].as_str().expect("cursor"));
    }
    assert_eq!(seen, (0..7).map(|number| format!("bot-{number}")).collect::<Vec<_>>());
    control.stop().await;
}

#[tokio::test]
async fn every_write_leaves_an_audit_row() {
    let control = Control::start().await;
    let project = control.create("/projects", json!({"slug": "p"})).await;
    let project = project["id"].as_str().expect("id");
    let key = control.key("k").await;
    let key = key["id"].as_str().expect("id");
    control.create("/bots", json!({"hostname": "b"})).await;
    control.call("PATCH", "/bots/b").json(&json!({"name": "n"})).send().await.ok(200);
    control.call("POST", "/bots/b/suspend").send().await.ok(200);
    control.call("POST", "/bots/b/resume").send().await.ok(200);
    let token = control.create("/bots/b/tokens", json!({})).await;
    let token = token["id"].as_str().expect("id");
    control.call("DELETE", &format!("/bots/b/tokens/{token}")).send().await;
    control.call("POST", "/bots/b/token").json(&json!({})).send().await.ok(201);
    control.call("PATCH", &format!("/provider-keys/{key}")).json(&json!({"weight": 2})).send().await.ok(200);
    control
        .call("POST", &format!("/provider-keys/{key}/rotate"))
        .json(&json!({"secret": "sk-y-0000000000000000"}))
        .send()
        .await
        .ok(200);
    control.call("PATCH", &format!("/projects/{project}")).json(&json!({"name": "q"})).send().await.ok(200);
    let api = control.create("/api-tokens", json!({"name": "t", "role": "viewer"})).await;
    control.call("DELETE", &format!("/api-tokens/{}", api["id"].as_str().expect("id"))).send().await;
    control.create("/vendors", json!({"slug": "v", "base_url": "https://v.example.com"})).await;
    control.call("PATCH", "/vendors/v").json(&json!({"title": "w"})).send().await.ok(200);
    for path in ["/bots/b", &format!("/provider-keys/{key}"), "/vendors/v", &format!("/projects/{project}")] {
        assert_eq!(control.call("DELETE", path).send().await.status, 204, "{path}");
    }
    let audit = control.get("/audit?limit=200").await;
    assert_eq!(audit["total"], Value::Null);
    let actions: Vec<&str> =
        audit["data"].as_array().expect("data").iter().map(|row| row["action"].as_str().expect("action")).collect();
    for action in [
        "project.create",
        "provider_key.create",
        "bot.create",
        "bot.update",
        "bot.suspend",
        "bot.resume",
        "bot_token.create",
        "bot_token.delete",
        "bot_token.rotate",
        "provider_key.update",
        "provider_key.rotate",
        "project.update",
        "api_token.create",
        "api_token.revoke",
        "vendor.create",
        "vendor.update",
        "bot.delete",
        "provider_key.delete",
        "vendor.delete",
        "project.delete",
    ] {
        assert_eq!(actions.iter().filter(|found| **found == action).count(), 1, "{action} in {actions:?}");
    }
    // A refused write leaves none.
    let before = actions.len();
    control.call("POST", "/bots").json(&json!({"hostname": "???"})).send().await;
    control.call("DELETE", "/bots/nobody").send().await;
    assert_eq!(control.get("/audit?limit=200").await["data"].as_array().expect("data").len(), before);
    let seqs: Vec<u64> =
        audit["data"].as_array().expect("data").iter().map(|row| row["seq"].as_u64().expect("seq")).collect();
    assert!(seqs.is_sorted_by(|a, b| a > b), "newest first");
    control.stop().await;
}

#[tokio::test]
async fn waiting_for_nodes_is_a_preference() {
    let control = Control::start().await;
    let create = |name: &'static str, prefer: &'static str| {
        let call = control.call("POST", "/projects").header("prefer", prefer).json(&json!({"slug": name}));
        async move { call.send().await }
    };
    let answer = create("a", "respond-async").await;
    assert_eq!((answer.status, answer.header("preference-applied")), (201, "respond-async"));
    let answer = create("b", "wait=1").await;
    assert_eq!(answer.header("preference-applied"), "wait");
    assert_eq!(answer.header("x-clawgate-rollout"), "acked=0 nacked=0 pending=0 disconnected=0");
    control.stop().await;
}
