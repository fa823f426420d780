//! Checks of what runs: the control plane and the nodes it knows.

use serde_json::Value;

use super::Verdict;
use crate::admin::{Api, Target};
use crate::failure::Failure;
use crate::files::DataDir;

/// More records than this waiting means that shipping does not keep up.
const BACKLOG: u64 = 10_000;

/// All checks, in order.
pub(super) async fn all(data: &DataDir) -> Vec<(&'static str, Verdict)> {
    let api = match connect(data).await {
        Ok(api) => api,
        Err(verdict) => {
            let skipped = || Verdict::Skipped("the control plane does not answer".to_owned());
            return vec![("control plane", verdict), ("nodes", skipped()), ("spool", skipped())];
        }
    };
    let mut findings = vec![("control plane", Verdict::Fine("answers, and takes the admin token".to_owned()))];
    match api.list("/nodes", &[], 1000).await {
        Ok(nodes) => {
            findings.push(("nodes", acked(&nodes)));
            findings.push(("spool", backlog(&nodes)));
        }
        Err(e) => findings.push(("nodes", Verdict::broken(e.to_string(), "use a token that may see nodes"))),
    }
    findings
}

async fn connect(data: &DataDir) -> Result<Api, Verdict> {
    let given = crate::flags::variable("CLAWGATE_TOKEN");
    let target = Target::local(data, given.as_deref()).map_err(|e| match e {
        Failure::NotAllowed(cause) => Verdict::broken(cause, "run doctor as the user that runs the control plane"),
        other => Verdict::broken(other.to_string(), "start `clawgate up`"),
    })?;
    let api = Api::new(target).map_err(|e| Verdict::broken(e.to_string(), "reinstall clawgate"))?;
    match api.get("/auth/me", &[]).await {
        Ok(_) => Ok(api),
        Err(Failure::NotAllowed(cause)) => {
            Err(Verdict::broken(cause, "admin.token is not of this database: restore the file that belongs to it"))
        }
        Err(e) => Err(Verdict::broken(e.to_string(), "start `clawgate up`, or read the control plane's log")),
    }
}

fn text<'a>(node: &'a Value, name: &str) -> &'a str {
    node.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Connected nodes hold the newest version; none refuses it.
fn acked(nodes: &[Value]) -> Verdict {
    let connected: Vec<&Value> =
        nodes.iter().filter(|n| n.get("connected").and_then(Value::as_bool).unwrap_or(false)).collect();
    if connected.is_empty() {
        return Verdict::broken(
            "no node is connected",
            "start `clawgate proxy`; its log says why it cannot reach the control plane",
        );
    }
    let refusing: Vec<String> = connected
        .iter()
        .filter(|n| !text(n, "nack_reason").is_empty())
        .map(|n| format!("{} refuses the configuration: {}", text(n, "id"), text(n, "nack_reason")))
        .collect();
    if !refusing.is_empty() {
        return Verdict::broken(refusing.join("; "), "undo the last change, or upgrade the node");
    }
    let mut versions: Vec<&str> = connected.iter().map(|n| text(n, "acked_version")).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [""] => Verdict::broken("no node has taken a configuration over", "read the node's log"),
        [version] => Verdict::Fine(format!("{} connected, all on {version}", connected.len())),
        _ => Verdict::doubtful(
            format!("nodes hold different versions: {}", versions.join(", ")),
            "wait some seconds and look again; then read the log of the node that is behind",
        ),
    }
}

fn backlog(nodes: &[Value]) -> Verdict {
    let records: u64 = nodes.iter().filter_map(|n| n.get("spool_backlog").and_then(records_of)).sum();
    let detail = format!("{records} usage records wait to be shipped");
    if records > BACKLOG {
        return Verdict::doubtful(detail, "look for slow disks or a slow database at the control plane");
    }
    Verdict::Fine(detail)
}

/// A number, or an object that has it in `records`.
fn records_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.get("records").and_then(Value::as_u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_judged_by_what_they_hold() {
        let node = |version: &str, nack: Value| json!({"id": "node_1", "connected": true, "acked_version": version, "nack_reason": nack});
        assert!(matches!(acked(&[]), Verdict::Broken { .. }));
        assert!(matches!(acked(&[json!({"connected": false})]), Verdict::Broken { .. }));
        assert!(matches!(acked(&[node("1.7", Value::Null)]), Verdict::Fine(_)));
        assert!(matches!(acked(&[node("1.7", json!("bad"))]), Verdict::Broken { .. }));
        assert!(matches!(acked(&[node("1.7", Value::Null), node("1.8", Value::Null)]), Verdict::Doubtful { .. }));
        assert!(matches!(backlog(&[json!({"spool_backlog": 5})]), Verdict::Fine(_)));
        assert!(matches!(backlog(&[json!({"spool_backlog": {"records": 50_000}})]), Verdict::Doubtful { .. }));
    }
}
