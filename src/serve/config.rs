//! Configuration of a server.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use crate::net::address::{Endpoint, UnixPath};
use crate::net::tls::TlsServerConfig;
use crate::runtime::default_threads;

/// Configuration of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Framing of messages. Default: [`Mode::Line`].
    pub mode: Mode,
    /// Text before each reply. Default: empty.
    pub prefix: Vec<u8>,
    /// In [`Mode::Chunk`], the maximum number of bytes per read, capped at the 64 KiB of the
    /// shared buffer. Default: 64 KiB.
    pub chunk: NonZeroUsize,
    /// In [`Mode::Line`] and [`Mode::Whoami`], the maximum number of bytes per line without its `\n`. Default: 1 MiB.
    pub max_line: usize,
    /// Maximum number of bytes per datagram; longer ones are dropped and counted. Default: 65,507,
    /// the maximum of IPv4.
    pub max_datagram: usize,
    /// Maximum memory in bytes of the incomplete lines of all connections. When it is exceeded,
    /// the connection with the longest line is closed. Each thread has an equal share. Default:
    /// 256 MiB.
    pub max_buffered_bytes: usize,
    /// Worker threads. Default: half the processor cores, at least one, because clients on the
    /// same machine and the kernel need the other half.
    pub threads: NonZeroUsize,
    /// Maximum number of open connections; more wait in the kernel's backlog. Default: `None`,
    /// limited by the file descriptors left beside those of the workers.
    pub max_connections: Option<NonZeroUsize>,
    /// Maximum number of open connections per IP address; more are refused. Does not apply to Unix
    /// sockets. Default: `None`, unlimited.
    pub max_per_ip: Option<NonZeroUsize>,
    /// Networks whose connections are accepted; others are refused. Does not apply to Unix
    /// sockets. Default: empty, all networks.
    pub allow: Vec<IpNet>,
    /// Networks whose connections are refused, even if they match [`allow`](Self::allow). Default:
    /// empty.
    pub deny: Vec<IpNet>,
    /// Proxies that announce their clients. Does not apply to UDP. Default: `None`, no connection
    /// begins with a header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Idle time after which the kernel probes a TCP peer; connections of peers that are gone are
    /// aborted about a minute later. At most [`MAX_KEEPALIVE`](crate::serve::MAX_KEEPALIVE); zero
    /// turns it off. Default: 60 s.
    pub keepalive: Duration,
    /// Closes connections without any transfer for this long. Default: `None`.
    pub idle_timeout: Option<Duration>,
    /// Time between the shutdown signal and the drain, in which the server still accepts but is
    /// [not ready](crate::serve::Health::is_ready): load balancers stop sending clients. Default:
    /// zero.
    pub shutdown_delay: Duration,
    /// Time limit for open connections to end after the start of the drain. Default: 10 s.
    pub drain_timeout: Duration,
    /// Permissions of Unix socket paths, regardless of the umask. Default: `0o600`, only the owner
    /// may connect.
    pub unix_socket_mode: u32,
    /// Time each worker spins for events before it blocks. Saves the wake-up of messages that
    /// arrive in this time, at the cost of a core per worker. Linux only. Default: zero.
    pub busy_poll: Duration,
    /// Certificate of the server and verification of clients. Required for
    /// [`Address::Tls`](crate::net::address::Address::Tls). Default: `None`.
    pub tls: Option<TlsServerConfig>,
    /// Address of the HTTP/1.1 endpoint that serves `/metrics` in Prometheus' text format,
    /// `/healthz` (whether the workers make progress) and `/readyz` ([`Health::is_ready`]).
    ///
    /// [`Health::is_ready`]: crate::serve::Health::is_ready
    /// Default: `None`.
    pub metrics: Option<Endpoint>,
    /// Path of the Unix socket of the admin endpoint, which only the owner may use: HTTP/1.1 that
    /// reads and changes the faults at `/faults`, and reads the counters at `/stats`. Default:
    /// `None`.
    pub admin: Option<UnixPath>,
    /// Faults to inject into replies. Ignored in [`Mode::Discard`], which has no replies. With
    /// `Some`, also without any fault, they can be changed while the server runs
    /// ([`Server::faults`](crate::serve::Server::faults)). Default: `None`, which costs nothing; no
    /// fault with [`admin`](Self::admin).
    pub fault_injection: Option<FaultInjection>,
}

