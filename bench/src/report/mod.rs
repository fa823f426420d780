//! Reports: ratios between interleaved runs, requirements, JSON, table,
//! picture.
//!
//! Invariant: a ratio is only ever formed between runs of the same round, and
//! its spread is always shown beside its median.

mod json;
mod picture;
mod ratio;
mod requirement;
mod table;

use crate::load::Measurement;

pub(crate) use json::{VERSION, report as json_report};
pub(crate) use picture::picture;
pub(crate) use ratio::{Ratio, Spread};
pub(crate) use requirement::{Requirement, Verdict, verdict};
pub(crate) use table::table;

/// All rounds of one target.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// The target's name.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) url: String,
    /// One measurement per round.
    pub(crate) rounds: Vec<Measurement>,
}

impl Series {
    /// Spread of a figure over the rounds.
    pub(crate) fn spread(&self, figure: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(figure))
    }

    /// Errors of all rounds.
    pub(crate) fn errors(&self) -> u64 {
        self.rounds.iter().map(Measurement::errors).sum()
    }
}
