//! Responses of the metrics endpoint.

use std::time::Duration;

use crate::limits::timeout::race;
use crate::runtime::Timer;
use crate::serve::health::Health;
use crate::serve::http::{Request, Response};
use crate::serve::metrics::MetricsSource;
use crate::serve::metrics::prometheus::{CONTENT_TYPE, exposition};

/// Time within which all workers must run a task to count as alive.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the response to a request: an error for everything but `GET` and `HEAD` of one of the
/// three paths.
pub(crate) async fn respond(source: &MetricsSource, request: &Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/metrics") => Response::ok(CONTENT_TYPE, exposition(source)),
        ("GET" | "HEAD", "/healthz") => healthz(&source.health).await,
        ("GET" | "HEAD", "/readyz") if source.health.is_ready() => {
            Response::ok("text/plain", "ready\n".into())
        }
        ("GET" | "HEAD", "/readyz") => Response::unavailable("not ready"),
        (_, "/metrics" | "/healthz" | "/readyz") => Response::method_not_allowed("GET, HEAD"),
        _ => Response::not_found("only /metrics, /healthz and /readyz exist"),
    }
}

async fn healthz(health: &Health) -> Response {
    match race(Timer::after(PROGRESS_TIMEOUT), health.wait_for_progress()).await {
        Ok(()) => Response::ok("text/plain", "alive\n".into()),
        Err(_) => Response::unavailable("a worker makes no progress"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use crate::limits::shutdown;
    use crate::serve::stats::ServerStats;

    /// Returns the start of the response of a server without workers that has started, and its
    /// content.
    fn respond_to(method: &str, path: &str) -> (String, String) {
        let (start, started) = shutdown::channel();
        start.trigger();
        let (_stop, stopping) = shutdown::channel();
        let source = MetricsSource {
            stats: Arc::new(ServerStats::new(NonZeroUsize::MIN)),
            health: Health::new(0, started, stopping).0,
            tls: None,
            max_connections: NonZeroUsize::MIN,
        };
        let request = Request {
            method: method.into(),
            path: path.into(),
            content: Vec::new(),
        };
        let response = smol::block_on(respond(&source, &request)).to_text(true);
        let (head, content) = response.split_once("\r\n\r\n").unwrap();
        (head.into(), content.into())
    }

    #[track_caller]
    fn assert_status(method: &str, path: &str, status: &str) -> String {
        let (head, content) = respond_to(method, path);
        let start = format!("HTTP/1.1 {status}\r\n");
        assert!(head.starts_with(&start), "{method} {path}: {head}");
        content
    }

    #[test]
    fn only_get_and_head_of_a_known_path_succeed() {
        for method in ["GET", "HEAD"] {
            let content = assert_status(method, "/metrics", "200 OK");
            assert!(content.contains("myapp_messages_total 0\n"));
            assert_eq!(assert_status(method, "/healthz", "200 OK"), "alive\n");
            assert_eq!(assert_status(method, "/readyz", "200 OK"), "ready\n");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            let status = "405 Method Not Allowed\r\nAllow: GET, HEAD";
            assert_status("POST", path, status);
        }
        for path in ["/", "/metrics/", "/stats"] {
            assert_status("GET", path, "404 Not Found");
        }
    }
}
