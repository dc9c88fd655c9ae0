//! `myapp download`.

use clap::Args;

use crate::exit::{Code, Failure};
use crate::output::log::Log;

#[derive(Debug, Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: Options, _log: &Log) -> Result<Code, Failure> {
    Err(Failure::usage("to be written"))
}
