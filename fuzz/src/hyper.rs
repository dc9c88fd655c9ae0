//! hyper, fed from memory.

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

use crate::outcome::{Answer, Outcome};

/// What hyper makes of these bytes; `None` where it waits for more. `ends`: the server closes the
/// connection behind them.
pub fn read(bytes: &[u8], ends: bool) -> Option<Outcome<String>> {
    let wire = Wire {
        bytes: bytes.to_vec(),
        at: 0,
        ends,
        is_asked: false,
    };
    let mut builder = http1::Builder::new();
    builder.max_headers(myapp::download::http::response_head::MAX_HEADERS);
    let handshake = builder.handshake::<_, Empty<Bytes>>(wire);
    let (mut sender, connection) = futures_lite::future::block_on(handshake).expect("nothing read");
    let request = Request::get("/")
        .header("host", "h")
        .body(Empty::new())
        .expect("a request");
    let answer = sender.send_request(request);
    Reader {
        connection: Box::pin(connection),
        answer: Box::pin(answer),
        head: None,
        body: Vec::new(),
    }
    .run()
}

struct Reader<C, A> {
    connection: Pin<Box<C>>,
    answer: Pin<Box<A>>,
    head: Option<Response<Incoming>>,
    body: Vec<u8>,
}

impl<C, A> Reader<C, A>
where
    C: Future<Output = hyper::Result<()>>,
    A: Future<Output = hyper::Result<Response<Incoming>>>,
{
    /// Polls everything until nothing moves.
    fn run(mut self) -> Option<Outcome<String>> {
        let moved = Arc::new(Moved(AtomicBool::new(true)));
        let waker = Waker::from(moved.clone());
        let mut cx = Context::from_waker(&waker);
        let mut open = true;
        while moved.0.swap(false, Relaxed) {
            // It tells its errors through the answer too.
            open = open && self.connection.as_mut().poll(&mut cx).is_pending();
            if let Poll::Ready(ended) = self.poll_answer(&mut cx) {
                let body = std::mem::take(&mut self.body);
                return Some(match (ended, self.head) {
                    (Ok(()), Some(head)) => Outcome::Whole(whole(head, body)),
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

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if self.head.is_none() {
            match self.answer.as_mut().poll(cx) {
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

fn whole(head: Response<Incoming>, body: Vec<u8>) -> Answer {
    let values = head.headers().iter();
    let mut fields: Vec<_> = values
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    Answer {
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

struct Moved(AtomicBool);

impl Wake for Moved {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Gives its bytes once it has been asked.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    ends: bool,
    is_asked: bool,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if !self.is_asked || left.is_empty() && !self.ends {
            return Poll::Pending;
        }
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked = true;
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
