//! `myapp echo`: messages, pipe, ping and load.

mod args;
mod errors;
mod merge;
mod tls;

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use futures_lite::{Stream, StreamExt, future, stream};
use myapp::echo::{self, Error, LoadConfig, MAX_MESSAGE_LEN, Message, Reply};
use myapp::error_chain::ErrorChain;
use myapp::internals::{Escaped, nofile, trim_newline};
use myapp::measure::live::LiveStats;
use myapp::measure::percentile::PercentileList;
use myapp::runtime;
use smol::{Timer, Unblock, unblock};
use tracing::warn;

use crate::exit_code::{CommandError, ExitCode};
use crate::output::load_report::hdr_log::HdrLog;
use crate::output::load_report::live::ProgressLine;
use crate::output::load_report::run_info::RunInfo;
use crate::output::load_report::summary::Summary;
use crate::output::load_report::{html, json, ping_text, text};
use crate::output::log::Log;
use crate::output::report_file::ReportFile;
use crate::output::stdout;
use crate::signals::Ending;
use crate::stdin;
use errors::{ErrorReporter, refused_hint, stdin_error, to_command_error};

pub(crate) use args::Options;

/// Buffer length of standard input and output with `--raw`.
const PIPE_CHUNK_LEN: usize = 64 << 10;

/// Time limit of printing the report after a second signal.
const PRINT_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the command until it is done or a signal ends it. `room` is the result of raising the
/// descriptor limit.
pub(crate) fn run(
    options: Options,
    room: io::Result<()>,
    log: &Log,
) -> Result<ExitCode, CommandError> {
    options.check()?;
    if let Err(error) = room {
        warn!(error = %ErrorChain(&error), "cannot raise the descriptor limit");
    }
    let mut ending = Ending::catch()?;
    runtime::block_on(async {
        if !options.merge.is_empty() {
            return merge(options, &mut ending).await;
        }
        if let Some(code) = wait_ready(&options, &mut ending).await? {
            return Ok(code);
        }
        if options.is_load() {
            return load(&options, log, &mut ending).await;
        }
        if options.is_ping() {
            return ping(&options, &mut ending).await;
        }
        let work = async {
            if options.raw {
                pipe(&options).await
            } else {
                messages(options).await
            }
        };
        future::or(async { Ok(ending.next().await) }, work).await
    })
}

/// Waits for the server if requested. Returns the exit code of a signal.
async fn wait_ready(
    options: &Options,
    ending: &mut Ending,
) -> Result<Option<ExitCode>, CommandError> {
    let Some(limit) = options.wait_ready else {
        return Ok(None);
    };
    let target = options.to_target();
    let work = async {
        let ready = echo::wait_ready(&target, limit).await;
        ready.map_err(|error| to_command_error(error, refused_hint(options.connect.as_ref())))
    };
    let stopped = async { Ok(Some(ending.next().await)) };
    future::or(stopped, async { work.await.map(|()| None) }).await
}

async fn pipe(options: &Options) -> Result<ExitCode, CommandError> {
    if options.is_over_udp() {
        let failure = CommandError::usage("--raw requires a stream, not udp://");
        return Err(failure.hint("without --raw, each line of standard input is a datagram"));
    }
    let stdin = stdin::unbuffered().map_err(stdin_error)?;
    let stdin = Unblock::with_capacity(PIPE_CHUNK_LEN, stdin);
    let stdout = Unblock::with_capacity(PIPE_CHUNK_LEN, stdout::unbuffered()?);
    match echo::pipe(stdin, stdout, &options.to_target()).await {
        Ok(()) => Ok(ExitCode::Success),
        Err(Error::Output { source }) => Err(stdout::write_error(source)),
        Err(Error::Input { source }) => Err(stdin_error(source)),
        Err(error) => Err(to_command_error(
            error,
            refused_hint(options.connect.as_ref()),
        )),
    }
}

