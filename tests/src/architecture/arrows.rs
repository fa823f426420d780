//! Who may import whom: modules within the data plane, crates within the
//! workspace.

use super::{Source, Violation};

/// The data plane's modules in reading order: each may import those before it.
/// The settings stand late: they are made of the modules' own types, and no
/// module but the composition root may read them.
pub const PROXY_ORDER: [&str; 14] = [
    "wire",
    "limits",
    "routing",
    "telemetry",
    "snapshot",
    "upstream",
    "quota",
    "accounts",
    "metering",
    "sync",
    "exchange",
    "server",
    "config",
    "app",
];

/// What each crate of ours may depend on, of ours. A crate that is not listed
/// may depend on none.
pub const CRATE_ARROWS: &[(&str, &[&str])] = &[
    ("clawgate-shared", &[]),
    ("clawgate-mock", &[]),
    ("clawgate-proxy", &["clawgate-shared"]),
    ("clawgate-control", &["clawgate-shared"]),
    ("clawgate-runner", &["clawgate-shared"]),
    ("clawgate", &["clawgate-shared", "clawgate-proxy", "clawgate-control", "clawgate-runner", "clawgate-mock"]),
    (
        "clawgate-tests",
        &["clawgate-shared", "clawgate-proxy", "clawgate-control", "clawgate-runner", "clawgate-mock", "clawgate"],
    ),
    ("clawgate-bench", &["clawgate-shared", "clawgate-proxy", "clawgate-mock"]),
];

/// Imports of the data plane that point down the list. `lib.rs` declares the
/// modules and may name all of them.
#[must_use]
pub fn module_order(files: &[Source]) -> Vec<Violation> {
    let rank = |module: &str| PROXY_ORDER.iter().position(|m| *m == module);
    let mut violations = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with("proxy/src/") && f.path != "proxy/src/lib.rs") {
        let rest = &file.path["proxy/src/".len()..];
        let module = rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs");
        let Some(own) = rank(module) else {
            violations.push(Violation(format!("{}: module `{module}` is not in the list", file.path)));
            continue;
        };
        for (line, name) in file.tokens().crate_modules() {
            match rank(&name) {
                Some(other) if other <= own => {}
                Some(_) => violations.push(Violation(format!(
                    "{}:{line}: `{module}` imports `{name}`, which stands below it",
                    file.path
                ))),
                None => violations.push(Violation(format!("{}:{line}: `crate::{name}` is no module", file.path))),
            }
        }
    }
    violations
}

/// Dependencies between our crates that are not in [`CRATE_ARROWS`].
///
/// # Panics
/// A manifest is not TOML.
#[must_use]
pub fn crates(manifests: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for manifest in manifests {
        let table: toml::Table = manifest.text.parse().unwrap_or_else(|error| panic!("{}: {error}", manifest.path));
        let name = table.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str());
        let Some(name) = name else { continue };
        let allowed = CRATE_ARROWS.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
        for dependency in dependencies(&table) {
            let ours = dependency == "clawgate" || dependency.starts_with("clawgate-");
            if ours && !allowed.contains(&dependency.as_str()) {
                violations.push(Violation(format!("{}: {name} must not depend on {dependency}", manifest.path)));
            }
        }
    }
    violations
}

fn dependencies(table: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(entries) = table.get(section).and_then(toml::Value::as_table) {
            names.extend(entries.keys().cloned());
        }
    }
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        names.extend(targets.values().filter_map(toml::Value::as_table).flat_map(dependencies));
    }
    names
}
