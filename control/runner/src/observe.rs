//! What is seen: events of the engine, and answers of probes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::EventsOptionsBuilder;
use clawgate_shared::proto::runner::CellHealth;
use futures::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cell;
use crate::spec::ProbeSpec;

/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(5);
/// Most bytes of a probe's answer that are read.
const MAX_ANSWER: u64 = 64 << 10;

/// What the engine says of marked containers, from `since` (unix seconds) on.
pub fn events(
    docker: &Docker,
    installation: &str,
    since: i64,
) -> impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + use<> {
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("label".to_owned(), vec![format!("{}={installation}", cell::INSTALLATION)]),
    ]);
    docker.events(Some(EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters).build()))
}

/// The bot that an event speaks of.
#[must_use]
pub fn bot_of(event: &EventMessage) -> Option<&str> {
    event.actor.as_ref()?.attributes.as_ref()?.get(cell::BOT).map(String::as_str)
}

/// Asks a running container, if it says how.
pub async fn health(made: &ContainerInspectResponse) -> CellHealth {
    let running = made.state.as_ref().is_some_and(|state| state.running == Some(true));
    let (Some(probe), Some(address), true) = (cell::probe(made), address(made), running) else {
        return CellHealth::Unspecified;
    };
    match timeout(PROBE, ask(SocketAddr::new(address, probe.port), &probe)).await {
        Ok(Ok(true)) => CellHealth::Healthy,
        Ok(Ok(false) | Err(_)) | Err(_) => CellHealth::Unhealthy,
    }
}

fn address(made: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = made.network_settings.as_ref()?.networks.as_ref()?;
    networks.values().find_map(|network| network.ip_address.as_ref()?.parse().ok())
}

async fn ask(address: SocketAddr, probe: &ProbeSpec) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection, and is not in chunks.
    let head = format!("GET {} HTTP/1.0\r\nhost: {address}\r\naccept: application/json\r\n\r\n", probe.path);
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(is_well(&answer, probe))
}

/// Whether an answer is one of a bot that is well: an application that answers
/// 200 to everything says nothing by that.
#[must_use]
pub fn is_well(answer: &[u8], probe: &ProbeSpec) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.len() != 3 || !status.starts_with('2') {
        return false;
    }
    if probe.key.is_empty() {
        return true;
    }
    let Ok(json) = serde_json::from_str::<serde_json::Value>(body) else { return false };
    match json.get(&probe.key) {
        None => false,
        Some(_) if probe.value.is_empty() => true,
        Some(serde_json::Value::String(text)) => *text == probe.value,
        Some(value) => value.to_string() == probe.value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_json_that_was_asked_for_is_well() {
        let probe =
            |key: &str, value: &str| ProbeSpec { port: 1, path: "/".into(), key: key.into(), value: value.into() };
        let ok = b"HTTP/1.0 200 OK\r\n\r\n{\"ok\":true,\"status\":\"live\"}";
        assert!(
            is_well(ok, &probe("", "")) && is_well(ok, &probe("ok", "true")) && is_well(ok, &probe("status", "live"))
        );
        assert!(!is_well(ok, &probe("status", "dead")) && !is_well(ok, &probe("other", "")));
        assert!(!is_well(b"HTTP/1.0 200 OK\r\n\r\n<html>", &probe("ok", "true")));
        assert!(!is_well(b"HTTP/1.0 503 No\r\n\r\n{\"ok\":true}", &probe("ok", "true")));
        assert!(!is_well(b"", &probe("", "")));
    }
}
