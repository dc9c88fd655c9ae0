//! What carries the bytes: a connection as the system makes it, or TLS over one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::lock::OnceCell;

use crate::echo::config::Server;
use crate::echo::error::EchoError;
use crate::limits::timeout::timeout;
use crate::net::address::Address;
use crate::net::tls::{TlsClient, TlsStream};

/// A connection to the server over which messages may go.
#[derive(Debug)]
pub(crate) enum Link<S> {
    TcpOrUnix(S),
    Tls(Box<TlsStream<S>>),
}

/// What makes links of connections to one server. The files of TLS are read for the first of them.
#[derive(Debug, Default)]
pub(crate) struct Gate(OnceCell<TlsClient>);

impl Gate {
    /// Shakes hands over a connection, if the server's address asks for TLS.
    pub(crate) async fn pass<S>(&self, server: &Server, stream: S) -> Result<Link<S>, EchoError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Server {
            address,
            timeout: limit,
            tls,
            tls_name,
            ..
        } = server;
        let Address::Tls(endpoint) = address else {
            return Ok(Link::TcpOrUnix(stream));
        };
        let client = self
            .0
            .get_or_try_init(|| TlsClient::load(tls.clone(), &[]))
            .await?;
        let host = tls_name.as_ref().unwrap_or(&endpoint.host);
        match timeout(Some(*limit), client.connect(host, stream)).await {
            Ok(Ok(stream)) => Ok(Link::Tls(Box::new(stream))),
            Ok(Err(source)) => Err(EchoError::Tls {
                address: address.clone(),
                source,
            }),
            Err(_) => Err(EchoError::Handshake {
                address: address.clone(),
                limit: *limit,
            }),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::TcpOrUnix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::TcpOrUnix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::TcpOrUnix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::TcpOrUnix(stream) => Pin::new(stream).poll_close(cx),
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
