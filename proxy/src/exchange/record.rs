//! Facts about an exchange, for usage rows, logs and headers only: no stage
//! decides anything by them. What a client chose enters masked: people paste
//! credentials into paths, model names and ids.

use std::sync::Arc;
use std::time::Instant;

use clawgate_shared::dialect::Dialect;
use clawgate_shared::token::masked;
use clawgate_shared::{clock, id};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::pass;
use crate::metering::{AttemptRecord, ChargeRecord, OpenRecord};
use crate::snapshot::Bot;
use crate::telemetry::Trace;

/// Longest id a client may give a request.
const MAX_CLIENT_ID: usize = 128;

// Names are made once: to read one from text costs more than to look for it.
static CLIENT_REQUEST: [HeaderName; 1] = [HeaderName::from_static("x-request-id")];
static AGENT: [HeaderName; 4] = [
    HeaderName::from_static("x-clawgate-agent"),
    HeaderName::from_static("x-clawrouter-agent-id"),
    HeaderName::from_static("x-clawrouter-parent-agent-id"),
    HeaderName::from_static("x-clawrouter-client"),
];
static SESSION: [HeaderName; 2] =
    [HeaderName::from_static("x-clawgate-session"), HeaderName::from_static("x-clawrouter-session-id")];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-clawgate-request-id");
const KEY: HeaderName = HeaderName::from_static("x-clawgate-key");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-clawgate-attempts");
const MAX_TOKENS: HeaderName = HeaderName::from_static("x-clawgate-max-tokens");
const CONFIG: HeaderName = HeaderName::from_static("x-clawgate-config");

/// One try with one key.
#[derive(Debug)]
pub struct Tried {
    /// Whose.
    pub key_id: Arc<str>,
    /// 0: no answer.
    pub status: u16,
    /// Why it was not the last one; empty for the one that was relayed.
    pub reason: &'static str,
    /// From the request's beginning to its own.
    pub began_micros: u64,
    /// Until its head was there or it failed.
    pub millis: u32,
}

/// What is known so far.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Facts {
    pub id: String,
    pub started: Instant,
    pub at_micros: i64,
    pub method: Method,
    pub path: String,
    pub client_request_id: String,
    pub agent_id: String,
    pub session_id: String,
    pub dialect: Dialect,
    pub bot: Option<Arc<Bot>>,
    pub config: Arc<str>,
    pub config_header: Option<HeaderValue>,
    pub vendor: String,
    pub endpoint: String,
    pub model: String,
    pub stream: bool,
    pub key: Option<(Arc<str>, HeaderValue)>,
    pub tried: Vec<Tried>,
    /// Status the client got; 0 until it got one.
    pub status: u16,
    pub ttft_micros: Option<u64>,
    /// The most tokens held of one quota.
    pub reserved_tokens: u64,
    /// The output limit that was put into the request.
    pub max_tokens: Option<u64>,
    /// Time spent waiting for vendor or client.
    pub waited_micros: u64,
    /// Where it stands in its caller's trace, or in one of its own.
    pub trace: Option<Trace>,
}

impl Facts {
    /// Begins the record of a request.
    #[must_use]
    pub fn begin(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let text = |names: &[HeaderName]| {
            let value = names.iter().find_map(|name| headers.get(name)).and_then(|v| v.to_str().ok());
            masked(value.filter(|text| text.len() <= MAX_CLIENT_ID).unwrap_or("")).into_owned()
        };
        // Most requests have none of the headers that only our own clients send.
        let ours = headers.keys().any(|name| name.as_str().starts_with("x-claw"));
        let told = |names: &[HeaderName]| if ours { text(names) } else { String::new() };
        Self {
            id: id::new(id::Kind::Exchange),
            at_micros: clock::now_micros(),
            method: method.clone(),
            path: masked(path).into_owned(),
            client_request_id: text(&CLIENT_REQUEST),
            agent_id: told(&AGENT),
            session_id: told(&SESSION),
            ..Self::none()
        }
    }

