//! Edge-triggered epoll reactor of one worker thread.
//!
//! A socket is registered once, for both directions, and only when a first attempt would block.
//! Readiness is stored as one bit per direction, and an attempt is made only while its bit is set.
//! A request that has to wait costs three system calls: `epoll_wait`, `recv`, `send`. Closing a
//! socket removes it from epoll.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use slab::Slab;

use crate::runtime::direction::Direction;
use crate::runtime::timers;

/// The maximum number of events per wait. With more, the data of the first events was measured to
/// be out of the processor cache when their tasks run.
const EVENTS: usize = 128;

/// The key of the eventfd.
const UNPARK: u64 = u64::MAX;

/// The key of the timerfd.
const TIMER: u64 = u64::MAX - 1;

/// The key of a socket that is not registered.
const UNREGISTERED: u32 = u32::MAX;

thread_local! {
    /// The reactor of this thread, while a [`Driver`] runs on it.
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// Marks every registered socket of this thread readable, so that data that arrived but was not yet
/// reported by epoll is read.
pub(crate) fn mark_all_readable() {
    CURRENT.with_borrow(|reactor| {
        if let Some(reactor) = reactor {
            let mut sources = reactor.sources.borrow_mut();
            sources
                .iter_mut()
                .for_each(|(_, source)| source.wake(Direction::Read));
        }
    });
}

/// Returns the time that the driver of this thread has spent busy-polling without events.
pub(crate) fn busy_poll_time() -> Duration {
    CURRENT.with_borrow(|reactor| {
        reactor
            .as_ref()
            .map_or(Duration::ZERO, |r| r.busy_poll_time.get())
    })
}

/// Reschedules the task of `cx` after the next reactor poll, so that other ready tasks run first. A
/// task that wakes itself would run before the poll.
pub(crate) fn yield_to_reactor(cx: &Context<'_>) {
    CURRENT.with_borrow(|reactor| match reactor {
        Some(reactor) => reactor.deferred.borrow_mut().push(cx.waker().clone()),
        None => cx.waker().wake_by_ref(),
    });
}

/// Runs a future and the sockets that it opens on the current thread.
#[derive(Debug)]
pub(crate) struct Driver {
    epoll: OwnedFd,
    timerfd: OwnedFd,
    unparker: Arc<Unparker>,
    busy_poll: Duration,
}

/// Wakes the thread of a [`Driver`] from other threads.
#[derive(Debug)]
pub(crate) struct Unparker {
    eventfd: OwnedFd,
    /// Whether the thread blocks in epoll, or is about to.
    parked: AtomicBool,
    woken: AtomicBool,
    cancelled: AtomicBool,
}

#[derive(Debug)]
struct Reactor {
    epoll: OwnedFd,
    /// Expires when the first timer is due: the timeout of `epoll_wait` has a resolution of
    /// milliseconds, and `epoll_pwait2` requires Linux 5.11.
    timerfd: OwnedFd,
    armed_for: Cell<Option<Instant>>,
    /// The time spent busy-polling without events.
    busy_poll_time: Cell<Duration>,
    sources: RefCell<Slab<Source>>,
    /// Tasks that wait for the next reactor poll.
    deferred: RefCell<Vec<Waker>>,
    busy_poll: Duration,
}

/// State of a registered socket.
#[derive(Debug, Default)]
struct Source {
    // One per open connection: an array per property avoids the padding of a struct per direction,
    // and few tasks wait for writability.
    ready: [bool; 2],
    waiting: [bool; 2],
    reader: Option<Waker>,
    writer: Option<Box<Waker>>,
    /// A short read does not mean that all data was read: end of input, an error or urgent data may
    /// follow.
    more: bool,
}

impl Driver {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each write is reported once, so that the counter need not be read.
        epoll::add(
            &epoll,
            &eventfd,
            EventData::new_u64(UNPARK),
            EventFlags::IN | EventFlags::ET,
        )?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timerfd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(
            &epoll,
            &timerfd,
            EventData::new_u64(TIMER),
            EventFlags::IN | EventFlags::ET,
        )?;
        let flag = AtomicBool::default;
        let unparker = Unparker {
            eventfd,
            parked: flag(),
            woken: flag(),
            cancelled: flag(),
        };
        Ok(Self {
            epoll,
            timerfd,
            unparker: Arc::new(unparker),
            busy_poll: Duration::ZERO,
        })
    }

    /// Polls for this time before the thread blocks: no wake-up is needed then, but one core is
    /// busy.
    pub(crate) fn busy_poll(self, busy_poll: Duration) -> Self {
        Self { busy_poll, ..self }
    }

    pub(crate) fn unparker(&self) -> Arc<Unparker> {
        Arc::clone(&self.unparker)
    }

    /// Runs the future that `make` creates on this thread. Returns `None` if it was cancelled.
    pub(crate) fn run<F: Future>(self, make: impl FnOnce() -> F) -> Option<F::Output> {
        let Self {
            epoll,
            timerfd,
            unparker,
            busy_poll,
        } = self;
        let reactor = Rc::new(Reactor {
            epoll,
            timerfd,
            armed_for: Cell::new(None),
            busy_poll_time: Cell::new(Duration::ZERO),
            sources: RefCell::default(),
            deferred: RefCell::default(),
            busy_poll,
        });
        CURRENT.set(Some(Rc::clone(&reactor)));
        let result = reactor.drive(&unparker, make());
        CURRENT.set(None);
        result
    }
}

