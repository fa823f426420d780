//! Nodes, their enrolment and the certificate authority.

use clawgate_control::domain::Domain;
use clawgate_control::store::enroll::{self, NewEnrollToken};
use clawgate_control::store::nodes::{self, NodeRow, NodeState, StoredVersion};
use clawgate_control::store::pki::{self, PkiRow};

pub async fn nodes_and_enrolment(domain: &Domain) {
    let mut tx = domain.db.begin().await.expect("begins");
    let authority = PkiRow { certificate_pem: "PEM".into(), sealed_key: vec![0, 1, 255] };
    pki::insert(&mut tx, "ca", &authority, 1, 2).await.expect("inserts");
    let other = PkiRow { certificate_pem: "OTHER".into(), ..authority.clone() };
    pki::insert(&mut tx, "ca", &other, 1, 2).await.expect("the first one stays");
    assert_eq!(pki::find(&mut tx, "ca").await.expect("reads"), Some(authority));
    assert_eq!(pki::find(&mut tx, "none").await.expect("reads"), None);

    let token =
        NewEnrollToken { id: "ent_1", kind: "node", sha256: &[1; 32], created_by: "token:a", now: 10, expires_at: 20 };
    enroll::insert(&mut tx, token).await.expect("inserts");
    assert_eq!(enroll::find(&mut tx, "runner", &[1; 32]).await.expect("reads"), None);
    let fresh = enroll::find(&mut tx, "node", &[1; 32]).await.expect("reads").expect("there");
    assert_eq!((fresh.used_by_public_key, fresh.used_by_id, fresh.expires_at), (None, None, 20));
    assert!(enroll::mark_used(&mut tx, "ent_1", &[2; 32], "node_1", 15).await.expect("uses"));
    assert!(!enroll::mark_used(&mut tx, "ent_1", &[3; 32], "node_2", 15).await.expect("once only"));
    let used = enroll::find(&mut tx, "node", &[1; 32]).await.expect("reads").expect("there");
    assert_eq!((used.used_by_public_key, used.used_by_id.as_deref()), (Some(vec![2; 32]), Some("node_1")));
    assert_eq!(enroll::delete_expired(&mut tx, 20).await.expect("deletes"), 0);
    assert_eq!(enroll::delete_expired(&mut tx, 21).await.expect("deletes"), 1);

    let mut node = NodeRow {
        id: "node_1".into(),
        name: "n".into(),
        public_key: None,
        sealed_sealing_key: vec![9; 60],
        created_at: 5,
        ..NodeRow::default()
    };
    node.state.software_version = "0.1.0".into();
    nodes::save_identity(&mut tx, &node, 5).await.expect("saves");
    node.public_key = Some(vec![7; 32]);
    node.certificate_expires_at = Some(100);
    nodes::save_identity(&mut tx, &node, 6).await.expect("saves again");
    node.state = NodeState {
        software_version: "0.1.1".into(),
        instance_id: "i".into(),
        last_seen_at: Some(7),
        acked: Some(StoredVersion { generation: 1, revision: 9, hash: "h".into(), at: 7 }),
        nacked: None,
        nack_reason: None,
        spool_records: 1,
        spool_bytes: 2,
        spool_oldest_millis: 3,
        inflight: 4,
        requests_total: 5,
    };
    nodes::save_state(&mut tx, "node_1", &node.state).await.expect("saves");
    assert_eq!(nodes::find(&mut tx, "node_1").await.expect("reads"), Some(node.clone()));
    node.state.nacked = Some(StoredVersion { generation: 1, revision: 10, hash: "g".into(), at: 8 });
    node.state.nack_reason = Some("poison".into());
    nodes::save_state(&mut tx, "node_1", &node.state).await.expect("saves");
    assert_eq!(nodes::list(&mut tx, 10).await.expect("lists"), [node]);
    assert_eq!(nodes::find(&mut tx, "node_2").await.expect("reads"), None);
    tx.commit().await.expect("commits");
}
