//! Events of `myapp serve`: addresses, statistics and the summary.

use myapp::net::address::Address;
use myapp::serve::Summary;
use serde_json::{Value, json};
use tracing::info;

use crate::exit_code::CommandError;
use crate::output::stdout::print;

/// Output of events: to the log, and with `--json` to stdout as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Events {
    pub(crate) json: bool,
}

impl Events {
    /// Prints the bound addresses, one per line, the metrics endpoint last.
    pub(crate) async fn listening(
        self,
        served: &[Address],
        metrics: Option<&Address>,
    ) -> Result<(), CommandError> {
        let served = served.iter().map(Address::to_url);
        let metrics = metrics.map(|address| format!("http://{address}/metrics"));
        let line = |address| {
            if self.json {
                event("listening", &json!({ "address": address }))
            } else {
                format!("listening on {address}\n")
            }
        };
        print(
            served
                .chain(metrics)
                .map(line)
                .collect::<String>()
                .into_bytes(),
        )
        .await
    }

    /// Reports the counters, and their rates since `before`.
    pub(crate) async fn stats(self, before: &Summary, now: &Summary) -> Result<(), CommandError> {
        let seconds = (now.elapsed - before.elapsed).as_secs_f64();
        let rate = |count: fn(&Summary) -> u64| (count(now) - count(before)) as f64 / seconds;
        let messages = rate(|summary| summary.messages);
        let received = rate(|summary| summary.received);
        let sent = rate(|summary| summary.sent);
        info!(
            active = now.active,
            connections = now.connections,
            messages_rate = messages.round() as u64,
            received_rate = received.round() as u64,
            sent_rate = sent.round() as u64,
            "stats"
        );
        let mut fields = json!(now);
        fields["messages_rate"] = json!(messages);
        fields["received_rate"] = json!(received);
        fields["sent_rate"] = json!(sent);
        self.print("stats", &fields).await
    }

    /// Reports the final summary.
    pub(crate) async fn summary(self, summary: &Summary) -> Result<(), CommandError> {
        info!(
            connections = summary.connections,
            messages = summary.messages,
            received = summary.received,
            sent = summary.sent,
            failed = summary.failed,
            reset_by_peer = summary.reset_by_peer,
            tls_failed = summary.tls.sum(),
            line_too_long = summary.line_too_long,
            refused_acl = summary.refused_acl,
            refused_max_per_ip = summary.refused_max_per_ip,
            refused_proxy_header = summary.refused_proxy_header,
            fault_dropped = summary.fault_dropped,
            fault_burst_dropped = summary.fault_burst_dropped,
            fault_corrupted = summary.fault_corrupted,
            fault_duplicated = summary.fault_duplicated,
            fault_reordered = summary.fault_reordered,
            fault_closed = summary.fault_closed,
            fault_closed_after = summary.fault_closed_after,
            fault_reset = summary.fault_reset,
            fault_changes = summary.fault_changes,
            idle_timeouts = summary.idle_timeouts,
            aborted_on_shutdown = summary.aborted_on_shutdown,
            datagrams_received = summary.datagrams.received,
            datagrams_unanswered = summary.datagrams.unanswered(),
            elapsed = summary.elapsed.as_secs_f64(),
            "summary"
        );
        self.print("summary", &json!(summary)).await
    }

    async fn print(self, name: &str, fields: &Value) -> Result<(), CommandError> {
        if !self.json {
            return Ok(());
        }
        print(event(name, fields).into_bytes()).await
    }
}

/// Formats an event as a JSON line. The name comes first for readability; serde_json sorts keys.
fn event(name: &str, fields: &Value) -> String {
    format!(
        "{{\"event\":\"{name}\",{}\n",
        fields.to_string().trim_start_matches('{')
    )
}
