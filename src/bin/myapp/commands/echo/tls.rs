//! TLS options of `myapp echo`.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Args;
use myapp::net::address::Host;
use myapp::net::tls::{Fingerprint, Identity, TlsConfig, TlsError, Trust};

use crate::commands::tls_hints;
use crate::output::stderr;

// A doc comment would become the description of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// Trust the CA certificates in FILE (PEM), not the system's
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) [default: the file of --tls-cert]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Server name to verify (SNI) [default: the host of the address]
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub(super) tls_name: Option<Host>,
    /// Trust only the certificate with this SHA-256 of its DER encoding
    #[arg(long, value_name = "HEX", conflicts_with = "tls_ca")]
    pinned_sha256: Option<Fingerprint>,
    /// Do not verify certificates (allows man-in-the-middle attacks)
    #[arg(long, conflicts_with_all = ["tls_ca", "pinned_sha256"])]
    insecure: bool,
}

/// Parses a name or an IP address; TLS checks its validity later.
fn host(text: &str) -> Result<Host, Infallible> {
    Ok(text
        .parse()
        .map_or_else(|_| Host::Name(text.into()), Host::Ip))
}

/// Returns a hint for a TLS error.
pub(super) fn hint(error: &TlsError) -> Option<String> {
    match error {
        TlsError::UnknownIssuer => Some("trust the issuer's certificate with --tls-ca FILE".into()),
        TlsError::CertificateRequired => {
            Some("present a certificate with --tls-cert FILE and --tls-key FILE".into())
        }
        TlsError::CaUsedAsEndEntity { found } => Some(stderr::pin_hint(found)),
        error => tls_hints::handshake_hint(error).map(str::to_owned),
    }
}

impl TlsOptions {
    pub(super) fn to_config(&self) -> TlsConfig {
        let trust = match (&self.tls_ca, self.pinned_sha256) {
            _ if self.insecure => Trust::DangerouslyAcceptAny,
            (_, Some(pin)) => Trust::PinnedSha256(pin),
            (Some(path), None) => Trust::RootCertificates(path.clone()),
            (None, None) => Trust::SystemRoots,
        };
        let identity = self.tls_cert.clone().map(|certificates| {
            let key = self.tls_key.clone().unwrap_or_else(|| certificates.clone());
            Identity { certificates, key }
        });
        TlsConfig { trust, identity }
    }

    /// Returns the name of the first option given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let Self {
            tls_ca,
            tls_cert,
            tls_name,
            pinned_sha256,
            insecure,
            ..
        } = self;
        [
            (tls_ca.is_some(), "--tls-ca"),
            (tls_cert.is_some(), "--tls-cert"),
            (tls_name.is_some(), "--tls-name"),
            (pinned_sha256.is_some(), "--pinned-sha256"),
            (*insecure, "--insecure"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }
}
