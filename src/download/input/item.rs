//! Items to download.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::checksum::Checksum;
use crate::download::error::{FailedItem, UrlError};
use crate::download::http::BasicAuth;
use crate::download::request::headers::Header;

/// File to download.
#[derive(Debug)]
pub struct Item {
    /// Source; the file is named after its URL.
    pub source: Source,
    /// Alternative sources of the same bytes, tried in order after the sources before them have
    /// failed. Bytes of several sources are combined only if they are of the same version.
    pub mirrors: Vec<Source>,
    /// Output.
    pub target: Target,
    /// Directory of the output, relative to that of the run; empty for that directory itself.
    pub dir: PathBuf,
    /// Header fields added to its requests. Each replaces the fields of that name in
    /// [`Config::headers`].
    ///
    /// [`Config::headers`]: crate::download::Config::headers
    pub headers: Vec<Header>,
    /// Expected checksum. Default: the entry in [`Config::checksums`].
    ///
    /// [`Config::checksums`]: crate::download::Config::checksums
    pub checksum: Option<Checksum>,
}

/// Source of a file.
#[derive(Debug, Clone)]
pub struct Source {
    /// URL with the scheme http or https. Its user name and password are not sent: see `login`.
    pub url: Url,
    /// Credentials that replace [`Credentials`](crate::download::Credentials) for this source.
    pub login: Option<BasicAuth>,
    /// Zone of the IPv6 address in `url`: the name or index of an interface (RFC 4007 section 11).
    /// It is not sent to the server.
    pub zone: Option<String>,
}

/// Output of an [`Item`].
#[non_exhaustive]
pub enum Target {
    /// File named after the URL. If the name is taken, see
    /// [`OnConflict`](crate::download::OnConflict).
    Named,
    /// File of this path, relative to the directory. If the name is taken, see
    /// [`OnConflict`](crate::download::OnConflict). A directory, or a path that ends with a slash,
    /// is the directory of a file named after the URL. A device, a FIFO or a descriptor
    /// (`/dev/fd/3`) is written into.
    File(PathBuf),
    /// Writer that receives the bytes in order.
    Writer(Box<dyn Write + Send>),
}

/// Plan for an [`Item`] (dry run).
#[derive(Debug)]
pub struct PlannedDownload {
    /// Source URL.
    pub url: Url,
    /// Output path; `None` for a writer.
    pub path: Option<PathBuf>,
    /// Whether the download would be skipped because the file exists.
    pub skipped: bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("Named"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

impl Item {
    /// Parses a URL like [`Source::parse`]. The file is named after it.
    ///
    /// ```
    /// use myapp::download::{Item, Source};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let item = Item::parse("https://example.com/file.iso")?
    ///     .with_mirror(Source::parse("https://mirror.example/file.iso")?)
    ///     .with_file("images/file.iso")
    ///     .with_header("Accept-Language: en".parse()?)
    ///     .with_checksum("md5=d41d8cd98f00b204e9800998ecf8427e".parse()?);
    /// # assert_eq!(item.mirrors.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Source::parse`].
    pub fn parse(text: &str) -> Result<Self, FailedItem> {
        Source::parse(text).map(Self::from)
    }

    /// Adds an alternative source.
    pub fn with_mirror(mut self, mirror: Source) -> Self {
        self.mirrors.push(mirror);
        self
    }

    /// Sets the path of the output, as [`Target::File`].
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.target = Target::File(path.into());
        self
    }

    /// Sets a writer as the output.
    pub fn with_writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.target = Target::Writer(Box::new(writer));
        self
    }

    /// Sets the directory of the output.
    pub fn with_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Adds a header field.
    pub fn with_header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// Sets the expected checksum.
    pub fn with_checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
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
    /// Parses a URL; without `://`, the scheme is https. A user name and password in it become
    /// the login and are removed from the URL, and so is the zone of an IPv6 address: `[fe80::1%25eth0]`
    /// (RFC 6874) or `[fe80::1%eth0]`.
    ///
    /// # Errors
    ///
    /// [`Error::Url`](crate::download::Error::Url) for an invalid URL, another scheme, or a user
    /// name or password that cannot be sent.
    pub fn parse(text: &str) -> Result<Self, FailedItem> {
        let failed = |source: UrlError| FailedItem {
            url: mask_userinfo(text),
            source: source.into(),
        };
        let (text, zone) = match split_zone(text) {
            Some((text, zone)) => (Cow::from(text), Some(zone)),
            None => (Cow::from(text), None),
        };
        let mut url = parse_url(&text).map_err(failed)?;
        let login = BasicAuth::from_url(&url);
        let login = login.map_err(|source| failed(UrlError::Userinfo { source }))?;
        // An http URL always has a host, so neither call can fail.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, login, zone })
    }
}

