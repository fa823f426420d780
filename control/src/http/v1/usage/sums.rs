//! Stats, trend and breakdown of any scope: the operations of one bot and of
//! the whole tenant differ in the scope only.

use std::collections::BTreeMap;

use clawgate_shared::clock;
use jiff::tz::TimeZone;
use serde::Deserialize;
use utoipa::IntoParams;

use super::views::{BreakdownGroup, TrendPoint, UsageBreakdown, UsageStats, UsageTrend, labels};
use super::window::{self, Unit, Window};
use crate::http::body::Named;
use crate::http::problem::{FieldProblem, Problem};
use crate::store::Db;
use crate::store::usage_query::{self, By, DAY, HOUR, Scope, Slot, Span, Sums};

/// The most groups of a breakdown; the rest of a longer list is left out.
const MAX_GROUPS: usize = 1000;
/// Days whose slots one statement may return ([`usage_query::MAX_GROUPS`]), in
/// quarters of an hour, hours or days.
const DAYS: [i64; 3] = [100, 400, 9600];

/// Of which tenant, which part, in which calendar.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Tenant id.
    pub tenant_id: String,
    /// The tenant's time zone.
    pub zone: TimeZone,
    /// Bot id, when it is one bot's.
    pub bot_id: Option<String>,
    /// Project id, when it is one project's.
    pub project_id: Option<String>,
}

impl Whose {
    fn span(&self, window: Window) -> Span<'_> {
        let scope = match (&self.bot_id, &self.project_id) {
            (Some(bot), _) => Scope::Bot(bot),
            (None, Some(project)) => Scope::Project(project),
            (None, None) => Scope::Tenant,
        };
        Span { tenant_id: &self.tenant_id, scope, from: window.from, to: window.to }
    }
}

/// Narrows the sums of a tenant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TenantScope {
    /// Only this bot (hostname).
    pub bot: Option<String>,
    /// Only this project (id).
    pub project_id: Option<String>,
}

impl Named for TenantScope {
    const NAMES: &'static [&'static str] = &["bot", "project_id"];
}

/// `…/stats`
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StatsQuery {
    /// day (default), week or month of the tenant's calendar.
    period: Option<String>,
    /// A date (first day) or an RFC 3339 time; inclusive.
    start_date: Option<String>,
    /// A date (day after the last) or an RFC 3339 time; exclusive.
    end_date: Option<String>,
}

/// `…/trend`
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrendQuery {
    /// hour, day (default) or week of the tenant's calendar.
    granularity: Option<String>,
    /// A date (first day) or an RFC 3339 time; inclusive.
    start_date: Option<String>,
    /// A date (day after the last) or an RFC 3339 time; exclusive.
    end_date: Option<String>,
}

/// `…/breakdown`
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BreakdownQuery {
    /// vendor (default), model, status, key, bot, project, label, agent or session.
    group_by: Option<String>,
    /// A date (first day) or an RFC 3339 time; inclusive. Without dates: this month.
    start_date: Option<String>,
    /// A date (day after the last) or an RFC 3339 time; exclusive.
    end_date: Option<String>,
}

fn unit_of(field: &str, text: Option<&str>, default: Unit, allowed: &[Unit], names: &str) -> Result<Unit, Problem> {
    let Some(text) = text else { return Ok(default) };
    Unit::parse(text)
        .filter(|unit| allowed.contains(unit))
        .ok_or_else(|| Problem::bad_parameter(FieldProblem::new(field, "one_of").saying(format!("must be {names}"))))
}

/// Sums of a span.
///
/// # Errors
/// A wrong parameter, or as the database answers.
pub async fn stats(db: &Db, whose: &Whose, query: &StatsQuery) -> Result<UsageStats, Problem> {
    let allowed = [Unit::Day, Unit::Week, Unit::Month];
    let unit = unit_of("period", query.period.as_deref(), Unit::Day, &allowed, "day, week or month")?;
    let dates = (query.start_date.as_deref(), query.end_date.as_deref());
    let window = window::span(unit, 1, dates, &whose.zone, clock::now_micros())?;
    let sums = usage_query::totals(&mut *db.snapshot().await?, &whose.span(window)).await?;
    Ok(sums.into())
}

