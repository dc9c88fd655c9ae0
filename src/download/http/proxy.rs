//! Which requests go through a proxy, and through which: pure, by curl's rules.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host as UrlHost, Url};

use super::login::{Login, LoginError};
use crate::net::address::{AddressError, Endpoint};

/// The port of a proxy that names none, as for curl.
const PORT: u16 = 1080;

/// The proxies of a client. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for `http` URLs. Default: none.
    pub http: Option<Proxy>,
    /// The proxy for `https` URLs. Default: none.
    pub https: Option<Proxy>,
    /// The hosts that are reached directly all the same. Default: none.
    pub except: Exceptions,
}

impl Proxies {
    /// The proxy that a request for `url` goes through.
    pub fn of(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.scheme() == "https" {
            &self.https
        } else {
            &self.http
        };
        proxy.as_ref().filter(|_| !self.except.contain(url))
    }
}

/// A proxy: what it speaks, where it is, and who asks it. Shown without the last.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) kind: Kind,
    pub(super) address: Endpoint,
    pub(super) login: Option<Login>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP: `http` URLs are asked for as a whole, `https` ones through `CONNECT`.
    Http,
    /// SOCKS5 (RFC 1928); names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// A text that names no [`Proxy`]. It shows no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyNameError {
    /// It is no URL.
    #[error("not of the form [SCHEME://][USER:PASSWORD@]HOST[:PORT]")]
    Form,
    /// It speaks something else.
    #[error("only http, socks5 and socks5h proxies are supported")]
    Scheme,
    /// Its host or port is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its user name or password cannot be sent.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// SOCKS5 has no room for longer ones (RFC 1929 section 2).
    #[error("a user name or password for SOCKS5 is longer than 255 bytes")]
    TooLong,
}

impl FromStr for Proxy {
    type Err = ProxyNameError;

    /// Reads `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`, with `http` and 1080 where they are not
    /// given.
    fn from_str(text: &str) -> Result<Self, ProxyNameError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => Kind::Http,
            "socks5" => Kind::Socks5,
            "socks5h" => Kind::Socks5h,
            _ => return Err(ProxyNameError::Scheme),
        };
        // Of another scheme, for that of http has a port of its own: 80 would not be seen.
        let url = Url::parse(&format!("proxy://{rest}")).map_err(|_| ProxyNameError::Form)?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(ProxyNameError::Form)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyNameError::Form);
        }
        let address = format!("{host}:{}", url.port().unwrap_or(PORT)).parse()?;
        let login = Login::of_url(&url)?;
        let long = |login: &Login| login.user().len().max(login.password().len()) > 255;
        if kind != Kind::Http && login.as_ref().is_some_and(long) {
            return Err(ProxyNameError::TooLong);
        }
        Ok(Self {
            kind,
            address,
            login,
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
        let login = if self.login.is_some() { " ***" } else { "" };
        write!(f, "{self}{login}")
    }
}

/// Hosts that are reached without a proxy: a list, between commas or blanks, of names (which
/// stand for all names below them too), addresses, networks (`10.0.0.0/8`), or `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u32),
    Name(String),
}

impl From<&str> for Exceptions {
    fn from(list: &str) -> Self {
        let words = list.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        Self(words.map(Exception::from).collect())
    }
}

impl From<&str> for Exception {
    fn from(word: &str) -> Self {
        let (ip, bits) = word.split_once('/').unwrap_or((word, ""));
        let ip = ip
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok();
        let whole = ip.map_or(0, |ip| if ip.is_ipv4() { 32 } else { 128 });
        let bits = if bits.is_empty() {
            Some(whole)
        } else {
            bits.parse().ok()
        };
        match (ip, bits) {
            _ if word == "*" => Self::All,
            (Some(ip), Some(bits)) if bits <= whole => Self::Network(ip, bits),
            // What is no network after all is no name of any host either: it excepts nothing.
            _ => Self::Name(
                word.trim_start_matches('.')
                    .trim_end_matches('.')
                    .to_lowercase(),
            ),
        }
    }
}

impl Exceptions {
    fn contain(&self, url: &Url) -> bool {
        self.0
            .iter()
            .any(|exception| match (exception, url.host()) {
                (Exception::All, _) => true,
                (Exception::Network(ip, bits), Some(UrlHost::Ipv4(host))) => {
                    is_within(host.into(), *ip, *bits)
                }
                (Exception::Network(ip, bits), Some(UrlHost::Ipv6(host))) => {
                    is_within(host.into(), *ip, *bits)
                }
                (Exception::Name(name), Some(UrlHost::Domain(host))) => is_below(host, name),
                _ => false,
            })
    }
}

