//! Messages, hints and exit codes of failed downloads.

use std::borrow::Cow;
use std::io;

use myapp::download::http::{HttpError, ProxyError};
use myapp::download::{Error as DownloadError, FailedItem, RedirectError};
use myapp::net::connect::ConnectError;
use myapp::net::tls::TlsError;

use crate::exit_code::ExitCode;
use crate::output::stderr;

/// Returns the error message of a failed file. Empty for a broken pipe.
pub(super) fn error_text(failed: &FailedItem) -> String {
    if code(&failed.source) == ExitCode::BrokenPipe {
        return String::new();
    }
    let text = format!("{failed}: {}", failed.cause());
    stderr::error_text(
        anyhow::Error::msg(text).as_ref(),
        hint(&failed.source).as_deref(),
    )
}

fn hint(error: &DownloadError) -> Option<Cow<'static, str>> {
    let text = match error {
        DownloadError::Status {
            status: 401,
            url: None,
            ..
        } => "-u USER:PASSWORD, --bearer TOKEN or --netrc provide credentials",
        DownloadError::Status {
            status: 401,
            url: Some(_),
            ..
        } => {
            "credentials are sent to the first origin only; --location-trusted lifts this restriction"
        }
        DownloadError::Mirror { source, .. } | DownloadError::Redirected { source, .. } => {
            return hint(source);
        }
        DownloadError::Http(HttpError::Tls { source, .. }) => return tls_hint(source),
        DownloadError::Http(HttpError::InvalidProxy(_)) => "--proxy URL overrides the environment",
        DownloadError::Http(HttpError::Proxy {
            source: ProxyError::Tls { source },
            ..
        }) => return proxy_tls_hint(source),
        DownloadError::Http(HttpError::Proxy { source, .. }) if source.is_auth() => {
            "--proxy http://USER:PASSWORD@HOST:PORT provides credentials"
        }
        DownloadError::Redirect {
            source: RedirectError::Downgrade(_),
            ..
        } => "--allow-http-redirect allows it",
        DownloadError::MediaType { .. } => {
            "it may be a login or error page; to discard the partial file, add --overwrite or \
             delete the .part file"
        }
        DownloadError::HostDelay { .. } | DownloadError::RetryDeadline { .. } => {
            "--retry-max-time DUR allows longer delays"
        }
        DownloadError::ChecksumMismatch { .. } => {
            "the data is in the .part file; -c accepts it if given the right checksum"
        }
        DownloadError::File { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
            "-d DIR sets the output directory"
        }
        _ => return None,
    };
    Some(text.into())
}

fn tls_hint(error: &TlsError) -> Option<Cow<'static, str>> {
    let text = match error {
        TlsError::NotTls => "use an http:// URL to connect without TLS",
        TlsError::UnknownIssuer => "--cacert FILE adds the issuer's certificate",
        TlsError::CertificateRequired => "--cert FILE and --key FILE provide a client certificate",
        TlsError::CaUsedAsEndEntity { found } => return Some(stderr::pin_hint(found).into()),
        _ => return None,
    };
    Some(text.into())
}

fn proxy_tls_hint(error: &TlsError) -> Option<Cow<'static, str>> {
    let text = match error {
        TlsError::NotTls => "use an http:// proxy to connect to it without TLS",
        TlsError::UnknownIssuer => "--proxy-cacert FILE trusts the issuer of the proxy",
        _ => return None,
    };
    Some(text.into())
}

pub(super) fn code(error: &DownloadError) -> ExitCode {
    match error {
        DownloadError::Url(_) | DownloadError::Line { .. } => ExitCode::Usage,
        DownloadError::WriteOutput { source } if source.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::BrokenPipe
        }
        DownloadError::List { .. }
        | DownloadError::File { .. }
        | DownloadError::WriteOutput { .. } => ExitCode::LocalFile,
        DownloadError::Http(error) => http_code(error),
        DownloadError::Netrc { .. }
        | DownloadError::Status {
            status: 401 | 407, ..
        } => ExitCode::Credentials,
        DownloadError::Status { .. }
        | DownloadError::HostDelay { .. }
        | DownloadError::MediaType { .. } => ExitCode::Status,
        DownloadError::RetryDeadline { source, .. }
        | DownloadError::Mirror { source, .. }
        | DownloadError::Redirected { source, .. } => code(source),
        DownloadError::ChecksumMismatch { .. } | DownloadError::MissingChecksum => {
            ExitCode::Checksum
        }
        DownloadError::ReservedName { .. } => ExitCode::LocalFile,
        DownloadError::TooLarge { .. } => ExitCode::TooLarge,
        DownloadError::Timeout { .. } | DownloadError::TooSlow { .. } => ExitCode::Timeout,
        DownloadError::CannotRestartOutput
        | DownloadError::EmptyRangeResponse
        | DownloadError::ShortRangeResponse { .. } => ExitCode::Network,
        DownloadError::UnexpectedStatus { .. }
        | DownloadError::Redirect { .. }
        | DownloadError::CorruptEncoding { .. } => ExitCode::Protocol,
        _ => ExitCode::Failure,
    }
}

fn http_code(error: &HttpError) -> ExitCode {
    match error {
        HttpError::InvalidHeader { .. }
        | HttpError::InvalidProxy(_)
        | HttpError::UnsupportedUrl
        | HttpError::UnsupportedRequest { .. } => ExitCode::Usage,
        HttpError::Connect(ConnectError::TimedOut { .. })
        | HttpError::TimedOut { .. }
        | HttpError::NoResponse { .. } => ExitCode::Timeout,
        HttpError::Connect(_)
        | HttpError::IncompleteBody { .. }
        | HttpError::Io { .. }
        | HttpError::ReadBody { .. } => ExitCode::Network,
        HttpError::TlsSetup(_) => ExitCode::LocalFile,
        HttpError::Proxy { source, .. } if source.is_auth() => ExitCode::Credentials,
        HttpError::Proxy {
            source: ProxyError::Connect(ConnectError::TimedOut { .. }) | ProxyError::TimedOut { .. },
            ..
        } => ExitCode::Timeout,
        HttpError::Proxy {
            source: ProxyError::Tls { .. },
            ..
        } => ExitCode::Tls,
        HttpError::Proxy { .. } => ExitCode::Network,
        HttpError::Tls { .. } => ExitCode::Tls,
        HttpError::Protocol { .. } => ExitCode::Protocol,
        _ => ExitCode::Failure,
    }
}
