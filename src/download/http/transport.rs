//! HTTP transport of the surf client: pooled or new connection for each request.

use std::sync::Arc;

use http_client::http_types::{Request, Response, StatusCode};
use http_client::{Error, HttpClient, async_trait};
use smol::lock::OnceCell;
use tracing::debug;
use url::{Host as UrlHost, Url};

use super::body::{Body, PoolReturn};
use super::body_length::{BodyLength, is_keep_alive};
use super::config::ClientConfig;
use super::connect_tunnel;
use super::connection::{Connection, Stream};
use super::error::{HttpError, ProxyError, RoundTripError};
use super::pool::{Origin, Pool, PoolKey};
use super::proxy::{Kind, Proxy};
use super::request::write_get;
use super::response_head::ResponseHead;
use super::round_trip::{ConnectionWithHead, round_trip};
use crate::limits::timeout::timeout;
use crate::net::address::{Address, Endpoint, Host};
use crate::net::connect::ConnectError;
use crate::net::resolver::DnsCache;
use crate::net::tls::TlsClient;

/// Request headers, passed in the request's extensions: http-types would reorder them and accepts
/// ASCII only.
pub(super) struct RequestHeaders(pub(super) Vec<(String, String)>);

/// Head, known length and body of a response, passed in the response's extensions: http-types
/// cannot represent non-ASCII values or unknown statuses, and its body hides the socket.
#[derive(Debug)]
pub(super) struct RawResponse {
    pub(super) head: ResponseHead,
    pub(super) length: Option<u64>,
    pub(super) body: Body,
}

/// `HttpClient` implementation that surf uses.
#[derive(Debug)]
pub(super) struct Transport {
    config: ClientConfig,
    pool: Arc<Pool<Box<Connection>>>,
    names: DnsCache,
    tls: OnceCell<TlsClient>,
}

#[async_trait]
impl HttpClient for Transport {
    async fn send(&self, request: Request) -> Result<Response, Error> {
        let fields = request
            .ext()
            .get()
            .map_or(&[][..], |RequestHeaders(headers)| headers);
        let answer = self.get(request.url(), fields).await?;
        let mut response = Response::new(status_code(answer.head.status()));
        response.ext_mut().insert(answer);
        Ok(response)
    }
}

impl Transport {
    pub(super) fn new(config: ClientConfig) -> Self {
        let pool = Arc::new(Pool::new(config.max_idle_per_origin));
        let names = DnsCache::new(config.resolver.clone());
        Self {
            config,
            pool,
            names,
            tls: OnceCell::new(),
        }
    }

    async fn get(&self, url: &Url, fields: &[(String, String)]) -> Result<RawResponse, HttpError> {
        let origin = origin_of(url).ok_or_else(|| HttpError::url(url))?;
        let proxy = self.config.proxies.for_url(url).cloned();
        let key = PoolKey { origin, proxy };
        let http_proxy = key
            .proxy
            .as_ref()
            .filter(|proxy| uses_absolute_form(proxy, &key.origin));
        let request = write_get(url, fields, &self.config.user_agent, http_proxy)?;
        let failed = |failure| HttpError::of(url, failure, 0, None);

        let kept = self.try_pooled(&key, &request).await.map_err(failed)?;
        let (connection, head) = match kept {
            Some(answered) => answered,
            // Boxed: this future is much larger than the others and rarely needed.
            None => round_trip(Box::pin(self.connect(&key)).await?, &request)
                .await
                .map_err(failed)?,
        };
        if let (407, Some(proxy)) = (head.status(), http_proxy) {
            return Err(self::failed(proxy, proxy.auth_error()));
        }
        let body_length = BodyLength::from_head(&head).map_err(|error| failed(error.into()))?;
        debug!(target: "myapp::traffic", status = head.status(), "response from {}", key.origin.address);
        let pool_return = is_keep_alive(&head).then(|| PoolReturn {
            pool: self.pool.clone(),
            key,
        });
        let length = body_length.content_length();
        Ok(RawResponse {
            head,
            length,
            body: Body::new(connection, body_length, url.clone(), pool_return),
        })
    }

    /// Tries a pooled connection; returns `None` if none is open. A GET may be resent (RFC 9110
    /// section 9.2.2), since a server may close an idle connection at any time (RFC 9112 section
    /// 9.3.1).
    async fn try_pooled(
        &self,
        key: &PoolKey,
        request: &[u8],
    ) -> Result<Option<ConnectionWithHead>, RoundTripError> {
        while let Some(connection) = self.pool.take(key) {
            if !connection.is_reusable() {
                continue;
            }
            return match round_trip(connection, request).await {
                Err(RoundTripError::ClosedBeforeResponse) => Ok(None),
                answered => answered.map(Some),
            };
        }
        Ok(None)
    }

