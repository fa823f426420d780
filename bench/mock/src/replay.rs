//! Replaying recorded vendor responses, byte for byte.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use bytes::Bytes;
use serde::Deserialize;

use crate::answer::{Answer, Bill, Cut};

/// Most path segments a case may have below the recordings folder.
const MAX_DEPTH: usize = 4;

/// Why a case could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No folder on the path holds a `meta.json`.
    #[error("no recording is called {0:?}")]
    Missing(String),
    /// A file could not be read.
    #[error("recording {name:?}: {cause}")]
    Io {
        /// Which case.
        name: String,
        /// What the file system said.
        cause: io::Error,
    },
    /// `meta.json` is not what it should be.
    #[error("recording {name:?}: meta.json: {cause}")]
    Meta {
        /// Which case.
        name: String,
        /// What the parser said.
        cause: serde_json::Error,
    },
}

/// One recorded response.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Folder below the recordings, with `/`.
    pub name: String,
    /// HTTP status.
    pub status: u16,
    /// Content type as recorded; may be empty.
    pub content_type: String,
    /// Whether the vendor streamed it.
    pub streaming: bool,
    /// Protocol name of the recording.
    pub protocol: String,
    /// Model as served, when known.
    pub model: Option<String>,
    /// Prompt tokens the vendor reported.
    pub input_tokens: Option<u64>,
    /// Generated tokens the vendor reported.
    pub output_tokens: Option<u64>,
    /// The body, exactly.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Meta {
    status: u16,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    streaming: bool,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    expected: Expected,
}

#[derive(Default, Deserialize)]
struct Expected {
    model: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Recording {
    /// The answer that replays it.
    pub(crate) fn answer(&self) -> Answer {
        let bill = Bill { input: self.input_tokens.unwrap_or(0), output: self.output_tokens.unwrap_or(0) };
        Answer {
            status: self.status,
            content_type: self.content_type.clone(),
            headers: Vec::new(),
            body: self.body.clone(),
            cuts: vec![Cut { end: self.body.len(), tokens: bill.output }],
            chunked: self.streaming,
            bill,
        }
    }
}

/// A folder of recordings, each read once.
pub struct Replays {
    root: PathBuf,
    loaded: Mutex<HashMap<String, Arc<Recording>>>,
}

impl Replays {
    /// Nothing is read before it is asked for.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, loaded: Mutex::new(HashMap::new()) }
    }

    /// The case a path begins with: `openai/x/v1/chat/completions` is the case
    /// `openai/x`.
    ///
    /// # Errors
    /// No such case, or its files are damaged.
    pub fn find(&self, path: &str) -> Result<Arc<Recording>, ReplayError> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        for depth in 1..=segments.len().min(MAX_DEPTH) {
            let name = segments.get(..depth).unwrap_or_default().join("/");
            if let Some(known) = self.lock().get(&name) {
                return Ok(Arc::clone(known));
            }
            let relative = Path::new(&name);
            if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
                break;
            }
            let folder = self.root.join(relative);
            if folder.join("meta.json").is_file() {
                let recording = Arc::new(load(&folder, &name)?);
                self.lock().insert(name, Arc::clone(&recording));
                return Ok(recording);
            }
        }
        Err(ReplayError::Missing(path.to_owned()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Recording>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(folder: &Path, name: &str) -> Result<Recording, ReplayError> {
    let read =
        |file: &str| fs::read(folder.join(file)).map_err(|cause| ReplayError::Io { name: name.to_owned(), cause });
    let meta: Meta = serde_json::from_slice(&read("meta.json")?)
        .map_err(|cause| ReplayError::Meta { name: name.to_owned(), cause })?;
    Ok(Recording {
        name: name.to_owned(),
        status: meta.status,
        content_type: meta.content_type,
        streaming: meta.streaming,
        protocol: meta.protocol,
        model: meta.expected.model,
        input_tokens: meta.expected.input_tokens,
        output_tokens: meta.expected.output_tokens,
        body: read("response.body")?.into(),
    })
}
