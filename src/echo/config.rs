//! What a client is told.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::net::address::Address;

/// How messages are sent, and what is asked of the replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server. Default: 127.0.0.1:8888.
    pub address: Address,
    /// How messages are spread over connections. Default: one for each, 8 at once.
    pub connections: Connections,
    /// How long connecting may take, and how long each reply. Default: 5 s.
    pub timeout: Duration,
    /// How many times a failed connection is tried again. Default: 0.
    pub retries: u32,
    /// Whether a reply that differs from its message is an error. Default: no.
    pub verify: bool,
}

/// How messages are spread over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Each message has a connection of its own; at most so many at once.
    Each(NonZeroUsize),
    /// All messages go over one connection, each after the reply to the one before it. After a
    /// message that failed, the next one opens it anew.
    One,
}

impl Connections {
    /// The number of connections that are open at once.
    pub fn at_once(self) -> NonZeroUsize {
        match self {
            Self::Each(jobs) => jobs,
            Self::One => NonZeroUsize::MIN,
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        const EIGHT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
        Self::Each(EIGHT)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Address::loopback(8888),
            connections: Connections::default(),
            timeout: Duration::from_secs(5),
            retries: 0,
            verify: false,
        }
    }
}
