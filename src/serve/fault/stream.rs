//! Fault injection on connections.

use crate::runtime::Timer;
use crate::serve::context::WorkerContext;
use crate::serve::fault::DelayQueue;

/// The delayed replies of one connection and the timer of the next one.
#[derive(Debug)]
pub(in crate::serve) struct DelayedReplies {
    pub(in crate::serve) queue: DelayQueue,
    pub(in crate::serve) timer: Timer,
}

/// Whether the replies of a connection are delayed. Plain connections choose the type when they
/// are opened, so that without fault injection it costs neither memory nor a branch.
pub(in crate::serve) trait DelayPolicy: Unpin + 'static {
    fn delayed(&mut self) -> Option<&mut DelayedReplies>;
}

/// The policy without fault injection: every reply is sent immediately.
#[derive(Debug)]
pub(in crate::serve) struct NoDelay;

impl DelayPolicy for NoDelay {
    fn delayed(&mut self) -> Option<&mut DelayedReplies> {
        None
    }
}

impl DelayPolicy for Option<Box<DelayedReplies>> {
    fn delayed(&mut self) -> Option<&mut DelayedReplies> {
        self.as_deref_mut()
    }
}

impl DelayedReplies {
    /// Returns the delayed replies of the connection with this number, if there are faults to
    /// inject.
    pub(in crate::serve) fn new(context: &WorkerContext, number: u64) -> Option<Box<Self>> {
        let (faults, _) = context.faults.as_ref()?;
        Some(Box::new(Self {
            queue: DelayQueue::new(faults, number),
            timer: Timer::never(),
        }))
    }
}
