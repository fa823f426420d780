//! Small files of the data directory: private ones, addresses, process ids.
//!
//! Invariant: what holds a secret is created 0600 and replaced by rename, so
//! that a reader sees the old or the new content and never a part.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Where everything of one installation is kept.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Names a directory without touching it.
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Creates the directory and its `run` folder with mode 0700 when missing
    /// and proves that it can be written.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        for path in [self.0.clone(), self.run()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| {
                Failure::Failed(format!(
                    "data directory {} cannot be created: {e} (data_dir_not_writable)",
                    path.display()
                ))
            })?;
        }
        let mode = fs::metadata(&self.0).map_err(|e| self.unusable(&e))?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).map_err(|e| self.unusable(&e))?;
        }
        let probe = self.run().join(format!(".probe-{}", std::process::id()));
        write_private(&probe, b"").map_err(|e| self.unusable(&e))?;
        fs::remove_file(&probe).map_err(|e| self.unusable(&e))
    }

    fn unusable(&self, cause: &io::Error) -> Failure {
        Failure::Failed(format!("data directory {} is not writable: {cause} (data_dir_not_writable)", self.0.display()))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file directly in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder of what only running processes need.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// A file of the `run` folder.
    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.0.join("run").join(name)
    }
}

/// Writes a file 0600, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)
}

/// The trimmed text of a secret's file; bounded, because a wrong path may name
/// anything.
pub(crate) fn read_secret(path: &Path) -> Result<String, Failure> {
    const LIMIT: u64 = 64 * 1024;
    let size = fs::metadata(path).map_err(|e| Failure::failed(&format!("reading {}", path.display()), e))?.len();
    if size > LIMIT {
        return Err(Failure::Usage(format!("{} is too large to be a secret", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|e| Failure::failed(&format!("reading {}", path.display()), e))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::Usage(format!("{} is empty", path.display())));
    }
    Ok(text.to_owned())
}

/// A field of one of the `run/*.json` address files; `None` while the file is
/// missing or half written.
pub(crate) fn read_address(path: &Path, field: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    value.get(field)?.as_str().map(str::to_owned)
}

/// Where a listener of this machine is reached: one on every address is reached
/// over loopback, under whose name it answers.
pub(crate) fn dialable(listener: String) -> String {
    match listener.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let loopback: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            SocketAddr::new(loopback, address.port()).to_string()
        }
        _ => listener,
    }
}

/// The process id in a pid file.
pub(crate) fn read_pid(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_and_its_secrets_are_private() {
        let root = tempfile::tempdir().expect("temporary directory");
        let data = DataDir::at(root.path().join("a/b"));
        data.prepare().expect("created");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(data.path()), 0o700);
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        data.prepare().expect("prepared again");
        assert_eq!(mode(data.path()), 0o700);
        let secret = data.file("demo.token");
        write_private(&secret, b" abc \n").expect("written");
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(read_secret(&secret).expect("read"), "abc");
        write_private(&secret, b"\n").expect("written");
        assert_eq!(read_secret(&secret).expect_err("empty").code(), 2);
    }

    #[test]
    fn half_written_address_and_pid_files_read_as_absent() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("control.json");
        assert_eq!(read_address(&path, "console"), None);
        fs::write(&path, b"{\"console\":\"127.0.").expect("written");
        assert_eq!(read_address(&path, "console"), None);
        fs::write(&path, b"{\"console\":\"127.0.0.1:1\"}").expect("written");
        assert_eq!(read_address(&path, "console").as_deref(), Some("127.0.0.1:1"));
        for (listener, reached) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1"), ("x", "x")]
        {
            assert_eq!(dialable(listener.to_owned()), reached);
        }
        for (text, pid) in [("12\n", Some(12)), ("", None), ("x", None), ("1", None), ("-5", None)] {
            fs::write(&path, text).expect("written");
            assert_eq!(read_pid(&path), pid, "{text:?}");
        }
    }
}
