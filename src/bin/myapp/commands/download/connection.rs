//! The options that say how servers are reached and which of them are trusted.

use std::path::PathBuf;

use clap::Args;
use myapp::download::Config;
use myapp::net::names::{Family, Fixed, Lookup};
use myapp::net::tls::{Fingerprint, Identity, TlsConfig, Trust};

use crate::exit::Failure;

#[derive(Debug, Args)]
pub(super) struct ConnectionOptions {
    /// Trust the certificates in FILE (PEM) instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    cacert: Option<PathBuf>,
    /// Trust only the certificate whose DER has this SHA-256, whoever issued it
    #[arg(long, value_name = "HEX", help_heading = "TLS", conflicts_with = "cacert")]
    pinned_sha256: Option<Fingerprint>,
    /// Trust any certificate: whoever sits in between can read and change all
    #[arg(long, help_heading = "TLS", conflicts_with_all = ["cacert", "pinned_sha256"])]
    insecure: bool,
    /// Certificate (PEM) for servers that ask who you are
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Its private key [default: in the file of --cert]
    #[arg(long, value_name = "FILE", help_heading = "TLS", requires = "cert")]
    key: Option<PathBuf>,

    /// Connect to IP for this host and port; repeat for more
    #[arg(long, value_name = "HOST:PORT:IP", help_heading = "Connecting")]
    resolve: Vec<Fixed>,
    /// Connect over IPv4 only
    #[arg(short = '4', long, help_heading = "Connecting", overrides_with = "ipv6")]
    ipv4: bool,
    /// Connect over IPv6 only
    #[arg(short = '6', long, help_heading = "Connecting", overrides_with = "ipv4")]
    ipv6: bool,
}

impl ConnectionOptions {
    /// Writes what was chosen into `config`.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        config.tls = self.tls();
        config.lookup = Lookup { family: self.family(), fixed: self.resolve.clone() };
        Ok(())
    }

    fn family(&self) -> Family {
        match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            (false, false) => Family::Any,
        }
    }

    fn tls(&self) -> TlsConfig {
        let trust = match (&self.cacert, self.pinned_sha256) {
            _ if self.insecure => Trust::Anyone,
            (_, Some(pin)) => Trust::Pinned(pin),
            (Some(path), None) => Trust::Roots(path.clone()),
            (None, None) => Trust::System,
        };
        let identity = self.cert.clone().map(|certificates| {
            let key = self.key.clone().unwrap_or_else(|| certificates.clone());
            Identity { certificates, key }
        });
        TlsConfig { trust, identity }
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

    fn config(line: &[&str]) -> Config {
        let options = Line::try_parse_from([&["download"], line].concat()).unwrap().options;
        let mut config = Config::default();
        options.apply(&mut config).unwrap();
        config
    }

    #[test]
    fn without_options_the_defaults_stay() {
        assert_eq!(format!("{:?}", config(&[])), format!("{:?}", Config::default()));
    }

    #[test]
    fn of_the_families_the_last_one_counts() {
        for (line, family) in [
            (&["-4"][..], Family::V4),
            (&["-6"], Family::V6),
            (&["-4", "-6"], Family::V6),
            (&["-64"], Family::V4),
        ] {
            assert_eq!(config(line).lookup.family, family, "{line:?}");
        }
    }

    #[test]
    fn each_option_of_tls_reaches_the_configuration() {
        let pin = Fingerprint::of(b"");
        for (line, trust) in [
            (&["--cacert", "ca"][..], Trust::Roots("ca".into())),
            (&["--pinned-sha256", &pin.to_string()], Trust::Pinned(pin)),
            (&["--insecure"], Trust::Anyone),
        ] {
            assert_eq!(config(line).tls.trust, trust, "{line:?}");
        }
        let identity = |key: &str| Some(Identity { certificates: "c".into(), key: key.into() });
        assert_eq!(config(&["--cert", "c"]).tls.identity, identity("c"));
        assert_eq!(config(&["--cert", "c", "--key", "k"]).tls.identity, identity("k"));
    }
}
