//! What surf sends its requests through: a connection for each, kept ones first.

use std::sync::Arc;

use http_client::http_types::{Request, Response, StatusCode};
use http_client::{Error, HttpClient, async_trait};
use smol::lock::OnceCell;
use tracing::debug;
use url::{Host as UrlHost, Url};

use super::body::{Body, Home};
use super::client::ClientConfig;
use super::connection::{Connection, Stream};
use super::error::{Failure, HttpError, ProxyError};
use super::exchange::{Answered, ask};
use super::framing::{Framing, keeps_connection};
use super::head::Head;
use super::pool::{Origin, Pool, Way};
use super::proxy::{Kind, Proxy};
use super::request::write_get;
use super::tunnel;
use crate::limits::timeout::timeout;
use crate::net::address::{Address, Endpoint, Host};
use crate::net::connect::ConnectError;
use crate::net::resolver::DnsCache;
use crate::net::tls::TlsClient;

/// The fields of a request, as they are given: http-types would reorder them, and takes ASCII
/// alone. They travel in the request's extensions.
pub(super) struct Fields(pub(super) Vec<(String, String)>);

/// The head of an answer, the length of its body where it is known, and the body. Travels in the
/// response's extensions: http-types has no place for a value that is not ASCII, or a status of
/// its own, and its body hides the socket.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) length: Option<u64>,
    pub(super) body: Body,
}

/// What surf sends its requests through.
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
        let fields = request.ext().get().map_or(&[][..], |Fields(fields)| fields);
        let answer = self.get(request.url(), fields).await?;
        let mut response = Response::new(status_code(answer.head.status()));
        response.ext_mut().insert(answer);
        Ok(response)
    }
}

impl Transport {
    pub(super) fn new(config: ClientConfig) -> Self {
        let pool = Arc::new(Pool::new(config.idle_per_origin));
        let names = DnsCache::new(config.lookup.clone());
        Self {
            config,
            pool,
            names,
            tls: OnceCell::new(),
        }
    }

    async fn get(&self, url: &Url, fields: &[(String, String)]) -> Result<Answer, HttpError> {
        let origin = origin_of(url).ok_or_else(|| HttpError::url(url))?;
        let proxy = self.config.proxies.of(url).cloned();
        let way = Way { origin, proxy };
        let whole = way
            .proxy
            .as_ref()
            .filter(|proxy| is_asked_whole(proxy, &way.origin));
        let request = write_get(url, fields, &self.config.user_agent, whole)?;
        let failed = |failure| HttpError::of(url, failure, 0, None);

        let kept = self.ask_kept(&way, &request).await.map_err(failed)?;
        let (connection, head) = match kept {
            Some(answered) => answered,
            // Boxed: it is far larger than the rest, and most requests do without.
            None => ask(Box::pin(self.connect(&way)).await?, &request)
                .await
                .map_err(failed)?,
        };
        if let (407, Some(proxy)) = (head.status(), whole) {
            return Err(self::failed(proxy, proxy.refusal()));
        }
        let framing = Framing::of(&head).map_err(|error| failed(error.into()))?;
        debug!(target: "myapp::traffic", status = head.status(), "answer of {}", way.origin.address);
        let home = keeps_connection(&head).then(|| Home {
            pool: self.pool.clone(),
            way,
        });
        let length = framing.length();
        Ok(Answer {
            head,
            length,
            body: Body::new(connection, framing, url.clone(), home),
        })
    }

    /// Asks over a kept connection; `None` where there is none that is still open. A GET may be
    /// sent again (RFC 9110 section 9.2.2), and a server may close a silent connection at any
    /// time (RFC 9112 section 9.3.1).
    async fn ask_kept(&self, way: &Way, request: &[u8]) -> Result<Option<Answered>, Failure> {
        while let Some(connection) = self.pool.take(way) {
            if !connection.is_quiet() {
                continue;
            }
            return match ask(connection, request).await {
                Err(Failure::Closed) => Ok(None),
                answered => answered.map(Some),
            };
        }
        Ok(None)
    }

    async fn connect(&self, way: &Way) -> Result<Box<Connection>, HttpError> {
        let Way {
            origin: Origin { tls, address },
            proxy,
        } = way;
        let secure = if *tls { Some(self.tls().await?) } else { None };
        let limit = self.config.connect_timeout;
        let late = ConnectError::TimedOut {
            address: Address::Tcp(address.clone()),
            limit,
        };
        let opened = timeout(Some(limit), self.open(way, secure)).await;
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

    async fn open(&self, way: &Way, tls: Option<&TlsClient>) -> Result<Stream, HttpError> {
        let (address, names) = (&way.origin.address, &self.names);
        let idle = self.config.idle_timeout;
        let tcp = match &way.proxy {
            None => tunnel::dial(address, names).await?,
            Some(proxy) => tunnel::open(proxy, address, tls.is_some(), names, idle)
                .await
                .map_err(|source| failed(proxy, source))?,
        };
        let Some(tls) = tls else {
            return Ok(Stream::TcpOrUnix(tcp));
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

    /// The files are read once, with the first request that needs them.
    async fn tls(&self) -> Result<&TlsClient, HttpError> {
        let config = self.config.tls.clone();
        Ok(self
            .tls
            .get_or_try_init(|| TlsClient::load(config, &["http/1.1"]))
            .await?)
    }
}

/// Whether requests go to the proxy as a whole, and not through a connection to their host.
fn is_asked_whole(proxy: &Proxy, origin: &Origin) -> bool {
    proxy.kind == Kind::Http && !origin.tls
}

fn failed(proxy: &Proxy, source: ProxyError) -> HttpError {
    HttpError::Proxy {
        proxy: proxy.to_string(),
        source,
    }
}

/// Scheme, host and port of a URL; `None` where it is not http or https.
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

/// The status as http-types knows it: one that it does not know counts as the first of its class
/// (RFC 9110 section 15).
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
    fn the_origin_is_scheme_host_and_port() {
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
    fn a_status_that_surf_does_not_know_counts_as_the_first_of_its_class() {
        for (status, known) in [(206, 206), (299, 200), (399, 300), (430, 400), (520, 500)] {
            assert_eq!(u16::from(status_code(status)), known, "{status}");
        }
    }
}
