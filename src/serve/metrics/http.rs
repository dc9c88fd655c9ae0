//! HTTP/1.1 endpoint of the metrics, on a thread of its own beside the workers.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{LocalExecutor, Task};
use tracing::{debug, error};

use crate::error_chain::ErrorChain;
use crate::limits::timeout::race;
use crate::net::listener::Listener;
use crate::net::listener::accept::AsyncListener;
use crate::net::stream::Stream;
use crate::runtime::Timer;
use crate::serve::health::Health;
use crate::serve::metrics::MetricsSource;
use crate::serve::metrics::prometheus::{CONTENT_TYPE, exposition};

/// Concurrent requests. A further one closes the oldest: clients that never finish theirs must not
/// lock out others.
const MAX_REQUESTS: usize = 16;

/// Maximum length of a request's head in bytes.
const MAX_HEAD_LEN: usize = 8 << 10;

/// Time limit of a request, from accept to close.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which all workers must run a task to count as alive.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves requests until dropped.
pub(crate) async fn serve(listener: Listener, source: MetricsSource) {
    let address = listener.local_addr().clone();
    let incoming = match AsyncListener::new(listener) {
        Ok(incoming) => incoming,
        Err(error) => {
            return error!(%address, error = %ErrorChain(&error), "cannot poll listener");
        }
    };
    let executor = LocalExecutor::new();
    let mut requests = VecDeque::new();
    let accept_loop = async {
        loop {
            let stream = accept(&incoming).await;
            let source = source.clone();
            let request = async move {
                let result = race(Timer::after(REQUEST_TIMEOUT), handle(stream, &source)).await;
                if let Err(error) = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                    debug!(error = %ErrorChain(&error), "metrics request failed");
                }
            };
            requests.retain(|request: &Task<()>| !request.is_finished());
            if requests.len() == MAX_REQUESTS {
                debug!("too many metrics requests, closing the oldest");
                requests.pop_front();
            }
            requests.push_back(executor.spawn(request));
        }
    };
    executor.run(accept_loop).await
}

async fn accept(incoming: &AsyncListener) -> Stream {
    loop {
        let result = match incoming.try_accept().await {
            Ok(Some((stream, _))) => return stream,
            Ok(None) => incoming.ready().await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            debug!(error = %ErrorChain(&error), "cannot accept metrics connection");
            Timer::after(ACCEPT_RETRY_DELAY).await;
        }
    }
}

async fn handle(mut stream: Stream, source: &MetricsSource) -> io::Result<()> {
    let response = match read_head(&mut stream).await? {
        Some(head) => respond(&head, source).await,
        None => header_too_large(),
    };
    stream.write_all(response.as_bytes()).await?;
    stream.close().await?;
    // Closing with unread input would send a reset, which can destroy the response in flight.
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// Reads up to the empty line after the head, or the end of input. Returns `None` if the head is
/// too long.
async fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < MAX_HEAD_LEN {
        let count = stream.read(&mut buffer).await?;
        head.extend_from_slice(&buffer[..count]);
        let contains = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
        if count == 0 || contains(b"\r\n\r\n") || contains(b"\n\n") {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Returns the response to a request's head: an error status for everything but `GET` of one of
/// the three paths (RFC 9110 section 15.5). `HEAD` gets the same without content (section 9.3.2).
async fn respond(head: &[u8], source: &MetricsSource) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return bad_request();
    };
    if !version.starts_with(b"HTTP/1.") {
        return bad_request();
    }
    let path = target.split(|byte| *byte == b'?').next();
    let mut response = match (method, path) {
        (b"GET" | b"HEAD", Some(b"/metrics")) => {
            response("200 OK", CONTENT_TYPE, &exposition(source))
        }
        (b"GET" | b"HEAD", Some(b"/healthz")) => healthz(&source.health).await,
        (b"GET" | b"HEAD", Some(b"/readyz")) if source.health.is_ready() => {
            response("200 OK", "text/plain", "ready\n")
        }
        (b"GET" | b"HEAD", Some(b"/readyz")) => {
            response("503 Service Unavailable", "text/plain", "not ready\n")
        }
        (_, Some(b"/metrics" | b"/healthz" | b"/readyz")) => response(
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            "text/plain",
            "only GET and HEAD are supported\n",
        ),
        _ => response(
            "404 Not Found",
            "text/plain",
            "only /metrics, /healthz and /readyz exist\n",
        ),
    };
    if method == b"HEAD" {
        let content = response
            .find("\r\n\r\n")
            .map_or(response.len(), |end| end + 4);
        response.truncate(content);
    }
    response
}

async fn healthz(health: &Health) -> String {
    match race(Timer::after(PROGRESS_TIMEOUT), health.wait_for_progress()).await {
        Ok(()) => response("200 OK", "text/plain", "alive\n"),
        Err(_) => response(
            "503 Service Unavailable",
            "text/plain",
            "a worker makes no progress\n",
        ),
    }
}

fn bad_request() -> String {
    response("400 Bad Request", "text/plain", "not an HTTP/1.1 request\n")
}

fn header_too_large() -> String {
    response(
        "431 Request Header Fields Too Large",
        "text/plain",
        "request head too large\n",
    )
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use crate::limits::shutdown;
    use crate::serve::stats::ServerStats;

    /// Returns the response of a server without workers that has started.
    fn respond_to(head: &str) -> String {
        let (start, started) = shutdown::channel();
        start.trigger();
        let (_stop, stopping) = shutdown::channel();
        let source = MetricsSource {
            stats: Arc::new(ServerStats::new(NonZeroUsize::MIN)),
            health: Health::new(0, started, stopping).0,
            tls: None,
            max_connections: NonZeroUsize::MIN,
        };
        smol::block_on(respond(head.as_bytes(), &source))
    }

    #[track_caller]
    fn assert_status(head: &str, status: &str) -> String {
        let response = respond_to(head);
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
    fn only_get_of_a_known_path_succeeds() {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(assert_status(request, "200 OK").contains("myapp_messages_total 0\n"));
        assert_status("GET /metrics?name=x HTTP/1.0\r\n\r\n", "200 OK");
        let body = assert_status("GET /healthz HTTP/1.1\r\n\r\n", "200 OK");
        assert_eq!(body, "alive\n");
        let body = assert_status("GET /readyz HTTP/1.1\r\n\r\n", "200 OK");
        assert_eq!(body, "ready\n");
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_status(
                &format!("POST {path} HTTP/1.1\r\n\r\n"),
                "405 Method Not Allowed\r\nAllow: GET, HEAD",
            );
        }
        assert_status("GET / HTTP/1.1\r\n\r\n", "404 Not Found");
        assert_status("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found");
        assert_status("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request");
        assert_status("GET /metrics\r\n\r\n", "400 Bad Request");
        assert_status("\x16\x03\x01\r\n\r\n", "400 Bad Request");
        assert_status("", "400 Bad Request");
    }

    #[test]
    fn head_request_returns_the_head_of_get() {
        for target in ["/readyz", "/"] {
            let request = |method| respond_to(&format!("{method} {target} HTTP/1.1"));
            let get = request("GET");
            let head = request("HEAD");
            assert!(
                head.ends_with("\r\n\r\n") && get.starts_with(&head),
                "{head}"
            );
        }
    }
}
