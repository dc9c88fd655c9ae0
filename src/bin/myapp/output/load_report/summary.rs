//! Statistics to be reported: of one load, or of several that were merged.

use std::collections::BTreeMap;

use myapp::echo::{LoadConfig, LoadReport, Phase, RunLimit, Warning};
use myapp::error_chain::ErrorChain;
use myapp::measure::percentile::PercentileList;
use myapp::units::{Elapsed, Size};

/// Statistics to be reported.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Random identifiers of the runs.
    pub(crate) runs: Vec<String>,
    /// Servers.
    pub(crate) addresses: Vec<String>,
    /// Description of the load.
    pub(crate) parameters: String,
    pub(crate) connections: u64,
    pub(crate) in_flight: u64,
    /// Length of a message, if it is the same in all runs.
    pub(crate) size: Option<u64>,
    /// Answered bytes per second.
    pub(crate) bytes_rate: f64,
    pub(crate) rate_requested: Option<f64>,
    /// Sum of the rates of the runs, each within its own time.
    pub(crate) rate_sum: f64,
    /// Errors by phase, with the text of the first one.
    pub(crate) errors: BTreeMap<Phase, PhaseErrors>,
    /// Its errors are those of `errors`, if it is that of one run.
    pub(crate) report: LoadReport,
}

/// Errors of one phase.
#[derive(Debug, Clone)]
pub(crate) struct PhaseErrors {
    pub(crate) count: u64,
    /// Text of the first error.
    pub(crate) first: String,
}

impl Summary {
    /// Creates the summary of one load.
    pub(crate) fn of_run(config: &LoadConfig, report: LoadReport) -> Self {
        let size = config.payload.size();
        let phase_errors = report.errors.iter().map(|(phase, failures)| {
            let first = ErrorChain(&failures.first).to_string();
            let count = failures.count;
            (*phase, PhaseErrors { count, first })
        });
        let in_flight = if config.new_connections {
            1
        } else {
            config.in_flight.get() as u64
        };
        Self {
            runs: vec![format!("{:016x}", fastrand::u64(..))],
            addresses: vec![config.target.address.to_string()],
            parameters: parameters(config),
            connections: config.connections.get().into(),
            in_flight,
            size: Some(size),
            bytes_rate: report.rate() * size as f64,
            rate_requested: config.rate,
            rate_sum: report.rate(),
            errors: phase_errors.collect(),
            report,
        }
    }

    /// Adds the statistics of other runs.
    pub(crate) fn merge(&mut self, other: Self) {
        let bytes = |summary: &Self| summary.bytes_rate * summary.report.elapsed.as_secs_f64();
        let bytes = bytes(self) + bytes(&other);
        self.report.merge_run(other.report);
        let elapsed = self.report.elapsed.as_secs_f64();
        self.bytes_rate = if elapsed > 0.0 { bytes / elapsed } else { 0.0 };
        self.runs.extend(other.runs);
        self.addresses.extend(other.addresses);
        self.addresses.sort();
        self.addresses.dedup();
        self.connections += other.connections;
        self.in_flight = self.in_flight.max(other.in_flight);
        self.size = self.size.filter(|size| other.size == Some(*size));
        let requested = self.rate_requested.zip(other.rate_requested);
        self.rate_requested = requested.map(|(own, other)| own + other);
        self.rate_sum += other.rate_sum;
        for (phase, errors) in other.errors {
            self.errors
                .entry(phase)
                .and_modify(|own| own.count += errors.count)
                .or_insert(errors);
        }
        self.parameters = self.merged_parameters();
    }

    /// Returns the servers as one text.
    pub(crate) fn address(&self) -> String {
        self.addresses.join(", ")
    }

    /// Returns whether messages are datagrams.
    pub(crate) fn is_over_udp(&self) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|address| address.starts_with("udp://"))
    }

    /// Returns the reasons why the statistics may be misleading.
    pub(crate) fn warnings(&self, percentiles: &PercentileList) -> Vec<Warning> {
        // The runs do not start at exactly the same time: each is compared within its own.
        let rate = self
            .rate_requested
            .and_then(|requested| self.report.rate_warning(requested, self.rate_sum));
        let others = self.report.warnings(None, percentiles);
        rate.into_iter().chain(others).collect()
    }

    /// Describes merged loads.
    pub(super) fn merged_parameters(&self) -> String {
        let size = match self.size {
            Some(size) => Size(size).to_string(),
            None => "messages of several sizes".into(),
        };
        let runs = match self.runs.len() {
            1 => "1 run".into(),
            count => format!("{count} runs merged"),
        };
        format!(
            "{runs}, {size}, connections: {}, {} in flight on each",
            self.connections, self.in_flight
        )
    }
}

/// Describes one load.
fn parameters(config: &LoadConfig) -> String {
    let LoadConfig {
        payload,
        connections,
        in_flight,
        ..
    } = config;
    let limit = match config.limit {
        RunLimit::Duration(time) => format!("for {}", Elapsed(time)),
        RunLimit::Messages(count) => format!("{count} times"),
        _ => String::new(),
    };
    let mode = if config.new_connections {
        "a new one per message".to_owned()
    } else {
        format!("{in_flight} in flight on each")
    };
    format!(
        "{} {limit}, connections: {connections}, {mode}",
        Size(payload.size())
    )
}
