//! Request bodies: flags over a JSON file.
//!
//! Flags cover what people set by hand; `--json FILE` covers the whole schema,
//! and a flag wins over the same field of the file.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// Largest body read from a file.
const LIMIT: u64 = 4 * 1024 * 1024;

/// The JSON part of a create or update.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct JsonArg {
    /// JSON object with the fields (`-`: stdin); flags win over it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A JSON array in a file.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct JsonListArg {
    /// JSON array with the whole set (`-`: stdin)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl JsonListArg {
    /// The array; `None`: no file was named.
    pub(crate) fn read(&self) -> Result<Option<Value>, Failure> {
        let Some(path) = &self.json else { return Ok(None) };
        match read(path)? {
            list @ Value::Array(_) => Ok(Some(list)),
            _ => Err(Failure::Usage(format!("{} is not a JSON array", path.display()))),
        }
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LIMIT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::failed(&format!("reading {}", path.display()), e))?;
    // The parser's message names line and column and quotes nothing.
    serde_json::from_str(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// A body under construction.
#[derive(Debug, Default)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// Starts from the file, or empty.
    pub(crate) fn from_arg(arg: &JsonArg) -> Result<Self, Failure> {
        let Some(path) = &arg.json else { return Ok(Self::default()) };
        match read(path)? {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Failure::Usage(format!("{} is not a JSON object", path.display()))),
        }
    }

    /// Sets a field that was given.
    pub(crate) fn set(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Sets a list when it was given; a single empty text means the empty list.
    pub(crate) fn list(&mut self, name: &str, values: Vec<String>) -> &mut Self {
        if !values.is_empty() {
            let values = if values == [""] { Vec::new() } else { values };
            self.0.insert(name.to_owned(), values.into());
        }
        self
    }

    /// Sets an object from `name=value` pairs when any was given.
    pub(crate) fn pairs(&mut self, name: &str, pairs: Vec<(String, String)>) -> &mut Self {
        if !pairs.is_empty() {
            let object: BTreeMap<_, _> = pairs.into_iter().collect();
            self.0.insert(name.to_owned(), Value::from_iter(object));
        }
        self
    }

    /// Sets a field of an object within, when it was given.
    pub(crate) fn within(&mut self, object: &str, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            let inner = self.0.entry(object).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                inner.insert(name.to_owned(), value.into());
            }
        }
        self
    }

    /// Whether the file already gave this field.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The finished body; an update without any field is a mistake.
    pub(crate) fn for_update(self) -> Result<Value, Failure> {
        if self.0.is_empty() {
            return Err(Failure::Usage("nothing to change: give at least one field".to_owned()));
        }
        Ok(Value::Object(self.0))
    }

    /// The finished body.
    pub(crate) fn finish(self) -> Value {
        Value::Object(self.0)
    }
}

/// Parses `name=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("bot.json");
        std::fs::write(&path, r#"{"hostname":"a","tags":["x"],"fallbacks":{"m":["n"]}}"#).expect("written");
        let mut body = Body::from_arg(&JsonArg { json: Some(path) }).expect("read");
        body.set("hostname", Some("b")).list("tags", vec![String::new()]).set("name", None::<String>);
        body.pairs("labels", vec![pair("team=core").expect("pair")]);
        let expected = json!({"hostname":"b","tags":[],"fallbacks":{"m":["n"]},"labels":{"team":"core"}});
        assert_eq!(body.finish(), expected);
    }

    #[test]
    fn a_flag_sets_one_field_of_an_object_within() {
        let mut body = Body::default();
        body.within("resources", "memory_mb", Some(5)).within("resources", "cpu_millis", None::<u64>);
        body.within("resources", "disk_mb", Some(6)).within("container", "env", None::<Value>);
        assert_eq!(body.finish(), json!({"resources": {"memory_mb": 5, "disk_mb": 6}}));
    }

    #[test]
    fn an_update_needs_a_field_and_a_pair_a_name() {
        assert_eq!(Body::default().for_update().err().map(|f| f.code()), Some(2));
        assert!(pair("=x").is_err());
        assert!(pair("x").is_err());
    }
}
