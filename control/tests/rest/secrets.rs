//! What came in as a secret never goes out.

use serde_json::json;

use crate::common::{CANARY, Control};

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let control = Control::start().await;
    let key = control.key("k").await;
    let id = key["id"].as_str().expect("id").to_owned();
    let bot = control.create("/bots", json!({"hostname": "b"})).await;
    let bot_token = bot["token"].as_str().expect("token").to_owned();
    let api = control.create("/api-tokens", json!({"name": "t", "role": "viewer"})).await;
    let api_token = api["token"].as_str().expect("token").to_owned();
    let project = control.create("/projects", json!({"slug": "p"})).await["id"].as_str().expect("id").to_owned();
    // Secrets in the wrong places are not repeated by the error.
    for body in [
        json!({"vendor": "openai", "label": CANARY, "secret": 5}),
        json!({"vendor": CANARY, "label": "x", "secret": CANARY}),
        json!({"vendor": "openai", "label": "x", "secret": CANARY, CANARY: 1, "weight": CANARY}),
        json!({"vendor": "openai", "label": "x", "secret": CANARY, "base_url": format!("http://{CANARY}@x")}),
    ] {
        let answer = control.call("POST", "/provider-keys").json(&body).send().await;
        assert!(answer.status >= 400);
        assert!(!answer.text.contains(CANARY) || body.get(CANARY).is_some(), "{}", answer.text);
    }
    let document = control.raw("GET", "/openapi.json").send().await.ok(200);
    let mut scanned = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        // A stream has no end to wait for.
        let stream = &item["get"]["responses"]["200"]["content"]["text/event-stream"];
        if item.get("get").is_none() || !stream.is_null() {
            continue;
        }
        let id = if path.contains("provider-keys") { &id } else { &project };
        let path = path.replace("{id}", id).replace("{hostname}", "b").replace("{slug}", "openai");
        let answer =
            control.raw("GET", &path).header("authorization", &format!("Bearer {}", control.token)).send().await;
        scanned += 1;
        for secret in [CANARY, &bot_token, &api_token, &control.token] {
            assert!(!answer.text.contains(secret), "{path} holds a secret");
        }
    }
    assert!(scanned > 20, "{scanned}");
    let admin = control.addresses["admin"].as_str().expect("admin");
    for path in ["metrics", "readyz", "livez"] {
        let text = reqwest::get(format!("http://{admin}/{path}")).await.expect("answer").text().await.expect("text");
        assert!(!text.contains(CANARY) && !text.contains(&control.token));
    }
    let folder = control.stop().await;
    for name in ["clawgate.db", "clawgate.db-wal", "run/control.json"] {
        let bytes = std::fs::read(folder.path().join("d").join(name)).unwrap_or_default();
        for secret in [CANARY, &bot_token, &api_token] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
        }
    }
}