    /// Of no request at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            id: String::new(),
            started: Instant::now(),
            at_micros: 0,
            method: Method::GET,
            path: String::new(),
            client_request_id: String::new(),
            agent_id: String::new(),
            session_id: String::new(),
            dialect: Dialect::OpenAi,
            bot: None,
            config: Arc::from(""),
            config_header: None,
            vendor: String::new(),
            endpoint: String::new(),
            model: String::new(),
            stream: false,
            key: None,
            tried: Vec::new(),
            status: 0,
            ttft_micros: None,
            reserved_tokens: 0,
            max_tokens: None,
            waited_micros: 0,
            trace: None,
        }
    }

    /// Of a response within a session over a WebSocket: the session's, with an
    /// id and a time of its own. Where the client named no session, this one is
    /// what its responses have in common.
    #[must_use]
    pub fn of_response(&self, model: String) -> Self {
        let session = if self.session_id.is_empty() { &self.id } else { &self.session_id };
        Self {
            id: id::new(id::Kind::Exchange),
            at_micros: clock::now_micros(),
            method: self.method.clone(),
            path: self.path.clone(),
            client_request_id: self.client_request_id.clone(),
            agent_id: self.agent_id.clone(),
            session_id: session.clone(),
            dialect: self.dialect,
            bot: self.bot.clone(),
            config: self.config.clone(),
            vendor: self.vendor.clone(),
            endpoint: self.endpoint.clone(),
            model,
            stream: true,
            key: self.key.clone(),
            status: 200,
            trace: self.trace.map(Trace::child),
            ..Self::none()
        }
    }

    /// The vendor that is asked from here on, and for which model.
    pub fn point(&mut self, vendor: &str, model: &str) {
        if self.vendor != vendor {
            vendor.clone_into(&mut self.vendor);
        }
        if self.model != model {
            self.model = masked(model).into_owned();
        }
    }

    /// Adds our response headers.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(bot) = &self.bot {
            pass::stamp(bot, self.dialect, headers);
        }
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some((_, key)) = &self.key {
            headers.insert(KEY, key.clone());
        }
        if !self.tried.is_empty() {
            headers.insert(ATTEMPTS, HeaderValue::from(self.tried.len()));
        }
        if let Some(tokens) = self.max_tokens {
            headers.insert(MAX_TOKENS, HeaderValue::from(tokens));
        }
        if let Some(config) = &self.config_header {
            headers.insert(CONFIG, config.clone());
        }
    }

    /// What usage records take from here; `charges` is what is held, or what is
    /// used up.
    #[must_use]
    pub fn open_record<'a>(&'a self, charges: &'a [ChargeRecord<'a>]) -> OpenRecord<'a> {
        let bot = self.bot.as_deref();
        OpenRecord {
            exchange_id: &self.id,
            at_micros: self.at_micros,
            tenant_id: bot.map_or("", |b| &b.tenant.id),
            project_id: bot.map_or("", |b| &b.project_id),
            bot_id: bot.map_or("", |b| &b.id),
            vendor: &self.vendor,
            model: &self.model,
            endpoint: &self.endpoint,
            client_request_id: &self.client_request_id,
            provider_key_id: self.key.as_ref().map_or("", |(id, _)| id),
            stream: self.stream,
            reserved_tokens: self.reserved_tokens,
            config_version: &self.config,
            agent_id: &self.agent_id,
            session_id: &self.session_id,
            charges,
            made_ids: &[],
            made_ids_pass: false,
        }
    }

    /// Whole microseconds since the request began.
    #[must_use]
    pub fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The tries as the usage record wants them.
    #[must_use]
    pub fn attempts(&self) -> Vec<AttemptRecord<'_>> {
        self.tried
            .iter()
            .map(|tried| AttemptRecord {
                key_id: &tried.key_id,
                status: u32::from(tried.status),
                reason: tried.reason,
                millis: tried.millis,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_path_or_id_reaches_no_record() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("cgb_abc"));
        let facts = Facts::begin(&Method::GET, "/v1/openai/cgb_abc/x", &headers);
        assert_eq!((facts.path.as_str(), facts.client_request_id.as_str()), ("/v1/openai/cgb_***/x", "cgb_***"));
    }
}
