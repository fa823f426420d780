//! Every URL of the console listener, in one list.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use http::uri::PathAndQuery;
use http::{Uri, header};

use super::api::Api;
use super::layers::{self, AllowedHosts};
use super::openapi::Doc;
use super::page::PageQuery;
use super::pages;
use super::state::App;
use super::test_hooks;
use super::v1::bots::explain::{ExplainRequest, ExplanationView};
use super::v1::bots::requests::{CreateBot, CreateBotToken, PatchBot, RotateBotToken};
use super::v1::bots::views::{BotStats, BotTokenView, BotView};
use super::v1::provider_keys::requests::{
    CreateProviderKey, CreateProviderKeyQuery, PatchProviderKey, RotateProviderKey,
};
use super::v1::provider_keys::views::{ProviderKeyHealth, ProviderKeyVerification, ProviderKeyView};
use super::v1::usage::sums::{BreakdownQuery, StatsQuery, TrendQuery};
use super::v1::usage::views::{UsageBreakdown, UsageLog, UsageStats, UsageTrend};
use super::v1::{
    api_tokens, audit, auth, bots, diagnostics, limits, live, nodes, prices, projects, provider_keys, quotas,
    resource_quota, runners, tenants, usage, vendors,
};
use crate::app::metrics::Metrics;

/// Paths of the original designs and what they mean today.
pub const ALIASES: &[(&str, &str)] = &[
    // Before what they begin with.
    ("/api/bot/admin/orphans", "/api/v1/diagnostics/orphans"),
    ("/api/bot/admin/cleanup", "/api/v1/diagnostics/cleanup"),
    ("/api/bot/status-stream", "/api/v1/events"),
    ("/api/bot", "/api/v1/bots"),
    ("/api/provider-key", "/api/v1/provider-keys"),
    ("/api/v1/instances", "/api/v1/bots"),
];

/// The whole list.
#[must_use]
pub fn api() -> Api {
    runtime(usage(limits(quotas(prices(bots(provider_keys(platform(tenancy(Api::default())))))))))
}

#[rustfmt::skip] // the list is read line by line
fn tenancy(api: Api) -> Api {
    use api_tokens::{ApiTokenView, CreateApiToken, TokensQuery};
    use projects::{CreateProject, PatchProject, ProjectView};
    use tenants::{CreateTenant, PatchTenant, TenantView};
    api.get("/api/v1/auth/me", auth::me,
            Doc::new("getMe", "Who this token is and what it may").answers::<auth::Me>(200))
        .get("/api/v1/tenants", tenants::list,
            Doc::new("listTenants", "Tenants this token may see").query::<PageQuery>()
                .answers_page::<TenantView>())
        .post("/api/v1/tenants", tenants::create,
            Doc::new("createTenant", "Adds a tenant").body::<CreateTenant>().creates().reaches_nodes()
                .answers::<TenantView>(201))
        .get("/api/v1/tenants/{id}", tenants::get,
            Doc::new("getTenant", "One tenant, by id or slug").answers::<TenantView>(200))
        .patch("/api/v1/tenants/{id}", tenants::update,
            Doc::new("updateTenant", "Changes a tenant").body::<PatchTenant>().updates().reaches_nodes()
                .answers::<TenantView>(200))
        .delete("/api/v1/tenants/{id}", tenants::delete,
            Doc::new("deleteTenant", "Deletes a tenant without bots and keys").updates().reaches_nodes()
                .answers_nothing(204))
        .get("/api/v1/projects", projects::list,
            Doc::new("listProjects", "Projects of the tenant").of_tenant().query::<PageQuery>()
                .answers_page::<ProjectView>())
        .post("/api/v1/projects", projects::create,
            Doc::new("createProject", "Adds a project").of_tenant().body::<CreateProject>().creates().reaches_nodes()
                .answers::<ProjectView>(201))
        .get("/api/v1/projects/{id}", projects::get,
            Doc::new("getProject", "One project").of_tenant().answers::<ProjectView>(200))
        .patch("/api/v1/projects/{id}", projects::update,
            Doc::new("updateProject", "Changes a project").of_tenant().body::<PatchProject>().updates().reaches_nodes()
                .answers::<ProjectView>(200))
        .delete("/api/v1/projects/{id}", projects::delete,
            Doc::new("deleteProject", "Deletes a project that nothing is bound to").of_tenant().updates().reaches_nodes()
                .answers_nothing(204))
        .get("/api/v1/api-tokens", api_tokens::list,
            Doc::new("listApiTokens", "API tokens of the tenant").of_tenant().query::<TokensQuery>()
                .answers_page::<ApiTokenView>())
        .post("/api/v1/api-tokens", api_tokens::create,
            Doc::new("createApiToken", "Mints an API token; it is shown once").of_tenant().body::<CreateApiToken>().creates()
                .answers::<ApiTokenView>(201))
        .delete("/api/v1/api-tokens/{id}", api_tokens::delete,
            Doc::new("deleteApiToken", "Revokes an API token").of_tenant().answers_nothing(204))
}

