//! Flags that become configuration.
//!
//! Invariant: nothing is merged here. Each plane resolves its own settings
//! (flag, then environment, then TOML file, then default) from what these
//! structs hold, so a setting means the same under `up` and alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clawgate_control::config::{ControlConfig, ControlSettings};
use clawgate_proxy::config::{ConfigProblem, ProxyConfig, ProxySettings};

use crate::failure::Failure;
use crate::settings_file;

/// Where configuration and data are: flags of every command.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlaceArgs {
    /// Directory of database, keys, spool and sockets [default: ./clawgate-data]
    #[arg(long, global = true, value_name = "DIR", env = "CLAWGATE_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// TOML file with settings
    #[arg(long, global = true, value_name = "FILE", env = "CLAWGATE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// The resolved place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Absolute.
    pub(crate) data_dir: PathBuf,
    /// Whether somebody named it, or it is the default.
    pub(crate) explicit: bool,
    /// The TOML file.
    pub(crate) config: Option<PathBuf>,
}

const DEFAULT_DATA_DIR: &str = "./clawgate-data";

impl PlaceArgs {
    /// Flag, environment, TOML file, default.
    ///
    /// # Errors
    /// There is no current directory. A broken TOML file is reported by whoever
    /// reads all of it.
    pub(crate) fn resolve(self) -> Result<Place, Failure> {
        let named =
            self.data_dir.or_else(|| self.config.as_deref().and_then(settings_file::data_dir).map(PathBuf::from));
        let explicit = named.is_some();
        let data_dir = std::path::absolute(named.unwrap_or_else(|| DEFAULT_DATA_DIR.into()))
            .map_err(|e| Failure::failed("naming the data directory", e))?;
        let config = self.config.map(std::path::absolute).transpose();
        let config = config.map_err(|e| Failure::failed("naming the configuration file", e))?;
        Ok(Place { data_dir, explicit, config })
    }
}

impl Place {
    /// As arguments of a child.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args = vec!["--data-dir".into(), self.data_dir.clone().into_os_string()];
        if let Some(config) = &self.config {
            args.extend(["--config".into(), config.clone().into_os_string()]);
        }
        args
    }
}

/// Settings of both planes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SharedFlags {
    /// Where bots reach the data plane
    #[arg(long, value_name = "URL", help_heading = "Settings")]
    pub(crate) public_url: Option<String>,
    /// Private addresses that provider keys may lead to: HOST:PORT or CIDR:PORT, comma-separated
    #[arg(long, value_name = "LIST", help_heading = "Settings")]
    pub(crate) private_upstreams: Option<String>,
    /// Where the networks of bots in containers come from: only they may use the bots' listener [default: 10.231.0.0/16]
    #[arg(long, value_name = "CIDR", help_heading = "Settings")]
    pub(crate) bot_pool: Option<String>,
}

impl SharedFlags {
    /// As arguments of a child.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        to_args([
            ("--public-url", text(&self.public_url)),
            ("--private-upstreams", text(&self.private_upstreams)),
            ("--bot-pool", text(&self.bot_pool)),
        ])
    }
}

/// Settings of the control plane.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ControlFlags {
    /// REST and console [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", help_heading = "Control plane")]
    console_listen: Option<String>,
    /// Nodes: ADDR (mTLS off loopback) or unix:PATH, or both with a comma [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR", help_heading = "Control plane")]
    grpc_listen: Option<String>,
    /// Health and metrics [default: 127.0.0.1:8085]
    #[arg(long, value_name = "ADDR", help_heading = "Control plane")]
    control_admin_listen: Option<String>,
    /// sqlite://PATH or postgres://… [default: sqlite in the data directory]
    #[arg(long, value_name = "URL", help_heading = "Control plane")]
    pub(crate) database_url: Option<String>,
    /// File with the master key (32 bytes, base64)
    #[arg(long, value_name = "FILE", help_heading = "Control plane")]
    master_key_file: Option<PathBuf>,
    /// File with the bootstrap admin token
    #[arg(long, value_name = "FILE", help_heading = "Control plane")]
    admin_token_file: Option<PathBuf>,
    /// Further host names under which REST answers, comma-separated
    #[arg(long, value_name = "LIST", help_heading = "Control plane")]
    allowed_hosts: Option<String>,
    /// How long a node may serve without contact [default: 86400]
    #[arg(long, value_name = "SECONDS", help_heading = "Control plane")]
    max_config_age_secs: Option<u64>,
    /// How long single exchanges are kept; 0: for ever; sums are kept anyway [default: 0]
    #[arg(long, value_name = "DAYS", help_heading = "Control plane")]
    usage_retention_days: Option<u32>,
    /// Until fetching a bot's image counts as stuck [default: 600]
    #[arg(long, value_name = "SECONDS", help_heading = "Control plane")]
    bot_pull_timeout_secs: Option<u64>,
    /// Until a bot that was started and is not healthy counts as stuck [default: 180]
    #[arg(long, value_name = "SECONDS", help_heading = "Control plane")]
    bot_start_timeout_secs: Option<u64>,
}

