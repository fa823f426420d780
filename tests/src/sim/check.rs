//! What must hold: of the books after every commit, and of everything once it
//! has come to rest.

use std::collections::BTreeMap;

use clawgate_control::quota::{HOLD, Holder};
use clawgate_control::store::quota_windows::WindowKey;
use clawgate_control::store::usage_rollup::RollupSums;

use super::Broken;
use super::plan::SECOND;
use super::tables::{Event, Tables};
use super::truth::{Exchange, Kept, Truth};
use super::world::World;

/// A lease is not written again for its time alone more often than this.
const REFRESH: i64 = 60 * SECOND;
/// How far the control plane's clock may have gone back since.
const SKEW: i64 = 60 * SECOND;

/// The books, after a commit at `now` by the control plane's clock.
///
/// # Errors
/// What does not hold.
pub fn books(tables: &Tables, truth: &Truth, now: i64) -> Result<(), Broken> {
    let mut rests: BTreeMap<&WindowKey, i64> = BTreeMap::new();
    for lease in tables.leases.values().filter(|lease| lease.rest() > 0) {
        *rests.entry(&lease.key).or_default() += lease.rest();
        if lease.expires_at <= 0 || lease.expires_at > now + HOLD + REFRESH + SKEW {
            return Err(Broken::new("no reservation outlives its owner and its hold time", format!("{lease:?}")));
        }
    }
    for (key, window) in tables.windows.iter() {
        let rests = rests.remove(key).unwrap_or(0);
        if window.outstanding != rests {
            let what = format!("{window:?}, its leases have {rests}");
            return Err(Broken::new("what is outstanding is the sum of the leases", what));
        }
        let most = truth.most_in_books(key);
        if window.settled + window.outstanding > most {
            let what = format!("{window:?}, the limit is {most}");
            return Err(Broken::new("settled and outstanding stay within the limit", what));
        }
    }
    match rests.first_key_value() {
        Some((key, rest)) => {
            Err(Broken::new("what is outstanding is the sum of the leases", format!("{rest} of {key:?}, no window")))
        }
        None => Ok(()),
    }
}

/// Windows of which something was just granted.
///
/// # Errors
/// More than the limit, by granting.
pub fn grants(tables: &Tables, granted: &[WindowKey]) -> Result<(), Broken> {
    for key in granted {
        let Some(window) = tables.windows.get(key) else { continue };
        let quota = tables.quotas.iter().find(|quota| quota.id == key.quota_id);
        let limit = quota.map_or(0, |quota| i64::try_from(quota.spec.limit).unwrap_or(i64::MAX)) + window.extra;
        if window.settled + window.outstanding > limit {
            return Err(Broken::new("nothing is granted beyond the limit", format!("{window:?}, limit {limit}")));
        }
    }
    Ok(())
}

/// An epoch that is over has no leases.
///
/// # Errors
/// It has.
pub fn ended(tables: &Tables, holder: Holder<'_>, over: bool) -> Result<(), Broken> {
    let left = tables.leases_of(holder);
    if over && !left.is_empty() {
        return Err(Broken::new("no reservation outlives its owner and its hold time", format!("ended, and {left:?}")));
    }
    Ok(())
}

/// Everything, after a time without faults.
///
/// # Errors
/// What does not hold.
pub fn at_rest(world: &World) -> Result<(), Broken> {
    let tables = &world.control.tables;
    for (id, exchange) in &world.env.truth.exchanges {
        once(id, exchange, tables.events.get(id).map(AsRef::as_ref))?;
    }
    if let Some(id) = tables.events.keys().find(|id| !world.env.truth.exchanges.contains_key(*id)) {
        return Err(Broken::new("every exchange ends exactly once", format!("{id} is counted, and never was")));
    }
    totals(tables)?;
    if let Some(window) = tables.windows.values().find(|window| window.outstanding != 0) {
        return Err(Broken::new("in the end leases are gone", format!("{window:?}")));
    }
    for machine in &world.machines {
        machine.at_rest(&world.control)?;
    }
    Ok(())
}

/// An exchange that was sent is counted once, and as what its records say; one
/// that was not is not.
fn once(id: &str, exchange: &Exchange, event: Option<&Event>) -> Result<(), Broken> {
    let broken = |what: &str| {
        let event = event.map(|event| &event.row);
        Err(Broken::new("every exchange ends exactly once", format!("{id}: {what}: {exchange:?}, {event:?}")))
    };
    let Some(event) = event else {
        let written = exchange.open == Kept::Yes || exchange.settle == Kept::Yes;
        let excused = exchange.open == Kept::Perhaps || exchange.forgotten;
        return if (written || exchange.sent) && !excused { broken("is not counted") } else { Ok(()) };
    };
    if exchange.open == Kept::No {
        return broken("is counted, and was not sent");
    }
    if u64::try_from(event.log.1) != Ok(exchange.epoch) {
        return broken("is counted for another epoch");
    }
    let charged = |key: &WindowKey| {
        let charges = event.row.charges.iter();
        let of = |charge: &&_| key.quota_id == charge_key(charge).0 && key.start == charge_key(charge).1;
        charges.filter(of).map(|charge| charge.amount).sum::<i64>()
    };
    if event.row.indeterminate {
        let held = exchange.lines.iter().all(|line| charged(&line.key) == line.held);
        let known = exchange.settle == Kept::Yes && !exchange.forgotten;
        return match (known, held) {
            (true, _) => broken("its end was lost"),
            (false, true) => Ok(()),
            (false, false) => broken("nobody saw its end, and it is not charged as it was held"),
        };
    }
    if exchange.settle == Kept::No {
        return broken("ended, and nobody said so");
    }
    if exchange.lines.iter().any(|line| charged(&line.key) != exchange.charge(line)) {
        return broken("is charged otherwise than it was admitted");
    }
    if event.row.total_tokens != exchange.reported {
        return broken("counts something else");
    }
    Ok(())
}

fn charge_key(charge: &clawgate_control::store::types::Charge) -> (&str, i64) {
    (&charge.quota_id, charge.window_start)
}

/// Sums and windows are those of the events, each once.
fn totals(tables: &Tables) -> Result<(), Broken> {
    let mut settled: BTreeMap<WindowKey, i64> = BTreeMap::new();
    let (mut requests, mut tokens) = (0, 0);
    for event in tables.events.values() {
        requests += 1;
        tokens += event.row.total_tokens.unwrap_or(0);
        for charge in &event.row.charges {
            let key = WindowKey { quota_id: charge.quota_id.clone(), start: charge.window_start };
            *settled.entry(key).or_default() += charge.amount;
        }
    }
    for (key, window) in tables.windows.iter() {
        let events = settled.remove(key).unwrap_or(0);
        if window.settled != events {
            let what = format!("{window:?}, its events come to {events}");
            return Err(Broken::new("totals are the sums of unique events", what));
        }
    }
    if let Some((key, amount)) = settled.into_iter().find(|(_, amount)| *amount != 0) {
        return Err(Broken::new("totals are the sums of unique events", format!("{amount} of {key:?}, no window")));
    }
    let mut sums = RollupSums::default();
    tables.rollup.iter().filter(|(key, _)| key.dim_id == 1).for_each(|(_, row)| sums.add(row));
    if (sums.requests, sums.total) != (requests, tokens) {
        let what = format!("{requests} events of {tokens} tokens, summed up as {sums:?}");
        return Err(Broken::new("totals are the sums of unique events", what));
    }
    Ok(())
}
