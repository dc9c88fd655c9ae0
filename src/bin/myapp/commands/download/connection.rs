//! Proxy, name resolution and TLS options.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use myapp::download::Config;
use myapp::download::http::{InvalidProxy, NoProxy, ParseProxyError, Proxies, ProxySetting};
use myapp::net::resolver::{AddressFamily, ParseStaticHostError, ResolverConfig, StaticHost};
use myapp::net::tls::{Fingerprint, Identity, TlsConfig, Trust};

use crate::home;
use crate::redacted_arg::secret;

#[derive(Debug, Args)]
pub(super) struct ConnectionOptions {
    /// CA certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", value_parser = home::path(), help_heading = "TLS")]
    cacert: Option<PathBuf>,
    /// Accept only the certificate with this SHA-256 (DER), whatever its issuer
    #[arg(
        long,
        value_name = "HEX",
        help_heading = "TLS",
        conflicts_with = "cacert"
    )]
    pinned_sha256: Option<Fingerprint>,
    /// Do not verify certificates (allows man-in-the-middle attacks)
    #[arg(long, help_heading = "TLS", conflicts_with_all = ["cacert", "pinned_sha256"])]
    insecure: bool,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", value_parser = home::path(), help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate [default: in the file of --cert]
    #[arg(long, value_name = "FILE", value_parser = home::path(), help_heading = "TLS", requires = "cert")]
    key: Option<PathBuf>,

    /// Proxy (http, https, socks5 or socks5h; port 1080, https 443) for all requests; '' for none
    /// [default: from http_proxy, https_proxy, all_proxy]
    #[arg(long, value_name = "URL", value_parser = secret::<Choice>(), help_heading = "Connecting")]
    proxy: Option<Choice>,
    /// CA certificates (PEM) to trust for an https proxy instead of the system's
    #[arg(long, value_name = "FILE", value_parser = home::path(), help_heading = "Connecting")]
    proxy_cacert: Option<PathBuf>,
    /// Hosts and networks to reach without a proxy; * for all [default: from no_proxy]
    #[arg(long, value_name = "LIST", help_heading = "Connecting")]
    no_proxy: Option<String>,
    /// Connect to IP for this host and port (repeatable)
    #[arg(long, value_name = "HOST:PORT:IP[,IP]...", help_heading = "Connecting", value_parser = static_host)]
    resolve: Vec<StaticHost>,
    /// Connect over IPv4 only
    #[arg(
        short = '4',
        long,
        help_heading = "Connecting",
        overrides_with = "ipv6"
    )]
    ipv4: bool,
    /// Connect over IPv6 only
    #[arg(
        short = '6',
        long,
        help_heading = "Connecting",
        overrides_with = "ipv4"
    )]
    ipv6: bool,
}

/// Parses a static host, whose name may be internationalized.
fn static_host(text: &str) -> Result<StaticHost, ParseStaticHostError> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    match url::Host::parse(name) {
        Ok(ascii) if !name.is_ascii() => format!("{ascii}:{rest}").parse(),
        _ => text.parse(),
    }
}

impl ConnectionOptions {
    /// Applies the options to `config`; `variable` reads the environment.
    pub(super) fn apply(&self, config: &mut Config, variable: impl Fn(&str) -> Option<String>) {
        config.connect.tls = self.tls();
        config.connect.proxies = self.proxies(variable);
        config.connect.proxy_tls.trust = trusted_roots(self.proxy_cacert.as_ref());
        config.connect.resolver = ResolverConfig {
            family: self.family(),
            fixed: self.resolve.clone(),
        };
    }

    /// Returns the proxies by curl's rules: `HTTP_PROXY` is ignored, because a CGI server sets it
    /// from a request header of its client; `no_proxy` applies to `--proxy` too.
    fn proxies(&self, variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let lower = |name: &str| variable(name).map(|value| (name.to_owned(), value));
        let both = |name: &str| lower(name).or_else(|| lower(&name.to_uppercase()));
        let no_proxy = self
            .no_proxy
            .clone()
            .or_else(|| both("no_proxy").map(|(_, value)| value))
            .unwrap_or_default();
        let except = NoProxy::from(no_proxy.as_str());
        if let Some(Choice(proxy)) = &self.proxy {
            return Proxies {
                http: proxy.clone(),
                https: proxy.clone(),
                no_proxy: except,
            };
        }
        let setting = |own: Option<(String, String)>| {
            own.or_else(|| both("all_proxy"))
                .map_or(ProxySetting::Direct, read_proxy)
        };
        Proxies {
            http: setting(lower("http_proxy")),
            https: setting(both("https_proxy")),
            no_proxy: except,
        }
    }

    /// Returns whether servers can request a client certificate.
    pub(super) fn has_certificate(&self) -> bool {
        self.cert.is_some()
    }

    fn family(&self) -> AddressFamily {
        match (self.ipv4, self.ipv6) {
            (true, _) => AddressFamily::V4,
            (_, true) => AddressFamily::V6,
            (false, false) => AddressFamily::Any,
        }
    }

