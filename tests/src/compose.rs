//! A compose program against an engine, one project at a time.

use std::path::Path;
use std::time::Duration;

use crate::config::root;
use crate::engine::Engine;
use crate::process::{Finished, Spec};
use crate::wait::until;

/// How long a project may take until every service is healthy or gone.
const LIMIT: Duration = Duration::from_secs(180);

/// A project made of `deploy/docker-compose.yml`; it goes with this value,
/// volumes included.
#[derive(Debug)]
pub struct Project<'a> {
    engine: &'a Engine,
    /// The program and what stands before its verb.
    program: Vec<String>,
    /// Its name, first part of the names of its networks and volumes.
    pub name: String,
    environment: Vec<(String, String)>,
}

/// The compose program: the engine's plugin, else the older one.
#[must_use]
pub fn program(engine: &Engine) -> Option<Vec<String>> {
    let plugin = engine.run("docker", &["compose", "version"]);
    if plugin.status.success() && plugin.stdout.contains("ompose") {
        return Some(vec!["docker".into(), "compose".into()]);
    }
    crate::config::installed("docker-compose").map(|path| vec![path.display().to_string()])
}

impl<'a> Project<'a> {
    /// A project with these variables; nothing runs yet.
    #[must_use]
    pub fn new(engine: &'a Engine, program: Vec<String>, name: &str, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        Self { engine, program, name: name.to_owned(), environment }
    }

    fn spec(&self, verb: &[&str]) -> Spec {
        let file = root().join("deploy/docker-compose.yml").display().to_string();
        let mut arguments: Vec<&str> = self.program.iter().skip(1).map(String::as_str).collect();
        arguments.extend(["-p", &self.name, "-f", &file]);
        arguments.extend(verb);
        let mut spec = self.engine.spec(&self.program[0], &arguments);
        "compose".clone_into(&mut spec.name);
        spec.environment.extend(self.environment.iter().cloned());
        spec
    }

    /// Starts everything and waits until every service is healthy.
    ///
    /// # Panics
    /// It does not become so.
    pub fn up(&self) {
        let mut process = self.spec(&["up", "-d"]).start();
        let status = until("`compose up -d`", LIMIT, || process.ended());
        assert!(status.success(), "compose up: {}", process.log());
        for service in ["database", "control", "proxy"] {
            until(&format!("{service} to be healthy"), LIMIT, || {
                let state = self.inspect(service, "{{.State.Status}} {{.State.Health.Status}}");
                (state == "running healthy").then_some(())
            });
        }
    }

    /// Runs a verb to its end.
    #[must_use]
    pub fn run(&self, verb: &[&str]) -> Finished {
        self.spec(verb).run()
    }

    /// The id of a service's container, running or not.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        let of = format!("label=com.docker.compose.project={}", self.name);
        let which = format!("label=com.docker.compose.service={service}");
        let list = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &of, "--filter", &which];
        let id = self.engine.run("docker", &list).success().trim().to_owned();
        assert!(id.len() == 64, "no container, or more than one, of {service}: {id:?}");
        id
    }

    /// What the engine says of a service's container.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn inspect(&self, service: &str, format: &str) -> String {
        let id = self.container(service);
        self.engine.run("docker", &["inspect", "--format", format, &id]).success().trim().to_owned()
    }

    /// A program in a service's container.
    #[must_use]
    pub fn exec(&self, service: &str, arguments: &[&str]) -> Finished {
        self.run(&[&["exec", "-T", service], arguments].concat())
    }

    /// Copies a file out of a service's container.
    ///
    /// # Panics
    /// It is not there.
    #[must_use]
    pub fn read(&self, service: &str, path: &str, folder: &Path) -> String {
        let (from, to) = (format!("{}:{path}", self.container(service)), folder.join("copied"));
        let _copied = self.engine.run("docker", &["cp", &from, &to.display().to_string()]).success();
        std::fs::read_to_string(to).expect("the copy")
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.run(&["logs", "--no-color"]);
            eprintln!("----- logs of {} -----\n{}{}\n-----", self.name, logs.stdout, logs.stderr);
        }
        let _gone = self.run(&["down", "--volumes", "--timeout", "10"]);
    }
}
