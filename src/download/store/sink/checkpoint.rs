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
    /// Whether the state file exists.
    is_saved: bool,
    /// Layout in the state file, if it was saved in this run.
    saved_layout: Option<Layout>,
    /// Whether the data could not be synced.
    is_sync_failed: bool,
}

impl Checkpoint {
    /// Creates the checkpoint of a file with a loaded state, or of a new one.
    pub(super) fn new(state: Option<ResumeState>) -> Self {
        Self {
            is_saved: state.is_some(),
            state,
            saved_at: None,
            saved_layout: None,
            is_sync_failed: false,
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
        self.saved_layout = None;
    }

    /// Returns whether the data could not be synced once.
    pub(super) fn is_sync_failed(&self) -> bool {
        self.is_sync_failed
    }

    pub(super) fn is_saved(&self) -> bool {
        self.is_saved
    }

    /// Saves the state if it has changed.
    pub(super) fn save_if_changed(&mut self, destination: &mut Destination, layout: &Layout) {
        if !self.is_current(layout) {
            self.save(destination, layout);
        }
    }

    /// Returns whether the saved state is valid. That of a sequential file stays valid, because
    /// the length of the file shows which bytes were written.
    fn is_current(&self, layout: &Layout) -> bool {
        let has_gaps = |layout: &Layout| layout.allows_gaps();
        self.saved_layout
            .as_ref()
            .is_some_and(|saved| saved == layout || !has_gaps(saved) && !has_gaps(layout))
    }

    /// Makes the state due, so that it is saved before the next write.
    pub(super) fn set_due(&mut self) {
        self.saved_at = None;
        self.saved_layout = None;
    }

    /// Saves the state if the last one is old.
    pub(super) fn save_if_due(&mut self, destination: &mut Destination, layout: &Layout) {
        let is_due = |saved_at: Instant| saved_at.elapsed() >= CHECKPOINT_INTERVAL;
        if self.saved_at.is_none_or(is_due) {
            self.save_if_changed(destination, layout);
            self.saved_at = Some(Instant::now());
        }
    }

    /// Saves the state beside the part; an anonymous file becomes a part first. Returns whether
    /// that succeeded. A failure only affects a later run.
    pub(super) fn save(&mut self, destination: &mut Destination, layout: &Layout) -> bool {
        let Some(state) = &mut self.state else {
            return false;
        };
        // The bytes must be on the disk before a state that claims them: the length of a file with
        // gaps does not show which bytes were written.
        let claims_gaps = layout.allows_gaps() && !layout.is_empty();
        // The kernel reports a failed write once, so that the next sync would succeed.
        if claims_gaps && self.is_sync_failed {
            return false;
        }
        if claims_gaps
            && let Some(file) = destination.file()
            && let Err(error) = file.sync_data()
        {
            debug!(error = %ErrorChain(&error), "part file cannot be synced");
            self.is_sync_failed = true;
            return false;
        }
        let (part, nonce) = match destination.link_part() {
            Ok(Some(part)) => part,
            Ok(None) => return false,
            Err(error) => {
                debug!(error = %ErrorChain(&error), "part file cannot be linked");
                return false;
            }
        };
        state.set_written(layout.prefix_len(), layout.ranges());
        state.nonce = nonce;
        let saved = state.save(part, self.is_saved);
        self.is_saved |= saved.is_ok();
        self.saved_layout = saved.is_ok().then(|| layout.clone());
        if let Err(error) = &saved {
            debug!(error = %ErrorChain(error), "resume state cannot be saved");
        }
        saved.is_ok()
    }
}