/// Sums along a span.
///
/// # Errors
/// As [`stats`].
pub async fn trend(db: &Db, whose: &Whose, query: &TrendQuery) -> Result<UsageTrend, Problem> {
    let allowed = [Unit::Hour, Unit::Day, Unit::Week];
    let unit = unit_of("granularity", query.granularity.as_deref(), Unit::Day, &allowed, "hour, day or week")?;
    let units = match unit {
        Unit::Hour => 24,
        Unit::Week => 8,
        Unit::Day | Unit::Month => 7,
    };
    let dates = (query.start_date.as_deref(), query.end_date.as_deref());
    let window = window::span(unit, units, dates, &whose.zone, clock::now_micros())?;
    let points = window::points(unit, window, &whose.zone)?;
    // What begins within the span decides how finely it is read.
    let inner = || points.iter().filter(|start| **start > window.from);
    let (slot, days) = if inner().all(|start| start % DAY == 0) {
        (Slot::Day, DAYS[2])
    } else if inner().all(|start| start % HOUR == 0) {
        (Slot::Hour, DAYS[1])
    } else {
        (Slot::Quarter, DAYS[0])
    };
    let mut sums = vec![Sums::default(); points.len()];
    let mut from = window.from;
    let mut conn = db.snapshot().await?;
    while from < window.to {
        // Later parts begin at a full slot.
        let to = (from - from.rem_euclid(DAY) + days * DAY).min(window.to);
        for cell in usage_query::slots(&mut conn, &whose.span(Window { from, to }), slot).await? {
            // A slot that the span cuts off begins before it.
            let at = points.partition_point(|start| *start <= cell.slot.max(window.from)).saturating_sub(1);
            if let Some(sum) = sums.get_mut(at) {
                sum.add(&cell.sums);
            }
        }
        from = to;
    }
    let data_points = points.iter().zip(&sums).map(|(start, sums)| TrendPoint::new(*start, sums)).collect();
    Ok(UsageTrend { data_points })
}

/// Sums by something.
///
/// # Errors
/// As [`stats`].
pub async fn breakdown(db: &Db, whose: &Whose, query: &BreakdownQuery) -> Result<UsageBreakdown, Problem> {
    let by = match query.group_by.as_deref().unwrap_or("vendor") {
        "vendor" => By::Vendor,
        "model" => By::Model,
        "status" => By::Status,
        "key" => By::Key,
        "bot" => By::Bot,
        "project" => By::Project,
        "label" => By::Labels,
        "agent" => By::Agent,
        "session" => By::Session,
        _ => {
            let allowed = "must be vendor, model, status, key, bot, project, label, agent or session";
            return Err(Problem::bad_parameter(FieldProblem::new("groupBy", "one_of").saying(allowed)));
        }
    };
    let dates = (query.start_date.as_deref(), query.end_date.as_deref());
    let window = window::span(Unit::Month, 1, dates, &whose.zone, clock::now_micros())?;
    let span = whose.span(window);
    let mut conn = db.snapshot().await?;
    let cells = usage_query::groups(&mut conn, &span, by).await?;
    let whole = usage_query::totals(&mut conn, &span).await?.total;
    let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
    for cell in &cells {
        for key in keys(by, &cell.group) {
            groups.entry(key).or_default().add(&cell.sums);
        }
    }
    if matches!(by, By::Bot | By::Project) {
        groups = rename(groups, &usage_query::names(&mut conn, &whose.tenant_id, by).await?);
    }
    let mut groups: Vec<(String, Sums)> = groups.into_iter().collect();
    groups.sort_by(|(a_key, a), (b_key, b)| {
        b.total.cmp(&a.total).then(b.requests.cmp(&a.requests)).then(a_key.cmp(b_key))
    });
    groups.truncate(MAX_GROUPS);
    let groups = groups.into_iter().map(|(key, sums)| BreakdownGroup::new(key, &sums, whole)).collect();
    Ok(UsageBreakdown { groups })
}

/// An exchange with two labels belongs to two groups.
fn keys(by: By, group: &str) -> Vec<String> {
    if by != By::Labels {
        return vec![group.to_owned()];
    }
    let labels = labels(group).unwrap_or_default();
    if labels.is_empty() {
        return vec![String::new()];
    }
    labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Ids into the names people know; two ids of one name stay one group.
fn rename(groups: BTreeMap<String, Sums>, names: &BTreeMap<String, String>) -> BTreeMap<String, Sums> {
    let mut renamed: BTreeMap<String, Sums> = BTreeMap::new();
    for (id, sums) in groups {
        let name = names.get(&id).cloned().unwrap_or(id);
        renamed.entry(name).or_default().add(&sums);
    }
    renamed
}
