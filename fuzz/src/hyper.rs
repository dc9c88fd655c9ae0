//! Reads responses from memory with hyper.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response};

use crate::outcome::{self, Outcome};

/// Returns the result of hyper for these bytes; `None` if it waits for more. `ends`: the server
/// closes the connection after them.
pub fn read(bytes: &[u8], ends: bool) -> Option<Outcome<String>> {
    let io = MemoryIo {
        bytes: bytes.to_vec(),
        at: 0,
        ends,
        is_requested: false,
    };
    let mut builder = http1::Builder::new();
    builder.max_headers(myapp::internals::http::MAX_HEADERS);
    let handshake = builder.handshake::<_, Empty<Bytes>>(io);
    let (mut sender, connection) = futures_lite::future::block_on(handshake).expect("nothing read");
    let request = Request::get("/")
        .header("host", "h")
        .body(Empty::new())
        .expect("a request");
    let response = sender.send_request(request);
    Reader {
        connection: Box::pin(connection),
        response: Box::pin(response),
        head: None,
        body: Vec::new(),
    }
    .run()
}

struct Reader<C, A> {
    connection: Pin<Box<C>>,
    response: Pin<Box<A>>,
    head: Option<Response<Incoming>>,
    body: Vec<u8>,
}

impl<C, A> Reader<C, A>
where
    C: Future<Output = hyper::Result<()>>,
    A: Future<Output = hyper::Result<Response<Incoming>>>,
{
    /// Polls connection and response until there is no more progress.
    fn run(mut self) -> Option<Outcome<String>> {
        let progress = Arc::new(Progress(AtomicBool::new(true)));
        let waker = Waker::from(progress.clone());
        let mut cx = Context::from_waker(&waker);
        let mut open = true;
        while progress.0.swap(false, Relaxed) {
            // The response reports the errors of the connection too.
            open = open && self.connection.as_mut().poll(&mut cx).is_pending();
            if let Poll::Ready(ended) = self.poll_response(&mut cx) {
                let body = std::mem::take(&mut self.body);
                return Some(match (ended, self.head) {
                    (Ok(()), Some(head)) => Outcome::Complete(complete(head, body)),
                    (Ok(()), None) => unreachable!("no body without a head"),
                    (Err(error), _) => Outcome::Failed {
                        body,
                        error: with_causes(&error),
                    },
                });
            }
        }
        None
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if self.head.is_none() {
            match self.response.as_mut().poll(cx) {
                Poll::Ready(head) => self.head = Some(head?),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Some(head) = &mut self.head else {
            return Poll::Pending;
        };
        loop {
            match pin!(head.body_mut()).poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    if let Ok(data) = frame?.into_data() {
                        self.body.extend_from_slice(&data);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn complete(head: Response<Incoming>, body: Vec<u8>) -> outcome::Response {
    let values = head.headers().iter();
    let mut fields: Vec<_> = values
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    outcome::Response {
        status: head.status().as_u16(),
        fields,
        body,
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

struct Progress(AtomicBool);

impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Connection that provides its bytes after the request is written.
struct MemoryIo {
    bytes: Vec<u8>,
    at: usize,
    ends: bool,
    is_requested: bool,
}

impl Read for MemoryIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if !self.is_requested || left.is_empty() && !self.ends {
            return Poll::Pending;
        }
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for MemoryIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_requested = true;
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
