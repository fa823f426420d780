//! The official Python SDKs, unmodified but for base URL and key: what they
//! make of answers through the gateway equals what they make of the mock's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clawgate_tests::config::{python, root};
use clawgate_tests::mock::assert_only_credential;
use clawgate_tests::process::Spec;
use clawgate_tests::stack::Stack;

const SECRET: &str = "sk-provider-key-of-the-sdk-scenario";

fn dumps(stack: &Stack, name: &str, roots: [&str; 3], address: SocketAddr, key: &str) -> BTreeMap<String, String> {
    let python = python().expect("checked before");
    let script = root().join("tests/sdk/dumps.py").display().to_string();
    let urls = roots.map(|root| format!("http://{address}{root}"));
    let mut spec =
        Spec::new(name, python, stack.folder.path(), &["-W", "ignore", &script, &urls[0], &urls[1], &urls[2]]);
    for vendor in ["OPENAI", "ANTHROPIC", "GOOGLE"] {
        spec = spec.env(&format!("DUMP_{vendor}_KEY"), key);
    }
    let output = spec.run().success();
    output
        .lines()
        .map(|line| {
            let dump: serde_json::Value = serde_json::from_str(line).expect("one JSON object per line");
            (dump["name"].as_str().unwrap_or_default().to_owned(), dump["dump"].to_string())
        })
        .collect()
}

#[test]
fn object_dumps_are_equal_and_only_the_provider_key_is_seen() {
    if python().is_none() {
        return;
    }
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "sdk");
    let gateway = dumps(&stack, "through", ["/v1/openai", "/v1/anthropic", "/v1/google"], stack.data(), &bot.token);
    let entries = stack.mock.entries();
    assert_only_credential(&entries, SECRET);
    assert!(!stack.mock.ledger_text().contains(&bot.token), "the bot token reached the vendor");
    let direct = dumps(&stack, "direct", ["/v1", "", ""], stack.mock.address, SECRET);

    assert!(direct.len() > 20, "only {} scenarios", direct.len());
    assert_eq!(gateway.keys().collect::<Vec<_>>(), direct.keys().collect::<Vec<_>>());
    for (name, want) in &direct {
        assert_eq!(&gateway[name], want, "{name}");
    }
    let called = direct["openai_chat_tools"].contains("get_weather")
        && direct["anthropic_tools"].contains("tool_use")
        && direct["google_tools"].contains("function_call");
    assert!(called, "the mock called no tools: {direct:#?}");

    let rows = stack.rest().usage_rows("sdk", entries.len());
    assert_eq!(rows.len(), entries.len(), "{rows:#?}");
}
