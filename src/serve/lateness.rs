//! Whether the answers on a connection come late, get lost, or break off.

use crate::runtime::Timer;
use crate::serve::faults::LateAnswers;
use crate::serve::shard::Shared;

/// The answers of one connection that wait for their time, and what wakes it then.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) answers: LateAnswers,
    pub(super) timer: Timer,
}

/// What a connection has for answers that wait. It is known when the connection is opened, so that
/// without faults it takes no memory in all that are open, and nothing is asked; inside TLS, which
/// takes far more, it is asked.
pub(super) trait Lateness: Unpin + 'static {
    fn late(&mut self) -> Option<&mut Late>;
}

/// Every answer is sent at once.
#[derive(Debug)]
pub(super) struct Punctual;

impl Lateness for Punctual {
    fn late(&mut self) -> Option<&mut Late> {
        None
    }
}

impl Lateness for Option<Box<Late>> {
    fn late(&mut self) -> Option<&mut Late> {
        self.as_deref_mut()
    }
}

impl Late {
    /// Starts for the connection with this number, if there are to be faults.
    pub(super) fn new(shared: &Shared, number: u64) -> Option<Box<Self>> {
        let (faults, _) = shared.faults.as_ref()?;
        Some(Box::new(Self {
            answers: LateAnswers::new(faults, number),
            timer: Timer::never(),
        }))
    }
}
