//! Redirects, and the header fields that may be sent to their targets.

use percent_encoding::{CONTROLS, percent_encode};
use url::Url;

use crate::download::config::{Config, HttpsDowngrade};
use crate::download::error::{Error, RedirectError};
use crate::download::http::error::redact_query;
use crate::download::http::{BasicAuth, redact_url};
use crate::download::input::item::{Source, mask_userinfo};
use crate::download::request::credentials::{Authorization, Scope};
use crate::download::request::headers::{Header, is_secret};
use crate::download::store::content_disposition::file_name;
use crate::escape::Escaped;
use crate::limits::semaphore::Permit;

/// State of one request and its redirects.
pub(crate) struct RedirectChain {
    url: Url,
    login: Option<BasicAuth>,
    /// Zone of the address in `url`.
    zone: Option<String>,
    /// Number of redirects followed.
    hops: usize,
    /// Whether any redirect led to another origin.
    left_origin: bool,
    /// Header fields given by the user.
    given: Vec<Header>,
    headers: Vec<(String, String)>,
    /// User name and password for the next request.
    password: Option<BasicAuth>,
    permit: Option<Permit>,
    /// File name of the last redirect that has one.
    disposition: Option<String>,
}

impl RedirectChain {
    /// Creates the state for the first URL. `own` are the header fields of this item.
    ///
    /// # Errors
    ///
    /// [`Error::Netrc`] if the netrc entry for the host cannot be sent.
    pub(crate) fn new(source: Source, own: &[Header], config: &Config) -> Result<Self, Error> {
        let Source { url, login, zone } = source;
        let is_own = |name: &str| own.iter().any(|own| own.name().eq_ignore_ascii_case(name));
        let common = config
            .headers
            .iter()
            .filter(|header| !is_own(header.name()));
        let given = own.iter().chain(common).cloned().collect();
        let mut route = Self {
            url,
            login,
            zone,
            hops: 0,
            left_origin: false,
            given,
            headers: Vec::new(),
            password: None,
            permit: None,
            disposition: None,
        };
        route.prepare(config)?;
        Ok(route)
    }

    /// Returns the URL of the next request.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the zone of the address in the URL of the next request.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns the user name and password for the next request, which its headers do not contain.
    pub(crate) fn password(&self) -> Option<&BasicAuth> {
        self.password.as_ref()
    }

    /// Returns the header fields of the next request.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Returns whether a redirect was followed.
    pub(crate) fn is_redirected(&self) -> bool {
        self.hops > 0
    }

    /// Returns the file name of the last redirect that has one, decoded but not made safe.
    pub(crate) fn disposition(&self) -> Option<&str> {
        self.disposition.as_deref()
    }

    /// Records the `Content-Disposition` of a redirect.
    pub(crate) fn record_disposition(&mut self, value: Option<&[u8]>) {
        self.disposition = value.and_then(file_name).or(self.disposition.take());
    }

    /// Holds a connection permit for the current host until the next redirect or the end.
    pub(crate) fn hold_permit(&mut self, permit: Option<Permit>) {
        self.permit = permit;
    }

    /// Follows `Location`. On another origin, fields with credentials are dropped, and they stay
    /// dropped, because that origin may redirect anywhere. An origin still receives its own
    /// netrc entry.
    pub(crate) fn follow(&mut self, location: Option<&[u8]>, config: &Config) -> Result<(), Error> {
        let next = self
            .next(location, config)
            .map_err(|source| Error::Redirect {
                url: redact_url(&self.url),
                source,
            })?;
        self.left_origin |= next.origin() != self.url.origin();
        // A server does not know the zones of its clients.
        if next.host() != self.url.host() {
            self.zone = None;
        }
        self.permit = None;
        self.url = next;
        self.hops += 1;
        self.prepare(config)
    }

