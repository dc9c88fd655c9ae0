//! A file a command: its options, how they become the tool's configuration, and its run.

pub(crate) mod cat;
pub(crate) mod download;
pub(crate) mod echo;
pub(crate) mod serve;
