//! What a bot carries in stays here; what a vendor says of our account does too.

use std::process::Command;

use clawgate_tests::config::{installed, missing};
use clawgate_tests::edge::sink::Sink;
use clawgate_tests::edge::tls::{Pair, plain_listener};
use clawgate_tests::http::{Request, call};
use clawgate_tests::stack::Stack;
use serde_json::json;

const CANARY: &str = "canary-7f3a91";

/// Everywhere a secret may come in; a name that begins with `?` is a query
/// parameter.
const CARRIERS: [&str; 24] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "ocp-apim-subscription-key",
    "cookie",
    "openai-organization",
    "openai-project",
    "anthropic-workspace-id",
    "x-amz-security-token",
    "x-forwarded-for",
    "forwarded",
    "x-auth-token",
    "x-access-token",
    "x-portkey-api-key",
    "x-litellm-api-key",
    "sec-websocket-protocol",
    "?key",
    "?api_key",
    "?access_token",
    "?token",
    "x_api_key",
];

/// Vendor, path, and the form its key goes out in.
const VENDORS: [(&str, &str, &str); 4] = [
    ("openai", "/v1/openai/chat/completions", "authorization: Bearer sk-injected"),
    ("anthropic", "/v1/anthropic/v1/messages", "x-api-key: sk-injected"),
    ("google", "/v1/google/v1beta/models/m:generateContent", "x-goog-api-key: sk-injected"),
    ("azure-openai", "/v1/azure-openai/openai/v1/chat/completions", "api-key: sk-injected"),
];

/// The header lines and the query of one carrier.
fn carried(carrier: &str) -> (Option<(String, String)>, String) {
    match carrier.strip_prefix('?') {
        Some(parameter) => (None, format!("?{parameter}={CANARY}&alt=sse")),
        None => {
            let value = match carrier {
                "authorization" | "proxy-authorization" => format!("Bearer {CANARY}"),
                "cookie" => format!("session={CANARY}"),
                "sec-websocket-protocol" => format!("realtime, openai-insecure-api-key.{CANARY}"),
                _ => CANARY.to_owned(),
            };
            (Some((carrier.to_owned(), value)), String::new())
        }
    }
}

#[test]
fn no_carrier_leads_through() {
    let Some(curl) = installed("curl") else { return missing("curl") };
    let pair = Pair::fresh();
    let stack = Stack::start_with(|_, node| {
        let folder = node.spec.folder.clone();
        pair.serve_on(node, &folder);
    });
    let sink = Sink::start();
    for (vendor, ..) in VENDORS {
        let root = if vendor == "azure-openai" { "/openai/v1" } else { "/v1" };
        stack.key(vendor, "sk-injected", &format!("http://{}{root}", sink.address), &[], json!({}));
    }
    let bot = stack.bot("carrier", json!({}));
    let plain = plain_listener(&stack.node);
    let body = json!({ "model": "m", "messages": [], "max_tokens": 5, "contents": [] });
    let (mut arrived, mut refused) = (0, 0);
    for (vendor, path, form) in VENDORS {
        for carrier in CARRIERS {
            let (header, query) = carried(carrier);
            // The token comes where the canary does not.
            let own = if carrier == "authorization" { "x-api-key" } else { "authorization" };
            let token = if own == "authorization" { format!("Bearer {}", bot.token) } else { bot.token.clone() };
            let mut request = Request::post(&format!("{path}{query}"), &body).header(own, &token);
            let mut command = Command::new(&curl);
            command.args(["-sS", "--http2", "--cacert"]).arg(stack.folder.path().join("cert.pem"));
            command.args(["--resolve", &format!("localhost:{}:127.0.0.1", stack.data().port())]);
            command.args(["-o", "/dev/null", "-w", "%{http_version} %{http_code}", "-d", &body.to_string()]);
            command.args(["-H", "content-type: application/json", "-H", &format!("{own}: {token}")]);
            if let Some((name, value)) = &header {
                request = request.header(name, value);
                command.args(["-H", &format!("{name}: {value}")]);
            }
            let first = call(plain, &request).status();
            let output = command.arg(format!("https://localhost:{}{path}{query}", stack.data().port())).output();
            let text = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
            assert_eq!(text, format!("2 {first}"), "{vendor} {carrier}");
            let seen = sink.take();
            assert_eq!(seen.len(), if first == 200 { 2 } else { 0 }, "{vendor} {carrier}: {first} {seen:?}");
            arrived += seen.len();
            refused += 2 - seen.len();
            for request in seen {
                let text = request.to_ascii_lowercase();
                assert!(
                    !text.contains(CANARY) && !text.contains(&bot.token.to_ascii_lowercase()),
                    "{carrier}: {request}"
                );
                assert_eq!(text.matches("sk-injected").count(), 1, "{carrier}: {request}");
                assert!(text.contains(&form.to_ascii_lowercase()), "{vendor} {carrier}: {request}");
            }
        }
    }
    println!(
        "D1: {} carriers x {} vendors x 2 versions of HTTP: {arrived} arrived without a canary and with one key, \
         {refused} refused",
        CARRIERS.len(),
        VENDORS.len()
    );
    assert!(arrived > 100);
}

