//! Provider keys.

use serde_json::json;

use crate::common::{CANARY, Control};

#[tokio::test]
async fn a_key_lives() {
    let control = Control::start().await;
    let body = json!({
        "vendor": "openai", "label": "main", "secret": CANARY, "tags": ["fast", "eu"], "weight": 3, "priority": 2,
        "max_concurrency": 8, "options": {"organization": "org-1"},
    });
    let answer = control.call("POST", "/provider-keys").json(&body).send().await;
    let key = answer.ok(201);
    let id = key["id"].as_str().expect("id").to_owned();
    assert_eq!((key["last4"].as_str(), key["status"].as_str()), (Some("e1f0"), Some("active")));
    assert_eq!((&key["weight"], &key["options"]["organization"]), (&json!(3), &json!("org-1")));
    assert!(key.get("secret").is_none() && !answer.text.contains(CANARY));
    let same = control.key("again").await;
    assert_eq!(same["fingerprint"], key["fingerprint"], "equal secrets can be seen");

    let path = format!("/provider-keys/{id}");
    let changed =
        control.call("PATCH", &path).json(&json!({"label": "renamed", "enabled": false})).send().await.ok(200);
    assert_eq!((changed["label"].as_str(), &changed["enabled"]), (Some("renamed"), &json!(false)));
    let rotated = control
        .call("POST", &format!("{path}/rotate"))
        .json(&json!({"secret": "sk-other-0000000000007777"}))
        .send()
        .await
        .ok(200);
    assert_eq!((rotated["last4"].as_str(), &rotated["secret_version"]), (Some("7777"), &json!(2)));

    let conflict = json!({"vendor": "openai", "label": "renamed", "secret": "sk-x-0000000000000000"});
    control.call("POST", "/provider-keys").json(&conflict).send().await.refuses_conflict("label");
    assert_eq!(control.get("/provider-keys?vendor=openai").await["total"], 2);
    assert_eq!(control.get("/provider-keys?vendor=anthropic").await["total"], 0);
    assert_eq!(control.get("/provider-keys/health").await["data"].as_array().expect("data").len(), 2);
    assert_eq!(control.call("DELETE", &path).send().await.status, 204);
    control.call("GET", &path).send().await.problem(404, "not_found");
    control.stop().await;
}

#[tokio::test]
async fn where_a_key_may_lead() {
    let control = Control::start_in(tempfile::tempdir().expect("folder"), |settings| {
        settings.private_upstreams = Some("127.0.0.0/8:9001".into());
    })
    .await;
    let own = control.addresses["console"].as_str().expect("console");
    let post = |base_url: String| {
        let body =
            json!({"vendor": "openai", "label": base_url, "secret": "sk-x-0000000000000000", "base_url": base_url});
        let call = control.call("POST", "/provider-keys").json(&body);
        async move { call.send().await }
    };
    for base_url in ["http://127.0.0.1:9001/v1", "https://api.example.com/v1"] {
        assert_eq!(post(base_url.into()).await.status, 201, "{base_url}");
    }
    for base_url in [
        "http://127.0.0.1:9002/v1".into(),
        "http://10.0.0.1/v1".into(),
        "http://169.254.169.254/latest".into(),
        "http://api.example.com/v1".into(),
        "ftp://api.example.com".into(),
        "https://user@api.example.com".into(),
        format!("http://{own}/v1"),
    ] {
        let answer = post(base_url.clone()).await;
        let body = answer.problem(422, "validation_failed");
        assert_eq!(body["errors"][0]["field"], "base_url", "{base_url}: {body}");
    }
    control.stop().await;
}

#[tokio::test]
async fn another_address_needs_the_secret_again() {
    let control = Control::start().await;
    let key = control.key("main").await;
    let path = format!("/provider-keys/{}", key["id"].as_str().expect("id"));
    let moved = json!({"base_url": "https://api.example.com/v1"});
    control.call("PATCH", &path).json(&moved).send().await.problem(422, "secret_required");
    let moved = json!({"base_url": "https://api.example.com/v1", "secret": CANARY});
    let key = control.call("PATCH", &path).json(&moved).send().await.ok(200);
    assert_eq!(key["base_url"], "https://api.example.com/v1");
    control.stop().await;
}

#[tokio::test]
async fn vendors_of_ones_own() {
    let control = Control::start().await;
    let catalogue = control.get("/vendors?limit=200").await;
    let slugs: Vec<&str> =
        catalogue["data"].as_array().expect("data").iter().map(|v| v["slug"].as_str().expect("slug")).collect();
    for slug in ["openai", "anthropic", "google", "ollama", "venice"] {
        assert!(slugs.contains(&slug), "{slug}");
    }
    let body = json!({"slug": "house", "title": "House", "base_url": "https://llm.example.com/v1", "routes": ["chat/completions"]});
    let vendor = control.create("/vendors", body.clone()).await;
    assert_eq!((vendor["builtin"].as_bool(), vendor["auth"].as_str()), (Some(false), Some("bearer")));
    control.call("POST", "/vendors").json(&body).send().await.refuses_conflict("slug");
    for slug in ["openai", "chat", "Big"] {
        let answer = control
            .call("POST", "/vendors")
            .json(&json!({"slug": slug, "base_url": "https://a.example.com"}))
            .send()
            .await;
        assert_eq!(answer.problem(422, "validation_failed")["errors"][0]["field"], "slug", "{slug}");
    }
    control.create("/provider-keys", json!({"vendor": "house", "label": "k", "secret": "sk-x-0000000000000000"})).await;
    control.call("DELETE", "/vendors/house").send().await.problem(409, "still_in_use");
    let patched = control.call("PATCH", "/vendors/house").json(&json!({"title": "Home"})).send().await.ok(200);
    assert_eq!(patched["title"], "Home");
    assert_eq!(control.get("/vendors/house").await["title"], "Home");
    assert_eq!(control.get("/vendors/openai").await["builtin"], true);
    control.stop().await;
}
