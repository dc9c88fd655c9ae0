//! HTTP transport of surf clients: pooled or new connection for each request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_client::http_types::headers::{HeaderValue, HeaderValues};
use http_client::http_types::{Method, StatusCode, Version};
use http_client::{Body as HttpTypesBody, Config, Error, HttpClient, async_trait};
use http_client::{Request, Response as HttpTypesResponse};
use smol::lock::OnceCell;
use tracing::debug;
use url::{Host as UrlHost, Url};

use super::authentication::DigestSessions;
use super::body::Body;
use super::body_length::{BodyLength, is_keep_alive};
use super::config::ClientConfig;
use super::connect_tunnel;
use super::connection::{Connection, Stream};
use super::error::{HttpError, ProxyError, RoundTripError};
use super::pool::{Origin, Pool, PoolKey};
use super::proxy::{Kind, Proxy};
use super::proxy_auth::ProxyAuth;
use super::request::{
    Expectation, PROXY_AUTHORIZATION, RequestHead, RequestLength, RequestParts, absolute_form,
    validate_header,
};
use super::request_body::RequestBody;
use super::response::Response;
use super::round_trip::{ConnectionWithHead, Upload, round_trip, upload};
use crate::limits::timeout::timeout;
use crate::net::address::{Address, Endpoint, Host};
use crate::net::connect::ConnectError;
use crate::net::resolver::DnsCache;
use crate::net::tls::{TlsClient, TlsConfig, TlsSetupError};

/// Maximum length of a body that is sent together with the head. It is kept until the response,
/// so that it can be sent again.
const MAX_BUFFERED_BODY_LEN: u64 = 16 * 1024;

/// Extension of a request whose headers are sent as given, and whose response is the extension
/// [`Response`]: http-types would reorder the headers, holds ASCII only, and needs several
/// allocations per header.
pub(super) struct RawRequest(pub(super) Vec<(String, String)>);

/// Extension of a request: the zone of the IPv6 address in its URL, which has no place for it.
pub(super) struct Zone(pub(super) String);

