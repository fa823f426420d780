//! Asking a vendor whether a key works, against a vendor in this process.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::{CANARY, Control};

/// A vendor that answers every request with the status its path names
/// (`/401/models`), and remembers what it was asked.
struct Vendor {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let status = head.split('/').nth(1).unwrap_or("500").to_owned();
                let body = if status == "400" { "{\"reason\":\"API_KEY_INVALID\"}" } else { "{\"quotes\":\"no key\"}" };
                let more = if status == "302" { "location: http://127.0.0.1:1/elsewhere\r\n" } else { "" };
                log.lock().expect("lock").push(head);
                let answer = format!("HTTP/1.1 {status} X\r\n{more}content-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { base, seen }
    }

    fn last(&self) -> String {
        self.seen.lock().expect("lock").last().cloned().unwrap_or_default()
    }

    fn asked(&self) -> usize {
        self.seen.lock().expect("lock").len()
    }
}

async fn start() -> (Control, Vendor) {
    let control = Control::start_in(tempfile::tempdir().expect("folder"), |settings| {
        settings.private_upstreams = Some("127.0.0.0/8:*".into());
    })
    .await;
    (control, Vendor::start().await)
}

fn key(vendor: &str, label: &str, base_url: &str) -> Value {
    json!({"vendor": vendor, "label": label, "secret": CANARY, "base_url": base_url})
}

#[tokio::test]
async fn a_vendors_answer_decides_the_status() {
    let (control, vendor) = start().await;
    for (slug, status, result, state) in [
        ("openai", 200, "active", "active"),
        ("openai", 401, "invalid", "invalid"),
        ("google", 400, "invalid", "invalid"),
        ("openai", 402, "exhausted", "exhausted"),
        ("openai", 429, "rate_limited", "active"),
        ("anthropic", 403, "forbidden", "active"),
        ("openai", 404, "unsupported", "active"),
        ("openai", 302, "vendor_error", "active"),
        ("openai", 500, "vendor_error", "active"),
    ] {
        let body = key(slug, &format!("{status}"), &format!("{}/{status}", vendor.base));
        let made = control.create("/provider-keys", body).await;
        assert_eq!((&made["status"], made.get("verification")), (&json!("active"), None));
        let id = made["id"].as_str().expect("id");
        let answer = control.call("POST", &format!("/provider-keys/{id}/verify")).send().await;
        let said = answer.ok(200);
        assert_eq!(
            (&said["result"], &said["status"], &said["http_status"]),
            (&json!(result), &json!(state), &json!(status))
        );
        assert!(!answer.text.contains(CANARY));
        let read = control.get(&format!("/provider-keys/{id}")).await;
        assert_eq!((&read["status"], read["status_reason"] == ""), (&json!(state), state == "active"), "{read}");
        let asked = vendor.last();
        assert_eq!(asked.matches(CANARY).count(), 1, "{asked}");
        let path = match slug {
            "anthropic" => "models?limit=1",
            "google" => "models?pageSize=1",
            _ => "models",
        };
        assert!(asked.starts_with(&format!("GET /{status}/{path} HTTP/1.1\r\n")), "{asked}");
        let (name, more) = match slug {
            "anthropic" => ("x-api-key: ", "anthropic-version: "),
            "google" => ("x-goog-api-key: ", ""),
            _ => ("authorization: Bearer ", ""),
        };
        assert!(asked.contains(&format!("{name}{CANARY}\r\n")) && asked.contains(more), "{asked}");
    }
    let rows = control.call("GET", "/audit?action=provider_key.verify").send().await;
    assert_eq!(rows.ok(200)["data"].as_array().map(Vec::len), Some(9));
    assert!(!rows.text.contains(CANARY));
    control.stop().await;
}

#[tokio::test]
async fn a_key_is_verified_as_it_is_made_and_a_new_secret_has_a_clean_slate() {
    let (control, vendor) = start().await;
    let body = key("openai", "bad", &format!("{}/401", vendor.base));
    let post = || control.call("POST", "/provider-keys?verify=true").header("idempotency-key", "k").json(&body);
    let answer = post().send().await;
    let made = answer.ok(201);
    assert_eq!((&made["status"], &made["verification"]["result"]), (&json!("invalid"), &json!("invalid")));
    let path = format!("/provider-keys/{}", made["id"].as_str().expect("id"));
    assert_eq!(answer.header("location"), format!("/api/v1{path}"));
    assert_eq!(answer.header("etag"), control.call("GET", &path).send().await.header("etag"));
    assert_eq!((post().send().await.ok(201), vendor.asked()), (made, 1), "a repeat asks nobody");
    let rotated = control.call("POST", &format!("{path}/rotate")).json(&json!({"secret": "sk-new-0000000000000001"}));
    assert_eq!(rotated.send().await.ok(200)["status"], "active");

    let wrong = control.call("POST", "/provider-keys?verify=maybe").json(&body).send().await;
    wrong.problem(400, "invalid_parameter");
    let admin = control.create("/api-tokens", json!({"name": "o", "role": "operator"})).await;
    let admin = admin["token"].as_str().expect("token");
    control.as_token(admin, "POST", &format!("{path}/verify")).send().await.problem(403, "forbidden");
    control.call("POST", "/provider-keys/key_x/verify").send().await.problem(404, "not_found");
    assert_eq!(vendor.asked(), 1);
    control.stop().await;
}

#[tokio::test]
async fn what_cannot_be_asked_says_why() {
    let (control, vendor) = start().await;
    let verify = |made: Value| {
        let path = format!("/provider-keys/{}/verify", made["id"].as_str().expect("id"));
        let call = control.call("POST", &path);
        async move { call.send().await.ok(200) }
    };
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("address");
    for (body, result) in [
        (key("openai", "closed", &format!("http://{closed}/v1")), "unreachable"),
        (key("nvidia", "open to all", &format!("{}/200", vendor.base)), "unsupported"),
    ] {
        let said = verify(control.create("/provider-keys", body).await).await;
        assert_eq!((&said["result"], &said["status"]), (&json!(result), &json!("active")), "{said}");
        assert_eq!(said["http_status"], json!(null));
        assert!(!said["message"].as_str().expect("message").is_empty());
    }
    assert_eq!(vendor.asked(), 0);
    control.stop().await;
}
