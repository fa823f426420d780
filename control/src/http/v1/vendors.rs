//! The vendor catalogue: built-in vendors and a tenant's own.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use clawgate_shared::catalogue::{self, Root, RootTarget, Route, RouteClass, Vendor};
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Permission;
use crate::domain::vendors::{self as domain, NewVendor, VendorPatch};
use crate::http::auth::InTenant;
use crate::http::body::{StrictJson, StrictQuery, UrlPath, present};
use crate::http::edit::Edit;
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::{Page, PageQuery};
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::vendors::{self, VendorRow};

/// A vendor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Vendor)]
pub struct VendorView {
    /// null: built in.
    id: Option<String>,
    /// The path segment: `/v1/{slug}/…`.
    slug: String,
    title: String,
    /// null: every key carries its own.
    base_url: Option<String>,
    /// Whether it is in the catalogue of this release.
    builtin: bool,
    /// bearer, x-api-key, x-goog-api-key, api-key, query:NAME or none.
    auth: String,
    /// openai, anthropic or gemini.
    dialect: String,
    /// inject, never or passthrough.
    include_usage: String,
    /// Path prefixes and where they lead.
    roots: Vec<VendorRoot>,
    /// What may be called; empty for a custom vendor: what its dialect has.
    routes: Vec<VendorRoute>,
    /// Where a person gets a key.
    key_page: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

/// A path prefix below `/v1/{slug}/`.
#[derive(Debug, Serialize, ToSchema)]
pub struct VendorRoot {
    prefix: String,
    /// null: the base URL; else this path on its origin.
    path: Option<String>,
}

/// A route that may be called.
#[derive(Debug, Serialize, ToSchema)]
pub struct VendorRoute {
    pattern: String,
    /// Empty: any.
    methods: Vec<&'static str>,
    /// inference, account_resource or forbidden.
    class: &'static str,
}

impl From<&Root> for VendorRoot {
    fn from(root: &Root) -> Self {
        let path = match &root.target {
            RootTarget::Base => None,
            RootTarget::Path(path) => Some(path.clone().into_owned()),
        };
        Self { prefix: root.prefix.clone().into_owned(), path }
    }
}

impl From<&Route> for VendorRoute {
    fn from(route: &Route) -> Self {
        let class = match route.class {
            RouteClass::Inference => "inference",
            RouteClass::AccountResource(_) => "account_resource",
            RouteClass::Forbidden => "forbidden",
        };
        Self { pattern: route.pattern.clone().into_owned(), methods: route.methods.to_vec(), class }
    }
}

impl From<&Vendor> for VendorView {
    fn from(vendor: &Vendor) -> Self {
        Self {
            id: None,
            slug: vendor.slug.clone().into_owned(),
            title: vendor.title.clone().into_owned(),
            base_url: vendor.base_url.clone().map(catalogue::Text::into_owned),
            builtin: true,
            auth: vendor.auth.name().into_owned(),
            dialect: vendor.dialect.as_str().to_owned(),
            include_usage: vendor.include_usage.as_str().to_owned(),
            roots: vendor.roots.iter().map(VendorRoot::from).collect(),
            routes: vendor.routes.iter().map(VendorRoute::from).collect(),
            key_page: Some(vendor.key_page.clone().into_owned()).filter(|page| !page.is_empty()),
            created_at: None,
            updated_at: None,
        }
    }
}

impl From<VendorRow> for VendorView {
    fn from(row: VendorRow) -> Self {
        let route = |pattern| VendorRoute { pattern, methods: Vec::new(), class: "inference" };
        Self {
            id: Some(row.id),
            slug: row.slug,
            title: row.title,
            base_url: Some(row.base_url),
            builtin: false,
            auth: row.auth,
            dialect: row.dialect,
            include_usage: if row.include_usage.is_empty() { "passthrough".into() } else { row.include_usage },
            roots: Vec::new(),
            routes: row.routes.into_iter().map(route).collect(),
            key_page: None,
            created_at: Some(clock::rfc3339(row.created_at)),
            updated_at: Some(clock::rfc3339(row.updated_at)),
        }
    }
}

/// A new vendor of the tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVendor {
    /// Unique in the tenant; not one of the catalogue's.
    pub slug: String,
    /// For people; the slug unless given.
    pub title: Option<String>,
    /// With the version part, as its documentation says.
    pub base_url: String,
    /// bearer (default), x-api-key, x-goog-api-key, api-key, query:NAME or none.
    pub auth: Option<String>,
    /// openai (default), anthropic or gemini.
    pub dialect: Option<String>,
    /// inject, never or passthrough.
    pub include_usage: Option<String>,
    /// Paths below the base URL that may be called; empty: what the dialect has.
    #[serde(default)]
    pub routes: Vec<String>,
}

