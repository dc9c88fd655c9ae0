//! `myapp cat`: concurrent reading of files, written in order.

mod args;
mod errors;
mod long_options;
mod plain_args;
mod progress;
mod status;

use futures_lite::future;
use myapp::cat;
use myapp::internals::nofile;
use myapp::runtime;

use crate::commands::start_runtime;
use crate::exit_code::{CommandError, ExitCode};
use crate::output::log::{LineStyle, Log};
use crate::signals::{Ending, end_at_once_as_init};
use errors::{to_command_error, without_special_code};
use status::StatusReporter;

pub(crate) use args::Options;
pub(crate) use long_options::expand as expand_long_options;

/// Runs the command until it is done or a signal ends it.
pub(crate) fn run(options: Options) -> Result<ExitCode, CommandError> {
    let needs_log = options.log.is_customized(options.verbose);
    if needs_log || options.needs_runtime() {
        start_runtime()?;
    }
    let log = start_log(&options)?;
    options.check()?;
    let config = options.to_config();
    let status = StatusReporter::new(&options, log.as_ref());
    let needs_runtime = options.needs_runtime();
    if config.follow {
        // Each followed file stays open. With too many files, the last ones fail.
        let _ = nofile::raise_limit();
    }
    let (sources, sink) = options.into_sources_and_sink()?;
    let on_event = |event| status.report(event);
    let result = if needs_runtime {
        let mut ending = Ending::catch()?;
        let copy = async { Ok(cat::run(sources, config, sink, on_event).await) };
        match runtime::block_on(future::or(async { Err(ending.next().await) }, copy)) {
            Ok(result) => result,
            Err(signal) => return Ok(signal),
        }
    } else {
        end_at_once_as_init()?;
        cat::run_blocking(sources, &config, sink, on_event)
    };
    let report = result.map_err(to_command_error)?;
    status.finish(&report);
    Ok(if report.failed == 0 {
        ExitCode::Success
    } else {
        ExitCode::Failure
    })
}

/// Starts the log if the options or the environment request one: its thread would take longer
/// than a small file.
fn start_log(options: &Options) -> Result<Option<Log>, CommandError> {
    if !options.log.is_customized(options.verbose) {
        return Ok(None);
    }
    Log::start(&options.log, options.verbose, LineStyle::Message)
        .map(Some)
        .map_err(without_special_code)
}
