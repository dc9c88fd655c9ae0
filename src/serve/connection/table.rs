//! Per-worker table of open connections: idle tracking, buffered-byte accounting and drain
//! notification.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use slab::Slab;

/// Reason why a connection has to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum CloseReason {
    /// No byte was transferred for the idle timeout.
    IdleTimeout,
    /// The incomplete lines together exceed the limit, and this one is the longest.
    BufferLimit,
    /// The server drains.
    Shutdown,
}

/// Index of a connection in the table of its worker.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct ConnectionId(u32);

/// The open connections of one worker.
///
/// With thousands of connections an entry is mostly not in the processor's cache. The common
/// counters avoid the lookup where they are sufficient.
#[derive(Debug)]
pub(in crate::serve) struct ConnectionTable {
    open: RefCell<Slab<Entry>>,
    /// Whether the last activity has to be recorded.
    track_idle: bool,
    max_buffered_bytes: usize,
    partial: Cell<usize>,
    /// Number of connections with a close reason of their own, plus one if the server drains.
    closing: Cell<usize>,
    tick: Cell<u16>,
    draining: Cell<bool>,
}

/// State of one open connection. Kept small, as there is one for each.
#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    /// Bytes of the incomplete line, capped at 4 GiB.
    partial: u32,
    last_active: u16,
    close_reason: Option<CloseReason>,
}

impl ConnectionTable {
    /// Creates an empty table. `max_buffered_bytes` limits the total of the incomplete lines.
    /// [`tick`](Self::tick) detects idle connections only if `track_idle` is set.
    pub(in crate::serve) fn new(max_buffered_bytes: usize, track_idle: bool) -> Self {
        Self {
            open: RefCell::default(),
            track_idle,
            max_buffered_bytes,
            partial: Cell::new(0),
            closing: Cell::new(0),
            tick: Cell::new(0),
            draining: Cell::new(false),
        }
    }

    /// Adds a connection.
    pub(super) fn insert(&self) -> ConnectionId {
        let entry = Entry {
            waker: None,
            partial: 0,
            last_active: self.tick.get(),
            close_reason: None,
        };
        // No process can have 2^32 descriptors.
        ConnectionId(self.open.borrow_mut().insert(entry) as u32)
    }

    /// Removes a connection.
    pub(super) fn remove(&self, id: ConnectionId) {
        // The waker is dropped after the borrow: it may be the last reference to its task.
        let entry = self.open.borrow_mut().remove(id.0 as usize);
        self.partial
            .set(self.partial.get() - entry.partial as usize);
        self.closing
            .set(self.closing.get() - usize::from(entry.close_reason.is_some()));
    }

    /// Registers the waker of a connection's task.
    pub(in crate::serve) fn register_waker(&self, id: ConnectionId, waker: &Waker) {
        let old = self.open.borrow_mut()[id.0 as usize]
            .waker
            .replace(waker.clone());
        // After the borrow, as in `remove`.
        drop(old);
    }

    /// Returns the reason why a connection has to close, if there is one.
    pub(in crate::serve) fn close_reason(&self, id: ConnectionId) -> Option<CloseReason> {
        if self.closing.get() == 0 {
            None
        } else {
            let own = self.open.borrow()[id.0 as usize].close_reason;
            own.or(self.draining.get().then_some(CloseReason::Shutdown))
        }
    }

    /// Records a transfer, and the current length of the incomplete line. If the total exceeds the
    /// limit, the connection with the longest line has to close.
    pub(in crate::serve) fn record_activity(&self, id: ConnectionId, partial: usize) {
        if !self.track_idle && partial == 0 && self.partial.get() == 0 {
            return;
        }
        let mut open = self.open.borrow_mut();
        let entry = &mut open[id.0 as usize];
        entry.last_active = self.tick.get();
        let partial = u32::try_from(partial).unwrap_or(u32::MAX);
        if entry.close_reason.is_none() && entry.partial != partial {
            self.partial
                .set(self.partial.get() - entry.partial as usize + partial as usize);
            entry.partial = partial;
            self.enforce_buffer_limit(&mut open);
        }
    }

    fn enforce_buffer_limit(&self, open: &mut Slab<Entry>) {
        while self.partial.get() > self.max_buffered_bytes {
            let entries = open.iter_mut().map(|(_, entry)| entry);
            let Some(longest) = entries.max_by_key(|entry| entry.partial) else {
                return;
            };
            self.partial
                .set(self.partial.get() - longest.partial as usize);
            longest.partial = 0;
            // The first reason of a connection stays.
            if longest.close_reason != Some(CloseReason::IdleTimeout) {
                self.request_close(longest, CloseReason::BufferLimit);
            }
        }
    }

    /// Advances the clock by one tick, and closes the connections without activity for `limit`
    /// ticks. A connection without a waker is still in its TLS handshake, which has a timeout of
    /// its own.
    pub(in crate::serve) fn tick(&self, limit: u16) {
        let now = self.tick.get().wrapping_add(1);
        self.tick.set(now);
        for (_, entry) in self.open.borrow_mut().iter_mut() {
            if entry.waker.is_some() && now.wrapping_sub(entry.last_active) >= limit {
                self.request_close(entry, CloseReason::IdleTimeout);
            }
        }
    }