    /// Sets the header fields and the password for the current origin.
    fn prepare(&mut self, config: &Config) -> Result<(), Error> {
        let trusted = !self.left_origin || config.credentials.scope == Scope::EveryOrigin;
        // `Host` is only valid for the first host.
        let fits = |name: &str| {
            (trusted || !is_secret(name))
                && !(self.left_origin && name.eq_ignore_ascii_case("host"))
        };
        let given = self.given.iter().filter(|header| fits(header.name()));
        let mut fields: Vec<_> = given
            .map(|header| (header.name().to_owned(), header.value().to_owned()))
            .collect();
        if !has_field(&fields, "Cookie") {
            let given = if trusted {
                config.credentials.cookie()
            } else {
                None
            };
            let set = config.credentials.jar.field(&self.url);
            let all: Vec<_> = given.into_iter().chain(set).collect();
            if !all.is_empty() {
                fields.push(("Cookie".to_owned(), all.join("; ")));
            }
        }
        self.password = None;
        if !has_field(&fields, "Authorization") {
            let login = self.login.as_ref();
            match config
                .credentials
                .authorization(&self.url, login, trusted)?
            {
                Some(Authorization::Basic(login)) => self.password = Some(login),
                Some(Authorization::Bearer(token)) => {
                    fields.push(("Authorization".to_owned(), token.to_bearer()));
                }
                None => {}
            }
        }
        self.headers = fields;
        Ok(())
    }

    fn next(&self, location: Option<&[u8]>, config: &Config) -> Result<Url, RedirectError> {
        let location = location.ok_or(RedirectError::NoLocation)?;
        // Some servers send unescaped non-ASCII bytes.
        let location = percent_encode(location, CONTROLS).to_string();
        let redacted = mask_userinfo(&location);
        let shortened = || Escaped(redact_query(&redacted).as_bytes()).to_string();
        let mut next = self
            .url
            .join(&location)
            .map_err(|_| RedirectError::Url(shortened()))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(RedirectError::Scheme(shortened()));
        }
        // Credentials chosen by the server are ignored. An http URL always has a host, so neither
        // call can fail.
        let _ = next.set_username("");
        let _ = next.set_password(None);
        let downgraded = self.url.scheme() == "https" && next.scheme() == "http";
        if downgraded && config.redirect.https_downgrade == HttpsDowngrade::Refuse {
            return Err(RedirectError::Downgrade(redact_url(&next)));
        }
        // The same URL again is no error: the server may have set a cookie.
        if self.hops == config.redirect.max_redirects {
            return Err(RedirectError::TooMany(config.redirect.max_redirects));
        }
        Ok(next)
    }
}

