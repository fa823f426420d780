//! Bots that we run, as REST shows them, without a runner.

use std::time::Duration;

use clawgate_control::store::{containers, runners};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::common::Control;

fn boxed(hostname: &str) -> Value {
    json!({"hostname": hostname, "adapter": "generic", "image": "ghcr.io/acme/bot:1"})
}

#[tokio::test]
async fn a_bot_that_we_run_lives_without_a_runner_as_far_as_it_can() {
    let control = Control::start().await;
    let mut body = boxed("box");
    body["container"] = json!({"command": ["serve"], "env": {"A": "{{bot_token}}"}, "state_path": "/state"});
    body["resources"] = json!({"memory_mb": 256});
    let bot = control.create("/bots", body).await;
    assert_eq!((bot["desired_state"].as_str(), bot["status"].as_str()), (Some("running"), Some("pending")));
    assert!(bot["token"].as_str().expect("token").starts_with("cgb_"));
    let container = &bot["container"];
    assert_eq!(
        (&container["generation"], &container["memory_mb"], &container["cpu_millis"], &container["runner_id"]),
        (&json!(1), &json!(256), &json!(1000), &Value::Null)
    );
    assert_eq!(container["spec"]["command"], json!(["serve"]));
    // The token that goes in is good in the bot's own network, and shown nowhere.
    let tokens = control.get("/bots/box/tokens").await;
    let names: Vec<&str> = tokens["data"].as_array().expect("data").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["default", "container"]);

    let told = loop {
        let bot = control.get("/bots/box").await;
        if bot["container"]["reason_code"] == "no_runner" {
            break bot;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(told["status"], "pending");
    for (verb, desired, status) in
        [("stop", "stopped", "stopped"), ("start", "running", "pending"), ("suspend", "suspended", "suspended")]
    {
        let bot = control.call("POST", &format!("/bots/box/{verb}")).send().await.ok(200);
        assert_eq!(bot["desired_state"], desired, "{verb}");
        while control.get("/bots/box").await["status"] != status {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(control.call("POST", "/bots/box/resume").send().await.ok(200)["desired_state"], "running");
    let history = control.get("/bots/box/status-history").await;
    assert!(history["data"].as_array().expect("data").len() >= 3, "{history}");
    assert_eq!(control.get("/bots/box/events").await["data"], history["data"]);
    let diagnostics = control.get("/bots/box/diagnostics").await;
    assert_eq!((diagnostics["runner"].as_str(), &diagnostics["container_seen"]), (Some("not_placed"), &json!(false)));
    assert_eq!(control.get("/bots/box/logs?tail=5").await["lines"], json!([]));
    control.call("GET", "/bots/box/logs?tail=0").send().await.problem(400, "invalid_parameter");
    assert_eq!(control.get("/bots/box/metrics").await["data_points"], json!([]));
    assert_eq!(control.get("/bots/stats").await["total"], 1);
    let changed = control.call("PATCH", "/bots/box").json(&json!({"image": "ghcr.io/acme/bot:2"})).send().await.ok(200);
    assert_eq!(changed["container"]["generation"], 2);
    let rotated = control.call("POST", "/bots/box/token").send().await.ok(201);
    assert_eq!(rotated["name"], "rotated");
    assert_eq!(control.get("/bots/box").await["container"]["generation"], 3);
    let killed = control.call("POST", "/bots/box/kill").send().await.ok(200);
    assert_eq!(killed["desired_state"], "stopped");
    // A start gives it a token again.
    control.call("POST", "/bots/box/start").send().await.ok(200);
    assert_eq!(control.get("/bots/box").await["container"]["generation"], 4);
    assert_eq!(control.call("DELETE", "/bots/box").send().await.status, 204);
    control.stop().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_field_by_field() {
    let control = Control::start().await;
    let refused = async |body: Value, wanted: &[(&str, &str)]| {
        control.call("POST", "/bots").json(&body).send().await.refuses(wanted);
    };
    refused(json!({"hostname": "b", "adapter": "generic"}), &[("image", "required")]).await;
    refused(
        json!({"hostname": "b", "image": "x", "container": {}}),
        &[("container", "not_allowed"), ("image", "not_allowed")],
    )
    .await;
    refused(json!({"hostname": "b", "adapter": "openclaw", "image": "x"}), &[("adapter", "not_allowed")]).await;
    let mut body = boxed("b");
    body["image"] = json!("--privileged");
    body["container"] = json!({"env": {"CLAWGATE_X": "1"}, "user": "0", "state_path": "/proc/x"});
    let fields = [
        ("container.env.CLAWGATE_X", "reserved"),
        ("container.state_path", "not_allowed"),
        ("container.user", "format"),
        ("image", "format"),
    ];
    refused(body, &fields).await;
    let mut body = boxed("b");
    body["container"] = json!({"privileged": true});
    refused(body, &[("container", "type")]).await;
    control.create("/bots", json!({"hostname": "out"})).await;
    for path in ["events", "status-history", "logs", "metrics", "diagnostics"] {
        control.call("GET", &format!("/bots/out/{path}")).send().await.problem(409, "not_run_by_us");
    }
    control.stop().await;
}

#[tokio::test]
async fn a_tenants_resources_are_limited() {
    let control = Control::start().await;
    let quota = json!({"bots": 2, "memory_mb": 600, "cpu_millis": null, "disk_mb": null});
    let set = control.call("PUT", "/tenants/default/resource-quota").json(&quota).send().await.ok(200);
    assert_eq!((&set["memory_mb"], &set["used"]["bots"]), (&json!(600), &json!(0)));
    control.create("/bots", boxed("a")).await;
    control.call("POST", "/bots").json(&boxed("b")).send().await.problem(409, "limit_reached");
    control.create("/bots", json!({"hostname": "c"})).await;
    control.call("POST", "/bots").json(&json!({"hostname": "d"})).send().await.problem(409, "limit_reached");
    let grow = json!({"resources": {"memory_mb": 601}});
    control.call("PATCH", "/bots/a").json(&grow).send().await.problem(409, "limit_reached");
    control.call("PATCH", "/bots/a").json(&json!({"resources": {"memory_mb": 600}})).send().await.ok(200);
    let read = control.get("/tenants/default/resource-quota").await;
    assert_eq!((&read["used"]["memory_mb"], &read["used"]["bots"]), (&json!(600), &json!(2)));
    let disk = json!({"disk_mb": 100});
    control.call("PUT", "/tenants/default/resource-quota").json(&disk).send().await.ok(200);
    control.call("POST", "/bots").json(&boxed("e")).send().await.refuses(&[("resources.disk_mb", "required")]);
    let rows = control.get("/audit?action=tenant.resource_quota").await;
    assert_eq!(rows["data"].as_array().expect("data").len(), 2);
    control.stop().await;
}

#[tokio::test]
async fn runners_and_what_is_out_of_place_are_for_operators() {
    let control = Control::start().await;
    let minted = control.call("POST", "/runners/enroll-tokens").send().await.ok(201);
    assert!(minted["token"].as_str().expect("token").starts_with("cge1_"));
    let viewer = control.create("/api-tokens", json!({"name": "v", "role": "viewer"})).await;
    let viewer = viewer["token"].as_str().expect("token").to_owned();
    for (method, path) in [
        ("GET", "/runners"),
        ("POST", "/runners/enroll-tokens"),
        ("GET", "/diagnostics/orphans"),
        ("POST", "/diagnostics/cleanup"),
    ] {
        control.as_token(&viewer, method, path).send().await.problem(403, "forbidden");
    }
    control.create("/bots", boxed("box")).await;
    let db = control.db().await;
    let mut tx = db.begin().await.expect("begins");
    runners::save_identity(&mut tx, "run_1", (None, None), "0.1.0", 1).await.expect("saves");
    let bot = control.get("/bots/box").await;
    let id = bot["id"].as_str().expect("id");
    assert!(containers::place(&mut tx, id, "run_1").await.expect("places"));
    tx.commit().await.expect("commits");
    let listed = control.get("/runners").await;
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["connected"]), (&json!("run_1"), &json!(false)));
    assert_eq!(control.get("/runners/run_1").await["state"], "unknown");
    assert_eq!(control.get("/diagnostics/orphans").await["data"], json!([]));
    assert_eq!(control.call("DELETE", "/runners/run_1").send().await.status, 204);
    control.call("DELETE", "/runners/run_1").send().await.problem(404, "not_found");
    control.call("GET", "/runners/run_1").send().await.problem(404, "not_found");
    let found = control.raw("GET", "/api/bot/admin/orphans");
    let found = found.header("authorization", &format!("Bearer {}", control.token)).send().await.ok(200);
    assert_eq!(
        (&found["data"][0]["kind"], &found["data"][0]["hostname"]),
        (&json!("bot_without_runner"), &json!("box"))
    );
    let cleared = control.call("POST", "/diagnostics/cleanup").send().await.ok(200);
    assert_eq!(cleared["data"][0]["outcome"], "displaced");
    assert_eq!(control.get("/bots/box").await["container"]["runner_id"], Value::Null);
    control.stop().await;
}

#[tokio::test]
async fn who_watches_is_told_of_its_own_bots_and_goes_on_where_it_broke() {
    let control = Control::start().await;
    let bearer = format!("Bearer {}", control.token);
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let watch = async |last: Option<&str>| {
        let mut request = http.get(format!("{}/api/v1/events", control.base)).header("authorization", &bearer);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.bytes_stream()
    };
    let next = async |stream: &mut (dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin + Send)| {
        let mut text = String::new();
        while !text.contains("\n\n") {
            let read = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
            let bytes = read.expect("in time").expect("goes on").expect("bytes");
            text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        text
    };
    let mut stream = Box::pin(watch(None).await);
    control.create("/tenants", json!({"slug": "other"})).await;
    let call = control.call("POST", "/bots").header("x-clawgate-tenant", "other").json(&boxed("theirs"));
    call.send().await.ok(201);
    control.create("/bots", boxed("box")).await;
    let first = next(&mut stream).await;
    assert!(first.contains("event: bot-status") && first.contains("\"hostname\":\"box\""), "{first}");
    assert!(first.contains("\"status\":\"pending\"") && !first.contains("theirs"), "{first}");
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    drop(stream);
    control.call("POST", "/bots/box/stop").send().await.ok(200);
    while control.get("/bots/box").await["status"] != "stopped" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stream = Box::pin(watch(Some(&id)).await);
    let missed = next(&mut stream).await;
    assert!(missed.contains("\"status\":\"stopped\""), "{missed}");
    let mut stream = Box::pin(watch(Some("1-1")).await);
    assert!(next(&mut stream).await.contains("event: gap"));
    drop(stream);
    control.stop().await;
}