impl Unparker {
    /// Cancels the run of the driver; its future is dropped.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
        self.unpark();
    }

    fn unpark(&self) {
        if !self.woken.swap(true, SeqCst) && self.parked.load(SeqCst) {
            // Fails only if the counter is full; the thread has been woken then.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }
}

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unpark();
    }
}

impl Reactor {
    fn drive<F: Future>(&self, unparker: &Arc<Unparker>, future: F) -> Option<F::Output> {
        let waker = Waker::from(Arc::clone(unparker));
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            unparker.woken.store(false, SeqCst);
            if unparker.cancelled.load(SeqCst) {
                return None;
            }
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            if !self.busy_wait(unparker, &mut events) {
                self.sleep(unparker, &mut events);
            }
            self.dispatch(&mut events);
            timers::fire();
            self.deferred.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Polls until an event arrives. Returns `false` after the time limit.
    fn busy_wait(&self, unparker: &Unparker, events: &mut Vec<Event>) -> bool {
        if self.busy_poll.is_zero() {
            return false;
        }
        let start = Instant::now();
        let due = timers::first();
        let (something, time) = loop {
            self.poll_events(events, true);
            let now = Instant::now();
            let something = !events.is_empty()
                || self.has_pending_work(unparker)
                || due.is_some_and(|due| due <= now);
            if something || now - start >= self.busy_poll {
                break (something, now - start);
            }
        };
        self.busy_poll_time.set(self.busy_poll_time.get() + time);
        something
    }

    /// Waits for events, without blocking if a task is ready.
    fn sleep(&self, unparker: &Unparker, events: &mut Vec<Event>) {
        unparker.parked.store(true, SeqCst);
        let busy = self.has_pending_work(unparker);
        if !busy {
            self.arm_timer();
        }
        self.poll_events(events, busy);
        // Before wakers run: otherwise each of them would write to the eventfd.
        unparker.parked.store(false, SeqCst);
    }

    /// Arms the timerfd for the first timer.
    fn arm_timer(&self) {
        let Some(first) = timers::first() else { return };
        if self.armed_for.replace(Some(first)) == Some(first) {
            return;
        }
        // Zero would disarm it.
        let left = first
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let Ok(it_value) = Timespec::try_from(left) else {
            return;
        };
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value,
        };
        // A valid time cannot be rejected.
        let _ = timerfd_settime(&self.timerfd, TimerfdTimerFlags::empty(), &time);
    }

    fn has_pending_work(&self, unparker: &Unparker) -> bool {
        unparker.woken.load(SeqCst) || !self.deferred.borrow().is_empty()
    }

    fn poll_events(&self, events: &mut Vec<Event>, non_blocking: bool) {
        const NO_WAIT: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = non_blocking.then_some(&NO_WAIT);
        // A signal interrupts the wait without events. No other error is possible.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), timeout);
    }

    fn dispatch(&self, events: &mut Vec<Event>) {
        let mut sources = self.sources.borrow_mut();
        for event in events.drain(..) {
            let flags = event.flags;
            let number = event.data.u64();
            // The socket may have been closed after the event.
            if let Some(source) = usize::try_from(number)
                .ok()
                .and_then(|n| sources.get_mut(n))
            {
                source.record_event(flags);
            }
        }
    }

    fn register(&self, io: impl AsFd) -> io::Result<u32> {
        const FLAGS: EventFlags = EventFlags::IN
            .union(EventFlags::OUT)
            .union(EventFlags::RDHUP)
            .union(EventFlags::PRI)
            .union(EventFlags::ET);
        // The readiness of the other direction is unknown.
        let source = Source {
            ready: [true; 2],
            ..Source::default()
        };
        let number = self.sources.borrow_mut().insert(source);
        let added = epoll::add(&self.epoll, io, EventData::new_u64(number as u64), FLAGS);
        match (added, u32::try_from(number)) {
            (Ok(()), Ok(number)) => Ok(number),
            (added, _) => {
                self.sources.borrow_mut().remove(number);
                Err(added.err().unwrap_or(Errno::MFILE).into())
            }
        }
    }
}

