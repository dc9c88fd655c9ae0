//! Events of a run.

use std::path::Path;
use std::time::Duration;

use url::Url;

use crate::download::error::{Error, FailedItem};
use crate::download::report::Saved;

/// Callback for each [`Event`], with the index of the item, from 0.
///
/// It runs on the thread of the transfer and must not block.
pub type Observer<'a> = dyn Fn(u64, Event<'_>) + Sync + 'a;

/// Event of one item.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The download was started.
    Started {
        /// The first URL.
        url: &'a Url,
        /// Final path, if the output is a file.
        path: Option<&'a Path>,
    },
    /// A response was received, after all redirects, with any status.
    ResponseReceived {
        /// URL that responded.
        url: &'a Url,
        /// The status.
        status: u16,
    },
    /// The response is the file or its missing part: the body follows.
    BodyStarted {
        /// Bytes that are present before this body.
        offset: u64,
        /// Length of the complete file in bytes, if known.
        total: Option<u64>,
    },
    /// More of the body was received.
    Progress {
        /// Bytes received in total, at most the length of the file.
        downloaded: u64,
    },
    /// The attempt failed and is retried.
    Retrying {
        /// Delay before the next attempt.
        wait: Duration,
        /// Error of the attempt.
        error: &'a Error,
    },
    /// The source failed and a mirror is tried.
    MirrorFallback {
        /// The mirror.
        url: &'a Url,
        /// Error of the previous source.
        error: &'a Error,
    },
    /// The file is complete.
    Saved(&'a Saved),
    /// The download failed.
    Failed(&'a FailedItem),
    /// The run was cancelled before the file was complete.
    Cancelled,
}
