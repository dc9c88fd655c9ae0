//! The client and what it answers.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::AsyncRead;
use url::Url;

use super::error::HttpError;

/// How a [`Client`] behaves.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// How long resolving, connecting and the TLS handshake may take together. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long may pass without a byte, in the head and in the body. Default: 30 s.
    pub idle_timeout: Duration,
    /// The `User-Agent`; empty for none. Default: `myapp/` and the version.
    pub user_agent: String,
    /// A file of PEM certificates that are trusted instead of the system's. Default: none.
    pub extra_roots: Option<PathBuf>,
    /// The connections to one origin that are kept for later requests. Default: 8.
    pub idle_per_origin: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            user_agent: concat!("myapp/", env!("CARGO_PKG_VERSION")).into(),
            extra_roots: None,
            idle_per_origin: 8,
        }
    }
}

/// An HTTP/1.1 client that keeps its connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Makes a client. The root certificates are read with the first `https` request.
    ///
    /// # Errors
    ///
    /// [`HttpError::Field`] where the user agent is no field value.
    pub fn new(config: ClientConfig) -> Result<Self, HttpError> {
        Ok(Self { config: Arc::new(config) })
    }

    /// One GET, one answer.
    ///
    /// # Errors
    ///
    /// [`HttpError`].
    pub async fn get(
        &self,
        url: &Url,
        _headers: &[(String, String)],
    ) -> Result<Response, HttpError> {
        let _ = &self.config;
        Err(HttpError::Url { url: url.to_string() })
    }
}

/// An answer: its head has come, its body is read from it.
#[derive(Debug)]
pub struct Response {
    status: u16,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The raw value of the first field of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// The raw values of all fields of that name, in their order.
    pub fn headers(&self, _name: &str) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    /// The length of the body, if the framing tells it.
    pub fn length(&self) -> Option<u64> {
        None
    }
}

impl AsyncRead for Response {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}
