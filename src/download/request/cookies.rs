//! Cookies set by servers during a run (RFC 6265), and the Netscape file format.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use cookie_store::{Cookie, CookieDomain, CookieExpiration, CookieStore};
use tracing::{debug, warn};
use url::Url;

use crate::download::request::headers::is_value;

/// Maximum length of a `Set-Cookie` value (RFC 6265 section 6.1).
const MAX_COOKIE_LEN: usize = 4096;

/// Maximum number of cookies (RFC 6265 section 6.1).
const MAX_COOKIES: usize = 3000;

/// Maximum length of the cookies of one request. Many servers refuse more.
const MAX_FIELD_LEN: usize = 8192;

/// Mark of a cookie that scripts of a page cannot read, as curl and browser extensions write it.
const HTTP_ONLY_PREFIX: &str = "#HttpOnly_";

/// First line of a Netscape cookie file, which some readers require.
const FILE_HEADER: &str = "# Netscape HTTP Cookie File\n";

/// Cookies set by servers, for all downloads of a run. Clones share the cookies. `Debug` omits
/// them.
///
/// A cookie is sent according to its domain, path and `Secure` attribute (RFC 6265 section 5.4). A
/// domain under which anyone can register names (`com`, `co.uk`, `github.io`) cannot set cookies
/// for the names below it (section 5.3 step 5). At most 3,000 cookies of 4,096 bytes are kept.
#[derive(Clone, Default)]
pub struct CookieJar(Arc<Mutex<CookieStore>>);

/// Text that is not a Netscape cookie file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Netscape cookie file: no line has 7 fields separated by tabs")]
pub struct CookieFileError;

impl CookieJar {
    /// Adds the cookies of another jar.
    pub fn extend(&self, other: &Self) {
        let others: Vec<_> = other.lock().iter_unexpired().cloned().collect();
        for cookie in others {
            let stored = origin(&cookie).is_some_and(|url| self.insert(cookie, &url));
            debug!(stored, "cookie of a file");
        }
    }

    /// Returns the cookies as a Netscape file, those of a session with the expiry time 0.
    pub fn to_netscape(&self) -> String {
        let mut text = FILE_HEADER.to_owned();
        let mut lines: Vec<_> = self.lock().iter_unexpired().map(netscape_line).collect();
        lines.sort_unstable();
        text.extend(lines);
        text
    }

