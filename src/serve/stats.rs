//! What a server has done so far, counted as it happens.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The counters of a server, to be read while it runs.
#[derive(Debug)]
pub struct Figures {
    started: Instant,
    traffic: Vec<Arc<Traffic>>,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) too_long: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) crowded: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) reset: AtomicU64,
    pub(super) idle: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) tls: TlsFigures,
    pub(super) datagrams: DatagramFigures,
}

/// What every message moves, counted by each thread for itself: so none waits for the memory in
/// which another has just counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Traffic {
    messages: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
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

/// Adds to a counter that no other thread changes. (So not `fetch_add`, which would lock its memory
/// for each message.)
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

/// The counters of what TLS ended.
#[derive(Debug, Default)]
pub(super) struct TlsFigures {
    pub(super) not_tls: AtomicU64,
    pub(super) unknown_client: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) other: AtomicU64,
    pub(super) truncated: AtomicU64,
}

/// The counters of datagrams.
#[derive(Debug, Default)]
pub(super) struct DatagramFigures {
    pub(super) taken: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) looped: AtomicU64,
    pub(super) too_long: AtomicU64,
    pub(super) unsent: AtomicU64,
}

/// What a server has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// Messages that were received: lines, pieces or, in discard mode, reads; and datagrams.
    pub messages: u64,
    /// Bytes that were received.
    pub received: u64,
    /// Bytes that were sent.
    pub sent: u64,
    /// Connections that ended in an error: mostly resets by the other side.
    pub failed: u64,
    /// Those of them that the other side has reset.
    pub broken: u64,
    /// Those of them that ended because of TLS.
    pub tls: TlsFailures,
    /// Connections that were closed because of a line that was too long.
    pub too_long: u64,
    /// Connections that were closed at once, and count nowhere else, because their address may
    /// not connect.
    pub denied: u64,
    /// Connections that were closed at once, and count nowhere else, because their address had
    /// as many as one may have.
    pub crowded: u64,
    /// Answers that were lost on purpose ([`Faults::drop_rate`](crate::serve::Faults)).
    pub lost: u64,
    /// Connections that were reset on purpose ([`Faults::reset_after`](crate::serve::Faults)).
    pub reset: u64,
    /// Connections that were closed after the idle timeout.
    pub idle: u64,
    /// Connections that were cut by the end of the server.
    pub cut: u64,
    /// What came in datagrams; of the figures above only messages, bytes and lost answers count
    /// it.
    pub datagrams: Datagrams,
    /// For how long the server has run.
    pub elapsed: Duration,
}

/// What a server has done with datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// Those that were taken as messages.
    pub taken: u64,
    /// Those that were dropped because their address may not ask.
    pub denied: u64,
    /// Those that were dropped because an answer would be answered: their port is that of a
    /// service that answers everything, or they come from this server, or have been going in a
    /// circle.
    pub looped: u64,
    /// Those that were dropped because they were too long
    /// ([`Config::udp_max`](crate::serve::Config)).
    pub too_long: u64,
    /// Answers that the system could not send.
    pub unsent: u64,
}

impl Datagrams {
    /// Those that came, or were taken, and got no answer for another reason than faults.
    pub fn unanswered(&self) -> u64 {
        self.denied + self.looped + self.too_long + self.unsent
    }
}

impl DatagramFigures {
    fn summary(&self) -> Datagrams {
        Datagrams {
            taken: self.taken.load(Relaxed),
            denied: self.denied.load(Relaxed),
            looped: self.looped.load(Relaxed),
            too_long: self.too_long.load(Relaxed),
            unsent: self.unsent.load(Relaxed),
        }
    }
}

/// Connections that ended because of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsFailures {
    /// Those that spoke something else.
    pub not_tls: u64,
    /// Clients that showed no certificate, or not one that is accepted.
    pub unknown_client: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Handshakes that failed in another way.
    pub other: u64,
    /// Connections on which the other side closed without saying so inside TLS.
    pub truncated: u64,
}

impl TlsFailures {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.not_tls + self.unknown_client + self.timed_out + self.other + self.truncated
    }
}

impl TlsFigures {
    fn failures(&self) -> TlsFailures {
        TlsFailures {
            not_tls: self.not_tls.load(Relaxed),
            unknown_client: self.unknown_client.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            other: self.other.load(Relaxed),
            truncated: self.truncated.load(Relaxed),
        }
    }
}

impl Figures {
    /// Starts for so many threads.
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            traffic: (0..threads.get()).map(|_| Arc::default()).collect(),
            opened: zero(),
            closed: zero(),
            failed: zero(),
            broken: zero(),
            too_long: zero(),
            denied: zero(),
            crowded: zero(),
            lost: zero(),
            reset: zero(),
            idle: zero(),
            cut: zero(),
            tls: TlsFigures::default(),
            datagrams: DatagramFigures::default(),
        }
    }

    /// The counters that each thread has for itself.
    pub(super) fn traffic(&self) -> impl Iterator<Item = Arc<Traffic>> {
        self.traffic.iter().map(Arc::clone)
    }

    /// The counters as they are now. Each is right by itself; while the server runs they may be
    /// a few messages apart from one another.
    pub fn summary(&self) -> Summary {
        let closed = self.closed.load(Relaxed);
        let connections = self.opened.load(Relaxed);
        let all = |counter: fn(&Traffic) -> &AtomicU64| {
            self.traffic
                .iter()
                .map(|traffic| counter(traffic).load(Relaxed))
                .sum()
        };
        Summary {
            connections,
            open: connections.saturating_sub(closed),
            messages: all(|traffic| &traffic.messages),
            received: all(|traffic| &traffic.received),
            sent: all(|traffic| &traffic.sent),
            failed: self.failed.load(Relaxed),
            broken: self.broken.load(Relaxed),
            tls: self.tls.failures(),
            too_long: self.too_long.load(Relaxed),
            denied: self.denied.load(Relaxed),
            crowded: self.crowded.load(Relaxed),
            lost: self.lost.load(Relaxed),
            reset: self.reset.load(Relaxed),
            idle: self.idle.load(Relaxed),
            cut: self.cut.load(Relaxed),
            datagrams: self.datagrams.summary(),
            elapsed: self.started.elapsed(),
        }
    }
}
