//! Number of the bytes that are present.

use super::Attempt;
use crate::download::event::Event;
use crate::download::transfer::retry::StoredBytes;

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Returns the bytes that are present.
    pub(crate) fn stored_bytes(&self) -> StoredBytes {
        let layout = self.sink.layout();
        let total = self.total();
        let count = match total {
            Some(total) if layout.has_gaps(Some(total)) => {
                let gaps = layout.gaps(total);
                let missing: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
                total - missing
            }
            _ => layout.prefix_len(),
        };
        StoredBytes {
            count,
            total,
            restarts: self.restarts,
        }
    }
}
