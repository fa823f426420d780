//! Quotas: set, read, rewritten, topped up.

use clawgate_control::ingest::{Batch, accept};
use clawgate_control::prices::Table;
use clawgate_control::quota::Books;
use clawgate_control::snapshot::rollout::Rollout;
use clawgate_shared::proto::node::{Settle, UsageRecord, usage_record::Kind};
use clawgate_shared::{clock, id};
use prost::Message as _;
use serde_json::{Value, json};

use crate::common::Control;

/// Ingests one exchange of a bot.
async fn use_up(control: &Control, bot: &Value, key: &str, model: &str, tokens: u64) {
    let db = control.db().await;
    let tenant = control.get("/tenants/default").await["id"].as_str().expect("id").to_owned();
    let settle = Settle {
        exchange_id: id::new(id::Kind::Exchange),
        at_micros: clock::now_micros(),
        tenant_id: tenant,
        bot_id: bot["id"].as_str().expect("id").into(),
        project_id: bot["project_id"].as_str().unwrap_or_default().into(),
        provider_key_id: key.into(),
        vendor: "openai".into(),
        model: model.into(),
        outcome: "ok".into(),
        status_code: 200,
        input_tokens: Some(tokens),
        output_tokens: Some(1),
        usage_source: "upstream".into(),
        ..Settle::default()
    };
    let node = id::new(id::Kind::Node);
    let records = [UsageRecord { kind: Some(Kind::Settle(settle)) }.encode_to_vec()];
    let batch = Batch { node_id: &node, epoch: 1, shard: 0, first_position: 0, records: &records, instance_id: "i" };
    let (rollout, table, books) = (Rollout::default(), Table::default(), Books::default());
    let accepted = accept(&db, &rollout, &table, &books, batch, clock::now_micros()).await.expect("taken");
    assert_eq!(accepted.events, 1);
    db.close().await;
}

fn used(answer: &Value) -> Vec<i64> {
    answer["data"].as_array().expect("data").iter().map(|quota| quota["used"].as_i64().expect("used")).collect()
}

#[tokio::test]
async fn a_quota_counts_from_the_beginning_of_its_window_and_survives_a_rewrite() {
    let control = Control::start().await;
    let project = control.create("/projects", json!({"slug": "p"})).await["id"].as_str().expect("id").to_owned();
    let key = control.key("k").await["id"].as_str().expect("id").to_owned();
    let bot = control.create("/bots", json!({"hostname": "b", "project_id": project})).await;
    use_up(&control, &bot, &key, "gpt-4o", 99).await;
    use_up(&control, &bot, "", "claude", 900).await;

    let put = |path: String, body: Value| {
        let call = control.call("PUT", &path).json(&body);
        async move { call.send().await }
    };
    let tokens = json!({"metric": "total_tokens", "window": "total", "limit": 2000});
    let set = json!([
        tokens,
        {"metric": "requests", "window": "month", "limit": 5, "action": "notify", "warn_pct": 50},
        {"metric": "input_tokens", "window": "total", "limit": 10, "model": "gpt-*", "mode": "estimate"},
    ]);
    let answer = put("/bots/b/quotas".into(), set).await;
    assert!(answer.header("x-clawgate-rollout").starts_with("acked=0"), "{answer:?}");
    let first = answer.ok(200);
    assert_eq!(used(&first), [1001, 2, 99], "{first}");
    assert_eq!((&first["data"][2]["overrun"], &first["data"][2]["reserved"]), (&json!(89), &json!(0)));
    assert_eq!((&first["data"][0]["resets_at"], &first["data"][0]["window_start"]), (&json!(null), &json!(null)));
    assert!(first["data"][1]["window_start"].as_str() < first["data"][1]["resets_at"].as_str());
    assert_eq!(control.get("/bots/b/quotas").await, first);
    assert_eq!(control.get("/bots/b").await["quotas"][1]["warn_pct"], 50);
    for (path, wanted) in [
        (format!("/projects/{project}/quotas"), 1001),
        ("/tenants/default/quotas".into(), 1001),
        (format!("/provider-keys/{key}/quotas"), 100),
    ] {
        assert_eq!(used(&put(path.clone(), json!([tokens])).await.ok(200)), [wanted], "{path}");
        assert_eq!(used(&control.get(&path).await), [wanted], "{path}");
    }

    use_up(&control, &bot, &key, "gpt-4o", 499).await;
    let wider = json!({"metric": "total_tokens", "window": "total", "limit": 9000, "on_exceed": "cut"});
    let hour = json!({"metric": "total_tokens", "window": "hour", "limit": 7, "model": "gpt-*"});
    let second = put("/bots/b/quotas".into(), json!([hour, wider])).await.ok(200);
    assert_eq!(used(&second), [600, 1501], "a new one counts what was, an old one keeps it: {second}");
    assert_eq!(second["data"][1]["id"], first["data"][0]["id"]);
    assert_eq!((&second["data"][1]["limit"], &second["data"][1]["on_exceed"]), (&json!(9000), &json!("cut")));
    assert_eq!(used(&put("/bots/b/quotas".into(), json!([])).await.ok(200)), [0; 0]);

    control.call("DELETE", "/bots/b").send().await;
    control.call("GET", "/bots/b/quotas").send().await.problem(404, "not_found");
    control.stop().await;
}

