//! What a run tells while it goes on.

use std::path::Path;

use url::Url;

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
    /// The server has answered: the body follows.
    Answered {
        /// Its length in bytes, if the server tells.
        length: Option<u64>,
    },
    /// More of the body has come.
    Received {
        /// The bytes that have come in all, never more than the length.
        position: u64,
    },
    /// It is done.
    Saved(&'a Saved),
    /// It has failed.
    Failed(&'a Failure),
    /// The run was told to stop before it was done.
    Stopped,
}