fn is_within(host: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (host, network, whole) = match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => {
            (host.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(network)) => (host.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    // Shifting by as many bits as there are is no shift: with no bits, all are within.
    (host ^ network).checked_shr(whole - bits).unwrap_or(0) == 0
}

fn is_below(host: &str, name: &str) -> bool {
    let rest = host.trim_end_matches('.').strip_suffix(name);
    !name.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_scheme_a_login_a_host_and_a_port() {
        for (text, shown, login) in [
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
                proxy.login,
                login.map(|login| login.parse().unwrap()),
                "{text}"
            );
        }
        let secret: Proxy = "http://secret:secret@h".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "http://h:1080 ***");
    }

    #[test]
    fn what_names_no_proxy_is_refused() {
        let long = format!("socks5://u:{}@h", "p".repeat(256));
        for (text, error) in [
            ("", ProxyNameError::Form),
            ("http://", ProxyNameError::Form),
            ("h:99999", ProxyNameError::Form),
            ("http://h/path", ProxyNameError::Form),
            ("http://h?x", ProxyNameError::Form),
            ("https://h", ProxyNameError::Scheme),
            ("socks4://h", ProxyNameError::Scheme),
            ("http://a%3Ab:c@h", ProxyNameError::Login(LoginError::Colon)),
            ("http://h%20h", ProxyNameError::Address(AddressError::Name)),
            (&long, ProxyNameError::TooLong),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = Proxies {
            http: "a".parse().ok(),
            https: "b".parse().ok(),
            except: "x.example".into(),
        };
        let of = |url: &str| proxies.of(&url.parse().unwrap()).map(Proxy::to_string);
        assert_eq!(of("http://h/").as_deref(), Some("http://a:1080"));
        assert_eq!(of("https://h/").as_deref(), Some("http://b:1080"));
        assert_eq!(of("https://x.example:8443/"), None);
    }

    #[track_caller]
    fn excepts(list: &str, host: &str, wanted: bool) {
        let url = format!("http://{host}:8080/").parse().unwrap();
        assert_eq!(
            Exceptions::from(list).contain(&url),
            wanted,
            "{host} in {list:?}"
        );
    }

    #[test]
    fn names_are_excepted_with_all_below_them() {
        excepts("", "a.example", false);
        excepts("*", "a.example", true);
        excepts("*", "127.0.0.1", true);
        excepts("example", "example", true);
        excepts("example", "a.example", true);
        excepts(".example", "example", true);
        excepts("example.", "a.b.example.", true);
        excepts("EXAMPLE", "A.Example", true);
        excepts("example", "badexample", false);
        excepts("a.example", "example", false);
        excepts("b, c.example d", "d", true);
        excepts("b, c.example d", "x.c.example", true);
        excepts(",. ,", "a.example", false);
    }

    #[test]
    fn addresses_are_excepted_by_networks() {
        excepts("10.0.0.0/8", "10.255.0.1", true);
        excepts("10.0.0.0/8", "11.0.0.1", false);
        excepts("192.168.1.128/25", "192.168.1.127", false);
        excepts("192.168.1.128/25", "192.168.1.200", true);
        excepts("127.0.0.1", "127.0.0.1", true);
        excepts("127.0.0.1", "127.0.0.2", false);
        excepts("0.0.0.0/0", "1.2.3.4", true);
        excepts("0.0.0.0/0", "[::1]", false);
        excepts("::/0", "[::1]", true);
        excepts("fe80::/10", "[fe81::1]", true);
        excepts("[::1]", "[::1]", true);
        excepts("10.0.0.0/33", "10.0.0.0", false);
        excepts("10.0.0.0/x", "10.0.0.0", false);
        excepts("0.1", "127.0.0.1", false);
    }

    #[test]
    fn whoever_is_excepted_is_so_by_the_first_bits_or_the_last_labels() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let name = |random: &mut fastrand::Rng| {
            let labels = (0..random.usize(1..4)).filter_map(|_| random.choice(["a", "b", "ab"]));
            labels.collect::<Vec<_>>()
        };
        for _ in 0..10_000 {
            let (host, bits) = (random.u32(..), random.usize(..=32));
            // Near enough to be within now and then.
            let network = host ^ (1_u64 << random.u32(..33)) as u32;
            let first = |address: u32| format!("{address:032b}")[..bits].to_owned();
            let (wanted, ip) = (first(host) == first(network), std::net::Ipv4Addr::from);
            let list = format!("x,{}/{bits}", ip(network));
            let url = format!("http://{}/", ip(host)).parse().unwrap();
            assert_eq!(
                Exceptions::from(&list[..]).contain(&url),
                wanted,
                "seed {seed}: {list} {url}"
            );

            let (host, below) = (name(&mut random), name(&mut random));
            let list = format!("x {}", below.join("."));
            let url = format!("http://{}/", host.join(".")).parse().unwrap();
            let found = Exceptions::from(&list[..]).contain(&url);
            assert_eq!(found, host.ends_with(&below), "seed {seed}: {list} {url}");
        }
    }
}
