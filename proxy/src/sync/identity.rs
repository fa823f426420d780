//! Who this node is, kept in `<data-dir>/node/` (0700, files 0600):
//!
//! ```text
//! node_id          chosen at the first start, never changed
//! key.pem          the private key that goes with it
//! enrolment.json   what the control plane gave: sealing key, certificate, CA
//! ```
//!
//! The first two are made before the node enrols, so that an enrolment whose
//! answer was lost can be repeated with the same one-time token.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawgate_shared::id;
use clawgate_shared::seal::SealingKey;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

const NODE_ID: &str = "node_id";
const KEY: &str = "key.pem";
const ENROLMENT: &str = "enrolment.json";
const FORMAT: u32 = 1;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("node identity: {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is there but is not what it should be. It is never replaced by
    /// itself: removing it is an admin's decision.
    #[error("node identity: {0} is damaged; remove it to enrol again")]
    Damaged(PathBuf),
    /// The key or the request could not be made.
    #[error("node identity: {0}")]
    Key(#[from] rcgen::Error),
}

fn io(action: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, source }
}

/// What the control plane gave this node.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Opens the secrets sealed to this node.
    pub sealing_key: SealingKey,
    /// `None` when it enrolled over the Unix socket.
    pub tls: Option<TlsIdentity>,
}

/// For mutual TLS.
#[derive(Clone)]
pub struct TlsIdentity {
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// Leaf only.
    pub certificate_pem: String,
    /// The only authority that is believed.
    pub ca_pem: String,
    /// When it came, in unix microseconds.
    pub issued_at_micros: i64,
    /// When it ends, in unix microseconds.
    pub expires_at_micros: i64,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("expires_at_micros", &self.expires_at_micros).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Two thirds of its life are over.
    #[must_use]
    pub fn should_renew(&self, now_micros: i64) -> bool {
        let life = self.expires_at_micros.saturating_sub(self.issued_at_micros);
        now_micros.saturating_sub(self.issued_at_micros) >= life / 3 * 2
    }

    /// It is of no use any more.
    #[must_use]
    pub fn is_expired(&self, now_micros: i64) -> bool {
        now_micros >= self.expires_at_micros
    }
}

#[derive(Serialize, Deserialize)]
struct File1 {
    format: u32,
    sealing_key: String,
    certificate_pem: String,
    ca_pem: String,
    issued_at_micros: i64,
    expires_at_micros: i64,
}

impl Drop for File1 {
    fn drop(&mut self) {
        self.sealing_key.zeroize();
    }
}

/// The node's id and key, and its identity as it is now.
#[derive(Debug)]
pub struct IdentityCell {
    dir: PathBuf,
    node_id: String,
    key: NodeKey,
    current: ArcSwapOption<Identity>,
}

/// Never printed.
struct NodeKey(Zeroizing<String>);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

impl IdentityCell {
    /// Reads `<data-dir>/node/`, or begins it. No network.
    ///
    /// # Errors
    /// The directory cannot be used, or a file in it is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("node");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io("make the directory"))?;
        let node_id = match read(&dir, NODE_ID)? {
            Some(text) if id::Kind::Node.matches(text.trim()) => text.trim().to_owned(),
            Some(_) => return Err(IdentityError::Damaged(dir.join(NODE_ID))),
            None => {
                let fresh = id::new(id::Kind::Node);
                write(&dir, NODE_ID, &fresh)?;
                fresh
            }
        };
        let key = match read(&dir, KEY)? {
            Some(text) => {
                KeyPair::from_pem(&text).map_err(|_| IdentityError::Damaged(dir.join(KEY)))?;
                text
            }
            None => {
                let pem = Zeroizing::new(KeyPair::generate()?.serialize_pem());
                write(&dir, KEY, &pem)?;
                pem
            }
        };
        let saved = read(&dir, ENROLMENT)?
            .map(|text| parse(&text, &key).ok_or_else(|| IdentityError::Damaged(dir.join(ENROLMENT))));
        let current = ArcSwapOption::from(saved.transpose()?.map(Arc::new));
        Ok(Self { dir, node_id, key: NodeKey(key), current })
    }

    /// `node_…`
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The identity; `None` before the node has enrolled.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Identity>> {
        self.current.load_full()
    }

    /// Opens the secrets of this node; `None` before it has enrolled.
    #[must_use]
    pub fn sealing_key(&self) -> Option<SealingKey> {
        self.load().map(|identity| identity.sealing_key.clone())
    }

    /// Saves and uses another identity. Returns whether the sealing key is
    /// another than before. Blocks on the disk.
    ///
    /// # Errors
    /// It was not saved; the old one stays.
    pub(super) fn replace(&self, identity: Identity) -> Result<bool, IdentityError> {
        let tls = identity.tls.as_ref();
        let file = File1 {
            format: FORMAT,
            sealing_key: STANDARD.encode(identity.sealing_key.expose()),
            certificate_pem: tls.map(|tls| tls.certificate_pem.clone()).unwrap_or_default(),
            ca_pem: tls.map(|tls| tls.ca_pem.clone()).unwrap_or_default(),
            issued_at_micros: tls.map_or(0, |tls| tls.issued_at_micros),
            expires_at_micros: tls.map_or(0, |tls| tls.expires_at_micros),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|e| io("write a file")(e.into()))?;
        write(&self.dir, ENROLMENT, &Zeroizing::new(text))?;
        let old = self.current.swap(Some(Arc::new(identity)));
        let new = self.current.load();
        Ok(match (&old, new.as_ref()) {
            (Some(old), Some(new)) => old.sealing_key.expose() != new.sealing_key.expose(),
            _ => true,
        })
    }

    pub(super) fn key_pem(&self) -> Zeroizing<String> {
        self.key.0.clone()
    }

    /// A certificate request over the node's key.
    pub(super) fn csr_der(&self) -> Result<Vec<u8>, IdentityError> {
        let key = KeyPair::from_pem(&self.key.0)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.node_id.as_str());
        Ok(params.serialize_request(&key)?.der().to_vec())
    }
}

