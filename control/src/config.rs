//! What the control plane must know before it can open its database.
//!
//! Precedence: flag, then environment (`CLAWGATE_*`, for secrets also
//! `CLAWGATE_*_FILE`), then the TOML file, then the default. Every problem is
//! reported at once, each with the name of the setting it is about; no problem
//! quotes a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgate_shared::egress::PrivateUpstreams;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::runtime::subnet::BotPool;

/// Longest path a Unix socket can have (`sun_path`, less its final zero).
const MAX_SOCKET_PATH: usize = 107;
/// Largest secret or configuration file that is read.
const MAX_FILE: u64 = 1 << 20;
/// How long a node may serve without contact, by default.
const DEFAULT_MAX_CONFIG_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Until fetching an image counts as stuck, by default.
const DEFAULT_PULL_TIMEOUT: Duration = Duration::from_secs(600);
/// Until a start counts as stuck, by default.
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(180);
/// The longest time that can be asked for, in days.
const MAX_DAYS: u32 = 36_500;

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// As in the manual: `console_listen`, `CLAWGATE_MASTER_KEY_FILE`, …
    pub setting: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

/// The settings as flags give them; also the `[control]` table of the TOML
/// file. `None` means "not given here".
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlSettings {
    /// The TOML file (`--config`, `CLAWGATE_CONFIG`); not itself in the file.
    #[serde(skip)]
    pub config_file: Option<PathBuf>,
    /// Started by `clawgate up`: gRPC defaults to a Unix socket, private
    /// upstreams to loopback.
    #[serde(skip)]
    pub supervised: bool,
    /// Where database, keys and sockets live.
    pub data_dir: Option<PathBuf>,
    /// `sqlite://PATH` or `postgres://…`.
    pub database_url: Option<String>,
    /// REST and console.
    pub console_listen: Option<String>,
    /// `unix:PATH` or `HOST:PORT`; both, separated by a comma.
    pub grpc_listen: Option<String>,
    /// Health and metrics.
    pub control_admin_listen: Option<String>,
    /// `host:port` or `CIDR:port`, separated by commas; `none` for none.
    pub private_upstreams: Option<String>,
    /// File with the master key, 32 bytes in base64.
    pub master_key_file: Option<PathBuf>,
    /// File with the bootstrap admin token.
    pub admin_token_file: Option<PathBuf>,
    /// Host names besides loopback and the listener under which REST answers,
    /// separated by commas.
    pub allowed_hosts: Option<String>,
    /// What bots are told to connect to; default `http://127.0.0.1:8080`.
    pub public_url: Option<String>,
    /// Seconds a node may serve without contact.
    pub max_config_age_secs: Option<u64>,
    /// Days that single exchanges are kept; 0: for ever.
    pub usage_retention_days: Option<u32>,
    /// Where the networks of bots in containers come from.
    pub bot_pool: Option<String>,
    /// Seconds until fetching a bot's image counts as stuck.
    pub bot_pull_timeout_secs: Option<u64>,
    /// Seconds until a bot that was started and is not healthy counts as stuck.
    pub bot_start_timeout_secs: Option<u64>,
}

/// Everything the control plane is started with.
#[derive(Clone)]
pub struct ControlConfig {
    /// Created 0700 and locked at start.
    pub data_dir: PathBuf,
    /// `sqlite://PATH` or `postgres://…`; may hold a password.
    pub database_url: Zeroizing<String>,
    /// REST, console and documentation.
    pub console_listen: SocketAddr,
    /// gRPC for processes of this machine.
    pub grpc_socket: Option<PathBuf>,
    /// gRPC over mTLS.
    pub grpc_listen: Option<SocketAddr>,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin_listen: SocketAddr,
    /// Private or plain-http addresses that provider keys may name.
    pub private_upstreams: PrivateUpstreams,
    /// The master key in base64; `None`: the data directory's.
    pub master_key: Option<Zeroizing<String>>,
    /// The bootstrap admin token; `None`: the data directory's.
    pub admin_token: Option<Zeroizing<String>>,
    /// Lower case, without port.
    pub allowed_hosts: BTreeSet<String>,
    /// Base of the URLs a new bot is told; without a trailing slash.
    pub public_url: String,
    /// How long a node may serve without contact.
    pub max_config_age: Duration,
    /// Days that single exchanges are kept; 0: for ever. Sums are kept anyway.
    pub usage_retention_days: u32,
    /// Bots that we run.
    pub containers: ContainerConfig,
    /// Test hook (`CLAWGATE_TEST_POISON`): REST may poison the snapshot.
    pub test_poison: bool,
}

