//! Where a library may be named, and what may be named nowhere.

use super::{Source, Violation};

/// A library's fence.
pub struct Fence {
    /// For the message.
    pub what: &'static str,
    /// Whether an identifier belongs to the library.
    pub matches: fn(&str) -> bool,
    /// Path prefixes where it may stand.
    pub allowed: &'static [&'static str],
}

/// Every fence. `tests/` and `bench/` are outside of all of them but their own
/// crates' manifests.
pub const FENCES: &[Fence] = &[
    Fence {
        what: "pingora",
        matches: |name| name.starts_with("pingora_"),
        allowed: &["proxy/src/server/", "proxy/src/upstream/", "proxy/src/app.rs"],
    },
    Fence {
        what: "tonic",
        matches: |name| name == "tonic",
        allowed: &[
            "shared/src/proto.rs",
            "shared/build.rs",
            "control/src/grpc/",
            "control/runner/src/link",
            "proxy/src/sync/",
            "proxy/src/metering/shipper",
            "proxy/src/quota/renewer.rs",
            "proxy/src/accounts/asker.rs",
            "proxy/src/telemetry/otlp.rs",
        ],
    },
    Fence { what: "sqlx", matches: |name| name == "sqlx", allowed: &["control/src/store/"] },
    Fence { what: "axum", matches: |name| name == "axum", allowed: &["control/src/http/", "control/src/admin"] },
    Fence { what: "bollard", matches: |name| name == "bollard", allowed: &["control/runner/"] },
];

const OUTSIDE: [&str; 2] = ["tests/", "bench/"];

/// Libraries named outside their fence.
#[must_use]
pub fn libraries(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|f| !OUTSIDE.iter().any(|o| f.path.starts_with(o))) {
        let tokens = file.tokens();
        for fence in FENCES.iter().filter(|fence| !fence.allowed.iter().any(|a| file.path.starts_with(a))) {
            for (line, _) in tokens.identifiers(fence.matches) {
                violations.push(Violation(format!("{}:{line}: {} stands outside its fence", file.path, fence.what)));
            }
        }
    }
    violations
}

/// `std::env` outside `config.rs` and the command line; wall clocks outside
/// `shared::clock`; `unsafe` outside `allowed_unsafe`.
#[must_use]
pub fn sources_of_surprise(files: &[Source], allowed_unsafe: &[&str]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let tokens = file.tokens();
        if !allowed_unsafe.contains(&file.path.as_str()) {
            for line in tokens.find(&["unsafe"]) {
                violations.push(Violation(format!("{}:{line}: unsafe", file.path)));
            }
        }
        if OUTSIDE.iter().any(|o| file.path.starts_with(o)) || file.path.contains("/tests/") {
            continue;
        }
        let reads_env = file.path.starts_with("cli/") || file.path.ends_with("/config.rs");
        if !reads_env && !file.path.ends_with("build.rs") {
            for line in tokens.find(&["std", ":", ":", "env"]) {
                violations.push(Violation(format!("{}:{line}: std::env outside config.rs and cli", file.path)));
            }
        }
        if file.path != "shared/src/clock.rs" {
            for clock in ["SystemTime", "Timestamp", "Zoned", "Utc"] {
                for line in tokens.find(&[clock, ":", ":", "now"]) {
                    violations.push(Violation(format!("{}:{line}: a wall clock outside shared::clock", file.path)));
                }
            }
        }
    }
    violations
}

/// Packages that must not be in the lock file.
pub const BANNED: [&str; 5] = ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// Banned packages in a lock file.
#[must_use]
pub fn lock(text: &str) -> Vec<Violation> {
    BANNED
        .iter()
        .filter(|name| text.lines().any(|line| line == format!("name = \"{name}\"")))
        .map(|name| Violation(format!("Cargo.lock has {name}")))
        .collect()
}
