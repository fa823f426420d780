//! Rate and concurrency limits: read, replaced, refused, by whom.

use serde_json::{Value, json};

use crate::common::Control;

async fn token(control: &Control, tenant: &str, role: &str) -> String {
    let body = json!({"name": format!("{tenant}-{role}"), "role": role});
    let call = control.call("POST", "/api-tokens").header("x-clawgate-tenant", tenant).json(&body);
    call.send().await.ok(201)["token"].as_str().expect("token").to_owned()
}

#[tokio::test]
async fn limits_are_replaced_whole_and_seen_everywhere() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b", "limits": {"requests_per_minute": 60}})).await;
    let none = json!({"requests_per_minute": null, "tokens_per_minute": null, "max_concurrency": null});
    assert_eq!(control.get("/tenants/default/limits").await, none);
    assert_eq!(control.get("/bots/b/limits").await["requests_per_minute"], 60);
    for path in ["/bots/b/limits", "/tenants/default/limits"] {
        let put = |body: Value| control.call("PUT", path).json(&body).send();
        let answer = put(json!({"tokens_per_minute": 90_000, "max_concurrency": 3})).await;
        assert!(answer.header("x-clawgate-rollout").starts_with("acked=0"), "{answer:?}");
        let wanted = json!({"requests_per_minute": null, "tokens_per_minute": 90_000, "max_concurrency": 3});
        assert_eq!(answer.ok(200), wanted);
        assert_eq!(control.get(path).await, wanted);
        let stale = control.call("PUT", path).header("if-match", "\"1\"").json(&json!({})).send().await;
        stale.problem(412, "precondition_failed");
        put(json!({"requests_per_minute": 0, "max_concurrency": 5_000_000_000_u64}))
            .await
            .refuses(&[("requests_per_minute", "range"), ("max_concurrency", "range")]);
        assert_eq!(put(json!({"per_day": 1})).await.status, 422);
        assert_eq!(control.get(path).await, wanted, "a refused change changes nothing");
    }
    assert_eq!(control.get("/bots/b").await["limits"]["max_concurrency"], 3);
    // Another change of the tenant leaves them alone.
    control.call("PATCH", "/tenants/default").json(&json!({"name": "Default"})).send().await.ok(200);
    assert_eq!(control.get("/tenants/default/limits").await["max_concurrency"], 3);
    assert_eq!(control.call("PUT", "/bots/b/limits").json(&json!({})).send().await.ok(200), none);
    control.call("GET", "/bots/nobody/limits").send().await.problem(404, "not_found");
    control.call("PUT", "/bots/nobody/limits").json(&json!({})).send().await.problem(404, "not_found");

    let audit = control.get("/audit?limit=50").await;
    let rows = audit["data"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["action"] == "tenant.limits").expect("an audit row");
    assert!(row.to_string().contains("90000"), "{row}");
    assert!(rows.iter().any(|row| row["action"] == "bot.update"), "{audit}");
}

#[tokio::test]
async fn roles_may_what_the_contract_says() {
    let control = Control::start().await;
    for slug in ["red", "blue"] {
        control.create("/tenants", json!({"slug": slug})).await;
    }
    let bot = json!({"hostname": "b"});
    control.call("POST", "/bots").header("x-clawgate-tenant", "red").json(&bot).send().await.ok(201);
    for (role, bot, tenant) in [
        ("viewer", 403, 403),
        ("developer", 403, 403),
        ("operator", 200, 403),
        ("admin", 200, 403),
        ("owner", 200, 200),
        ("auditor", 403, 403),
    ] {
        let who = token(&control, "red", role).await;
        for (path, wanted) in [("/bots/b/limits", bot), ("/tenants/red/limits", tenant)] {
            let read = control.as_token(&who, "GET", path).send().await;
            assert_eq!(read.status, 200, "{role} reads {path}: {}", read.text);
            let write = control.as_token(&who, "PUT", path).json(&json!({"max_concurrency": 2})).send().await;
            assert_eq!(write.status, wanted, "{role} writes {path}: {}", write.text);
        }
    }
    let blue = token(&control, "blue", "owner").await;
    for path in ["/bots/b/limits", "/tenants/red/limits"] {
        control.as_token(&blue, "GET", path).send().await.problem(404, "not_found");
        control.as_token(&blue, "PUT", path).json(&json!({})).send().await.problem(404, "not_found");
    }
}
