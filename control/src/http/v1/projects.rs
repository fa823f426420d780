//! Projects of a tenant.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Permission;
use crate::domain::projects::{self as domain, NewProject, ProjectPatch};
use crate::http::auth::InTenant;
use crate::http::body::{StrictJson, StrictQuery, UrlPath, present};
use crate::http::edit::Edit;
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::{Page, PageQuery};
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::projects::{self, ProjectRow};

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub struct ProjectView {
    id: String,
    slug: String,
    name: String,
    description: String,
    created_at: String,
    updated_at: String,
}

impl From<ProjectRow> for ProjectView {
    fn from(row: ProjectRow) -> Self {
        Self {
            id: row.id,
            slug: row.slug,
            name: row.name,
            description: row.description,
            created_at: clock::rfc3339(row.created_at),
            updated_at: clock::rfc3339(row.updated_at),
        }
    }
}

/// A new project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// Unique in the tenant.
    pub slug: String,
    /// For people; the slug unless given.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// Changes to a project; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchProject {
    /// Unique in the tenant.
    #[serde(default, deserialize_with = "present")]
    pub slug: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub name: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub description: Option<String>,
}

fn current(row: ProjectRow) -> Result<Outcome, Problem> {
    let version = row.version;
    Outcome::current(&ProjectView::from(row), version)
}

fn created(row: ProjectRow) -> Result<Outcome, Problem> {
    let at = format!("/api/v1/projects/{}", row.id);
    Ok(current(row)?.created_at(at))
}

/// `GET /projects`
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Json<Page<ProjectView>>, Problem> {
    inside.require(Permission::CatalogueRead)?;
    let page = query.wanted()?;
    let paged = projects::list(&mut *app.read().await?, &inside.tenant.id, &page).await?;
    Ok(Json(Page::of(paged, ProjectView::from)))
}

/// `GET /projects/{id}`
pub async fn get(State(app): State<App>, inside: InTenant, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    inside.require(Permission::CatalogueRead)?;
    let row = projects::get(&mut *app.read().await?, &inside.tenant.id, &id).await?;
    Ok(current(row.ok_or(Problem::not_found("project"))?)?.into_response())
}

/// `POST /projects`
pub async fn create(
    State(app): State<App>,
    inside: InTenant,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictJson { value, bytes }: StrictJson<CreateProject>,
) -> Result<Response, Problem> {
    let CreateProject { slug, name, description } = value;
    let new = NewProject { slug, name, description };
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let done = domain::create(&at.domain, &within.caller, &within.tenant.id, new).await?;
        at.outcome(done, created)
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// `PATCH /projects/{id}`
pub async fn update(edit: Edit, StrictJson { value, .. }: StrictJson<PatchProject>) -> Result<Response, Problem> {
    let PatchProject { slug, name, description } = value;
    let patch = ProjectPatch { slug, name, description };
    let done = domain::update(edit.domain(), edit.caller(), edit.place(), patch, edit.version).await?;
    edit.changed(done, current).await
}

/// `DELETE /projects/{id}`
pub async fn delete(edit: Edit) -> Result<Response, Problem> {
    let done = domain::delete(edit.domain(), edit.caller(), edit.place(), edit.version).await?;
    Ok(edit.gone(done).await)
}