#[rustfmt::skip] // the list is read line by line
fn platform(api: Api) -> Api {
    use audit::{AuditEntry, AuditQuery};
    use nodes::{EnrollToken, NodeStatus};
    use vendors::{CreateVendor, PatchVendor, VendorView};
    api.get("/api/v1/nodes", nodes::list,
            Doc::new("listNodes", "Data-plane nodes").answers_page::<NodeStatus>())
        .get("/api/v1/nodes/{id}", nodes::get,
            Doc::new("getNode", "One data-plane node").answers::<NodeStatus>(200))
        .delete("/api/v1/nodes/{id}", nodes::revoke,
            Doc::new("revokeNode", "Shuts a node out for good; its stream ends").answers_nothing(204))
        .post("/api/v1/nodes/enroll-tokens", nodes::mint,
            Doc::new("createEnrollToken", "Mints a token for one new node: 15 minutes, once").optional_body::<nodes::CreateEnrollToken>().creates()
                .answers::<EnrollToken>(201))
        .get("/api/v1/audit", audit::list,
            Doc::new("listAudit", "The audit log, newest first").of_tenant().query::<AuditQuery>()
                .answers_page::<AuditEntry>())
        .get("/api/v1/vendors", vendors::list,
            Doc::new("listVendors", "The catalogue, then the tenant's own vendors").of_tenant().query::<PageQuery>()
                .answers_page::<VendorView>())
        .post("/api/v1/vendors", vendors::create,
            Doc::new("createVendor", "Adds a vendor of the tenant's own").of_tenant().body::<CreateVendor>().creates().reaches_nodes()
                .answers::<VendorView>(201))
        .get("/api/v1/vendors/{slug}", vendors::get,
            Doc::new("getVendor", "One vendor").of_tenant().answers::<VendorView>(200))
        .patch("/api/v1/vendors/{slug}", vendors::update,
            Doc::new("updateVendor", "Changes a vendor of the tenant's own").of_tenant().body::<PatchVendor>().updates().reaches_nodes()
                .answers::<VendorView>(200))
        .delete("/api/v1/vendors/{slug}", vendors::delete,
            Doc::new("deleteVendor", "Deletes a vendor of the tenant's own").of_tenant().updates().reaches_nodes()
                .answers_nothing(204))
}

