//! Names: directories in directories, what of them is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::disk::OpenMode;
use super::super::lock;
use super::faults::Random;
use super::file::{Data, opened};

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing: the cruellest disk.
    Synced,
    /// Any part of it: each sector and each name by the seed, as a disk does
    /// that was just writing back.
    Random,
}

#[derive(Clone, Debug)]
enum Node {
    File(Arc<Mutex<Data>>),
    Dir(Arc<Mutex<Dir>>),
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

/// Everything on the disk.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Arc<Mutex<Dir>>,
}

impl Tree {
    fn dir(&self, path: &Path) -> io::Result<Arc<Mutex<Dir>>> {
        let mut at = self.root.clone();
        for name in names(path) {
            let next = match lock(&at).names.get(name) {
                Some(Node::Dir(dir)) => dir.clone(),
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
            at = next;
        }
        Ok(at)
    }

    /// The directory something is in, and its name there.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(Arc<Mutex<Dir>>, &'a str)> {
        let name = names(path).last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut at = self.root.clone();
        for name in names(path) {
            let node = lock(&at).names.entry(name.to_owned()).or_insert_with(|| Node::Dir(Arc::default())).clone();
            let Node::Dir(next) = node else { return Err(io::ErrorKind::AlreadyExists.into()) };
            at = next;
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.dir(path)?;
        let names = lock(&dir).names.keys().cloned().collect();
        Ok(names)
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.place(path).is_ok_and(|(dir, name)| lock(&dir).names.contains_key(name))
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Data>>> {
        self.open(path, OpenMode::Existing)
    }

    pub(super) fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<Mutex<Data>>> {
        let (dir, name) = self.place(path)?;
        let names = &mut lock(&dir).names;
        match names.get(name) {
            Some(Node::File(file)) => Ok(opened(file, mode)),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None if mode == OpenMode::Existing => Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = Arc::new(Mutex::new(Data::default()));
                names.insert(name.to_owned(), Node::File(file.clone()));
                Ok(file)
            }
        }
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let gone = lock(&dir).names.remove(name);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old_dir, old) = self.place(from)?;
        let (new_dir, new) = self.place(to)?;
        let node = lock(&old_dir).names.remove(old).ok_or(io::ErrorKind::NotFound)?;
        lock(&new_dir).names.insert(new.to_owned(), node);
        Ok(())
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let mut dir = lock(&dir);
        dir.durable = dir.names.clone();
        Ok(())
    }

    /// Every file with its path, in the order of the names.
    pub(super) fn files(&self) -> Vec<(PathBuf, Arc<Mutex<Data>>)> {
        let mut files = Vec::new();
        gather(&self.root, Path::new("/"), &mut files);
        files
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> u64 {
        self.files().iter().map(|(_, file)| lock(file).bytes().len() as u64).sum()
    }

    pub(super) fn plant(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let file = Node::File(Arc::new(Mutex::new(Data::durable(bytes))));
        let mut dir = lock(&dir);
        dir.names.insert(name.to_owned(), file.clone());
        dir.durable.insert(name.to_owned(), file);
        Ok(())
    }

    /// The same names and bytes, all of them durable.
    pub(super) fn copy(&self) -> Self {
        Self { root: copy(&self.root) }
    }

    pub(super) fn power_cut(&self, survival: Survival, random: &mut Random) {
        power_cut(&self.root, survival, random);
    }
}

/// The names on the way to `path`; one that is no text is left out.
fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None })
}

fn gather(dir: &Mutex<Dir>, path: &Path, files: &mut Vec<(PathBuf, Arc<Mutex<Data>>)>) {
    for (name, node) in &lock(dir).names {
        match node {
            Node::File(file) => files.push((path.join(name), file.clone())),
            Node::Dir(dir) => gather(dir, &path.join(name), files),
        }
    }
}

fn copy(dir: &Mutex<Dir>) -> Arc<Mutex<Dir>> {
    let copied = |node: &Node| match node {
        Node::File(file) => Node::File(Arc::new(Mutex::new(Data::durable(lock(file).bytes().to_vec())))),
        Node::Dir(dir) => Node::Dir(copy(dir)),
    };
    let names: BTreeMap<String, Node> =
        lock(dir).names.iter().map(|(name, node)| (name.clone(), copied(node))).collect();
    Arc::new(Mutex::new(Dir { durable: names.clone(), names }))
}

fn power_cut(dir: &Mutex<Dir>, survival: Survival, random: &mut Random) {
    let mut dir = lock(dir);
    let all: BTreeSet<String> = dir.names.keys().chain(dir.durable.keys()).cloned().collect();
    let mut kept = BTreeMap::new();
    for name in all {
        let written_back = survival == Survival::Random && random.coin();
        let node = if written_back { dir.names.get(&name) } else { dir.durable.get(&name) };
        if let Some(node) = node {
            match node {
                Node::File(file) => lock(file).power_cut(survival, random),
                Node::Dir(dir) => power_cut(dir, survival, random),
            }
            kept.insert(name, node.clone());
        }
    }
    dir.names = kept.clone();
    dir.durable = kept;
}
