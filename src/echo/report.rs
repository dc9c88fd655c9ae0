//! What a run comes to.

use std::time::Duration;

use crate::echo::error::EchoError;
use crate::measure::latency::Latency;

/// What a ping comes to.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// The messages that were answered or failed.
    pub sent: u64,
    /// The round-trip time of each that was answered.
    pub times: Latency,
    /// How long all took.
    pub elapsed: Duration,
}

impl PingReport {
    pub(crate) fn count(&mut self, outcome: &Result<Duration, EchoError>) {
        self.sent += 1;
        if let Ok(time) = outcome {
            self.times.record(*time);
        }
    }

    /// The share of the messages that were not answered, from 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => (sent - self.times.count()) as f64 / sent as f64,
        }
    }
}
