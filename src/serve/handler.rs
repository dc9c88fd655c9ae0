//! Handlers of the caller, which serve connections instead of the echo.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use tracing::info;

use crate::limits::shutdown::Shutdown;
use crate::net::stream::{Peer, SocketControl as _, Stream};
use crate::net::tls::{AcceptedStream, TlsServer};
use crate::serve::connection::guard::ConnectionGuard;
use crate::serve::connection::table::CloseReason;
use crate::serve::tls;
use crate::serve::traffic_log::TRAFFIC;

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
        let guard = Rc::new(guard);
        let mut handling = self.0(HandlerStream {
            transport: stream,
            guard: Rc::clone(&guard),
            number,
            draining: Box::new(draining),
        });
        let connections = &guard.context.connections;
        poll_fn(|cx| {
            connections.register_waker(guard.id, cx.waker());
            if connections.close_reason(guard.id) == Some(CloseReason::IdleTimeout) {
                return Poll::Ready(());
            }
            handling.as_mut().poll(cx)
        })
        .await;
        drop(handling);
        let seconds = guard.age().as_secs_f64();
        info!(target: TRAFFIC, peer = %guard.peer, seconds, reason = "handler", "closed");
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
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
    guard: Rc<ConnectionGuard>,
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
        match &self.guard.peer {
            Peer::V4(address) => Some((*address).into()),
            Peer::V6(address) => Some((**address).into()),
            Peer::Unix { .. } => None,
        }
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
        let context = &self.guard.context;
        context.connections.record_activity(self.guard.id, 0);
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