#[rustfmt::skip] // the list is read line by line
fn provider_keys(api: Api) -> Api {
    use provider_keys::{KeysQuery, read, verify, write};
    api.get("/api/v1/provider-keys", read::list,
            Doc::new("listProviderKeys", "Provider keys, without their secrets").of_tenant().query::<KeysQuery>()
                .answers_page::<ProviderKeyView>())
        .post("/api/v1/provider-keys", write::create,
            Doc::new("createProviderKey", "Adds a provider key").of_tenant().query::<CreateProviderKeyQuery>().body::<CreateProviderKey>().creates().reaches_nodes()
                .answers::<ProviderKeyView>(201))
        .get("/api/v1/provider-keys/health", read::health,
            Doc::new("getProviderKeyHealth", "Health of every key").of_tenant().query::<KeysQuery>()
                .answers_page::<ProviderKeyHealth>())
        .get("/api/v1/provider-keys/{id}", read::get,
            Doc::new("getProviderKey", "One provider key, without its secret").of_tenant()
                .answers::<ProviderKeyView>(200))
        .patch("/api/v1/provider-keys/{id}", write::update,
            Doc::new("updateProviderKey", "Changes a provider key").of_tenant().body::<PatchProviderKey>().updates().reaches_nodes()
                .answers::<ProviderKeyView>(200))
        .delete("/api/v1/provider-keys/{id}", write::delete,
            Doc::new("deleteProviderKey", "Deletes a provider key").of_tenant().updates().reaches_nodes()
                .answers_nothing(204))
        .post("/api/v1/provider-keys/{id}/rotate", write::rotate,
            Doc::new("rotateProviderKey", "Replaces the secret").of_tenant().body::<RotateProviderKey>().updates().reaches_nodes()
                .answers::<ProviderKeyView>(200))
        .post("/api/v1/provider-keys/{id}/verify", verify::verify,
            Doc::new("verifyProviderKey", "Asks the vendor whether the key works").of_tenant()
                .answers::<ProviderKeyVerification>(200))
}

#[rustfmt::skip] // the list is read line by line
fn bots(api: Api) -> Api {
    use bots::{BotsQuery, explain, lifecycle, read, tokens, write};
    let lifecycle_doc = |id, summary| Doc::new(id, summary).of_tenant().reaches_nodes().answers::<BotView>(200);
    api.get("/api/v1/bots", read::list,
            Doc::new("listBots", "Bots of the tenant").of_tenant().query::<BotsQuery>().answers_page::<BotView>())
        .post("/api/v1/bots", write::create,
            Doc::new("createBot", "Adds a bot; its token is shown once").of_tenant().body::<CreateBot>().creates().reaches_nodes()
                .answers::<BotView>(201))
        .get("/api/v1/bots/stats", read::stats,
            Doc::new("getBotStats", "How many bots there are").of_tenant().answers::<BotStats>(200))
        .get("/api/v1/bots/{hostname}", read::get,
            Doc::new("getBot", "One bot").of_tenant().answers::<BotView>(200))
        .patch("/api/v1/bots/{hostname}", write::update,
            Doc::new("updateBot", "Changes a bot").of_tenant().body::<PatchBot>().updates().reaches_nodes()
                .answers::<BotView>(200))
        .delete("/api/v1/bots/{hostname}", write::delete,
            Doc::new("deleteBot", "Deletes a bot; its streams end").of_tenant().updates().reaches_nodes()
                .answers_nothing(204))
        .post("/api/v1/bots/{hostname}/start", lifecycle::start,
            lifecycle_doc("startBot", "Starts a bot that we run"))
        .post("/api/v1/bots/{hostname}/stop", lifecycle::stop,
            lifecycle_doc("stopBot", "Stops a bot that we run"))
        .post("/api/v1/bots/{hostname}/restart", lifecycle::restart,
            lifecycle_doc("restartBot", "Restarts a bot that we run"))
        .post("/api/v1/bots/{hostname}/kill", lifecycle::kill,
            lifecycle_doc("killBot", "Takes its tokens away; its streams end, and so does its container if we run it"))
        .post("/api/v1/bots/{hostname}/suspend", lifecycle::suspend,
            lifecycle_doc("suspendBot", "Refuses its requests; its streams end"))
        .post("/api/v1/bots/{hostname}/resume", lifecycle::resume,
            lifecycle_doc("resumeBot", "Lifts a suspension"))
        .post("/api/v1/bots/{hostname}/explain", explain::explain,
            Doc::new("explainBot", "What a node would do with a request of a bot, without one").of_tenant().body::<ExplainRequest>()
                .answers::<ExplanationView>(200))
        .get("/api/v1/bots/{hostname}/tokens", tokens::list,
            Doc::new("listBotTokens", "Tokens of a bot").of_tenant().answers_page::<BotTokenView>())
        .post("/api/v1/bots/{hostname}/tokens", tokens::create,
            Doc::new("createBotToken", "Mints one more token; it is shown once").of_tenant().optional_body::<CreateBotToken>().creates().reaches_nodes()
                .answers::<BotTokenView>(201))
        .delete("/api/v1/bots/{hostname}/tokens/{id}", tokens::delete,
            Doc::new("deleteBotToken", "Revokes a token; its streams end").of_tenant().reaches_nodes()
                .answers_nothing(204))
        .post("/api/v1/bots/{hostname}/token", tokens::rotate,
            Doc::new("rotateBotToken", "Mints a token that replaces all others after an overlap").of_tenant().optional_body::<RotateBotToken>().creates().reaches_nodes()
                .answers::<BotTokenView>(201))
}

