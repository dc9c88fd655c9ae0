//! Types shared by the stream and the UDP driver.

use std::time::{Duration, Instant};

use crate::echo::config::Target;
use crate::echo::payload::Payload;

/// Bytes per read or write.
pub(crate) const CHUNK_LEN: usize = 64 << 10;

/// Reads after which a driver yields to the other connections.
pub(crate) const MAX_READS_PER_POLL: usize = 16;

/// Delay after which a message counts as sent late by the client.
pub(crate) const MAX_SEND_DELAY: Duration = Duration::from_millis(1);

/// Buffers for received and expected bytes. All connections of a thread share one pair, because
/// nothing stays in it while a connection waits.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) received: Vec<u8>,
    pub(crate) expected: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            received: vec![0; CHUNK_LEN],
            expected: vec![0; CHUNK_LEN],
        }
    }
}

/// Times of a message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Scheduled time.
    pub(crate) due: Instant,
    /// Actual time.
    pub(crate) at: Instant,
}

/// Reason why a message has no valid reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The reply differs.
    Mismatched,
    /// The reply did not arrive in time, over a stream.
    TimedOut,
    /// The reply did not arrive in time, over UDP.
    Lost,
    /// The connection ended.
    Failed,
}

/// Progress of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// The message was sent; `late` if that was possible earlier.
    Sent { due: Instant, late: bool },
    /// Its reply is complete.
    Answered { sent: Sent, now: Instant },
    /// Its reply arrived after that of a later message.
    OutOfOrder { sent: Sent },
    /// A reply arrived again.
    Duplicate,
    /// A reply arrived after its message counted as lost.
    Late,
    /// The kernel dropped this number of datagrams, because the receive buffer was full.
    Dropped(u32),
    /// Its reply did not arrive in time, over UDP.
    Lost { sent: Sent, now: Instant },
}

/// Parameters of a driver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadOptions<'a> {
    pub(crate) target: &'a Target,
    pub(crate) payload: &'a Payload,
    pub(crate) verify: bool,
    pub(crate) in_flight: usize,
}

/// Returns whether a message sent `now` is late, given its due time and the time since which
/// another message could have been in flight.
#[inline]
pub(crate) fn is_late(now: Instant, due: Instant, slot_free_since: Instant) -> bool {
    now - due.max(slot_free_since).min(now) > MAX_SEND_DELAY
}
