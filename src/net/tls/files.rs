//! Certificates and keys from PEM files.

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::config::Identity;
use super::error::TlsSetupError;
use super::unsupported::{UnsupportedFormat, unsupported_property};

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
        added.map_err(|_| invalid("a certificate in it cannot be parsed"))?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|found| found.collect());
    let found = found.map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        Err(unusable(path, "no certificate in it"))
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
        // The text contains the cause, which is also its source.
        Some(error) => Err(io::Error::other(error.to_string())),
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
            pem::Error::NoItemsFound => unusable(key, "no private key in it"),
            error => unreadable(key, error),
        },
    })?;
    Ok((certificates, key))
}

/// Returns the cause for which a certificate cannot be used with its key.
pub(super) fn identity_problem(error: &rustls::Error, certificate: &[u8]) -> String {
    if let rustls::Error::InconsistentKeys(_) = error {
        return "the key does not belong to the certificate".into();
    }
    let property = unsupported_property(certificate);
    let property = property.unwrap_or_else(|| "this kind of key".into());
    format!("{property} is not supported")
}

fn unreadable(path: &Path, error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(error) => error,
        _ => unusable(path, "not PEM"),
    }
}

/// Returns the error of a file, by its format if it is recognised.
fn unusable(path: &Path, text: &str) -> io::Error {
    match UnsupportedFormat::of_file(path) {
        Some(format) => io::Error::new(io::ErrorKind::InvalidData, format),
        None => invalid(text),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
