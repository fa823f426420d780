//! An administrator: creates the keys and bots, and reads the usage.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::clients::Client;
use super::ledger::Count;
use crate::failure::Failure;

/// Keys that fit one bot.
const KEYS_PER_BOT: usize = 5;

/// REST with the bootstrap token.
pub(crate) struct Rest {
    client: Client,
    authorization: String,
}

impl Rest {
    /// Talks to the console listener.
    pub(crate) fn new(console: SocketAddr, token: &str) -> Result<Self, Failure> {
        Ok(Self { client: Client::new("control", console)?, authorization: format!("authorization: Bearer {token}") })
    }

    /// One request; its answer's body, when it succeeded.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        prefer: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut headers = vec![self.authorization.clone()];
        headers.extend(prefer.map(|prefer| format!("prefer: {prefer}")));
        let path = format!("/api/v1{path}");
        let reply = self.client.call(method, &path, &headers, body)?;
        if (200..300).contains(&reply.status) {
            return Ok(reply.body);
        }
        Err(Failure::Setup(format!("{method} {path}: {} {}", reply.status, reply.body)))
    }

    /// Keys in groups of five that carry the group's two tags.
    pub(crate) fn create_keys(&mut self, count: usize, vendor: SocketAddr) -> Result<(), Failure> {
        for index in 0..count {
            let group = index / KEYS_PER_BOT;
            let body = json!({
                "vendor": "openai",
                "label": format!("bench {index}"),
                "secret": format!("sk-bench-{index:04}-{group:04}-0123456789abcdef"),
                "base_url": format!("http://{vendor}/v1"),
                "tags": tags(group),
            });
            self.call("POST", "/provider-keys", Some("respond-async"), Some(&body))?;
        }
        Ok(())
    }

    /// Bots that require the two tags of one group; returns their tokens.
    pub(crate) fn create_bots(&mut self, count: usize, keys: usize) -> Result<Vec<String>, Failure> {
        let groups = (keys / KEYS_PER_BOT).max(1);
        let mut tokens = Vec::with_capacity(count);
        for index in 0..count {
            let body = json!({ "hostname": format!("bench-{index:04}"), "tags": tags(index % groups) });
            // Only the last write waits for the node: it carries all others.
            let prefer = if index + 1 == count { "wait=30" } else { "respond-async" };
            let bot = self.call("POST", "/bots", Some(prefer), Some(&body))?;
            let token = bot.get("token").and_then(Value::as_str);
            tokens.push(token.ok_or_else(|| Failure::Setup("a bot came without a token".to_owned()))?.to_owned());
        }
        Ok(tokens)
    }

    /// What the control plane has counted this month.
    pub(super) fn usage(&mut self) -> Result<Count, Failure> {
        let stats = self.call("GET", "/usage/stats?period=month", None, None)?;
        let number = |name: &str| stats.get(name).and_then(Value::as_u64);
        match (number("requestCount"), number("totalTokens")) {
            (Some(requests), Some(tokens)) => Ok(Count { requests, tokens }),
            _ => Err(Failure::Setup(format!("usage stats without counts: {stats}"))),
        }
    }
}

fn tags(group: usize) -> [String; 2] {
    ["chat".to_owned(), format!("team-{group}")]
}