#[rustfmt::skip] // the list is read line by line
fn runtime(api: Api) -> Api {
    use bots::history::{self as of, BotDiagnostics, BotEventView, BotLogs, BotMetrics, LogsQuery, MetricsQuery};
    use diagnostics::{CleanUp, Orphans};
    use resource_quota::{ResourceLimits, ResourceQuotaView};
    use runners::RunnerView;
    api.get("/api/v1/bots/{hostname}/events", of::events,
            Doc::new("listBotEvents", "What happened to a bot that we run, newest first").of_tenant().query::<PageQuery>()
                .answers_page::<BotEventView>())
        .get("/api/v1/bots/{hostname}/status-history", of::status_history,
            Doc::new("listBotStatusHistory", "The statuses of a bot that we run, newest first").of_tenant().query::<PageQuery>()
                .answers_page::<BotEventView>())
        .get("/api/v1/bots/{hostname}/logs", of::logs,
            Doc::new("getBotLogs", "The last lines that a bot wrote").of_tenant().query::<LogsQuery>().answers::<BotLogs>(200))
        .get("/api/v1/bots/{hostname}/metrics", of::metrics,
            Doc::new("getBotMetrics", "What a bot takes, minute by minute").of_tenant().query::<MetricsQuery>()
                .answers::<BotMetrics>(200))
        .get("/api/v1/bots/{hostname}/diagnostics", of::diagnostics,
            Doc::new("getBotDiagnostics", "What is known of why a bot is as it is").of_tenant().answers::<BotDiagnostics>(200))
        .get("/api/v1/runners", runners::list,
            Doc::new("listRunners", "Runners, which hold container engines").answers_page::<RunnerView>())
        .get("/api/v1/runners/{id}", runners::get,
            Doc::new("getRunner", "One runner").answers::<RunnerView>(200))
        .delete("/api/v1/runners/{id}", runners::revoke,
            Doc::new("revokeRunner", "Shuts a runner out for good; its stream ends").answers_nothing(204))
        .post("/api/v1/runners/enroll-tokens", runners::mint,
            Doc::new("createRunnerEnrollToken", "Mints a token for one new runner: 15 minutes, once").optional_body::<nodes::CreateEnrollToken>().creates()
                .answers::<nodes::EnrollToken>(201))
        .get("/api/v1/diagnostics/orphans", diagnostics::orphans,
            Doc::new("listOrphans", "Containers without a bot, and bots without a container").answers::<Orphans>(200))
        .post("/api/v1/diagnostics/cleanup", diagnostics::cleanup,
            Doc::new("cleanUp", "Clears up what is out of place").answers::<CleanUp>(200))
        .get("/api/v1/tenants/{id}/resource-quota", resource_quota::get,
            Doc::new("getResourceQuota", "What the bots of a tenant may take together").answers::<ResourceQuotaView>(200))
        .put("/api/v1/tenants/{id}/resource-quota", resource_quota::replace,
            Doc::new("replaceResourceQuota", "Replaces what the bots of a tenant may take together").body::<ResourceLimits>()
                .answers::<ResourceQuotaView>(200))
        .get("/api/v1/events", live::events,
            Doc::new("watchEvents", "What just happened, as server-sent events; Last-Event-ID goes on where it broke").of_tenant()
                .answers_text(200, &["text/event-stream"]))
}

