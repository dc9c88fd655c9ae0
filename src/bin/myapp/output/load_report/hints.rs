//! Command-line hints for the warnings of the library.

use myapp::echo::Warning;

/// Returns the options that can avoid a warning.
pub(super) fn hint(warning: &Warning) -> &'static str {
    match warning {
        Warning::RateNotReached { .. } => {
            "increase --connections or --in-flight unless the server is the bottleneck"
        }
        Warning::LateSends(_) => "increase --threads, lower --rate or use an idle machine",
        Warning::SenderBusy(_) => {
            "increase --threads, reduce --connections or use several machines"
        }
        Warning::WakeupLatency => "--busy-poll avoids it",
        Warning::TooFewReplies { .. } => "increase --duration or -n",
    }
}