/// HTTP/1.1 transport of a [surf](https://docs.rs/surf) client: a complete
/// [`HttpClient`] with connection pool, TLS, proxies and timeouts.
///
/// ```no_run
/// # use myapp::download::http::{ClientConfig, HttpError, Transport, surf};
/// use std::time::Duration;
///
/// # async fn upload() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ClientConfig {
///     connect_timeout: Duration::from_secs(3),
///     ..ClientConfig::default()
/// };
/// let client = surf::Client::with_http_client(Transport::new(config)?);
/// let request = client.put("https://example.org/notes").body("remember the milk");
/// match request.await {
///     Ok(response) => println!("{}", response.status()),
///     Err(error) => match HttpError::from_surf(error) {
///         Ok(error) if error.is_transient() => println!("try again: {error}"),
///         Ok(error) => println!("{error}"),
///         Err(other) => println!("not from the transport: {other}"),
///     },
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Requests
///
/// - Methods: all of http-types except CONNECT (RFC 9110 section 9.3.6) and PRI.
/// - Headers: those of the request in alphabetical order, after `Host`, `User-Agent`, `Accept` and
///   `Accept-Encoding: identity`, which are added unless given. User and password in the URL are
///   not sent. `Proxy-Authorization` is sent to an HTTP proxy only, instead of its credentials.
/// - Body: `Content-Length` if its length is known, otherwise chunked (RFC 9112 section 6). A body
///   shorter than its length is an error; http-types cuts a longer one. Trailers are not sent.
/// - `Content-Length` and `Transfer-Encoding` headers must agree with the body, `Connection` may
///   only contain `close` and `keep-alive`, and `Upgrade` is not supported: otherwise the request
///   fails before anything is sent (RFC 9112 section 11.2).
/// - `Expect: 100-continue` (RFC 9110 section 10.1.1) is added from a body length of 1 MiB, or if
///   the header is given; an empty `Expect` header disables it. The body is sent after
///   `100 Continue`, or after 1 s without a response. A final response before that is returned, and
///   the body is not sent; after 417 the request is sent once more without the expectation.
/// - A response with a status of 300 or more that is received before the end of the body ends its
///   transmission (RFC 9112 section 9.5).
///
/// # Responses
///
/// Status, version and headers are those received; a status unknown to http-types becomes the
/// first of its class, and headers with non-ASCII values are left out. The extension
/// [`ResponseHead`](super::response_head::ResponseHead) holds the complete head with raw values.
///
/// The body is streamed. It has a length if `Content-Length` gives it; responses to HEAD and those
/// with status 204 or 304 have none (RFC 9112 section 6.3). A truncated body is an I/O error
/// of the read, never a short body; [`HttpError::from_io`] returns its cause. The body is
/// not decompressed, and trailers are ignored.
///
/// # Connections
///
/// A connection is reused after the response body was read to its end, unless a peer closes
/// it, the request body was not sent completely, or an error occurred. There are no retries, with
/// one exception: if a pooled connection turns out to be closed before the first byte of
/// the response, the request is sent once more if its method is idempotent (RFC 9110 section 9.2.2)
/// and its body was not read, or has at most 16 KiB. A POST is never repeated.
///
/// # Errors
///
/// Errors of [`send`](HttpClient::send) are an [`HttpError`] inside of [`surf::Error`]; see
/// [`HttpError::from_surf`]. A status of 400 or more is not an error.
///
/// # Cancel safety
///
/// Dropping the future of `send` closes its connection; the server may have received the request.
#[derive(Debug)]
pub struct Transport {
    config: ClientConfig,
    http: Config,
    pool: Arc<Pool<Box<Connection>>>,
    names: DnsCache,
    tls: OnceCell<TlsClient>,
    proxy_tls: OnceCell<TlsClient>,
    proxy_digest: DigestSessions<Proxy>,
}

#[async_trait]
impl HttpClient for Transport {
    async fn send(&self, request: Request) -> Result<HttpTypesResponse, Error> {
        let is_raw = request.ext().get::<RawRequest>().is_some();
        let limit = self.http.timeout;
        let response = match timeout(limit, self.exchange(request)).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(HttpError::NoResponse {
                    limit: limit.unwrap_or(Duration::MAX),
                }
                .into());
            }
        };
        Ok(if is_raw {
            let mut raw = HttpTypesResponse::new(StatusCode::Ok);
            raw.ext_mut().insert(response);
            raw
        } else {
            into_http_types(response)
        })
    }

    /// Applies the parts of a configuration that [`ClientConfig`] does not have a field for, or
    /// only as a default: `timeout` limits the time until the response head, `http_keep_alive`
    /// and `max_connections_per_host` limit the idle connections. `TCP_NODELAY` is always set.
    fn set_config(&mut self, config: Config) -> Result<(), Error> {
        let max_idle = if config.http_keep_alive {
            config.max_connections_per_host
        } else {
            0
        };
        self.pool = Arc::new(Pool::new(max_idle));
        self.http = config.set_tcp_no_delay(true);
        Ok(())
    }

    fn config(&self) -> &Config {
        &self.http
    }
}

impl Transport {
    /// Creates a transport. Root certificates are loaded by the first `https` request.
    ///
    /// # Errors
    ///
    /// [`HttpError::InvalidHeader`] if the user agent is not a valid header value.
    pub fn new(config: ClientConfig) -> Result<Self, HttpError> {
        validate_header("User-Agent", &config.user_agent)?;
        let max_idle = config.max_idle_per_origin;
        let http = Config::new()
            .set_http_keep_alive(max_idle > 0)
            .set_tcp_no_delay(true)
            .set_timeout(None)
            .set_max_connections_per_host(max_idle);
        Ok(Self {
            http,
            pool: Arc::new(Pool::new(max_idle)),
            names: DnsCache::new(config.resolver.clone()),
            tls: OnceCell::new(),
            proxy_tls: OnceCell::new(),
            proxy_digest: DigestSessions::default(),
            config,
        })
    }

