//! What `up` says once everything runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::say;
use crate::failure::Failure;

/// Where everything is.
pub(crate) struct Endpoints {
    pub(crate) public_url: String,
    pub(crate) data_plane: String,
    pub(crate) bots: Option<String>,
    pub(crate) console: String,
    pub(crate) node_admin: String,
    pub(crate) control_admin: Option<String>,
    pub(crate) admin_token: Option<PathBuf>,
    pub(crate) mock: Option<SocketAddr>,
    pub(crate) curl: Option<String>,
}

impl Endpoints {
    /// One line each, `ready` last. Paths of secrets, never secrets.
    pub(crate) fn announce(&self) -> Result<(), Failure> {
        self.lines().iter().try_for_each(|line| say(line))
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("data plane     {}", self.data_plane)];
        if self.public_url != self.data_plane {
            lines.push(format!("public URL     {}", self.public_url));
        }
        if let Some(bots) = &self.bots {
            lines.push(format!("bots' listener http://{bots}"));
        }
        lines.push(format!("console, REST  http://{}", self.console));
        lines.push(format!("node admin     http://{}  (/livez /readyz /metrics)", self.node_admin));
        if let Some(admin) = &self.control_admin {
            lines.push(format!("control admin  http://{admin}  (/livez /readyz /metrics)"));
        }
        if let Some(path) = &self.admin_token {
            lines.push(format!("admin token    in {}", path.display()));
        }
        if let Some(mock) = self.mock {
            lines.push(format!("mock vendor    http://{mock}  (its answers are made up)"));
        }
        // Alone on its line, so that the whole line can be pasted.
        lines.extend(self.curl.clone());
        lines.push("ready".to_owned());
        lines
    }
}

/// Asks a health endpoint.
pub(crate) struct Probe(reqwest::Client);

impl Probe {
    /// A client that never goes through a proxy: what it asks is on this
    /// machine.
    pub(crate) fn new() -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()
            .map(Self)
            .map_err(|e| Failure::failed("preparing the HTTP client", e))
    }

    /// Whether the endpoint answers 200.
    pub(crate) async fn ok(&self, url: &str) -> bool {
        matches!(self.0.get(url).send().await, Ok(answer) if answer.status().as_u16() == 200)
    }
}

/// `clawgate probe`: what a container's health check calls, because the image
/// holds no other program.
pub(crate) async fn probe(url: &str) -> Result<(), Failure> {
    if Probe::new()?.ok(url).await { Ok(()) } else { Err(Failure::Failed(format!("{url} is not well"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_last_and_no_line_holds_more_than_one_endpoint() {
        let endpoints = Endpoints {
            public_url: "https://gate.example".into(),
            data_plane: "http://127.0.0.1:8080".into(),
            bots: None,
            console: "127.0.0.1:8081".into(),
            node_admin: "127.0.0.1:8083".into(),
            control_admin: Some("127.0.0.1:8085".into()),
            admin_token: Some("/data/admin.token".into()),
            mock: None,
            curl: None,
        };
        let lines = endpoints.lines();
        assert_eq!(lines.last().map(String::as_str), Some("ready"));
        assert!(lines.iter().all(|line| line.matches("://").count() <= 1 && !line.contains('\n')));
    }
}
