//! Metrics of the process, with the names of Prometheus' client libraries.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Figures of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct ProcStat {
    /// Clock ticks between the boot and the start of the process.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// A metric of the process: name, type, help and value.
pub(super) type ProcessMetric = (&'static str, &'static str, &'static str, f64);

/// Returns the metrics of this process; without `/proc`, those that need none.
pub(super) fn process_metrics() -> Vec<ProcessMetric> {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
    let mut metrics = vec![(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        cpu.as_secs_f64(),
    )];
    let mut gauge = |name, help, value: Option<f64>| {
        metrics.extend(value.map(|value| (name, "gauge", help, value)));
    };
    gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        open_descriptors().map(|count| count as f64),
    );
    let limit = getrlimit(Resource::Nofile).current;
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        limit.map(|limit| limit as f64),
    );
    let stat = fs::read_to_string("/proc/self/stat").ok();
    if let Some(stat) = stat.and_then(|text| ProcStat::parse(&text)) {
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            Some(stat.virtual_bytes as f64),
        );
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            Some(stat.resident_pages as f64 * page_size() as f64),
        );
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            start_time(stat.start_ticks),
        );
    }
    metrics
}

impl ProcStat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses.
        let (_, fields) = text.rsplit_once(") ")?;
        // The first of these is field 3 of the manual page.
        let field = |number: usize| fields.split(' ').nth(number - 3)?.trim().parse().ok();
        Some(Self {
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn open_descriptors() -> Option<usize> {
    // One of them reads the directory.
    Some(fs::read_dir("/proc/self/fd").ok()?.count() - 1)
}

/// Returns the start of the process in seconds since the epoch. It is based on the time of the
/// boot, so that it is the same at each call.
fn start_time(start_ticks: u64) -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + start_ticks as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_name_may_contain_parentheses() {
        let fields: Vec<_> = (4..=52).map(|number: u64| number.to_string()).collect();
        let text = format!("7 (a) b (c) S {}\n", fields.join(" "));
        let expected = ProcStat {
            start_ticks: 22,
            virtual_bytes: 23,
            resident_pages: 24,
        };
        assert_eq!(ProcStat::parse(&text), Some(expected));
        assert_eq!(ProcStat::parse("7 (a) S 1"), None);
    }
}
