//! Saved resume state of a file that is being written.

use std::time::{Duration, Instant};

use tracing::debug;

use super::destination::Destination;
use super::layout::Layout;
use crate::download::store::resume_state::ResumeState;
use crate::error_chain::ErrorChain;

/// Interval between two saved states.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Resume state of a file, and whether it is saved.
#[derive(Debug)]
pub(super) struct Checkpoint {
    state: Option<ResumeState>,
    saved_at: Option<Instant>,
    /// Whether a state file exists or may exist.
    is_saved: bool,
}

impl Checkpoint {
    /// Creates the checkpoint of a file with a loaded state, or of a new one.
    pub(super) fn new(state: Option<ResumeState>) -> Self {
        Self {
            is_saved: state.is_some(),
            state,
            saved_at: None,
        }
    }

    pub(super) fn state(&self) -> Option<&ResumeState> {
        self.state.as_ref()
    }

    pub(super) fn state_mut(&mut self) -> Option<&mut ResumeState> {
        self.state.as_mut()
    }

    /// Replaces the state, without saving the new one.
    pub(super) fn set_state(&mut self, state: ResumeState) {
        self.state = Some(state);
        self.saved_at = None;
    }

    pub(super) fn is_saved(&self) -> bool {
        self.is_saved
    }

    /// Saves the state if the last one is old.
    pub(super) fn save_if_due(&mut self, destination: &mut Destination, layout: &Layout) {
        let is_due = |saved_at: Instant| saved_at.elapsed() >= CHECKPOINT_INTERVAL;
        if self.saved_at.is_none_or(is_due) {
            self.save(destination, layout);
            self.saved_at = Some(Instant::now());
        }
    }

    /// Saves the state beside the part; an anonymous file becomes a part first. Returns whether
    /// that succeeded. A failure only affects a later run.
    pub(super) fn save(&mut self, destination: &mut Destination, layout: &Layout) -> bool {
        let Some(state) = &mut self.state else {
            return false;
        };
        let part = match destination.link_part() {
            Ok(Some(part)) => part,
            Ok(None) => return false,
            Err(error) => {
                debug!(error = %ErrorChain(&error), "part file cannot be linked");
                return false;
            }
        };
        state.set_written(layout.prefix_len(), layout.ranges());
        self.is_saved = true;
        let saved = state.save(part);
        if let Err(error) = &saved {
            debug!(error = %ErrorChain(error), "resume state cannot be saved");
        }
        saved.is_ok()
    }
}
