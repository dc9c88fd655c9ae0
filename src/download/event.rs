//! What a run tells while it goes on.

use std::path::Path;
use std::time::Duration;

use url::Url;

use crate::download::error::DownloadError;
use crate::download::report::{Failure, Saved};

/// Who is told of each [`Event`], with the number of the file in the list, counted from 0.
///
/// It is called where the work is done: it must not wait.
pub type Observer<'a> = dyn Fn(u64, Event<'_>) + Sync + 'a;

/// A step in the life of one file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Its turn has come.
    Started {
        /// What is fetched.
        url: &'a Url,
        /// The name that the file is to have, if it is a file.
        path: Option<&'a Path>,
    },
    /// A server has answered, after all redirects, whatever it says.
    Responded {
        /// Who.
        url: &'a Url,
        /// The status of the answer.
        status: u16,
    },
    /// The answer is the file, or what is missing of it: the body follows.
    Answered {
        /// The bytes that are here before it.
        from: u64,
        /// The length of the whole file in bytes, if the server tells.
        length: Option<u64>,
    },
    /// More of the body has come.
    Received {
        /// The bytes that have come in all, never more than the length.
        position: u64,
    },
    /// A try has failed; the next one goes on with what is here.
    Retrying {
        /// When, from now.
        wait: Duration,
        /// Why it has failed.
        error: &'a DownloadError,
    },
    /// A source has failed for good; a mirror is asked.
    Mirror {
        /// The mirror.
        url: &'a Url,
        /// Why the source before it has failed.
        error: &'a DownloadError,
    },
    /// It is done.
    Saved(&'a Saved),
    /// It has failed.
    Failed(&'a Failure),
    /// The run was told to stop before it was done.
    Stopped,
}