/// What is decided about bots that we run before any is.
#[derive(Clone, Copy, Debug)]
pub struct ContainerConfig {
    /// Where their networks come from.
    pub pool: BotPool,
    /// Until fetching an image counts as stuck.
    pub pull_timeout: Duration,
    /// Until a start counts as stuck.
    pub start_timeout: Duration,
}

impl fmt::Debug for ControlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlConfig")
            .field("data_dir", &self.data_dir)
            .field("console_listen", &self.console_listen)
            .field("grpc_socket", &self.grpc_socket)
            .field("grpc_listen", &self.grpc_listen)
            .field("admin_listen", &self.admin_listen)
            .field("allowed_hosts", &self.allowed_hosts)
            .finish_non_exhaustive()
    }
}

/// Reads one environment variable; the process's own in production, a map in
/// tests.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl ControlConfig {
    /// Merges all sources.
    ///
    /// # Errors
    /// Every problem of every setting, at once.
    pub fn resolve(flags: ControlSettings, env: Env<'_>) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let file = read_settings_file(&flags, env, &mut problems);
        let (flags_of_containers, file_of_containers) = (OfContainers::from(&flags), OfContainers::from(&file));
        let mut sources = Sources { env, problems };

        let data_dir = sources.path("data_dir", flags.data_dir, file.data_dir).unwrap_or("./clawgate-data".into());
        let database_url = sources
            .text("database_url", flags.database_url, file.database_url)
            .unwrap_or_else(|| format!("sqlite://{}", data_dir.join("clawgate.db").display()));
        sources.check_database_url(&database_url);
        let console = sources.text("console_listen", flags.console_listen, file.console_listen);
        let console_listen = sources.address("console_listen", console, ([127, 0, 0, 1], 8081).into());
        let admin = sources.text("control_admin_listen", flags.control_admin_listen, file.control_admin_listen);
        let admin_listen = sources.address("control_admin_listen", admin, ([127, 0, 0, 1], 8085).into());
        let grpc = sources.text("grpc_listen", flags.grpc_listen, file.grpc_listen);
        let (grpc_socket, grpc_listen) = sources.grpc(grpc, flags.supervised, &data_dir);
        let private = sources.text("private_upstreams", flags.private_upstreams, file.private_upstreams);
        let private_upstreams = sources.private_upstreams(private, flags.supervised);
        let master_key = sources.secret("master_key", flags.master_key_file, file.master_key_file);
        let admin_token = sources.secret("admin_token", flags.admin_token_file, file.admin_token_file);
        let hosts = sources.text("allowed_hosts", flags.allowed_hosts, file.allowed_hosts);
        let allowed_hosts = sources.hosts(hosts);
        let public_url = sources.text("public_url", flags.public_url, file.public_url);
        let public_url = sources.public_url(public_url);
        let age = sources.text(
            "max_config_age_secs",
            flags.max_config_age_secs.map(|secs| secs.to_string()),
            file.max_config_age_secs.map(|secs| secs.to_string()),
        );
        let max_config_age = sources.seconds("max_config_age_secs", age, DEFAULT_MAX_CONFIG_AGE);
        let retention = sources.text(
            "usage_retention_days",
            flags.usage_retention_days.map(|days| days.to_string()),
            file.usage_retention_days.map(|days| days.to_string()),
        );
        let usage_retention_days = sources.days("usage_retention_days", retention);
        let containers = sources.containers(flags_of_containers, file_of_containers);
        let test_poison = env("CLAWGATE_TEST_POISON").is_some_and(|value| value == "1");

        let database_url = Zeroizing::new(database_url);
        if !sources.problems.is_empty() {
            return Err(sources.problems);
        }
        Ok(Self {
            data_dir,
            database_url,
            console_listen,
            grpc_socket,
            grpc_listen,
            admin_listen,
            private_upstreams,
            master_key,
            admin_token,
            allowed_hosts,
            public_url,
            max_config_age,
            usage_retention_days,
            containers,
            test_poison,
        })
    }
}

