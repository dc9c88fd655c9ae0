//! Handlers of the caller, which serve connections instead of the echo.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::limits::shutdown::Shutdown;
use crate::net::stream::{SocketControl as _, Stream};
use crate::net::tls::{AcceptedStream, TlsServer};
use crate::serve::connection::guard::{ConnectionGuard, Counts};
use crate::serve::connection::table::CloseReason;
use crate::serve::tls;
use futures_lite::{AsyncRead, AsyncWrite};

type Handling = Pin<Box<dyn Future<Output = ()>>>;

/// Handler of connections, which clones share.
#[derive(Clone)]
pub(super) struct Handler(Arc<dyn Fn(HandlerStream) -> Handling + Send + Sync>);

impl Handler {
    pub(super) fn new<H>(handler: H) -> Self
    where
        H: AsyncFn(HandlerStream) + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        Self(Arc::new(move |stream| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(stream).await })
        }))
    }

    /// Serves a connection, over TLS if there is a server for it, until the handler returns or the
    /// connection is idle for too long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's.
    pub(super) async fn serve(
        self,
        stream: Stream,
        tls: Option<TlsServer>,
        guard: ConnectionGuard,
        number: u64,
        draining: Shutdown,
    ) {
        let (stream, guard) = match tls {
            None => (Transport::Plain(stream), guard),
            Some(tls) => match tls::accept(&tls, stream, guard, None, draining.clone()).await {
                Some((stream, guard)) => (Transport::Tls(stream), guard),
                None => return,
            },
        };
        let served = Rc::new(Served {
            guard,
            received: Cell::default(),
            sent: Cell::default(),
            reason: Cell::new("aborted on shutdown"),
        });
        let mut handling = self.0(HandlerStream {
            transport: stream,
            served: Rc::clone(&served),
            number,
            draining: Box::new(draining),
        });
        let guard = &served.guard;
        let connections = &guard.context.connections;
        let reason = poll_fn(|cx| {
            connections.register_waker(guard.id, cx.waker());
            if connections.close_reason(guard.id) == Some(CloseReason::IdleTimeout) {
                return Poll::Ready("idle timeout");
            }
            handling.as_mut().poll(cx).map(|()| "handler")
        })
        .await;
        served.reason.set(reason);
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// Connection that a handler serves. Dropping it logs its end.
#[derive(Debug)]
struct Served {
    guard: ConnectionGuard,
    received: Cell<u64>,
    sent: Cell<u64>,
    reason: Cell<&'static str>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let counts = Counts {
            messages: 0,
            received: self.received.get(),
            sent: self.sent.get(),
        };
        self.guard.report_closed(counts, self.reason.get());
    }
}

#[derive(Debug)]
enum Transport {
    Plain(Stream),
    Tls(Box<AcceptedStream<Stream>>),
}

/// A connection that a handler serves. It belongs to the thread that accepted it. Dropping it
/// closes the connection.
#[derive(Debug)]
pub struct HandlerStream {
    transport: Transport,
    served: Rc<Served>,
    number: u64,
    /// Boxed, because it cannot be moved once it waits.
    draining: Box<Shutdown>,
}

impl HandlerStream {
    /// Returns the number of connections that the server has accepted before.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the address of the peer, or the one that a proxy has announced. `None` for a Unix
    /// socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.served.guard.peer.socket_addr()
    }

    /// Waits until the server drains. The handler has
    /// [`Config::drain_timeout`](crate::serve::Config::drain_timeout) from then on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn draining(&self) {
        self.draining.wait().await;
    }

    /// Closes the connection with a reset (RST) instead of an end of the stream.
    ///
    /// # Errors
    ///
    /// The errors of `setsockopt(2)`.
    pub fn reset(self) -> io::Result<()> {
        match &self.transport {
            Transport::Plain(stream) => stream.set_reset_on_close(),
            Transport::Tls(stream) => stream.set_reset_on_close(),
        }
    }

    fn record(&self, received: usize, sent: usize) {
        let Served {
            guard,
            received: all_received,
            sent: all_sent,
            ..
        } = &*self.served;
        all_received.set(all_received.get() + received as u64);
        all_sent.set(all_sent.get() + sent as u64);
        let context = &guard.context;
        context.connections.record_activity(guard.id, 0);
        context.traffic.add_received(received);
        context.traffic.add_sent(sent);
    }
}

impl AsyncRead for HandlerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        })?;
        self.record(count, 0);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for HandlerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        })?;
        self.record(0, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_close(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
