//! The engine: where it is, whether it answers, what it is.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::time::timeout;

use crate::problem::Problem;

/// How long one answer may take; what takes longer (pulls) is a stream.
const ANSWER_SECS: u64 = 60;
/// How long an engine may take to say that it is there.
const GREETING: Duration = Duration::from_secs(5);
/// Oldest API that has everything a cell needs: Docker 20.10.
const OLDEST: (usize, usize) = (1, 41);
const PLACES: [&str; 3] = ["/var/run/docker.sock", "/run/podman/podman.sock", "/run/user/0/podman/podman.sock"];

/// An engine that answered.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The client, at the version that both speak.
    pub docker: Docker,
    /// What it said of itself.
    pub facts: HashMap<String, String>,
}

/// Where an engine is, when nobody said so.
#[must_use]
pub fn find() -> Option<String> {
    PLACES.iter().find(|place| Path::new(place).exists()).map(|place| format!("unix://{place}"))
}

/// Connects, agrees on a version and asks who it is.
///
/// # Errors
/// [`Problem::EngineUnavailable`] with the reason.
pub async fn open(url: Option<&str>) -> Result<Engine, Problem> {
    let away = |text: String| Problem::EngineUnavailable(text);
    let found = find();
    let url = url.or(found.as_deref()).ok_or_else(|| away("there is no Docker or Podman socket".to_owned()))?;
    let docker = if url.starts_with("unix://") {
        Docker::connect_with_unix(url, ANSWER_SECS, API_DEFAULT_VERSION)
    } else if url.starts_with("tcp://127.") || url.starts_with("tcp://localhost:") || url.starts_with("tcp://[::1]") {
        Docker::connect_with_http(url, ANSWER_SECS, API_DEFAULT_VERSION)
    } else {
        return Err(away(format!("{url} is neither unix:// nor tcp:// on loopback")));
    };
    let docker = docker.map_err(|error| Problem::of(&error, Problem::EngineUnavailable))?;
    let asked = timeout(GREETING, async {
        let docker = docker.negotiate_version().await?;
        let (version, info) = (docker.version().await?, docker.info().await?);
        Ok::<_, bollard::errors::Error>((docker, version, info))
    });
    let answered = asked.await.map_err(|_| away("it accepts connections and says nothing".to_owned()))?;
    let (docker, version, info) = answered.map_err(|error| Problem::of(&error, Problem::EngineUnavailable))?;
    let spoken = docker.client_version();
    if (spoken.major_version, spoken.minor_version) < OLDEST {
        return Err(away(format!("it speaks API {spoken}; 1.41 is the oldest that will do")));
    }
    let podman = version.components.iter().flatten().any(|part| part.name.to_lowercase().contains("podman"));
    let facts = [
        ("kind", Some(if podman { "podman" } else { "docker" }.to_owned())),
        ("version", version.version),
        ("api_version", Some(spoken.to_string())),
        ("os", version.os),
        ("arch", version.arch),
        ("cpus", info.ncpu.map(|n| n.to_string())),
        ("memory_mb", info.mem_total.map(|bytes| (bytes >> 20).to_string())),
        // Said, because it is not closed: see docs/bots.md.
        ("host_services", Some("reachable from bots".to_owned())),
        ("live_restore", info.live_restore_enabled.map(|is| is.to_string())),
    ];
    let facts = facts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Ok(Engine { docker, facts })
}