#[rustfmt::skip] // the list is read line by line
fn prices(api: Api) -> Api {
    use prices::handlers::{self, MAX_FILE};
    use prices::views::{ImportQuery, LiteLlmPrices, PriceImport, PriceSet, PriceView, PricesFilter, PricesScope, ReplacePrices};
    api.get("/api/v1/prices", handlers::list,
            Doc::new("listPrices", "Prices in effect now").of_tenant().query::<PricesFilter>().query::<PageQuery>()
                .answers_page::<PriceView>())
        .put("/api/v1/prices", handlers::replace,
            Doc::new("replacePrices", "Replaces the prices set by hand").of_tenant().query::<PricesScope>().body::<ReplacePrices>()
                .answers::<PriceSet>(200))
        .post_file("/api/v1/prices/import", MAX_FILE, handlers::import,
            Doc::new("importPrices", "Takes over a price file in LiteLLM's shape, for every tenant").query::<ImportQuery>().body::<LiteLlmPrices>()
                .answers::<PriceImport>(200))
}

#[rustfmt::skip] // the list is read line by line
fn quotas(api: Api) -> Api {
    use quotas::handlers as of;
    use quotas::views::{CreateQuotaGrant, QuotaSet, QuotaView, ReplaceQuotas};
    let list = |id, summary| Doc::new(id, summary).answers::<QuotaSet>(200);
    let replace = |id, summary| Doc::new(id, summary).body::<ReplaceQuotas>().reaches_nodes().answers::<QuotaSet>(200);
    let grant = |id, summary| Doc::new(id, summary).body::<CreateQuotaGrant>().creates().answers::<QuotaView>(201);
    api.get("/api/v1/bots/{hostname}/quotas", of::bot_list,
            list("listBotQuotas", "Quotas of a bot, with what is used of them").of_tenant())
        .put("/api/v1/bots/{hostname}/quotas", of::bot_replace,
            replace("replaceBotQuotas", "Replaces the quotas of a bot; what was used stays used").of_tenant())
        .post("/api/v1/bots/{hostname}/quotas/grants", of::bot_grant,
            grant("grantBotQuota", "Adds to the current window of a bot's quota").of_tenant())
        .get("/api/v1/projects/{id}/quotas", of::project_list,
            list("listProjectQuotas", "Quotas of a project, with what is used of them").of_tenant())
        .put("/api/v1/projects/{id}/quotas", of::project_replace,
            replace("replaceProjectQuotas", "Replaces the quotas of a project; what was used stays used").of_tenant())
        .post("/api/v1/projects/{id}/quotas/grants", of::project_grant,
            grant("grantProjectQuota", "Adds to the current window of a project's quota").of_tenant())
        .get("/api/v1/tenants/{id}/quotas", of::tenant_list,
            list("listTenantQuotas", "Quotas of a tenant, with what is used of them"))
        .put("/api/v1/tenants/{id}/quotas", of::tenant_replace,
            replace("replaceTenantQuotas", "Replaces the quotas of a tenant; what was used stays used"))
        .post("/api/v1/tenants/{id}/quotas/grants", of::tenant_grant,
            grant("grantTenantQuota", "Adds to the current window of a tenant's quota"))
        .get("/api/v1/provider-keys/{id}/quotas", of::key_list,
            list("listProviderKeyQuotas", "Quotas of a provider key, with what is used of them").of_tenant())
        .put("/api/v1/provider-keys/{id}/quotas", of::key_replace,
            replace("replaceProviderKeyQuotas", "Replaces the quotas of a provider key; what was used stays used").of_tenant())
        .post("/api/v1/provider-keys/{id}/quotas/grants", of::key_grant,
            grant("grantProviderKeyQuota", "Adds to the current window of a provider key's quota").of_tenant())
}

