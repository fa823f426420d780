//! Who a bot is and what it has left, as far as this node knows: of its quotas
//! what the control plane said last.

use std::sync::Arc;

use clawgate_shared::clock;
use serde_json::{Value, json};

use super::Presented;
use super::models::vendors;
use crate::limits::{Metric, QuotaRule, Window};
use crate::snapshot::Bot;

/// Half a month: so long after it began, a calendar month is surely the one it is
/// called by, in every time zone.
const HALF_A_MONTH: i64 = 15 * 86_400_000_000;

/// `GET /v1/usage`
pub(super) fn usage(bot: &Bot) -> Value {
    let rules = bot.quotas.iter().filter(|rule| rule.models.is_none());
    let all: Vec<_> = rules.map(|rule| (rule, rule.slice.window(clock::boot_micros()))).collect();
    let used = |metric| {
        let of_bot = all.iter().filter(|(rule, _)| rule.metric == metric && &*rule.scope == "bot");
        of_bot.filter_map(|(_, window)| window.as_deref().map(spent)).max()
    };
    json!({
        "budget": budget(&all),
        "usage": {
            "summary": {
                "requestCount": used(Metric::Requests),
                "inputTokens": used(Metric::InputTokens),
                "outputTokens": used(Metric::OutputTokens),
                "totalTokens": used(Metric::TotalTokens),
                "actualCostMicros": used(Metric::CostMicros),
            },
            "providers": [],
        },
    })
}

/// What is charged of a window, by the control plane's word or by what this node
/// knows better.
fn spent(window: &Window) -> u64 {
    window.standing().settled.max(window.used())
}

/// The money quota that will refuse first.
fn budget(rules: &[(&Arc<QuotaRule>, Option<Arc<Window>>)]) -> Value {
    let left = |rule: &QuotaRule, window: Option<&Window>| window.map_or(rule.limit, remaining);
    let money = rules.iter().filter(|(rule, _)| rule.metric == Metric::CostMicros);
    let Some((rule, window)) = money.min_by_key(|(rule, window)| left(rule, window.as_deref())) else {
        return json!({
            "configured": false, "ledger": "clawgate", "windowKey": null,
            "limitMicros": null, "spentMicros": null, "remainingMicros": null,
        });
    };
    let known = window.as_deref().filter(|window| window.standing().limit > 0);
    json!({
        "configured": true,
        "ledger": "clawgate",
        "windowKey": known.map(|window| window_key(rule, window.start_micros())),
        "limitMicros": known.map_or(rule.limit, |window| window.standing().limit),
        "spentMicros": known.map(spent),
        "remainingMicros": known.map(remaining),
    })
}

fn remaining(window: &Window) -> u64 {
    window.standing().limit.saturating_sub(spent(window))
}

/// `bot/month/2026-11`: whose, which calendar window, when it began.
fn window_key(rule: &QuotaRule, start: i64) -> String {
    let began = match &*rule.window {
        "total" => String::new(),
        "month" => clock::rfc3339(start.saturating_add(HALF_A_MONTH)).chars().take(7).collect(),
        _ => clock::rfc3339(start),
    };
    format!("{}/{}/{began}", rule.scope, rule.window).trim_end_matches('/').to_owned()
}

/// `GET /v1/me`
pub(super) fn me(bot: &Bot) -> Value {
    json!({
        "authenticated": true,
        "auth": "proxy_key",
        "role": "user",
        "subject": &*bot.id,
        "name": &*bot.hostname,
        "email": null,
        "tenantId": &*bot.tenant.id,
        "projectId": Some(&*bot.project_id).filter(|id| !id.is_empty()),
        "groups": [],
    })
}

/// `GET /v1/key/inspect`: what there is to say of the token that was sent, short
/// of the token.
pub(super) fn inspect(bot: &Bot, token: Presented) -> Value {
    let expires = Some(token.expires_at_micros).filter(|at| *at != 0).map(clock::rfc3339);
    json!({
        "kid": &*bot.id,
        "verified": true,
        "enabled": true,
        "tenantId": &*bot.tenant.id,
        "providers": vendors(bot).into_keys().collect::<Vec<_>>(),
        "models": &bot.literal_models,
        "expiresAt": expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Granted, Outage, Slices, Standing};

    fn rule(slices: &Slices, id: &str, window: &str, settled: Option<u64>) -> Arc<QuotaRule> {
        let slice = slices.of(id);
        if let Some(settled) = settled {
            let standing = Standing { limit: 1000, settled, outstanding: 0, at: 0 };
            // 2026-10-31T16:00:00Z: November has begun in Shanghai.
            let start = 1_793_462_400_000_000;
            slice.renew(
                &Granted {
                    window_start_micros: start,
                    ends: i64::MAX,
                    standing,
                    usable_until: 1,
                    ..Granted::default()
                },
                0,
            );
        }
        Arc::new(QuotaRule {
            slice,
            metric: Metric::CostMicros,
            strict: true,
            cut: false,
            outage: Outage::Deny,
            models: None,
            limit: 900,
            scope: "bot".into(),
            window: window.into(),
        })
    }

    #[test]
    fn the_budget_is_the_money_quota_that_refuses_first() {
        let slices = Slices::default();
        let (wide, narrow) = (rule(&slices, "a", "day", Some(100)), rule(&slices, "b", "month", Some(700)));
        let cold = rule(&slices, "c", "total", None);
        let windows = |rules: &[&Arc<QuotaRule>]| {
            let found: Vec<_> = rules.iter().map(|rule| (*rule, rule.slice.window(0))).collect();
            budget(&found)
        };
        assert_eq!(windows(&[])["configured"], false);
        let found = windows(&[&wide, &narrow, &cold]);
        let wanted = json!({
            "configured": true, "ledger": "clawgate", "windowKey": "bot/month/2026-11",
            "limitMicros": 1000, "spentMicros": 700, "remainingMicros": 300,
        });
        assert_eq!(found, wanted);
        let unknown = windows(&[&cold]);
        assert_eq!((&unknown["limitMicros"], &unknown["spentMicros"]), (&json!(900), &Value::Null));
    }
}