/// The `[control]` table, with `data_dir` and `public_url` also accepted at the
/// top because every process shares them.
fn read_settings_file(flags: &ControlSettings, env: Env<'_>, problems: &mut Vec<ConfigProblem>) -> ControlSettings {
    #[derive(Default, Deserialize)]
    struct File {
        data_dir: Option<PathBuf>,
        public_url: Option<String>,
        private_upstreams: Option<String>,
        bot_pool: Option<String>,
        #[serde(default)]
        control: ControlSettings,
    }
    let Some(path) = flags.config_file.clone().or_else(|| env("CLAWGATE_CONFIG").map(PathBuf::from)) else {
        return ControlSettings::default();
    };
    let mut refuse = |message: String| {
        problems.push(ConfigProblem { setting: "config".into(), message });
        ControlSettings::default()
    };
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(message) => return refuse(message),
    };
    match toml::from_str::<File>(&text) {
        Err(error) => refuse(format!("{}: {}", path.display(), error.message())),
        Ok(file) => {
            let mut settings = file.control;
            settings.data_dir = settings.data_dir.or(file.data_dir);
            settings.public_url = settings.public_url.or(file.public_url);
            settings.private_upstreams = settings.private_upstreams.or(file.private_upstreams);
            settings.bot_pool = settings.bot_pool.or(file.bot_pool);
            settings
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > MAX_FILE {
        return Err(format!("{} is larger than {MAX_FILE} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The settings of bots that we run, as one source gives them.
struct OfContainers {
    pool: Option<String>,
    pull: Option<String>,
    start: Option<String>,
}

impl From<&ControlSettings> for OfContainers {
    fn from(settings: &ControlSettings) -> Self {
        Self {
            pool: settings.bot_pool.clone(),
            pull: settings.bot_pull_timeout_secs.map(|secs| secs.to_string()),
            start: settings.bot_start_timeout_secs.map(|secs| secs.to_string()),
        }
    }
}

struct Sources<'a> {
    env: Env<'a>,
    problems: Vec<ConfigProblem>,
}

fn env_name(setting: &str) -> String {
    format!("CLAWGATE_{}", setting.to_ascii_uppercase())
}

impl Sources<'_> {
    fn problem(&mut self, setting: &str, message: impl Into<String>) {
        self.problems.push(ConfigProblem { setting: setting.to_owned(), message: message.into() });
    }

    fn text(&mut self, setting: &str, flag: Option<String>, file: Option<String>) -> Option<String> {
        flag.or_else(|| (self.env)(&env_name(setting)).filter(|text| !text.is_empty())).or(file)
    }

    fn path(&mut self, setting: &str, flag: Option<PathBuf>, file: Option<PathBuf>) -> Option<PathBuf> {
        flag.or_else(|| (self.env)(&env_name(setting)).filter(|text| !text.is_empty()).map(PathBuf::from)).or(file)
    }

    /// A secret: file named by flag, else the variable itself, else the file
    /// named by `…_FILE`, else the file named in the TOML file.
    fn secret(&mut self, setting: &str, flag: Option<PathBuf>, file: Option<PathBuf>) -> Option<Zeroizing<String>> {
        let name = env_name(setting);
        let path = if flag.is_some() {
            flag
        } else {
            if let Some(value) = (self.env)(&name).filter(|text| !text.is_empty()) {
                return Some(Zeroizing::new(value.trim().to_owned()));
            }
            (self.env)(&format!("{name}_FILE")).filter(|text| !text.is_empty()).map(PathBuf::from).or(file)
        }?;
        match read_file(&path).map(Zeroizing::new) {
            Ok(text) if !text.trim().is_empty() => Some(Zeroizing::new(text.trim().to_owned())),
            Ok(_) => {
                self.problem(&format!("{setting}_file"), format!("{} is empty", path.display()));
                None
            }
            Err(message) => {
                self.problem(&format!("{setting}_file"), message);
                None
            }
        }
    }

    fn address(&mut self, setting: &str, text: Option<String>, default: SocketAddr) -> SocketAddr {
        let Some(text) = text else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(setting, format!("{text:?} is not ADDRESS:PORT, for example {default}"));
            default
        })
    }

    fn check_database_url(&mut self, url: &str) {
        let known = ["sqlite://", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        if !known {
            // The value may hold a password and is not repeated.
            self.problem("database_url", "must start with sqlite:// or postgres://");
        }
    }

    fn grpc(
        &mut self,
        text: Option<String>,
        supervised: bool,
        data_dir: &Path,
    ) -> (Option<PathBuf>, Option<SocketAddr>) {
        let (mut socket, mut listen) = (None, None);
        match text {
            None if supervised => socket = Some(data_dir.join("run").join("grpc.sock")),
            None => listen = Some(([127, 0, 0, 1], 8082).into()),
            Some(text) => {
                for part in text.split(',').map(str::trim) {
                    if let Some(path) = part.strip_prefix("unix:") {
                        socket = Some(PathBuf::from(path));
                    } else if let Ok(address) = part.parse() {
                        listen = Some(address);
                    } else {
                        self.problem("grpc_listen", format!("{part:?} is neither unix:PATH nor ADDRESS:PORT"));
                    }
                }
            }
        }
        if socket.as_ref().is_some_and(|path| path.as_os_str().len() > MAX_SOCKET_PATH) {
            self.problem(
                "grpc_listen",
                format!("the socket's path is longer than {MAX_SOCKET_PATH} bytes; use a shorter data directory"),
            );
        }
        (socket, listen)
    }

    fn private_upstreams(&mut self, text: Option<String>, supervised: bool) -> PrivateUpstreams {
        let text = match text {
            None if supervised => return PrivateUpstreams::loopback(),
            None => return PrivateUpstreams::none(),
            Some(text) => text,
        };
        PrivateUpstreams::parse(&text).unwrap_or_else(|error| {
            self.problem("private_upstreams", error.to_string());
            PrivateUpstreams::none()
        })
    }

    fn hosts(&mut self, text: Option<String>) -> BTreeSet<String> {
        let Some(text) = text else { return BTreeSet::new() };
        let mut hosts = BTreeSet::new();
        for host in text.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let plain = host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
            if plain {
                hosts.insert(host.to_ascii_lowercase());
            } else {
                self.problem("allowed_hosts", format!("{host:?} is not a host name"));
            }
        }
        hosts
    }

    fn public_url(&mut self, text: Option<String>) -> String {
        let text = text.unwrap_or_else(|| "http://127.0.0.1:8080".into());
        match clawgate_shared::origin::BaseUrl::parse(&text) {
            Ok(url) => url.to_string(),
            Err(error) => {
                self.problem("public_url", error.to_string());
                text
            }
        }
    }

    fn seconds(&mut self, setting: &str, text: Option<String>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        match text.parse::<u64>() {
            Ok(secs) if (60..=30 * 86_400).contains(&secs) => Duration::from_secs(secs),
            _ => {
                self.problem(setting, "must be a number of seconds from 60 to 2592000");
                default
            }
        }
    }

    fn containers(&mut self, flags: OfContainers, file: OfContainers) -> ContainerConfig {
        let pool = self.text("bot_pool", flags.pool, file.pool);
        let pool = pool.map(|text| text.parse::<BotPool>()).transpose().unwrap_or_else(|message| {
            self.problem("bot_pool", message);
            None
        });
        let pull = self.text("bot_pull_timeout_secs", flags.pull, file.pull);
        let start = self.text("bot_start_timeout_secs", flags.start, file.start);
        ContainerConfig {
            pool: pool.unwrap_or_default(),
            pull_timeout: self.patience("bot_pull_timeout_secs", pull, DEFAULT_PULL_TIMEOUT),
            start_timeout: self.patience("bot_start_timeout_secs", start, DEFAULT_START_TIMEOUT),
        }
    }

    fn patience(&mut self, setting: &str, text: Option<String>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        match text.parse::<u64>() {
            Ok(secs) if (1..=7200).contains(&secs) => Duration::from_secs(secs),
            _ => {
                self.problem(setting, "must be a number of seconds from 1 to 7200");
                default
            }
        }
    }

    fn days(&mut self, setting: &str, text: Option<String>) -> u32 {
        let Some(text) = text else { return 0 };
        match text.parse::<u32>() {
            Ok(days) if days <= MAX_DAYS => days,
            _ => {
                self.problem(setting, format!("must be a number of days from 0 to {MAX_DAYS}"));
                0
            }
        }
    }
}
