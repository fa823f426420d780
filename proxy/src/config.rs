//! The node's bootstrap settings: what it must know before it has heard from a
//! control plane. Everything else comes with the snapshot.
//!
//! The only file of this crate that reads the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clawgate_shared::egress::PrivateUpstreams;
use zeroize::Zeroizing;

use crate::exchange::{DrainLimits, WhenFull};
use crate::server::{SourcePolicy, TlsFiles};
use crate::sync::ControlTarget;
use crate::telemetry::Collector;
use crate::upstream::Timeouts;

/// Connections one address may have on the bots' listener.
const CONNECTIONS_PER_BOT: usize = 1024;
/// With less memory a node cannot hold its configuration and one large body.
const LEAST_MEMORY: u64 = 64 << 20;

/// Settings as they were given: flag over environment over file. `None`: not
/// given.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct ProxySettings {
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub bot_listen: Option<String>,
    pub bot_pool: Option<String>,
    pub admin_listen: Option<String>,
    pub control: Option<String>,
    pub private_upstreams: Option<String>,
    pub enroll_token_file: Option<PathBuf>,
    pub access_log: Option<String>,
    /// Where spans are sent, `http://HOST:PORT` of a collector (OTLP over gRPC);
    /// without it there are none.
    pub otlp_endpoint: Option<String>,
    /// Of the requests whose callers say nothing about sampling: 0 to 1.
    pub trace_sample: Option<f64>,
    pub threads: Option<usize>,
    pub max_connections: Option<usize>,
    /// On the bots' listener and, when given, on the data listener.
    pub max_connections_per_source: Option<usize>,
    pub max_inflight: Option<usize>,
    /// In bytes.
    pub memory_limit: Option<u64>,
    pub max_body_bytes: Option<usize>,
    pub spool_max_bytes: Option<u64>,
    /// `refuse` or `serve`.
    pub spool_full: Option<String>,
    pub drain_secs: Option<u64>,
    pub drain_tokens: Option<u64>,
    pub max_drains: Option<usize>,
    pub upstream_connect_timeout_ms: Option<u64>,
    pub upstream_head_timeout_ms: Option<u64>,
    pub upstream_idle_timeout_ms: Option<u64>,
    /// Between two probes of a provider key that its vendor refused.
    pub key_probe_interval_ms: Option<u64>,
    pub grace_secs: Option<u64>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Take the listeners over from the running node of this data directory.
    #[serde(skip)]
    pub upgrade: bool,
}

/// Settings that hold together.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ProxyConfig {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub bot_listen: Option<(SocketAddr, SourcePolicy)>,
    pub admin_listen: SocketAddr,
    pub control: ControlTarget,
    pub private_upstreams: PrivateUpstreams,
    pub enroll_token: Option<Zeroizing<String>>,
    /// `stderr`, `off` or a path.
    pub access_log: String,
    /// Where spans are sent, and the share of requests that are traced unasked.
    pub collector: Option<(Collector, f64)>,
    pub threads: usize,
    pub max_connections: usize,
    /// On the data listener; `None`: as many as all together.
    pub max_per_source: Option<usize>,
    /// On the bots' listener, where every bot has an address of its own.
    pub max_per_bot_source: usize,
    pub max_inflight: usize,
    /// Memory this node may use, in bytes; `None`: what the machine and control
    /// groups allow.
    pub memory_limit: Option<u64>,
    pub max_body_bytes: usize,
    pub spool_max_bytes: u64,
    pub spool_full: WhenFull,
    /// How far answers are read on without their clients.
    pub drains: DrainLimits,
    pub timeouts: Timeouts,
    /// Between two probes of a provider key.
    pub key_probe_interval: Duration,
    /// Longest wait for exchanges when the node stops; shorter as soon as nothing is left to do.
    pub grace: Duration,
    /// For tests: a configuration with a bot of this hostname ends the process.
    pub test_crash_on: Option<String>,
    /// For the data listener.
    pub tls: Option<TlsFiles>,
    pub upgrade: bool,
}

/// One thing wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// As on the command line, without the dashes.
    pub setting: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// Reads a variable of the process's environment.
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the file that may
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The command that starts this node's successor: the same program with the
/// same arguments, and `--upgrade`.
///
/// # Errors
/// The system does not say which program this is.
pub fn successor_command() -> std::io::Result<std::process::Command> {
    let program = std::env::current_exe()?;
    // A program that was replaced on disk is marked as deleted; its replacement
    // is what an upgrade is for.
    let replaced = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    let mut command = std::process::Command::new(replaced.unwrap_or(program));
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--upgrade");
    command.args(arguments).arg("--upgrade");
    Ok(command)
}

