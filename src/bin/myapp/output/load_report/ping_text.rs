//! Output of a ping as text.

use std::time::Duration;

use myapp::echo::{PingConfig, PingReport};
use myapp::measure::percentile::PercentileList;
use myapp::units::Elapsed;

/// Formats the line of an answered message.
pub(crate) fn reply_line(config: &PingConfig, number: u64, time: Duration) -> String {
    let size = config.payload.size();
    let address = &config.target.address;
    format!(
        "{size} bytes from {address}: seq={number} time={}\n",
        Elapsed(time)
    )
}

/// Formats the summary of a ping.
pub(crate) fn summary(
    config: &PingConfig,
    report: &PingReport,
    percentiles: &PercentileList,
) -> String {
    let PingReport {
        sent,
        times,
        duplicates,
        late_replies,
        elapsed,
        ..
    } = report;
    let address = &config.target.address;
    let answered = times.count();
    let elapsed = Elapsed(*elapsed);
    let lost = report.loss() * 100.0;
    let mut text =
        format!("--- {address}: {sent} sent, {answered} answered, {lost:.2}% lost, in {elapsed}\n");
    if *duplicates > 0 {
        text += &format!("duplicates: {duplicates}\n");
    }
    if *late_replies > 0 {
        text += &format!("late replies: {late_replies}\n");
    }
    if let Some(times) = times.rows(percentiles) {
        let names = times.iter().map(|(name, _)| name.replace("mean", "avg"));
        let names: Vec<_> = names.collect();
        let times = times.iter().map(|(_, time)| Elapsed(*time).to_string());
        let times: Vec<_> = times.collect();
        text += &format!("round trip {} = {}\n", names.join("/"), times.join(" / "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_without_replies_has_no_times() {
        let config = PingConfig::default();
        for (sent, lost) in [(0, "0.00%"), (3, "100.00%")] {
            let text = summary(
                &config,
                &PingReport {
                    sent,
                    ..PingReport::default()
                },
                &PercentileList::default(),
            );
            let wanted = format!("{sent} sent, 0 answered, {lost} lost, in 0.00 ns\n");
            assert_eq!(text, format!("--- 127.0.0.1:8888: {wanted}"));
        }
    }
}