    fn tls(&self) -> TlsConfig {
        let trust = match self.pinned_sha256 {
            _ if self.insecure => Trust::DangerouslyAcceptAny,
            Some(pin) => Trust::PinnedSha256(pin),
            None => trusted_roots(self.cacert.as_ref()),
        };
        let identity = self.cert.clone().map(|certificates| {
            let key = self.key.clone().unwrap_or_else(|| certificates.clone());
            Identity { certificates, key }
        });
        TlsConfig { trust, identity }
    }
}

fn trusted_roots(file: Option<&PathBuf>) -> Trust {
    match file {
        Some(path) => Trust::RootCertificates(path.clone()),
        None => Trust::SystemRoots,
    }
}

/// Proxy, or none for an empty string.
#[derive(Debug, Clone)]
struct Choice(ProxySetting);

impl FromStr for Choice {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, ParseProxyError> {
        if text.is_empty() {
            Ok(Self(ProxySetting::Direct))
        } else {
            text.parse().map(|proxy| Self(ProxySetting::Proxy(proxy)))
        }
    }
}

/// Parses the value of a variable.
fn read_proxy((name, value): (String, String)) -> ProxySetting {
    match value.parse() {
        Ok(Choice(setting)) => setting,
        Err(source) => ProxySetting::Invalid(InvalidProxy { name, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ConnectionOptions,
    }

    fn options(line: &[&str]) -> ConnectionOptions {
        Line::try_parse_from([&["download"], line].concat())
            .unwrap()
            .options
    }

    #[track_caller]
    fn proxies(line: &[&str], environment: &[(&str, &str)], http: &str, https: &str, except: &str) {
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name);
        let found = options(line).proxies(|name| find(name).map(|(_, value)| value.to_string()));
        let setting = |text: &str| text.parse::<Choice>().unwrap().0;
        let wanted = Proxies {
            http: setting(http),
            https: setting(https),
            no_proxy: except.into(),
        };
        assert_eq!(found, wanted, "{line:?} {environment:?}");
    }

    #[test]
    fn environment_proxies_follow_curl_rules() {
        proxies(&[], &[], "", "", "");
        proxies(
            &[],
            &[("http_proxy", "a"), ("HTTPS_PROXY", "b")],
            "a",
            "b",
            "",
        );
        proxies(
            &[],
            &[
                ("HTTP_PROXY", "a"),
                ("https_proxy", "b"),
                ("HTTPS_PROXY", "c"),
            ],
            "",
            "b",
            "",
        );
        proxies(
            &[],
            &[("ALL_PROXY", "a"), ("https_proxy", "b"), ("NO_PROXY", "c")],
            "a",
            "b",
            "c",
        );
        proxies(&[], &[("all_proxy", "a"), ("http_proxy", "")], "", "a", "");
        proxies(
            &["--no-proxy", "d"],
            &[("all_proxy", "a"), ("no_proxy", "c")],
            "a",
            "a",
            "d",
        );
        proxies(
            &["--proxy", "x"],
            &[("all_proxy", "a"), ("no_proxy", "c")],
            "x",
            "x",
            "c",
        );
        proxies(&["--proxy", ""], &[("all_proxy", "a")], "", "", "");
    }

    #[test]
    fn invalid_variable_is_named_as_it_is_spelled() {
        for (given, name) in [
            (("https_proxy", "ftp://a"), "https_proxy"),
            (("HTTPS_PROXY", "ftp://a"), "HTTPS_PROXY"),
            (("ALL_PROXY", "ftp://a"), "ALL_PROXY"),
        ] {
            let found = options(&[])
                .proxies(|name| (name == given.0).then(|| given.1.to_owned()))
                .https;
            let ProxySetting::Invalid(invalid) = found else {
                panic!("{found:?}")
            };
            assert_eq!(invalid.name, name);
        }
    }

    fn config(line: &[&str]) -> Config {
        let options = options(line);
        let mut config = Config::default();
        options.apply(&mut config, |_| None);
        config
    }

    #[test]
    fn defaults_are_unchanged_without_options() {
        assert_eq!(
            format!("{:?}", config(&[])),
            format!("{:?}", Config::default())
        );
    }

    #[test]
    fn last_address_family_option_wins() {
        for (line, family) in [
            (&["-4"][..], AddressFamily::V4),
            (&["-6"], AddressFamily::V6),
            (&["-4", "-6"], AddressFamily::V6),
            (&["-64"], AddressFamily::V4),
        ] {
            assert_eq!(config(line).connect.resolver.family, family, "{line:?}");
        }
    }

    #[test]
    fn tls_options_reach_the_configuration() {
        let pin = Fingerprint::of(b"");
        for (line, trust) in [
            (
                &["--cacert", "ca"][..],
                Trust::RootCertificates("ca".into()),
            ),
            (
                &["--pinned-sha256", &pin.to_string()],
                Trust::PinnedSha256(pin),
            ),
            (&["--insecure"], Trust::DangerouslyAcceptAny),
        ] {
            assert_eq!(config(line).connect.tls.trust, trust, "{line:?}");
        }
        let identity = |key: &str| {
            Some(Identity {
                certificates: "c".into(),
                key: key.into(),
            })
        };
        assert_eq!(config(&["--cert", "c"]).connect.tls.identity, identity("c"));
        assert_eq!(
            config(&["--cert", "c", "--key", "k"]).connect.tls.identity,
            identity("k")
        );
    }
}
