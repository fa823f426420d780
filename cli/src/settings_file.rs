//! The TOML file: what it may hold, and every problem in it.
//!
//! `data_dir`, `public_url`, `private_upstreams` and `bot_pool` stand at the top because
//! every process shares them; `[control]` and `[proxy]` hold the settings of
//! one plane. Names are written with underscores. Nothing here quotes a value.

use std::path::Path;

use clawgate_control::config::ControlSettings;
use clawgate_proxy::config::ProxySettings;
use serde::de::DeserializeOwned;

/// Settings that every process shares.
const TOP: [&str; 4] = ["data_dir", "public_url", "private_upstreams", "bot_pool"];

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

fn read(path: &Path) -> Result<toml::Table, String> {
    let failed = |e: &dyn std::fmt::Display| format!("config: {}: {e}", path.display());
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > MAX_FILE {
        return Err(failed(&"is larger than 1 MiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    // The message alone: the parser's display quotes the line.
    text.parse().map_err(|e: toml::de::Error| failed(&e.message()))
}

/// A node's part of the file.
///
/// # Errors
/// The first problem; [`problems`] finds all.
pub(crate) fn proxy(path: &Path) -> Result<ProxySettings, String> {
    let table = read(path)?;
    let section = match table.get("proxy") {
        Some(toml::Value::Table(section)) => section.clone(),
        Some(_) => return Err("config: proxy: must be a section".to_owned()),
        None => toml::Table::new(),
    };
    let mut settings: ProxySettings = hyphened(&section)
        .try_into()
        .map_err(|e: toml::de::Error| format!("config: proxy: {}", e.message().replace('-', "_")))?;
    let top = |name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    settings.data_dir = settings.data_dir.or_else(|| top("data_dir").map(Into::into));
    settings.private_upstreams = settings.private_upstreams.or_else(|| top("private_upstreams"));
    settings.bot_pool = settings.bot_pool.or_else(|| top("bot_pool"));
    Ok(settings)
}

/// The node's settings are named as on its command line.
fn hyphened(table: &toml::Table) -> toml::Table {
    table.iter().map(|(name, value)| (name.replace('_', "-"), value.clone())).collect()
}

/// The data directory the file names.
pub(crate) fn data_dir(path: &Path) -> Option<String> {
    read(path).ok()?.get("data_dir")?.as_str().map(str::to_owned)
}

/// What is wrong with the file, one setting at a time: a parser of the whole
/// stops at the first.
pub(crate) fn problems(path: &Path) -> Vec<String> {
    let table = match read(path) {
        Ok(table) => table,
        Err(problem) => return vec![problem],
    };
    let mut problems = Vec::new();
    for (name, value) in &table {
        match (name.as_str(), value) {
            ("control", toml::Value::Table(section)) => {
                problems.extend(section_problems::<ControlSettings>(name, section, str::to_owned));
            }
            ("proxy", toml::Value::Table(section)) => {
                problems.extend(section_problems::<ProxySettings>(name, section, |n| n.replace('_', "-")));
            }
            (top, toml::Value::String(_)) if TOP.contains(&top) => {}
            (top, _) if TOP.contains(&top) => problems.push(format!("config: {top}: must be a text")),
            (other, _) => problems.push(format!("config: {other}: there is no such setting or section")),
        }
    }
    problems
}

fn section_problems<S: DeserializeOwned>(
    section: &str,
    table: &toml::Table,
    spelling: fn(&str) -> String,
) -> Vec<String> {
    table
        .iter()
        .filter_map(|(name, value)| {
            let alone = toml::Table::from_iter([(spelling(name), value.clone())]);
            // The message may list names as one of the planes spells them.
            alone.try_into::<S>().err().map(|e| format!("config: {section}.{name}: {}", e.message().replace('-', "_")))
        })
        .collect()
}