fn parse(text: &str, key_pem: &Zeroizing<String>) -> Option<Identity> {
    let file: File1 = serde_json::from_str(text).ok().filter(|file: &File1| file.format == FORMAT)?;
    let raw = Zeroizing::new(STANDARD.decode(&file.sealing_key).ok()?);
    let tls = (!file.certificate_pem.is_empty()).then(|| TlsIdentity {
        key_pem: key_pem.clone(),
        certificate_pem: file.certificate_pem.clone(),
        ca_pem: file.ca_pem.clone(),
        issued_at_micros: file.issued_at_micros,
        expires_at_micros: file.expires_at_micros,
    });
    Some(Identity { sealing_key: SealingKey::from_slice(&raw).ok()?, tls })
}

fn read(dir: &Path, name: &str) -> Result<Option<Zeroizing<String>>, IdentityError> {
    match fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(IdentityError::Damaged(dir.join(name))),
        Err(error) => Err(io("read a file")(error)),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let write = || -> io::Result<()> {
        let next = dir.join(format!("{name}.tmp"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, dir.join(name))?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io("write a file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity(tls: Option<TlsIdentity>) -> Identity {
        Identity { sealing_key: SealingKey::generate().expect("random"), tls }
    }

    #[test]
    fn id_and_key_are_made_once_and_only_the_owner_reads_them() {
        let data = tempfile::tempdir().expect("temporary directory");
        let first = IdentityCell::open(data.path()).expect("opens");
        assert!(first.load().is_none());
        let tls = TlsIdentity {
            key_pem: first.key_pem(),
            certificate_pem: "certificate".into(),
            ca_pem: "ca".into(),
            issued_at_micros: 0,
            expires_at_micros: 90,
        };
        let made = identity(Some(tls));
        assert!(first.replace(made.clone()).expect("saves"));
        assert!(!first.replace(made.clone()).expect("saves"), "the same sealing key");
        let second = IdentityCell::open(data.path()).expect("opens");
        assert_eq!(second.node_id(), first.node_id());
        assert_eq!(second.key_pem(), first.key_pem());
        assert_eq!(second.sealing_key().expect("enrolled").expose(), made.sealing_key.expose());
        assert_eq!(second.load().and_then(|i| i.tls.clone()).expect("has tls").ca_pem, "ca");
        assert!(second.replace(identity(None)).expect("saves"));
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join("node")), 0o700);
        for name in [NODE_ID, KEY, ENROLMENT] {
            assert_eq!(mode(&data.path().join("node").join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        for name in [NODE_ID, KEY, ENROLMENT] {
            let data = tempfile::tempdir().expect("temporary directory");
            IdentityCell::open(data.path()).expect("opens");
            let path = data.path().join("node").join(name);
            fs::write(&path, "garbage").expect("writes");
            let error = IdentityCell::open(data.path()).expect_err("refuses").to_string();
            assert!(error.contains(name), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("reads"), "garbage");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let data = tempfile::tempdir().expect("temporary directory");
        let cell = IdentityCell::open(data.path()).expect("opens");
        cell.replace(identity(None)).expect("saves");
        let text = format!("{cell:?}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let tls = TlsIdentity {
            key_pem: Zeroizing::default(),
            certificate_pem: String::new(),
            ca_pem: String::new(),
            issued_at_micros: 1_000,
            expires_at_micros: 1_090,
        };
        assert!(!tls.should_renew(1_059));
        assert!(tls.should_renew(1_060));
        assert!(!tls.is_expired(1_089));
        assert!(tls.is_expired(1_090));
    }
}
