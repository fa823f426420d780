//! What a node answers itself: which models a bot may use, what it has left, who
//! it is; and the discovery contract of the ClawRouter client.
//!
//! Invariant: an answer follows from the bot's snapshot and from what this node
//! knows of its quotas; no vendor and no control plane is asked. Only a refusal
//! leaves a usage row. All but `health` are for a bot with a good token.
//! Deliberately absent: what other bots use, what keys there are, and whatever
//! only the control plane knows.

mod catalog;
mod models;
mod standing;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::authenticate::Presented;
use super::ports::{Downstream, Length};
use super::receive::{Received, percent_decode};
use super::reject::Refusal;
use super::settle::{Outcome, Settlement};
use crate::snapshot::Bot;
use crate::wire::error::Code;

/// What a request of this kind ends in.
type Ended = Result<(Outcome, Option<Refusal>), Refusal>;

/// One thing to be read, below `/v1/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// `models`
    Models,
    /// `models/{id}`, decoded
    Model(String),
    /// `catalog`
    Catalog,
    /// `usage`
    Usage,
    /// `health`
    Health,
    /// `me`
    Me,
    /// `key/inspect`
    Inspect,
    /// `pool`
    Pool,
}

impl Page {
    /// What follows `/v1/` as a page.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "models" => Self::Models,
            "catalog" => Self::Catalog,
            "usage" => Self::Usage,
            "health" => Self::Health,
            "me" => Self::Me,
            "key/inspect" => Self::Inspect,
            "pool" => Self::Pool,
            path => Self::Model(path.strip_prefix("models/").filter(|id| !id.is_empty()).map(percent_decode)?),
        })
    }

    /// Its path, without what a client chose.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        match self {
            Self::Models | Self::Model(_) => "models",
            Self::Catalog => "catalog",
            Self::Usage => "usage",
            Self::Health => "health",
            Self::Me => "me",
            Self::Inspect => "key/inspect",
            Self::Pool => "pool",
        }
    }
}

/// Says that this node answers; for whoever asks.
///
/// # Errors
/// The method is not one for reading.
pub async fn health<D: Downstream>(settlement: &mut Settlement<'_>, received: &Received, down: &mut D) -> Ended {
    begin(settlement, &Page::Health, received)?;
    let body = json!({ "ok": true, "status": "live", "service": "clawgate" });
    Ok(send(settlement, StatusCode::OK, &body, down).await)
}

/// Answers a bot.
///
/// # Errors
/// The method is not one for reading, or there is no such model.
pub async fn answer<D: Downstream>(
    settlement: &mut Settlement<'_>,
    bot: &Bot,
    token: Presented,
    received: &Received,
    page: &Page,
    down: &mut D,
) -> Ended {
    begin(settlement, page, received)?;
    let anthropic = received.headers.contains_key("anthropic-version");
    let body = match page {
        Page::Models => models::list(bot, anthropic),
        Page::Model(id) => models::one(bot, anthropic, id)?,
        Page::Catalog => catalog::catalog(bot),
        Page::Usage => standing::usage(bot),
        Page::Me => standing::me(bot),
        Page::Inspect => standing::inspect(bot, token),
        Page::Health | Page::Pool => {
            let text = "which provider keys there are is not shown to bots";
            let code = "pool_status_hidden";
            let body = json!({ "code": code, "error": { "code": code, "message": text } });
            return Ok(send(settlement, StatusCode::NOT_FOUND, &body, down).await);
        }
    };
    Ok(send(settlement, StatusCode::OK, &body, down).await)
}

fn begin(settlement: &mut Settlement<'_>, page: &Page, received: &Received) -> Result<(), Refusal> {
    settlement.local = true;
    page.path().clone_into(&mut settlement.facts.endpoint);
    if matches!(received.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Err(Refusal::new(Code::MethodNotAllowed, "the route does not take this method; allowed: GET, HEAD"))
}

async fn send<D: Downstream>(
    settlement: &mut Settlement<'_>,
    status: StatusCode,
    body: &Value,
    down: &mut D,
) -> (Outcome, Option<Refusal>) {
    let body = Bytes::from(body.to_string());
    let facts = &mut settlement.facts;
    facts.status = status.as_u16();
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    facts.stamp(&mut headers);
    let head_only = facts.method == Method::HEAD;
    let length = if head_only {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Length::NoBody
    } else {
        Length::Known(body.len() as u64)
    };
    let sent = async {
        down.write_head(status, headers, length).await?;
        if !head_only {
            down.write_chunk(body).await?;
        }
        down.finish().await
    };
    let outcome = if sent.await.is_ok() { Outcome::Ok } else { Outcome::ClientDisconnect };
    (outcome, None)
}
