//! The client and what it answers: surf outside, our transport inside.

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::AsyncRead;
use surf::http::{Method, Response as SurfResponse};
use url::Url;

use super::body::Body;
use super::error::HttpError;
use super::head::Head;
use super::proxy::Proxies;
use super::request::check;
use super::transport::{Answer, Fields, Transport};
use crate::net::resolver::ResolverConfig;
use crate::net::tls::TlsConfig;

/// How a [`Client`] behaves.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// How long resolving, connecting and the TLS handshake may take together. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long may pass without a byte, in the head and in the body. Default: 30 s.
    pub idle_timeout: Duration,
    /// The `User-Agent`; empty for none. Default: `myapp/` and the version.
    pub user_agent: String,
    /// What is trusted, and what is shown. Default: the system's roots, and nothing.
    pub tls: TlsConfig,
    /// The proxies that requests go through. Default: none.
    pub proxies: Proxies,
    /// How names are looked up. Default: as the system does.
    pub lookup: ResolverConfig,
    /// The connections to one origin that are kept for later requests. Default: 8.
    pub idle_per_origin: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            user_agent: concat!("myapp/", env!("CARGO_PKG_VERSION")).into(),
            tls: TlsConfig::default(),
            proxies: Proxies::default(),
            lookup: ResolverConfig::default(),
            idle_per_origin: 8,
        }
    }
}

/// An HTTP/1.1 client. Clones share its connections, names and TLS sessions, which are kept until
/// the last clone is gone.
#[derive(Debug, Clone)]
pub struct Client {
    surf: surf::Client,
}

impl Client {
    /// Makes a client. The root certificates are read with the first `https` request.
    ///
    /// # Errors
    ///
    /// [`HttpError::Field`] where the user agent is no field value.
    pub fn new(config: ClientConfig) -> Result<Self, HttpError> {
        check("User-Agent", &config.user_agent)?;
        Ok(Self {
            surf: surf::Client::with_http_client(Transport::new(config)),
        })
    }

    /// Asks for `url` with these fields once, and returns when the head of the final answer has
    /// come; any status is an answer. The body is then read from the [`Response`].
    ///
    /// `Host`, `User-Agent`, `Accept` and `Accept-Encoding: identity` are added where they are
    /// not given. User and password in the URL are not sent. No redirect is followed. Nothing is
    /// tried again, except when a kept connection turns out closed before the first byte of the
    /// answer: then once over a new one.
    ///
    /// # Errors
    ///
    /// [`HttpError`].
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, its connection is closed.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(String, String)],
    ) -> Result<Response, HttpError> {
        let mut request = surf::Request::new(Method::Get, url.clone());
        request.set_ext(Fields(headers.to_vec()));
        let answered = self.surf.send(request).await;
        let mut response: SurfResponse = answered
            .map_err(|error| HttpError::from_surf(url, error))?
            .into();
        let Some(Answer { head, length, body }) = response.ext_mut().remove() else {
            return Err(HttpError::from_surf(
                url,
                surf::Error::from_str(500, "not our answer"),
            ));
        };
        Ok(Response { head, length, body })
    }
}

/// An answer: its head has come, its body is read from it.
///
/// The body is whole when a read with room for a byte gives 0, and only then. The error of a
/// read holds an [`HttpError`], which [`HttpError::from_io`] finds. When the body was read to its
/// end, its connection serves the next request; when this is dropped before, it is closed.
#[derive(Debug)]
pub struct Response {
    head: Head,
    length: Option<u64>,
    body: Body,
}

impl Response {
    /// The status code, 200 to 999.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The raw value of the first field of that name, in any case, without blanks around it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// The raw values of all fields of that name, in their order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.values(name)
    }

    /// The length of the whole body in bytes, if the framing tells it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Moves bytes of the body, at most `most`, from the socket into a pipe that has room for
    /// some; 0 is the end. `None` where they must be read first: inside TLS, between chunks,
    /// and what has come together with the head.
    pub(in crate::download) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        self.body.poll_splice(cx, pipe, most)
    }
}

impl AsyncRead for Response {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.body).poll_read(cx, into)
    }
}
