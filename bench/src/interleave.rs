//! Interleaved runs: every round measures every target, in turned order.
//!
//! Two runs that are minutes apart on a shared machine cannot be compared;
//! two that follow each other can. Every second round goes backwards, so that
//! a drift within rounds does not favour one target.

use crate::failure::Failure;
use crate::load::{Measurement, Plan, drive};
use crate::report::Series;

/// Runs `rounds` rounds of all plans; `after` sees each run as it ends.
pub(crate) fn interleave(
    plans: &[Plan],
    rounds: usize,
    mut after: impl FnMut(usize, &Plan, &Measurement) -> Result<(), Failure>,
) -> Result<Vec<Series>, Failure> {
    let mut series: Vec<Series> = plans
        .iter()
        .map(|plan| Series {
            name: plan.target.name.clone(),
            url: format!("http://{}{}", plan.target.host, plan.target.base),
            rounds: Vec::with_capacity(rounds),
        })
        .collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..plans.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (Some(plan), Some(series)) = (plans.get(index), series.get_mut(index)) else { continue };
            let measured = drive(plan)?;
            after(round, plan, &measured)?;
            series.rounds.push(measured);
        }
    }
    Ok(series)
}
