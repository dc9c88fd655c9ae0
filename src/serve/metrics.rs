//! A server's figures as Prometheus reads them, in an answer of HTTP/1.1. Text only.

use crate::serve::stats::{Datagrams, Summary};

/// The version of Prometheus' text format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The values of one figure with their labels.
type Samples<'a> = &'a [(&'a str, u64)];

/// What is answered to the head of a request: `GET /metrics` gets the figures, everything else
/// what is wrong with it (RFC 9110 section 15.5). `HEAD` gets the same without the content
/// (section 9.3.2).
pub(super) fn respond(head: &[u8], summary: &Summary) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return bad_request();
    };
    if !version.starts_with(b"HTTP/1.") {
        return bad_request();
    }
    let mut response = match (method, target.split(|byte| *byte == b'?').next()) {
        (b"GET" | b"HEAD", Some(b"/metrics")) => response("200 OK", FORMAT, &exposition(summary)),
        (_, Some(b"/metrics")) => response(
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            "text/plain",
            "only GET and HEAD\n",
        ),
        _ => response("404 Not Found", "text/plain", "only /metrics\n"),
    };
    if method == b"HEAD" {
        let content = response
            .find("\r\n\r\n")
            .map_or(response.len(), |end| end + 4);
        response.truncate(content);
    }
    response
}

fn bad_request() -> String {
    response(
        "400 Bad Request",
        "text/plain",
        "not a request of HTTP/1.1\n",
    )
}

/// What is answered to a head that does not end in time.
pub(super) fn too_large() -> String {
    response(
        "431 Request Header Fields Too Large",
        "text/plain",
        "the head is too long\n",
    )
}

fn response(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// The figures in Prometheus' text format.
fn exposition(summary: &Summary) -> String {
    let Summary {
        connections,
        open,
        messages,
        received,
        sent,
        ..
    } = *summary;
    let refused = [
        ("{reason=\"denied\"}", summary.denied),
        ("{reason=\"max_per_ip\"}", summary.crowded),
    ];
    let errors = [
        ("{kind=\"reset\"}", summary.broken),
        (
            "{kind=\"other\"}",
            summary
                .failed
                .saturating_sub(summary.broken + summary.tls.sum()),
        ),
        ("{kind=\"not_tls\"}", summary.tls.not_tls),
        ("{kind=\"unknown_client\"}", summary.tls.unknown_client),
        ("{kind=\"handshake_timeout\"}", summary.tls.timed_out),
        ("{kind=\"handshake\"}", summary.tls.other),
        ("{kind=\"truncated\"}", summary.tls.truncated),
        ("{kind=\"line_too_long\"}", summary.too_long),
        ("{kind=\"idle\"}", summary.idle),
        ("{kind=\"cut\"}", summary.cut),
    ];
    let faults = [
        ("{kind=\"lost\"}", summary.lost),
        ("{kind=\"reset\"}", summary.reset),
    ];
    let Datagrams {
        taken,
        denied,
        looped,
        too_long,
        unsent,
    } = summary.datagrams;
    let dropped = [
        ("{reason=\"denied\"}", denied),
        ("{reason=\"loop\"}", looped),
        ("{reason=\"too_long\"}", too_long),
    ];
    let families: [(&str, &str, &str, Samples<'_>); 11] = [
        (
            "connections_open",
            "gauge",
            "Connections that are open.",
            &[("", open)],
        ),
        (
            "connections_total",
            "counter",
            "Connections that were accepted.",
            &[("", connections)],
        ),
        (
            "connections_refused_total",
            "counter",
            "Connections that were closed at once.",
            &refused,
        ),
        (
            "messages_total",
            "counter",
            "Messages that were received.",
            &[("", messages)],
        ),
        (
            "received_bytes_total",
            "counter",
            "Bytes that were received.",
            &[("", received)],
        ),
        (
            "sent_bytes_total",
            "counter",
            "Bytes that were sent.",
            &[("", sent)],
        ),
        (
            "datagrams_total",
            "counter",
            "Messages that came as datagrams.",
            &[("", taken)],
        ),
        (
            "datagrams_dropped_total",
            "counter",
            "Datagrams that were no messages.",
            &dropped,
        ),
        (
            "datagrams_unsent_total",
            "counter",
            "Answers that could not be sent.",
            &[("", unsent)],
        ),
        (
            "errors_total",
            "counter",
            "Connections that did not end well.",
            &errors,
        ),
        (
            "faults_total",
            "counter",
            "Answers and connections lost on purpose.",
            &faults,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, samples) in families {
        text += &family(name, kind, help);
        for (labels, value) in samples {
            text += &format!("myapp_{name}{labels} {value}\n");
        }
    }
    let uptime = summary.elapsed.as_secs_f64();
    text += &family(
        "uptime_seconds",
        "gauge",
        "For how long the server has run.",
    );
    text + &format!("myapp_uptime_seconds {uptime}\n")
}

fn family(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP myapp_{name} {help}\n# TYPE myapp_{name} {kind}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    use crate::serve::stats::Figures;
    use std::sync::atomic::Ordering::Relaxed;

    #[track_caller]
    fn answers(head: &str, status: &str) -> String {
        let response = respond(head.as_bytes(), &Figures::new(NonZeroUsize::MIN).summary());
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head:?}: {response}"
        );
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
        body.into()
    }

    #[test]
    fn only_get_metrics_is_answered_with_figures() {
        let all = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(answers(all, "200 OK").contains("myapp_messages_total 0\n"));
        answers("GET /metrics?name=x HTTP/1.0\r\n\r\n", "200 OK");
        answers(
            "POST /metrics HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
        );
        answers("GET / HTTP/1.1\r\n\r\n", "404 Not Found");
        answers("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found");
        answers("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request");
        answers("GET /metrics\r\n\r\n", "400 Bad Request");
        answers("\x16\x03\x01\r\n\r\n", "400 Bad Request");
        answers("", "400 Bad Request");
    }

    #[test]
    fn head_is_answered_as_get_without_the_content() {
        let summary = Figures::new(NonZeroUsize::MIN).summary();
        for target in ["/metrics", "/"] {
            let of = |method| respond(format!("{method} {target} HTTP/1.1").as_bytes(), &summary);
            let (get, head) = (of("GET"), of("HEAD"));
            assert!(
                head.ends_with("\r\n\r\n") && get.starts_with(&head),
                "{head}"
            );
        }
    }

    #[test]
    fn errors_are_told_by_kind_and_each_once() {
        let figures = Figures::new(NonZeroUsize::MIN);
        figures.failed.store(5, Relaxed);
        figures.broken.store(3, Relaxed);
        figures.denied.store(7, Relaxed);
        let text = exposition(&figures.summary());
        for line in [
            "myapp_errors_total{kind=\"reset\"} 3\n",
            "myapp_errors_total{kind=\"other\"} 2\n",
            "myapp_connections_refused_total{reason=\"denied\"} 7\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
