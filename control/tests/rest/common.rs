//! A control plane in this process, on port 0, with SQLite in a folder of its
//! own, and a REST client for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use clawgate_control::config::{ControlConfig, ControlSettings};
use clawgate_control::{app, store};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What must never come back from anything.
pub const CANARY: &str = "sk-canary-1f0e2d3c4b5a69788796a5b4c3d2e1f0";

/// A running control plane.
pub struct Control {
    pub base: String,
    pub token: String,
    pub folder: TempDir,
    pub addresses: Value,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), app::ControlError>>>,
    http: reqwest::Client,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts a problem and returns its body.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        for field in ["type", "title", "detail", "instance"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {body}");
        }
        body
    }

    /// Asserts a 422 about exactly these fields and rules.
    pub fn refuses(&self, wanted: &[(&str, &str)]) {
        let body = self.problem(422, "validation_failed");
        let mut found: Vec<(String, String)> = body["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| {
                (error["field"].as_str().unwrap_or_default().into(), error["rule"].as_str().unwrap_or_default().into())
            })
            .collect();
        found.sort();
        let mut wanted: Vec<(String, String)> =
            wanted.iter().map(|(field, rule)| ((*field).to_owned(), (*rule).to_owned())).collect();
        wanted.sort();
        assert_eq!(found, wanted, "{body}");
    }

    /// Asserts that the field's value is already taken.
    pub fn refuses_conflict(&self, field: &str) {
        let body = self.problem(409, "already_exists");
        assert_eq!(body["errors"][0]["field"], field, "{body}");
    }

    /// Asserts success and returns the body.
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }
}

/// A request under construction.
pub struct Call {
    request: reqwest::RequestBuilder,
}

impl Call {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.request = self.request.header("content-type", "application/json").body(body.to_string());
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.request = self.request.body(body.to_owned());
        self
    }

    pub async fn send(self) -> Answer {
        let response = self.request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    }
}

fn settings(folder: &TempDir) -> ControlSettings {
    let port_0 = || Some("127.0.0.1:0".to_owned());
    ControlSettings {
        supervised: true,
        data_dir: Some(data_dir(folder)),
        console_listen: port_0(),
        control_admin_listen: port_0(),
        ..ControlSettings::default()
    }
}

fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("d")
}

impl Control {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("temp dir"), |_| {}).await
    }

    /// Starts on an existing folder after `change`.
    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut ControlSettings)) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let mut settings = settings(&folder);
        change(&mut settings);
        let config = ControlConfig::resolve(settings, &|_| None).expect("valid settings");
        let ready = data_dir(&folder).join("run").join("control.json");
        let _ = std::fs::remove_file(&ready);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app::run(config, async move {
            let _ = stopped.await;
        }));
        let deadline = Instant::now() + Duration::from_secs(60);
        let addresses: Value = loop {
            if let Some(value) = std::fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                break value;
            }
            if task.is_finished() {
                panic!("the control plane ended: {:?}", task.await);
            }
            assert!(Instant::now() < deadline, "the control plane is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let console: SocketAddr = addresses["console"].as_str().expect("console").parse().expect("address");
        let token = std::fs::read_to_string(data_dir(&folder).join("admin.token")).expect("admin token");
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        Self {
            base: format!("http://{console}"),
            token: token.trim().to_owned(),
            folder,
            addresses,
            stop: Some(stop),
            task: Some(task),
            http,
        }
    }

    /// Stops it well and gives the folder back.
    pub async fn stop(mut self) -> TempDir {
        drop(self.stop.take());
        let task = self.task.take().expect("running");
        tokio::time::timeout(Duration::from_secs(15), task).await.expect("ends").expect("no panic").expect("no error");
        self.folder
    }

    /// A second look at its database.
    pub async fn db(&self) -> store::Db {
        let path = data_dir(&self.folder).join("clawgate.db");
        store::Db::connect(&format!("sqlite://{}", path.display())).await.expect("database")
    }

    pub fn raw(&self, method: &str, path: &str) -> Call {
        let method = Method::from_bytes(method.as_bytes()).expect("method");
        Call { request: self.http.request(method, format!("{}{path}", self.base)) }
    }

    /// As the bootstrap administrator.
    pub fn call(&self, method: &str, path: &str) -> Call {
        self.as_token(&self.token, method, path)
    }

    pub fn as_token(&self, token: &str, method: &str, path: &str) -> Call {
        self.raw(method, &format!("/api/v1{path}")).header("authorization", &format!("Bearer {token}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path).send().await.ok(200)
    }

    pub async fn create(&self, path: &str, body: Value) -> Value {
        self.call("POST", path).json(&body).send().await.ok(201)
    }

    /// A provider key with the canary as its secret.
    pub async fn key(&self, label: &str) -> Value {
        self.create("/provider-keys", json!({"vendor": "openai", "label": label, "secret": CANARY})).await
    }
}
