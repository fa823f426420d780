//! Bots and their tokens.

use serde_json::json;

use crate::common::Control;

#[tokio::test]
async fn a_bot_lives() {
    let control = Control::start().await;
    let body = json!({
        "hostname": "worker-1", "name": "Worker", "labels": {"team": "a"}, "tags": ["fast"],
        "allowed_vendors": ["openai"], "allowed_models": ["gpt-*"], "model_aliases": {"best": "openai/gpt-4o"},
        "fallbacks": {"gpt-4o": ["gpt-4o-mini"]}, "key_strategy": "sticky", "on_disconnect": "drain",
        "default_max_tokens": 1000, "include_usage": "never", "permissions": ["account_resources"],
        "limits": {"requests_per_minute": 60, "max_concurrency": 4}, "adapter": "external",
    });
    let answer = control.call("POST", "/bots").json(&body).send().await;
    let bot = answer.ok(201);
    assert_eq!(answer.header("etag"), "\"v1\"");
    assert_eq!(answer.header("location"), "/api/v1/bots/worker-1");
    assert!(answer.header("x-clawgate-rollout").starts_with("acked=0 nacked=0 pending=0"), "{answer:?}");
    assert_eq!(answer.header("preference-applied"), "wait");
    assert!(bot["token"].as_str().expect("token").starts_with("cgb_"));
    assert!(bot["base_urls"]["openai"].as_str().expect("url").ends_with("/v1/openai"));
    for (field, value) in body.as_object().expect("object") {
        match field.as_str() {
            "limits" => assert_eq!(bot["limits"]["requests_per_minute"], 60),
            _ => assert_eq!(&bot[field], value, "{field}"),
        }
    }
    let read = control.get("/bots/worker-1").await;
    assert!(read.get("token").is_none(), "a token is shown once");

    let changed = control
        .call("PATCH", "/bots/worker-1")
        .json(&json!({"name": "Renamed", "default_max_tokens": null, "tags": []}))
        .send()
        .await;
    let bot = changed.ok(200);
    assert_eq!(
        (bot["name"].as_str(), &bot["default_max_tokens"], &bot["tags"]),
        (Some("Renamed"), &json!(null), &json!([]))
    );
    assert_eq!((bot["key_strategy"].as_str(), changed.header("etag")), (Some("sticky"), "\"v2\""));

    for (verb, suspended) in [("suspend", true), ("suspend", true), ("resume", false)] {
        let bot = control.call("POST", &format!("/bots/worker-1/{verb}")).send().await.ok(200);
        assert_eq!(bot["suspended"], suspended, "{verb}");
    }
    for verb in ["start", "stop", "restart"] {
        control.call("POST", &format!("/bots/worker-1/{verb}")).send().await.problem(409, "not_run_by_us");
    }
    control.call("POST", "/bots").json(&json!({"hostname": "worker-1"})).send().await.refuses_conflict("hostname");
    assert_eq!(control.get("/bots/stats").await["total"], 1);

    assert_eq!(control.call("DELETE", "/bots/worker-1").send().await.status, 204);
    control.call("GET", "/bots/worker-1").send().await.problem(404, "not_found");
    control.call("DELETE", "/bots/worker-1").send().await.problem(404, "not_found");
    control.stop().await;
}