/// Name, value, and whether it may reach the bot.
const ANSWERED: [(&str, &str, bool); 28] = [
    ("set-cookie", "__cf_bm=secret", false),
    ("set-cookie2", "a=secret", false),
    ("openai-organization", "org-secret", false),
    ("openai-project", "proj-secret", false),
    ("anthropic-organization-id", "secret", false),
    ("cf-ray", "secret", false),
    ("cf-cache-status", "secret", false),
    ("server", "secret", false),
    ("via", "1.1 secret", false),
    ("alt-svc", "h3=\"secret\"", false),
    ("strict-transport-security", "max-age=1; secret", false),
    ("nel", "secret", false),
    ("report-to", "secret", false),
    ("reporting-endpoints", "secret", false),
    ("x-ratelimit-limit-tokens", "secret", false),
    ("x-ratelimit-remaining-requests", "secret", false),
    ("anthropic-ratelimit-tokens-limit", "secret", false),
    ("ratelimit-policy", "secret", false),
    ("x-rate-limit-remaining", "secret", false),
    ("www-authenticate", "Bearer secret", false),
    ("proxy-authenticate", "secret", false),
    ("keep-alive", "timeout=5, secret", false),
    ("connection", "x-nominated", false),
    ("x-nominated", "secret", false),
    ("x-powered-by", "secret", false),
    ("openai-processing-ms", "12", true),
    ("openai-version", "2020-10-01", true),
    ("x-request-id", "req-upstream", true),
];

#[test]
fn a_vendor_tells_nothing_of_our_account() {
    let stack = Stack::start();
    let sink = Sink::start();
    stack.key("openai", "sk-d2", &format!("http://{}/v1", sink.address), &[], json!({}));
    let bot = stack.bot("listener", json!({}));
    let headers: Vec<(&str, &str)> = ANSWERED.iter().map(|(name, value, _)| (*name, *value)).collect();
    for status in [200, 400] {
        sink.answer_with(status, &headers);
        let answer = stack.chat(&bot);
        assert_eq!(answer.status(), status);
        let shown = format!("{:?}", answer.head.headers);
        assert!(!shown.contains("secret"), "{shown}");
        for (name, value, passes) in ANSWERED {
            let found = answer.head.header(name) == Some(value);
            let expected = passes && name != "x-request-id";
            assert_eq!(found, expected, "{name}: {shown}");
        }
        assert_eq!(answer.head.header("x-upstream-request-id"), Some("req-upstream"));
    }
    // A refusal of the key quotes it; the bot does not see that.
    sink.answer_with(401, &[("x-quoted", "Incorrect API key provided: sk-d2")]);
    let answer = stack.chat(&bot);
    assert!(!answer.text().contains("sk-d2") && !format!("{:?}", answer.head).contains("sk-d2"), "{answer:?}");
    println!("D2: {} headers x 2 answers as the policy says", ANSWERED.len());
}
