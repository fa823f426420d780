//! The hardened form: what a spec becomes for an engine, and whether what an
//! engine made has that form. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, HostConfigLogConfig, Ipam, IpamConfig, Mount, MountType,
    NetworkCreateRequest, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use clawgate_shared::proto::runner::{Cell, CellState};

use crate::spec::{CellSpec, Owner, is_id};

/// The installation that something belongs to.
pub const INSTALLATION: &str = "clawgate.io/installation";
/// The bot.
pub const BOT: &str = "clawgate.io/bot";
const TENANT: &str = "clawgate.io/tenant";
const HOSTNAME: &str = "clawgate.io/hostname";
const GENERATION: &str = "clawgate.io/generation";
const IMAGE: &str = "clawgate.io/image-digest";
const PROBE: &str = "clawgate.io/probe";

const MB: i64 = 1 << 20;
/// What a cell may write to `/tmp`; counted as its memory.
const TMPFS: &str = "rw,noexec,nosuid,nodev,size=64m,mode=1777";
const LOG_SIZE: &str = "10m";
const LOG_FILES: &str = "3";

/// Of container, network and volume of a bot.
#[must_use]
pub fn name(bot_id: &str) -> String {
    format!("clawgate-{bot_id}")
}

/// The labels of a bot's network and volume.
#[must_use]
pub fn mark(installation: &str, owner: &Owner) -> HashMap<String, String> {
    [(INSTALLATION, installation), (BOT, &owner.bot_id), (TENANT, &owner.tenant_id), (HOSTNAME, &owner.hostname)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Whether labels say that something is this bot's of this installation.
#[must_use]
pub fn is_marked(labels: Option<&HashMap<String, String>>, installation: &str, bot_id: &str) -> bool {
    let says = |key: &str, value: &str| labels.and_then(|labels| labels.get(key)).is_some_and(|text| text == value);
    says(INSTALLATION, installation) && says(BOT, bot_id)
}

/// A network of its own, without a way out.
#[must_use]
pub fn network(installation: &str, spec: &CellSpec) -> NetworkCreateRequest {
    let (address, length) = spec.subnet;
    let config = IpamConfig {
        subnet: Some(format!("{address}/{length}")),
        gateway: Some(spec.gateway.to_string()),
        ..IpamConfig::default()
    };
    NetworkCreateRequest {
        name: name(&spec.owner.bot_id),
        driver: Some("bridge".to_owned()),
        internal: Some(true),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
        labels: Some(mark(installation, &spec.owner)),
        ..NetworkCreateRequest::default()
    }
}

/// The state volume, which outlives containers.
#[must_use]
pub fn volume(installation: &str, spec: &CellSpec) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(name(&spec.owner.bot_id)),
        driver: Some("local".to_owned()),
        labels: Some(mark(installation, &spec.owner)),
        ..VolumeCreateRequest::default()
    }
}

/// Where the container that prepares a state volume has it, below the root.
pub const PREPARED: &str = "clawgate-state";
/// Says whose such a container is; it is no cell and in no list.
const PREPARES: &str = "clawgate.io/prepares";

/// Of the container that prepares a bot's state volume.
#[must_use]
pub fn preparer_name(bot_id: &str) -> String {
    format!("{}-prepare", name(bot_id))
}

/// Whether a container of that name is ours.
#[must_use]
pub fn is_preparer(made: &ContainerInspectResponse, installation: &str) -> bool {
    let labels = made.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.and_then(|labels| labels.get(PREPARES)).is_some_and(|text| text == installation)
}

/// A container that is never started: through it the state volume gets its
/// owner and files, which a read-only root does not allow through the cell.
#[must_use]
pub fn preparer(installation: &str, spec: &CellSpec, image: &str) -> ContainerCreateBody {
    let cell = CellSpec { state_path: Some(format!("/{PREPARED}")), ..bare(spec) };
    ContainerCreateBody {
        cmd: Some(vec!["/never-started".to_owned()]),
        image: Some(image.to_owned()),
        labels: Some(HashMap::from([(PREPARES.to_owned(), installation.to_owned())])),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..host_config(&cell) }),
        ..ContainerCreateBody::default()
    }
}

/// Everything of a spec that a host configuration is made of, and no secret.
fn bare(spec: &CellSpec) -> CellSpec {
    CellSpec {
        owner: spec.owner.clone(),
        image: spec.image.clone(),
        command: Vec::new(),
        env: crate::spec::Secret(Vec::new()),
        files: crate::spec::Secret(Vec::new()),
        state_path: None,
        read_only: false,
        probe: None,
        ..*spec
    }
}