/// Fills a setting from the environment when no flag gave it.
fn from_env<T: std::str::FromStr>(
    slot: &mut Option<T>,
    name: &str,
    setting: &'static str,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<ConfigProblem>,
) {
    if slot.is_none()
        && let Some(text) = env(name)
    {
        match text.parse() {
            Ok(value) => *slot = Some(value),
            Err(_) => problems.push(ConfigProblem { setting, problem: format!("{name} cannot be read") }),
        }
    }
}

impl ProxySettings {
    /// Adds what the environment says and the flags did not.
    pub fn overlay_env(&mut self, env: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<ConfigProblem>) {
        let p = problems;
        from_env(&mut self.data_dir, "CLAWGATE_DATA_DIR", "data-dir", env, p);
        from_env(&mut self.listen, "CLAWGATE_LISTEN", "listen", env, p);
        from_env(&mut self.bot_listen, "CLAWGATE_BOT_LISTEN", "bot-listen", env, p);
        from_env(&mut self.bot_pool, "CLAWGATE_BOT_POOL", "bot-pool", env, p);
        from_env(&mut self.admin_listen, "CLAWGATE_ADMIN_LISTEN", "admin-listen", env, p);
        from_env(&mut self.control, "CLAWGATE_CONTROL", "control", env, p);
        from_env(&mut self.private_upstreams, "CLAWGATE_PRIVATE_UPSTREAMS", "private-upstreams", env, p);
        from_env(&mut self.enroll_token_file, "CLAWGATE_ENROLL_TOKEN_FILE", "enroll-token-file", env, p);
        from_env(&mut self.access_log, "CLAWGATE_ACCESS_LOG", "access-log", env, p);
        from_env(&mut self.otlp_endpoint, "CLAWGATE_OTLP_ENDPOINT", "otlp-endpoint", env, p);
        from_env(&mut self.trace_sample, "CLAWGATE_TRACE_SAMPLE", "trace-sample", env, p);
        from_env(&mut self.threads, "CLAWGATE_THREADS", "threads", env, p);
        from_env(&mut self.max_connections, "CLAWGATE_MAX_CONNECTIONS", "max-connections", env, p);
        let per_source = &mut self.max_connections_per_source;
        from_env(per_source, "CLAWGATE_MAX_CONNECTIONS_PER_SOURCE", "max-connections-per-source", env, p);
        from_env(&mut self.memory_limit, "CLAWGATE_MEMORY_LIMIT", "memory-limit", env, p);
        from_env(&mut self.max_inflight, "CLAWGATE_MAX_INFLIGHT", "max-inflight", env, p);
        from_env(&mut self.max_body_bytes, "CLAWGATE_MAX_BODY_BYTES", "max-body-bytes", env, p);
        from_env(&mut self.spool_max_bytes, "CLAWGATE_SPOOL_MAX_BYTES", "spool-max-bytes", env, p);
        from_env(&mut self.spool_full, "CLAWGATE_SPOOL_FULL", "spool-full", env, p);
        from_env(&mut self.drain_secs, "CLAWGATE_DRAIN_SECS", "drain-secs", env, p);
        from_env(&mut self.drain_tokens, "CLAWGATE_DRAIN_TOKENS", "drain-tokens", env, p);
        from_env(&mut self.max_drains, "CLAWGATE_MAX_DRAINS", "max-drains", env, p);
        let connect = &mut self.upstream_connect_timeout_ms;
        from_env(connect, "CLAWGATE_UPSTREAM_CONNECT_TIMEOUT_MS", "upstream-connect-timeout-ms", env, p);
        let head = &mut self.upstream_head_timeout_ms;
        from_env(head, "CLAWGATE_UPSTREAM_HEAD_TIMEOUT_MS", "upstream-head-timeout-ms", env, p);
        let idle = &mut self.upstream_idle_timeout_ms;
        from_env(idle, "CLAWGATE_UPSTREAM_IDLE_TIMEOUT_MS", "upstream-idle-timeout-ms", env, p);
        let probe = &mut self.key_probe_interval_ms;
        from_env(probe, "CLAWGATE_KEY_PROBE_INTERVAL_MS", "key-probe-interval-ms", env, p);
        from_env(&mut self.tls_cert, "CLAWGATE_TLS_CERT", "tls-cert", env, p);
        from_env(&mut self.tls_key, "CLAWGATE_TLS_KEY", "tls-key", env, p);
        from_env(&mut self.grace_secs, "CLAWGATE_GRACE_SECS", "grace-secs", env, p);
    }
}

