//! Where a key may lead, and which paths may be called with it.

use clawgate_tests::edge::sink::Sink;
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::Stack;
use serde_json::json;

/// Hosts that are, or may be read as, loopback, private or metadata addresses.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "0.1.2.3",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0x0.0.1",
    "0x7f.1",
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "10.0.0.1",
    "10.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "100.64.0.1",
    "100.127.255.255",
    "198.18.0.1",
    "192.0.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "localhost",
    "LOCALHOST",
    "a.localhost",
    "localhost.",
    "127.0.0.1.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:1::1]",
    "metadata.google.internal",
    "METADATA.google.internal",
    "metadata.goog",
    "instance-data",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "\u{2460}\u{2461}\u{2466}.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1\\.example.com",
    "[::1",
    "::1",
];

/// Whole addresses that no strict reader takes.
const WHOLE: &[&str] = &[
    "https://user@example.com/v1",
    "https://user:pw@127.0.0.1/v1",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1:80@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https:\\\\127.0.0.1\\",
    "https:/127.0.0.1/",
    "https:127.0.0.1",
    "//127.0.0.1/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_x",
    "unix:/run/docker.sock",
    "data:text/plain,x",
    "javascript:1",
    "HTTPS://127.0.0.1/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:80:80/",
    "https://example.com:+80/",
    "https://example.com: 80/",
    "https://example.com/../x",
    "https://example.com/a/./b",
    "https://example.com/%2e%2e/",
    "https://example.com/?x=y",
    "https://example.com/#x",
    "https://exa mple.com/",
    "https://example.com/\u{0}",
    "https:// example.com/",
    "https://",
];

#[test]
fn no_address_of_ours_or_of_the_cloud_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut control = clawgate_tests::stack::Service::control("control", folder.path());
    control.spec.set("--private-upstreams", "none");
    control.start();
    let rest = control.rest();
    let mut tried = 0;
    let urls = HOSTS.iter().flat_map(|host| {
        [format!("https://{host}/v1"), format!("http://{host}:8080/v1"), format!("https://{host}:443")]
    });
    for url in urls.chain(WHOLE.iter().map(|url| (*url).to_owned())).chain(["http://example.com/v1".to_owned()]) {
        let body = json!({ "vendor": "openai", "label": format!("k{tried}"), "secret": "sk-e1", "base_url": url });
        let answer = rest.call(Request::post("/provider-keys", &body));
        assert!((400..500).contains(&answer.status()), "{url}: {} {}", answer.status(), answer.text());
        assert!(!answer.text().contains("sk-e1"), "{}", answer.text());
        tried += 1;
    }
    assert_eq!(rest.all("/provider-keys").len(), 0);
    println!("E1: {tried} of {tried} addresses refused when saved");
    assert!(tried >= 150);
}

/// What is tried in place of a path below `/v1/{vendor}/`.
fn paths() -> Vec<String> {
    let dots = [
        "..",
        ".",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%25252e%25252e",
        "..;",
        "..;a=b",
        ";..",
        "..%00",
        "%00",
        "..%0a",
        "..%09",
        "%c0%ae%c0%ae",
        "%e0%80%ae",
        "..\\",
        "..%5c",
        "%5c..",
        "...",
        "....//",
    ];
    let shapes = [
        "{}/admin",
        "chat/{}/organization",
        "chat/completions/{}/{}/organization",
        "{}/{}/v1/anthropic/x",
        "{}",
        "chat/{}%2fadmin",
    ];
    let built = dots.iter().flat_map(|dot| shapes.iter().map(move |shape| shape.replace("{}", dot)));
    let others = [
        "/organization/keys",
        "//organization",
        "%2f",
        "%2Forganization",
        "chat%2fcompletions",
        "chat//completions",
        "http://other/x",
        "//other/x",
        "chat/completions;a=/../../x",
        "organization/api_keys",
        "ORGANIZATION/x",
        "files",
        "chat/completions%20",
        "chat/completions%0d%0ax:%20y",
        "chat/completions%3f/../x",
        "models/../files",
        "chat/completions/",
    ];
    built.chain(others.iter().map(|path| (*path).to_owned())).collect()
}

#[test]
fn no_path_leads_out_of_its_vendor() {
    let stack = Stack::start();
    let sink = Sink::start();
    for vendor in ["openai", "anthropic", "google"] {
        stack.key(vendor, "sk-e2", &format!("http://{}/inside/{vendor}/v1", sink.address), &[], json!({}));
    }
    let bot = stack.bot("walker", json!({}));
    let (mut tried, mut passed) = (0, 0);
    for vendor in ["openai", "anthropic", "google"] {
        for path in paths() {
            let target = format!("/v1/{vendor}/{path}?keep=a%2Fb&key={}&x=..%2f", bot.token);
            let request = Request { target: target.clone(), ..clawgate_tests::stack::chat_request(&bot.token) };
            let mut connection = Connection::open(stack.data()).expect("connected");
            let answer = connection.call(&request).expect("an answer");
            let seen = sink.take();
            tried += 1;
            if answer.status() != 200 {
                assert!((400..500).contains(&answer.status()) && seen.is_empty(), "{target}: {answer:?} {seen:?}");
                continue;
            }
            passed += 1;
            let line = seen.first().and_then(|request| request.lines().next()).unwrap_or_default();
            let sent = line.split(' ').nth(1).unwrap_or_default();
            assert!(sent.starts_with(&format!("/inside/{vendor}/")), "{target}: {line}");
            let (way, query) = sent.split_once('?').unwrap_or((sent, ""));
            assert_eq!(query, "keep=a%2Fb&x=..%2f", "{target}");
            let lower = way.to_ascii_lowercase();
            for bad in ["..", "%2e", "%252e", "%5c", "\\", "%2f", "%00", "/./"] {
                assert!(!lower.contains(bad), "{target}: {line}");
            }
        }
    }
    println!("E2: {tried} paths, {passed} passed and stayed within their vendor, the rest refused with 4xx");
    assert!(tried >= 120);
}
