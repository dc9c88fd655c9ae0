//! The open connections, as far as they must know of each other: who has been silent, who holds
//! how much, and that the end has come.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use slab::Slab;

/// What is called out to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Nothing has moved for as long as the idle timeout.
    Idle,
    /// All unfinished lines together are too long, and this one is the longest.
    Longest,
}

/// A connection's number among those of its thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(u32);

/// The open connections of one thread.
///
/// What is known of one of thousands is mostly not in the processor's cache: no entry is looked at
/// where what all have in common tells enough.
#[derive(Debug)]
pub(super) struct Connections {
    open: RefCell<Slab<Entry>>,
    /// Whether it is to be known when bytes have moved last.
    timed: bool,
    max_partial: usize,
    partial: Cell<usize>,
    /// Those to whom something has been called out.
    called: Cell<usize>,
    tick: Cell<u16>,
    draining: Cell<bool>,
}

/// Small, as there is one for each open connection.
#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    /// A line longer than 4 GiB counts as so long.
    partial: u32,
    moved: u16,
    call: Option<Call>,
}

impl Connections {
    /// Starts without any; their unfinished lines may take `max_partial` bytes together. Only if
    /// `timed`, [`tick`](Self::tick) tells the silent ones.
    pub(super) fn new(max_partial: usize, timed: bool) -> Self {
        Self {
            open: RefCell::default(),
            timed,
            max_partial,
            partial: Cell::new(0),
            called: Cell::new(0),
            tick: Cell::new(0),
            draining: Cell::new(false),
        }
    }

    /// Adds a connection and returns its number.
    pub(super) fn join(&self) -> Number {
        let entry = Entry {
            waker: None,
            partial: 0,
            moved: self.tick.get(),
            call: None,
        };
        // No process has as many descriptors as there are numbers.
        Number(self.open.borrow_mut().insert(entry) as u32)
    }

    /// Takes a connection out.
    pub(super) fn leave(&self, number: Number) {
        // The waker is dropped when nothing is borrowed any more: it may be the last of its task.
        let entry = self.open.borrow_mut().remove(number.0 as usize);
        self.partial
            .set(self.partial.get() - entry.partial as usize);
        self.called
            .set(self.called.get() - usize::from(entry.call.is_some()));
    }

    /// Remembers whom to wake when something is called out.
    pub(super) fn attend(&self, number: Number, waker: &Waker) {
        let old = self.open.borrow_mut()[number.0 as usize]
            .waker
            .replace(waker.clone());
        // When nothing is borrowed any more, as above.
        drop(old);
    }

    /// What has been called out to a connection.
    pub(super) fn call(&self, number: Number) -> Option<Call> {
        if self.called.get() == 0 {
            None
        } else {
            self.open.borrow()[number.0 as usize].call
        }
    }

    /// Notes that bytes have moved, and the memory that the unfinished line takes now. When all
    /// take too much, the longest is called out.
    pub(super) fn moved(&self, number: Number, partial: usize) {
        if !self.timed && partial == 0 && self.partial.get() == 0 {
            return;
        }
        let mut open = self.open.borrow_mut();
        let entry = &mut open[number.0 as usize];
        entry.moved = self.tick.get();
        let partial = u32::try_from(partial).unwrap_or(u32::MAX);
        if entry.call.is_none() && entry.partial != partial {
            self.partial
                .set(self.partial.get() - entry.partial as usize + partial as usize);
            entry.partial = partial;
            self.call_longest(&mut open);
        }
    }

    fn call_longest(&self, open: &mut Slab<Entry>) {
        while self.partial.get() > self.max_partial {
            let all = open.iter_mut().map(|(_, entry)| entry);
            let Some(longest) = all.max_by_key(|entry| entry.partial) else {
                return;
            };
            self.partial
                .set(self.partial.get() - longest.partial as usize);
            longest.partial = 0;
            // Who is to be closed already is not told another reason.
            if longest.call != Some(Call::Idle) {
                self.call_out(longest, Call::Longest);
            }
        }
    }

