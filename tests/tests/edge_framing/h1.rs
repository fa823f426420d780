//! Hundreds of malformed requests, each with a canary behind it, in front of
//! real servers: as many requests arrive as are answered, each with one key.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use clawgate_tests::edge::backends;
use clawgate_tests::edge::payloads::{self, Kind, Payload};
use clawgate_tests::stack::Stack;
use serde_json::json;

/// What a client saw after one payload and its canary.
#[derive(Debug, Default)]
struct Seen {
    /// Status codes in order.
    statuses: Vec<u16>,
    /// Of them, answers of the server behind.
    served: usize,
    /// The end of the connection came.
    closed: bool,
}

#[test]
fn no_payload_makes_two_requests_of_one() {
    let stack = Stack::start();
    let (backends, lacking) = backends::start_all(stack.folder.path());
    let mut sums = (0, 0, 0);
    for backend in &backends {
        let tag = format!("backend-{}", backend.name);
        let base = format!("http://{}/v1", backend.address);
        stack.key("openai", &format!("sk-{}", backend.name), &base, &[tag.as_str()], json!({}));
        let bot = stack.bot(&format!("bot-{}", backend.name), json!({ "tags": [tag] }));
        let list = payloads::all(&bot.token);
        let seen: Vec<Seen> = list.iter().enumerate().map(|(n, p)| shoot(stack.data(), &bot.token, n, p)).collect();
        // One more, so that the last line of the log is known to be there.
        let last = stack.chat(&bot);
        assert_eq!(last.status(), 200, "{}", last.text());
        let requests = backend.requests();
        let key = format!("Bearer sk-{}", backend.name);
        let mut behind: HashMap<&str, usize> = HashMap::new();
        for (probe, authorization, method) in &requests {
            assert_eq!(*authorization, key, "{}: {probe} {method}", backend.name);
            let number = probe.split('-').next().unwrap_or_default();
            *behind.entry(number).or_default() += 1;
        }
        for (number, (payload, seen)) in list.iter().zip(&seen).enumerate() {
            let arrived = behind.get(number.to_string().as_str()).copied().unwrap_or(0);
            assert_eq!(arrived, seen.served, "{}: {}: {seen:?}", backend.name, payload.name);
            judge(payload, seen, &mut sums);
        }
    }
    let (ambiguous, refused, closed) = sums;
    println!(
        "A1: {} payloads x {} servers ({} lacking): {refused} of {ambiguous} ambiguous ones refused with 400 and closed, \
         {closed} closed without, 0 desynchronised",
        payloads::all("x").len(),
        backends.len(),
        lacking.len()
    );
    assert!(payloads::all("x").len() >= 300 && backends.len() >= 2, "lacking: {lacking:?}");
    assert!(refused * 100 >= ambiguous * 95, "{refused} of {ambiguous}");
}

/// Sends a payload and a canary behind it and reads to the end.
fn shoot(address: SocketAddr, token: &str, number: usize, payload: &Payload) -> Seen {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let canary = format!(
        "GET /v1/openai/models HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nx-probe: {number}-canary\r\n\
         Connection: close\r\n\r\n"
    );
    let mut bytes = payload.bytes.clone();
    bytes.extend_from_slice(canary.as_bytes());
    let _ = stream.write_all(&bytes);
    let mut answer = Vec::new();
    let mut piece = [0_u8; 16 * 1024];
    let mut half = false;
    let closed = loop {
        // A body that is not whole is ended, so that nobody waits for the rest;
        // not before it is clear that nothing else comes.
        let limit = if half { Duration::from_secs(20) } else { Duration::from_millis(300) };
        stream.set_read_timeout(Some(limit)).expect("a limit");
        match stream.read(&mut piece) {
            Ok(0) => break true,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if half {
                    break false;
                }
                let _ = stream.shutdown(Shutdown::Write);
                half = true;
            }
            Err(_) => break true,
        }
    };
    let text = String::from_utf8_lossy(&answer);
    let statuses = text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    let statuses: Vec<u16> = statuses.filter(|status| *status != 100).collect();
    let served = text.split("HTTP/1.1 ").filter(|one| one.contains("x-clawgate-attempts: 1")).count();
    Seen { statuses, served, closed }
}

fn judge(payload: &Payload, seen: &Seen, (ambiguous, refused, closed): &mut (usize, usize, usize)) {
    assert!(seen.closed, "{}: silence after {seen:?}", payload.name);
    assert!(seen.statuses.iter().all(|status| *status < 500 || *status == 502), "{}: {seen:?}", payload.name);
    if payload.kind == Kind::Legal {
        assert!(seen.statuses.len() <= 2 && seen.served >= 1, "{}: {seen:?}", payload.name);
        return;
    }
    if payload.kind == Kind::Lenient {
        println!("lenient: {} {seen:?}", payload.name);
        return;
    }
    *ambiguous += 1;
    match seen.statuses.as_slice() {
        [400] => *refused += 1,
        [] => *closed += 1,
        _ => println!("not refused with 400 and closed: {} {seen:?}", payload.name),
    }
    assert_eq!(seen.served, 0, "{}: {seen:?}", payload.name);
}
