//! Logs: JSON lines on standard error.
//!
//! `CLAWGATE_LOG` (or `RUST_LOG`) takes the usual filter directives. Libraries
//! that see bytes of the wire stay at `info` whatever the filter says: their
//! trace output quotes headers and bodies, and so credentials.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::flags::variable;

/// Libraries held at `info`.
const WIRE_LIBRARIES: [&str; 12] = [
    "h2",
    "hyper",
    "hyper_util",
    "pingora_core",
    "pingora_pool",
    "reqwest",
    "rustls",
    "sqlx",
    "tokio_util",
    "tonic",
    "tower",
    "tungstenite",
];

/// Starts logging for this process; a second call changes nothing.
pub(crate) fn start() {
    let wanted = variable("CLAWGATE_LOG").or_else(|| variable("RUST_LOG")).unwrap_or_else(|| "info".to_owned());
    let started = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter(&wanted))
        .try_init();
    // Already started by an embedding test: keep what is there.
    drop(started);
}

fn filter(wanted: &str) -> EnvFilter {
    let held: Vec<Directive> =
        WIRE_LIBRARIES.iter().filter_map(|library| format!("{library}=info").parse().ok()).collect();
    let chosen: Vec<&str> = wanted
        .split(',')
        .map(str::trim)
        .filter(|part| {
            let target = part.split(['=', '[']).next().unwrap_or_default();
            let root = target.split("::").next().unwrap_or_default();
            !WIRE_LIBRARIES.contains(&root)
        })
        .collect();
    held.into_iter().fold(EnvFilter::new(chosen.join(",")), EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_libraries_cannot_be_turned_up() {
        for wanted in ["trace", "trace,h2=trace", "h2::codec=trace,info", "hyper[span]=trace"] {
            let text = filter(wanted).to_string();
            for library in WIRE_LIBRARIES {
                assert!(text.contains(&format!("{library}=info")), "{wanted}: {text}");
                assert!(!text.contains(&format!("{library}=trace")), "{wanted}: {text}");
            }
            assert!(!text.contains("h2::codec=trace"), "{text}");
        }
    }
}
