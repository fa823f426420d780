//! Quotas from JSON, each field with its default.

use serde_json::{Map, Value};

use crate::domain::rules::Errors;
use crate::store::types::{QuotaAction, QuotaMetric, QuotaMode, QuotaOnExceed, QuotaOnOutage, QuotaSpec, QuotaWindow};

/// Quotas of one thing.
const MAX_QUOTAS: usize = 32;
/// Largest limit, and largest grant.
pub(super) const MAX_LIMIT: u64 = 1_000_000_000_000_000_000;
const FIELDS: &[&str] = &["metric", "window", "limit", "model", "action", "warn_pct", "mode", "on_exceed", "on_outage"];

/// Reads them; what cannot be read is noted, below `list`, and left out.
pub(in crate::domain) fn parse(errors: &mut Errors, list: &str, values: &[Value]) -> Vec<QuotaSpec> {
    if values.len() > MAX_QUOTAS {
        errors.add(
            if list.is_empty() { "(body)" } else { list },
            "length",
            format!("must have at most {MAX_QUOTAS} entries"),
        );
        return Vec::new();
    }
    let mut found: Vec<QuotaSpec> = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let field = format!("{list}[{at}]");
        let Some(object) = value.as_object() else {
            errors.add(field, "type", "must be an object");
            continue;
        };
        let Some(quota) = one(errors, &field, object) else { continue };
        let same = |other: &QuotaSpec| {
            (other.metric, other.window, &other.model) == (quota.metric, quota.window, &quota.model)
        };
        if found.iter().any(same) {
            errors.add(field, "duplicate", "has the metric, window and model of another one");
        } else {
            found.push(quota);
        }
    }
    found
}

fn one(errors: &mut Errors, field: &str, object: &Map<String, Value>) -> Option<QuotaSpec> {
    for name in object.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        errors.add(format!("{field}.{name}"), "unknown", "is no field of a quota");
    }
    let mut reader = Reader { errors, field, object };
    let metric = reader.choice("metric", QuotaMetric::ALL, QuotaMetric::as_str, None);
    let window = reader.choice("window", QuotaWindow::ALL, QuotaWindow::as_str, None);
    let limit = reader.number("limit", 1, MAX_LIMIT, None);
    let model = reader.model();
    let action = reader.choice("action", QuotaAction::ALL, QuotaAction::as_str, Some(QuotaAction::Block));
    let warn_pct = reader.number("warn_pct", 1, 100, Some(80));
    let mode = reader.choice("mode", QuotaMode::ALL, QuotaMode::as_str, Some(QuotaMode::Strict));
    let on_exceed = reader.choice("on_exceed", QuotaOnExceed::ALL, QuotaOnExceed::as_str, Some(QuotaOnExceed::Refuse));
    let on_outage = reader.choice("on_outage", QuotaOnOutage::ALL, QuotaOnOutage::as_str, Some(QuotaOnOutage::Deny));
    Some(QuotaSpec {
        metric: metric?,
        window: window?,
        limit: limit?,
        model,
        action: action?,
        warn_pct: u8::try_from(warn_pct?).ok()?,
        mode: mode?,
        on_exceed: on_exceed?,
        on_outage: on_outage?,
    })
}

struct Reader<'a> {
    errors: &'a mut Errors,
    field: &'a str,
    object: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.field)
    }

    fn choice<T: Copy>(
        &mut self,
        name: &str,
        all: &[T],
        text: impl Fn(T) -> &'static str,
        default: Option<T>,
    ) -> Option<T> {
        let path = self.path(name);
        match self.object.get(name) {
            None | Some(Value::Null) => {
                if default.is_none() {
                    self.errors.add(path, "required", "is required");
                }
                default
            }
            Some(Value::String(given)) => self.errors.choice(&path, given, all, text),
            Some(_) => {
                self.errors.add(path, "type", "must be a string");
                None
            }
        }
    }

    fn number(&mut self, name: &str, min: u64, max: u64, default: Option<u64>) -> Option<u64> {
        let path = self.path(name);
        match self.object.get(name) {
            None | Some(Value::Null) => {
                if default.is_none() {
                    self.errors.add(path, "required", "is required");
                }
                default
            }
            Some(value) => match value.as_u64() {
                Some(number) => {
                    self.errors.range(&path, number, min, max);
                    Some(number)
                }
                None => {
                    self.errors.add(path, "type", "must be a whole number");
                    None
                }
            },
        }
    }

    fn model(&mut self) -> Option<String> {
        let path = self.path("model");
        match self.object.get("model") {
            None | Some(Value::Null) => None,
            Some(Value::String(model)) => {
                self.errors.model(&path, model);
                Some(model.clone())
            }
            Some(_) => {
                self.errors.add(path, "type", "must be a string");
                None
            }
        }
    }
}