impl ControlFlags {
    /// Merges all sources.
    ///
    /// # Errors
    /// Every wrong setting, one text each.
    pub(crate) fn resolve(
        &self,
        shared: &SharedFlags,
        place: &Place,
        supervised: bool,
    ) -> Result<ControlConfig, Vec<String>> {
        let this = self.clone();
        let settings = ControlSettings {
            config_file: place.config.clone(),
            supervised,
            data_dir: Some(place.data_dir.clone()),
            database_url: this.database_url,
            console_listen: this.console_listen,
            grpc_listen: this.grpc_listen,
            control_admin_listen: this.control_admin_listen,
            private_upstreams: shared.private_upstreams.clone(),
            master_key_file: this.master_key_file,
            admin_token_file: this.admin_token_file,
            allowed_hosts: this.allowed_hosts,
            public_url: shared.public_url.clone(),
            max_config_age_secs: this.max_config_age_secs,
            usage_retention_days: this.usage_retention_days,
            bot_pool: shared.bot_pool.clone(),
            bot_pull_timeout_secs: this.bot_pull_timeout_secs,
            bot_start_timeout_secs: this.bot_start_timeout_secs,
        };
        ControlConfig::resolve(settings, &variable)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// As arguments of a child that also listens on `socket`; the database URL
    /// is not among them.
    pub(crate) fn to_args_with_socket(&self, config: &ControlConfig, socket: &Path) -> Vec<OsString> {
        let grpc = config.grpc_listen.map_or_else(
            || format!("unix:{}", socket.display()),
            |address| format!("unix:{},{address}", socket.display()),
        );
        to_args([
            ("--console-listen", text(&self.console_listen)),
            ("--grpc-listen", Some(grpc.into())),
            ("--control-admin-listen", text(&self.control_admin_listen)),
            ("--master-key-file", path(&self.master_key_file)),
            ("--admin-token-file", path(&self.admin_token_file)),
            ("--allowed-hosts", text(&self.allowed_hosts)),
            ("--max-config-age-secs", self.max_config_age_secs.map(|n| n.to_string().into())),
            ("--usage-retention-days", self.usage_retention_days.map(|n| n.to_string().into())),
            ("--bot-pull-timeout-secs", self.bot_pull_timeout_secs.map(|n| n.to_string().into())),
            ("--bot-start-timeout-secs", self.bot_start_timeout_secs.map(|n| n.to_string().into())),
        ])
    }
}

/// One text for all wrong settings.
pub(crate) fn refused(mut problems: Vec<String>) -> Failure {
    problems.sort();
    problems.dedup();
    Failure::Usage(format!("the configuration is not usable:\n  {}", problems.join("\n  ")))
}

/// The process's environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}

fn text(value: &Option<String>) -> Option<OsString> {
    value.clone().map(Into::into)
}

fn path(value: &Option<PathBuf>) -> Option<OsString> {
    value.clone().map(Into::into)
}

fn to_args<const N: usize>(flags: [(&'static str, Option<OsString>); N]) -> Vec<OsString> {
    flags.into_iter().filter_map(|(name, value)| value.map(|v| [name.into(), v])).flatten().collect()
}

/// Settings of a data-plane node.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ProxyFlags {
    /// Bots' requests [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", help_heading = "Node")]
    listen: Option<String>,
    /// Requests of bots in containers [default: off]
    #[arg(long, value_name = "ADDR", help_heading = "Node")]
    bot_listen: Option<String>,
    /// Health and metrics [default: 127.0.0.1:8083]
    #[arg(long, value_name = "ADDR", help_heading = "Node")]
    admin_listen: Option<String>,
    /// The control plane: https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL", help_heading = "Node")]
    control: Option<String>,
    /// File with the one-time token of a new node
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    enroll_token_file: Option<PathBuf>,
    /// Access lines: stderr, off or a path [default: stderr]
    #[arg(long, value_name = "WHERE", help_heading = "Node")]
    access_log: Option<String>,
    /// Worker threads [default: number of cores]
    #[arg(long, value_name = "N", help_heading = "Node")]
    threads: Option<usize>,
    /// Longest drain [default: 600]
    #[arg(long, value_name = "SECONDS", help_heading = "Node")]
    grace_secs: Option<u64>,
    /// Certificate chain of the data listener, PEM [env: CLAWGATE_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM [env: CLAWGATE_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Take the listeners over from the running node
    #[arg(long, hide = true)]
    pub(crate) upgrade: bool,
}

/// Private upstreams of a node under `up`: this machine, where the mock vendor
/// and local models are.
const LOOPBACK: &str = "127.0.0.0/8:*,[::1]:*";

impl ProxyFlags {
    /// Merges all sources.
    ///
    /// # Errors
    /// Every wrong setting, one text each.
    pub(crate) fn resolve(
        &self,
        shared: &SharedFlags,
        place: &Place,
        supervised: bool,
    ) -> Result<ProxyConfig, Vec<String>> {
        let this = self.clone();
        let mut problems = Vec::new();
        let mut settings = ProxySettings {
            data_dir: Some(place.data_dir.clone()),
            listen: this.listen,
            bot_listen: this.bot_listen,
            bot_pool: shared.bot_pool.clone(),
            admin_listen: this.admin_listen,
            control: this.control,
            enroll_token_file: this.enroll_token_file,
            private_upstreams: shared.private_upstreams.clone(),
            access_log: this.access_log,
            threads: this.threads,
            grace_secs: this.grace_secs,
            tls_cert: this.tls_cert,
            tls_key: this.tls_key,
            upgrade: this.upgrade,
            ..ProxySettings::default()
        };
        settings.overlay_env(&variable, &mut problems);
        let mut problems = in_words(&problems);
        if let Some(path) = &place.config {
            match settings_file::proxy(path) {
                Ok(file) => below(&mut settings, file),
                Err(problem) => problems.push(problem),
            }
        }
        if supervised {
            let socket = place.data_dir.join("run").join("control.sock");
            settings.control.get_or_insert_with(|| format!("unix:{}", socket.display()));
            settings.private_upstreams.get_or_insert_with(|| LOOPBACK.to_owned());
        }
        match ProxyConfig::resolve(settings, &variable) {
            Ok(config) if problems.is_empty() => Ok(config),
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(in_words(&more));
                Err(problems)
            }
        }
    }

    /// As arguments of a child.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        to_args([
            ("--listen", text(&self.listen)),
            ("--bot-listen", text(&self.bot_listen)),
            ("--admin-listen", text(&self.admin_listen)),
            ("--control", text(&self.control)),
            ("--enroll-token-file", path(&self.enroll_token_file)),
            ("--access-log", text(&self.access_log)),
            ("--threads", self.threads.map(|n| n.to_string().into())),
            ("--tls-cert", path(&self.tls_cert)),
            ("--tls-key", path(&self.tls_key)),
            ("--grace-secs", self.grace_secs.map(|n| n.to_string().into())),
        ])
    }
}