async fn ping(options: &Options, ending: &mut Ending) -> Result<ExitCode, CommandError> {
    let config = options.to_ping()?;
    let reporter = ErrorReporter::new(true, refused_hint(options.connect.as_ref()));
    let sink = async |number, outcome: Result<Duration, Error>| {
        match outcome {
            Ok(_) if options.json => {}
            Ok(time) => {
                let line = ping_text::reply_line(&config, number, time);
                stdout::print(line.into_bytes()).await?;
            }
            Err(error) => reporter.report_message(number, error),
        }
        Ok::<_, CommandError>(())
    };
    let ended = Cell::new(None);
    let stop = async { ended.set(Some(ending.next().await)) };
    let report = echo::ping(&config, stop, sink).await?;
    let text = if options.json {
        json::ping(&config, &report, &options.to_percentiles())
    } else {
        ping_text::summary(&config, &report, &options.to_ping_percentiles())
    };
    print_report(text, ending).await?;
    let answered = report.times.count();
    let lost = report.sent - answered - reporter.failures();
    reporter.report_total_loss(answered, lost, &config.target);
    let code = match ended.get() {
        // The normal end of an endless ping.
        Some(ExitCode::Interrupted) if config.count.is_none() && answered > 0 => None,
        code => code,
    };
    Ok(code.unwrap_or(reporter.code()))
}

async fn load(options: &Options, log: &Log, ending: &mut Ending) -> Result<ExitCode, CommandError> {
    let config = options.to_load()?;
    check_descriptor_limit(&config)?;
    // Opened before the load, so that an error does not discard its report.
    let html_file = report_file(options.report.as_deref())?;
    let log_file = report_file(options.hdr_log.as_deref())?;
    let ended = Cell::new(None);
    let stop = async { ended.set(Some(ending.next().await)) };
    let live = match log_file {
        Some(_) => LiveStats::with_intervals(),
        None => LiveStats::default(),
    };
    let hdr_log = log_file.map(|file| HdrLog::start(file, live.clone()));
    let line = (!log.quiet).then(|| ProgressLine::start(&log.draw_target, &config, &live));
    let report = echo::load(&config, stop, &live).await;
    drop(line);
    let summary = Summary::of_run(&config, report?);
    let percentiles = options.to_percentiles();
    let written = html_file.map_or(Ok(()), |file| write_page(file, &summary, &percentiles));
    let logged = hdr_log.map_or(Ok(()), |log| log.finish(&summary));
    let text = format_report(options, &summary, &percentiles);
    print_report(text, ending).await?;
    written?;
    logged?;
    let reporter = ErrorReporter::new(false, refused_hint(options.connect.as_ref()));
    let report = summary.report;
    let answered = report.answered;
    let lost = report.lost;
    for failures in report.errors.into_values() {
        reporter.report_phase(failures);
    }
    reporter.report_total_loss(answered, lost, &config.target);
    Ok(ended.get().unwrap_or(reporter.code()))
}

/// Reports several runs as one.
async fn merge(options: Options, ending: &mut Ending) -> Result<ExitCode, CommandError> {
    let html_file = report_file(options.report.as_deref())?;
    let files = options.merge.clone();
    // A FIFO may block.
    let work = async { Ok(unblock(move || merge::merge(&files)).await) };
    let interrupted = async { Err(ending.next().await) };
    let summary = match future::or(interrupted, work).await {
        Ok(summary) => summary?,
        Err(code) => return Ok(code),
    };
    let percentiles = options.to_percentiles();
    let written = html_file.map_or(Ok(()), |file| write_page(file, &summary, &percentiles));
    print_report(format_report(&options, &summary, &percentiles), ending).await?;
    written.map(|()| ExitCode::Success)
}

/// Creates a file for a report, if one is requested.
fn report_file(path: Option<&Path>) -> Result<Option<ReportFile>, CommandError> {
    path.map(ReportFile::create).transpose()
}

/// Formats the report for standard output.
fn format_report(options: &Options, summary: &Summary, percentiles: &PercentileList) -> String {
    if options.json {
        json::load(summary, percentiles)
    } else {
        text::load(summary, percentiles)
    }
}