    /// Lets one more tick pass, and calls those on which nothing has moved for `limit` ticks. Who
    /// does not attend yet still shakes hands.
    pub(super) fn tick(&self, limit: u16) {
        let now = self.tick.get().wrapping_add(1);
        self.tick.set(now);
        for (_, entry) in self.open.borrow_mut().iter_mut() {
            if entry.waker.is_some() && now.wrapping_sub(entry.moved) >= limit {
                self.call_out(entry, Call::Idle);
            }
        }
    }

    fn call_out(&self, entry: &mut Entry, call: Call) {
        self.called
            .set(self.called.get() + usize::from(entry.call.is_none()));
        entry.call = Some(call);
        entry.waker.iter().for_each(Waker::wake_by_ref);
    }

    /// Tells all that the end has come.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        for (_, entry) in self.open.borrow().iter() {
            entry.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Whether the end has come.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_connection_takes_little_memory() {
        assert!(size_of::<Entry>() <= 24, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn who_still_shakes_hands_is_not_idle() {
        let connections = Connections::new(100, true);
        let early = connections.join();
        (0..9).for_each(|_| connections.tick(3));
        connections.attend(early, Waker::noop());
        connections.moved(early, 0);
        connections.tick(3);
        assert_eq!(connections.call(early), None);
        (0..2).for_each(|_| connections.tick(3));
        assert_eq!(connections.call(early), Some(Call::Idle));
    }

    #[test]
    fn who_is_silent_for_long_enough_is_called_and_woken() {
        let connections = Connections::new(100, true);
        let (silent, busy) = (connections.join(), connections.join());
        let woken = Arc::new(Woken::default());
        connections.attend(silent, &woken.clone().into());
        for _ in 0..2 {
            connections.tick(3);
            connections.moved(busy, 0);
        }
        assert_eq!(connections.call(silent), None);
        connections.tick(3);
        assert_eq!(connections.call(silent), Some(Call::Idle));
        assert_eq!(connections.call(busy), None);
        assert_eq!(woken.0.load(Relaxed), 1);
    }

    #[test]
    fn when_all_hold_too_much_the_longest_is_called() {
        let connections = Connections::new(100, true);
        let (long, short) = (connections.join(), connections.join());
        connections.moved(long, 60);
        connections.moved(short, 40);
        assert_eq!(connections.call(long), None);
        connections.moved(short, 41);
        assert_eq!(
            (connections.call(long), connections.call(short)),
            (Some(Call::Longest), None)
        );
        connections.moved(long, 70);
        assert_eq!(
            connections.partial.get(),
            41,
            "who has been called holds nothing any more"
        );
        connections.leave(short);
        connections.leave(long);
        assert_eq!(connections.partial.get(), 0);
    }

    #[test]
    fn who_is_called_as_silent_is_not_called_as_the_longest_too() {
        let connections = Connections::new(100, true);
        let (silent, other) = (connections.join(), connections.join());
        connections.attend(silent, Waker::noop());
        connections.moved(silent, 60);
        connections.tick(1);
        connections.moved(other, 50);
        assert_eq!(
            (connections.call(silent), connections.call(other)),
            (Some(Call::Idle), None)
        );
        assert_eq!(connections.partial.get(), 50);
    }

    #[test]
    fn where_nobody_is_timed_unfinished_lines_count_all_the_same() {
        let connections = Connections::new(100, false);
        let (long, short) = (connections.join(), connections.join());
        connections.moved(short, 0);
        connections.moved(long, 60);
        connections.moved(short, 40);
        connections.moved(long, 0);
        connections.moved(short, 40);
        assert_eq!(connections.partial.get(), 40);
        connections.moved(long, 61);
        assert_eq!(
            (connections.call(long), connections.call(short)),
            (Some(Call::Longest), None)
        );
        connections.leave(long);
        assert_eq!(
            (connections.called.get(), connections.partial.get()),
            (0, 40)
        );
        connections.moved(short, 0);
        assert_eq!(connections.partial.get(), 0);
    }

    #[test]
    fn at_the_end_all_are_woken() {
        let connections = Connections::new(100, true);
        let woken = Arc::new(Woken::default());
        for _ in 0..3 {
            connections.attend(connections.join(), &woken.clone().into());
        }
        connections.drain();
        assert!(connections.is_draining());
        assert_eq!(woken.0.load(Relaxed), 3);
    }
}