    fn request_close(&self, entry: &mut Entry, reason: CloseReason) {
        self.closing
            .set(self.closing.get() + usize::from(entry.close_reason.is_none()));
        entry.close_reason = Some(reason);
        entry.waker.iter().for_each(Waker::wake_by_ref);
    }

    /// Notifies all connections that the server drains.
    pub(in crate::serve) fn drain(&self) {
        if !self.draining.replace(true) {
            self.closing.set(self.closing.get() + 1);
        }
        for (_, entry) in self.open.borrow().iter() {
            entry.waker.iter().for_each(Waker::wake_by_ref);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn entry_is_small() {
        assert!(size_of::<Entry>() <= 24, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn handshake_is_not_idle() {
        let connections = ConnectionTable::new(100, true);
        let early = connections.insert();
        (0..9).for_each(|_| connections.tick(3));
        connections.register_waker(early, Waker::noop());
        connections.record_activity(early, 0);
        connections.tick(3);
        assert_eq!(connections.close_reason(early), None);
        (0..2).for_each(|_| connections.tick(3));
        assert_eq!(
            connections.close_reason(early),
            Some(CloseReason::IdleTimeout)
        );
    }

    #[test]
    fn idle_connection_is_closed_and_woken() {
        let connections = ConnectionTable::new(100, true);
        let silent = connections.insert();
        let busy = connections.insert();
        let wakes = Arc::new(WakeCounter::default());
        connections.register_waker(silent, &wakes.clone().into());
        for _ in 0..2 {
            connections.tick(3);
            connections.record_activity(busy, 0);
        }
        assert_eq!(connections.close_reason(silent), None);
        connections.tick(3);
        assert_eq!(
            connections.close_reason(silent),
            Some(CloseReason::IdleTimeout)
        );
        assert_eq!(connections.close_reason(busy), None);
        assert_eq!(wakes.0.load(Relaxed), 1);
    }

    #[test]
    fn longest_line_is_closed_at_the_buffer_limit() {
        let connections = ConnectionTable::new(100, true);
        let long = connections.insert();
        let short = connections.insert();
        connections.record_activity(long, 60);
        connections.record_activity(short, 40);
        assert_eq!(connections.close_reason(long), None);
        connections.record_activity(short, 41);
        assert_eq!(
            (
                connections.close_reason(long),
                connections.close_reason(short)
            ),
            (Some(CloseReason::BufferLimit), None)
        );
        connections.record_activity(long, 70);
        assert_eq!(
            connections.partial.get(),
            41,
            "a closing connection is not counted"
        );
        connections.remove(short);
        connections.remove(long);
        assert_eq!(connections.partial.get(), 0);
    }

    #[test]
    fn idle_connection_keeps_its_close_reason() {
        let connections = ConnectionTable::new(100, true);
        let silent = connections.insert();
        let other = connections.insert();
        connections.register_waker(silent, Waker::noop());
        connections.record_activity(silent, 60);
        connections.tick(1);
        connections.record_activity(other, 50);
        assert_eq!(
            (
                connections.close_reason(silent),
                connections.close_reason(other)
            ),
            (Some(CloseReason::IdleTimeout), None)
        );
        assert_eq!(connections.partial.get(), 50);
    }

    #[test]
    fn buffer_limit_works_without_idle_tracking() {
        let connections = ConnectionTable::new(100, false);
        let long = connections.insert();
        let short = connections.insert();
        connections.record_activity(short, 0);
        connections.record_activity(long, 60);
        connections.record_activity(short, 40);
        connections.record_activity(long, 0);
        connections.record_activity(short, 40);
        assert_eq!(connections.partial.get(), 40);
        connections.record_activity(long, 61);
        assert_eq!(
            (
                connections.close_reason(long),
                connections.close_reason(short)
            ),
            (Some(CloseReason::BufferLimit), None)
        );
        connections.remove(long);
        assert_eq!(
            (connections.closing.get(), connections.partial.get()),
            (0, 40)
        );
        connections.record_activity(short, 0);
        assert_eq!(connections.partial.get(), 0);
    }

    #[test]
    fn drain_wakes_all_connections() {
        let connections = ConnectionTable::new(100, true);
        let wakes = Arc::new(WakeCounter::default());
        let open = [(); 3].map(|()| connections.insert());
        for id in open {
            connections.register_waker(id, &wakes.clone().into());
        }
        connections.record_activity(open[0], 101);
        connections.drain();
        let later = connections.insert();
        let reasons = [open[0], open[1], later].map(|id| connections.close_reason(id));
        let shutdown = Some(CloseReason::Shutdown);
        assert_eq!(
            reasons,
            [Some(CloseReason::BufferLimit), shutdown, shutdown]
        );
        assert_eq!(wakes.0.load(Relaxed), 4, "one for the buffer limit");
    }
}
