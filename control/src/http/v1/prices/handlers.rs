//! `GET|PUT /prices`, `POST /prices/import`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use clawgate_shared::clock;
use clawgate_shared::pricing::litellm::{self, PriceFileError};
use http::{HeaderMap, StatusCode};

use super::views::{ImportQuery, PriceImport, PriceSet, PriceView, PricesFilter, PricesScope, ReplacePrices};
use crate::domain::prices as domain;
use crate::domain::{Caller, Permission};
use crate::http::auth::Who;
use crate::http::body::{StrictJson, StrictQuery, TwoQueries, require_json};
use crate::http::page::{Page, PageQuery};
use crate::http::problem::{FieldProblem, Problem};
use crate::http::state::App;
use crate::http::v1::instant;
use crate::prices::Source;

/// Largest price file.
pub const MAX_FILE: usize = 16 << 20;

/// The tenant's id, `None` for the platform.
async fn place(app: &App, who: Who, scope: Option<&str>) -> Result<(Caller, Option<String>), Problem> {
    match scope {
        None | Some("tenant") => {
            let inside = who.enter(app).await?;
            Ok((inside.caller, Some(inside.tenant.id)))
        }
        Some("platform") => Ok((who.caller, None)),
        Some(_) => {
            Err(Problem::bad_parameter(FieldProblem::new("scope", "one_of").saying("must be tenant or platform")))
        }
    }
}

/// `GET /prices`: what is in effect now.
pub async fn list(
    State(app): State<App>,
    who: Who,
    TwoQueries(filter, page): TwoQueries<PricesFilter, PageQuery>,
) -> Result<Json<Page<PriceView>>, Problem> {
    let (caller, tenant_id) = place(&app, who, filter.scope.as_deref()).await?;
    match &tenant_id {
        Some(tenant_id) => caller.principal.require(Permission::CatalogueRead, tenant_id)?,
        None => caller.principal.require_platform(Permission::PriceWrite)?,
    }
    let source = filter.source.as_deref().map(|text| {
        let problem = FieldProblem::new("source", "one_of").saying("must be tenant, platform, import or builtin");
        Source::parse(text).ok_or_else(|| Problem::bad_parameter(problem))
    });
    let source = source.transpose()?;
    let page = page.wanted()?;
    let table = app.fleet.prices().table();
    let model = filter.model.map(|model| model.to_ascii_lowercase());
    let wanted: Vec<_> = table
        .in_effect(tenant_id.as_deref().unwrap_or_default(), clock::now_micros())
        .into_iter()
        .filter(|((vendor, _), _)| filter.vendor.as_deref().is_none_or(|wanted| wanted == *vendor))
        .filter(|((_, name), _)| model.as_deref().is_none_or(|wanted| wanted == *name))
        .filter(|(_, (found, _))| source.is_none_or(|wanted| wanted == *found))
        .map(|((vendor, model), (source, entry))| (format!("{vendor}\n{model}"), vendor, model, source, entry))
        .collect();
    let total = u64::try_from(wanted.len()).ok();
    let fetch = usize::try_from(page.fetch()).unwrap_or(0);
    let rows = wanted.into_iter().filter(|row| row.0.as_str() > page.after()).take(fetch).collect();
    let paged = page.cut(rows, total, |row| row.0.as_str());
    Ok(Json(Page::of(paged, |(_, vendor, model, source, entry)| PriceView::new(vendor, model, source, entry))))
}

/// `PUT /prices`: replaces those set by hand.
pub async fn replace(
    State(app): State<App>,
    who: Who,
    StrictQuery(query): StrictQuery<PricesScope>,
    StrictJson { value, .. }: StrictJson<ReplacePrices>,
) -> Result<Json<PriceSet>, Problem> {
    let (caller, tenant_id) = place(&app, who, query.scope.as_deref()).await?;
    let done = domain::replace(&app.domain, &caller, tenant_id.as_deref(), value.read()?).await?;
    let (rows, _) = app.committed(done);
    take_up(&app).await;
    Ok(Json(PriceSet::from(rows)))
}

/// `POST /prices/import`: takes a price file over, for everybody.
pub async fn import(
    State(app): State<App>,
    who: Who,
    StrictQuery(query): StrictQuery<ImportQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<PriceImport>, Problem> {
    // Before the work: reading a file is not for everybody.
    who.caller.principal.require_platform(Permission::PriceWrite)?;
    require_json(&headers)?;
    let from = instant("effective_from", query.effective_from.as_deref())?;
    let read = tokio::task::spawn_blocking(move || litellm::parse(&body)).await;
    let file = read.map_err(|error| Problem::internal(&error))?.map_err(unreadable)?;
    let skipped = (file.other_vendors, file.not_by_token);
    let done = domain::import(&app.domain, &who.caller, file, from).await?;
    let (imported, _) = app.committed(done);
    take_up(&app).await;
    Ok(Json(PriceImport::new(imported, skipped)))
}

/// Prices are committed: events that arrive from now on get them, unless the
/// database fails just now; then they get them when it is looked at next.
async fn take_up(app: &App) {
    if let Err(error) = app.fleet.prices().refresh(app.db()).await {
        tracing::warn!(%error, "new prices are in effect a few seconds late");
    }
}

fn unreadable(error: PriceFileError) -> Problem {
    match error {
        PriceFileError::NotJson { line, column } => Problem::new(StatusCode::BAD_REQUEST, "invalid_json")
            .with("line", line.to_string())
            .with("column", column.to_string()),
        PriceFileError::TooMany => {
            Problem::invalid(vec![FieldProblem::new("(body)", "length").saying(error.to_string())])
        }
        PriceFileError::Fields(faults) => Problem::invalid(
            faults.into_iter().map(|fault| FieldProblem::new(fault.field, "format").saying(fault.reason)).collect(),
        ),
    }
}
