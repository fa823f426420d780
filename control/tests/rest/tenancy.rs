//! Tenants never see each other; roles may what the contract says.

use serde_json::{Value, json};

use crate::common::Control;

async fn token(control: &Control, tenant: &str, role: &str) -> String {
    let body = json!({"name": role, "role": role});
    let call = control.call("POST", "/api-tokens").header("x-clawgate-tenant", tenant).json(&body);
    call.send().await.ok(201)["token"].as_str().expect("token").to_owned()
}

#[tokio::test]
async fn what_belongs_to_another_tenant_does_not_exist() {
    let control = Control::start().await;
    for slug in ["red", "blue"] {
        control.create("/tenants", json!({"slug": slug, "time_zone": "Asia/Shanghai"})).await;
    }
    let red = token(&control, "red", "owner").await;
    let blue = token(&control, "blue", "owner").await;
    let post = |path: &'static str, body: Value| {
        let call = control.as_token(&red, "POST", path).json(&body);
        async move { call.send().await.ok(201) }
    };
    post("/bots", json!({"hostname": "secret-bot"})).await;
    let project = post("/projects", json!({"slug": "p"})).await;
    let key =
        post("/provider-keys", json!({"vendor": "openai", "label": "k", "secret": "sk-r-0000000000000000"})).await;
    let api = post("/api-tokens", json!({"name": "t", "role": "viewer"})).await;
    let vendor = post("/vendors", json!({"slug": "own", "base_url": "https://own.example.com"})).await;
    let id = |value: &Value| value["id"].as_str().expect("id").to_owned();
    let (project, key, api) = (id(&project), id(&key), id(&api));
    assert_eq!(vendor["slug"], "own");

    for (method, path) in [
        ("GET", "/bots/secret-bot".to_owned()),
        ("PATCH", "/bots/secret-bot".to_owned()),
        ("DELETE", "/bots/secret-bot".to_owned()),
        ("POST", "/bots/secret-bot/suspend".to_owned()),
        ("GET", "/bots/secret-bot/tokens".to_owned()),
        ("POST", "/bots/secret-bot/tokens".to_owned()),
        ("GET", "/bots/secret-bot/usage/stats".to_owned()),
        ("GET", "/usage/stats?bot=secret-bot".to_owned()),
        ("GET", format!("/usage/stats?project_id={project}")),
        ("GET", format!("/projects/{project}")),
        ("DELETE", format!("/projects/{project}")),
        ("GET", format!("/provider-keys/{key}")),
        ("PATCH", format!("/provider-keys/{key}")),
        ("DELETE", format!("/provider-keys/{key}")),
        ("DELETE", format!("/api-tokens/{api}")),
        ("GET", "/vendors/own".to_owned()),
        ("DELETE", "/vendors/own".to_owned()),
        ("GET", "/tenants/red".to_owned()),
    ] {
        let mut call = control.as_token(&blue, method, &path);
        if matches!(method, "PATCH" | "POST") {
            call = call.json(&json!({}));
        }
        call.send().await.problem(404, "not_found");
    }
    // Binding one's own bot to a foreign project is no way in either.
    let body = json!({"hostname": "b", "project_id": project});
    let answer = control.as_token(&blue, "POST", "/bots").json(&body).send().await;
    assert!(matches!(answer.status, 404 | 422), "{}", answer.text);
    for path in ["/bots", "/projects", "/provider-keys"] {
        assert_eq!(control.as_token(&blue, "GET", path).send().await.ok(200)["total"], 0, "{path}");
    }
    // The header cannot lead a tenant's token elsewhere.
    let call = control.as_token(&blue, "GET", "/bots").header("x-clawgate-tenant", "red");
    let answer = call.send().await;
    assert!(matches!(answer.status, 403 | 404), "{}", answer.text);
    control.stop().await;
}

