//! SIGINT and SIGTERM, for commands that end in an orderly way.

use std::io;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};

use crate::exit::Code;

/// The signals that ask the program to end, from now on caught.
#[derive(Debug)]
pub(crate) struct Ending(Signals);

impl Ending {
    /// Catches the signals: from here on they no longer end the process by themselves.
    pub(crate) fn catch() -> io::Result<Self> {
        Signals::new([Signal::Int, Signal::Term]).map(Self)
    }

    /// Waits for the next signal and returns the code of a program that it ended.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self) -> Code {
        match self.0.next().await {
            Some(Ok(Signal::Int)) => Code::Interrupted,
            Some(Ok(_)) => Code::Terminated,
            // The stream has no end, and no error after it has been opened.
            Some(Err(_)) | None => future::pending().await,
        }
    }
}
