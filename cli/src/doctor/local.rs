//! Checks of this machine: files, disk, clock, ports, database.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use clawgate_control::config::ControlConfig;
use clawgate_proxy::config::ProxyConfig;

use super::{DoctorArgs, Verdict};
use crate::check;
use crate::files::{self, DataDir};
use crate::flags::Place;

/// Below this a warning.
const DISK_LOW: u64 = 1 << 30;
/// Below this the spool and the database will stop soon.
const DISK_OUT: u64 = 100 << 20;
/// 2025-01-01: a clock before this is not set.
const EARLIEST: i64 = 1_735_689_600_000_000;

/// Files that hold secrets, when they exist.
const SECRETS: [&str; 5] = ["master.key", "admin.token", "demo.token", "clawgate.db", "clawgate.db-wal"];

pub(super) fn data_directory(data: &DataDir) -> Verdict {
    let shown = data.path().display();
    let meta = match fs::metadata(data.path()) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Verdict::broken(
                format!("{shown} does not exist: nothing was started here yet"),
                "run `clawgate up`, or name another directory with --data-dir",
            );
        }
        Err(e) => return Verdict::broken(format!("{shown}: {e}"), "make it readable for this user"),
    };
    if !meta.is_dir() {
        return Verdict::broken(format!("{shown} is not a directory"), "choose another with --data-dir");
    }
    let me = nix::unistd::geteuid();
    if meta.uid() != me.as_raw() && !me.is_root() {
        let repair = "run as its owner, or change the owner with chown -R";
        return Verdict::broken(format!("{shown} belongs to user {}", meta.uid()), repair);
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return Verdict::doubtful(format!("{shown} can be entered by others"), format!("chmod 700 {shown}"));
    }
    let probe = nix::unistd::access(data.path(), nix::unistd::AccessFlags::W_OK);
    match probe {
        Ok(()) => Verdict::Fine(format!("{shown}, private and writable")),
        Err(e) => Verdict::broken(format!("{shown} is not writable: {e}"), "check owner, mode and mount options"),
    }
}

pub(super) fn secret_files(data: &DataDir) -> Verdict {
    let open: Vec<String> = SECRETS
        .iter()
        .map(|name| data.file(name))
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0))
        .map(|path| path.display().to_string())
        .collect();
    if open.is_empty() {
        return Verdict::Fine("readable by their owner only".to_owned());
    }
    let names = open.join(" ");
    Verdict::broken(
        format!("others can read {names}"),
        format!("chmod 600 {names}; then treat what they hold as known to others: rotate it"),
    )
}

pub(super) fn disk(data: &DataDir) -> Verdict {
    let Ok(stat) = nix::sys::statvfs::statvfs(data.path()) else {
        return Verdict::Skipped("no data directory to look at".to_owned());
    };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let text = format!("{} MiB free", free >> 20);
    match free {
        0..DISK_OUT => Verdict::broken(text, "free space, or move the data directory to a larger disk"),
        DISK_OUT..DISK_LOW => Verdict::doubtful(text, "free space before database and spool need it"),
        _ => Verdict::Fine(text),
    }
}

pub(super) fn clock() -> Verdict {
    let now = clawgate_shared::clock::now_micros();
    let text = clawgate_shared::clock::rfc3339(now);
    if now < EARLIEST {
        return Verdict::broken(format!("the clock says {text}"), "set it, and keep it set with NTP");
    }
    Verdict::Fine(text)
}

pub(super) fn configuration(args: &DoctorArgs, place: &Place) -> Verdict {
    let problems = check::problems(&args.shared, &args.control, &args.proxy, place);
    if problems.is_empty() {
        return Verdict::Fine("every setting is usable".to_owned());
    }
    Verdict::broken(problems.join("; "), "correct these settings; `clawgate check-config` checks them alone")
}

/// A port is fine when we listen on it or somebody could.
pub(super) fn ports(control: Option<&ControlConfig>, proxy: Option<&ProxyConfig>, data: &DataDir) -> Verdict {
    let (Some(control), Some(proxy)) = (control, proxy) else {
        return Verdict::Skipped("the configuration is not usable".to_owned());
    };
    let running = |file: &str| alive(&data.run_file(file));
    let ours: Vec<String> = [
        ("control.json", "console"),
        ("control.json", "admin"),
        ("control.json", "grpc"),
        ("proxy.json", "data"),
        ("proxy.json", "admin"),
        ("proxy.json", "bots"),
    ]
    .iter()
    .filter_map(|(file, field)| files::read_address(&data.run_file(file), field))
    .collect();
    let mut wanted: Vec<(&str, SocketAddr)> = Vec::new();
    if !running("control.pid") {
        wanted.extend([("console_listen", control.console_listen), ("control_admin_listen", control.admin_listen)]);
        wanted.extend(control.grpc_listen.map(|address| ("grpc_listen", address)));
    }
    if !running("proxy.pid") {
        wanted.extend([("listen", proxy.listen), ("admin_listen", proxy.admin_listen)]);
        wanted.extend(proxy.bot_listen.as_ref().map(|(address, _)| ("bot_listen", *address)));
    }
    let taken: Vec<String> = wanted
        .iter()
        .filter(|(_, address)| !ours.contains(&address.to_string()))
        .filter_map(|(name, address)| TcpListener::bind(address).err().map(|e| format!("{name} {address}: {e}")))
        .collect();
    if !taken.is_empty() {
        return Verdict::broken(taken.join("; "), "end the other process (`ss -ltnp`), or choose another address");
    }
    if wanted.is_empty() {
        return Verdict::Fine("both planes are running".to_owned());
    }
    Verdict::Fine(format!("{} free for what is not running", wanted.len()))
}

/// Whether the process of a pid file lives.
fn alive(path: &Path) -> bool {
    files::read_pid(path).is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_read_is_named() {
        let root = tempfile::tempdir().expect("temporary directory");
        let data = DataDir::at(root.path().join("data"));
        assert!(matches!(data_directory(&data), Verdict::Broken { .. }));
        data.prepare().expect("prepared");
        assert!(matches!(data_directory(&data), Verdict::Fine(_)));
        let key = data.file("master.key");
        files::write_private(&key, b"x").expect("written");
        assert!(matches!(secret_files(&data), Verdict::Fine(_)));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
        let verdict = secret_files(&data);
        assert!(matches!(&verdict, Verdict::Broken { cause, .. } if cause.contains("master.key")), "{verdict:?}");
        assert!(!matches!(disk(&data), Verdict::Skipped(_)));
        assert!(matches!(clock(), Verdict::Fine(_)));
    }
}
