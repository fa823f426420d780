//! What cannot start says why, with a stable code, ends with a failure, and
//! loses nothing.

use std::net::TcpListener;
use std::path::Path;

use clawgate_tests::config::binary;
use clawgate_tests::process::{Finished, Spec};
use clawgate_tests::stack::{Service, Stack};
use serde_json::json;

/// Runs a subcommand that must not get far.
fn clawgate(folder: &Path, arguments: &[&str]) -> Finished {
    Spec::new("attempt", binary("clawgate"), folder, arguments).run()
}

fn attempt(service: &Service, change: impl FnOnce(&mut Spec)) -> Finished {
    let mut spec = service.spec.clone();
    spec.name = "attempt".to_owned();
    change(&mut spec);
    spec.run()
}

#[test]
fn the_master_key_is_missing_or_wrong() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-sealed", "worker");
    let file = stack.control.data.join("master.key");
    let right = std::fs::read(&file).expect("a generated master key");
    stack.control.kill();

    std::fs::remove_file(&file).expect("removed");
    attempt(&stack.control, |_| {}).fails_with("master_key_missing");
    assert!(!file.exists(), "a new master key must not be made over sealed rows");
    let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7_u8; 32]);
    let with = |value: &str| {
        let pair = ("CLAWGATE_MASTER_KEY".to_owned(), value.to_owned());
        attempt(&stack.control, |spec| spec.environment.push(pair))
    };
    let wrong = with(&other);
    wrong.fails_with("master_key_wrong");
    assert!(!format!("{wrong:?}").contains(&other), "the key is in the message");
    with("too-short").fails_with("master_key_malformed");

    std::fs::write(&file, &right).expect("written");
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, open_to_all).expect("chmod");
    attempt(&stack.control, |_| {}).fails_with("master_key_unreadable");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("chmod");
    stack.control.start();
    let second = stack.bot("second", json!({}));
    assert_eq!(stack.chat(&bot).status(), 200);
    clawgate_tests::wait::until_good(
        "the node to be back",
        std::time::Duration::from_secs(20),
        || stack.chat(&second).status(),
        |status| *status == 200,
    );
}

#[test]
fn ports_and_directories_are_taken() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-start", "worker");
    let folder = stack.folder.path();

    attempt(&stack.control, |_| {}).fails_with("data_dir_in_use");
    attempt(&stack.node, |spec| spec.set("--listen", "127.0.0.1:0")).fails_with("in use");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its number").to_string();
    let fresh = Service::control("fresh", folder);
    attempt(&fresh, |spec| spec.set("--console-listen", &address)).fails_with("port_taken");
    let mut fresh_node = Service::node("fresh-node", folder);
    clawgate_tests::stack::enroll(&stack.control, &mut fresh_node);
    attempt(&fresh_node, |spec| spec.set("--listen", &address)).fails_with(&address);

    // A file where the directory should be: not writable even for root.
    let file = folder.join("a-file");
    std::fs::write(&file, "x").expect("written");
    let below = file.join("data").display().to_string();
    attempt(&fresh, |spec| spec.set("--data-dir", &below)).fails_with("data_dir_not_writable");
    attempt(&fresh_node, |spec| spec.set("--data-dir", &below)).fails_with(&below);

    assert_eq!(stack.chat(&bot).status(), 200, "the running planes do not notice");
}

#[test]
fn wrong_settings_are_all_reported_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let wrong = clawgate(
        folder.path(),
        &["control", "--data-dir", &data, "--console-listen", "nonsense", "--database-url", "mysql://x"],
    );
    wrong.fails_with("console_listen");
    wrong.fails_with("database_url");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    clawgate(folder.path(), &["control", "--nosuchflag"]).fails_with("nosuchflag");
    clawgate(folder.path(), &["nosuchcommand"]).fails_with("nosuchcommand");
}

#[test]
fn a_used_or_invented_enrolment_token_is_refused() {
    let stack = Stack::start();
    let folder = stack.folder.path();
    let token = folder.join("node.enroll");
    let mut second = Service::node("second", folder);
    second.spec.set("--control", &format!("https://{}", stack.control.address("grpc")));
    second.spec.set("--enroll-token-file", &token.display().to_string());
    second.start();
    let used = clawgate_tests::http::call(second.address("data"), &clawgate_tests::stack::chat_request("cgb_anything"));
    assert_eq!((used.status(), used.code().as_str()), (503, "not_configured"), "{}", used.text());
    let nodes = stack.rest().all("/nodes");
    assert_eq!(nodes.len(), 1, "a used token enrolled a second node: {nodes:#?}");
    second.kill();
}
