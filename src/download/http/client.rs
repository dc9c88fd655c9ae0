//! Public client: a surf client on top of our transport.

use std::io;
use std::time::Instant;

use surf::http::{Method, Response as HttpTypesResponse};
use url::Url;

use super::config::ClientConfig;
use super::error::HttpError;
use super::response::Response;
use super::transport::{RawRequest, Transport, Zone};

/// HTTP/1.1 client. Clones share the connection pool, DNS cache and TLS sessions.
#[derive(Debug, Clone)]
pub struct Client {
    surf: surf::Client,
}

impl Client {
    /// Creates a client. Root certificates are loaded by the first `https` request.
    ///
    /// # Errors
    ///
    /// [`HttpError::InvalidHeader`] if the user agent is not a valid header value.
    pub fn new(config: ClientConfig) -> Result<Self, HttpError> {
        Ok(Self {
            surf: surf::Client::with_http_client(Transport::new(config)?),
        })
    }

    /// Sends one GET request and returns after the head of the final response has been received,
    /// whatever its status. The body is then read from the [`Response`].
    ///
    /// `Host`, `User-Agent`, `Accept` and `Accept-Encoding: identity` are added unless given.
    /// User and password in the URL are not sent. Redirects are not followed. There are no
    /// retries, with one exception: if a pooled connection turns out to be closed before the
    /// first byte of the response, the request is sent once more over a new connection.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if no valid response head is received.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes its connection.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(String, String)],
    ) -> Result<Response, HttpError> {
        self.get_in_zone(url, None, headers).await
    }

    /// Sends a request like [`Client::get`]. `zone` is that of the IPv6 address in the URL.
    pub(in crate::download) async fn get_in_zone(
        &self,
        url: &Url,
        zone: Option<&str>,
        headers: &[(String, String)],
    ) -> Result<Response, HttpError> {
        let start = Instant::now();
        let mut request = surf::Request::new(Method::Get, url.clone());
        request.set_ext(RawRequest(headers.to_vec()));
        if let Some(zone) = zone {
            request.set_ext(Zone(zone.to_owned()));
        }
        let sent = self.surf.send(request).await;
        let mut response: HttpTypesResponse = sent
            .map_err(|error| {
                // Without middleware, all errors come from the transport.
                HttpError::from_surf(error).unwrap_or_else(|error| HttpError::Io {
                    source: io::Error::other(error.to_string()),
                })
            })?
            .into();
        let response = response.ext_mut().remove();
        let mut response: Response = response.ok_or_else(|| HttpError::Io {
            source: io::Error::other("response without extension"),
        })?;
        response.response_time = start.elapsed();
        Ok(response)
    }
}
