//! `clawgate up` in a folder of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::config::binary;
use crate::process::{Process, Spec};
use crate::rest::Rest;
use crate::wait::until;

/// How long a start may take here; the product's own limit has its own test.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A supervisor with its children.
#[derive(Debug)]
pub struct Up {
    /// The supervisor.
    pub process: Process,
    /// How it was started.
    pub spec: Spec,
    /// Its data directory.
    pub data: PathBuf,
}

impl Up {
    /// `up --demo` with every listener on port 0 and the data directory
    /// `folder/data`.
    #[must_use]
    pub fn demo(folder: &Path) -> Self {
        let data = folder.join("data");
        let mut spec = Spec::new("up", binary("clawgate"), folder, &["up", "--demo"]);
        spec.set("--data-dir", &data.display().to_string());
        for flag in ["--listen", "--console-listen", "--admin-listen", "--control-admin-listen"] {
            spec.set(flag, "127.0.0.1:0");
        }
        Self::start(spec, data)
    }

    /// Starts it and waits for its `ready`.
    ///
    /// # Panics
    /// It ends or stays silent.
    #[must_use]
    pub fn start(spec: Spec, data: PathBuf) -> Self {
        let before = std::fs::read_to_string(spec.log()).unwrap_or_default().len();
        let mut process = spec.start();
        until("`ready`", START_LIMIT, || {
            assert!(process.ended().is_none(), "up ended: {}", process.log());
            process.log()[before..].lines().any(|line| line == "ready").then_some(())
        });
        Self { process, spec, data }
    }

    /// What it printed before `ready`, last start only.
    #[must_use]
    pub fn announced(&self) -> Vec<String> {
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.iter().rposition(|line| *line == "ready").unwrap_or_default();
        let start = lines[..end].iter().rposition(|line| *line == "ready").map_or(0, |at| at + 1);
        lines[start..end].iter().map(|&line| line.to_owned()).collect()
    }

    /// The curl line that can be pasted: from the line that begins with `curl`
    /// to the end of the announcement.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn curl_line(&self) -> String {
        let lines = self.announced();
        let at = lines.iter().position(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("{lines:#?}"));
        lines[at..].join("\n")
    }

    /// A child's process id.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.data.join("run").join(format!("{name}.pid"))).ok()?;
        text.trim().parse().ok()
    }

    /// Runs another subcommand against the same data directory.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> crate::process::Finished {
        let mut spec = self.spec.clone();
        spec.name = "verb".to_owned();
        spec.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        spec.set("--data-dir", &self.data.display().to_string());
        spec.run()
    }

    /// An administrator with the bootstrap token.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn rest(&self) -> Rest {
        let token = std::fs::read_to_string(self.data.join("admin.token")).expect("bootstrap token");
        let text = std::fs::read(self.data.join("run/control.json")).expect("control.json");
        let addresses: Value = serde_json::from_slice(&text).expect("JSON");
        let address = addresses["console"].as_str().and_then(|a| a.parse().ok());
        Rest { address: address.unwrap_or_else(|| panic!("{addresses}")), token: token.trim().to_owned() }
    }
}

/// Runs shell text in `folder`, as if pasted.
#[must_use]
pub fn paste(folder: &Path, text: &str) -> crate::process::Finished {
    Spec::new("paste", "/bin/bash".into(), folder, &["-c", text]).run()
}
