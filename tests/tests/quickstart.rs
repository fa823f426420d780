//! The README's quick start, executed verbatim on the default ports, and what
//! `up` promises besides.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use clawgate_tests::config::{binary, missing, root};
use clawgate_tests::process::Spec;
use clawgate_tests::up::{Up, paste};
use clawgate_tests::wait::{until, until_good};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The shell blocks of a text that follow the mark.
fn marked_blocks(text: &str) -> Vec<String> {
    text.split("<!-- quickstart -->")
        .skip(1)
        .map(|part| {
            let start = part.find("```sh\n").expect("a block after the mark") + "```sh\n".len();
            let end = part[start..].find("```").expect("the block's end");
            part[start..start + end].to_owned()
        })
        .collect()
}

/// A folder that looks like a checkout after `make run` has built.
fn like_a_checkout(folder: &Path) {
    let release = folder.join("target/release");
    std::fs::create_dir_all(&release).expect("folders");
    std::os::unix::fs::symlink(binary("clawgate"), release.join("clawgate")).expect("a link");
}

fn default_ports_are_free() -> bool {
    [8080, 8081, 8083, 8085].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

#[test]
fn the_readmes_quick_start_works_as_written() {
    if !default_ports_are_free() {
        return missing("one of the free ports 8080, 8081, 8083, 8085");
    }
    let folder = tempfile::tempdir().expect("a folder");
    like_a_checkout(folder.path());
    // What `make run` runs once it has built.
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("a Makefile");
    assert!(makefile.contains("cargo run --release --locked -- up --demo"), "{makefile}");
    let spec = Spec::new("up", binary("clawgate"), folder.path(), &["up", "--demo"]);
    let mut up = Up::start(spec.clone(), folder.path().join("clawgate-data"));

    for readme in ["README.md", "README.zh-CN.md"] {
        let text = std::fs::read_to_string(root().join(readme)).expect("a README");
        let blocks = marked_blocks(&text);
        assert_eq!(blocks.len(), 2, "{readme}: {blocks:#?}");
        let answer = paste(folder.path(), &blocks[0]).success();
        assert!(answer.contains("data: ") && answer.contains("data: [DONE]"), "{readme}: {answer}");
        let shown = until_good(
            "tokens in the statistics within 2 s",
            Duration::from_secs(2),
            || paste(folder.path(), &blocks[1]).success(),
            |text| text.chars().any(|c| c.is_ascii_digit() && c != '0'),
        );
        println!("{shown}");
    }
    // A second `make run` works too, and the first one's bot is still there.
    up.process.terminate();
    let again = Up::start(spec, folder.path().join("clawgate-data"));
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let blocks = marked_blocks(&readme);
    assert!(paste(folder.path(), &blocks[0]).success().contains("data: [DONE]"));
    drop(again);
}

#[test]
fn the_printed_curl_line_streams_and_its_tokens_show_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut up = Up::demo(folder.path());
    let token = std::fs::read_to_string(up.data.join("demo.token")).expect("the demo token");
    let said = up.announced().join("\n");
    assert!(!said.contains(token.trim()), "the token is printed: {said}");
    let admin = std::fs::read_to_string(up.data.join("admin.token")).expect("the admin token");
    assert!(!said.contains(admin.trim()), "the admin token is printed: {said}");

    let answer = paste(folder.path(), &up.curl_line()).success();
    assert!(answer.contains("data: [DONE]"), "{answer}");
    until_good(
        "tokens in the statistics within 2 s",
        Duration::from_secs(2),
        || up.run(&["usage", "stats", "--bot", "demo", "--output", "json"]).success(),
        |text| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            value["totalTokens"].as_u64().is_some_and(|n| n > 0) && value["requestCount"] == 1
        },
    );

    // A killed child comes back alone.
    for child in ["proxy", "control"] {
        let old = up.child(child).expect("a pid file");
        kill(Pid::from_raw(old), Signal::SIGKILL).expect("killed");
        until(&format!("another {child}"), Duration::from_secs(10), || up.child(child).filter(|new| *new != old));
        until("the demo to work again", Duration::from_secs(10), || {
            let answer = paste(folder.path(), &up.curl_line());
            answer.stdout.contains("data: [DONE]").then_some(())
        });
    }
    let second = up.spec.clone();
    assert!(up.process.ended().is_none());
    let stopped = up.process.terminate();
    assert!(stopped < Duration::from_secs(2), "{stopped:?}");

    // Idempotent: the same bot, the same token.
    let again = Up::start(second, up.data.clone());
    let same = std::fs::read_to_string(again.data.join("demo.token")).expect("the demo token");
    assert_eq!(same, token);
    assert!(paste(folder.path(), &again.curl_line()).success().contains("data: [DONE]"));
}

#[test]
fn nothing_outlives_a_killed_supervisor() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::demo(folder.path());
    let children: Vec<i32> = ["control", "proxy"].iter().filter_map(|c| up.child(c)).collect();
    assert_eq!(children.len(), 2);
    let (spec, data) = (up.spec.clone(), up.data.clone());
    up.process.kill();
    until("the children to end", Duration::from_secs(10), || {
        let running = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
        (!children.iter().any(running)).then_some(())
    });
    let again = Up::start(spec, data);
    assert!(paste(folder.path(), &again.curl_line()).success().contains("data: [DONE]"));
}

#[test]
fn the_demo_refuses_to_listen_to_everybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let arguments = ["up", "--demo", "--data-dir", &data, "--listen", "0.0.0.0:0"];
    Spec::new("up", binary("clawgate"), folder.path(), &arguments).run().fails_with("loopback");
}

#[test]
fn doctor_and_env_say_what_they_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::demo(folder.path());
    let _healthy = up.run(&["doctor"]).success();
    for client in [
        "openai-python",
        "openai-node",
        "anthropic",
        "ai-sdk",
        "google-genai",
        "claude-code",
        "codex",
        "openclaw",
        "curl",
    ] {
        let lines = up.run(&["env", "--bot", "demo", "--for", client]).success();
        assert!(lines.contains("CLAWGATE_BOT_TOKEN") && lines.contains("http"), "{client}: {lines}");
    }
    let unknown = up.run(&["usage", "stats", "--bot", "nosuchbot"]);
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    let usage = up.run(&["usage", "nosuchverb"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}