    /// Stores the cookies of a response. A cookie that the URL may not set is ignored.
    pub(crate) fn store<'a>(&self, url: &Url, fields: impl Iterator<Item = &'a [u8]>) {
        for field in fields {
            let cookie = std::str::from_utf8(field)
                .ok()
                .and_then(|text| parse(text, url));
            let stored = cookie.is_some_and(|cookie| self.insert(cookie, url));
            debug!(host = url.host_str(), stored, "cookie of a response");
        }
    }

    /// Returns the value of `Cookie` for a request: those with longer paths first (RFC 6265 section
    /// 5.4).
    pub(crate) fn field(&self, url: &Url) -> Option<String> {
        let store = self.lock();
        let mut matching = store.matches(url);
        matching.sort_unstable_by_key(|cookie| {
            let path = String::from(&cookie.path);
            (std::cmp::Reverse(path.len()), cookie.name().to_owned())
        });
        let mut field = String::new();
        for cookie in matching {
            let (name, value) = cookie.name_value();
            if field.len() + name.len() + value.len() > MAX_FIELD_LEN {
                break;
            }
            let separator = if field.is_empty() { "" } else { "; " };
            // Writing to a `String` cannot fail.
            let _ = write!(field, "{separator}{name}={value}");
        }
        (!field.is_empty()).then_some(field)
    }

    fn insert(&self, cookie: Cookie<'static>, url: &Url) -> bool {
        let mut store = self.lock();
        let domain = cookie.domain.as_cow().unwrap_or_default();
        let is_new = !store.contains_any(&domain, &cookie.path, cookie.name());
        drop(domain);
        if is_new && store.iter_any().count() >= MAX_COOKIES {
            let kept: Vec<_> = store.iter_unexpired().cloned().map(Ok::<_, ()>).collect();
            if let Ok(kept) = CookieStore::from_cookies(kept, false) {
                *store = kept;
            }
            if store.iter_any().count() >= MAX_COOKIES {
                return false;
            }
        }
        store.insert(cookie, url).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, CookieStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Parses a Netscape cookie file: seven fields separated by tabs in each line (domain, whether it
/// includes names below, path, whether https only, expiry in seconds since 1970, name, value).
/// Other lines are skipped with a warning.
impl FromStr for CookieJar {
    type Err = CookieFileError;

    fn from_str(text: &str) -> Result<Self, CookieFileError> {
        let jar = Self::default();
        let mut good: usize = 0;
        let mut bad: usize = 0;
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let is_comment = line.starts_with('#') && !line.starts_with(HTTP_ONLY_PREFIX);
            if is_comment || line.trim().is_empty() {
                continue;
            }
            match parse_line(line) {
                Some((url, text)) => {
                    good += 1;
                    // Expired cookies are left out.
                    if let Some(cookie) = parse(&text, &url) {
                        jar.insert(cookie, &url);
                    }
                }
                None => {
                    bad += 1;
                    warn!(line = index + 1, "skipped a line of the cookie file");
                }
            }
        }
        if bad > 0 && good == 0 {
            return Err(CookieFileError);
        }
        Ok(jar)
    }
}

/// Parses a `Set-Cookie` value.
fn parse(text: &str, url: &Url) -> Option<Cookie<'static>> {
    if text.len() > MAX_COOKIE_LEN || !is_value(text) {
        return None;
    }
    let mut cookie = Cookie::parse(text, url).ok()?.into_owned();
    if let CookieDomain::Suffix(domain) = &cookie.domain
        && psl::domain(domain.as_bytes()).is_none()
    {
        let own = CookieDomain::host_only(url).ok()?;
        let is_own = matches!(&own, CookieDomain::HostOnly(host) if host == domain);
        if !is_own {
            return None;
        }
        cookie.domain = own;
    }
    Some(cookie)
}

/// Converts a line of a Netscape file to the URL of its origin and a `Set-Cookie` value.
fn parse_line(line: &str) -> Option<(Url, String)> {
    let without_prefix = line.strip_prefix(HTTP_ONLY_PREFIX);
    let fields: Vec<&str> = without_prefix.unwrap_or(line).split('\t').collect();
    let [domain, subdomains, path, secure, expires, name, value] = fields[..] else {
        return None;
    };
    let is_secure = flag(secure)?;
    let includes_subdomains = flag(subdomains)?;
    let expires: f64 = expires.parse().ok()?;
    let host = domain.trim_start_matches('.');
    let scheme = if is_secure { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{host}/")).ok()?;
    if name.is_empty() || [name, path, value].iter().any(|text| text.contains(';')) {
        return None;
    }
    let mut text = format!("{name}={value}; Path={path}");
    if includes_subdomains {
        text += &format!("; Domain={host}");
    }
    if is_secure {
        text += "; Secure";
    }
    if without_prefix.is_some() {
        text += "; HttpOnly";
    }
    // 0 is the end of the session. Browsers write fractions; HTTP dates end in the year 9999.
    if expires != 0.0 {
        let expires = Duration::from_secs(expires.clamp(1.0, 253_402_300_799.0) as u64);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + expires);
        text += &format!("; Expires={date}");
    }
    Some((url, text))
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "TRUE" | "true" => Some(true),
        "FALSE" | "false" => Some(false),
        _ => None,
    }
}