impl ProxyConfig {
    /// Checks settings and fills defaults; `env` is asked for what no flag said.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn resolve(
        mut settings: ProxySettings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        settings.overlay_env(env, &mut problems);
        let mut check = Check { problems };
        let data_dir = settings.data_dir.clone().unwrap_or_else(|| PathBuf::from("./clawgate-data"));
        let listen = check.address("listen", settings.listen.as_deref().unwrap_or("127.0.0.1:8080"));
        let admin = check.address("admin-listen", settings.admin_listen.as_deref().unwrap_or("127.0.0.1:8083"));
        let bot_listen = check.bot_listen(&settings);
        let control = check.control(&settings);
        let private = check.private(settings.private_upstreams.as_deref());
        let tls = check.tls(&settings);
        let collector = check.collector(&settings);
        let enroll_token = check.enroll_token(&settings, env);
        let spool_full = check.spool_full(settings.spool_full.as_deref());
        let threads = check.within("threads", settings.threads.unwrap_or_else(cores), 1, 1024);
        let max_connections = check.within("max-connections", settings.max_connections.unwrap_or(16_384), 1, 1 << 20);
        let per_source =
            settings.max_connections_per_source.map(|n| check.within("max-connections-per-source", n, 1, 1 << 20));
        let memory_limit = check.memory_limit(settings.memory_limit);
        let max_inflight = check.within("max-inflight", settings.max_inflight.unwrap_or(8192), 1, 1 << 20);
        let max_body = check.within("max-body-bytes", settings.max_body_bytes.unwrap_or(32 << 20), 1024, 1 << 30);
        let drains = drains(&settings);
        let millis = |given: Option<u64>, default: u64| Duration::from_millis(given.unwrap_or(default).max(1));
        let timeouts = Timeouts {
            connect: millis(settings.upstream_connect_timeout_ms, 5_000),
            write: Duration::from_secs(60),
            head: millis(settings.upstream_head_timeout_ms, 600_000),
            idle: millis(settings.upstream_idle_timeout_ms, 120_000),
        };
        let (Some(listen), Some(admin_listen), Some(control), true) =
            (listen, admin, control, check.problems.is_empty())
        else {
            return Err(check.problems);
        };
        Ok(Self {
            data_dir,
            listen,
            bot_listen,
            admin_listen,
            control,
            private_upstreams: private,
            enroll_token,
            access_log: settings.access_log.unwrap_or_else(|| "stderr".to_owned()),
            collector,
            threads,
            max_connections,
            max_per_source: per_source,
            max_per_bot_source: per_source.unwrap_or(CONNECTIONS_PER_BOT),
            max_inflight,
            memory_limit,
            max_body_bytes: max_body,
            spool_max_bytes: settings.spool_max_bytes.unwrap_or(1 << 30).max(1 << 20),
            spool_full,
            drains,
            timeouts,
            key_probe_interval: Duration::from_millis(settings.key_probe_interval_ms.unwrap_or(30_000).max(100)),
            grace: Duration::from_secs(settings.grace_secs.unwrap_or(600)),
            tls,
            upgrade: settings.upgrade,
            test_crash_on: env("CLAWGATE_TEST_CRASH_ON"),
        })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn drains(settings: &ProxySettings) -> DrainLimits {
    let usual = DrainLimits::default();
    DrainLimits {
        time: settings.drain_secs.map_or(usual.time, Duration::from_secs),
        tokens: settings.drain_tokens.unwrap_or(usual.tokens),
        at_once: settings.max_drains.unwrap_or(usual.at_once),
    }
}

struct Check {
    problems: Vec<ConfigProblem>,
}

impl Check {
    fn problem(&mut self, setting: &'static str, problem: String) {
        self.problems.push(ConfigProblem { setting, problem });
    }

    fn address(&mut self, setting: &'static str, text: &str) -> Option<SocketAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(setting, format!("{text:?} is not ADDRESS:PORT, such as 127.0.0.1:8080"));
        }
        parsed
    }

    fn within(&mut self, setting: &'static str, value: usize, min: usize, max: usize) -> usize {
        if !(min..=max).contains(&value) {
            self.problem(setting, format!("{value} is not between {min} and {max}"));
        }
        value
    }

    fn memory_limit(&mut self, bytes: Option<u64>) -> Option<u64> {
        let given = bytes?;
        if given < LEAST_MEMORY {
            self.problem("memory-limit", format!("{given} bytes are too few; at least {LEAST_MEMORY}"));
        }
        Some(given)
    }