impl Source {
    fn record_event(&mut self, flags: EventFlags) {
        const MORE: EventFlags = EventFlags::RDHUP
            .union(EventFlags::PRI)
            .union(EventFlags::HUP)
            .union(EventFlags::ERR);
        const BROKEN: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
        self.more |= flags.intersects(MORE);
        if flags.intersects(EventFlags::IN | MORE) {
            self.wake(Direction::Read);
        }
        if flags.intersects(EventFlags::OUT | BROKEN) {
            self.wake(Direction::Write);
        }
    }

    fn wake(&mut self, direction: Direction) {
        let side = direction as usize;
        self.ready[side] = true;
        if std::mem::take(&mut self.waiting[side])
            && let Some(waker) = self.waker(direction)
        {
            waker.wake_by_ref();
        }
    }

    fn wait(&mut self, direction: Direction, waker: &Waker) {
        let side = direction as usize;
        self.waiting[side] = true;
        if !self
            .waker(direction)
            .is_some_and(|known| known.will_wake(waker))
        {
            match direction {
                Direction::Read => self.reader = Some(waker.clone()),
                Direction::Write => self.writer = Some(Box::new(waker.clone())),
            }
        }
    }

    fn waker(&self, direction: Direction) -> Option<&Waker> {
        match direction {
            Direction::Read => self.reader.as_ref(),
            Direction::Write => self.writer.as_deref(),
        }
    }

    fn is_ready(&self, direction: Direction) -> bool {
        self.ready[direction as usize]
    }
}

/// Non-blocking socket, bound to the thread on which it was created.
#[derive(Debug)]
pub(crate) struct Socket<T> {
    io: T,
    number: Cell<u32>,
    reactor: Rc<Reactor>,
}

impl<T: AsFd> Socket<T> {
    /// Wraps `io`, which must not block.
    ///
    /// # Errors
    ///
    /// Fails on a thread without a [`Driver`].
    pub(crate) fn new(io: T) -> io::Result<Self> {
        let reactor = CURRENT.with_borrow(Clone::clone);
        let reactor = reactor.ok_or_else(|| io::Error::other("no driver on this thread"))?;
        Ok(Self {
            io,
            number: Cell::new(UNREGISTERED),
            reactor,
        })
    }

    /// Waits until the socket may be ready.
    pub(crate) fn poll_ready(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waits(direction, cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Runs `attempt` while the socket is ready. If it would block, the task of `cx` is woken when
    /// the socket becomes ready.
    pub(crate) fn poll<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        attempt: impl FnOnce(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if self.waits(direction, cx) {
            return Poll::Pending;
        }
        match attempt(&self.io) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self
                .block(direction, cx)
                .map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
            result => Poll::Ready(result),
        }
    }

    /// Clears the readiness after an attempt that exhausted the socket; the next attempt waits for
    /// an event.
    pub(crate) fn clear_readiness(&self, direction: Direction) {
        if let Some(source) = self.reactor.sources.borrow_mut().get_mut(self.number()) {
            source.ready[direction as usize] = source.more && direction == Direction::Read;
        }
    }

    fn number(&self) -> usize {
        self.number.get() as usize
    }

    /// Whether the socket is known not to be ready; registers the waker then.
    fn waits(&self, direction: Direction, cx: &mut Context<'_>) -> bool {
        let mut sources = self.reactor.sources.borrow_mut();
        let Some(source) = sources.get_mut(self.number()) else {
            return false;
        };
        if source.is_ready(direction) {
            return false;
        }
        source.wait(direction, cx.waker());
        true
    }

    /// Registers the socket on first use, and waits.
    fn block(&self, direction: Direction, cx: &mut Context<'_>) -> io::Result<()> {
        if self.number.get() == UNREGISTERED {
            self.number.set(self.reactor.register(&self.io)?);
        }
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.number()];
        if direction == Direction::Read {
            source.more = false;
        }
        source.ready[direction as usize] = false;
        source.wait(direction, cx.waker());
        Ok(())
    }
}

