//! What `myapp echo` says on stdout: replies and ping lines.

use std::time::Duration;

use myapp::echo::{PingConfig, PingReport, without_end};
use myapp::escape::Escaped;
use myapp::units::Elapsed;

/// What a reply looks like on stdout: as it is, or on a terminal so that it cannot harm it; in
/// both cases one line, also of a reply that broke off in the middle.
pub(crate) fn reply(mut reply: Vec<u8>, on_terminal: bool) -> Vec<u8> {
    if reply.is_empty() {
        return reply;
    }
    if on_terminal {
        reply = Escaped(without_end(&reply)).to_string().into_bytes();
    }
    if !reply.ends_with(b"\n") {
        reply.push(b'\n');
    }
    reply
}

/// The line for a message that was answered.
pub(crate) fn ping_line(config: &PingConfig, number: u64, time: Duration) -> String {
    let (size, address) = (config.payload.size(), &config.server.address);
    format!("{size} bytes from {address}: seq={number} time={}\n", Elapsed(time))
}

/// The lines at the end of a ping.
pub(crate) fn ping_summary(config: &PingConfig, report: &PingReport) -> String {
    let PingReport { sent, times, elapsed } = report;
    let (address, answered, elapsed) = (&config.server.address, times.count(), Elapsed(*elapsed));
    let lost = report.loss() * 100.0;
    let mut text =
        format!("--- {address}: {sent} sent, {answered} answered, {lost:.2}% lost, in {elapsed}\n");
    if let Some(times) = times.figures() {
        let times = [times.min, times.mean, times.p99, times.max].map(|t| Elapsed(t).to_string());
        text += &format!("round trip min/avg/p99/max = {}\n", times.join(" / "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(reply: &[u8], raw: &[u8], on_terminal: &str) {
        assert_eq!(super::reply(reply.to_vec(), false), raw);
        assert_eq!(String::from_utf8(super::reply(reply.to_vec(), true)).unwrap(), on_terminal);
    }

    #[test]
    fn a_reply_is_one_line_and_harmless_on_a_terminal() {
        shows(b"hola\n", b"hola\n", "hola\n");
        shows(b"ho", b"ho\n", "ho\n");
        shows(b"\n", b"\n", "\n");
        shows(b"", b"", "");
        shows(b"\x1b[2J\xff\r\n", b"\x1b[2J\xff\r\n", "\\x1b[2J\\xff\\r\n");
    }

    #[test]
    fn a_summary_without_an_answer_has_no_times() {
        let config = PingConfig::default();
        for (sent, lost) in [(0, "0.00%"), (3, "100.00%")] {
            let text = ping_summary(&config, &PingReport { sent, ..PingReport::default() });
            let wanted = format!("{sent} sent, 0 answered, {lost} lost, in 0.00 ns\n");
            assert_eq!(text, format!("--- 127.0.0.1:8888: {wanted}"));
        }
    }
}
