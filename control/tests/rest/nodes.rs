//! Nodes and the tokens that let them in.

use clawgate_control::store::nodes::{self, NodeRow};
use serde_json::json;

use crate::common::Control;

const NODE: &str = "node_0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_revoked_node_is_gone_for_good() {
    let control = Control::start().await;
    let db = control.db().await;
    let mut tx = db.begin().await.expect("transaction");
    let row = NodeRow { id: NODE.into(), sealed_sealing_key: vec![1; 60], ..NodeRow::default() };
    nodes::save_identity(&mut tx, &row, 1).await.expect("saves");
    tx.commit().await.expect("commits");

    let path = format!("/nodes/{NODE}");
    assert_eq!(control.get(&path).await["id"], NODE);
    control.call("GET", "/nodes/node_x").send().await.problem(404, "not_found");
    let viewer = control.create("/api-tokens", json!({"name": "v", "role": "viewer"})).await;
    let viewer = viewer["token"].as_str().expect("token");
    control.as_token(viewer, "DELETE", &path).send().await.problem(403, "forbidden");
    assert_eq!(control.call("DELETE", &path).send().await.status, 204);
    control.call("DELETE", &path).send().await.problem(404, "not_found");
    control.call("GET", &path).send().await.problem(404, "not_found");
    assert_eq!(control.get("/nodes").await["total"], 0);
    let stored = nodes::find(&mut db.read().await.expect("reads"), NODE).await.expect("reads").expect("kept");
    assert!(stored.revoked_at.is_some(), "its id is never free again");
    db.close().await;

    let rows = control.get("/audit?action=node.revoke").await;
    assert_eq!((&rows["data"][0]["resource_id"], rows["data"].as_array().map(Vec::len)), (&json!(NODE), Some(1)));
    control.stop().await;
}

#[tokio::test]
async fn an_enrolment_token_is_shown_once_and_audited() {
    let control = Control::start().await;
    let token = control.create("/nodes/enroll-tokens", json!({})).await;
    let text = token["token"].as_str().expect("token").to_owned();
    assert!(text.starts_with("cge1_"));
    let repeat = || control.call("POST", "/nodes/enroll-tokens").header("idempotency-key", "one").json(&json!({}));
    let (first, second) = (repeat().send().await.ok(201), repeat().send().await.ok(201));
    assert_eq!(first, second);
    let rows = control.call("GET", "/audit?action=enroll_token.create").send().await;
    assert_eq!(rows.ok(200)["data"].as_array().map(Vec::len), Some(2), "{}", rows.text);
    assert!(!rows.text.contains(&text));
    assert_eq!(rows.json()["data"][1]["resource_id"], token["id"]);
    control.stop().await;
}
