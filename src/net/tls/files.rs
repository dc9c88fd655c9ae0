//! Certificates and keys from PEM files.

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::config::Identity;
use super::error::TlsSetupError;

pub(super) type Loaded = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Loads the roots in a file, or the system roots.
pub(super) fn load_roots(path: Option<&Path>) -> Result<RootCertStore, TlsSetupError> {
    match path {
        Some(path) => read_roots(path).map_err(|source| TlsSetupError::Read {
            path: path.to_owned(),
            source,
        }),
        None => system_roots().map_err(|source| TlsSetupError::System { source }),
    }
}

fn read_roots(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|found| found.collect());
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        Err(invalid("no certificate in it"))
    } else {
        Ok(found)
    }
}

fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems keep some invalid roots; one of them must not make the others unusable.
    roots.add_parsable_certificates(found.certs);
    match found.errors.into_iter().next() {
        _ if !roots.is_empty() => Ok(roots),
        Some(error) => Err(io::Error::other(error)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "there are none")),
    }
}

pub(super) fn load_identity(identity: &Identity) -> Result<Loaded, TlsSetupError> {
    let Identity {
        certificates: path,
        key,
    } = identity;
    let certificates = read_certificates(path).map_err(|source| TlsSetupError::Read {
        path: path.clone(),
        source,
    })?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsSetupError::Key {
        path: key.clone(),
        source: match error {
            pem::Error::NoItemsFound => {
                invalid("no private key in it, or an encrypted one, which cannot be read")
            }
            error => unreadable(error),
        },
    })?;
    Ok((certificates, key))
}

fn unreadable(error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => error,
        _ => invalid("not PEM"),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