#[rustfmt::skip] // the list is read line by line
fn limits(api: Api) -> Api {
    use bots::requests::LimitsBody;
    let get = |id, summary| Doc::new(id, summary).answers::<LimitsBody>(200);
    let put = |id, summary| Doc::new(id, summary).body::<LimitsBody>().updates().reaches_nodes().answers::<LimitsBody>(200);
    api.get("/api/v1/bots/{hostname}/limits", limits::bot_get,
            get("getBotLimits", "Rate and concurrency limits of a bot").of_tenant())
        .put("/api/v1/bots/{hostname}/limits", limits::bot_replace,
            put("replaceBotLimits", "Replaces the limits of a bot; what was used stays used").of_tenant())
        .get("/api/v1/tenants/{id}/limits", limits::tenant_get,
            get("getTenantLimits", "Rate and concurrency limits of all bots of a tenant together"))
        .put("/api/v1/tenants/{id}/limits", limits::tenant_replace,
            put("replaceTenantLimits", "Replaces the limits of a tenant; what was used stays used"))
}

#[rustfmt::skip] // the list is read line by line
fn usage(api: Api) -> Api {
    use usage::handlers as of;
    use usage::export::{self, ExportFormat};
    use usage::logs::{self, LogsFilter, LogsPage};
    use usage::overview::{self, Overview};
    use usage::sums::TenantScope;
    api.get("/api/v1/bots/{hostname}/usage/stats", of::bot_stats,
            Doc::new("getBotUsageStats", "Sums of a bot").of_tenant().query::<StatsQuery>()
                .answers::<UsageStats>(200))
        .get("/api/v1/bots/{hostname}/usage/trend", of::bot_trend,
            Doc::new("getBotUsageTrend", "Sums of a bot over time").of_tenant().query::<TrendQuery>()
                .answers::<UsageTrend>(200))
        .get("/api/v1/bots/{hostname}/usage/breakdown", of::bot_breakdown,
            Doc::new("getBotUsageBreakdown", "Sums of a bot by something").of_tenant().query::<BreakdownQuery>()
                .answers::<UsageBreakdown>(200))
        .get("/api/v1/usage/stats", of::stats,
            Doc::new("getUsageStats", "Sums of the tenant or a part of it").of_tenant().query::<StatsQuery>().query::<TenantScope>()
                .answers::<UsageStats>(200))
        .get("/api/v1/usage/trend", of::trend,
            Doc::new("getUsageTrend", "Sums of the tenant or a part of it over time").of_tenant().query::<TrendQuery>().query::<TenantScope>()
                .answers::<UsageTrend>(200))
        .get("/api/v1/usage/breakdown", of::breakdown,
            Doc::new("getUsageBreakdown", "Sums of the tenant or a part of it by something").of_tenant().query::<BreakdownQuery>().query::<TenantScope>()
                .answers::<UsageBreakdown>(200))
        .get("/api/v1/usage/logs", logs::list,
            Doc::new("listUsageLogs", "Exchanges, newest first").of_tenant().query::<LogsFilter>().query::<LogsPage>()
                .answers_page::<UsageLog>())
        .get("/api/v1/usage/logs/{request_id}", logs::get,
            Doc::new("getUsageLog", "One exchange").of_tenant().answers::<UsageLog>(200))
        .get("/api/v1/usage/export", export::export,
            Doc::new("exportUsage", "Every exchange, newest first, as a file").of_tenant().query::<LogsFilter>().query::<ExportFormat>()
                .answers_text(200, &["text/csv", "application/x-ndjson"]))
        .get("/api/v1/metrics/usage", overview::usage,
            Doc::new("getMetricsUsage", "Today, this week and this month").of_tenant()
                .answers::<overview::UsagePeriods>(200))
        .get("/api/v1/metrics/overview", overview::overview,
            Doc::new("getMetricsOverview", "The tenant at a glance").of_tenant().answers::<Overview>(200))
}

