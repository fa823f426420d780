//! Bad input from administrators: problem+json with a code and the fields, and
//! nothing changed.

use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::rest::Rest;
use clawgate_tests::stack::Stack;
use serde_json::{Value, json};
use sqlx::Connection as _;

fn problem(answer: &Response, status: u16, code: &str, field: Option<&str>) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
    let kind = answer.head.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/problem+json"), "{kind}");
    let body = answer.json();
    assert!(body["title"].is_string() && body["status"] == status, "{body}");
    if let Some(field) = field {
        let fields: Vec<&Value> = body["errors"].as_array().into_iter().flatten().map(|e| &e["field"]).collect();
        assert!(fields.iter().any(|f| f.as_str().is_some_and(|f| f.contains(field))), "{field}: {body}");
    }
}

fn counts(rest: &Rest) -> (usize, usize, usize) {
    (rest.all("/bots").len(), rest.all("/provider-keys").len(), rest.all("/audit").len())
}

#[test]
fn wrong_fields_are_named_and_change_nothing() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-admin", "worker");
    let rest = stack.rest();
    let before = counts(&rest);
    let post = |path: &str, body: Value| rest.call(Request::post(path, &body));
    for (body, field) in [
        (json!({ "hostname": 7 }), "hostname"),
        (json!({ "hostname": "Not A Host" }), "hostname"),
        (json!({ "hostname": "a", "tags": "x" }), "tags"),
        (json!({ "hostname": "a", "key_strategy": "random" }), "key_strategy"),
        (json!({ "hostname": "a", "on_disconnect": true }), "on_disconnect"),
        (json!({ "hostname": "a", "nosuchfield": 1 }), "nosuchfield"),
        (json!({}), "hostname"),
    ] {
        problem(&post("/bots", body), 422, "validation_failed", Some(field));
    }
    let key = |more: Value| {
        let mut body = json!({ "vendor": "openai", "label": "l", "secret": "sk-x" });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
            body.retain(|_, value| !value.is_null());
        }
        post("/provider-keys", body)
    };
    problem(&key(json!({ "secret": null })), 422, "validation_failed", Some("secret"));
    problem(&key(json!({ "secret": "" })), 422, "validation_failed", Some("secret"));
    problem(&key(json!({ "vendor": "nosuch" })), 422, "validation_failed", Some("vendor"));
    for base_url in [
        "http://10.0.0.1:8000/v1",
        "https://192.168.1.1/v1",
        "http://api.openai.com/v1",
        "http://169.254.169.254/latest",
        "https://[::1]:1/v1",
        "ftp://x/",
        "https://user:pass@api.openai.com/v1",
    ] {
        let answer = key(json!({ "base_url": base_url }));
        problem(&answer, 422, "validation_failed", Some("base_url"));
    }
    let no_json = Request::new("POST", "/bots").header("content-type", "application/json").body(b"{nope".to_vec());
    problem(&rest.call(no_json), 400, "invalid_json", None);
    problem(&post("/bots", json!({ "hostname": "worker" })), 409, "already_exists", None);
    problem(&rest.call(Request::new("GET", "/bots/nosuch")), 404, "not_found", None);
    problem(&rest.call(Request::new("GET", "/nosuch")), 404, "route_unknown", None);
    problem(&rest.call(Request::new("PUT", "/nodes")), 405, "method_not_allowed", None);
    assert_eq!(counts(&rest), before, "something was changed");
    assert_eq!(stack.chat(&bot).status(), 200);
}

#[test]
fn who_may_not_is_told_so() {
    let stack = Stack::start();
    let address = stack.control.address("console");
    let list = Request::new("GET", "/api/v1/bots");
    problem(&call(address, &list), 401, "token_missing", None);
    problem(&call(address, &list.clone().bearer("cga_nonsense")), 401, "token_invalid", None);
    let foreign_host = Request::new("GET", "/api/v1/bots").bearer(&stack.rest().token);
    let mut bytes = foreign_host.encode(address);
    let text = String::from_utf8(bytes).expect("ASCII").replace(&format!("host: {address}"), "host: evil.example");
    bytes = text.into_bytes();
    let mut connection = clawgate_tests::http::Connection::open(address).expect("connected");
    connection.send_raw(&bytes).expect("sent");
    let answer = connection.response("GET").expect("an answer");
    assert!((400..500).contains(&answer.status()), "{}", answer.text());
    assert_eq!(answer.code(), "host_not_allowed", "{}", answer.text());
    assert!(stack.rest().all("/bots").is_empty());
}

#[test]
fn a_locked_database_is_an_answer_and_no_loss() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-locked", "worker");
    let rest = stack.rest();
    let path = stack.control.data.join("clawgate.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = format!("sqlite://{}", path.display());
    let mut other = runtime.block_on(sqlx::SqliteConnection::connect(&url)).expect("opened");
    runtime.block_on(sqlx::query("BEGIN IMMEDIATE").execute(&mut other)).expect("locked");

    let answer = rest.call(Request::post("/bots", &json!({ "hostname": "meanwhile" })));
    problem(&answer, 503, "database_busy", None);
    // The data plane does not notice, and what it counts waits in the spool.
    for _ in 0..5 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    runtime.block_on(sqlx::query("ROLLBACK").execute(&mut other)).expect("unlocked");
    drop(other);
    assert_eq!(rest.usage_rows("worker", 5).len(), 5);
    let bot = stack.bot("meanwhile", json!({}));
    assert_eq!(stack.chat(&bot).status(), 200);
}