/// Writes the report as HTML.
fn write_page(
    file: ReportFile,
    summary: &Summary,
    percentiles: &PercentileList,
) -> Result<(), CommandError> {
    let page = html::page(summary, percentiles, &RunInfo::current());
    let page = page.map_err(|error| CommandError::new(ExitCode::Failure, error))?;
    file.write(page.as_bytes())
}

/// Rejects more connections than the descriptor limit permits in addition to the threads.
fn check_descriptor_limit(config: &LoadConfig) -> Result<(), CommandError> {
    let connections = config.connections;
    let required = usize::try_from(connections.get()).unwrap_or(usize::MAX);
    let threads = config.threads.get().min(required);
    let available = nofile::available_after(threads * nofile::FDS_PER_WORKER);
    if required <= available.get() {
        return Ok(());
    }
    let text = format!("open {connections} connections: the descriptor limit allows {available}");
    Err(CommandError::usage(text)
        .hint("see 'ulimit -Hn', or distribute the load over several runs"))
}

/// Prints the report. Another signal ends a print that blocks. It may also be the same one again:
/// timeout(1) sends it to the process and to its group.
async fn print_report(text: String, ending: &mut Ending) -> Result<(), CommandError> {
    let aborted = async {
        ending.next().await;
        Timer::after(PRINT_TIMEOUT).await;
        Ok(())
    };
    future::or(aborted, stdout::print(text.into_bytes())).await
}

async fn messages(options: Options) -> Result<ExitCode, CommandError> {
    let config = options.to_config();
    let reporter = ErrorReporter::new(
        options.messages.len() != 1,
        refused_hint(options.connect.as_ref()),
    );
    let on_terminal = io::stdout().is_terminal();
    let discarded = Cell::new(0);
    let print = async |number, reply: Reply| {
        discarded.update(|count| count + reply.discarded);
        let line = reply_line(reply.bytes, on_terminal);
        if !line.is_empty() {
            stdout::print(line).await?;
        }
        if let Err(error) = reply.outcome {
            reporter.report_message(number, error);
        }
        Ok::<_, CommandError>(())
    };
    if options.messages.is_empty() {
        echo::run(stdin_messages(&reporter), &config, print).await?;
    } else {
        let messages = options.messages.into_iter().map(args::parse_message);
        let messages: Vec<_> = messages.collect::<Result<_, _>>()?;
        echo::run(stream::iter(messages), &config, print).await?;
    }
    if discarded.get() > 0 {
        warn!(
            datagrams = discarded.get(),
            "late or duplicate replies discarded"
        );
    }
    Ok(reporter.code())
}

/// Returns the lines of standard input as messages. Lines that cannot be read are reported.
fn stdin_messages(reporter: &ErrorReporter) -> impl Stream<Item = Message> {
    stdin::lines(MAX_MESSAGE_LEN - 1).filter_map(|line| {
        let message = line.and_then(|text| Message::new(text).map_err(io::Error::other));
        message
            .map_err(|error| reporter.report(stdin_error(error), 1))
            .ok()
    })
}

/// Formats a reply for standard output, as one line even if it is incomplete. On a terminal it is
/// escaped.
fn reply_line(mut reply: Vec<u8>, on_terminal: bool) -> Vec<u8> {
    if reply.is_empty() {
        return reply;
    }
    if on_terminal {
        reply = Escaped(trim_newline(&reply)).to_string().into_bytes();
    }
    if !reply.ends_with(b"\n") {
        reply.push(b'\n');
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_line(reply: &[u8], raw: &[u8], on_terminal: &str) {
        assert_eq!(reply_line(reply.to_vec(), false), raw);
        let escaped = reply_line(reply.to_vec(), true);
        assert_eq!(String::from_utf8(escaped).unwrap(), on_terminal);
    }

    #[test]
    fn reply_is_one_line_and_escaped_on_a_terminal() {
        assert_line(b"hola\n", b"hola\n", "hola\n");
        assert_line(b"ho", b"ho\n", "ho\n");
        assert_line(b"\n", b"\n", "\n");
        assert_line(b"", b"", "");
        assert_line(b"\x1b[2J\xff\r\n", b"\x1b[2J\xff\r\n", "\\x1b[2J\\xff\\r\n");
    }
}
