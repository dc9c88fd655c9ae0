//! What `myapp serve` tells while it runs: where it listens, its figures, a summary.

use myapp::net::address::Address;
use myapp::serve::{Datagrams, Summary};
use serde_json::{Value, json};
use tracing::info;

use crate::exit_code::Failure;
use crate::output::stdout::print;

/// Where figures go: to the log, and with `--json` to stdout too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Events {
    pub(crate) json: bool,
}

impl Events {
    /// Says where the server listens: a line an address, those of figures last.
    pub(crate) async fn listening(
        self,
        served: &[Address],
        metrics: Option<&Address>,
    ) -> Result<(), Failure> {
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

    /// Tells the figures, and what has changed since `before` as rates.
    pub(crate) async fn stats(self, before: &Summary, now: &Summary) -> Result<(), Failure> {
        let seconds = (now.elapsed - before.elapsed).as_secs_f64();
        let rate = |count: fn(&Summary) -> u64| (count(now) - count(before)) as f64 / seconds;
        let messages = rate(|summary| summary.messages);
        let received = rate(|summary| summary.received);
        let sent = rate(|summary| summary.sent);
        info!(
            open = now.open,
            connections = now.connections,
            messages_rate = messages.round() as u64,
            received_rate = received.round() as u64,
            sent_rate = sent.round() as u64,
            "stats"
        );
        let mut fields = figures(now);
        fields["messages_rate"] = json!(messages);
        fields["received_rate"] = json!(received);
        fields["sent_rate"] = json!(sent);
        self.print("stats", &fields).await
    }

    /// Tells all that has been done.
    pub(crate) async fn summary(self, summary: &Summary) -> Result<(), Failure> {
        let Summary {
            connections,
            messages,
            received,
            sent,
            ..
        } = summary;
        let tls_failed = summary.tls.sum();
        let Summary {
            failed,
            too_long,
            denied,
            crowded,
            lost,
            reset,
            idle,
            cut,
            ..
        } = summary;
        let seconds = summary.elapsed.as_secs_f64();
        info!(
            connections,
            messages,
            received,
            sent,
            failed,
            tls_failed,
            too_long,
            denied,
            crowded,
            lost,
            reset,
            idle,
            cut,
            datagrams = summary.datagrams.taken,
            unanswered = summary.datagrams.unanswered(),
            seconds,
            "summary"
        );
        self.print("summary", &figures(summary)).await
    }

    async fn print(self, name: &str, fields: &Value) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        print(event(name, fields).into_bytes()).await
    }
}

/// A line of JSON that begins with the event's name, as people read it; serde_json sorts names.
fn event(name: &str, fields: &Value) -> String {
    format!(
        "{{\"event\":\"{name}\",{}\n",
        fields.to_string().trim_start_matches('{')
    )
}

fn figures(summary: &Summary) -> Value {
    json!({
        "elapsed": summary.elapsed.as_secs_f64(),
        "connections": summary.connections,
        "open": summary.open,
        "messages": summary.messages,
        "received": summary.received,
        "sent": summary.sent,
        "failed": summary.failed,
        "tls": {
            "not_tls": summary.tls.not_tls,
            "unknown_client": summary.tls.unknown_client,
            "timed_out": summary.tls.timed_out,
            "other": summary.tls.other,
            "truncated": summary.tls.truncated,
        },
        "too_long": summary.too_long,
        "denied": summary.denied,
        "crowded": summary.crowded,
        "lost": summary.lost,
        "reset": summary.reset,
        "idle": summary.idle,
        "cut": summary.cut,
        "datagrams": datagrams(summary.datagrams),
    })
}

fn datagrams(datagrams: Datagrams) -> Value {
    let Datagrams {
        taken,
        denied,
        looped,
        too_long,
        unsent,
    } = datagrams;
    json!({
        "taken": taken,
        "denied": denied,
        "looped": looped,
        "too_long": too_long,
        "unsent": unsent,
    })
}
