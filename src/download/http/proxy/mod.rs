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

/// Default port of a proxy over TLS, as in curl.
const DEFAULT_TLS_PORT: u16 = 443;

/// Proxies of a client. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Proxy for `http` URLs. Default: none.
    pub http: ProxySetting,
    /// Proxy for `https` URLs. Default: none.
    pub https: ProxySetting,
    /// Hosts that are contacted without a proxy. Default: none.
    pub no_proxy: NoProxy,
}

impl Proxies {
    /// Returns the proxy for requests to `url`.
    ///
    /// # Errors
    ///
    /// [`InvalidProxy`] if the setting for this scheme cannot be used.
    #[doc(hidden)]
    pub fn for_url(&self, url: &Url) -> Result<Option<&Proxy>, &InvalidProxy> {
        if self.no_proxy.matches(url) {
            return Ok(None);
        }
        let setting = if url.scheme() == "https" {
            &self.https
        } else {
            &self.http
        };
        match setting {
            ProxySetting::Direct => Ok(None),
            ProxySetting::Proxy(proxy) => Ok(Some(proxy)),
            ProxySetting::Invalid(invalid) => Err(invalid),
        }
    }
}

/// Proxy for the URLs of one scheme.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxySetting {
    /// No proxy.
    #[default]
    Direct,
    /// A proxy.
    Proxy(Proxy),
    /// A setting that cannot be used. Requests that need it fail; others are not affected.
    Invalid(InvalidProxy),
}

/// Setting that is not a [`Proxy`]. The message contains its name, and no part of its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse proxy in {name}")]
pub struct InvalidProxy {
    /// Name of the setting, such as `HTTPS_PROXY`.
    pub name: String,
    /// The cause.
    pub source: ParseProxyError,
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
    /// HTTP over TLS (RFC 9110 section 4.2.2).
    Https,
    /// SOCKS5 (RFC 1928); names are resolved by the client.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// Error of parsing a [`Proxy`]. The message contains no part of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseProxyError {
    /// The text is not a URL.
    #[error("not of the form [SCHEME://][USER:PASSWORD@]HOST[:DEFAULT_PORT]")]
    Form,
    /// The scheme is not supported.
    #[error("only http, https, socks5 and socks5h proxies are supported")]
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
            Kind::Http | Kind::Https => Self {
                given_authorization: given.map(str::to_owned),
                ..self
            },
            Kind::Socks5 | Kind::Socks5h => self,
        }
    }

    /// Returns the value of `Proxy-Authorization` that replaces the own credentials.
    pub(super) fn given_authorization(&self) -> Option<&str> {
        self.given_authorization.as_deref()
    }
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    /// Parses `[SCHEME://][USER:PASSWORD@]HOST[:DEFAULT_PORT]`, with the defaults `http` and 1080,
    /// or 443 for `https`. `socks` is another name of `socks5`: desktops set it.
    fn from_str(text: &str) -> Result<Self, ParseProxyError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => Kind::Http,
            "https" => Kind::Https,
            "socks" | "socks5" => Kind::Socks5,
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
        let default_port = match kind {
            Kind::Https => DEFAULT_TLS_PORT,
            Kind::Http | Kind::Socks5 | Kind::Socks5h => DEFAULT_PORT,
        };
        let address = format!("{host}:{}", url.port().unwrap_or(default_port)).parse()?;
        let basic_auth = BasicAuth::from_url(&url)?;
        let long =
            |basic_auth: &BasicAuth| basic_auth.user().len().max(basic_auth.password().len()) > 255;
        let is_socks = matches!(kind, Kind::Socks5 | Kind::Socks5h);
        if is_socks && basic_auth.as_ref().is_some_and(long) {
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
            Kind::Https => "https",
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
            ("socks://h", "socks5://h:1080", None),
            ("https://h", "https://h:443", None),
            ("https://h:8443", "https://h:8443", None),
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
            http: ProxySetting::Proxy("a".parse().unwrap()),
            https: ProxySetting::Proxy("b".parse().unwrap()),
            no_proxy: "x.example".into(),
        };
        let of = |url: &str| {
            let proxy = proxies.for_url(&url.parse().unwrap()).unwrap();
            proxy.map(Proxy::to_string)
        };
        assert_eq!(of("http://h/").as_deref(), Some("http://a:1080"));
        assert_eq!(of("https://h/").as_deref(), Some("http://b:1080"));
        assert_eq!(of("https://x.example:8443/"), None);
    }

    #[test]
    fn invalid_setting_affects_its_scheme_only() {
        let invalid = InvalidProxy {
            name: "HTTPS_PROXY".into(),
            source: ParseProxyError::Scheme,
        };
        let proxies = Proxies {
            https: ProxySetting::Invalid(invalid.clone()),
            no_proxy: "x.example".into(),
            ..Proxies::default()
        };
        for (url, proxy) in [
            ("http://h/", Ok(None)),
            ("https://x.example/", Ok(None)),
            ("https://h/", Err(&invalid)),
        ] {
            assert_eq!(proxies.for_url(&url.parse().unwrap()), proxy, "{url}");
        }
    }
}
