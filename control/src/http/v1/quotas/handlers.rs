//! The handlers: one each of the three operations for each kind of thing.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::request::Parts;

use super::views::{CreateQuotaGrant, QuotaSet, QuotaView};
use crate::domain::quotas::{self as domain, Place};
use crate::domain::{Caller, Permission};
use crate::http::auth::{InTenant, Who};
use crate::http::body::{JsonList, StrictJson, UrlPath};
use crate::http::idempotency::{Asker, IdempotencyKey};
use crate::http::outcome::Outcome;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::http::v1::tenants;
use crate::store::types::QuotaScope;

/// A thing that has quotas, as the path names it, and who asks.
pub struct On {
    caller: Caller,
    place: Place,
}

/// What is inside a tenant: a bot by hostname, a project or a key by id.
pub struct Inside {
    inside: InTenant,
    name: String,
}

impl Inside {
    fn on(self, scope: QuotaScope) -> On {
        let place = Place { tenant_id: self.inside.tenant.id, scope, name: self.name };
        On { caller: self.inside.caller, place }
    }
}

impl FromRequestParts<App> for Inside {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let inside = InTenant::from_request_parts(parts, app).await?;
        let UrlPath(name) = UrlPath::from_request_parts(parts, app).await?;
        Ok(Self { inside, name })
    }
}

/// A tenant, by id or slug.
pub struct Whole(On);

impl FromRequestParts<App> for Whole {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let who = Who::from_request_parts(parts, app).await?;
        let UrlPath(name) = UrlPath::<String>::from_request_parts(parts, app).await?;
        let tenant = tenants::find(app, &who.caller.principal, &name).await?;
        let place = Place { tenant_id: tenant.id, scope: QuotaScope::Tenant, name };
        Ok(Self(On { caller: who.caller, place }))
    }
}

async fn list(app: &App, on: On) -> Result<Json<QuotaSet>, Problem> {
    let seeing = match on.place.scope {
        QuotaScope::Bot => Permission::BotRead,
        QuotaScope::Project | QuotaScope::Tenant => Permission::CatalogueRead,
        QuotaScope::ProviderKey => Permission::KeyRead,
    };
    on.caller.principal.require(seeing, &on.place.tenant_id)?;
    Ok(Json(domain::list(&mut *app.read().await?, &on.place).await?.into()))
}

async fn replace(app: &App, on: On, prefer: Prefer, list: JsonList) -> Result<Response, Problem> {
    let done = domain::replace(&app.domain, &on.caller, &on.place, &list.0).await?;
    app.changed(prefer, done, |states| Outcome::list(&QuotaSet::from(states))).await
}

async fn grant(
    app: &App,
    on: On,
    key: IdempotencyKey,
    prefer: Prefer,
    body: StrictJson<CreateQuotaGrant>,
) -> Result<Response, Problem> {
    let StrictJson { value, bytes } = body;
    let (principal, tenant_id) = (on.caller.principal.actor.clone(), on.place.tenant_id.clone());
    let asker = Asker { principal: &principal, tenant_id: &tenant_id };
    let at = app.clone();
    let work = async move {
        let done = domain::grant(&at.domain, &on.caller, &on.place, value.into()).await?;
        at.outcome(done, |state| Outcome::minted(&QuotaView::from(state)))
    };
    key.create(app, asker, &bytes, prefer, work).await
}

macro_rules! operations {
    ($($list:ident, $replace:ident, $grant:ident, $path:literal, $place:ident, $on:expr;)*) => {$(
        #[doc = concat!("`GET ", $path, "/quotas`")]
        pub async fn $list(State(app): State<App>, place: $place) -> Result<Json<QuotaSet>, Problem> {
            list(&app, ($on)(place)).await
        }

        #[doc = concat!("`PUT ", $path, "/quotas`")]
        pub async fn $replace(
            State(app): State<App>,
            place: $place,
            prefer: Prefer,
            body: JsonList,
        ) -> Result<Response, Problem> {
            replace(&app, ($on)(place), prefer, body).await
        }

        #[doc = concat!("`POST ", $path, "/quotas/grants`")]
        pub async fn $grant(
            State(app): State<App>,
            place: $place,
            key: IdempotencyKey,
            prefer: Prefer,
            body: StrictJson<CreateQuotaGrant>,
        ) -> Result<Response, Problem> {
            grant(&app, ($on)(place), key, prefer, body).await
        }
    )*};
}

operations! {
    bot_list, bot_replace, bot_grant, "/bots/{hostname}", Inside, |place: Inside| place.on(QuotaScope::Bot);
    project_list, project_replace, project_grant, "/projects/{id}", Inside,
        |place: Inside| place.on(QuotaScope::Project);
    key_list, key_replace, key_grant, "/provider-keys/{id}", Inside,
        |place: Inside| place.on(QuotaScope::ProviderKey);
    tenant_list, tenant_replace, tenant_grant, "/tenants/{id}", Whole, |place: Whole| place.0;
}
