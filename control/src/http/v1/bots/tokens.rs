//! A bot's tokens.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::requests::{CreateBotToken, RotateBotToken};
use super::views::BotTokenView;
use crate::domain::Permission;
use crate::domain::bots::{self as domain, MintedBotToken, NewBotToken};
use crate::http::auth::InTenant;
use crate::http::body::{OptionalJson, UrlPath};
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::Page;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::http::v1::instant;
use crate::store::{bot_tokens, bots};

/// How long old tokens still work after a rotation unless told otherwise.
const OVERLAP_SECONDS: u32 = 600;

fn minted(token: MintedBotToken) -> Result<Outcome, Problem> {
    Outcome::minted(&BotTokenView::new(token.row, Some(token.text.to_string())))
}

/// `GET /bots/{hostname}/tokens`
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
) -> Result<Json<Page<BotTokenView>>, Problem> {
    inside.require(Permission::BotRead)?;
    let mut conn = app.read().await?;
    let bot = bots::get(&mut conn, &inside.tenant.id, &hostname).await?.ok_or(Problem::not_found("bot"))?;
    let rows = bot_tokens::of_bot(&mut conn, &bot.id).await?;
    Ok(Json(Page::whole(rows.into_iter().map(|row| BotTokenView::new(row, None)).collect())))
}

/// `POST /bots/{hostname}/tokens`
pub async fn create(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    key: IdempotencyKey,
    prefer: Prefer,
    OptionalJson { value, bytes }: OptionalJson<CreateBotToken>,
) -> Result<Response, Problem> {
    let new = NewBotToken { name: value.name, expires_at: instant("expires_at", value.expires_at.as_deref())? };
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let place = (within.tenant.id.as_str(), hostname.as_str());
        at.outcome(domain::mint_token(&at.domain, &within.caller, place, new).await?, minted)
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// `POST /bots/{hostname}/token`
pub async fn rotate(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    key: IdempotencyKey,
    prefer: Prefer,
    OptionalJson { value, bytes }: OptionalJson<RotateBotToken>,
) -> Result<Response, Problem> {
    let overlap = value.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let place = (within.tenant.id.as_str(), hostname.as_str());
        at.outcome(domain::rotate_token(&at.domain, &within.caller, place, overlap).await?, minted)
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// `DELETE /bots/{hostname}/tokens/{id}`
pub async fn delete(
    State(app): State<App>,
    inside: InTenant,
    UrlPath((hostname, id)): UrlPath<(String, String)>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let place = (inside.tenant.id.as_str(), hostname.as_str());
    let done = domain::delete_token(&app.domain, &inside.caller, place, &id).await?;
    Ok(app.gone(prefer, done).await)
}
