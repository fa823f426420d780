//! The image: built without a registry, not root, read-only, and the main job
//! passes through it.

use std::time::Duration;

use clawgate_tests::config::{binary, missing, root};
use clawgate_tests::engine::Engine;
use clawgate_tests::http::call;
use clawgate_tests::stack::chat_request;
use clawgate_tests::wait::{until, until_good};
use serde_json::Value;

const TAG: &str = "clawgate:of-the-test";

/// A container that goes when the test does.
struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.engine.run("docker", &["logs", &self.name]));
        }
        self.engine.remove(&self.name);
    }
}

#[test]
fn the_main_job_passes_through_the_image() {
    let folder = tempfile::Builder::new().prefix("clawgate-image-").tempdir().expect("a folder");
    let Some(engine) = Engine::start(folder.path()) else { return missing("a Docker engine") };
    let script = root().join("deploy/build-image.sh").display().to_string();
    let build = engine.spec(&script, &[TAG]).env("CLAWGATE_BINARY", &binary("clawgate").display().to_string());
    let _built = build.run().success();
    let user = engine.run("docker", &["image", "inspect", "--format", "{{.Config.User}}", TAG]).success();
    assert!(user.trim().starts_with("65532"), "the image runs as {user:?}");

    let name = format!("clawgate-test-{}", std::process::id());
    let container = Container { engine: &engine, name: name.clone() };
    let volume = format!("{name}:/data");
    let mut arguments = vec!["run", "--detach", "--name", &name, "--network", "host", "--read-only"];
    arguments.extend(["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]);
    arguments.extend(["--volume", &volume, TAG, "up", "--demo"]);
    for flag in ["--listen", "--console-listen", "--admin-listen", "--control-admin-listen"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    let _id = engine.run("docker", &arguments).success();
    let log = until("`ready` in the container", Duration::from_secs(30), || {
        let log = engine.run("docker", &["logs", &name]).success();
        log.lines().any(|line| line == "ready").then_some(log)
    });
    let data = log.lines().find_map(|line| line.strip_prefix("data plane")).map(|rest| rest.trim());
    let data = data.and_then(|url| url.strip_prefix("http://")).and_then(|a| a.parse().ok());
    let data = data.unwrap_or_else(|| panic!("no data plane in {log}"));
    let token = folder.path().join("demo.token");
    let inside = format!("{name}:/data/demo.token");
    let _copied = engine.run("docker", &["cp", &inside, &token.display().to_string()]).success();
    let token = std::fs::read_to_string(token).expect("the demo token");

    let answer = call(data, &chat_request(token.trim()));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    until_good(
        "its tokens",
        Duration::from_secs(5),
        || {
            let verb = ["exec", &name, "clawgate", "usage", "stats", "--bot", "demo", "--output", "json"];
            serde_json::from_str::<Value>(&engine.run("docker", &verb).success()).unwrap_or_default()
        },
        |stats| stats["requestCount"] == 1 && stats["totalTokens"].as_u64().is_some_and(|n| n > 0),
    );
    let _stopped = engine.run("docker", &["stop", "--time", "10", &name]).success();
    let code = engine.run("docker", &["inspect", "--format", "{{.State.ExitCode}}", &name]).success();
    assert_eq!(code.trim(), "0", "the container did not end well");
    drop(container);
    let _removed = engine.run("docker", &["volume", "rm", "--force", &name]);
    let _removed = engine.run("docker", &["image", "rm", "--force", TAG]);
}
