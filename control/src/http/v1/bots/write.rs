//! Making, changing and deleting bots.

use axum::extract::State;
use axum::response::Response;

use super::current;
use super::requests::{CreateBot, LimitsBody, PatchBot};
use super::views::BotView;
use crate::domain::bots::{self as domain, BotFields, CreatedBot};
use crate::http::auth::InTenant;
use crate::http::body::StrictJson;
use crate::http::edit::Edit;
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::bots::Limits;

impl From<LimitsBody> for Limits {
    fn from(body: LimitsBody) -> Self {
        Self {
            requests_per_minute: body.requests_per_minute,
            tokens_per_minute: body.tokens_per_minute,
            max_concurrency: body.max_concurrency,
        }
    }
}

fn new_fields(body: CreateBot) -> (String, BotFields) {
    let fields = BotFields {
        name: body.name,
        project_id: Some(body.project_id),
        labels: Some(body.labels),
        tags: Some(body.tags),
        allowed_vendors: Some(body.allowed_vendors),
        allowed_models: Some(body.allowed_models),
        model_aliases: Some(body.model_aliases),
        fallbacks: Some(body.fallbacks),
        key_strategy: body.key_strategy,
        on_disconnect: body.on_disconnect,
        default_max_tokens: Some(body.default_max_tokens),
        include_usage: body.include_usage,
        permissions: Some(body.permissions),
        quotas: Some(body.quotas),
        limits: body.limits.map(Limits::from),
        adapter: body.adapter,
        image: Some(body.image),
        resources: Some(body.resources),
        container: body.container.map(Some),
        template: Some(body.template),
        enabled: None,
    };
    (body.hostname, fields)
}

fn patch_fields(body: PatchBot) -> BotFields {
    BotFields {
        name: body.name,
        project_id: body.project_id,
        labels: body.labels,
        tags: body.tags,
        allowed_vendors: body.allowed_vendors,
        allowed_models: body.allowed_models,
        model_aliases: body.model_aliases,
        fallbacks: body.fallbacks,
        key_strategy: body.key_strategy,
        on_disconnect: body.on_disconnect,
        default_max_tokens: body.default_max_tokens,
        include_usage: body.include_usage,
        permissions: body.permissions,
        quotas: None,
        limits: body.limits.map(Limits::from),
        adapter: None,
        image: body.image,
        resources: body.resources,
        container: body.container,
        template: body.template,
        enabled: body.enabled,
    }
}

/// `POST /bots`
pub async fn create(
    State(app): State<App>,
    inside: InTenant,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictJson { value, bytes }: StrictJson<CreateBot>,
) -> Result<Response, Problem> {
    let (hostname, fields) = new_fields(value);
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let done = domain::create(&at.domain, &within.caller, &within.tenant.id, hostname, fields).await?;
        at.outcome(done, |CreatedBot { bot, token }| {
            let (version, place) = (bot.version, format!("/api/v1/bots/{}", bot.hostname));
            let view = BotView::new(bot, &at.public_url, Some(token.text.to_string()));
            Ok(Outcome::current(&view, version)?.created_at(place))
        })
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// `PATCH /bots/{hostname}`
pub async fn update(edit: Edit, StrictJson { value, .. }: StrictJson<PatchBot>) -> Result<Response, Problem> {
    let fields = patch_fields(value);
    let done = domain::update(edit.domain(), edit.caller(), edit.place(), fields, edit.version).await?;
    let app = edit.app.clone();
    edit.changed(done, |row| current(&app, row)).await
}

/// `DELETE /bots/{hostname}`
pub async fn delete(edit: Edit) -> Result<Response, Problem> {
    let done = domain::delete(edit.domain(), edit.caller(), edit.place(), edit.version).await?;
    Ok(edit.gone(done).await)
}
