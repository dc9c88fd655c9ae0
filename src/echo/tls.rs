//! Optional TLS on a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::lock::OnceCell;

use crate::echo::config::Target;
use crate::echo::error::Error;
use crate::limits::timeout::timeout;
use crate::net::address::Address;
use crate::net::tls::{TlsClient, TlsStream};

/// A connection with or without TLS.
#[derive(Debug)]
pub(crate) enum MaybeTls<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

/// Upgrades connections to one server to TLS. The certificate files are read on first use.
#[derive(Debug, Default)]
pub(crate) struct TlsUpgrade(OnceCell<TlsClient>);

impl TlsUpgrade {
    /// Performs the handshake if the address of the target requires TLS.
    pub(crate) async fn upgrade<S>(&self, target: &Target, stream: S) -> Result<MaybeTls<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Target {
            address,
            timeout: limit,
            tls,
            tls_name,
            ..
        } = target;
        let Address::Tls(endpoint) = address else {
            return Ok(MaybeTls::Plain(stream));
        };
        let client = self
            .0
            .get_or_try_init(|| TlsClient::load(tls.clone(), &[]))
            .await?;
        let host = tls_name.as_ref().unwrap_or(&endpoint.host);
        match timeout(Some(*limit), client.connect(host, stream)).await {
            Ok(Ok(stream)) => Ok(MaybeTls::Tls(Box::new(stream))),
            Ok(Err(source)) => Err(Error::Tls {
                address: address.clone(),
                source,
            }),
            Err(_) => Err(Error::TlsTimeout {
                address: address.clone(),
                limit: *limit,
            }),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_close(cx),
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
