//! SIGINT and SIGTERM, for commands that end in an orderly way; SIGHUP, for servers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use signal_hook::flag;

use crate::exit_code::ExitCode;

/// The signals that ask the program to end, from now on caught.
#[derive(Debug)]
pub(crate) struct Ending(Signals);

/// SIGHUP, which asks a server to reload its files.
#[derive(Debug)]
pub(crate) struct ReloadSignal(Signals);

impl ReloadSignal {
    /// Catches the signal: from here on it no longer ends the process.
    pub(crate) fn catch() -> io::Result<Self> {
        Signals::new([Signal::Hup]).map(Self)
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
    /// Catches the signals: from here on they no longer end the process by themselves.
    pub(crate) fn catch() -> io::Result<Self> {
        Signals::new([Signal::Int, Signal::Term]).map(Self)
    }

    /// Lets the second signal end the process at once and without a word, also where the end that
    /// the first has asked for does not come: a disk or a reader of stderr may hang.
    pub(crate) fn second_ends_at_once(self) -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for (signal, code) in [
            (Signal::Int, ExitCode::Interrupted),
            (Signal::Term, ExitCode::Terminated),
        ] {
            // In this order: the first signal finds that none has come before.
            flag::register_conditional_shutdown(signal as i32, code as i32, Arc::clone(&asked))?;
            flag::register(signal as i32, Arc::clone(&asked))?;
        }
        Ok(self)
    }

    /// Waits for the next signal and returns the code of a program that it ended.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> ExitCode {
        match self.0.next().await {
            Some(Ok(Signal::Int)) => ExitCode::Interrupted,
            Some(Ok(_)) => ExitCode::Terminated,
            // The stream has no end, and no error after it has been opened.
            Some(Err(_)) | None => future::pending().await,
        }
    }
}
