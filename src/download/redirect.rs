//! Where a redirect leads, and what may go there.

use percent_encoding::{CONTROLS, percent_encode};
use url::Url;

use crate::download::config::{Config, Downgrade};
use crate::download::error::{DownloadError, RedirectError};
use crate::download::headers::{Header, is_private};
use crate::download::http::shown;
use crate::escape::Escaped;

/// The way of one request through its redirects.
#[derive(Debug)]
pub(super) struct Route {
    url: Url,
    passed: Vec<Url>,
    headers: Vec<(String, String)>,
}

/// Whether an answer of this status sends a GET elsewhere (RFC 9110 section 15.4).
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

impl Route {
    pub(super) fn new(url: Url, config: &Config) -> Self {
        let pair = |header: &Header| (header.name().to_owned(), header.value().to_owned());
        Self { url, passed: Vec::new(), headers: config.headers.iter().map(pair).collect() }
    }

    /// Where the next request goes.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What is sent along.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Whether a redirect has been followed.
    pub(super) fn is_redirected(&self) -> bool {
        !self.passed.is_empty()
    }

    /// Goes where an answer's `Location` says. On another origin the fields that carry
    /// credentials are dropped, and they stay dropped: a stranger may send us back anywhere.
    pub(super) fn follow(
        &mut self,
        location: Option<&[u8]>,
        config: &Config,
    ) -> Result<(), DownloadError> {
        let next = self
            .next(location, config)
            .map_err(|source| DownloadError::Redirect { url: shown(&self.url), source })?;
        if next.origin() != self.url.origin() {
            self.headers.retain(|(name, _)| !is_private(name));
        }
        self.passed.push(std::mem::replace(&mut self.url, next));
        Ok(())
    }

    fn next(&self, location: Option<&[u8]>, config: &Config) -> Result<Url, RedirectError> {
        let location = location.ok_or(RedirectError::NoLocation)?;
        // Real servers send bytes beyond ASCII as they are: the URL has them in percent signs.
        let location = percent_encode(location, CONTROLS).to_string();
        let shortened = || Escaped(location.as_bytes()).to_string();
        let mut next = self.url.join(&location).map_err(|_| RedirectError::Url(shortened()))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(RedirectError::Scheme(shortened()));
        }
        // A server has no business in choosing our user name: what it says is ignored. (An http
        // URL always has a host, so neither call can fail.)
        let _ = next.set_username("");
        let _ = next.set_password(None);
        let downgraded = self.url.scheme() == "https" && next.scheme() == "http";
        if downgraded && config.downgrade == Downgrade::Refused {
            return Err(RedirectError::Downgrade(shown(&next)));
        }
        if next == self.url || self.passed.contains(&next) {
            return Err(RedirectError::Loop(shown(&next)));
        }
        if self.passed.len() == config.max_redirects {
            return Err(RedirectError::TooMany(config.max_redirects));
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(url: &str) -> Route {
        let headers = ["Authorization: a", "Cookie: b", "X-Api-Key: c", "Accept: d"];
        let headers = headers.map(|header| header.parse().unwrap()).into();
        Route::new(Url::parse(url).unwrap(), &Config { headers, ..Config::default() })
    }

    fn names(route: &Route) -> Vec<&str> {
        route.headers().iter().map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn leads(from: &str, location: &[u8], to: &str) {
        let mut route = route(from);
        route.follow(Some(location), &Config::default()).unwrap();
        assert_eq!(route.url().as_str(), to);
    }

    #[track_caller]
    fn refused(from: &str, location: Option<&[u8]>) -> RedirectError {
        let error = route(from).follow(location, &Config::default()).unwrap_err();
        let DownloadError::Redirect { url, source } = error else { panic!("{error:?}") };
        assert_eq!(url, from);
        source
    }

    #[test]
    fn a_location_is_relative_to_where_it_stands() {
        leads("http://a/b/c?d", b"e", "http://a/b/e");
        leads("http://a/b/c", b"/e?f", "http://a/e?f");
        leads("http://a/b", b"//c/d", "http://c/d");
        leads("http://a/", "/\u{e9}".as_bytes(), "http://a/%C3%A9");
        leads("http://a/", b"/\xe9", "http://a/%E9");
        leads("http://a/", b"http://user:secret@b/", "http://b/");
        leads("http://a/", b"https://a/", "https://a/");
    }

    #[test]
    fn what_leads_nowhere_or_astray_is_refused() {
        let scheme = |to: &str| RedirectError::Scheme(to.to_owned());
        assert_eq!(refused("http://a/", Some(b"file:///etc/passwd")), scheme("file:///etc/passwd"));
        assert_eq!(refused("http://a/", Some(b"ftp://a/")), scheme("ftp://a/"));
        assert_eq!(refused("http://a/", Some(b"data:,x")), scheme("data:,x"));
        assert_eq!(refused("http://a/", None), RedirectError::NoLocation);
        assert!(matches!(refused("http://a/", Some(b"http://[")), RedirectError::Url(_)));
        assert!(matches!(refused("https://a/", Some(b"http://a/")), RedirectError::Downgrade(_)));
        assert!(matches!(refused("http://a/", Some(b"/")), RedirectError::Loop(_)));
    }

    #[test]
    fn a_downgrade_is_followed_where_that_is_allowed() {
        let config = Config { downgrade: Downgrade::Followed, ..Config::default() };
        assert!(route("https://a/").follow(Some(b"http://a/"), &config).is_ok());
    }

    #[test]
    fn a_loop_over_several_places_is_seen() {
        let mut route = route("http://a/1");
        route.follow(Some(b"/2"), &Config::default()).unwrap();
        assert!(route.follow(Some(b"/1"), &Config::default()).is_err());
    }

    #[test]
    fn no_more_redirects_are_followed_than_allowed() {
        let mut route = route("http://a/0");
        for hop in 1..=20 {
            route.follow(Some(format!("/{hop}").as_bytes()), &Config::default()).unwrap();
        }
        let error = route.follow(Some(b"/21"), &Config::default()).unwrap_err();
        let DownloadError::Redirect { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source, RedirectError::TooMany(20));
    }

    #[test]
    fn credentials_stay_with_the_first_origin_and_never_come_back() {
        let mut route = route("http://a:1/");
        route.follow(Some(b"/x"), &Config::default()).unwrap();
        assert_eq!(names(&route).len(), 4);
        route.follow(Some(b"http://a:2/"), &Config::default()).unwrap();
        assert_eq!(names(&route), ["Accept"]);
        route.follow(Some(b"http://a:1/y"), &Config::default()).unwrap();
        assert_eq!(names(&route), ["Accept"]);
    }
}
