//! Bookkeeping of an open connection.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::info;

use crate::limits::semaphore::Permit;
use crate::net::stream::Peer;
use crate::serve::connection::table::ConnectionId;
use crate::serve::context::WorkerContext;
use crate::serve::event::ConnectionEvent;
use crate::serve::traffic_log::TRAFFIC;

/// Messages and bytes of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::serve) struct Counts {
    pub(in crate::serve) messages: u64,
    pub(in crate::serve) received: u64,
    pub(in crate::serve) sent: u64,
}

/// Registration of an open connection. Dropping it updates the statistics and releases the permit.
#[derive(Debug)]
pub(in crate::serve) struct ConnectionGuard {
    pub(in crate::serve) context: Rc<WorkerContext>,
    pub(in crate::serve) peer: Peer,
    /// Milliseconds after the start of the worker.
    opened: u32,
    pub(in crate::serve) id: ConnectionId,
}

impl ConnectionGuard {
    /// Registers an admitted connection. Also returns the number of connections before it.
    pub(in crate::serve) fn new(
        context: Rc<WorkerContext>,
        permit: Permit,
        peer: Peer,
    ) -> (Self, u64) {
        let number = context.stats.opened.fetch_add(1, Relaxed);
        let opened = context.milliseconds();
        let id = context.connections.insert();
        // Released in `drop`. Keeping it would cost memory in each open connection.
        permit.forget();
        if let Some(observer) = &context.observer {
            observer.observe(ConnectionEvent::Opened {
                peer: peer.socket_addr(),
            });
        }
        let guard = Self {
            context,
            peer,
            opened,
            id,
        };
        (guard, number)
    }

    /// Returns the age of the connection.
    pub(in crate::serve) fn age(&self) -> Duration {
        let milliseconds = self.context.milliseconds().wrapping_sub(self.opened);
        Duration::from_millis(milliseconds.into())
    }

    /// Logs the end of the connection, and reports it to the observer.
    pub(in crate::serve) fn report_closed(&self, counts: Counts, reason: &str) {
        let Counts {
            messages,
            received,
            sent,
        } = counts;
        let peer = &self.peer;
        let duration = self.age();
        let seconds = duration.as_secs_f64();
        info!(target: TRAFFIC, %peer, messages, received, sent, seconds, reason, "closed");
        if let Some(observer) = &self.context.observer {
            observer.observe(ConnectionEvent::Closed {
                peer: peer.socket_addr(),
                messages,
                received,
                sent,
                duration,
                reason: reason.to_owned(),
            });
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.context.connections.remove(self.id);
        self.context.stats.closed.fetch_add(1, Relaxed);
        self.context.access.release(&self.peer);
        self.context.permits.release();
    }
}