/// The console listener's router with everything around it.
pub fn build(app: App, hosts: AllowedHosts, metrics: Arc<Metrics>, with_test_hooks: bool) -> Router {
    let api = api();
    let document: Arc<str> = api.document(ALIASES).to_string().into();
    let openapi = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response() }
    };
    let hooks = if with_test_hooks { test_hooks::router() } else { Router::new() };
    let pages = hooks
        .route("/", get(pages::console))
        .route("/docs", get(pages::docs))
        .route("/docs/docs.js", get(pages::docs_script))
        .route("/openapi.json", get(openapi));
    let inner =
        api.into_router(pages).with_state(app).layer(middleware::from_fn_with_state((hosts, metrics), layers::around));
    // Rewriting must come before routing, so this router only wraps the other.
    Router::new().fallback_service(tower::util::MapRequest::new(inner, unalias))
}

/// The path of today for a path of the original designs.
fn unalias(mut request: Request) -> Request {
    let path = request.uri().path();
    let renamed = ALIASES.iter().find_map(|(from, to)| {
        let rest = path.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
    });
    if let Some(path) = renamed {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = format!("{path}{query}").parse::<PathAndQuery>().ok().or(parts.path_and_query);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;

    use super::*;

    #[test]
    fn the_document_lists_exactly_the_router() {
        let api = api();
        let listed: BTreeSet<(String, String)> =
            api.operations().map(|(method, path)| (method.as_str().to_ascii_lowercase(), path.to_owned())).collect();
        let document = api.document(ALIASES);
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().expect("item").keys().map(move |method| (method.clone(), path.clone()))
            })
            .collect();
        assert_eq!(listed, documented);
        assert!(listed.len() > 40, "{}", listed.len());
        let ids: BTreeSet<&str> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|item| item.as_object().expect("item").values())
            .map(|operation| operation["operationId"].as_str().expect("id"))
            .collect();
        assert_eq!(ids.len(), listed.len(), "operation ids are unique");
    }

    #[test]
    fn every_schema_is_closed_and_every_reference_leads_somewhere() {
        let document = api().document(ALIASES);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, schema) in schemas {
            if schema["properties"].is_object() {
                assert_eq!(schema["additionalProperties"], false, "{name}");
            }
        }
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn every_list_has_the_schema_of_its_rows() {
        let document = api().document(ALIASES);
        for (path, rows) in
            [("/api/v1/bots", "Bot"), ("/api/v1/audit", "AuditEntry"), ("/api/v1/usage/logs", "UsageLog")]
        {
            let answer = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"];
            assert_eq!(answer["schema"]["$ref"], format!("#/components/schemas/{rows}Page"));
            let page = &document["components"]["schemas"][format!("{rows}Page")];
            assert_eq!(page["properties"]["data"]["items"]["$ref"], format!("#/components/schemas/{rows}"), "{page}");
        }
    }

    #[test]
    fn old_paths_are_rewritten_whole_segments_only() {
        for (path, wanted) in [
            ("/api/bot", "/api/v1/bots"),
            ("/api/bot/demo/usage/stats?period=day", "/api/v1/bots/demo/usage/stats?period=day"),
            ("/api/provider-key/health", "/api/v1/provider-keys/health"),
            ("/api/v1/instances/demo/start", "/api/v1/bots/demo/start"),
            ("/api/v1/bots", "/api/v1/bots"),
            ("/api/bot/admin/orphans", "/api/v1/diagnostics/orphans"),
            ("/api/bot/status-stream", "/api/v1/events"),
            ("/api/bottle", "/api/bottle"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("request");
            assert_eq!(unalias(request).uri(), wanted);
        }
    }
}