    fn bot_listen(&mut self, settings: &ProxySettings) -> Option<(SocketAddr, SourcePolicy)> {
        let address = self.address("bot-listen", settings.bot_listen.as_deref().filter(|text| *text != "off")?)?;
        let text = settings.bot_pool.as_deref().unwrap_or("10.231.0.0/16");
        let network = text.split_once('/').and_then(|(ip, prefix)| {
            let network: IpAddr = ip.parse().ok()?;
            let widest = if network.is_ipv4() { 32 } else { 128 };
            Some(SourcePolicy::Within { network, prefix: prefix.parse().ok().filter(|p| *p <= widest)? })
        });
        if network.is_none() {
            self.problem("bot-pool", format!("{text:?} is not a network, such as 10.231.0.0/16"));
        }
        Some((address, network?))
    }

    fn control(&mut self, settings: &ProxySettings) -> Option<ControlTarget> {
        let Some(text) = settings.control.as_deref() else {
            self.problem("control", "is missing: unix:/path/to/control.sock or https://host:8082".to_owned());
            return None;
        };
        match text.parse() {
            Ok(target) => Some(target),
            Err(error) => {
                self.problem("control", format!("{error}"));
                None
            }
        }
    }

    fn tls(&mut self, settings: &ProxySettings) -> Option<TlsFiles> {
        match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem("tls-key", "is missing beside tls-cert".to_owned());
                None
            }
            (None, Some(_)) => {
                self.problem("tls-cert", "is missing beside tls-key".to_owned());
                None
            }
        }
    }

    fn collector(&mut self, settings: &ProxySettings) -> Option<(Collector, f64)> {
        let share = settings.trace_sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            self.problem("trace-sample", format!("{share} is not between 0 and 1"));
        }
        match settings.otlp_endpoint.as_deref()?.parse() {
            Ok(collector) => Some((collector, share)),
            Err(error) => {
                self.problem("otlp-endpoint", format!("{error}"));
                None
            }
        }
    }

    fn private(&mut self, text: Option<&str>) -> PrivateUpstreams {
        let parsed = PrivateUpstreams::parse(text.unwrap_or("none"));
        parsed.unwrap_or_else(|error| {
            self.problem("private-upstreams", error.to_string());
            PrivateUpstreams::none()
        })
    }

    fn spool_full(&mut self, text: Option<&str>) -> WhenFull {
        match text.unwrap_or("refuse") {
            "refuse" => WhenFull::Refuse,
            "serve" => WhenFull::Serve,
            other => {
                self.problem("spool-full", format!("{other:?} is neither refuse nor serve"));
                WhenFull::Refuse
            }
        }
    }

    fn enroll_token(
        &mut self,
        settings: &ProxySettings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Zeroizing<String>> {
        if let Some(path) = &settings.enroll_token_file {
            return match std::fs::read_to_string(path) {
                Ok(text) => Some(Zeroizing::new(text.trim().to_owned())),
                Err(error) => {
                    self.problem("enroll-token-file", format!("{} cannot be read: {error}", path.display()));
                    None
                }
            };
        }
        env("CLAWGATE_ENROLL_TOKEN").map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let settings = ProxySettings {
            listen: Some("nowhere".into()),
            private_upstreams: Some("0.0.0.0/0:*".into()),
            threads: Some(0),
            spool_full: Some("maybe".into()),
            otlp_endpoint: Some("collector".into()),
            trace_sample: Some(2.0),
            ..ProxySettings::default()
        };
        let problems = ProxyConfig::resolve(settings, &|_| None).expect_err("wrong");
        let mut named: Vec<_> = problems.iter().map(|p| p.setting).collect();
        named.sort_unstable();
        assert_eq!(
            named,
            ["control", "listen", "otlp-endpoint", "private-upstreams", "spool-full", "threads", "trace-sample",]
        );
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = |name: &str| match name {
            "CLAWGATE_LISTEN" => Some("127.0.0.1:1".to_owned()),
            "CLAWGATE_CONTROL" => Some("unix:/run/control.sock".to_owned()),
            _ => None,
        };
        let settings = ProxySettings { listen: Some("127.0.0.1:2".into()), ..ProxySettings::default() };
        let config = ProxyConfig::resolve(settings, &env).expect("right");
        assert_eq!(config.listen.port(), 2);
        let config = ProxyConfig::resolve(ProxySettings::default(), &env).expect("right");
        assert_eq!(config.listen.port(), 1);
    }
}
