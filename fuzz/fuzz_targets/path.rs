//! Path policy: a path that may be called stays below its base, whoever decodes it
//! however often.

#![no_main]

use clawgate_fuzz::catalogue::{self, RouteClass, resolve};
use clawgate_fuzz::choice;
use clawgate_fuzz::origin::BaseUrl;
use libfuzzer_sys::fuzz_target;

const METHODS: [&str; 5] = ["POST", "GET", "DELETE", "PUT", "PATCH"];
const BASE: &str = "https://vendor.example/below/of/it";

/// Percent-decoded once, as lax as any server: what is no escape stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let digit = |offset: usize| path.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (path[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The segments a server ends up with that takes `\` for a slash, cuts path
/// parameters off, and goes up at `..`; `None` when it goes above its root.
fn collapsed(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut stack: Vec<Vec<u8>> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let plain = segment.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match plain {
            b"" | b"." => {}
            b".." => {
                stack.pop()?;
            }
            _ => stack.push(plain.to_vec()),
        }
    }
    Some(stack)
}

fuzz_target!(|data: &[u8]| {
    let (which, rest) = choice(data);
    let (method, rest) = choice(rest);
    let Ok(path) = std::str::from_utf8(rest) else { return };
    let vendors = catalogue::all();
    let vendor = &vendors[usize::from(which) % vendors.len()];
    let method = METHODS[usize::from(method) % METHODS.len()];
    let Ok(resolved) = resolve(vendor, method, path) else { return };
    assert_ne!(resolved.route.class, RouteClass::Forbidden, "never forwarded");

    let base = BaseUrl::parse(BASE).expect("plain");
    let sent = resolved.upstream_path(&base);
    assert!(sent.starts_with("/below/of/it/"), "{sent}");
    assert!(sent.ends_with(resolved.endpoint()) && path.ends_with(resolved.endpoint()));
    let mut seen = sent.into_bytes();
    for _ in 0..5 {
        let odd = |byte: &u8| *byte < 0x20 || *byte == 0x7f || matches!(byte, b'?' | b'#' | b'\\');
        assert!(!seen.iter().any(odd), "{}", String::from_utf8_lossy(&seen));
        let segments = collapsed(&seen).expect("stays below the root");
        assert!(segments.starts_with(&[b"root".to_vec(), b"of".to_vec(), b"it".to_vec()]), "{segments:?}");
        assert!(!seen.split(|byte| matches!(byte, b'/' | b';')).any(|part| part == b".."));
        seen = decoded(&seen);
    }
});
