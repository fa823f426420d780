//! What just happened, as a stream of server-sent events.
//!
//! A watcher is told of its own tenant's bots. Who fell behind, or names an
//! event that is no longer kept, gets `gap` and reads the lists again.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use clawgate_shared::clock;
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use http::HeaderMap;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::runtime::live::{LiveEvent, Watch};

/// A stream that says nothing is not distinguished from one that broke.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// `GET /events`
pub async fn events(State(app): State<App>, inside: InTenant, headers: HeaderMap) -> Result<Response, Problem> {
    inside.require(Permission::BotRead)?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let watch = app.runtime.live.watch(last);
    let events = told(app, inside.tenant.id, watch).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response())
}

fn told(app: App, tenant_id: String, watch: Watch) -> impl Stream<Item = Event> {
    let Watch { missed, gap, stream: coming } = watch;
    let first: Vec<Option<LiveEvent>> = gap.then_some(None).into_iter().chain(missed.into_iter().map(Some)).collect();
    let rest = stream::unfold(coming, |mut coming| async move {
        match coming.recv().await {
            Ok(event) => Some((Some(event), coming)),
            Err(RecvError::Lagged(_)) => Some((None, coming)),
            Err(RecvError::Closed) => None,
        }
    });
    stream::iter(first).chain(rest).filter_map(move |event| {
        let told = match event {
            None => Some(Event::default().event("gap").data("{}")),
            Some(event) if event.event.tenant_id == tenant_id => Some(bot_status(&app, &event)),
            Some(_) => None,
        };
        std::future::ready(told)
    })
}

fn bot_status(app: &App, live: &LiveEvent) -> Event {
    let event = &live.event;
    let data = json!({
        "type": "bot-status", "hostname": event.hostname, "status": event.status, "reason_code": event.reason_code,
        "timestamp": clock::rfc3339(event.at),
    });
    Event::default().id(app.runtime.live.id(live)).event("bot-status").data(data.to_string())
}
