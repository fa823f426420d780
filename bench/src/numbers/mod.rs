//! placeholder
use crate::{Met, failure::Failure};
use clap::Args;
#[derive(Args, Debug)]
pub(crate) struct NumbersArgs {}
impl NumbersArgs {
    pub(crate) fn run(&self) -> Result<Met, Failure> {
        Ok(true)
    }
}
