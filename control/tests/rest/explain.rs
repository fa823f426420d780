//! What a node would do, without a request.

use serde_json::{Value, json};

use crate::common::{CANARY, Control};

async fn explain(control: &Control, bot: &str, vendor: &str, model: &str) -> Value {
    let body = json!({"vendor": vendor, "model": model});
    let answer = control.call("POST", &format!("/bots/{bot}/explain")).json(&body).send().await;
    assert!(!answer.text.contains(CANARY));
    answer.ok(200)
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|entry| entry[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn keys_are_candidates_or_left_out_for_a_reason() {
    let control = Control::start().await;
    let project = control.create("/projects", json!({"slug": "p"})).await["id"].as_str().expect("id").to_owned();
    let key = |label: &str, more: Value| {
        let mut body = json!({"vendor": "openai", "label": label, "secret": CANARY});
        body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        body
    };
    for (label, more) in [
        ("low", json!({"tags": ["fast", "eu"], "priority": 1})),
        ("high", json!({"tags": ["fast"], "priority": 5, "base_url": "https://example.com/prefix/v1"})),
        ("plain", json!({})),
        ("other", json!({"tags": ["fast"], "project_id": project})),
        ("off", json!({"tags": ["fast"], "enabled": false})),
    ] {
        control.create("/provider-keys", key(label, more)).await;
    }
    control.create("/bots", json!({"hostname": "b", "tags": ["fast"], "key_strategy": "priority"})).await;
    let found = explain(&control, "b", "openai", "gpt-4o").await;
    assert_eq!((found["would"].as_str(), &found["code"]), (Some("send"), &Value::Null), "{found:#}");
    assert_eq!(ids(&found["candidates"], "label"), ["high", "low"]);
    assert_eq!(
        ids(&found["candidates"], "url"),
        ["https://example.com/prefix/v1/chat/completions", "https://api.openai.com/v1/chat/completions"]
    );
    let left: Vec<_> = ids(&found["left_out"], "label").into_iter().zip(ids(&found["left_out"], "reason")).collect();
    let want = [("plain", "missing_tags"), ("other", "other_project"), ("off", "disabled")];
    assert_eq!(left, want.map(|(label, reason)| (label.to_owned(), reason.to_owned())));
    assert_eq!(explain(&control, "b", "mistral", "m").await["reason"], "none_configured");
    control.stop().await;
}

#[tokio::test]
async fn the_first_reason_to_refuse_is_told() {
    let control = Control::start().await;
    control.key("k").await;
    let body = json!({
        "hostname": "b", "allowed_vendors": ["openai"], "allowed_models": ["gpt-*", "openai/o4*"],
        "limits": {"requests_per_minute": 60},
        "quotas": [
            {"metric": "total_tokens", "window": "day", "limit": 1000, "model": "gpt-5*"},
            {"metric": "cost_micros", "window": "total", "limit": 5, "model": "gpt-odd"},
        ],
    });
    control.create("/bots", body).await;
    for (vendor, model, code) in [
        ("openai", "gpt-4o", None),
        ("openai", "o4-mini", None),
        ("openai", "o3", Some("model_not_allowed")),
        ("openai", "", Some("model_missing")),
        ("groq", "gpt-4o", Some("vendor_not_allowed")),
        ("nobody", "gpt-4o", Some("vendor_unknown")),
        ("openai", "gpt-odd", Some("model_unpriced")),
    ] {
        let found = explain(&control, "b", vendor, model).await;
        assert_eq!(found["code"].as_str(), code, "{vendor} {model}: {found:#}");
        assert_eq!(found["would"] == "send", code.is_none());
    }
    let found = explain(&control, "b", "openai", "gpt-5").await;
    let quota = &found["quotas"][0];
    assert_eq!((&quota["scope"], &quota["covers"], &quota["blocks"]), (&json!("bot"), &json!(true), &json!(true)));
    assert_eq!((&quota["remaining"], &quota["quota"]["used"]), (&json!(1000), &json!(0)));
    assert_eq!((&found["quotas"][1]["covers"], &found["limits"]["requests_per_minute"]), (&json!(false), &json!(60)));
    for (verb, code) in [("suspend", Some("bot_suspended")), ("resume", None)] {
        control.call("POST", &format!("/bots/b/{verb}")).send().await.ok(200);
        assert_eq!(explain(&control, "b", "openai", "gpt-4o").await["code"].as_str(), code);
    }
    let body = json!({"vendor": "openai", "model": "m"});
    control.call("POST", "/bots/none/explain").json(&body).send().await.problem(404, "not_found");
    let wrong = json!({"vendor": "", "model": "m"});
    control.call("POST", "/bots/b/explain").json(&wrong).send().await.refuses(&[("vendor", "length")]);
    control.stop().await;
}

#[tokio::test]
async fn who_may_not_see_keys_is_told_no_label() {
    let control = Control::start().await;
    control.key("hidden-label").await;
    control.create("/bots", json!({"hostname": "b"})).await;
    let minted = control.create("/api-tokens", json!({"name": "v", "role": "viewer"})).await;
    let bearer = format!("Bearer {}", minted["token"].as_str().expect("token"));
    let body = json!({"vendor": "openai", "model": "gpt-4o"});
    let call = control.raw("POST", "/api/v1/bots/b/explain").header("authorization", &bearer).json(&body);
    let answer = call.send().await;
    let found = answer.ok(200);
    assert_eq!((&found["candidates"][0]["label"], &found["candidates"][0]["url"]), (&Value::Null, &Value::Null));
    assert!(!answer.text.contains("hidden-label") && found["would"] == "send");
    control.stop().await;
}
