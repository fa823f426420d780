//! The control plane is away when a node starts.

use std::time::{Duration, Instant};

use clawgate_tests::http::{Request, call};
use clawgate_tests::stack::{Service, Stack, chat_request, enroll};
use clawgate_tests::wait::{until, until_good};
use serde_json::json;

#[test]
fn with_a_last_known_good_the_node_serves_at_once_and_catches_up() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-away", "worker");
    assert_eq!(stack.chat(&bot).status(), 200);
    let _rows = stack.rest().usage_rows("worker", 1);
    stack.control.kill();
    stack.node.kill();

    let start = Instant::now();
    stack.node.start();
    let answer = until("the first answer", Duration::from_secs(5), || {
        let answer = stack.chat(&bot);
        (answer.status() == 200).then_some(answer)
    });
    assert!(start.elapsed() < Duration::from_secs(3), "served after {:?}", start.elapsed());
    assert!(answer.head.header("x-clawgate-config").is_some());
    for _ in 0..10 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    let metrics = call(stack.node.address("admin"), &Request::new("GET", "/metrics")).text();
    assert!(metrics.contains("clawgate_config_age_seconds"), "{metrics}");
    assert_eq!(call(stack.node.address("admin"), &Request::new("GET", "/livez")).status(), 200);

    // Everything that was served meanwhile arrives, and so does a new bot.
    stack.control.start();
    let rows = stack.rest().usage_rows("worker", 12);
    assert_eq!(rows.len(), 12, "{rows:#?}");
    let late = stack.bot("late", json!({}));
    until_good("the late bot to be served", Duration::from_secs(20), || stack.chat(&late).status(), |s| *s == 200);
}

#[test]
fn without_one_it_refuses_clearly_and_recovers_by_itself() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-away", "worker");
    let mut fresh = Service::node("fresh", stack.folder.path());
    fresh.spec.set("--private-upstreams", "127.0.0.0/8:*");
    enroll(&stack.control, &mut fresh);
    stack.control.kill();
    fresh.start();
    let refused = call(fresh.address("data"), &chat_request(&bot.token));
    assert_eq!((refused.status(), refused.code().as_str()), (503, "not_configured"), "{}", refused.text());
    let admin = fresh.address("admin");
    assert_eq!(call(admin, &Request::new("GET", "/livez")).status(), 200);
    let ready = call(admin, &Request::new("GET", "/readyz"));
    assert_eq!(ready.status(), 503, "{}", ready.text());
    assert!(ready.text().len() > 10, "says what is pending: {}", ready.text());

    stack.control.start();
    until_good(
        "service after the control plane came back",
        Duration::from_secs(30),
        || call(fresh.address("data"), &chat_request(&bot.token)).status(),
        |status| *status == 200,
    );
    assert_eq!(call(admin, &Request::new("GET", "/readyz")).status(), 200);
    fresh.terminate();
}
