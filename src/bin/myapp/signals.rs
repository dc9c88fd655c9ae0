//! SIGINT, SIGTERM and SIGHUP, for commands that end in an orderly way. A server reloads on SIGHUP.

use std::fs;
use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

use crate::exit_code::{CommandError, ExitCode};

/// The signals that ask the program to end, from now on caught.
#[derive(Debug)]
pub(crate) struct Ending {
    signals: Signals,
    caught: Vec<Signal>,
}

/// SIGHUP, which asks a server to reload its files.
#[derive(Debug)]
pub(crate) struct ReloadSignal(Signals);

impl ReloadSignal {
    /// Catches the signal: from here on it no longer ends the process.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        Signals::new([Signal::Hup]).map(Self).map_err(cannot_catch)
    }

    /// Waits for the next signal. Several that arrive together may count as one.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) {
        if !matches!(self.0.next().await, Some(Ok(_))) {
            // The stream has no end, and no error after it has been opened.
            future::pending().await
        }
    }
}

impl Ending {
    /// Catches the signals: from here on they no longer end the process by themselves. A signal that
    /// is ignored, as SIGINT in a background job of a script or SIGHUP after nohup, stays ignored.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        Self::catch_some(vec![Signal::Int, Signal::Term, Signal::Hup])
    }

    /// Catches the signals of [`Ending::catch`], except the one of [`ReloadSignal`].
    pub(crate) fn catch_beside_reload() -> Result<Self, CommandError> {
        Self::catch_some(vec![Signal::Int, Signal::Term])
    }

    fn catch_some(mut caught: Vec<Signal>) -> Result<Self, CommandError> {
        let ignored = ignored_signals();
        caught.retain(|signal| ignored >> (*signal as u32 - 1) & 1 == 0);
        let signals = Signals::new(&caught).map_err(cannot_catch)?;
        Ok(Self { signals, caught })
    }

    /// Lets the second signal end the process at once and without a word, also where the end that
    /// the first has asked for does not come: a disk or a reader of stderr may hang.
    pub(crate) fn second_ends_at_once(self) -> Result<Self, CommandError> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in &self.caught {
            let number = *signal as i32;
            // In this order: the first signal finds that none has come before.
            let registered = if is_init() {
                let code = exit_code(*signal);
                flag::register_conditional_shutdown(number, code as i32, Arc::clone(&asked))
            } else {
                flag::register_conditional_default(number, Arc::clone(&asked))
            };
            registered
                .and_then(|_| flag::register(number, Arc::clone(&asked)))
                .map_err(cannot_catch)?;
        }
        Ok(self)
    }

    /// Waits for the next signal and returns the code of a program that it ended.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> ExitCode {
        match self.signals.next().await {
            Some(Ok(signal)) => exit_code(signal),
            // The stream has no end, and no error after it has been opened.
            Some(Err(_)) | None => future::pending().await,
        }
    }
}

/// Catches SIGXFSZ, so that a write beyond the file size limit fails with an error (setrlimit(2)).
pub(crate) fn survive_file_size_limit() {
    // Without the handler, the signal ends the process, as it does by default.
    let _ = flag::register(Signal::Xfsz as i32, Arc::default());
}

/// Returns the exit code of a program that a signal ended.
fn exit_code(signal: Signal) -> ExitCode {
    match signal {
        Signal::Int => ExitCode::Interrupted,
        Signal::Hup => ExitCode::HungUp,
        _ => ExitCode::Terminated,
    }
}

/// Ends the process by the signal of this exit code, so that a shell ends its loop too. Returns if it
/// has none, and for process 1, which has no default actions.
pub(crate) fn end_by_signal(code: ExitCode) {
    let signal = match code {
        ExitCode::Interrupted => Signal::Int,
        ExitCode::HungUp => Signal::Hup,
        ExitCode::Terminated => Signal::Term,
        _ => return,
    };
    if !is_init() {
        // Does not return, because the signal is known.
        let _ = emulate_default_handler(signal as i32);
    }
}

/// Lets SIGINT and SIGTERM end the program at once, as they end any process but 1.
pub(crate) fn end_at_once_as_init() -> Result<(), CommandError> {
    if is_init() {
        for signal in [Signal::Int, Signal::Term] {
            let always = Arc::new(AtomicBool::new(true));
            flag::register_conditional_shutdown(signal as i32, exit_code(signal) as i32, always)
                .map_err(cannot_catch)?;
        }
    }
    Ok(())
}

/// Returns whether this is process 1, for example of a container: the kernel ignores signals to it
/// that have no handler (pid_namespaces(7)).
fn is_init() -> bool {
    process::id() == 1
}

/// Returns a bit for each signal that is ignored, starting with signal 1 (proc_pid_status(5)). Without
/// `/proc` no signal counts as ignored.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Names the operation in an error of the set-up.
fn cannot_catch(error: io::Error) -> CommandError {
    let error = anyhow::Error::new(error).context("catch signals");
    CommandError::new(ExitCode::Failure, error)
}
