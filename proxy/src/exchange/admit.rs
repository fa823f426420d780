//! Holding what a request may cost before it is sent: all of it, or a refusal
//! that says what would help.

use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::catalogue::RouteClass;
use clawgate_shared::clock;
use clawgate_shared::dialect::Protocol;
use clawgate_shared::pricing::{Price, candidates};
use http::Method;
use tokio::time::{Instant, timeout_at};

use super::Services;
use super::prepare::Prepared;
use super::receive::Received;
use super::record::Facts;
use super::reject::Refusal;
use crate::limits::{Hold, Metric, Outage, QuotaRule, Standing, Usual, Window};
use crate::quota::{Bound, Demand, Permit, Verdict, judge};
use crate::routing::Key;
use crate::snapshot::{Bot, Tenant};
use crate::wire::error::Code;
use crate::wire::splice::{self, LimitField, Splice};
use crate::wire::{Input, input};

/// How long a request waits for what others hold or for a lease.
const WAIT: Duration = Duration::from_millis(250);
/// What `on_outage: allowance` lets through: one part in so many of the limit.
const ALLOWANCE: u64 = 10;

/// What a request may cost, and what it must be changed for that.
#[derive(Debug)]
pub struct Weight {
    model: String,
    bound: Bound,
    answers: u64,
    /// What 95 of 100 such requests use at most, when that is known and a quota
    /// goes by it.
    expected: Option<Bound>,
    /// Where to remember what this one uses.
    pub usual: Option<Arc<Usual>>,
    /// The model's, when a quota counts money.
    pub price: Option<Arc<Price>>,
    /// It costs nothing that a vendor bills by content.
    free: bool,
    /// What is in the prompt is known to the vendor only.
    pub prompt_elsewhere: bool,
    /// The output limit that is put in, when the client sent none.
    pub limit: Option<(Splice, u64)>,
}

/// Weighs a request, if any quota may want to know.
///
/// # Errors
/// It cannot be counted, or not in time, and a quota demands it.
pub fn weigh(
    services: &Services,
    bot: &Bot,
    received: &Received,
    prepared: &Prepared<'_>,
    model: &str,
) -> Result<Option<Weight>, Refusal> {
    let pool = bot.pools.get(prepared.vendor.slug.as_ref()).filter(|pool| pool.any_quotas);
    let of_keys = pool.into_iter().flat_map(|pool| &pool.keys).flat_map(|key| &key.quotas);
    let mut rules = bot.quotas.iter().chain(of_keys).filter(|rule| rule.covers(model)).peekable();
    if rules.peek().is_none() {
        return Ok(None);
    }
    let by_content: Vec<&Arc<QuotaRule>> = rules.filter(|rule| rule.metric.is_of_content()).collect();
    let free = by_content.is_empty() || !spends(received, prepared);
    if !free {
        countable(prepared)?;
    }
    let strict = !free && by_content.iter().any(|rule| rule.strict);
    let limit =
        bot.default_max_tokens.filter(|_| strict).and_then(|tokens| Some((set_limit(prepared, tokens)?, tokens)));
    let demand = (!free).then(|| demand(prepared, model, limit.as_ref()));
    let bound = demand.as_ref().map(Bound::of).unwrap_or_default();
    let answers = demand.as_ref().map_or(1, Demand::all_answers);
    let prompt_elsewhere = demand.is_some_and(|demand| demand.input.unbounded || demand.input.images > 0);
    let priced = !free && by_content.iter().any(|rule| rule.metric == Metric::CostMicros);
    let price = if priced { Some(price(&bot.tenant, &prepared.vendor.slug, model)?) } else { None };
    if priced && bound.amount(Metric::CostMicros, price.as_deref()).is_none() {
        let text = format!("a money quota applies and the price of model {model:?} does not say what all of it costs");
        return Err(Refusal::new(Code::ModelUnpriced, text));
    }
    let learns = !free && by_content.iter().any(|rule| !rule.strict);
    let usual = if learns { services.learned.of(&bot.id, model) } else { None };
    let expected = usual.as_ref().and_then(|usual| usual.bound());
    let expected =
        expected.map(|(input, output)| Bound { input: input.min(bound.input), output: output.min(bound.output) });
    Ok(Some(Weight { model: model.to_owned(), bound, answers, expected, usual, price, free, prompt_elsewhere, limit }))
}

