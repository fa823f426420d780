//! Things that stay in an account: files, batches, caches, stored responses.
//!
//! Nothing is kept: an id says which credential made it, and only that one finds
//! it again. Stored responses are found by every credential, as their ids follow
//! from the prompt alone.

use serde_json::{Value, json};

use crate::answer::{Answer, Bill};
use crate::ledger::sha256_hex;

/// Answers a request about such a thing; `None`: it is about something else.
pub(crate) fn answer(method: &str, path: &str, credential: &str, body: &[u8]) -> Option<Answer> {
    let path = path.trim_end_matches('/');
    let (before, last) = path.rsplit_once('/')?;
    let collection = before.rsplit('/').next().unwrap_or_default();
    let account = sha256_hex(credential.as_bytes()).chars().take(8).collect::<String>();
    let fresh = |prefix: &str, of: &[u8]| {
        let seed = sha256_hex(of).chars().take(16).collect::<String>();
        format!("{prefix}{account}{seed}")
    };
    let adds = method == "POST";
    let found = match (collection, last) {
        (_, "files") if adds => json!({"id": fresh("file-", body), "object": "file", "bytes": body.len()}),
        (_, "files" | "batches") if method == "GET" => json!({"object": "list", "data": [], "has_more": false}),
        (_, "cachedContents") if adds => json!({"name": fresh("cachedContents/", body)}),
        (_, "batches") if adds => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let input = asked["input_file_id"].as_str().unwrap_or_default();
            if !input.starts_with(&format!("file-{account}")) {
                return Some(missing(400));
            }
            json!({"id": fresh("batch_", body), "object": "batch", "input_file_id": input, "output_file_id": null})
        }
        ("files", id) if id.starts_with(&format!("file-{account}")) => json!({"id": id, "object": "file"}),
        ("cachedContents", id) if id.starts_with(&account) => json!({"name": format!("cachedContents/{id}")}),
        ("batches", id) if id.starts_with(&format!("batch_{account}")) => {
            json!({"id": id, "object": "batch", "status": "completed", "output_file_id": fresh("file-", id.as_bytes())})
        }
        ("files" | "cachedContents" | "batches", _) => return Some(missing(404)),
        ("responses", id) if id.starts_with("resp_") => {
            json!({"id": id, "object": "response", "status": "completed", "output": []})
        }
        _ => return None,
    };
    Some(Answer::json(200, &found, Bill::default()))
}

fn missing(status: u16) -> Answer {
    let body = json!({"error": {"message": "No such object.", "type": "invalid_request_error", "code": null}});
    Answer::json(status, &body, Bill::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, credential: &str, body: &str) -> (u16, Value) {
        let answer = answer(method, path, credential, body.as_bytes()).unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn only_the_credential_that_made_a_thing_finds_it() {
        let (_, file) = ask("POST", "/v1/files", "sk-1", "data");
        let id = file["id"].as_str().unwrap();
        assert_eq!(ask("GET", &format!("/v1/files/{id}"), "sk-1", "").0, 200);
        assert_eq!(ask("GET", &format!("/v1/files/{id}"), "sk-2", "").0, 404);
        let body = json!({"input_file_id": id}).to_string();
        assert_eq!(ask("POST", "/v1/batches", "sk-2", &body).0, 400);
        let (_, batch) = ask("POST", "/v1/batches", "sk-1", &body);
        let (_, batch) = ask("GET", &format!("/v1/batches/{}", batch["id"].as_str().unwrap()), "sk-1", "");
        assert_eq!(ask("GET", &format!("/v1/files/{}", batch["output_file_id"].as_str().unwrap()), "sk-1", "").0, 200);
        assert!(answer("POST", "/v1/chat/completions", "sk-1", b"{}").is_none());
    }
}
