//! Proxy selection by scheme and host, with curl's rules.

mod no_proxy;
pub(super) mod socks;

use std::fmt;
use std::str::FromStr;

use url::Url;

pub use no_proxy::NoProxy;

use super::basic_auth::{BasicAuth, BasicAuthError};
use crate::net::address::{AddressError, Endpoint};

/// Default port of a proxy, as in curl.
const DEFAULT_PORT: u16 = 1080;

/// Proxies of a client. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Proxy for `http` URLs. Default: none.
    pub http: Option<Proxy>,
    /// Proxy for `https` URLs. Default: none.
    pub https: Option<Proxy>,
    /// Hosts that are contacted without a proxy. Default: none.
    pub no_proxy: NoProxy,
}

impl Proxies {
    /// Returns the proxy for requests to `url`.
    pub fn for_url(&self, url: &Url) -> Option<&Proxy> {
        if self.no_proxy.matches(url) {
            return None;
        }
        let proxy = if url.scheme() == "https" {
            &self.https
        } else {
            &self.http
        };
        proxy.as_ref()
    }
}

/// Proxy protocol, address and credentials. `Display` omits and `Debug` redacts the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) kind: Kind,
    pub(super) address: Endpoint,
    pub(super) basic_auth: Option<BasicAuth>,
    /// Value of `Proxy-Authorization` in the fields of a request.
    given_authorization: Option<String>,
}

/// Proxy protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP: absolute-form requests for `http` URLs, `CONNECT` for `https` URLs.
    Http,
    /// SOCKS5 (RFC 1928); names are resolved by the client.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// Error of parsing a [`Proxy`]. The message contains no part of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyError {
    /// The text is not a URL.
    #[error("not of the form [SCHEME://][USER:PASSWORD@]HOST[:DEFAULT_PORT]")]
    Form,
    /// The scheme is not supported.
    #[error("only http, socks5 and socks5h proxies are supported")]
    Scheme,
    /// The host or port is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The user name or password is invalid.
    #[error(transparent)]
    BasicAuth(#[from] BasicAuthError),
    /// The user name or password exceeds the SOCKS5 limit of 255 bytes (RFC 1929 section 2).
    #[error("a user name or password for SOCKS5 is longer than 255 bytes")]
    TooLong,
}

impl Proxy {
    /// Returns the proxy with a value of `Proxy-Authorization` that replaces the own credentials.
    /// SOCKS has no such field.
    pub(super) fn with_authorization(self, given: Option<&str>) -> Self {
        match self.kind {
            Kind::Http => Self {
                given_authorization: given.map(str::to_owned),
                ..self
            },
            Kind::Socks5 | Kind::Socks5h => self,
        }
    }

    /// Returns the value of `Proxy-Authorization`.
    pub(super) fn authorization(&self) -> Option<String> {
        let own = || self.basic_auth.as_ref().map(BasicAuth::to_basic);
        self.given_authorization.clone().or_else(own)
    }
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    /// Parses `[SCHEME://][USER:PASSWORD@]HOST[:DEFAULT_PORT]`, with the defaults
    /// `http` and 1080.
    fn from_str(text: &str) -> Result<Self, ParseProxyError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => Kind::Http,
            "socks5" => Kind::Socks5,
            "socks5h" => Kind::Socks5h,
            _ => return Err(ParseProxyError::Scheme),
        };
        // A scheme without default port: with `http` an explicit port 80 would be dropped.
        let url = Url::parse(&format!("proxy://{rest}")).map_err(|_| ParseProxyError::Form)?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(ParseProxyError::Form)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ParseProxyError::Form);
        }
        let address = format!("{host}:{}", url.port().unwrap_or(DEFAULT_PORT)).parse()?;
        let basic_auth = BasicAuth::from_url(&url)?;
        let long =
            |basic_auth: &BasicAuth| basic_auth.user().len().max(basic_auth.password().len()) > 255;
        if kind != Kind::Http && basic_auth.as_ref().is_some_and(long) {
            return Err(ParseProxyError::TooLong);
        }
        Ok(Self {
            kind,
            address,
            basic_auth,
            given_authorization: None,
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_secret = self.basic_auth.is_some() || self.given_authorization.is_some();
        write!(f, "{self}{}", if has_secret { " ***" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_parsed_with_defaults() {
        for (text, shown, basic_auth) in [
            ("proxy", "http://proxy:1080", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("http://proxy:80/", "http://proxy:80", None),
            (
                "HTTP://u:p%40@10.0.0.1:8080",
                "http://10.0.0.1:8080",
                Some("u:p@"),
            ),
            ("socks5://[::1]", "socks5://[::1]:1080", None),
            ("socks5h://u:@h:1", "socks5h://h:1", Some("u:")),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert_eq!(
                proxy.basic_auth,
                basic_auth.map(|basic_auth| basic_auth.parse().unwrap()),
                "{text}"
            );
        }
        let given = Proxy::from_str("h").unwrap();
        let given = given.with_authorization(Some("secret"));
        assert_eq!(format!("{given:?}"), "http://h:1080 ***");
        let secret: Proxy = "http://secret:secret@h".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "http://h:1080 ***");
    }

    #[test]
    fn invalid_proxy_is_rejected() {
        let long = format!("socks5://u:{}@h", "p".repeat(256));
        for (text, error) in [
            ("", ParseProxyError::Form),
            ("http://", ParseProxyError::Form),
            ("h:99999", ParseProxyError::Form),
            ("http://h/path", ParseProxyError::Form),
            ("http://h?x", ParseProxyError::Form),
            ("https://h", ParseProxyError::Scheme),
            ("socks4://h", ParseProxyError::Scheme),
            (
                "http://a%3Ab:c@h",
                ParseProxyError::BasicAuth(BasicAuthError::ColonInUser),
            ),
            ("http://h%20h", ParseProxyError::Address(AddressError::Name)),
            (&long, ParseProxyError::TooLong),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    #[test]
    fn proxy_is_selected_by_scheme() {
        let proxies = Proxies {
            http: "a".parse().ok(),
            https: "b".parse().ok(),
            no_proxy: "x.example".into(),
        };
        let of = |url: &str| proxies.for_url(&url.parse().unwrap()).map(Proxy::to_string);
        assert_eq!(of("http://h/").as_deref(), Some("http://a:1080"));
        assert_eq!(of("https://h/").as_deref(), Some("http://b:1080"));
        assert_eq!(of("https://x.example:8443/"), None);
    }
}