impl Weight {
    /// What is held under a rule: all that it may cost, or what it usually does.
    fn bound_for(&self, rule: &QuotaRule) -> &Bound {
        if rule.strict { &self.bound } else { self.expected.as_ref().unwrap_or(&self.bound) }
    }

    /// What puts the output limit in.
    #[must_use]
    pub fn splice(&self) -> Option<Splice> {
        self.limit.as_ref().map(|(splice, _)| splice.clone())
    }

    /// The strict bound of a request that is billed by content.
    #[must_use]
    pub fn counted(&self) -> Option<Bound> {
        (!self.free).then_some(self.bound)
    }

    /// The output for which every rule has held.
    #[must_use]
    pub fn held_output(&self) -> u64 {
        self.expected.as_ref().map_or(self.bound.output, |bound| bound.output)
    }
}

/// Whether a vendor bills this request by what is in it.
pub fn spends(received: &Received, prepared: &Prepared<'_>) -> bool {
    let reads = matches!(received.method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    let route = &prepared.resolved.route;
    let batch = route.pattern.to_ascii_lowercase().contains("batch");
    let bills = route.class == RouteClass::Inference || batch;
    let free = route.protocol == Protocol::PromptCount || route.pattern.ends_with("moderations");
    prepared.websocket || (!reads && bills && !free)
}

/// What is done later or elsewhere cannot be held to a limit now.
fn countable(prepared: &Prepared<'_>) -> Result<(), Refusal> {
    let route = &prepared.resolved.route;
    let resource = matches!(route.class, RouteClass::AccountResource(_));
    let batch = resource && route.pattern.to_ascii_lowercase().contains("batch");
    let deferred = batch || prepared.peek.is_some_and(|peek| peek.background);
    if prepared.websocket && !deferred {
        return Err(no_session());
    }
    let text = if deferred {
        "a quota applies, and deferred work (batches, background) cannot be held to it; send the request directly"
    } else if !route.protocol.is_bounded() && !embeds(prepared) {
        "a quota on tokens or money applies, and the most that a request on this route may use is not known"
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::PathDenied, text))
}

/// A session begins responses by itself: nobody could hold for each before it is
/// under way.
pub(super) fn no_session() -> Refusal {
    let text = "a quota applies, and a WebSocket cannot be held to it; use the route's HTTP form";
    Refusal::new(Code::PathDenied, text)
}

/// The key of an exchange that was sent.
pub(super) fn key_of<'b>(bot: &'b Bot, facts: &Facts) -> Option<&'b Key> {
    let (id, _) = facts.key.as_ref()?;
    let pool = bot.pools.get(facts.vendor.as_str())?;
    pool.keys.iter().find(|key| key.id == *id).map(Arc::as_ref)
}

/// Whether a quota goes by the content of some models' answers.
pub(super) fn counts_content(bot: &Bot, key: Option<&Key>) -> bool {
    counting(bot, key).next().is_some()
}

/// Whether a quota goes by the content of this model's answers.
pub(super) fn counts_content_of(bot: &Bot, key: Option<&Key>, model: &str) -> bool {
    counting(bot, key).any(|rule| rule.covers(model))
}

fn counting<'b>(bot: &'b Bot, key: Option<&'b Key>) -> impl Iterator<Item = &'b Arc<QuotaRule>> {
    let of_key = key.map_or(&[][..], |key| &key.quotas);
    bot.quotas.iter().chain(of_key).filter(|rule| rule.metric.is_of_content())
}

/// Holds one request of a model under every rule that counts requests.
///
/// # Errors
/// As [`admit`].
pub(super) async fn request(services: &Services, rules: &[Arc<QuotaRule>], model: &str) -> Result<Permit, Refusal> {
    if rules.is_empty() {
        return Ok(Permit::default());
    }
    let weight = Weight {
        model: model.to_owned(),
        bound: Bound::default(),
        answers: 1,
        expected: None,
        usual: None,
        price: None,
        free: true,
        prompt_elsewhere: false,
        limit: None,
    };
    admit(services, rules, &weight).await
}