#[tokio::test]
async fn roles_may_what_the_contract_says() {
    let control = Control::start().await;
    control.create("/tenants", json!({"slug": "t"})).await;
    let bot = json!({"hostname": "b"});
    let key = json!({"vendor": "openai", "label": "k", "secret": "sk-r-0000000000000000"});
    let vendor = json!({"slug": "own", "base_url": "https://own.example.com"});
    let tenant = json!({"slug": "x"});
    let admin_token = json!({"name": "n", "role": "admin"});
    // Which of these a role may: bots, keys, vendors, audit, nodes, tenants, admin tokens.
    for (role, may) in [
        ("viewer", [false, false, false, false, false, false, false]),
        ("developer", [true, false, false, false, false, false, false]),
        ("operator", [true, false, false, false, true, false, false]),
        ("admin", [true, true, false, false, true, false, true]),
        ("owner", [true, true, true, false, true, false, true]),
    ] {
        let token = token(&control, "t", role).await;
        for (at, (method, path, body)) in [
            ("POST", "/bots", Some(&bot)),
            ("POST", "/provider-keys", Some(&key)),
            ("POST", "/vendors", Some(&vendor)),
            ("GET", "/audit", None),
            ("GET", "/nodes", None),
            ("POST", "/tenants", Some(&tenant)),
            ("POST", "/api-tokens", Some(&admin_token)),
        ]
        .into_iter()
        .enumerate()
        {
            let mut call = control.as_token(&token, method, path);
            if let Some(body) = body {
                call = call.json(body);
            }
            let answer = call.send().await;
            if path == "/audit" && matches!(role, "admin" | "owner" | "operator") {
                continue;
            }
            assert_eq!(answer.status < 300, may[at], "{role} {method} {path}: {}", answer.text);
            if answer.status >= 300 {
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                assert!(matches!(code.as_str(), "forbidden" | "grant_exceeds_grantor"), "{role} {path}: {code}");
                answer.problem(403, &code);
            }
        }
        // Clean up for the next role.
        for path in ["/bots/b", "/vendors/own"] {
            control.call("DELETE", path).header("x-clawgate-tenant", "t").send().await;
        }
        let keys = control.call("GET", "/provider-keys").header("x-clawgate-tenant", "t").send().await.ok(200);
        for key in keys["data"].as_array().expect("data") {
            let path = format!("/provider-keys/{}", key["id"].as_str().expect("id"));
            control.call("DELETE", &path).header("x-clawgate-tenant", "t").send().await;
        }
    }
    control.stop().await;
}

#[tokio::test]
async fn which_tenant_is_meant() {
    let control = Control::start().await;
    let me = control.get("/auth/me").await;
    assert_eq!((me["role"].as_str(), me["tenant"]["slug"].as_str()), (Some("bootstrap"), Some("default")));
    control.create("/bots", json!({"hostname": "in-default"})).await;
    control.create("/tenants", json!({"slug": "other"})).await;
    let other = control.call("GET", "/bots").header("x-clawgate-tenant", "other").send().await.ok(200);
    assert_eq!(other["total"], 0);
    let call = control.call("GET", "/bots").header("x-clawgate-tenant", "nobody");
    call.send().await.problem(404, "not_found");
    // A platform token that is not the bootstrap one belongs to no tenant.
    let minted = control.create("/api-tokens", json!({"name": "p", "role": "platform_admin"})).await;
    let platform = minted["token"].as_str().expect("token");
    control.as_token(platform, "GET", "/tenants").send().await.ok(200);
    control.as_token(platform, "GET", "/bots").send().await.problem(400, "tenant_required");
    // It manages tenants and sees into none.
    let call = control.as_token(platform, "GET", "/bots").header("x-clawgate-tenant", "other");
    call.send().await.problem(403, "forbidden");
    let listed = control.get("/api-tokens?platform=true").await;
    assert_eq!((listed["total"].as_i64(), listed["data"][0]["name"].as_str()), (Some(1), Some("p")));
    control.stop().await;
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_refused() {
    let control = Control::start().await;
    let minted = control.create("/api-tokens", json!({"name": "t", "role": "viewer"})).await;
    let text = minted["token"].as_str().expect("token");
    control.as_token(text, "GET", "/bots").send().await.ok(200);
    let path = format!("/api-tokens/{}", minted["id"].as_str().expect("id"));
    assert_eq!(control.call("DELETE", &path).send().await.status, 204);
    control.as_token(text, "GET", "/bots").send().await.problem(401, "token_invalid");
    let past = json!({"name": "t", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"});
    let body = control.call("POST", "/api-tokens").json(&past).send().await.problem(422, "validation_failed");
    assert_eq!(body["errors"][0]["field"], "expires_at");
    control.stop().await;
}
