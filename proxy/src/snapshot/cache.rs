//! The last known good configuration on disk: what a node serves when it
//! starts and the control plane is away.
//!
//! One file per configuration, the newest three are kept. A file is sealed as a
//! whole with the node's own key, so that a copied disk shows neither keys nor
//! who may call. A file that does not open, or whose content does not have the
//! hash it says, is reported and skipped.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clawgate_shared::content::Content;
use clawgate_shared::proto::node::{SealedSecret, Update, Version};
use clawgate_shared::seal::{SealError, Sealed, SealingKey};
use prost::Message as _;
use zeroize::Zeroizing;

/// Before everything; the last byte is the format version.
const HEAD: &[u8; 6] = b"cglkg\x01";
const AAD: &[u8] = b"clawgate/last-known-good/1";
const EXTENSION: &str = "lkg";
const CONTACT: &str = "last_contact";
const KEYS: &str = "keys";
const KEYS_AAD: &[u8] = b"clawgate/key-states/1";
const KEEP: usize = 3;
/// Larger files are not read.
const MAX_FILE: u64 = 1 << 30;
/// 1,000 keys with 32 models each, and more.
const MAX_KEYS: u64 = 16 << 20;

/// A configuration as it travels: resources, sealed secrets by key id, version.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The resources.
    pub content: Content,
    /// Sealed to this node, by key id.
    pub secrets: HashMap<String, SealedSecret>,
    /// Of the content.
    pub version: Version,
}