/// Whether the route answers with vectors only.
fn embeds(prepared: &Prepared<'_>) -> bool {
    let route = &prepared.resolved.route;
    route.protocol == Protocol::OpenAiEmbeddings || route.pattern.to_ascii_lowercase().contains("embed")
}

fn set_limit(prepared: &Prepared<'_>, tokens: u64) -> Option<Splice> {
    let field = match (prepared.resolved.route.protocol, prepared.vendor.slug.as_ref()) {
        (Protocol::OpenAiChat, "openai" | "azure-openai") => LimitField::MaxCompletionTokens,
        (Protocol::OpenAiChat | Protocol::OpenAiCompletions | Protocol::AnthropicMessages, _) => LimitField::MaxTokens,
        (Protocol::OpenAiResponses, _) => LimitField::MaxOutputTokens,
        (Protocol::Gemini, _) => LimitField::Gemini,
        _ => return None,
    };
    splice::output_limit(prepared.peek?, field, tokens)
}

fn demand<'a>(prepared: &Prepared<'_>, model: &'a str, limit: Option<&(Splice, u64)>) -> Demand<'a> {
    let peek = prepared.peek;
    let found = match peek {
        Some(peek) => {
            let found = input(prepared.body);
            Input { unbounded: found.unbounded || peek.refers, ..found }
        }
        None if embeds(prepared) => Input::default(),
        // Not JSON that we read: nobody knows what it amounts to.
        None => Input { unbounded: true, ..Input::default() },
    };
    let splices = limit.map(|(splice, _)| splice).into_iter().chain(&prepared.rename);
    let spliced: usize = splices.map(|splice| splice.with.len()).sum();
    Demand {
        model,
        bytes: (prepared.body.len() + spliced) as u64,
        input: found,
        output_limit: peek
            .and_then(|peek| peek.limits.heeded(prepared.resolved.route.protocol))
            .or(limit.map(|(_, tokens)| *tokens)),
        answers: peek.and_then(|peek| peek.n).unwrap_or(1),
        no_output: embeds(prepared),
    }
}

fn price(tenant: &Tenant, vendor: &str, model: &str) -> Result<Arc<Price>, Refusal> {
    let found = tenant.prices.find(&tenant.id, vendor, &candidates(vendor, model), clock::now_micros());
    found.map(|(_, entry)| entry.price.clone()).ok_or_else(|| {
        let text =
            format!("a money quota applies and model {model:?} of {vendor} has no price; set one or use another");
        Refusal::new(Code::ModelUnpriced, text)
    })
}

/// Holds the request's cost under every rule that covers it.
///
/// # Errors
/// One of them has not so much; what the others gave goes back.
pub async fn admit(services: &Services, rules: &[Arc<QuotaRule>], weight: &Weight) -> Result<Permit, Refusal> {
    let mut permit = Permit::default();
    let deadline = Instant::now() + WAIT;
    for rule in rules.iter().filter(|rule| rule.covers(&weight.model)) {
        if weight.free && rule.metric.is_of_content() {
            continue;
        }
        // Weighing has found a price for every rule about money.
        let bound = weight.bound_for(rule);
        let Some(amount) = bound.amount(rule.metric, weight.price.as_deref()) else { continue };
        if !permit.take(rule, amount, clock::boot_micros())
            && let Some(held) = wait(services, rule, weight, amount, deadline).await?
        {
            permit.add(rule.clone(), held);
        }
    }
    Ok(permit)
}

/// Waits until there is enough, or it is certain that there will not be.
/// `Ok(None)`: the rule lets it pass without.
async fn wait(
    services: &Services,
    rule: &Arc<QuotaRule>,
    weight: &Weight,
    amount: u64,
    deadline: Instant,
) -> Result<Option<Hold>, Refusal> {
    let certain = |window: &Window, now: i64| {
        let (standing, price) = (window.standing(), weight.price.as_deref());
        match judge(rule.metric, weight.bound_for(rule), weight.answers, price, &standing, now) {
            Verdict::Pending => None,
            verdict => Some(refusal(rule, amount, &standing, window.ends(), verdict)),
        }
    };
    let come = until_held(services, rule, amount, deadline, |now| rule.slice.hold(amount, now), certain).await;
    come.map_err(|refused| refused.unwrap_or_else(|| pending(rule, amount)))
}

