//! Fault injection on connections.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::runtime::Timer;
use crate::serve::context::WorkerContext;
use crate::serve::fault::replies::ReplyQueue;
use crate::serve::whoami::Whoami;

/// The queued replies of one connection, and the timer of their next step.
#[derive(Debug)]
pub(in crate::serve) struct ConnectionFaults {
    pub(in crate::serve) queue: ReplyQueue,
    pub(in crate::serve) timer: Timer,
}

/// Whether a connection may have faults, or replies other than its messages. Connections choose the
/// type when they are opened, so that without these it costs neither memory nor a branch.
pub(in crate::serve) trait FaultPolicy: Unpin + 'static {
    /// Returns the faults of the connection, if it has any.
    fn get(&mut self) -> Option<&mut ConnectionFaults>;

    /// Returns the source of the replies, if these are not the messages.
    fn whoami(&mut self) -> Option<&mut Whoami>;

    /// Removes the faults of the connection, and what is queued.
    fn clear(&mut self);

    /// Applies changes of the server's faults to the connection, of which `sent` bytes were sent,
    /// and returns its faults.
    fn update(
        &mut self,
        context: &WorkerContext,
        age: impl FnOnce() -> Duration,
        sent: u64,
    ) -> Option<&mut ConnectionFaults>;
}

/// The policy without fault injection: every reply is sent immediately.
#[derive(Debug)]
pub(in crate::serve) struct NoFaults;

impl FaultPolicy for NoFaults {
    fn get(&mut self) -> Option<&mut ConnectionFaults> {
        None
    }

    fn whoami(&mut self) -> Option<&mut Whoami> {
        None
    }

    fn clear(&mut self) {}

    fn update(
        &mut self,
        _: &WorkerContext,
        _: impl FnOnce() -> Duration,
        _: u64,
    ) -> Option<&mut ConnectionFaults> {
        None
    }
}

/// The policy with faults, which may change while the connection is open.
#[derive(Debug)]
pub(in crate::serve) struct InjectedFaults {
    /// Number of connections accepted before this one.
    connection: u64,
    /// `None` while there are no faults: an idle connection then needs no further memory.
    active: Option<Box<ConnectionFaults>>,
}

impl InjectedFaults {
    /// Creates the policy of the connection with this number.
    pub(in crate::serve) fn new(connection: u64) -> Self {
        Self {
            connection,
            active: None,
        }
    }
}

impl FaultPolicy for InjectedFaults {
    fn get(&mut self) -> Option<&mut ConnectionFaults> {
        self.active.as_deref_mut()
    }

    fn whoami(&mut self) -> Option<&mut Whoami> {
        None
    }

    fn clear(&mut self) {
        self.active = None;
    }

    fn update(
        &mut self,
        context: &WorkerContext,
        age: impl FnOnce() -> Duration,
        sent: u64,
    ) -> Option<&mut ConnectionFaults> {
        let faults = context.faults.as_ref()?.active();
        match (&mut self.active, faults) {
            (Some(active), Some(faults)) => {
                if !Rc::ptr_eq(active.queue.faults(), &faults) {
                    active.queue.set_faults(faults);
                }
            }
            // What is queued already is still sent in order.
            (Some(active), None) if !active.queue.is_idle() => {
                active.queue.set_faults(Rc::default());
            }
            (inactive, None) => *inactive = None,
            (None, Some(faults)) => {
                let now = Instant::now();
                let opened = now.checked_sub(age()).unwrap_or(now);
                self.active = Some(Box::new(ConnectionFaults {
                    queue: ReplyQueue::new(faults, self.connection, opened, sent),
                    timer: Timer::never(),
                }));
            }
        }
        self.active.as_deref_mut()
    }
}

/// The policy with faults and with replies that describe the connection.
#[derive(Debug)]
pub(in crate::serve) struct WhoamiReplies {
    pub(in crate::serve) faults: InjectedFaults,
    pub(in crate::serve) whoami: Box<Whoami>,
}

impl FaultPolicy for WhoamiReplies {
    fn get(&mut self) -> Option<&mut ConnectionFaults> {
        self.faults.get()
    }

    fn whoami(&mut self) -> Option<&mut Whoami> {
        Some(&mut self.whoami)
    }

    fn clear(&mut self) {
        self.faults.clear();
    }

    fn update(
        &mut self,
        context: &WorkerContext,
        age: impl FnOnce() -> Duration,
        sent: u64,
    ) -> Option<&mut ConnectionFaults> {
        self.faults.update(context, age, sent)
    }
}
