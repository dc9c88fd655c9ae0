//! Counters of a server.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::serialize::seconds;
use crate::serve::counter::add;
use crate::serve::handling_time::{HandlingTimes, Histogram};

/// The counters of a server, readable while it runs.
#[derive(Debug)]
pub struct ServerStats {
    started: Instant,
    traffic: Vec<Arc<Traffic>>,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) reset_by_peer: AtomicU64,
    pub(super) line_too_long: AtomicU64,
    pub(super) refused_acl: AtomicU64,
    pub(super) refused_max_per_ip: AtomicU64,
    pub(super) refused_proxy_header: AtomicU64,
    pub(super) faults: FaultCounters,
    pub(super) idle_timeouts: AtomicU64,
    pub(super) aborted_on_shutdown: AtomicU64,
    pub(super) tls: TlsCounters,
    pub(super) datagrams: DatagramCounters,
}

/// The counters that change with every message. Each worker has its own, in its own cache lines,
/// so that the workers do not contend for them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Traffic {
    messages: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    pub(super) handling: HandlingTimes,
}

impl Traffic {
    pub(super) fn add_messages(&self, count: u64) {
        add(&self.messages, count);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
    }
}

/// Counters of connections that ended because of TLS.
#[derive(Debug, Default)]
pub(super) struct TlsCounters {
    pub(super) not_tls: AtomicU64,
    pub(super) client_cert_rejected: AtomicU64,
    pub(super) handshake_timeouts: AtomicU64,
    pub(super) handshake_errors: AtomicU64,
    pub(super) missing_close_notify: AtomicU64,
}

/// Counters of injected faults.
#[derive(Debug, Default)]
pub(super) struct FaultCounters {
    pub(super) dropped: AtomicU64,
    pub(super) burst_dropped: AtomicU64,
    pub(super) corrupted: AtomicU64,
    pub(super) duplicated: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) closed_after: AtomicU64,
    pub(super) reset: AtomicU64,
    pub(super) changes: AtomicU64,
}

/// Counters of datagrams.
#[derive(Debug, Default)]
pub(super) struct DatagramCounters {
    pub(super) received: AtomicU64,
    pub(super) refused_acl: AtomicU64,
    pub(super) loops_suppressed: AtomicU64,
    pub(super) too_long: AtomicU64,
    pub(super) send_errors: AtomicU64,
}

/// A snapshot of the counters of a server. Serialized as in the JSON of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Connections accepted.
    pub connections: u64,
    /// Connections currently open.
    pub active: u64,
    /// Messages received: lines, chunks or, in discard mode, reads; and datagrams.
    pub messages: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Connections that ended with an I/O or TLS error.
    pub failed: u64,
    /// Failed connections that the peer reset.
    pub reset_by_peer: u64,
    /// Failed connections that ended because of TLS.
    pub tls: TlsFailures,
    /// Connections closed because of a line over the limit.
    pub line_too_long: u64,
    /// Connections refused because of their address. They are not counted as accepted.
    pub refused_acl: u64,
    /// Connections refused because their address had reached its limit. They are not counted as
    /// accepted.
    pub refused_max_per_ip: u64,
    /// Connections of proxies refused because of their header, or without one
    /// ([`Config::proxy_protocol`](crate::serve::Config)). They are not counted as accepted.
    pub refused_proxy_header: u64,
    /// Replies dropped by fault injection
    /// ([`FaultInjection::drop_rate`](crate::serve::FaultInjection)).
    pub fault_dropped: u64,
    /// Replies to datagrams dropped by [`LossBurst`](crate::serve::LossBurst).
    pub fault_burst_dropped: u64,
    /// Replies with a flipped bit.
    pub fault_corrupted: u64,
    /// Replies to datagrams sent twice.
    pub fault_duplicated: u64,
    /// Replies to datagrams overtaken by the next one.
    pub fault_reordered: u64,
    /// Connections closed in place of a reply
    /// ([`FaultInjection::close_rate`](crate::serve::FaultInjection)).
    pub fault_closed: u64,
    /// Connections closed at their maximum age
    /// ([`FaultInjection::close_after`](crate::serve::FaultInjection)).
    pub fault_closed_after: u64,
    /// Connections reset by fault injection
    /// ([`FaultInjection::reset_after`](crate::serve::FaultInjection)).
    pub fault_reset: u64,
    /// Changes of the faults while the server ran ([`Faults`](crate::serve::Faults)).
    pub fault_changes: u64,
    /// Connections closed after the idle timeout.
    pub idle_timeouts: u64,
    /// Connections aborted because the server stopped.
    pub aborted_on_shutdown: u64,
    /// Datagrams. Of the fields above, only messages, bytes and dropped replies include them.
    pub datagrams: Datagrams,
    /// Time since the server was created. Serialized as seconds.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
}

/// Datagram counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Datagrams {
    /// Datagrams accepted as messages.
    pub received: u64,
    /// Datagrams dropped because of their address.
    pub refused_acl: u64,
    /// Datagrams dropped to prevent a reply loop: from a port of a service that replies to
    /// everything, from this server itself, with an exhausted TTL, or beginning with the prefix of
    /// the replies.
    pub loops_suppressed: u64,
    /// Datagrams dropped because of their length
    /// ([`Config::max_datagram`](crate::serve::Config)).
    pub too_long: u64,
    /// Replies that could not be sent.
    pub send_errors: u64,
}

