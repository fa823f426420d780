//! TLS of the data listener: a new certificate without a restart, and HTTP/2
//! with clients of this world.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use clawgate_tests::config::{installed, missing};
use clawgate_tests::edge::tls::{Pair, Secure, connect, plain_listener};
use clawgate_tests::edge::usage::metric;
use clawgate_tests::http::Request;
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use clawgate_tests::wait::until;

/// Reads one answer with a length from a TLS connection; says its status.
fn ask(secure: &mut Secure, request: &Request) -> u16 {
    use std::io::Read as _;
    let address = secure.sock.peer_addr().expect("connected");
    secure.write_all(&request.encode(address)).and_then(|()| secure.flush()).expect("sent");
    let mut bytes = Vec::new();
    let mut piece = [0_u8; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ").or(line.strip_prefix("Content-Length: ")));
            let chunked = body.ends_with("0\r\n\r\n");
            if chunked || length.and_then(|n| n.parse::<usize>().ok()).is_some_and(|length| body.len() >= length) {
                return head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
            }
        }
        let count = secure.read(&mut piece).expect("an answer");
        assert!(count > 0, "the connection ended after {text:?}");
        bytes.extend_from_slice(&piece[..count]);
    }
}

fn shown(secure: &Secure) -> Vec<u8> {
    secure.conn.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()).expect("a certificate")
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    let (old, new) = (Pair::fresh(), Pair::fresh());
    let stack = Stack::start_with(|_, node| {
        let folder = node.spec.folder.clone();
        old.serve_on(node, &folder);
    });
    let bot = stack.ordinary("sk-tls", "worker");
    let folder = stack.folder.path();
    let trusted = [&old, &new];
    let open = || connect(stack.data(), &trusted, &[b"http/1.1"]).expect("a handshake");
    let mut kept = open();
    assert_eq!(shown(&kept), old.der().to_vec());
    assert_eq!(ask(&mut kept, &chat_request(&bot.token)), 200);

    // A pair that does not fit together changes nothing but a metric.
    let torn = Pair { certificate: new.certificate.clone(), key: old.key.clone() };
    let _ = torn.write(folder);
    let admin = stack.node.address("admin");
    until("the torn pair to be refused", Duration::from_secs(15), || {
        (metric(admin, "clawgate_certificate_reloads_total{outcome=\"refused\"}") >= 1.0).then_some(())
    });
    assert_eq!(shown(&open()), old.der().to_vec());

    let began = Instant::now();
    let _ = new.write(folder);
    let mut fresh = until("the new certificate", Duration::from_secs(15), || {
        Some(open()).filter(|secure| shown(secure) == new.der().to_vec())
    });
    println!("TLS: a new certificate is in use {:?} after its files were written", began.elapsed());
    assert_eq!(ask(&mut fresh, &chat_request(&bot.token)), 200);
    assert_eq!(ask(&mut kept, &chat_request(&bot.token)), 200, "an old connection goes on");
    // The plain listener beside it is no TLS.
    assert_eq!(clawgate_tests::http::call(plain_listener(&stack.node), &chat_request(&bot.token)).status(), 200);
}

#[test]
fn http2_streams_and_a_hundred_at_once() {
    let Some(curl) = installed("curl") else { return missing("curl") };
    let pair = Pair::fresh();
    let stack = Stack::start_with(|_, node| {
        let folder = node.spec.folder.clone();
        pair.serve_on(node, &folder);
    });
    let bot = stack.ordinary("sk-h2", "worker");
    let folder = stack.folder.path();
    let port = stack.data().port();
    let url = format!("https://localhost:{port}/v1/openai/chat/completions");
    let resolve = format!("localhost:{port}:127.0.0.1");
    let authorization = format!("authorization: Bearer {}", bot.token);
    let common = |command: &mut Command| {
        command.args(["-sS", "--http2", "--max-time", "50", "--resolve", &resolve, "--cacert"]);
        command.arg(folder.join("cert.pem")).args(["-H", &authorization, "-H", "content-type: application/json"]);
    };

    let mut streamed = Command::new(&curl);
    common(&mut streamed);
    streamed.args(["-N", "-d", &chat_body(true).to_string(), "-w", "\n%{http_version} %{http_code}", &url]);
    let output = streamed.output().expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("\n2 200") && text.contains("data: [DONE]"), "{text} {output:?}");

    // A hundred over one connection: each waits for its first byte while all are open.
    let mut many = Command::new(&curl);
    common(&mut many);
    many.args(["-Z", "--parallel-max", "100", "-H", "x-mock-ttft: 1000", "-d", &chat_body(true).to_string()]);
    many.args(["-w", "%{http_version} %{http_code} %{num_connects}\n"]);
    for number in 0..100 {
        many.arg("-o").arg(folder.join(format!("answer-{number}"))).arg(&url);
    }
    let began = Instant::now();
    let child = many.stdout(std::process::Stdio::piped()).spawn().expect("curl runs");
    let peak =
        until("streams to overlap", Duration::from_secs(20), || Some(stack.mock.inflight()).filter(|n| *n >= 60));
    let output = child.wait_with_output().expect("curl ends");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let good = lines.lines().filter(|line| line.starts_with("2 200")).count();
    let connects: u32 = lines.lines().filter_map(|l| l.rsplit(' ').next()?.parse::<u32>().ok()).sum();
    println!("H2: 100 streams, {peak} seen at once at the vendor, {connects} connections, {:?}", began.elapsed());
    assert_eq!(good, 100, "{lines}");
    for number in 0..100 {
        let answer = std::fs::read_to_string(folder.join(format!("answer-{number}"))).expect("an answer");
        assert!(answer.contains("data: [DONE]"), "{number}: {answer}");
    }
    assert_eq!(stack.rest().usage_rows("worker", 101).len(), 101);
}
