//! Starting, and every reason not to.

use std::net::TcpListener;

use clawgate_control::app;
use clawgate_control::config::{ControlConfig, ControlSettings};
use serde_json::json;

use crate::common::Control;

async fn refused(change: impl FnOnce(&mut ControlSettings), env: &[(&str, &str)]) -> app::ControlError {
    let mut settings = ControlSettings {
        supervised: true,
        console_listen: Some("127.0.0.1:0".into()),
        control_admin_listen: Some("127.0.0.1:0".into()),
        ..ControlSettings::default()
    };
    change(&mut settings);
    let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = ControlConfig::resolve(settings, &env).expect("valid settings");
    app::run(config, std::future::pending()).await.expect_err("refuses to start")
}

#[tokio::test]
async fn a_second_start_finds_everything_again() {
    let control = Control::start().await;
    let token = control.token.clone();
    control.create("/bots", json!({"hostname": "b"})).await;
    let admin = control.addresses["admin"].as_str().expect("admin").to_owned();
    let get = |path: &'static str| {
        let url = format!("http://{admin}/{path}");
        async move { reqwest::get(url).await.expect("answer") }
    };
    assert_eq!(get("livez").await.status(), 200);
    let ready: serde_json::Value =
        serde_json::from_str(&get("readyz").await.text().await.expect("text")).expect("json");
    assert_eq!(ready, json!({"ready": true, "pending": []}));
    let metrics = get("metrics").await.text().await.expect("text");
    assert!(metrics.contains("clawgate_build_info{") && metrics.contains("clawgate_ingest_events_total"), "{metrics}");

    let folder = control.stop().await;
    let control = Control::start_in(folder, |_| {}).await;
    assert_eq!(control.token, token);
    assert_eq!(control.get("/bots/b").await["hostname"], "b");
    control.stop().await;
}

#[tokio::test]
async fn each_obstacle_has_its_code() {
    let folder = Control::start().await.stop().await;
    let data = folder.path().join("d");
    let at = |path: &std::path::Path| {
        let path = path.to_owned();
        move |settings: &mut ControlSettings| settings.data_dir = Some(path)
    };

    let taken = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = taken.local_addr().expect("address").to_string();
    let error = refused(
        |s| {
            at(&data)(s);
            s.console_listen = Some(address);
        },
        &[],
    )
    .await;
    assert_eq!(error.code(), "port_taken");

    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("file");
    assert_eq!(refused(at(&file), &[]).await.code(), "data_dir_not_writable");

    let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(refused(at(&data), &[("CLAWGATE_MASTER_KEY", wrong)]).await.code(), "master_key_wrong");
    assert_eq!(refused(at(&data), &[("CLAWGATE_MASTER_KEY", "short")]).await.code(), "master_key_malformed");
    assert_eq!(refused(at(&data), &[("CLAWGATE_ADMIN_TOKEN", "short")]).await.code(), "admin_token_malformed");
    let key = data.join("master.key");
    let kept = data.join("kept.key");
    std::fs::rename(&key, &kept).expect("moved");
    assert_eq!(refused(at(&data), &[]).await.code(), "master_key_missing");
    assert!(!key.exists(), "no new key is made for old secrets");
    std::fs::rename(&kept, &key).expect("moved back");

    let control = Control::start_in(folder, |_| {}).await;
    assert_eq!(refused(at(&data), &[]).await.code(), "data_dir_in_use");
    control.get("/bots").await;
    control.stop().await;
}

#[tokio::test]
async fn a_locked_database_is_told_and_loses_nothing() {
    let control = Control::start().await;
    control.create("/bots", json!({"hostname": "b"})).await;
    let folder = control.stop().await;
    let data = folder.path().join("d");
    let db = clawgate_control::store::Db::connect(&format!("sqlite://{}", data.join("clawgate.db").display()))
        .await
        .expect("database");
    let held = db.begin().await.expect("the write lock");
    let error = refused(|settings| settings.data_dir = Some(data), &[]).await;
    assert_eq!(error.code(), "database_locked");
    held.rollback().await.expect("lets go");
    db.close().await;
    let control = Control::start_in(folder, |_| {}).await;
    assert_eq!(control.get("/bots/b").await["hostname"], "b");
    control.stop().await;
}

#[test]
fn every_wrong_setting_is_reported_at_once() {
    let settings = ControlSettings {
        console_listen: Some("here".into()),
        grpc_listen: Some("there".into()),
        database_url: Some("mysql://user:hunter2@x/y".into()),
        private_upstreams: Some("169.254.0.0/16:*".into()),
        allowed_hosts: Some("a b".into()),
        public_url: Some("ftp://x".into()),
        max_config_age_secs: Some(1),
        master_key_file: Some("/nonexistent/key".into()),
        ..ControlSettings::default()
    };
    let problems = ControlConfig::resolve(settings, &|_| None).expect_err("nothing of it is right");
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for name in [
        "console_listen",
        "grpc_listen",
        "database_url",
        "private_upstreams",
        "allowed_hosts",
        "public_url",
        "max_config_age_secs",
        "master_key_file",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("hunter2"));
}

#[test]
fn flag_before_environment_before_file_before_default() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("clawgate.toml");
    std::fs::write(&file, "data_dir = \"/from/file\"\n[control]\nconsole_listen = \"127.0.0.1:1\"\ngrpc_listen = \"127.0.0.1:2\"\ncontrol_admin_listen = \"127.0.0.1:3\"\n").expect("file");
    let env = |name: &str| match name {
        "CLAWGATE_CONSOLE_LISTEN" => Some("127.0.0.1:11".to_owned()),
        "CLAWGATE_GRPC_LISTEN" => Some("127.0.0.1:12".to_owned()),
        _ => None,
    };
    let settings = ControlSettings {
        config_file: Some(file),
        console_listen: Some("127.0.0.1:21".into()),
        ..ControlSettings::default()
    };
    let config = ControlConfig::resolve(settings, &env).expect("valid");
    assert_eq!(config.console_listen.port(), 21);
    assert_eq!(config.grpc_listen.map(|address| address.port()), Some(12));
    assert_eq!(config.admin_listen.port(), 3);
    assert_eq!(config.data_dir.to_str(), Some("/from/file"));
    assert!(config.database_url.starts_with("sqlite:///from/file"));
    assert!(!format!("{config:?}").contains("sqlite"));
}