impl Datagrams {
    /// Returns the number of datagrams without a reply, other than by fault injection.
    pub fn unanswered(&self) -> u64 {
        self.refused_acl + self.loops_suppressed + self.too_long + self.send_errors
    }
}

impl DatagramCounters {
    fn summary(&self) -> Datagrams {
        Datagrams {
            received: self.received.load(Relaxed),
            refused_acl: self.refused_acl.load(Relaxed),
            loops_suppressed: self.loops_suppressed.load(Relaxed),
            too_long: self.too_long.load(Relaxed),
            send_errors: self.send_errors.load(Relaxed),
        }
    }
}

/// Connections that ended because of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TlsFailures {
    /// Clients that did not speak TLS.
    pub not_tls: u64,
    /// Clients without an accepted certificate.
    pub client_cert_rejected: u64,
    /// Handshakes that timed out.
    pub handshake_timeouts: u64,
    /// Handshakes that failed for another reason.
    pub handshake_errors: u64,
    /// Connections closed by the peer without `close_notify`.
    pub missing_close_notify: u64,
}

impl TlsFailures {
    /// Returns the total.
    pub fn sum(&self) -> u64 {
        self.not_tls
            + self.client_cert_rejected
            + self.handshake_timeouts
            + self.handshake_errors
            + self.missing_close_notify
    }
}

impl TlsCounters {
    fn summary(&self) -> TlsFailures {
        TlsFailures {
            not_tls: self.not_tls.load(Relaxed),
            client_cert_rejected: self.client_cert_rejected.load(Relaxed),
            handshake_timeouts: self.handshake_timeouts.load(Relaxed),
            handshake_errors: self.handshake_errors.load(Relaxed),
            missing_close_notify: self.missing_close_notify.load(Relaxed),
        }
    }
}

impl ServerStats {
    /// Creates the counters for a number of worker threads.
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self {
            started: Instant::now(),
            traffic: (0..threads.get()).map(|_| Arc::default()).collect(),
            opened: AtomicU64::default(),
            closed: AtomicU64::default(),
            failed: AtomicU64::default(),
            reset_by_peer: AtomicU64::default(),
            line_too_long: AtomicU64::default(),
            refused_acl: AtomicU64::default(),
            refused_max_per_ip: AtomicU64::default(),
            refused_proxy_header: AtomicU64::default(),
            faults: FaultCounters::default(),
            idle_timeouts: AtomicU64::default(),
            aborted_on_shutdown: AtomicU64::default(),
            tls: TlsCounters::default(),
            datagrams: DatagramCounters::default(),
        }
    }

    /// Returns the per-worker counters.
    pub(super) fn traffic(&self) -> impl Iterator<Item = Arc<Traffic>> {
        self.traffic.iter().map(Arc::clone)
    }

    /// Returns the times from a read to its replies.
    pub(super) fn handling_times(&self) -> Histogram {
        Histogram::sum(self.traffic.iter().map(|traffic| &traffic.handling))
    }

    /// Returns a snapshot of the counters. Each value is exact; while the server runs, different
    /// counters may be a few messages apart.
    pub fn summary(&self) -> Summary {
        // Loaded first: a connection that closes in between must not make `active` negative.
        let closed = self.closed.load(Relaxed);
        let connections = self.opened.load(Relaxed);
        let total = |counter: fn(&Traffic) -> &AtomicU64| {
            self.traffic
                .iter()
                .map(|traffic| counter(traffic).load(Relaxed))
                .sum()
        };
        Summary {
            connections,
            active: connections.saturating_sub(closed),
            messages: total(|traffic| &traffic.messages),
            received: total(|traffic| &traffic.received),
            sent: total(|traffic| &traffic.sent),
            failed: self.failed.load(Relaxed),
            reset_by_peer: self.reset_by_peer.load(Relaxed),
            tls: self.tls.summary(),
            line_too_long: self.line_too_long.load(Relaxed),
            refused_acl: self.refused_acl.load(Relaxed),
            refused_max_per_ip: self.refused_max_per_ip.load(Relaxed),
            refused_proxy_header: self.refused_proxy_header.load(Relaxed),
            fault_dropped: self.faults.dropped.load(Relaxed),
            fault_burst_dropped: self.faults.burst_dropped.load(Relaxed),
            fault_corrupted: self.faults.corrupted.load(Relaxed),
            fault_duplicated: self.faults.duplicated.load(Relaxed),
            fault_reordered: self.faults.reordered.load(Relaxed),
            fault_closed: self.faults.closed.load(Relaxed),
            fault_closed_after: self.faults.closed_after.load(Relaxed),
            fault_reset: self.faults.reset.load(Relaxed),
            fault_changes: self.faults.changes.load(Relaxed),
            idle_timeouts: self.idle_timeouts.load(Relaxed),
            aborted_on_shutdown: self.aborted_on_shutdown.load(Relaxed),
            datagrams: self.datagrams.summary(),
            elapsed: self.started.elapsed(),
        }
    }
}