impl<T> Socket<T> {
    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T> Drop for Socket<T> {
    fn drop(&mut self) {
        // Dropped while nothing is borrowed: a waker may be the last reference to its task.
        let source = self
            .reactor
            .sources
            .borrow_mut()
            .try_remove(self.number.get() as usize);
        drop(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use futures_lite::future::poll_once;

    #[test]
    fn short_read_clears_readiness() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let tries = Cell::new(0);
        Driver::new().unwrap().run(|| async {
            let socket = Socket::new(ours).unwrap();
            let read = || {
                poll_fn(|cx| {
                    socket.poll(Direction::Read, cx, |mut stream| {
                        tries.set(tries.get() + 1);
                        stream.read(&mut [0; 8])
                    })
                })
            };
            assert!(poll_once(read()).await.is_none());
            assert_eq!(tries.get(), 1, "the first try shows that there is nothing");
            theirs.write_all(b"short").unwrap();
            assert_eq!(read().await.unwrap(), 5);
            socket.clear_readiness(Direction::Read);
            assert!(poll_once(read()).await.is_none());
            assert_eq!(tries.get(), 2, "no try in vain");
            theirs.write_all(b"more").unwrap();
            assert_eq!(read().await.unwrap(), 4);
            assert_eq!(tries.get(), 3);
        });
    }

    #[test]
    fn short_read_after_hang_up_keeps_readiness() {
        let mut source = Source::default();
        source.record_event(EventFlags::IN);
        assert!(source.is_ready(Direction::Read) && !source.more);
        source.record_event(EventFlags::IN | EventFlags::RDHUP);
        assert!(source.more);
        let mut urgent = Source::default();
        urgent.record_event(EventFlags::PRI);
        assert!(urgent.is_ready(Direction::Read) && urgent.more);
        assert!(!urgent.is_ready(Direction::Write));
        let mut broken = Source::default();
        broken.record_event(EventFlags::ERR | EventFlags::HUP);
        assert!(broken.more && broken.ready == [true; 2]);
    }

    #[test]
    fn mark_all_readable_finds_unreported_data() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        Driver::new().unwrap().run(|| async {
            let socket = &Socket::new(ours).unwrap();
            let read = || {
                let read = |mut stream: &UnixStream| stream.read(&mut [0; 8]);
                poll_once(poll_fn(move |cx| socket.poll(Direction::Read, cx, read)))
            };
            assert!(read().await.is_none());
            theirs.write_all(b"here").unwrap();
            assert!(read().await.is_none(), "epoll has not been asked yet");
            mark_all_readable();
            assert_eq!(read().await.unwrap().unwrap(), 4);
        });
    }

    #[test]
    fn yielding_task_does_not_starve_sockets() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let turns = Rc::new(Cell::new(0));
        Driver::new().unwrap().run(|| async {
            let executor = smol::LocalExecutor::new();
            let counted = Rc::clone(&turns);
            let _greedy = executor.spawn(poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                yield_to_reactor(cx);
                Poll::<()>::Pending
            }));
            let socket = Socket::new(ours).unwrap();
            let reading = executor.spawn(async move {
                let read = |mut stream: &UnixStream| stream.read(&mut [0; 8]);
                poll_fn(|cx| socket.poll(Direction::Read, cx, read)).await
            });
            let writing = executor.spawn(async { theirs.write_all(b"here").unwrap() });
            assert_eq!(executor.run(reading).await.unwrap(), 4);
            writing.await;
        });
        assert!(
            turns.get() <= 3,
            "{} turns until the socket was looked at",
            turns.get()
        );
    }

    #[test]
    fn closed_socket_frees_its_slot() {
        Driver::new().unwrap().run(|| async {
            for _ in 0..3 {
                let (ours, _theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                let socket = Socket::new(ours).unwrap();
                let read = |mut stream: &UnixStream| stream.read(&mut [0; 8]);
                let wait = poll_fn(|cx| socket.poll(Direction::Read, cx, read));
                assert!(poll_once(wait).await.is_none());
                assert_eq!(socket.number.get(), 0);
            }
        });
    }

    #[test]
    fn busy_polling_sees_sockets_wakes_and_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (wake, woken) = smol::channel::bounded(1);
        let driver = Driver::new().unwrap().busy_poll(Duration::from_secs(3600));
        let unparker = driver.unparker();
        let running = std::thread::spawn(move || {
            driver.run(|| async {
                let socket = Socket::new(ours).unwrap();
                let mut ours = socket.get_ref();
                let read = |mut stream: &UnixStream| stream.read(&mut [0; 8]);
                let count = poll_fn(|cx| socket.poll(Direction::Read, cx, read))
                    .await
                    .unwrap();
                ours.write_all(&[count as u8]).unwrap();
                woken.recv().await.unwrap();
                ours.write_all(b"woken").unwrap();
                std::future::pending::<()>().await;
            })
        });
        theirs.write_all(b"seven b").unwrap();
        let mut answer = [0; 6];
        theirs.read_exact(&mut answer[..1]).unwrap();
        wake.send_blocking(()).unwrap();
        theirs.read_exact(&mut answer[1..]).unwrap();
        assert_eq!(&answer, b"\x07woken");
        unparker.cancel();
        assert_eq!(running.join().unwrap(), None);
    }

    #[test]
    fn socket_without_a_driver_is_an_error() {
        assert!(Socket::new(UnixStream::pair().unwrap().0).is_err());
    }
}
