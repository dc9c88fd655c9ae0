//! Faults that may change while the server runs.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::serve::config::FaultInjection;
use crate::serve::stats::ServerStats;

/// Handle through which the faults of a running server are read and changed. Clones refer to the
/// same server.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: Mutex<FaultInjection>,
    /// Counts the changes, so that workers detect one without the lock.
    stats: Arc<ServerStats>,
}

/// A probability that is not a share from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: not a share from 0 to 1")]
pub struct InvalidFault {
    /// Name of the field of [`FaultInjection`], after a dot that of a field in it.
    pub field: &'static str,
}

impl Faults {
    pub(in crate::serve) fn new(
        faults: FaultInjection,
        stats: Arc<ServerStats>,
    ) -> Result<Self, InvalidFault> {
        check(&faults)?;
        let current = Mutex::new(faults);
        Ok(Self(Arc::new(Shared { current, stats })))
    }

    /// Returns the current faults.
    pub fn get(&self) -> FaultInjection {
        self.lock().clone()
    }

    /// Changes the faults. They apply to new connections, to each open connection from its next
    /// message on, and to the next datagram. Returns the previous faults.
    ///
    /// # Errors
    ///
    /// [`InvalidFault`] if a probability is not a share; nothing changes in this case.
    pub fn set(&self, faults: FaultInjection) -> Result<FaultInjection, InvalidFault> {
        check(&faults)?;
        let mut current = self.lock();
        if *current != faults {
            // While locked: a worker that sees the new count reads the new faults.
            self.0.stats.faults.changes.fetch_add(1, Relaxed);
        }
        Ok(mem::replace(&mut current, faults))
    }

    fn changes(&self) -> u64 {
        self.0.stats.faults.changes.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, FaultInjection> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rejects values that are no probabilities.
fn check(faults: &FaultInjection) -> Result<(), InvalidFault> {
    let mut shares = vec![
        ("drop_rate", faults.drop_rate),
        ("corrupt_rate", faults.corrupt_rate),
        ("duplicate_rate", faults.duplicate_rate),
        ("reorder_rate", faults.reorder_rate),
        ("close_rate", faults.close_rate),
    ];
    if let Some(burst) = &faults.loss_burst {
        shares.extend([
            ("loss_burst.begin", burst.begin),
            ("loss_burst.end", burst.end),
            ("loss_burst.loss_in_burst", burst.loss_in_burst),
            ("loss_burst.loss_otherwise", burst.loss_otherwise),
        ]);
    }
    match shares
        .iter()
        .find(|(_, share)| !(0.0..=1.0).contains(share))
    {
        Some((field, _)) => Err(InvalidFault { field }),
        None => Ok(()),
    }
}

/// The faults of one worker: a copy that is updated when they change.
#[derive(Debug)]
pub(in crate::serve) struct WorkerFaults {
    handle: Faults,
    /// Number of changes of which the copy is.
    generation: Cell<u64>,
    /// `None` without any fault.
    active: RefCell<Option<Rc<FaultInjection>>>,
}

impl WorkerFaults {
    pub(in crate::serve) fn new(handle: Faults) -> Self {
        let faults = Self {
            handle,
            generation: Cell::new(0),
            active: RefCell::default(),
        };
        faults.update();
        faults
    }

    /// Returns the current faults, if there are any.
    pub(in crate::serve) fn active(&self) -> Option<Rc<FaultInjection>> {
        if self.handle.changes() != self.generation.get() {
            self.update();
        }
        self.active.borrow().clone()
    }

    fn update(&self) {
        let current = self.handle.lock();
        self.generation.set(self.handle.changes());
        let active = current.is_active().then(|| Rc::new(current.clone()));
        self.active.replace(active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    use crate::serve::config::LossBurst;

    fn handle(faults: FaultInjection) -> Result<Faults, InvalidFault> {
        Faults::new(faults, Arc::new(ServerStats::new(NonZeroUsize::MIN)))
    }

    #[test]
    fn workers_see_changes() {
        let faults = handle(FaultInjection::default()).unwrap();
        let worker = WorkerFaults::new(faults.clone());
        assert_eq!(worker.active(), None);
        let dropping = FaultInjection {
            drop_rate: 0.5,
            ..FaultInjection::default()
        };
        let before = faults.set(dropping.clone()).unwrap();
        assert_eq!(before, FaultInjection::default());
        assert_eq!(worker.active().as_deref(), Some(&dropping));
        let seeded = FaultInjection {
            seed: 7,
            ..FaultInjection::default()
        };
        assert_eq!(faults.set(seeded).unwrap(), dropping);
        assert_eq!(worker.active(), None, "a seed alone is no fault");
        faults.set(faults.get()).unwrap();
        assert_eq!(faults.changes(), 2, "equal faults are no change");
    }

    #[test]
    fn invalid_share_is_rejected_and_named() {
        let faults = handle(FaultInjection::default()).unwrap();
        for rate in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let invalid = FaultInjection {
                reorder_rate: rate,
                ..FaultInjection::default()
            };
            let error = faults.set(invalid).unwrap_err();
            assert_eq!(error.to_string(), "reorder_rate: not a share from 0 to 1");
            let invalid = FaultInjection {
                loss_burst: Some(LossBurst {
                    begin: 0.1,
                    end: rate,
                    loss_in_burst: 1.0,
                    loss_otherwise: 0.0,
                }),
                ..FaultInjection::default()
            };
            assert_eq!(handle(invalid).unwrap_err().field, "loss_burst.end");
        }
        assert_eq!(faults.get(), FaultInjection::default());
        assert_eq!(faults.changes(), 0);
    }
}