    async fn exchange(&self, mut request: Request) -> Result<Response, HttpError> {
        let url = request.url();
        let mut origin = origin_of(url).ok_or(HttpError::UnsupportedUrl)?;
        if let Some(Zone(zone)) = request.ext().get()
            && let Host::Ip(IpAddr::V6(ip)) = origin.address.host
        {
            let zone = zone.clone();
            origin.address.host = Host::Zoned { ip, zone };
        }
        let proxy = self.config.proxies.for_url(url);
        let proxy = proxy.map_err(|invalid| HttpError::InvalidProxy(Box::new(invalid.clone())))?;
        let proxy = proxy.cloned();
        // Part of the key: a connection is not reused with other credentials for the proxy.
        let authorization = given_proxy_authorization(&request);
        let proxy = proxy.map(|proxy| proxy.with_authorization(authorization));
        let key = PoolKey { origin, proxy };
        let length = RequestLength::new(request.method(), request.len());
        if length.has_body() {
            // Boxed: this future is much larger than the others and rarely needed.
            return Box::pin(self.exchange_with_body(&mut request, key, length)).await;
        }
        let mut auth = self.absolute_form_auth(&key);
        let (received, closes) = loop {
            let head = self.encode(&request, &mut auth, length, Expectation::Auto)?;
            let received = self.exchange_complete(&request, &key, &head).await?;
            let is_repeated = match &mut auth {
                Some(auth) => auth.is_repeated(&received.1)?,
                None => false,
            };
            if !is_repeated {
                break (received, head.closes);
            }
        };
        drop(auth);
        self.respond(&request, key, received, !closes)
    }

    /// Sends a request with a body. A small one becomes part of the head.
    async fn exchange_with_body(
        &self,
        request: &mut Request,
        key: PoolKey,
        length: RequestLength,
    ) -> Result<Response, HttpError> {
        let mut auth = self.absolute_form_auth(&key);
        let mut head = self.encode(request, &mut auth, length, Expectation::Auto)?;
        let mut body = RequestBody::new(request.take_body(), length);
        let is_small = matches!(length, RequestLength::Known(..=MAX_BUFFERED_BODY_LEN));
        if is_small && !head.expects_continue {
            body.encode_to(&mut head.bytes)
                .await
                .map_err(|source| HttpError::RequestBody { source })?;
            let received = self.exchange_complete(request, &key, &head).await?;
            if let Some(auth) = &mut auth {
                auth.check_final(&received.1)?;
            }
            return self.respond(request, key, received, !head.closes);
        }
        let mut uploaded = self.upload(request, &key, &head, &mut body).await?;
        if uploaded.head.status() == 417 && head.expects_continue && !body.is_started() {
            // RFC 9110 section 10.1.1.
            debug!(target: "myapp::traffic", "417 from {}: repeated without Expect", key.origin.address);
            head = self.encode(request, &mut auth, length, Expectation::Never)?;
            drop(uploaded);
            uploaded = self.upload(request, &key, &head, &mut body).await?;
        }
        let Upload {
            connection,
            head: response_head,
            is_complete,
        } = uploaded;
        if let Some(auth) = &mut auth {
            auth.check_final(&response_head)?;
        }
        let is_reusable = is_complete && !head.closes;
        self.respond(request, key, (connection, response_head), is_reusable)
    }

