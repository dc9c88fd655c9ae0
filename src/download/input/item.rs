//! What is to be fetched, and where it goes.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use url::Url;

use crate::download::error::DownloadError;
use crate::download::http::Login;
use crate::download::report::Failure;
use crate::download::request::headers::Header;
use crate::download::store::checksum::Checksum;

/// One file to fetch.
#[derive(Debug)]
pub struct Item {
    /// Where it comes from, and what it is named after.
    pub source: Source,
    /// Where the same bytes are to be had too: each is asked, in this order, when those before it
    /// have failed for good. Bytes of two are only put together where they are of one version.
    pub mirrors: Vec<Source>,
    /// Where it goes.
    pub target: Target,
    /// The folder of the `target`, relative to the run's; empty for that itself.
    pub dir: PathBuf,
    /// Header fields that are added to its requests; each counts instead of those of its name in
    /// [`Config::headers`].
    ///
    /// [`Config::headers`]: crate::download::Config::headers
    pub headers: Vec<Header>,
    /// What its bytes are to add up to; if there is none, [`Config::checksums`] counts.
    ///
    /// [`Config::checksums`]: crate::download::Config::checksums
    pub checksum: Option<Checksum>,
}

/// Where a file comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its URL; http or https. A user name or password in it is not sent: those are the `login`.
    pub url: Url,
    /// Who asks for it, where it is somebody else than
    /// [`Credentials`](crate::download::Credentials) say.
    pub login: Option<Login>,
}

/// Where the bytes of an [`Item`] go.
pub enum Target {
    /// To a file in the folder, named after the URL; where that name is taken, to the next free
    /// one (`f.1`).
    Named,
    /// To the file of this path, taken as it is, relative to the folder; where a file is
    /// there, to the next free name. What is neither a file nor a folder (`/dev/null`, a FIFO) is
    /// written into.
    File(PathBuf),
    /// Into this writer, as the bytes come.
    Sink(Box<dyn Write + Send>),
}

/// What a run would do with an [`Item`].
#[derive(Debug)]
pub struct Foreseen {
    /// Where it would come from.
    pub url: Url,
    /// Where it would go; none for what goes into a writer.
    pub path: Option<PathBuf>,
    /// Whether nothing would be fetched, because a file is there.
    pub skipped: bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("Named"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Sink(_) => f.write_str("Sink"),
        }
    }
}

impl Item {
    /// Reads a URL as [`Source::parse`] does; the file is to be saved under its own name.
    ///
    /// # Errors
    ///
    /// As [`Source::parse`].
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Source::parse(text).map(Self::from)
    }
}

impl From<Source> for Item {
    fn from(source: Source) -> Self {
        Self {
            source,
            mirrors: Vec::new(),
            target: Target::Named,
            dir: PathBuf::new(),
            headers: Vec::new(),
            checksum: None,
        }
    }
}

impl Source {
    /// Reads a URL as a person types it (without `://`, `https://` is meant). A user name and
    /// password in it become the login, and are hidden from whoever is shown the URL.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Url`] for what is no URL, [`DownloadError::Scheme`] for one that is
    /// neither http nor https, [`DownloadError::Userinfo`] for one whose user name or password
    /// cannot be sent.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let failed = |source| Failure {
            url: hide_userinfo(text),
            source,
        };
        let mut url = parse_url(text).map_err(failed)?;
        let login = Login::of_url(&url);
        let login = login.map_err(|source| failed(DownloadError::Userinfo { source }))?;
        // An http URL always has a host, so neither call can fail.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, login })
    }
}

fn parse_url(text: &str) -> Result<Url, DownloadError> {
    let parsed = match after_scheme(text) {
        0 => Url::parse(&format!("https://{text}")),
        _ => Url::parse(text),
    };
    let url = parsed.map_err(|source| DownloadError::Url { source })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(DownloadError::Scheme {
            scheme: url.scheme().to_owned(),
        });
    }
    Ok(url)
}

/// Where what follows on `SCHEME://` begins; 0 without a scheme: `://` may also stand in a query.
fn after_scheme(text: &str) -> usize {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let scheme = text.split("://").next().unwrap_or_default();
    let is_scheme = scheme.len() < text.len() && scheme.trim_start().chars().all(is_of_scheme);
    if is_scheme { scheme.len() + 3 } else { 0 }
}

/// The text with `***` for a user name and password, also where it is no URL.
fn hide_userinfo(text: &str) -> String {
    let (scheme, rest) = text.split_at(after_scheme(text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_scheme_means_https() {
        for (text, url) in [
            ("http://a/f", "http://a/f"),
            ("HTTPS://A/f", "https://a/f"),
            ("a.example/f?u=http:x", "https://a.example/f?u=http:x"),
            ("a.example/f?u=http://x", "https://a.example/f?u=http://x"),
            ("localhost:8000/f", "https://localhost:8000/f"),
        ] {
            assert_eq!(Source::parse(text).unwrap().url.as_str(), url, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_refused_with_its_reason() {
        let error = |text| Source::parse(text).unwrap_err().source;
        for text in ["", "http://", "http://a b/", "http://[::1/"] {
            assert!(matches!(error(text), DownloadError::Url { .. }), "{text}");
        }
        for text in ["ftp://a/f", "file:///etc/passwd"] {
            assert!(
                matches!(error(text), DownloadError::Scheme { .. }),
                "{text}"
            );
        }
        let login = error("http://user:se%0Acret@a/f");
        assert!(matches!(login, DownloadError::Userinfo { .. }), "{login:?}");
    }

    #[test]
    fn a_password_leaves_the_url_and_is_not_shown() {
        let source = Source::parse("user:se@cret@a/f").unwrap();
        assert_eq!(
            (source.url.as_str(), source.login),
            ("https://a/f", "user:se@cret".parse().ok())
        );
        for (text, shown) in [
            ("ftp://user:secret@a/f@g", "ftp://***@a/f@g"),
            ("user:se@cret@a b", "***@a b"),
            ("user:secret@a b/?u=http://x", "***@a b/?u=http://x"),
            ("ftp://user:secret@a:x/", "ftp://***@a:x/"),
        ] {
            assert_eq!(Source::parse(text).unwrap_err().url, shown);
        }
    }
}