fn has_field(fields: &[(String, String)], name: &str) -> bool {
    fields
        .iter()
        .any(|(given, _)| given.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::config::RedirectPolicy;
    use crate::download::request::credentials::{Authorization, Credentials};

    fn config() -> Config {
        let headers = [
            "Authorization: a",
            "Cookie: b",
            "X-Api-Key: c",
            "Accept: d",
            "Host: e",
        ];
        let headers = headers.map(|header| header.parse().unwrap()).into();
        Config {
            headers,
            ..Config::default()
        }
    }

    fn source(url: &str) -> Source {
        Source::parse(url).unwrap()
    }

    fn route(url: &str) -> RedirectChain {
        RedirectChain::new(source(url), &[], &config()).unwrap()
    }

    fn names(route: &RedirectChain) -> Vec<&str> {
        route
            .headers()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[track_caller]
    fn leads(from: &str, location: &[u8], to: &str) {
        let mut route = route(from);
        route.follow(Some(location), &Config::default()).unwrap();
        assert_eq!(route.url().as_str(), to);
    }

    #[track_caller]
    fn refused(from: &str, location: Option<&[u8]>) -> RedirectError {
        let error = route(from)
            .follow(location, &Config::default())
            .unwrap_err();
        let Error::Redirect { url, source } = error else {
            panic!("{error:?}")
        };
        assert_eq!(url, from);
        source
    }

    #[test]
    fn location_is_resolved_against_the_current_url() {
        leads("http://a/b/c?d", b"e", "http://a/b/e");
        leads("http://a/b/c", b"/e?f", "http://a/e?f");
        leads("http://a/b", b"//c/d", "http://c/d");
        leads("http://a/", "/\u{e9}".as_bytes(), "http://a/%C3%A9");
        leads("http://a/", b"/\xe9", "http://a/%E9");
        leads("http://a/", b"http://user:secret@b/", "http://b/");
        leads("http://a/", b"https://a/", "https://a/");
    }

    #[test]
    fn invalid_redirects_are_rejected() {
        let scheme = |to: &str| RedirectError::Scheme(to.to_owned());
        assert_eq!(
            refused("http://a/", Some(b"file:///etc/passwd")),
            scheme("file:///etc/passwd")
        );
        assert_eq!(refused("http://a/", Some(b"ftp://a/")), scheme("ftp://a/"));
        assert_eq!(refused("http://a/", Some(b"data:,x")), scheme("data:,x"));
        assert_eq!(refused("http://a/", None), RedirectError::NoLocation);
        assert!(matches!(
            refused("http://a/", Some(b"http://[")),
            RedirectError::Url(_)
        ));
        assert!(matches!(
            refused("https://a/", Some(b"http://a/")),
            RedirectError::Downgrade(_)
        ));
    }

    #[test]
    fn downgrade_is_followed_if_configured() {
        let config = Config {
            redirect: RedirectPolicy {
                https_downgrade: HttpsDowngrade::Follow,
                ..RedirectPolicy::default()
            },
            ..Config::default()
        };
        assert!(
            route("https://a/")
                .follow(Some(b"http://a/"), &config)
                .is_ok()
        );
    }

    #[test]
    fn redirects_are_limited() {
        let mut route = route("http://a/0");
        for hop in 1..=20 {
            let to = if hop < 10 {
                "/0".to_owned()
            } else {
                format!("/{hop}")
            };
            route
                .follow(Some(to.as_bytes()), &Config::default())
                .unwrap();
        }
        let error = route.follow(Some(b"/21"), &Config::default()).unwrap_err();
        let Error::Redirect { source, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(source, RedirectError::TooMany(20));
    }

    #[test]
    fn credentials_are_sent_to_the_first_origin_only() {
        let mut route = route("http://a:1/");
        let config = config();
        route.follow(Some(b"/x"), &config).unwrap();
        assert_eq!(names(&route).len(), 5);
        route.follow(Some(b"http://a:2/"), &config).unwrap();
        assert_eq!(names(&route), ["Accept"]);
        route.follow(Some(b"http://a:1/y"), &config).unwrap();
        assert_eq!(names(&route), ["Accept"]);
    }

    #[test]
    fn trusted_origins_receive_all_fields_but_host() {
        let mut config = config();
        config.credentials.scope = Scope::EveryOrigin;
        let mut route = route("http://a:1/");
        route.follow(Some(b"http://b/"), &config).unwrap();
        assert_eq!(
            names(&route),
            ["Authorization", "Cookie", "X-Api-Key", "Accept"]
        );
    }

    #[test]
    fn item_header_replaces_global_header() {
        let own = ["accept: x", "Cookie: y", "X-Own: z"].map(|header| header.parse().unwrap());
        let mut route = RedirectChain::new(source("http://a/"), &own, &config()).unwrap();
        assert_eq!(
            names(&route),
            [
                "accept",
                "Cookie",
                "X-Own",
                "Authorization",
                "X-Api-Key",
                "Host"
            ]
        );
        route.follow(Some(b"http://b/"), &config()).unwrap();
        assert_eq!(names(&route), ["accept", "X-Own"]);
    }

    #[test]
    fn authorization_follows_its_origin() {
        let credentials = Credentials {
            authorization: Some(Authorization::Bearer("t".parse().unwrap())),
            cookies: vec!["c=d".parse().unwrap()],
            netrc: "machine b login b password b\ndefault login x password x"
                .parse()
                .ok(),
            ..Credentials::default()
        };
        let config = Config {
            credentials,
            ..Config::default()
        };
        let own = "o:o".parse().ok();
        let login = |text: &str| text.parse::<BasicAuth>().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());

        let mut route = RedirectChain::new(
            Source {
                login: own,
                ..source("http://a/")
            },
            &[],
            &config,
        )
        .unwrap();
        assert_eq!(route.headers(), [pair("Cookie", "c=d")]);
        assert_eq!(route.password(), Some(&login("o:o")));
        route.follow(Some(b"http://b/"), &config).unwrap();
        assert!(route.headers().is_empty());
        assert_eq!(route.password(), Some(&login("b:b")));
        route.follow(Some(b"http://c/"), &config).unwrap();
        assert!(route.headers().is_empty());
        assert_eq!(route.password(), None);

        let route = RedirectChain::new(source("http://a/"), &[], &config).unwrap();
        assert_eq!(route.headers()[1], pair("Authorization", "Bearer t"));
    }
}