    async fn connect(&self, key: &PoolKey) -> Result<Box<Connection>, HttpError> {
        let PoolKey {
            origin: Origin { tls, address },
            proxy,
        } = key;
        let secure = if *tls { Some(self.tls().await?) } else { None };
        let limit = self.config.connect_timeout;
        let late = ConnectError::TimedOut {
            address: Address::Tcp(address.clone()),
            limit,
        };
        let opened = timeout(Some(limit), self.open(key, secure)).await;
        let stream = opened.unwrap_or_else(|_| {
            self.names
                .invalidate(proxy.as_ref().map_or(address, |proxy| &proxy.address));
            Err(match proxy {
                None => late.into(),
                Some(proxy) => failed(proxy, late.into()),
            })
        })?;
        debug!(target: "myapp::traffic", tls, ?proxy, "connected to {address}");
        Ok(Box::new(Connection::new(stream, self.config.idle_timeout)))
    }

    async fn open(&self, key: &PoolKey, tls: Option<&TlsClient>) -> Result<Stream, HttpError> {
        let address = &key.origin.address;
        let names = &self.names;
        let idle = self.config.idle_timeout;
        let tcp = match &key.proxy {
            None => connect_tunnel::dial(address, names).await?,
            Some(proxy) => connect_tunnel::open(proxy, address, tls.is_some(), names, idle)
                .await
                .map_err(|source| failed(proxy, source))?,
        };
        let Some(tls) = tls else {
            return Ok(Stream::Plain(tcp));
        };
        match tls.connect(&address.host, tcp).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(source) => {
                names.invalidate(address);
                Err(HttpError::Tls {
                    host: address.to_string(),
                    source,
                })
            }
        }
    }

    /// Returns the TLS client, loading the certificate files on first use.
    async fn tls(&self) -> Result<&TlsClient, HttpError> {
        let config = self.config.tls.clone();
        Ok(self
            .tls
            .get_or_try_init(|| TlsClient::load(config, &["http/1.1"]))
            .await?)
    }
}

/// Returns whether requests use the absolute form instead of a tunnel.
fn uses_absolute_form(proxy: &Proxy, origin: &Origin) -> bool {
    proxy.kind == Kind::Http && !origin.tls
}

fn failed(proxy: &Proxy, source: ProxyError) -> HttpError {
    HttpError::Proxy {
        proxy: proxy.to_string(),
        source,
    }
}

/// Returns scheme, host and port of a URL, or `None` if it is not http or https.
fn origin_of(url: &Url) -> Option<Origin> {
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let host = match url.host()? {
        UrlHost::Domain(name) => Host::Name(name.into()),
        UrlHost::Ipv4(ip) => Host::Ip(ip.into()),
        UrlHost::Ipv6(ip) => Host::Ip(ip.into()),
    };
    Some(Origin {
        tls,
        address: Endpoint {
            host,
            port: url.port_or_known_default()?,
        },
    })
}

/// Converts a status to http-types; unknown codes become the x00 code of their class (RFC 9110
/// section 15).
fn status_code(status: u16) -> StatusCode {
    StatusCode::try_from(status).unwrap_or(match status {
        ..300 => StatusCode::Ok,
        300..400 => StatusCode::MultipleChoice,
        400..500 => StatusCode::BadRequest,
        _ => StatusCode::InternalServerError,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_scheme_host_and_port() {
        for (url, tls, address) in [
            ("http://Example.org/x", false, "example.org:80"),
            ("https://user@example.org", true, "example.org:443"),
            ("https://127.1:8443/", true, "127.0.0.1:8443"),
            ("http://[::1]/", false, "[::1]:80"),
            (
                "http://bücher.example:8080/",
                false,
                "xn--bcher-kva.example:8080",
            ),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                origin_of(&url.parse().unwrap()),
                Some(Origin { tls, address }),
                "{url}"
            );
        }
        for url in [
            "ftp://example.org/",
            "file:///etc/passwd",
            "data:,x",
            "mailto:a@b",
        ] {
            assert_eq!(origin_of(&url.parse().unwrap()), None, "{url}");
        }
    }

    #[test]
    fn unknown_status_becomes_the_first_of_its_class() {
        for (status, known) in [(206, 206), (299, 200), (399, 300), (430, 400), (520, 500)] {
            assert_eq!(u16::from(status_code(status)), known, "{status}");
        }
    }
}
