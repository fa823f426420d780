//! An administrator: REST with a bearer token.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::http::{Request, Response, call};
use crate::wait::until_good;

/// A REST client.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Of the console listener.
    pub address: SocketAddr,
    /// An API token.
    pub token: String,
}

impl Rest {
    /// Any request below `/api/v1`.
    #[must_use]
    pub fn call(&self, request: Request) -> Response {
        let mut request = request.bearer(&self.token);
        request.target = format!("/api/v1{}", request.target);
        call(self.address, &request)
    }

    /// The JSON of a successful GET.
    ///
    /// # Panics
    /// It was none.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        success("GET", path, &self.call(Request::new("GET", path)))
    }

    /// The JSON of a successful POST.
    ///
    /// # Panics
    /// It was none.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        success("POST", path, &self.call(Request::post(path, body)))
    }

    /// The JSON of a successful PUT.
    ///
    /// # Panics
    /// It was none.
    pub fn put(&self, path: &str, body: &Value) -> Value {
        let mut request = Request::post(path, body);
        request.method = "PUT".to_owned();
        success("PUT", path, &self.call(request))
    }

    /// The JSON of a successful PATCH.
    ///
    /// # Panics
    /// It was none.
    pub fn patch(&self, path: &str, body: &Value) -> Value {
        let mut request = Request::post(path, body);
        request.method = "PATCH".to_owned();
        success("PATCH", path, &self.call(request))
    }

    /// A successful DELETE.
    ///
    /// # Panics
    /// It was none.
    pub fn delete(&self, path: &str) -> Response {
        let response = self.call(Request::new("DELETE", path));
        success("DELETE", path, &response);
        response
    }

    /// All rows of a cursor-paginated list.
    ///
    /// # Panics
    /// A page is not one.
    #[must_use]
    pub fn all(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut after) = (Vec::new(), String::new());
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{separator}limit=200{after}"));
            let data = page["data"].take();
            rows.extend(data.as_array().unwrap_or_else(|| panic!("{path}: no data in {page}")).iter().cloned());
            if page["has_more"] != Value::Bool(true) {
                return rows;
            }
            let cursor = page["next_cursor"].as_str().unwrap_or_else(|| panic!("{path}: no cursor in {page}"));
            after = format!("&after={cursor}");
        }
    }

    /// Waits until the usage log has `count` rows of a bot and returns them.
    ///
    /// # Panics
    /// They do not come.
    #[must_use]
    pub fn usage_rows(&self, bot: &str, count: usize) -> Vec<Value> {
        let path = format!("/usage/logs?bot={bot}");
        let what = format!("{count} usage rows of {bot}");
        until_good(&what, Duration::from_secs(30), || self.all(&path), |rows| rows.len() >= count)
    }
}

fn success(method: &str, path: &str, response: &Response) -> Value {
    let status = response.status();
    assert!((200..300).contains(&status), "{method} {path}: {status} {}", response.text());
    if response.body.is_empty() { Value::Null } else { response.json() }
}
