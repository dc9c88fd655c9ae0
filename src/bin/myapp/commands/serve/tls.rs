//! TLS options of `myapp serve`.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use clap::Args;
use myapp::net::address::Address;
use myapp::net::tls::{Identity, ServerIdentity, TlsServerConfig};

use crate::exit_code::CommandError;
use crate::systemd::PassedSocket;

// A doc comment would replace that of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Generate a certificate for this run and print its SHA-256
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub(super) tls_self_signed: bool,
    /// Require client certificates issued by a root in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
}

impl TlsOptions {
    pub(super) fn to_config(&self) -> Option<TlsServerConfig> {
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => ServerIdentity::Files(Identity {
                certificates: certificates.clone(),
                key: key.clone(),
            }),
            _ if self.tls_self_signed => ServerIdentity::SelfSigned,
            _ => return None,
        };
        Some(TlsServerConfig {
            identity,
            client_ca: self.tls_client_ca.clone(),
        })
    }

    /// Rejects addresses without a certificate, and certificates without an address.
    pub(super) fn check(
        &self,
        addresses: &[Address],
        sockets: &[PassedSocket],
    ) -> Result<(), CommandError> {
        let address = addresses
            .iter()
            .find(|address| matches!(address, Address::Tls(_)))
            .map(Address::to_string);
        let passed = sockets
            .iter()
            .find(|passed| passed.is_tls)
            .map(|passed| format!("descriptor {} (tls)", passed.socket.as_raw_fd()));
        let has_identity = self.tls_self_signed || self.tls_cert.is_some();
        match address.or(passed) {
            Some(address) if !has_identity => {
                let failure =
                    CommandError::usage(format!("listen on {address}: missing certificate"));
                let hint = "use --tls-cert FILE --tls-key FILE, or --tls-self-signed";
                Err(failure.hint(hint))
            }
            None if has_identity || self.tls_client_ca.is_some() => Err(CommandError::usage(
                "the TLS options have no effect without a tls:// address or a passed socket named tls",
            )),
            _ => Ok(()),
        }
    }
}
