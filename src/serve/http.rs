//! HTTP/1.1 server of the endpoints for operators, on a thread of its own beside the workers. One
//! request per connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
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

/// Concurrent requests. A further one closes the oldest: clients that never finish theirs must not
/// lock out others.
const MAX_REQUESTS: usize = 16;

/// Maximum length of a request's head in bytes.
const MAX_HEAD_LEN: usize = 8 << 10;

/// Maximum length of a request's content in bytes.
const MAX_CONTENT_LEN: usize = 64 << 10;

/// Time limit of a request, from accept to close.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A request, as far as the endpoints use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target without its query.
    pub(super) path: String,
    pub(super) content: Vec<u8>,
}

/// A response with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    /// Code and reason.
    status: &'static str,
    /// Methods that the resource allows, if the request had another one.
    allow: Option<&'static str>,
    content_type: &'static str,
    content: String,
}

impl Response {
    pub(super) fn ok(content_type: &'static str, content: String) -> Self {
        Self {
            status: "200 OK",
            allow: None,
            content_type,
            content,
        }
    }

    /// Returns an error response with a line of text.
    pub(super) fn error(status: &'static str, text: &str) -> Self {
        Self {
            status,
            allow: None,
            content_type: "text/plain",
            content: format!("{text}\n"),
        }
    }

    pub(super) fn bad_request(text: &str) -> Self {
        Self::error("400 Bad Request", text)
    }

    pub(super) fn not_found(text: &str) -> Self {
        Self::error("404 Not Found", text)
    }

    pub(super) fn unavailable(text: &str) -> Self {
        Self::error("503 Service Unavailable", text)
    }

    /// Returns the response to a method that is not one of `allow` (RFC 9110 section 15.5.6).
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::error(
                "405 Method Not Allowed",
                &format!("only {allow} are supported"),
            )
        }
    }

    pub(super) fn to_text(&self, has_content: bool) -> String {
        let Self {
            status,
            allow,
            content_type,
            content,
        } = self;
        let length = content.len();
        let allow = allow.map_or(String::new(), |methods| format!("Allow: {methods}\r\n"));
        let content = if has_content { content } else { "" };
        format!(
            "HTTP/1.1 {status}\r\n{allow}Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{content}"
        )
    }
}

/// Serves requests until dropped. `endpoint` names it in the log.
pub(super) async fn serve(
    endpoint: &'static str,
    listener: Listener,
    respond: impl AsyncFn(Request) -> Response + 'static,
) {
    let address = listener.local_addr().clone();
    let incoming = match AsyncListener::new(listener) {
        Ok(incoming) => incoming,
        Err(error) => {
            return error!(%address, error = %ErrorChain(&error), "cannot poll listener");
        }
    };
    let executor = LocalExecutor::new();
    let respond = Rc::new(respond);
    let mut requests = VecDeque::new();
    let accept_loop = async {
        loop {
            let stream = accept(endpoint, &incoming).await;
            let respond = Rc::clone(&respond);
            let request = async move {
                let result = race(Timer::after(REQUEST_TIMEOUT), handle(stream, &*respond)).await;
                if let Err(error) = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                    debug!(endpoint, error = %ErrorChain(&error), "request failed");
                }
            };
            requests.retain(|request: &Task<()>| !request.is_finished());
            if requests.len() == MAX_REQUESTS {
                debug!(endpoint, "too many requests, closing the oldest");
                requests.pop_front();
            }
            requests.push_back(executor.spawn(request));
        }
    };
    executor.run(accept_loop).await
}

async fn accept(endpoint: &str, incoming: &AsyncListener) -> Stream {
    loop {
        let result = match incoming.try_accept().await {
            Ok(Some((stream, _))) => return stream,
            Ok(None) => incoming.ready().await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            debug!(endpoint, error = %ErrorChain(&error), "cannot accept connection");
            Timer::after(ACCEPT_RETRY_DELAY).await;
        }
    }
}