/// Splits the zone of an IPv6 address off a URL: after `%25`, or after `%`, as people type it.
/// Returns `None` without a zone.
fn split_zone(text: &str) -> Option<(String, String)> {
    let (scheme, rest) = text.split_at(after_scheme(text));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let (inner, _) = authority[host..].strip_prefix('[')?.split_once(']')?;
    let (address, written) = inner.split_once('%').filter(|(_, zone)| !zone.is_empty())?;
    let zone = written.strip_prefix("25").filter(|zone| !zone.is_empty());
    let zone = percent_decode_str(zone.unwrap_or(written)).decode_utf8_lossy();
    let before = &rest[..host];
    let after = &rest[host + 1 + inner.len()..];
    Some((
        format!("{scheme}{before}[{address}{after}"),
        zone.into_owned(),
    ))
}

fn parse_url(text: &str) -> Result<Url, UrlError> {
    let parsed = match after_scheme(text) {
        0 => Url::parse(&format!("https://{text}")),
        _ => Url::parse(text),
    };
    let url = parsed.map_err(|source| UrlError::Parse { source })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::UnsupportedScheme {
            scheme: url.scheme().to_owned(),
        });
    }
    Ok(url)
}

/// Returns the offset after `SCHEME://`, or 0 without a scheme: `://` may also be part of a query.
fn after_scheme(text: &str) -> usize {
    let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let scheme = text.split("://").next().unwrap_or_default();
    let is_scheme = scheme.len() < text.len() && scheme.trim_start().chars().all(is_scheme_char);
    if is_scheme { scheme.len() + 3 } else { 0 }
}

/// Replaces the user name and password of a text by `***`, even if it is not a URL.
pub(crate) fn mask_userinfo(text: &str) -> String {
    let (scheme, rest) = text.split_at(after_scheme(text));
    format!("{scheme}{}", mask_authority(rest))
}

/// Replaces the user name and password at the start of a text by `***`.
pub(super) fn mask_authority(rest: &str) -> Cow<'_, str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("***{}", &rest[at..]).into(),
        None => rest.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::error::Error;

    #[test]
    fn default_scheme_is_https() {
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
    fn zone_of_an_address_is_split_off() {
        for (text, url, zone) in [
            (
                "http://[fe80::1%25eth0]:80/f%25",
                "http://[fe80::1]/f%25",
                Some("eth0"),
            ),
            (
                "http://u:%25@[fe80::1%25a%2Db]/",
                "http://[fe80::1]/",
                Some("a-b"),
            ),
            (
                "http://[fe80::1%2]/?[%1]",
                "http://[fe80::1]/?[%1]",
                Some("2"),
            ),
            ("[fe80::1%25]", "https://[fe80::1]/", Some("25")),
            ("http://[::1]/%25]", "http://[::1]/%25]", None),
        ] {
            let source = Source::parse(text).unwrap();
            assert_eq!(
                (source.url.as_str(), source.zone.as_deref()),
                (url, zone),
                "{text}"
            );
        }
        for text in ["http://[fe80::1%]/", "http://[%25lo]/", "http://a%25lo]/"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unsupported_urls_are_rejected() {
        let error = |text| Source::parse(text).unwrap_err().source;
        for text in ["", "http://", "http://a b/", "http://[::1/"] {
            assert!(
                matches!(error(text), Error::Url(UrlError::Parse { .. })),
                "{text}"
            );
        }
        for text in ["ftp://a/f", "file:///etc/passwd"] {
            assert!(
                matches!(error(text), Error::Url(UrlError::UnsupportedScheme { .. })),
                "{text}"
            );
        }
        let login = error("http://user:se%0Acret@a/f");
        assert!(
            matches!(login, Error::Url(UrlError::Userinfo { .. })),
            "{login:?}"
        );
    }

    #[test]
    fn userinfo_is_removed_and_masked() {
        let source = Source::parse("user:se@cret@a/f").unwrap();
        assert_eq!(
            (source.url.as_str(), source.login),
            ("https://a/f", "user:se@cret".parse().ok())
        );
        for (text, masked) in [
            ("ftp://user:secret@a/f@g", "ftp://***@a/f@g"),
            ("user:se@cret@a b", "***@a b"),
            ("user:secret@a b/?u=http://x", "***@a b/?u=http://x"),
            ("ftp://user:secret@a:x/", "ftp://***@a:x/"),
        ] {
            assert_eq!(Source::parse(text).unwrap_err().url, masked);
        }
    }
}