/// Proxies that announce their clients with the PROXY protocol, version 1 or 2.
///
/// Their connections must begin with a header, which precedes TLS;
/// others are closed. The announced client replaces the peer in access control, limits per address
/// and the log. All other connections are served without looking for a header, which they could
/// forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Networks of the proxies. All peers of Unix sockets are proxies as well.
    pub trusted: Vec<IpNet>,
}

/// Faults that a server injects on purpose, for testing clients.
///
/// Each probability is a share from 0 to 1. The faults of a message depend only on the seed, the
/// number of connections accepted before its own, and the number of messages before it on that
/// connection. The faults of a datagram depend on the seed and the number of datagrams before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultInjection {
    /// Delay of each reply. Reading pauses while 256 KiB of replies are queued on a connection, or
    /// 4 MiB on a UDP socket. Default: zero.
    pub delay: Duration,
    /// Maximum random delay in addition. On a connection replies stay in order; datagrams may be
    /// reordered. Default: zero.
    pub jitter: Duration,
    /// Share of replies to drop. Default: 0.
    pub drop_rate: f64,
    /// Drops replies to datagrams in bursts. Default: `None`.
    pub loss_burst: Option<LossBurst>,
    /// Share of replies in which one random bit is flipped. Default: 0.
    pub corrupt_rate: f64,
    /// Share of replies to datagrams that are sent twice. Default: 0.
    pub duplicate_rate: f64,
    /// Share of replies to datagrams that are sent after the next reply to the same client, or
    /// after 100 ms without one. Default: 0.
    pub reorder_rate: f64,
    /// Share of replies in place of which the connection is closed. Default: 0.
    pub close_rate: f64,
    /// Closes each connection at this age; queued replies are discarded. Default: `None`.
    pub close_after: Option<Duration>,
    /// Resets a connection after this many bytes of replies. Default: `None`.
    pub reset_after: Option<NonZeroU64>,
    /// Time after the accept in which a connection is not served. Default: zero.
    pub accept_delay: Duration,
    /// Maximum rate of the replies on each connection in bytes per second, without bursts.
    /// Default: `None`.
    pub bandwidth: Option<NonZeroU64>,
    /// Maximum number of bytes per write on a connection. Default: `None`.
    pub slice: Option<NonZeroUsize>,
    /// Seed of the random numbers; the same seed gives the same faults. Default: 0.
    pub seed: u64,
}

impl FaultInjection {
    /// Returns whether there is any fault.
    pub fn is_active(&self) -> bool {
        let none = Self {
            seed: self.seed,
            ..Self::default()
        };
        *self != none
    }
}

/// The Gilbert-Elliott model of losses in bursts: a good and a bad state, each with its loss. The
/// parameters are those of `loss gemodel` in netem (tc-netem(8)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossBurst {
    /// Probability per datagram that a burst begins: netem's `p`.
    pub begin: f64,
    /// Probability per datagram that a burst ends: netem's `r`. A burst has 1 / `end` datagrams on
    /// average.
    pub end: f64,
    /// Share of datagrams lost in a burst: netem's `1-h`.
    pub loss_in_burst: f64,
    /// Share of datagrams lost otherwise: netem's `1-k`.
    pub loss_otherwise: f64,
}

impl LossBurst {
    /// Creates the simple Gilbert model: bursts of four datagrams on average, all of which are
    /// lost, and no other loss.
    pub fn new(begin: f64) -> Self {
        Self {
            begin,
            end: 0.25,
            loss_in_burst: 1.0,
            loss_otherwise: 0.0,
        }
    }
}

/// Framing of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Replies to each complete line; at the end of input, to the incomplete last line as well.
    Line,
    /// Replies to each read without waiting for a line end (RFC 862).
    Chunk,
    /// Discards all input without replies (RFC 863).
    Discard,
    /// Splits input like [`Line`](Self::Line), but replies with the properties of the connection,
    /// one line of JSON per message.
    Whoami,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Line,
            prefix: Vec::new(),
            chunk: const { NonZeroUsize::new(64 << 10).expect("not zero") },
            max_line: 1 << 20,
            max_datagram: 65_507,
            max_buffered_bytes: 256 << 20,
            threads: default_threads(),
            max_connections: None,
            max_per_ip: None,
            allow: Vec::new(),
            deny: Vec::new(),
            proxy_protocol: None,
            keepalive: Duration::from_secs(60),
            idle_timeout: None,
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            unix_socket_mode: 0o600,
            busy_poll: Duration::ZERO,
            tls: None,
            metrics: None,
            admin: None,
            fault_injection: None,
        }
    }
}