async fn handle(mut stream: Stream, respond: &impl AsyncFn(Request) -> Response) -> io::Result<()> {
    let response = match read_request(&mut stream).await? {
        Ok(request) => {
            // RFC 9110 section 9.3.2
            let has_content = request.method != "HEAD";
            respond(request).await.to_text(has_content)
        }
        Err(response) => response.to_text(true),
    };
    stream.write_all(response.as_bytes()).await?;
    stream.close().await?;
    // Closing with unread input would send a reset, which can destroy the response in flight.
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// Reads a request, or returns the response to an invalid one.
async fn read_request(stream: &mut Stream) -> io::Result<Result<Request, Response>> {
    let mut received = Vec::new();
    let head_len = loop {
        let end = head_len(&received);
        if end.unwrap_or(received.len()) > MAX_HEAD_LEN {
            let status = "431 Request Header Fields Too Large";
            return Ok(Err(Response::error(status, "request head too large")));
        }
        match end {
            Some(end) => break end,
            None if read_more(stream, &mut received).await? => {}
            None => break received.len(),
        }
    };
    let mut content = received.split_off(head_len);
    let head = match Head::parse(&received) {
        Ok(head) => head,
        Err(response) => return Ok(Err(response)),
    };
    if head.expects_continue && content.len() < head.content_len {
        // RFC 9110 section 10.1.1
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    while content.len() < head.content_len {
        if !read_more(stream, &mut content).await? {
            return Ok(Err(Response::bad_request("incomplete content")));
        }
    }
    content.truncate(head.content_len);
    Ok(Ok(Request {
        method: head.method,
        path: head.path,
        content,
    }))
}

/// Reads more input; returns `false` at its end.
async fn read_more(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).await?;
    received.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

/// Returns the length of the head with the empty line after it.
fn head_len(received: &[u8]) -> Option<usize> {
    let ends: [&[u8]; 2] = [b"\r\n\r\n", b"\n\n"];
    let find = |end: &[u8]| {
        let start = received
            .windows(end.len())
            .position(|window| window == end)?;
        Some(start + end.len())
    };
    ends.into_iter().filter_map(find).min()
}

/// The parts of a request's head that the endpoints use.
#[derive(Debug)]
struct Head {
    method: String,
    path: String,
    content_len: usize,
    expects_continue: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, Response> {
        let not_http = || Response::bad_request("not an HTTP/1.1 request");
        let text = str::from_utf8(head).map_err(|_| not_http())?;
        let mut lines = text.lines();
        let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(not_http());
        };
        if !version.starts_with("HTTP/1.") {
            return Err(not_http());
        }
        let mut head = Self {
            method: method.into(),
            path: target.split('?').next().unwrap_or_default().into(),
            content_len: 0,
            expects_continue: false,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(not_http)?;
            head.set_field(&name.to_ascii_lowercase(), value.trim())?;
        }
        Ok(head)
    }

    fn set_field(&mut self, name: &str, value: &str) -> Result<(), Response> {
        match name {
            "content-length" => {
                let length = value.parse();
                self.content_len =
                    length.map_err(|_| Response::bad_request("invalid Content-Length"))?;
                if self.content_len > MAX_CONTENT_LEN {
                    let text = format!("content longer than {MAX_CONTENT_LEN} bytes");
                    return Err(Response::error("413 Content Too Large", &text));
                }
            }
            "transfer-encoding" => {
                let text = "Content-Length required";
                return Err(Response::error("411 Length Required", text));
            }
            "expect" => self.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused(head: &str, status: &str) {
        let response = Head::parse(head.as_bytes()).unwrap_err();
        assert_eq!(response.status, status, "{head:?}");
    }

    #[test]
    fn head_is_parsed() {
        let text = "PUT /faults?x=y HTTP/1.1\r\nhost: x\r\nCONTENT-LENGTH: 12\r\n\
                    Expect: 100-continue\r\n\r\n";
        let head = Head::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (head.method.as_str(), head.path.as_str()),
            ("PUT", "/faults")
        );
        assert!(head.expects_continue);
        assert_eq!(head.content_len, 12);
        let head = Head::parse(b"GET / HTTP/1.0").unwrap();
        assert_eq!((head.content_len, head.expects_continue), (0, false));
    }

    #[test]
    fn invalid_heads_are_refused() {
        let bad_request = "400 Bad Request";
        assert_refused("", bad_request);
        assert_refused("GET /\r\n\r\n", bad_request);
        assert_refused("GET / HTTP/2.0\r\n\r\n", bad_request);
        assert_refused("\x16\x03\x01\r\n\r\n", bad_request);
        assert_refused("GET / HTTP/1.1\r\nno field\r\n\r\n", bad_request);
        for length in ["-1", "x", "", "99999999999999999999"] {
            let head = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert_refused(&head, bad_request);
        }
        assert_refused(
            "PUT / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
            "413 Content Too Large",
        );
        assert_refused(
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "411 Length Required",
        );
    }

    #[test]
    fn head_ends_at_the_first_empty_line() {
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(head_len(b"a\r\n\r\nb\n\n"), Some(5));
        assert_eq!(head_len(b"a\n\nb\r\n\r\n"), Some(3));
    }

    #[test]
    fn head_request_gets_no_content() {
        let response = Response::ok("text/plain", "text".into());
        let full = response.to_text(true);
        let head = response.to_text(false);
        assert!(full.ends_with("\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntext"));
        assert_eq!(full.strip_prefix(&head), Some("text"));
        let response = Response::method_not_allowed("GET, HEAD").to_text(true);
        assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n"));
    }
}
