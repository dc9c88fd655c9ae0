//! What a server can be told.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

/// How a server answers, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is answered, and when. Default: [`Mode::Line`].
    pub mode: Mode,
    /// What stands before each answer. Default: nothing.
    pub prefix: Vec<u8>,
    /// In [`Mode::Chunk`] at most so many bytes are read at once; never more than the 64 KiB of
    /// the buffer that all connections share. Default: 64 KiB.
    pub chunk: NonZeroUsize,
    /// In [`Mode::Line`] the bytes that a line may have, its `\n` not counted. Default: 1 MiB.
    pub max_line: usize,
    /// The memory in bytes that the unfinished lines of all connections may take together; when
    /// they take more, the connection with the longest is closed. Each thread has an equal share.
    /// Default: 256 MiB.
    pub max_partial: usize,
    /// Threads that serve, each with its share of the connections. Default: half as many as there
    /// are processor cores, as clients on the same machine and the system's own work take the
    /// other half; at least one.
    pub threads: NonZeroUsize,
    /// Connections at once; further ones wait in the system's backlog. Default: `None`, as many
    /// as the limit of file descriptors allows
    /// ([`descriptors::room`](crate::limits::descriptors::room)).
    pub max_connections: Option<NonZeroUsize>,
    /// After how long a connection is closed on which no byte has moved. Default: never.
    pub idle_timeout: Option<Duration>,
    /// How long connections may take to end once the server has been stopped. Default: 10 s.
    pub drain: Duration,
}

/// What is answered, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each line, when its `\n` has come; at the end of input what is left, as it is.
    Line,
    /// Every byte, as it comes (RFC 862).
    Chunk,
    /// Nothing: all is read and dropped (RFC 863).
    Discard,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Line,
            prefix: Vec::new(),
            chunk: const { NonZeroUsize::new(64 << 10).expect("not zero") },
            max_line: 1 << 20,
            max_partial: 256 << 20,
            threads: half_the_cores(),
            max_connections: None,
            idle_timeout: None,
            drain: Duration::from_secs(10),
        }
    }
}

fn half_the_cores() -> NonZeroUsize {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}
