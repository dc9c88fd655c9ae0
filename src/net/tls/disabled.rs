//! TLS in a build without the feature `tls`: setting it up fails, so that clients, servers and
//! streams do not exist.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};

use super::config::{TlsConfig, TlsReload, TlsServerConfig};
use super::fingerprint::Fingerprint;
use crate::net::address::Host;

/// Error of setting up TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// The library was built without the feature `tls`.
    #[error("TLS is not compiled in: feature `tls`")]
    Disabled,
}

/// Error of a handshake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The connection failed before the handshake completed.
    #[error("connection failed")]
    Io {
        /// The cause.
        source: io::Error,
    },
}

impl TlsError {
    /// Returns the error unchanged: none comes from TLS.
    ///
    /// # Errors
    ///
    /// Always `error`.
    pub(crate) fn of_stream(error: io::Error) -> Result<Self, io::Error> {
        Err(error)
    }
}

/// Error of a handshake with a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The client does not speak TLS.
    #[error("client does not speak TLS")]
    NotTls,
    /// The client presents no certificate, though one is required.
    #[error("client presented no certificate")]
    NoCertificate,
    /// The certificate of the client is not issued by a trusted root, or not valid now.
    #[error("client certificate rejected")]
    BadCertificate {
        /// The cause.
        source: Infallible,
    },
    /// The connection failed before the handshake completed.
    #[error("connection failed")]
    Broken {
        /// The cause.
        source: io::Error,
    },
}

/// TLS client.
#[derive(Debug, Clone)]
pub struct TlsClient(Infallible);

impl TlsClient {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError::Disabled`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn load(_: TlsConfig, _: &[&str]) -> Result<Self, TlsSetupError> {
        Err(TlsSetupError::Disabled)
    }

    pub(crate) async fn connect<S>(&self, _: &Host, _: S) -> Result<TlsStream<S>, TlsError> {
        match self.0 {}
    }
}

/// TLS server.
#[derive(Debug, Clone)]
pub struct TlsServer(Infallible);

impl TlsServer {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError::Disabled`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub(crate) async fn load(_: TlsServerConfig) -> Result<Self, TlsSetupError> {
        Err(TlsSetupError::Disabled)
    }

    pub(crate) async fn reload(&self) -> Result<Option<TlsReload>, TlsSetupError> {
        match self.0 {}
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        match self.0 {}
    }

    pub(crate) fn certificate_not_after(&self) -> Option<i64> {
        match self.0 {}
    }

    pub(crate) async fn accept<S>(&self, _: S) -> Result<AcceptedStream<S>, (AcceptError, S)> {
        match self.0 {}
    }

    pub(crate) async fn accept_described<S>(
        &self,
        _: S,
    ) -> Result<(AcceptedStream<S>, SessionInfo), (AcceptError, S)> {
        match self.0 {}
    }
}

/// Properties of the session of a client.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serve", derive(serde::Serialize))]
pub(crate) enum SessionInfo {}

/// TLS stream of a client.
#[derive(Debug)]
pub struct TlsStream<S>(Infallible, PhantomData<S>);

/// TLS stream of a server.
pub type AcceptedStream<S> = TlsStream<S>;

impl<S> TlsStream<S> {
    pub(crate) fn transport(&self) -> &S {
        match self.0 {}
    }

    pub(crate) fn is_drained(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn poll_read_with(
        &mut self,
        _: &mut Context<'_>,
        _: usize,
        _: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match self.0 {}
    }
}

/// Returns the stream below the TLS of a server.
pub(crate) fn transport<S>(stream: &AcceptedStream<S>) -> &S {
    match stream.0 {}
}

impl<S> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.0 {}
    }
}

impl<S> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