/// Tries `hold` whenever something has come in or come back, and sees to it that
/// the control plane is asked. `Ok(None)`: the rule lets it pass without. An
/// error is `refuse`'s, or none when the time is up.
pub(super) async fn until_held<T>(
    services: &Services,
    rule: &QuotaRule,
    amount: u64,
    deadline: Instant,
    mut hold: impl FnMut(i64) -> Option<T>,
    refuse: impl Fn(&Window, i64) -> Option<Refusal>,
) -> Result<Option<T>, Option<Refusal>> {
    let slices = &services.slices;
    loop {
        let short = rule.slice.short(amount);
        let changed = short.changed();
        let mut changed = std::pin::pin!(changed);
        // From here on nothing that comes in is missed.
        changed.as_mut().enable();
        let now = clock::boot_micros();
        if rule.slice.is_gone() {
            return Ok(None);
        }
        if let Some(held) = hold(now) {
            return Ok(Some(held));
        }
        let window = rule.slice.window(now);
        if let Some(refusal) = window.as_ref().and_then(|window| refuse(window, now)) {
            return Err(Some(refusal));
        }
        if slices.is_outage(now) {
            match rule.outage {
                Outage::Allow => return Ok(None),
                Outage::Allowance if rule.slice.allow(amount, rule.limit / ALLOWANCE) => return Ok(None),
                Outage::Allowance | Outage::Deny => {}
            }
        }
        slices.wake(window.is_none() || rule.slice.first_shortage(now));
        if timeout_at(deadline, changed).await.is_err() {
            return Err(None);
        }
    }
}

fn pending(rule: &QuotaRule, amount: u64) -> Refusal {
    let standing = rule.slice.window(clock::boot_micros()).map(|window| window.standing());
    let of = about(rule);
    let text = standing.map_or_else(
        || format!("{of}: what is left of it is not known here yet; try again in a moment"),
        |standing| {
            format!(
                "{of}: limit {}, used {}, reserved {}; this request may need {amount}, which others hold or which is \
                 on its way; try again in a moment",
                standing.limit, standing.settled, standing.outstanding
            )
        },
    );
    Refusal::new(Code::QuotaPending, text)
}

fn refusal(rule: &QuotaRule, amount: u64, standing: &Standing, ends: i64, verdict: Verdict) -> Refusal {
    let Standing { limit, settled, outstanding, .. } = *standing;
    let resets = match ends {
        i64::MAX => "it does not reset".to_owned(),
        ends => {
            let left = ends.saturating_sub(clock::boot_micros());
            // Whole seconds: two clocks took part.
            let at = clock::now_micros().saturating_add(left).saturating_add(500_000) / 1_000_000 * 1_000_000;
            format!("it resets at {}", clock::rfc3339(at))
        }
    };
    let state = format!("{}: limit {limit}, used {settled}, reserved {outstanding}; {resets}", about(rule));
    let remaining = standing.remaining();
    match verdict {
        Verdict::TooLarge { max_tokens } => Refusal::new(
            Code::QuotaReservationTooLarge,
            format!(
                "this request may need {amount} and {remaining} are left; with an output limit of at most \
                 {max_tokens} tokens it fits. {state}"
            ),
        ),
        Verdict::Exceeded | Verdict::Pending => {
            let code = if rule.metric == Metric::CostMicros { Code::BudgetExceeded } else { Code::QuotaExceeded };
            Refusal::new(code, format!("this request may need {amount} and {remaining} are left. {state}"))
        }
    }
}

/// `quota of this bot on total_tokens per day`
pub(super) fn about(rule: &QuotaRule) -> String {
    let scope = if &*rule.scope == "provider_key" { "provider key" } else { &*rule.scope };
    let per = if &*rule.window == "total" { "in total".to_owned() } else { format!("per {}", rule.window) };
    format!("quota of the {scope} on {} {per}", rule.metric.as_str())
}