#[tokio::test]
async fn a_grant_tops_up_the_current_window() {
    let control = Control::start().await;
    let quota = json!({"metric": "requests", "window": "day", "limit": 1});
    let bot = control.create("/bots", json!({"hostname": "b", "quotas": [quota]})).await;
    use_up(&control, &bot, "", "m", 1).await;
    use_up(&control, &bot, "", "m", 1).await;
    assert_eq!(control.get("/bots/b/quotas").await["data"][0]["overrun"], 1);
    let grant = json!({"metric": "requests", "window": "day", "amount": 5, "reason": "launch"});
    let post = |key: &str| {
        let call = control.call("POST", "/bots/b/quotas/grants").header("idempotency-key", key).json(&grant);
        async move { call.send().await.ok(201) }
    };
    post("one").await;
    let answer = post("one").await;
    assert_eq!((&answer["extra"], &answer["overrun"], &answer["limit"]), (&json!(5), &json!(0), &json!(1)));
    assert_eq!(post("two").await["extra"], 10);
    let audit = control.get("/audit?action=quota.grant").await;
    assert_eq!(audit["data"][0]["detail"]["reason"], "launch");
    assert_eq!(audit["data"].as_array().map(Vec::len), Some(2));

    let wrong = json!({"metric": "requests", "window": "week", "amount": 5, "reason": "launch"});
    let answer = control.call("POST", "/bots/b/quotas/grants").json(&wrong).send().await;
    answer.problem(404, "not_found");
    let wrong = json!({"metric": "luck", "window": "day", "amount": 0, "reason": ""});
    let answer = control.call("POST", "/bots/b/quotas/grants").json(&wrong).send().await;
    answer.refuses(&[("metric", "one_of"), ("amount", "range"), ("reason", "length")]);
    control.stop().await;
}

#[tokio::test]
async fn wrong_quotas_are_named_and_roles_are_kept() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b"})).await;
    let put = |body: Value| {
        let call = control.call("PUT", "/bots/b/quotas").json(&body);
        async move { call.send().await }
    };
    let good = json!({"metric": "requests", "window": "day", "limit": 1});
    let answer = put(json!([
        {"metric": "luck", "limit": 0, "used": 5},
        7,
        {"metric": "requests", "window": "day", "limit": 1, "warn_pct": 101, "model": "a b"},
        good,
        good,
    ]))
    .await;
    answer.refuses(&[
        ("[0].used", "unknown"),
        ("[0].metric", "one_of"),
        ("[0].window", "required"),
        ("[0].limit", "range"),
        ("[1]", "type"),
        ("[2].warn_pct", "range"),
        ("[2].model", "format"),
        ("[4]", "duplicate"),
    ]);
    put(json!({"quotas": []})).await.refuses(&[("(body)", "type")]);
    put(Value::Array(vec![good.clone(); 33])).await.refuses(&[("(body)", "length")]);
    control
        .call("PUT", "/bots/b/quotas")
        .header("content-type", "application/json")
        .body("[")
        .send()
        .await
        .problem(400, "invalid_json");
    control.call("GET", "/projects/prj_none/quotas").send().await.problem(404, "not_found");

    for (role, read, write) in
        [("viewer", 200, 403), ("operator", 200, 403), ("auditor", 200, 403), ("admin", 200, 200)]
    {
        let token = control.create("/api-tokens", json!({"name": role, "role": role})).await["token"]
            .as_str()
            .expect("token")
            .to_owned();
        for path in ["/bots/b/quotas", "/tenants/default/quotas"] {
            let call = |method: &str| control.as_token(&token, method, path);
            assert_eq!(call("GET").send().await.status, read, "{role} {path}");
            assert_eq!(call("PUT").json(&json!([good])).send().await.status, write, "{role} {path}");
        }
    }
    control.create("/tenants", json!({"slug": "other"})).await;
    let body = json!({"name": "o", "role": "owner"});
    let minted = control.call("POST", "/api-tokens").header("x-clawgate-tenant", "other").json(&body).send().await;
    let token = minted.ok(201)["token"].as_str().expect("token").to_owned();
    for (method, path) in
        [("GET", "/tenants/default/quotas"), ("PUT", "/tenants/default/quotas"), ("GET", "/bots/b/quotas")]
    {
        let answer = control.as_token(&token, method, path).json(&json!([])).send().await;
        answer.problem(404, "not_found");
    }
    control.stop().await;
}