/// Why a configuration was not saved or not read.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system refused.
    #[error("last known good configuration: {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Not sealed by this node's key, or damaged.
    #[error("last known good configuration: {0}")]
    Seal(#[from] SealError),
    /// It opened, but is not what it says it is.
    #[error("last known good configuration: {0}")]
    Damaged(&'static str),
}

fn io(action: &'static str) -> impl FnOnce(io::Error) -> CacheError {
    move |source| CacheError::Io { action, source }
}

/// The directory of last known good configurations.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Uses `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make the directory"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Saves a configuration durably and removes all but the newest three.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// It was not saved; the older ones are still there.
    pub fn store(&self, key: &SealingKey, saved: &Saved) -> Result<(), CacheError> {
        let update = Update {
            version: Some(saved.version.clone()),
            upserts: saved.content.iter().cloned().collect(),
            secrets: saved.secrets.values().cloned().collect(),
            ..Update::default()
        };
        let sealed = key.seal(&update.encode_to_vec(), AAD)?;
        let bytes = [HEAD.as_slice(), &sealed.to_bytes()].concat();
        let files = self.files()?;
        let number = files.first().map_or(1, |(number, _)| number.saturating_add(1));
        let path = self.dir.join(format!("{number:020}.{EXTENSION}"));
        self.write(&path, &bytes).map_err(io("write a file"))?;
        for (_, old) in files.iter().skip(KEEP - 1) {
            fs::remove_file(old).map_err(io("remove an old file"))?;
        }
        Ok(())
    }

    /// Every saved configuration that opens, newest first. Blocks on the disk.
    pub fn load(&self, key: &SealingKey) -> impl Iterator<Item = Saved> {
        let files = self.files().unwrap_or_else(|error| {
            tracing::warn!(%error, "the last known good configuration is not readable");
            Vec::new()
        });
        files.into_iter().filter_map(move |(number, path)| {
            read(&path, key)
                .inspect_err(|error| tracing::warn!(%error, number, "a saved configuration is skipped"))
                .ok()
        })
    }

    /// Notes when the control plane was last heard of, in unix microseconds.
    ///
    /// # Errors
    /// It was not noted; the age of the configuration is overstated after a
    /// restart.
    pub fn note_contact(&self, micros: i64) -> Result<(), CacheError> {
        self.write(&self.dir.join(CONTACT), micros.to_string().as_bytes()).map_err(io("note the last contact"))
    }

    /// What [`Self::note_contact`] noted; `None` when there is nothing.
    #[must_use]
    pub fn last_contact(&self) -> Option<i64> {
        fs::read_to_string(self.dir.join(CONTACT)).ok()?.trim().parse().ok()
    }

    /// Saves how keys stand, in place of what was saved before. Blocks on the disk.
    ///
    /// # Errors
    /// It was not saved.
    pub fn store_keys(&self, key: &SealingKey, known: &[u8]) -> Result<(), CacheError> {
        let sealed = key.seal(known, KEYS_AAD)?;
        self.write(&self.dir.join(KEYS), &sealed.to_bytes()).map_err(io("write how keys stand"))
    }

    /// What [`Self::store_keys`] saved; `None` when there is nothing, or nothing
    /// that opens. Blocks on the disk.
    #[must_use]
    pub fn keys(&self, key: &SealingKey) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.dir.join(KEYS);
        if !path.exists() {
            return None;
        }
        let opened = || -> Result<_, CacheError> {
            if fs::metadata(&path).map_err(io("read how keys stood"))?.len() > MAX_KEYS {
                return Err(CacheError::Damaged("how keys stood: the file is too large"));
            }
            let bytes = fs::read(&path).map_err(io("read how keys stood"))?;
            Ok(key.open(&Sealed::from_bytes(&bytes)?, KEYS_AAD)?)
        };
        opened().inspect_err(|error| tracing::warn!(%error, "how keys stood is not known")).ok()
    }

    /// Newest first.
    fn files(&self) -> Result<Vec<(u64, PathBuf)>, CacheError> {
        let list = || -> io::Result<Vec<(u64, PathBuf)>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
                if let Some(number) = number.filter(|_| path.extension().is_some_and(|end| end == EXTENSION)) {
                    files.push((number, path));
                }
            }
            files.sort_unstable_by(|a, b| b.cmp(a));
            Ok(files)
        };
        list().map_err(io("list the files"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let next = path.with_extension("tmp");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn read(path: &Path, key: &SealingKey) -> Result<Saved, CacheError> {
    let length = fs::metadata(path).map_err(io("read a file"))?.len();
    if length > MAX_FILE {
        return Err(CacheError::Damaged("the file is too large"));
    }
    let bytes = fs::read(path).map_err(io("read a file"))?;
    let sealed = bytes.strip_prefix(HEAD).ok_or(CacheError::Damaged("not a file of this format version"))?;
    let plain = key.open(&Sealed::from_bytes(sealed)?, AAD)?;
    let update = Update::decode(plain.as_slice()).map_err(|_| CacheError::Damaged("not a configuration"))?;
    let version = update.version.ok_or(CacheError::Damaged("no version"))?;
    let mut content = Content::default();
    for resource in update.upserts {
        content.upsert(resource).map_err(|_| CacheError::Damaged("a resource of an unknown kind"))?;
    }
    if content.hash() != version.hash {
        return Err(CacheError::Damaged("the content does not have its hash"));
    }
    let secrets = update.secrets.into_iter().map(|secret| (secret.key_id.clone(), secret)).collect();
    Ok(Saved { content, secrets, version })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clawgate_shared::proto::node::{Resource, Tenant, resource::Body};

    use super::*;

    fn saved(revision: u64) -> Saved {
        let mut content = Content::default();
        let tenant = Tenant { slug: format!("canary-{revision}"), ..Tenant::default() };
        content.upsert(Resource { id: "ten_1".into(), body: Some(Body::Tenant(tenant)) }).expect("known kind");
        let secret = SealedSecret { key_id: "key_1".into(), ciphertext: b"sealed".to_vec(), ..SealedSecret::default() };
        let version = Version { generation: 1, revision, hash: content.hash() };
        Saved { content, secrets: HashMap::from([("key_1".into(), secret)]), version }
    }

    fn revisions(cache: &Cache, key: &SealingKey) -> Vec<u64> {
        cache.load(key).map(|saved| saved.version.revision).collect()
    }

    #[test]
    fn the_newest_three_are_kept_and_come_back_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let key = SealingKey::generate().expect("random");
        let cache = Cache::open(&dir.path().join("config")).expect("opens");
        assert!(revisions(&cache, &key).is_empty());
        for revision in 1..=5 {
            cache.store(&key, &saved(revision)).expect("stores");
        }
        assert_eq!(revisions(&cache, &key), [5, 4, 3]);
        let newest = cache.load(&key).next().expect("one");
        assert_eq!(newest.secrets, saved(5).secrets);
        assert_eq!(newest.content.hash(), saved(5).content.hash());
        for entry in fs::read_dir(&cache.dir).expect("lists") {
            let path = entry.expect("entry").path();
            assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
            let bytes = fs::read(&path).expect("reads");
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "a configuration lies open on disk");
        }
        assert_eq!(fs::metadata(&cache.dir).expect("metadata").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn damaged_and_foreign_files_are_skipped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let key = SealingKey::generate().expect("random");
        let cache = Cache::open(dir.path()).expect("opens");
        for revision in 1..=3 {
            cache.store(&key, &saved(revision)).expect("stores");
        }
        assert!(revisions(&cache, &SealingKey::generate().expect("random")).is_empty());
        let files = cache.files().expect("lists");
        let mut bytes = fs::read(&files[0].1).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&files[0].1, &bytes).expect("writes");
        assert_eq!(revisions(&cache, &key), [2, 1]);
        fs::write(&files[1].1, &fs::read(&files[1].1).expect("reads")[..20]).expect("writes");
        assert_eq!(revisions(&cache, &key), [1]);
        // The next one is newer than the damaged ones and is found first.
        cache.store(&key, &saved(9)).expect("stores");
        assert_eq!(revisions(&cache, &key).first(), Some(&9));
    }

    #[test]
    fn how_keys_stand_is_kept_sealed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (key, other) = (SealingKey::generate().expect("random"), SealingKey::generate().expect("random"));
        let cache = Cache::open(dir.path()).expect("opens");
        assert!(cache.keys(&key).is_none());
        for known in [b"canary 1".as_slice(), b"canary 2"] {
            cache.store_keys(&key, known).expect("stores");
            assert_eq!(cache.keys(&key).as_deref().map(Vec::as_slice), Some(known));
        }
        assert!(cache.keys(&other).is_none());
        let bytes = fs::read(dir.path().join(KEYS)).expect("reads");
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        assert!(revisions(&cache, &key).is_empty(), "it is no configuration");
    }

    #[test]
    fn the_last_contact_is_remembered() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::open(dir.path()).expect("opens");
        assert_eq!(cache.last_contact(), None);
        cache.note_contact(1_234).expect("notes");
        assert_eq!(cache.last_contact(), Some(1_234));
    }
}
