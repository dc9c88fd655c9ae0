//! How `myapp echo` meets servers at `tls://` addresses.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Args;
use myapp::net::address::Host;
use myapp::net::tls::{Fingerprint, Identity, TlsConfig, TlsError, Trust};

use crate::output::stderr;

// No doc comment: it would become that of the whole command.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// Trust the certificates in FILE (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Show this certificate to a server that asks for one
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key [default: in the file of --tls-cert]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Whom the certificate must be for [default: the host of the address]
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub(super) tls_name: Option<Host>,
    /// Trust only the certificate whose DER has this SHA-256
    #[arg(long, value_name = "HEX", conflicts_with = "tls_ca")]
    pinned_sha256: Option<Fingerprint>,
    /// Trust any certificate: whoever sits in between can read and change all
    #[arg(long, conflicts_with_all = ["tls_ca", "pinned_sha256"])]
    insecure: bool,
}

/// Reads a name or an IP address. Whether a certificate can be for it is for TLS to say.
fn host(text: &str) -> Result<Host, Infallible> {
    Ok(text
        .parse()
        .map_or_else(|_| Host::Name(text.into()), Host::Ip))
}

/// What may help where TLS has failed.
pub(super) fn hint(error: &TlsError) -> Option<String> {
    match error {
        TlsError::UnknownIssuer => Some("--tls-ca FILE names the issuer's certificate".into()),
        TlsError::CertificateRequired => {
            Some("--tls-cert FILE names yours, --tls-key FILE its key".into())
        }
        TlsError::CaUsedAsEndEntity { found } => Some(stderr::pin_hint(found)),
        _ => None,
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

    /// The name of an option that was given.
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