    /// Sends a request that is complete in `head`.
    async fn exchange_complete(
        &self,
        request: &Request,
        key: &PoolKey,
        head: &RequestHead,
    ) -> Result<ConnectionWithHead, HttpError> {
        let failed = |failure| HttpError::of(&key.origin.address, failure, 0, None);
        let received = match self.take_pooled(key) {
            Some(connection) => match round_trip(connection, &head.bytes).await {
                Err(RoundTripError::ClosedBeforeResponse) if is_idempotent(request.method()) => {
                    None
                }
                received => Some(received.map_err(failed)?),
            },
            None => None,
        };
        match received {
            Some(received) => Ok(received),
            None => round_trip(Box::pin(self.connect(key)).await?, &head.bytes)
                .await
                .map_err(failed),
        }
    }

    /// Sends a request whose body can be sent only once.
    async fn upload(
        &self,
        request: &Request,
        key: &PoolKey,
        head: &RequestHead,
        body: &mut RequestBody,
    ) -> Result<Upload, HttpError> {
        let failed = |failure| HttpError::of(&key.origin.address, failure, 0, None);
        if let Some(connection) = self.take_pooled(key) {
            match upload(connection, &head.bytes, body, head.expects_continue).await {
                Err(RoundTripError::ClosedBeforeResponse)
                    if is_idempotent(request.method()) && !body.is_started() => {}
                uploaded => return uploaded.map_err(failed),
            }
        }
        let connection = Box::pin(self.connect(key)).await?;
        upload(connection, &head.bytes, body, head.expects_continue)
            .await
            .map_err(failed)
    }

    fn encode(
        &self,
        request: &Request,
        auth: &mut Option<ProxyAuth<'_>>,
        length: RequestLength,
        expectation: Expectation,
    ) -> Result<RequestHead, HttpError> {
        let method = request.method();
        let authorization = auth
            .as_mut()
            .and_then(|auth| auth.value(method.as_ref(), &absolute_form(request.url())));
        let mut fields: Vec<(&str, &str)> = request
            .iter()
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.as_str(), value.as_str()))
            })
            .collect();
        // The map has no order. Stable: the order of values is significant.
        fields.sort_by_key(|(name, _)| *name);
        if let Some(RawRequest(raw)) = request.ext().get() {
            fields.extend(
                raw.iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
        }
        RequestParts {
            method: request.method(),
            url: request.url(),
            fields: &fields,
            length,
            expectation,
            user_agent: &self.config.user_agent,
            is_for_proxy: auth.is_some(),
            proxy_authorization: authorization.as_deref(),
        }
        .encode()
    }

    fn respond(
        &self,
        request: &Request,
        key: PoolKey,
        (connection, head): ConnectionWithHead,
        is_reusable: bool,
    ) -> Result<Response, HttpError> {
        let body_length = if request.method() == Method::Head {
            BodyLength::ContentLength(0)
        } else {
            BodyLength::from_head(&head).map_err(|source| HttpError::Protocol { source })?
        };
        debug!(target: "myapp::traffic", status = head.status(), "response from {}", key.origin.address);
        let pool = (is_reusable && is_keep_alive(&head)).then(|| self.pool.clone());
        let length = body_length.content_length();
        Ok(Response {
            head,
            length,
            body: Body::new(connection, body_length, key, pool),
            response_time: Duration::ZERO,
        })
    }

    /// Returns the authentication to the proxy that receives the request itself, in absolute form,
    /// instead of a tunnel.
    fn absolute_form_auth(&self, key: &PoolKey) -> Option<ProxyAuth<'_>> {
        let proxy = key.proxy.as_ref()?;
        let is_http = matches!(proxy.kind, Kind::Http | Kind::Https);
        (is_http && !key.origin.tls).then(|| self.proxy_auth(proxy))
    }

    fn proxy_auth(&self, proxy: &Proxy) -> ProxyAuth<'_> {
        ProxyAuth::new(
            proxy.clone(),
            &self.proxy_digest,
            self.config.proxy_passwords,
        )
    }

    /// Takes an open connection from the pool. The server may still close it before it receives
    /// the request (RFC 9112 section 9.3.1).
    fn take_pooled(&self, key: &PoolKey) -> Option<Box<Connection>> {
        std::iter::from_fn(|| self.pool.take(key)).find(|connection| connection.is_reusable())
    }

    async fn connect(&self, key: &PoolKey) -> Result<Box<Connection>, HttpError> {
        let PoolKey {
            origin: Origin { tls, address },
            proxy,
        } = key;
        let secure = if *tls {
            Some(load(&self.tls, &self.config.tls).await?)
        } else {
            None
        };
        let proxy_secure = match proxy {
            Some(used) if used.kind == Kind::Https => {
                Some(load(&self.proxy_tls, &self.config.proxy_tls).await?)
            }
            _ => None,
        };
        let limit = self.config.connect_timeout;
        let late = ConnectError::TimedOut {
            address: Address::Tcp(address.clone()),
            limit,
        };
        let opened = timeout(Some(limit), self.open(key, secure, proxy_secure)).await;
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

    async fn open(
        &self,
        key: &PoolKey,
        tls: Option<&TlsClient>,
        proxy_tls: Option<&TlsClient>,
    ) -> Result<Stream, HttpError> {
        let address = &key.origin.address;
        let names = &self.names;
        let idle = self.config.idle_timeout;
        let stream = match &key.proxy {
            None => Stream::Plain(connect_tunnel::dial(address, names).await?),
            Some(proxy) => {
                let auth = &mut self.proxy_auth(proxy);
                let is_tls = tls.is_some();
                connect_tunnel::open(proxy, auth, proxy_tls, address, is_tls, names, idle)
                    .await
                    .map_err(|source| failed(proxy, source))?
            }
        };
        let Some(tls) = tls else {
            return Ok(stream);
        };
        connect_tunnel::start_tls(tls, &address.host, stream)
            .await
            .map_err(|source| {
                names.invalidate(address);
                HttpError::Tls {
                    host: address.to_string(),
                    source,
                }
            })
    }
}

