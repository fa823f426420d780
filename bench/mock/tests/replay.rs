//! Every recording comes back byte for byte, however it is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod common;

use std::path::{Path, PathBuf};

use common::Mock;

/// The recordings, or `None` (loudly) where they are not installed.
fn recordings() -> Option<PathBuf> {
    let named = std::env::vars_os().find(|(name, _)| name == "CLAWGATE_RECORDINGS").map(|(_, value)| value.into());
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recordings");
    let folder: PathBuf = named.unwrap_or(default);
    if folder.is_dir() {
        return Some(folder);
    }
    let in_ci = std::env::vars_os().any(|(name, _)| name == "CI");
    assert!(!in_ci, "recordings are missing at {}", folder.display());
    eprintln!("SKIPPED: no recordings at {}; set CLAWGATE_RECORDINGS", folder.display());
    None
}

#[tokio::test]
async fn every_recording_is_replayed_byte_for_byte() {
    let Some(root) = recordings() else { return };
    let mock = Mock::with(Some(root.clone())).await;
    let index = std::fs::read_to_string(root.join("INDEX.tsv")).unwrap();
    let mut cases = 0_u64;
    for name in index.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let expected = std::fs::read(root.join(name).join("response.body")).unwrap();
        let meta: serde_json::Value =
            serde_json::from_slice(&std::fs::read(root.join(name).join("meta.json")).unwrap()).unwrap();
        cases += 1;
        let seed = cases.to_string();
        for headers in [&[][..], &[("x-mock-split", seed.as_str())]] {
            let reply = mock.post(&format!("/replay/{name}/v1/anything?x=1"), headers, "{}").await;
            assert!(reply.complete && reply.body == expected, "{name} {headers:?}");
            assert_eq!(u64::from(reply.status), meta["status"].as_u64().unwrap(), "{name}");
            let content_type = reply.header("content-type").unwrap_or_default();
            assert_eq!(content_type, meta["content_type"].as_str().unwrap(), "{name}");
        }
    }
    assert!(cases > 0);
    let ends = mock.ended(usize::try_from(cases * 2).unwrap()).await;
    assert!(ends.iter().all(|line| line["ended"] == "complete"));
    mock.stop().await;
}

#[tokio::test]
async fn nothing_outside_the_folder_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("cases");
    std::fs::create_dir_all(inner.join("v/deep/er")).unwrap();
    for place in [folder.path().to_owned(), inner.join("v/deep/er")] {
        std::fs::write(place.join("meta.json"), r#"{"status":201,"content_type":""}"#).unwrap();
        std::fs::write(place.join("response.body"), b"x").unwrap();
    }
    let mock = Mock::with(Some(inner)).await;
    assert_eq!(mock.get("/replay/v/deep/er/v1/x").await.status, 201);
    for path in ["/replay/../x", "/replay/v/../../meta", "/replay/v/none", "/replay/"] {
        assert_eq!(mock.get(path).await.status, 404, "{path}");
    }
    mock.stop().await;
}
