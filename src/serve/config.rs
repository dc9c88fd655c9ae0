//! What a server can be told.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use crate::net::address::Endpoint;
use crate::net::tls::TlsServerConfig;
use crate::runtime::default_threads;

/// How a server answers, and within which limits.
#[derive(Debug, Clone, PartialEq)]
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
    /// The longest datagram that is answered, in bytes; a longer one is counted and dropped.
    /// Default: 65,507, the longest of IPv4.
    pub udp_max: usize,
    /// The memory in bytes that the unfinished lines of all connections may take together; when
    /// they take more, the connection with the longest is closed. Each thread has an equal share.
    /// Default: 256 MiB.
    pub max_partial: usize,
    /// Threads that serve, each with its share of the connections. Default: half as many as there
    /// are processor cores, as clients on the same machine and the system's own work take the
    /// other half; at least one.
    pub threads: NonZeroUsize,
    /// Connections at once; further ones wait in the system's backlog. Default: `None`, as many
    /// as the limit of file descriptors allows beside the listening sockets and the threads
    /// ([`nofile::available_after`](crate::limits::nofile::room_beside)).
    pub max_connections: Option<NonZeroUsize>,
    /// Connections of one address at once; further ones are closed at once. Those over Unix
    /// sockets have none, and do not count. Default: `None`, as many as there may be in all.
    pub max_per_ip: Option<NonZeroUsize>,
    /// The networks from which connections are served; others are closed at once, but not those
    /// over Unix sockets. Default: none, which means all.
    pub allow: Vec<IpNet>,
    /// The networks from which connections are closed at once, also those in
    /// [`allow`](Self::allow). Default: none.
    pub deny: Vec<IpNet>,
    /// After how long a connection is closed on which no byte has moved. Default: never.
    pub idle_timeout: Option<Duration>,
    /// How long connections may take to end once the server has been stopped. Default: 10 s.
    pub drain: Duration,
    /// The permissions of a Unix socket's path, whatever the umask. Default: `0o600`, only its
    /// owner may connect.
    pub unix_mode: u32,
    /// How long each thread keeps asking for events before it sleeps: a message that comes in this
    /// time needs no wake-up, but the thread takes a core. On Linux alone. Default: not at all.
    pub busy_poll: Duration,
    /// What is shown to those who come over TLS, and who of them is let in. Default: nothing, and
    /// no [`Address::Tls`](crate::net::address::Address::Tls) can be listened on.
    pub tls: Option<TlsServerConfig>,
    /// Where the figures are told to who asks with HTTP/1.1 for `/metrics`, in Prometheus' text
    /// format. Default: nowhere.
    pub metrics: Option<Endpoint>,
    /// Faults that are made on purpose, for trying a client's patience. In [`Mode::Discard`]
    /// there are none, as there are no answers. Default: none.
    pub faults: Option<Faults>,
}

/// Faults that a server makes on purpose.
///
/// What happens to a message depends on the seed, on how many connections came before its own,
/// and on how many messages came before it there, and on nothing else; to a datagram, on the seed
/// and on how many datagrams came before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// How much later each answer is sent. While 256 KiB of answers wait on a connection, or 4 MiB
    /// on a socket for datagrams, no more is read from it. Default: not at all.
    pub delay: Duration,
    /// Up to how much later still. On a connection answers keep their order; in datagrams one may
    /// overtake another. Default: not at all.
    pub jitter: Duration,
    /// The share of answers that are not sent, from 0 to 1. Default: 0.
    pub drop_rate: f64,
    /// How many bytes of answers are sent before the connection is reset. Default: `None`, it is
    /// not reset.
    pub reset_after: Option<NonZeroU64>,
    /// Where the random numbers begin: with the same seed, the same faults. Default: 0.
    pub seed: u64,
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
            udp_max: 65_507,
            max_partial: 256 << 20,
            threads: default_threads(),
            max_connections: None,
            max_per_ip: None,
            allow: Vec::new(),
            deny: Vec::new(),
            idle_timeout: None,
            drain: Duration::from_secs(10),
            unix_mode: 0o600,
            busy_poll: Duration::ZERO,
            tls: None,
            metrics: None,
            faults: None,
        }
    }
}