/// One text each; settings are named with underscores, as in the file and in
/// the control plane's problems.
fn in_words(problems: &[ConfigProblem]) -> Vec<String> {
    problems.iter().map(|p| format!("{}: {}", p.setting.replace('-', "_"), p.problem)).collect()
}

/// Fills from the file what neither a flag nor the environment gave. Every
/// field is named, so that a new setting cannot be forgotten here.
fn below(settings: &mut ProxySettings, file: ProxySettings) {
    /// `a = a.or(file.a)` for each field.
    macro_rules! fill {
        ($($field:ident),*) => {{
            let ProxySettings { $($field,)* upgrade: _ } = file;
            $(settings.$field = settings.$field.take().or($field);)*
        }};
    }
    fill!(
        data_dir,
        listen,
        bot_listen,
        bot_pool,
        admin_listen,
        control,
        private_upstreams,
        enroll_token_file,
        access_log,
        otlp_endpoint,
        trace_sample,
        threads,
        max_connections,
        max_connections_per_source,
        max_inflight,
        memory_limit,
        max_body_bytes,
        spool_max_bytes,
        spool_full,
        drain_secs,
        drain_tokens,
        max_drains,
        upstream_connect_timeout_ms,
        upstream_head_timeout_ms,
        upstream_idle_timeout_ms,
        key_probe_interval_ms,
        grace_secs,
        tls_cert,
        tls_key
    );
}