/// Changes to a vendor of the tenant; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchVendor {
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub title: Option<String>,
    /// With the version part.
    #[serde(default, deserialize_with = "present")]
    pub base_url: Option<String>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub auth: Option<String>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub dialect: Option<String>,
    /// As in create.
    #[serde(default, deserialize_with = "present")]
    pub include_usage: Option<String>,
    /// Replaces all.
    #[serde(default, deserialize_with = "present")]
    pub routes: Option<Vec<String>>,
}

fn current(row: VendorRow) -> Result<Outcome, Problem> {
    let version = row.version;
    Outcome::current(&VendorView::from(row), version)
}

fn created(row: VendorRow) -> Result<Outcome, Problem> {
    let at = format!("/api/v1/vendors/{}", row.slug);
    Ok(current(row)?.created_at(at))
}

/// `GET /vendors`: the first page begins with the whole catalogue; its rows do
/// not count to `limit` and are in `total`.
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Json<Page<VendorView>>, Problem> {
    inside.require(Permission::CatalogueRead)?;
    let page = query.wanted()?;
    let paged = vendors::list(&mut *app.read().await?, &inside.tenant.id, &page).await?;
    let mut own = Page::of(paged, VendorView::from);
    let builtin = catalogue::all();
    own.total = own.total.map(|total| total.saturating_add(builtin.len() as u64));
    if page.after().is_empty() {
        own.data.splice(0..0, builtin.iter().map(VendorView::from));
    }
    Ok(Json(own))
}

/// `GET /vendors/{slug}`
pub async fn get(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(slug): UrlPath<String>,
) -> Result<Response, Problem> {
    inside.require(Permission::CatalogueRead)?;
    if let Some(vendor) = catalogue::find(&slug) {
        return Ok(Json(VendorView::from(vendor)).into_response());
    }
    let row = vendors::get(&mut *app.read().await?, &inside.tenant.id, &slug).await?;
    Ok(current(row.ok_or(Problem::not_found("vendor"))?)?.into_response())
}

/// `POST /vendors`
pub async fn create(
    State(app): State<App>,
    inside: InTenant,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictJson { value, bytes }: StrictJson<CreateVendor>,
) -> Result<Response, Problem> {
    let CreateVendor { slug, title, base_url, auth, dialect, include_usage, routes } = value;
    let new = NewVendor { slug, title, base_url, auth, dialect, include_usage, routes };
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let done = domain::create(&at.domain, &within.caller, &within.tenant.id, new).await?;
        at.outcome(done, created)
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// `PATCH /vendors/{slug}`
pub async fn update(edit: Edit, StrictJson { value, .. }: StrictJson<PatchVendor>) -> Result<Response, Problem> {
    let PatchVendor { title, base_url, auth, dialect, include_usage, routes } = value;
    let patch = VendorPatch { title, base_url, auth, dialect, include_usage, routes };
    let done = domain::update(edit.domain(), edit.caller(), edit.place(), patch, edit.version).await?;
    edit.changed(done, current).await
}

/// `DELETE /vendors/{slug}`
pub async fn delete(edit: Edit) -> Result<Response, Problem> {
    let done = domain::delete(edit.domain(), edit.caller(), edit.place(), edit.version).await?;
    Ok(edit.gone(done).await)
}
