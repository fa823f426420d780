//! Holding more for an answer that became longer than what is held for it, under
//! quotas that cut answers off.

use std::time::Duration;

use clawgate_shared::clock;
use tokio::time::{Instant, timeout_at};

use super::account::Account;
use super::admit::{about, until_held};
use super::prepare::Prepared;
use super::reject::Refusal;
use super::settle::Settlement;
use crate::wire::error::Code;
use crate::wire::{Meter, Vocabulary};

/// How long an answer waits for more of its quota before it is cut off. Its
/// vendor goes on meanwhile, as far as buffers take it.
const GROWTH: Duration = Duration::from_millis(300);
/// More of an answer is held in steps of so many tokens.
const STEP: u64 = 256;

/// Sees to it that what an answer has generated so far is held.
///
/// # Errors
/// A quota that cuts answers off has no more.
pub async fn grow(settlement: &mut Settlement<'_>, prepared: &Prepared<'_>, meter: &mut Meter) -> Result<(), Refusal> {
    if meter.generated() <= settlement.held_output {
        return Ok(());
    }
    let deadline = Instant::now() + GROWTH;
    count(settlement, prepared, meter, deadline).await;
    extend(settlement, meter.generated(), deadline).await
}

/// Counts the text that came, if enough is new. Under too many answers that want
/// it, its size has to do.
async fn count(settlement: &Settlement<'_>, prepared: &Prepared<'_>, meter: &mut Meter, deadline: Instant) {
    let model = settlement.facts.model.as_str();
    let Some(vocabulary) = Vocabulary::of(prepared.resolved.route.protocol, model) else { return };
    let Some(sample) = meter.uncounted() else { return };
    let scale = settlement.services().counting.scale(vocabulary, sample);
    if let Ok(Some(scale)) = timeout_at(deadline, scale).await {
        meter.counted(scale);
    }
}

async fn extend(settlement: &mut Settlement<'_>, output: u64, deadline: Instant) -> Result<(), Refusal> {
    if output <= settlement.held_output {
        return Ok(());
    }
    let services = settlement.services();
    let more = output.saturating_sub(settlement.held_output).max(STEP);
    let Account { permit, key_permit, bound, .. } = &mut **settlement;
    // The count while it streams may be rough: a vendor that keeps to the limit it
    // was given must not be cut off for that.
    let all_is_held = bound.is_some_and(|bound| output / 2 <= bound.output);
    for (rule, held) in permit.cutting().chain(key_permit.cutting()) {
        if rule.strict && all_is_held {
            continue;
        }
        let mut hold = |now| held.extend(more, now).then_some(());
        // Here or with others there may be some.
        if hold(clock::boot_micros()).is_none() {
            let come = until_held(services, rule, more, deadline, hold, |_, _| None).await;
            come.map_err(|_late| {
                let text = format!("the answer has used up the {}; it was cut off", about(rule));
                Refusal::new(Code::QuotaExceeded, text)
            })?;
        }
    }
    settlement.grown(more);
    Ok(())
}
