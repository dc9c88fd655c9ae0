//! HTTP/1.1 endpoint of the metrics, on a thread of its own beside the workers.

use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::LocalExecutor;
use tracing::{debug, error};

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Semaphore;
use crate::limits::timeout::race;
use crate::net::listener::Listener;
use crate::net::listener::accept::AsyncListener;
use crate::net::stream::Stream;
use crate::runtime::Timer;
use crate::serve::metrics::prometheus::{CONTENT_TYPE, exposition};
use crate::serve::stats::{ServerStats, Summary};

/// Concurrent requests; more wait in the kernel's backlog.
const MAX_REQUESTS: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Maximum length of a request's head in bytes.
const MAX_HEAD_LEN: usize = 8 << 10;

/// Time limit of a request, from accept to close.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves requests until dropped.
pub(crate) async fn serve(listener: Listener, stats: Arc<ServerStats>) {
    let address = listener.local_addr().clone();
    let incoming = match AsyncListener::new(listener) {
        Ok(incoming) => incoming,
        Err(error) => {
            return error!(%address, error = %ErrorChain(&error), "cannot poll listener");
        }
    };
    let executor = LocalExecutor::new();
    let permits = Semaphore::new(MAX_REQUESTS);
    let accept_loop = async {
        loop {
            let permit = permits.acquire().await;
            let stream = accept(&incoming).await;
            let stats = Arc::clone(&stats);
            let request = async move {
                let _permit = permit;
                let result = race(Timer::after(REQUEST_TIMEOUT), handle(stream, &stats)).await;
                if let Err(error) = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                    debug!(error = %ErrorChain(&error), "metrics request failed");
                }
            };
            executor.spawn(request).detach();
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

async fn handle(mut stream: Stream, stats: &ServerStats) -> io::Result<()> {
    let response = match read_head(&mut stream).await? {
        Some(head) => respond(&head, &stats.summary()),
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

/// Returns the response to a request's head: the metrics for `GET /metrics`, an error status for
/// everything else (RFC 9110 section 15.5). `HEAD` gets the same without content (section 9.3.2).
fn respond(head: &[u8], summary: &Summary) -> String {
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
            response("200 OK", CONTENT_TYPE, &exposition(summary))
        }
        (_, Some(b"/metrics")) => response(
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            "text/plain",
            "only GET and HEAD are supported\n",
        ),
        _ => response("404 Not Found", "text/plain", "only /metrics exists\n"),
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

    #[track_caller]
    fn assert_status(head: &str, status: &str) -> String {
        let summary = ServerStats::new(NonZeroUsize::MIN).summary();
        let response = respond(head.as_bytes(), &summary);
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
    fn only_get_metrics_returns_metrics() {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(assert_status(request, "200 OK").contains("myapp_messages_total 0\n"));
        assert_status("GET /metrics?name=x HTTP/1.0\r\n\r\n", "200 OK");
        assert_status(
            "POST /metrics HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
        );
        assert_status("GET / HTTP/1.1\r\n\r\n", "404 Not Found");
        assert_status("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found");
        assert_status("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request");
        assert_status("GET /metrics\r\n\r\n", "400 Bad Request");
        assert_status("\x16\x03\x01\r\n\r\n", "400 Bad Request");
        assert_status("", "400 Bad Request");
    }

    #[test]
    fn head_request_returns_the_head_of_get() {
        let summary = ServerStats::new(NonZeroUsize::MIN).summary();
        for target in ["/metrics", "/"] {
            let request =
                |method| respond(format!("{method} {target} HTTP/1.1").as_bytes(), &summary);
            let get = request("GET");
            let head = request("HEAD");
            assert!(
                head.ends_with("\r\n\r\n") && get.starts_with(&head),
                "{head}"
            );
        }
    }
}