/// Returns the TLS client, loading the certificate files on first use.
async fn load<'a>(
    cell: &'a OnceCell<TlsClient>,
    config: &TlsConfig,
) -> Result<&'a TlsClient, TlsSetupError> {
    cell.get_or_try_init(|| TlsClient::load(config.clone(), &["http/1.1"]))
        .await
}

/// Returns whether a request of this method may be repeated (RFC 9110 section 9.2.2).
fn is_idempotent(method: Method) -> bool {
    method.is_safe() || matches!(method, Method::Put | Method::Delete)
}

/// Converts a response to http-types.
fn into_http_types(response: Response) -> HttpTypesResponse {
    let Response {
        head, length, body, ..
    } = response;
    let mut converted = HttpTypesResponse::new(status_code(head.status()));
    converted.set_version(Some(if head.is_http_10() {
        Version::Http1_0
    } else {
        Version::Http1_1
    }));
    let length = length.and_then(|length| usize::try_from(length).ok());
    converted.set_body(HttpTypesBody::from_reader(body, length));
    // Added by `set_body`.
    converted.remove_header("content-type");
    for (name, value) in head.fields() {
        if let Ok(value) = HeaderValue::from_bytes(value.to_vec()) {
            converted.append_header(name, value);
        }
    }
    converted.ext_mut().insert(head);
    converted
}

/// Returns the value of `Proxy-Authorization` in the fields of a request.
fn given_proxy_authorization(request: &Request) -> Option<&str> {
    let raw = request.ext().get::<RawRequest>();
    let mut raw = raw.iter().flat_map(|RawRequest(fields)| fields);
    match raw.find(|(name, _)| name.eq_ignore_ascii_case(PROXY_AUTHORIZATION)) {
        Some((_, value)) => Some(value),
        None => request
            .header(PROXY_AUTHORIZATION)
            .map(|values: &HeaderValues| values.last().as_str()),
    }
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