fn netscape_line(cookie: &Cookie<'_>) -> String {
    let prefix = if cookie.http_only() == Some(true) {
        HTTP_ONLY_PREFIX
    } else {
        ""
    };
    let includes_subdomains = matches!(cookie.domain, CookieDomain::Suffix(_));
    let dot = if includes_subdomains { "." } else { "" };
    let host = cookie.domain.as_cow().unwrap_or_default();
    let expires = match &cookie.expires {
        CookieExpiration::AtUtc(time) => time.unix_timestamp().max(1),
        CookieExpiration::SessionEnd => 0,
    };
    let (name, value) = cookie.name_value();
    format!(
        "{prefix}{dot}{host}\t{}\t{}\t{}\t{expires}\t{name}\t{value}\n",
        upper(includes_subdomains),
        String::from(&cookie.path),
        upper(cookie.secure() == Some(true)),
    )
}

fn upper(flag: bool) -> &'static str {
    if flag { "TRUE" } else { "FALSE" }
}

/// Returns a URL that may set the cookie.
fn origin(cookie: &Cookie<'_>) -> Option<Url> {
    let host = cookie.domain.as_cow()?;
    Url::parse(&format!("https://{host}/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn jar(from: &str, fields: &[&str]) -> CookieJar {
        let jar = CookieJar::default();
        jar.store(&url(from), fields.iter().map(|field| field.as_bytes()));
        jar
    }

    fn sent(jar: &CookieJar, to: &str) -> String {
        jar.field(&url(to)).unwrap_or_default()
    }

    #[test]
    fn cookies_are_sent_by_domain_path_and_scheme() {
        // The URL and path of the response, the cookie, the URL of the request.
        for line in "
            http://a.test/x/y         c=d                      http://a.test/x/z      sent
            http://a.test/x/y         c=d                      http://a.test/         no
            http://a.test/            c=d                      http://a.test:81/y     sent
            http://a.test/            c=d                      http://b.a.test/       no
            http://b.a.test/          c=d                      http://a.test/         no
            http://b.a.example.com/   c=d;Domain=example.com   http://example.com/    sent
            http://example.com/       c=d;Domain=.example.com  http://x.example.com/  sent
            http://example.com/       c=d;Domain=example.com   http://badexample.com/ no
            http://example.com/       c=d;Domain=example.org   http://example.org/    no
            http://a.test/x           c=d;Path=/y              http://a.test/y/z      sent
            http://a.test/x           c=d;Path=/y              http://a.test/yz       no
            https://a.test/           c=d;Secure               http://a.test/         no
            https://a.test/           c=d;Secure               https://a.test/        sent
            http://127.0.0.1/         c=d;Domain=0.0.1         http://127.0.0.1/      no
            http://127.0.0.1/         c=d;Domain=127.0.0.1     http://127.0.0.1/      sent
            http://a.test/            c=d;Max-Age=0            http://a.test/         no
            http://a.test/            novalue                  http://a.test/         no"
            .trim()
            .lines()
        {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [from, cookie, to, is_sent] = fields[..] else {
                panic!("{line}")
            };
            let expected = if is_sent == "sent" { "c=d" } else { "" };
            assert_eq!(sent(&jar(from, &[cookie]), to), expected, "{line}");
        }
        let expired = "c=d; Expires=Thu, 01 Jan 1970 00:00:09 GMT";
        assert_eq!(
            sent(&jar("http://a.test/", &[expired]), "http://a.test/"),
            ""
        );
    }

    #[test]
    fn public_suffixes_set_cookies_for_themselves_only() {
        for (from, domain, to, is_sent) in [
            ("http://a.co.uk/", "co.uk", "http://b.co.uk/", false),
            ("http://a.co.uk/", "co.uk", "http://a.co.uk/", false),
            (
                "http://a.github.io/",
                "github.io",
                "http://b.github.io/",
                false,
            ),
            ("http://github.io/", "github.io", "http://github.io/", true),
            (
                "http://github.io/",
                "github.io",
                "http://a.github.io/",
                false,
            ),
            ("http://localhost/", "localhost", "http://localhost/", true),
            (
                "http://a.localhost/",
                "localhost",
                "http://b.localhost/",
                false,
            ),
        ] {
            let jar = jar(from, &[&format!("c=d; Domain={domain}")]);
            assert_eq!(!sent(&jar, to).is_empty(), is_sent, "{from} {to}");
        }
    }

    #[test]
    fn longer_paths_come_first() {
        let jar = jar(
            "http://a.test/x/y/z",
            &["b=1; Path=/", "a=2; Path=/", "c=3; Path=/x/y"],
        );
        assert_eq!(sent(&jar, "http://a.test/x/y/q"), "c=3; a=2; b=1");
    }

    #[test]
    fn later_cookies_replace_and_delete_earlier_ones() {
        let jar = jar("http://a.test/", &["c=1", "d=1", "c=2", "d=; Max-Age=0"]);
        assert_eq!(sent(&jar, "http://a.test/"), "c=2");
    }

    #[test]
    fn number_and_length_of_cookies_are_limited() {
        let jar = CookieJar::default();
        let at = url("http://a.test/");
        let long = format!("l={}", "x".repeat(MAX_COOKIE_LEN));
        jar.store(&at, [long.as_bytes(), b"b=\xff", b"n=\x01"].into_iter());
        assert_eq!(jar.field(&at), None);
        for number in 0..MAX_COOKIES + 9 {
            jar.store(&at, [format!("c{number}=x").as_bytes()].into_iter());
        }
        assert_eq!(jar.lock().iter_any().count(), MAX_COOKIES);
        assert!(jar.field(&at).unwrap().len() <= MAX_FIELD_LEN + 2);
        // Deleted cookies give their places back.
        for number in 0..9 {
            jar.store(
                &at,
                [format!("c{number}=; Max-Age=0").as_bytes()].into_iter(),
            );
        }
        jar.store(&url("http://b.test/"), [b"new=x".as_slice()].into_iter());
        assert_eq!(sent(&jar, "http://b.test/"), "new=x");
    }

    #[test]
    fn netscape_file_is_read_back_unchanged() {
        let text = "# Netscape HTTP Cookie File\n\
            #HttpOnly_.example.com\tTRUE\t/x\tTRUE\t4102444800\th\ti\n\
            .example.com\tTRUE\t/\tFALSE\t0\ta\tb=c\n\
            127.0.0.1\tFALSE\t/\tFALSE\t0\te\t\n";
        let jar: CookieJar = text.parse().unwrap();
        assert_eq!(jar.to_netscape(), text);
        let copy = CookieJar::default();
        copy.extend(&jar);
        assert_eq!(copy.to_netscape(), text);
        assert_eq!(sent(&jar, "https://w.example.com/x/y"), "h=i; a=b=c");
        assert_eq!(sent(&jar, "http://example.com/"), "a=b=c");
        assert_eq!(sent(&jar, "http://127.0.0.1:81/"), "e=");
    }

    #[test]
    fn bad_lines_of_a_cookie_file_are_skipped() {
        let good = "a.test\tFALSE\t/\tFALSE\t1e18\tc\td";
        let expired = "a.test\tFALSE\t/\tFALSE\t9\tx\ty";
        let bad = [
            "a.test\tFALSE\t/\tFALSE\t0\tc",
            "a.test\tmaybe\t/\tFALSE\t0\tx\ty",
            "a.test\tFALSE\t/\tFALSE\tsoon\tx\ty",
            "a.test\tFALSE\t/\tFALSE\t0\t\ty",
            "a.test\tFALSE\t/\tFALSE\t0\tx\ty; Domain=b",
            "\tFALSE\t/\tFALSE\t0\tx\ty",
        ];
        let text = format!("\u{feff}{}\r\n{good}\r\n{expired}\n\n# x\n", bad.join("\n"));
        assert_eq!(sent(&text.parse().unwrap(), "http://a.test/"), "c=d");
        for bad in bad {
            assert_eq!(
                bad.parse::<CookieJar>().unwrap_err(),
                CookieFileError,
                "{bad}"
            );
        }
        assert_eq!(
            CookieJar::from_str("# x\n\n").unwrap().to_netscape(),
            FILE_HEADER
        );
    }

    #[test]
    fn debug_omits_cookies() {
        let jar = jar("http://a.test/", &["secret=secret"]);
        assert_eq!(format!("{jar:?}"), "***");
    }
}
