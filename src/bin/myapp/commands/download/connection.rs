//! Proxy, name resolution and TLS options.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use myapp::download::Config;
use myapp::download::http::{NoProxy, ParseProxyError, Proxies, Proxy};
use myapp::net::resolver::{AddressFamily, ResolverConfig, StaticHost};
use myapp::net::tls::{Fingerprint, Identity, TlsConfig, Trust};

use crate::exit_code::CommandError;
use crate::redacted_arg::secret;

#[derive(Debug, Args)]
pub(super) struct ConnectionOptions {
    /// CA certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
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
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate [default: in the file of --cert]
    #[arg(long, value_name = "FILE", help_heading = "TLS", requires = "cert")]
    key: Option<PathBuf>,

    /// Proxy (http, socks5 or socks5h; port 1080) for all requests; '' for none [default: from
    /// http_proxy, https_proxy, all_proxy]
    #[arg(long, value_name = "URL", value_parser = secret::<Choice>(), help_heading = "Connecting")]
    proxy: Option<Choice>,
    /// Hosts and networks to reach without a proxy; * for all [default: from no_proxy]
    #[arg(long, value_name = "LIST", help_heading = "Connecting")]
    no_proxy: Option<String>,
    /// Connect to IP for this host and port (repeatable)
    #[arg(long, value_name = "HOST:PORT:IP", help_heading = "Connecting")]
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

impl ConnectionOptions {
    /// Applies the options to `config`; `variable` reads the environment.
    pub(super) fn apply(
        &self,
        config: &mut Config,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), CommandError> {
        config.connect.tls = self.tls();
        config.connect.proxies = self.proxies(variable)?;
        config.connect.resolver = ResolverConfig {
            family: self.family(),
            fixed: self.resolve.clone(),
        };
        Ok(())
    }

    /// Returns the proxies by curl's rules: `HTTP_PROXY` is ignored, because a CGI server sets it
    /// from a request header of its client; `no_proxy` applies to `--proxy` too.
    fn proxies(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, CommandError> {
        let both = |name: &str| variable(name).or_else(|| variable(&name.to_uppercase()));
        let no_proxy = self
            .no_proxy
            .clone()
            .or_else(|| both("no_proxy"))
            .unwrap_or_default();
        let except = NoProxy::from(no_proxy.as_str());
        if let Some(Choice(proxy)) = &self.proxy {
            return Ok(Proxies {
                http: proxy.clone(),
                https: proxy.clone(),
                no_proxy: except,
            });
        }
        let named = |name: &str, value: Option<String>| match value {
            Some(value) => read_proxy(name, &value),
            None => both("all_proxy").map_or(Ok(None), |value| read_proxy("all_proxy", &value)),
        };
        Ok(Proxies {
            http: named("http_proxy", variable("http_proxy"))?,
            https: named("https_proxy", both("https_proxy"))?,
            no_proxy: except,
        })
    }

    fn family(&self) -> AddressFamily {
        match (self.ipv4, self.ipv6) {
            (true, _) => AddressFamily::V4,
            (_, true) => AddressFamily::V6,
            (false, false) => AddressFamily::Any,
        }
    }

    fn tls(&self) -> TlsConfig {
        let trust = match (&self.cacert, self.pinned_sha256) {
            _ if self.insecure => Trust::DangerouslyAcceptAny,
            (_, Some(pin)) => Trust::PinnedSha256(pin),
            (Some(path), None) => Trust::RootCertificates(path.clone()),
            (None, None) => Trust::SystemRoots,
        };
        let identity = self.cert.clone().map(|certificates| {
            let key = self.key.clone().unwrap_or_else(|| certificates.clone());
            Identity { certificates, key }
        });
        TlsConfig { trust, identity }
    }
}

/// Proxy, or none for an empty string.
#[derive(Debug, Clone)]
struct Choice(Option<Proxy>);

impl FromStr for Choice {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, ParseProxyError> {
        if text.is_empty() {
            Ok(Self(None))
        } else {
            text.parse().map(|proxy| Self(Some(proxy)))
        }
    }
}

fn read_proxy(name: &str, value: &str) -> Result<Option<Proxy>, CommandError> {
    let Choice(proxy) = value.parse().map_err(|error| {
        CommandError::usage(format!("parse proxy in {name}: {error}"))
            .hint("--proxy URL overrides the environment")
    })?;
    Ok(proxy)
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
        let wanted = Proxies {
            http: http.parse().ok(),
            https: https.parse().ok(),
            no_proxy: except.into(),
        };
        assert_eq!(found.unwrap(), wanted, "{line:?} {environment:?}");
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

    fn config(line: &[&str]) -> Config {
        let options = options(line);
        let mut config = Config::default();
        options.apply(&mut config, |_| None).unwrap();
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