/// The container. `image` is the id that the reference had when it was
/// resolved, `digest` what is told of it.
#[must_use]
pub fn container(installation: &str, spec: &CellSpec, image: &str, digest: &str) -> ContainerCreateBody {
    let mut labels = mark(installation, &spec.owner);
    labels.insert(GENERATION.to_owned(), spec.owner.generation.to_string());
    labels.insert(IMAGE.to_owned(), digest.to_owned());
    if let Some(probe) = &spec.probe {
        // No blank occurs in any part.
        labels.insert(PROBE.to_owned(), format!("{} {} {} {}", probe.port, probe.path, probe.key, probe.value));
    }
    ContainerCreateBody {
        hostname: Some(spec.owner.hostname.clone()),
        user: Some(format!("{}:{}", spec.user.0, spec.user.1)),
        env: Some(spec.env.0.iter().map(|text| text.to_string()).collect()),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        image: Some(image.to_owned()),
        labels: Some(labels),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &CellSpec) -> HostConfig {
    let memory = i64::try_from(spec.memory_mb).unwrap_or(i64::MAX).saturating_mul(MB);
    let mount = |target: &String| Mount {
        target: Some(target.clone()),
        source: Some(name(&spec.owner.bot_id)),
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    let log = [("max-size", LOG_SIZE), ("max-file", LOG_FILES)];
    HostConfig {
        memory: Some(memory),
        // The sum of memory and swap: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::try_from(spec.cpu_millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX)),
        pids_limit: Some(i64::try_from(spec.pids_limit).unwrap_or(i64::MAX)),
        init: Some(true),
        network_mode: Some(name(&spec.owner.bot_id)),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        mounts: Some(spec.state_path.iter().map(mount).collect()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        privileged: Some(false),
        publish_all_ports: Some(false),
        readonly_rootfs: Some(spec.read_only),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        ipc_mode: Some("private".to_owned()),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMPFS.to_owned())])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        }),
        ..HostConfig::default()
    }
}

/// What of a made container is not as the hardened form has it; empty: nothing.
#[must_use]
pub fn deviations(spec: &CellSpec, made: &ContainerInspectResponse) -> Vec<&'static str> {
    let wanted = host_config(spec);
    let Some(host) = &made.host_config else { return vec!["host configuration"] };
    let config = made.config.as_ref();
    let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    let own = |mode: &Option<String>| mode.as_deref().is_none_or(|mode| matches!(mode, "" | "private"));
    let user = format!("{}:{}", spec.user.0, spec.user.1);
    let names = |mounts: &Option<Vec<Mount>>| {
        let one = |mount: &Mount| (mount.target.clone(), mount.source.clone(), mount.typ);
        mounts.iter().flatten().map(one).collect::<Vec<_>>()
    };
    let checks = [
        (host.privileged != Some(true), "privileged"),
        (host.cap_drop == wanted.cap_drop && none(&host.cap_add), "capabilities"),
        (host.security_opt == wanted.security_opt, "security options"),
        (host.memory == wanted.memory && host.memory_swap == wanted.memory_swap, "memory"),
        (host.nano_cpus == wanted.nano_cpus && host.pids_limit == wanted.pids_limit, "processors, processes"),
        (host.network_mode == wanted.network_mode, "network"),
        (host.port_bindings.as_ref().is_none_or(HashMap::is_empty) && host.publish_all_ports != Some(true), "ports"),
        (none(&host.binds) && none(&host.volumes_from) && names(&host.mounts) == names(&wanted.mounts), "mounts"),
        (host.devices.as_ref().is_none_or(Vec::is_empty), "devices"),
        (own(&host.pid_mode) && own(&host.uts_mode) && own(&host.userns_mode) && own(&host.ipc_mode), "namespaces"),
        (host.readonly_rootfs == wanted.readonly_rootfs && host.tmpfs == wanted.tmpfs, "file systems"),
        (host.log_config == wanted.log_config, "log"),
        (
            host.restart_policy.as_ref().and_then(|policy| policy.name) == Some(RestartPolicyNameEnum::NO),
            "restart policy",
        ),
        (config.and_then(|config| config.user.as_ref()) == Some(&user), "user"),
    ];
    checks.into_iter().filter(|(fits, _)| !fits).map(|(_, what)| what).collect()
}

/// What is told of a container; `None`: its labels name no bot.
#[must_use]
pub fn view(made: &ContainerInspectResponse) -> Option<Cell> {
    let labels = made.config.as_ref()?.labels.as_ref()?;
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let bot_id = label(BOT);
    if !is_id(&bot_id) {
        return None;
    }
    let state = made.state.clone().unwrap_or_default();
    let started_at = state.started_at.clone().filter(|text| !text.starts_with("0001-"));
    let is = if state.running == Some(true) || state.restarting == Some(true) {
        CellState::Running
    } else if started_at.is_none() && state.exit_code.unwrap_or_default() == 0 {
        CellState::Created
    } else {
        CellState::Exited
    };
    Some(Cell {
        bot_id,
        tenant_id: label(TENANT),
        hostname: label(HOSTNAME),
        generation: label(GENERATION).parse().unwrap_or_default(),
        container_id: made.id.clone().unwrap_or_default(),
        state: is.into(),
        started_at: started_at.unwrap_or_default(),
        exit_code: state.exit_code.unwrap_or_default(),
        oom: state.oom_killed.unwrap_or_default(),
        health: 0,
        restart_count: made.restart_count.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
        image_digest: label(IMAGE),
    })
}

/// How to ask a made container whether it is well: port, path, member, value.
#[must_use]
pub fn probe(made: &ContainerInspectResponse) -> Option<crate::spec::ProbeSpec> {
    let text = made.config.as_ref()?.labels.as_ref()?.get(PROBE)?;
    let mut parts = text.split(' ').map(str::to_owned);
    Some(crate::spec::ProbeSpec {
        port: parts.next()?.parse().ok()?,
        path: parts.next()?,
        key: parts.next()?,
        value: parts.next()?,
    })
}
