//! What the document promises is what is answered.

use serde_json::{Value, json};

use crate::common::Control;

/// Checks a value against a schema as far as the document uses JSON Schema.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str().and_then(|text| text.strip_prefix("#/components/schemas/")) {
        return check(document, &document["components"]["schemas"][name], value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let null = choices.iter().any(|choice| choice["type"] == "null");
        assert!(!value.is_null() || null, "{place} is null");
        let chosen = choices.iter().find(|choice| choice["type"] != "null").expect("a choice");
        if !value.is_null() {
            check(document, chosen, value, place);
        }
        return;
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = kinds.contains(&kind) || (kind == "integer" && kinds.contains(&"number"));
    assert!(fits, "{place} is {kind}, promised {kinds:?}");
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{place}[{at}]"));
    }
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(object.contains_key(name), "{place}.{name} is missing");
    }
    for (name, inner) in object {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => panic!("{place}.{name} is not in the document"),
            (Value::Null, extra) => check(document, extra, inner, &format!("{place}.{name}")),
            (known, _) => check(document, known, inner, &format!("{place}.{name}")),
        }
    }
}

#[tokio::test]
async fn every_answer_fits_its_schema() {
    let control = Control::start().await;
    let document = control.raw("GET", "/openapi.json").send().await.ok(200);
    let promised = |path: &str, method: &str, status: u16| {
        let answer = &document["paths"][format!("/api/v1{path}")][method]["responses"];
        let answer = if status < 300 { &answer[status.to_string()] } else { &answer["default"] };
        let media = if status < 300 { "application/json" } else { "application/problem+json" };
        answer["content"][media]["schema"].clone()
    };
    let mut ids = Vec::new();
    for (path, body) in [
        ("/projects", json!({"slug": "p"})),
        (
            "/provider-keys",
            json!({"vendor": "openai", "label": "k", "secret": "sk-s-0000000000000000", "options": {"region": "eu"}}),
        ),
        ("/bots", json!({"hostname": "b", "labels": {"a": "b"}, "fallbacks": {"x": ["y"]}})),
        ("/vendors", json!({"slug": "v", "base_url": "https://v.example.com", "routes": ["chat/completions"]})),
        ("/api-tokens", json!({"name": "t", "role": "viewer"})),
        ("/tenants", json!({"slug": "t"})),
        ("/nodes/enroll-tokens", json!({})),
        ("/runners/enroll-tokens", json!({})),
    ] {
        let created = control.create(path, body).await;
        check(&document, &promised(path, "post", 201), &created, path);
        ids.push((path, created["id"].as_str().unwrap_or_default().to_owned()));
    }
    let id_of = |resource: &str| ids.iter().find(|(path, _)| *path == resource).map_or("x", |(_, id)| id.as_str());
    let paths: Vec<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    let mut fitting = 0;
    for path in paths.iter().filter_map(|path| path.strip_prefix("/api/v1")) {
        let get = &document["paths"][format!("/api/v1{path}")]["get"];
        // A stream has no end to wait for.
        if get.is_null() || !get["responses"]["200"]["content"]["text/event-stream"].is_null() {
            continue;
        }
        let resource = path.split("/{").next().unwrap_or(path);
        let real = path.replace("{id}", id_of(resource)).replace("{hostname}", "b").replace("{slug}", "v");
        let answer = control.call("GET", &real).send().await;
        check(&document, &promised(path, "get", answer.status), &answer.json(), path);
        fitting += usize::from(answer.status == 200);
    }
    assert!(fitting >= 25, "{fitting} of {}", paths.len());
    let refused = control.call("POST", "/bots").json(&json!({"hostname": "?", "x": 1})).send().await;
    check(&document, &promised("/bots", "post", refused.status), &refused.json(), "/bots");
    control.stop().await;
}
