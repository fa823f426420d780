//! Every error has its shape, its code and the name of the field.

use serde_json::json;

use crate::common::Control;

#[tokio::test]
async fn requests_that_are_no_requests_of_ours() {
    let control = Control::start().await;
    control.call("GET", "/nothing").send().await.problem(404, "route_unknown");
    control.raw("GET", "/api/v2/bots").send().await.problem(404, "route_unknown");
    let answer = control.call("PUT", "/bots").send().await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, POST");
    control.raw("POST", "/docs").send().await.problem(405, "method_not_allowed");

    for path in ["/bots/%ff", "/bots/%00", "/bots/a%00b/tokens/x", "/usage/logs/%c3%28"] {
        let method = if path.contains("tokens") { "DELETE" } else { "GET" };
        control.call(method, path).send().await.problem(404, "route_unknown");
    }
    control.call("GET", "/usage/logs?model=%00").send().await.problem(400, "invalid_parameter");

    let post = |body: &'static str, kind: &'static str| {
        let call = control.call("POST", "/bots").body(body);
        async move { call.header("content-type", kind).send().await }
    };
    post("{}", "text/plain").await.problem(415, "unsupported_media_type");
    let body = post("{\"hostname\":", "application/json").await.problem(400, "invalid_json");
    assert!(body["detail"].as_str().expect("detail").contains("line 1"), "{body}");
    let long = format!("{{\"hostname\":\"{}\"}}", "x".repeat(2 << 20));
    let answer = control.call("POST", "/bots").header("content-type", "application/json").body(&long).send().await;
    answer.problem(413, "request_too_large");
    // The next good request succeeds.
    control.create("/bots", json!({"hostname": "fine"})).await;
    control.stop().await;
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let control = Control::start().await;
    for (path, body, wanted) in [
        ("/bots", json!({"hostname": "a", "colour": 1}), vec![("colour", "unknown")]),
        ("/bots", json!({}), vec![("hostname", "required")]),
        ("/bots", json!({"hostname": 5}), vec![("hostname", "type")]),
        ("/bots", json!({"hostname": "a", "tags": ["x", 7]}), vec![("tags[1]", "type")]),
        (
            "/bots",
            json!({"hostname": "a", "limits": {"requests_per_minute": -1}}),
            vec![("limits.requests_per_minute", "type")],
        ),
        ("/bots", json!({"hostname": "a", "labels": {"k": 1}}), vec![("labels.k", "type")]),
        ("/provider-keys", json!({"vendor": "openai", "label": "l", "secret": 5}), vec![("secret", "type")]),
        (
            "/provider-keys",
            json!({"vendor": "openai", "label": "l", "secret": "x", "weight": "1"}),
            vec![("weight", "type")],
        ),
        ("/tenants", json!({"slug": "a", "time_zone": false}), vec![("time_zone", "type")]),
        ("/api-tokens", json!({"name": "a"}), vec![("role", "required")]),
    ] {
        control.call("POST", path).json(&body).send().await.refuses(&wanted);
    }
    control.call("POST", "/bots").json(&json!(["a"])).send().await.refuses(&[("(body)", "type")]);

    for (path, field) in [
        ("/bots?limit=0", "limit"),
        ("/bots?limit=x", "limit"),
        ("/bots?after=%25", "after"),
        ("/bots?colour=red", "colour"),
        ("/usage/stats?period=year", "period"),
        ("/usage/trend?granularity=month", "granularity"),
        ("/usage/breakdown?groupBy=colour", "groupBy"),
        ("/usage/stats?startDate=2025-02-31", "startDate"),
        ("/usage/stats?startDate=2025-02-03&endDate=2025-02-03", "endDate"),
        ("/usage/logs?status=abc", "status"),
        ("/usage/logs?from=yesterday", "from"),
    ] {
        let body = control.call("GET", path).send().await.problem(400, "invalid_parameter");
        assert_eq!(body["errors"][0]["field"], field, "{path}: {body}");
    }
    control.stop().await;
}

#[tokio::test]
async fn every_wrong_value_is_reported_at_once() {
    let control = Control::start().await;
    let body = json!({
        "hostname": "Not A Host", "key_strategy": "random", "on_disconnect": "explode", "include_usage": "perhaps",
        "permissions": ["root"], "allowed_vendors": ["nobody"],
    });
    let answer = control.call("POST", "/bots").json(&body).send().await;
    let problem = answer.problem(422, "validation_failed");
    let fields: Vec<&str> =
        problem["errors"].as_array().expect("errors").iter().map(|e| e["field"].as_str().expect("field")).collect();
    for field in ["hostname", "key_strategy", "on_disconnect", "include_usage"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    assert!(fields.iter().any(|field| field.starts_with("permissions")), "{fields:?}");
    assert!(fields.iter().any(|field| field.starts_with("allowed_vendors")), "{fields:?}");
    control.stop().await;
}

#[tokio::test]
async fn people_are_told_in_their_language() {
    let control = Control::start().await;
    let answer = control.call("GET", "/bots/nobody").header("accept-language", "zh-CN,zh;q=0.9").send().await;
    let body = answer.problem(404, "not_found");
    assert_eq!((body["title"].as_str(), answer.header("content-language")), (Some("未找到"), "zh"));
    let answer = control.call("GET", "/bots/nobody").send().await;
    assert_eq!(
        (answer.problem(404, "not_found")["title"].as_str(), answer.header("content-language")),
        (Some("Not found"), "en")
    );
    assert_eq!(answer.header("x-request-id").len(), 36);
    assert!(answer.json()["instance"].as_str().expect("instance").ends_with(answer.header("x-request-id")));
    control.stop().await;
}

#[tokio::test]
async fn strangers_are_refused() {
    let control = Control::start().await;
    let missing = control.raw("GET", "/api/v1/bots").send().await;
    missing.problem(401, "token_missing");
    assert!(missing.header("www-authenticate").starts_with("Bearer"), "{missing:?}");
    for token in ["x", "cga_wrong", &format!("{}x", control.token), "cgb_abc"] {
        control.as_token(token, "GET", "/bots").send().await.problem(401, "token_invalid");
    }
    control.raw("GET", "/api/v1/bots").header("authorization", "Basic abc").send().await.problem(401, "token_missing");
    let answer = control.call("GET", "/bots").header("host", "evil.example").send().await;
    answer.problem(421, "host_not_allowed");
    control.get("/bots").await;
    control.stop().await;
}

#[tokio::test]
async fn pages_need_no_token_and_nothing_from_elsewhere() {
    let control = Control::start().await;
    for path in ["/", "/docs", "/docs/docs.js"] {
        let answer = control.raw("GET", path).send().await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text.contains("://"), "{path} names another place");
    }
    let document = control.raw("GET", "/openapi.json").send().await.ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    // Each documented operation is there: neither "no such path" nor "no such method".
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("item").keys() {
            let path = path
                .replace("{id}", "x")
                .replace("{hostname}", "x")
                .replace("{slug}", "x")
                .replace("{request_id}", "x");
            let answer = control.raw(&method.to_uppercase(), &path).send().await;
            answer.problem(401, "token_missing");
        }
    }
    control.stop().await;
}