#[tokio::test]
async fn tokens_come_and_go() {
    let control = Control::start().await;
    let first = control.create("/bots", json!({"hostname": "b"})).await["token"].as_str().expect("token").to_owned();
    let second = control.create("/bots/b/tokens", json!({"name": "ci", "expires_at": "2099-01-01T00:00:00Z"})).await;
    assert!(second["token"].as_str().expect("token").starts_with("cgb_"));
    assert_eq!(
        (second["name"].as_str(), second["expires_at"].as_str()),
        (Some("ci"), Some("2099-01-01T00:00:00.000000Z"))
    );
    let list = control.get("/bots/b/tokens").await;
    assert_eq!(list["data"].as_array().expect("data").len(), 2);
    assert!(!list.to_string().contains(&first));

    // Without a body the answer is a token as well.
    assert_eq!(control.call("POST", "/bots/b/tokens").send().await.status, 201);
    let rotated = control.call("POST", "/bots/b/token").json(&json!({"overlap_seconds": 60})).send().await.ok(201);
    let tokens = control.get("/bots/b/tokens").await;
    for token in tokens["data"].as_array().expect("data") {
        let ends = token["expires_at"].as_str();
        assert_eq!(token["id"] == rotated["id"], ends.is_none(), "{token}");
    }
    let path = format!("/bots/b/tokens/{}", second["id"].as_str().expect("id"));
    assert_eq!(control.call("DELETE", &path).send().await.status, 204);
    control.call("DELETE", &path).send().await.problem(404, "not_found");

    let wrong = json!({"expires_at": "tomorrow"});
    control.call("POST", "/bots/b/tokens").json(&wrong).send().await.refuses(&[("expires_at", "format")]);
    control.stop().await;
}

#[tokio::test]
async fn a_killed_bot_has_no_token_until_it_gets_a_new_one() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b"})).await;
    control.create("/bots/b/tokens", json!({"name": "ci"})).await;
    let bot = control.call("POST", "/bots/b/kill").send().await.ok(200);
    assert_eq!((&bot["enabled"], &bot["suspended"]), (&json!(true), &json!(false)));
    let revoked = |tokens: serde_json::Value| {
        let data = tokens["data"].as_array().expect("data").clone();
        (data.iter().filter(|token| !token["revoked_at"].is_null()).count(), data.len())
    };
    assert_eq!(revoked(control.get("/bots/b/tokens").await), (2, 2));
    // Again is no error, and a new token lets the bot back in.
    control.call("POST", "/bots/b/kill").send().await.ok(200);
    control.create("/bots/b/tokens", json!({})).await;
    assert_eq!(revoked(control.get("/bots/b/tokens").await), (2, 3));
    let rows = control.get("/audit?action=bot.kill").await;
    assert_eq!(rows["data"][1]["detail"]["tokens_revoked"], 2, "{rows}");
    control.call("POST", "/bots/none/kill").send().await.problem(404, "not_found");
    control.stop().await;
}

#[tokio::test]
async fn an_update_of_an_old_version_is_refused() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b"})).await;
    let read = control.call("GET", "/bots/b").send().await;
    let tag = read.header("etag").to_owned();
    let patch = |tag: &str| {
        let call = control.call("PATCH", "/bots/b").header("if-match", tag).json(&json!({"name": "n"}));
        async move { call.send().await }
    };
    assert_eq!(patch(&tag).await.status, 200);
    patch(&tag).await.problem(412, "precondition_failed");
    patch("\"else\"").await.problem(412, "precondition_failed");
    patch("\"v1\", \"v2\"").await.problem(400, "invalid_parameter");
    assert_eq!(patch("*").await.status, 200);
    control.call("DELETE", "/bots/b").header("if-match", &tag).send().await.problem(412, "precondition_failed");
    let tag = control.call("GET", "/bots/b").send().await.header("etag").to_owned();
    assert_eq!(control.call("DELETE", "/bots/b").header("if-match", &tag).send().await.status, 204);
    control.stop().await;
}

#[tokio::test]
async fn old_paths_answer() {
    let control = Control::start().await;
    let bearer = format!("Bearer {}", control.token);
    let call = |method: &str, path: &str| control.raw(method, path).header("authorization", &bearer);
    call("POST", "/api/bot").json(&json!({"hostname": "b"})).send().await.ok(201);
    for path in
        ["/api/bot", "/api/bot/b", "/api/bot/b/usage/stats?period=day", "/api/v1/instances/b", "/api/provider-key"]
    {
        assert_eq!(call("GET", path).send().await.status, 200, "{path}");
    }
    call("POST", "/api/v1/instances/b/start").send().await.problem(409, "not_run_by_us");
    control.stop().await;
}
