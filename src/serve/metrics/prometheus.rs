//! Prometheus text exposition of the server's counters.

use std::fmt::{Display, Write as _};

use crate::net::tls::TlsServer;
use crate::serve::handling_time::{BUCKET_BOUNDS, Histogram};
use crate::serve::metrics::MetricsSource;
use crate::serve::metrics::process::process_metrics;
use crate::serve::stats::Summary;

/// The media type of Prometheus' text format, with its version.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Value = fn(&Summary) -> u64;

/// The label of a family and its values.
struct Labels(&'static str, &'static [(&'static str, Value)]);

enum Samples {
    Single(Value),
    Labeled(Labels),
}

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Samples,
}

const fn counter(name: &'static str, help: &'static str, value: Value) -> Family {
    Family {
        name,
        kind: "counter",
        help,
        samples: Samples::Single(value),
    }
}

const fn labeled(name: &'static str, help: &'static str, labels: Labels) -> Family {
    Family {
        name,
        kind: "counter",
        help,
        samples: Samples::Labeled(labels),
    }
}

/// Label values are the names of the fields of [`Summary`], without the prefix that the name of
/// the family says already (`refused_`, `fault_`).
const FAMILIES: [Family; 12] = [
    Family {
        name: "connections_active",
        kind: "gauge",
        help: "Connections currently open.",
        samples: Samples::Single(|summary| summary.active),
    },
    counter("connections_total", "Connections accepted.", |summary| {
        summary.connections
    }),
    labeled(
        "connections_refused_total",
        "Connections refused, by reason.",
        Labels(
            "reason",
            &[
                ("acl", |summary| summary.refused_acl),
                ("max_per_ip", |summary| summary.refused_max_per_ip),
                ("proxy_header", |summary| summary.refused_proxy_header),
            ],
        ),
    ),
    counter("messages_total", "Messages received.", |summary| {
        summary.messages
    }),
    counter("received_bytes_total", "Bytes received.", |summary| {
        summary.received
    }),
    counter("sent_bytes_total", "Bytes sent.", |summary| summary.sent),
    counter(
        "datagrams_received_total",
        "Datagrams accepted as messages.",
        |summary| summary.datagrams.received,
    ),
    labeled(
        "datagrams_dropped_total",
        "Datagrams dropped, by reason.",
        Labels(
            "reason",
            &[
                ("acl", |summary| summary.datagrams.refused_acl),
                ("loops_suppressed", |summary| {
                    summary.datagrams.loops_suppressed
                }),
                ("too_long", |summary| summary.datagrams.too_long),
            ],
        ),
    ),
    counter(
        "datagrams_send_errors_total",
        "Replies to datagrams that could not be sent.",
        |summary| summary.datagrams.send_errors,
    ),
    labeled(
        "errors_total",
        "Connections that ended with an error, by kind.",
        Labels(
            "kind",
            &[
                ("reset_by_peer", |summary| summary.reset_by_peer),
                ("other", other_failures),
                ("not_tls", |summary| summary.tls.not_tls),
                ("client_cert_rejected", |summary| {
                    summary.tls.client_cert_rejected
                }),
                ("handshake_timeouts", |summary| {
                    summary.tls.handshake_timeouts
                }),
                ("handshake_errors", |summary| summary.tls.handshake_errors),
                ("missing_close_notify", |summary| {
                    summary.tls.missing_close_notify
                }),
                ("line_too_long", |summary| summary.line_too_long),
                ("idle_timeouts", |summary| summary.idle_timeouts),
                ("aborted_on_shutdown", |summary| summary.aborted_on_shutdown),
            ],
        ),
    ),
    labeled(
        "faults_total",
        "Injected faults, by kind.",
        Labels(
            "kind",
            &[
                ("dropped", |summary| summary.fault_dropped),
                ("burst_dropped", |summary| summary.fault_burst_dropped),
                ("corrupted", |summary| summary.fault_corrupted),
                ("duplicated", |summary| summary.fault_duplicated),
                ("reordered", |summary| summary.fault_reordered),
                ("closed", |summary| summary.fault_closed),
                ("closed_after", |summary| summary.fault_closed_after),
                ("reset", |summary| summary.fault_reset),
            ],
        ),
    ),
    counter(
        "fault_changes_total",
        "Changes of the faults at run time.",
        |summary| summary.fault_changes,
    ),
];

/// Failed connections that no other kind of error counts.
fn other_failures(summary: &Summary) -> u64 {
    summary
        .failed
        .saturating_sub(summary.reset_by_peer + summary.tls.sum())
}

/// Renders all metrics in Prometheus' text format.
pub(super) fn exposition(source: &MetricsSource) -> String {
    let summary = source.stats.summary();
    let mut text = counters(&summary);
    let version = env!("CARGO_PKG_VERSION");
    gauge(
        &mut text,
        "myapp_build_info",
        &format!("{{version=\"{version}\"}}"),
        "Version of the program; always 1.",
        1,
    );
    gauge(
        &mut text,
        "myapp_connections_max",
        "",
        "Limit of open connections; more wait.",
        source.max_connections,
    );
    let uptime = summary.elapsed.as_secs_f64();
    let help = "Time since the server started.";
    gauge(&mut text, "myapp_uptime_seconds", "", help, uptime);
    let not_after = source
        .tls
        .as_ref()
        .and_then(TlsServer::certificate_not_after);
    if let Some(not_after) = not_after {
        gauge(
            &mut text,
            "myapp_tls_certificate_not_after_timestamp_seconds",
            "",
            "Expiry of the certificate in seconds since the epoch.",
            not_after,
        );
    }
    text += &histogram(&source.stats.handling_times());
    for (name, kind, help, value) in process_metrics() {
        text += &header(name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

fn counters(summary: &Summary) -> String {
    let mut text = String::new();
    for family in &FAMILIES {
        let Family {
            name, kind, help, ..
        } = family;
        text += &header(&format!("myapp_{name}"), kind, help);
        match &family.samples {
            Samples::Single(value) => {
                let _ = writeln!(text, "myapp_{name} {}", value(summary));
            }
            Samples::Labeled(Labels(label, samples)) => {
                for (label_value, value) in *samples {
                    let value = value(summary);
                    let _ = writeln!(text, "myapp_{name}{{{label}=\"{label_value}\"}} {value}");
                }
            }
        }
    }
    text
}

/// Renders the handling times with cumulative buckets.
fn histogram(times: &Histogram) -> String {
    let name = "myapp_handling_seconds";
    let help = "Time from a read until its replies are written or queued; one read of 16.";
    let mut text = header(name, "histogram", help);
    let bounds = BUCKET_BOUNDS.map(|bound| bound.as_secs_f64().to_string());
    let bounds = bounds.into_iter().chain(["+Inf".into()]);
    let mut count = 0;
    for (bound, bucket) in bounds.zip(times.buckets) {
        count += bucket;
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let sum = times.sum.as_secs_f64();
    let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    text
}

fn gauge(text: &mut String, name: &str, labels: &str, help: &str, value: impl Display) {
    *text += &header(name, "gauge", help);
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn header(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use crate::serve::handling_time::HandlingTimes;
    use crate::serve::stats::ServerStats;

    #[test]
    fn each_error_is_counted_under_one_kind() {
        let stats = ServerStats::new(NonZeroUsize::MIN);
        stats.failed.store(5, Relaxed);
        stats.reset_by_peer.store(3, Relaxed);
        stats.refused_acl.store(7, Relaxed);
        let text = counters(&stats.summary());
        for line in [
            "myapp_errors_total{kind=\"reset_by_peer\"} 3\n",
            "myapp_errors_total{kind=\"other\"} 2\n",
            "myapp_connections_refused_total{reason=\"acl\"} 7\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let times = HandlingTimes::default();
        for micros in [3, 7, 7, 2_000_000] {
            times.record(Duration::from_micros(micros));
        }
        let text = histogram(&Histogram::sum([&times].into_iter()));
        for line in [
            "myapp_handling_seconds_bucket{le=\"0.000005\"} 1\n",
            "myapp_handling_seconds_bucket{le=\"0.00001\"} 3\n",
            "myapp_handling_seconds_bucket{le=\"1\"} 3\n",
            "myapp_handling_seconds_bucket{le=\"+Inf\"} 4\n",
            "myapp_handling_seconds_sum 2.000017\n",
            "myapp_handling_seconds_count 4\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
