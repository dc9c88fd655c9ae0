//! `myapp cat`.

use clap::Args;

use crate::exit::{Code, Failure};

#[derive(Debug, Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: Options) -> Result<Code, Failure> {
    Err(Failure::usage("to be written"))
}
