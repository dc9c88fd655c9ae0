//! Command-line hints for the warnings of the library.

use myapp::echo::{RateLimit, Warning};

/// Returns the options that can avoid a warning.
pub(super) fn hint(warning: &Warning) -> &'static str {
    match warning {
        Warning::RateNotReached { cause, .. } => match cause {
            RateLimit::Connections => "connections failed: see the errors",
            RateLimit::Sender => "increase --threads or use several machines",
            _ => "increase --connections or --in-flight unless the server is the bottleneck",
        },
        Warning::Unsent(_) => "increase --connections or --in-flight, or lower --rate",
        Warning::Timeouts(_) => "--timeout sets the time limit",
        Warning::GivenUp(_) => "see the errors",
        Warning::ReceiveDrops(_) => {
            "reduce --in-flight, use more --connections, or raise net.core.rmem_max"
        }
        Warning::LateSends(_) => "increase --threads, lower --rate or use an idle machine",
        Warning::SenderBusy(_) => {
            "increase --threads, reduce --connections or use several machines"
        }
        Warning::WakeupLatency => "--busy-poll avoids it",
        Warning::TooFewReplies { .. } => "increase --duration or -n",
        _ => "docs/echo.md explains it",
    }
}
