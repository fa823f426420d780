//! Prices: read, set by hand, imported, and what events cost with them.

use clawgate_shared::clock;
use serde_json::{Value, json};

use crate::common::Control;

fn file(input: &str) -> Value {
    let text = format!(
        r#"{{"sample_spec": {{}}, "gpt-4o": {{"litellm_provider": "openai", "input_cost_per_token": {input},
        "output_cost_per_token": 1e-05, "mode": "chat"}}, "x/y": {{"litellm_provider": "replicate"}},
        "dall-e": {{"litellm_provider": "openai", "input_cost_per_image": 0.04}}}}"#
    );
    serde_json::from_str(&text).expect("JSON")
}

async fn price(control: &Control, query: &str) -> Value {
    control.get(&format!("/prices?vendor=openai&model=GPT-4o{query}")).await["data"][0].clone()
}

#[tokio::test]
async fn prices_are_layered_and_the_tenants_own_come_first() {
    let control = Control::start().await;
    let builtin = price(&control, "").await;
    assert_eq!((builtin["source"].as_str(), builtin["bands"][0]["input"].as_str()), (Some("builtin"), Some("2.5")));
    assert_eq!(builtin["effective_from"], Value::Null);

    let import = |body: Value| control.call("POST", "/prices/import").json(&body).send();
    let done = import(file("3e-06")).await.ok(200);
    let wanted = json!({"added": 1, "changed": 0, "unchanged": 0, "other_vendors": 1, "not_by_token": 1});
    assert_eq!(done, wanted);
    assert_eq!(import(file("3e-06")).await.ok(200)["unchanged"], 1);
    assert_eq!(import(file("4e-06")).await.ok(200)["changed"], 1);
    let imported = price(&control, "").await;
    assert_eq!((imported["source"].as_str(), imported["bands"][0]["input"].as_str()), (Some("import"), Some("4")));

    let set = |scope: &str, input: &str| {
        let bands = json!([{"input": input, "output": "20"}, {"above": 200_000, "tier": "standard", "input": "12.5"}]);
        let body = json!({"prices": [{"vendor": "openai", "model": "gpt-4o", "bands": bands}]});
        control.call("PUT", &format!("/prices?scope={scope}")).json(&body).send()
    };
    set("platform", "5").await.ok(200);
    assert_eq!(price(&control, "").await["source"], "platform");
    let first = set("tenant", "6.25").await.ok(200);
    let again = set("tenant", "6.25").await.ok(200);
    assert_eq!(first["data"][0]["id"], again["data"][0]["id"], "what stays the same keeps its row");
    assert_eq!(price(&control, "").await["bands"][1]["above"], 200_000);
    assert_eq!(price(&control, "&scope=platform").await["source"], "platform");
    assert_eq!(price(&control, "&source=builtin").await, Value::Null);
    // What is left out ends.
    control.call("PUT", "/prices").json(&json!({"prices": []})).send().await.ok(200);
    assert_eq!(price(&control, "").await["source"], "platform");

    let all = control.get("/prices?limit=100").await;
    let next = control.get(&format!("/prices?limit=100&after={}", all["next_cursor"].as_str().expect("more"))).await;
    assert!(all["total"].as_u64().is_some_and(|total| total > 150) && all["data"] != next["data"], "{}", all["total"]);
    let audit = control.get("/audit?limit=50").await.to_string();
    assert!(audit.contains("price.replace"), "{audit}");
    control.stop().await;
}

#[tokio::test]
async fn refusals_name_the_field() {
    let control = Control::start().await;
    let put = |body: Value| control.call("PUT", "/prices").json(&body).send();
    let entry = |vendor: &str, model: &str, bands: Value| json!({"vendor": vendor, "model": model, "bands": bands});
    let good = json!([{"input": "1"}]);
    for (entries, wanted) in [
        (json!([entry("nobody", "m", good.clone())]), ("prices[0].vendor", "exists")),
        (json!([entry("openai", "", good.clone())]), ("prices[0].model", "format")),
        (json!([entry("openai", "m", json!([]))]), ("prices[0].bands", "required")),
        (json!([entry("openai", "m", json!([{"input": "-1"}]))]), ("prices[0].bands[0].input", "format")),
        (json!([entry("openai", "m", json!([{"input": 1.5}]))]), ("prices[0].bands[0].input", "type")),
        (json!([entry("openai", "m", json!([{"tier": "fast"}]))]), ("prices[0].bands[0].tier", "one_of")),
        (json!([entry("openai", "m", json!([{"price": "1"}]))]), ("prices[0].bands[0].price", "unknown")),
        (
            json!([entry("openai", "m", good.clone()), entry("openai", "M", good.clone())]),
            ("prices[1].model", "duplicate"),
        ),
    ] {
        let answer = put(json!({ "prices": entries })).await;
        if answer.status != 422 || !answer.text.contains(wanted.0) {
            panic!("{wanted:?}: {} {}", answer.status, answer.text);
        }
        let rules = answer.json()["errors"][0]["rule"].clone();
        assert!(rules == wanted.1 || wanted.0 == "prices[0].bands[0].tier", "{wanted:?} {rules}");
    }
    let wrong = json!({"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": "free"}});
    let answer = control.call("POST", "/prices/import").json(&wrong).send().await;
    answer.refuses(&[("gpt-x.input_cost_per_token", "format")]);
    let answer = control.call("POST", "/prices/import").header("content-type", "application/json").body("[]");
    answer.send().await.problem(400, "invalid_json");
    control.call("GET", "/prices?scope=moon").send().await.problem(400, "invalid_parameter");
    control.call("GET", "/prices?source=moon").send().await.problem(400, "invalid_parameter");

    let token = |role: &str| control.create("/api-tokens", json!({"name": role, "role": role}));
    for (role, read, own, platform) in [("viewer", 200, 403, 403), ("admin", 200, 403, 403), ("owner", 200, 200, 403)] {
        let token = token(role).await["token"].as_str().expect("token").to_owned();
        let empty = json!({"prices": []});
        let call = |method: &str, path: &str| control.as_token(&token, method, path);
        assert_eq!(call("GET", "/prices").send().await.status, read, "{role}");
        assert_eq!(call("PUT", "/prices").json(&empty).send().await.status, own, "{role}");
        assert_eq!(call("PUT", "/prices?scope=platform").json(&empty).send().await.status, platform, "{role}");
        assert_eq!(call("POST", "/prices/import").json(&file("1e-06")).send().await.status, platform, "{role}");
    }
    control.stop().await;
}

/// Larger than any other body may be.
#[tokio::test]
async fn a_large_file_is_taken() {
    let control = Control::start().await;
    let model = |n: u32| {
        let fields = json!({"litellm_provider": "openai", "input_cost_per_token": 1e-6, "source": "x".repeat(900)});
        (format!("m-{n}"), fields)
    };
    let file: serde_json::Map<String, Value> = (0..2500).map(model).collect();
    let from = clock::rfc3339(clock::now_micros() + 3_600_000_000);
    let path = format!("/prices/import?effective_from={from}");
    let done = control.call("POST", &path).json(&Value::Object(file)).send().await.ok(200);
    assert_eq!(done["added"], 2500);
    assert_eq!(control.get("/prices?model=m-7").await["total"], 0, "not in effect yet");
    control.stop().await;
}
