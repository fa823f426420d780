//! A create that is sent again.

use serde_json::json;

use crate::common::Control;

#[tokio::test]
async fn a_repeat_gets_the_first_answer() {
    let control = Control::start().await;
    let body = json!({"hostname": "b"});
    let post = |key: &'static str, body: &serde_json::Value| {
        let call = control.call("POST", "/bots").header("idempotency-key", key).json(body);
        async move { call.send().await }
    };
    let first = post("k1", &body).await;
    let again = post("k1", &body).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.text, again.text, "the token, shown once, is shown to the one who asked");
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(control.get("/bots").await["total"], 1);

    post("k1", &json!({"hostname": "c"})).await.problem(422, "idempotency_key_reused");
    let elsewhere = control.call("POST", "/projects").header("idempotency-key", "k1").json(&json!({"slug": "p"}));
    elsewhere.send().await.problem(422, "idempotency_key_reused");
    post("k2", &body).await.refuses_conflict("hostname");
    // A refused create does not use the key up.
    assert_eq!(post("k2", &json!({"hostname": "c"})).await.status, 201);
    post("", &body).await.problem(400, "invalid_parameter");

    // The key belongs to who used it.
    let minted = control.create("/api-tokens", json!({"name": "o", "role": "owner"})).await;
    let other = control.as_token(minted["token"].as_str().expect("token"), "POST", "/bots");
    let answer = other.header("idempotency-key", "k1").json(&body).send().await;
    answer.refuses_conflict("hostname");

    // What is stored is sealed.
    let file = control.folder.path().join("d").join("clawgate.db");
    let token = first.json()["token"].as_str().expect("token").to_owned();
    for path in [file.clone(), file.with_extension("db-wal")] {
        let bytes = std::fs::read(path).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }
    control.stop().await;
}

#[tokio::test]
async fn two_at_once_make_one() {
    let control = Control::start().await;
    let post = || {
        let call = control.call("POST", "/bots").header("idempotency-key", "same").json(&json!({"hostname": "b"}));
        async move { call.send().await }
    };
    let (a, b) = tokio::join!(post(), post());
    for answer in [&a, &b] {
        if answer.status != 201 {
            answer.problem(409, "idempotency_in_progress");
        }
    }
    assert!(a.status == 201 || b.status == 201);
    assert_eq!(control.get("/bots").await["total"], 1);
    control.stop().await;
}
