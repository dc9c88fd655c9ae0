//! What is said of a file that failed, what may help, and the exit code that it means.

use std::borrow::Cow;
use std::io;

use myapp::download::http::{HttpError, ProxyError};
use myapp::download::{DownloadError, Failure, RedirectError};
use myapp::net::connect::ConnectError;
use myapp::net::tls::TlsError;

use crate::exit_code::Code;
use crate::output::stderr;

/// Why a file failed; nothing if it is that nobody reads stdout any more.
pub(super) fn problem(failed: &Failure) -> String {
    if code(&failed.source) == Code::BrokenPipe {
        return String::new();
    }
    let text = format!("{failed}: {}", failed.cause());
    stderr::problem(
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
        } => "-u USER:PASSWORD, --bearer TOKEN or --netrc sends credentials",
        DownloadError::Status {
            status: 401,
            url: Some(_),
            ..
        } => "credentials stay with the first server; --location-trusted sends them on",
        DownloadError::Mirror { source, .. } => return hint(source),
        DownloadError::Http(HttpError::Tls { source, .. }) => return tls_hint(source),
        DownloadError::Http(HttpError::Proxy { source, .. }) if source.is_login() => {
            "--proxy http://USER:PASSWORD@HOST:PORT says who asks it"
        }
        DownloadError::Redirect {
            source: RedirectError::Downgrade(_),
            ..
        } => "--allow-http-redirect follows it",
        DownloadError::Checksum { .. } => {
            "the bytes are in the .part; -c takes them with the right checksum"
        }
        DownloadError::File { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
            "-d DIR names the folder for files"
        }
        _ => return None,
    };
    Some(text.into())
}

fn tls_hint(error: &TlsError) -> Option<Cow<'static, str>> {
    let text = match error {
        TlsError::NotTls => "a URL that begins with http:// is fetched without TLS",
        TlsError::UnknownIssuer => "--cacert FILE names the issuer's certificate",
        TlsError::CertificateRequired => "--cert FILE names yours, --key FILE its key",
        TlsError::CaUsedAsEndEntity { found } => return Some(stderr::pin_hint(found).into()),
        _ => return None,
    };
    Some(text.into())
}

pub(super) fn code(error: &DownloadError) -> Code {
    match error {
        DownloadError::Url { .. }
        | DownloadError::Scheme { .. }
        | DownloadError::Userinfo { .. }
        | DownloadError::Line { .. } => Code::Usage,
        DownloadError::Sink { source } if source.kind() == io::ErrorKind::BrokenPipe => {
            Code::BrokenPipe
        }
        DownloadError::List { .. } | DownloadError::File { .. } | DownloadError::Sink { .. } => {
            Code::LocalFile
        }
        DownloadError::Http(error) => http_code(error),
        DownloadError::Status {
            status: 401 | 407, ..
        } => Code::Credentials,
        DownloadError::Status { .. } => Code::Status,
        DownloadError::TooLate { source, .. } | DownloadError::Mirror { source, .. } => {
            code(source)
        }
        DownloadError::Checksum { .. } | DownloadError::Unlisted => Code::Checksum,
        DownloadError::TooLarge { .. } => Code::TooLarge,
        DownloadError::OutOfTime { .. } | DownloadError::TooSlow { .. } => Code::Timeout,
        DownloadError::TakeBack | DownloadError::Nothing => Code::Network,
        DownloadError::Unasked { .. }
        | DownloadError::Redirect { .. }
        | DownloadError::Damaged { .. } => Code::Protocol,
        _ => Code::Failure,
    }
}

fn http_code(error: &HttpError) -> Code {
    match error {
        HttpError::Field { .. } | HttpError::Url { .. } => Code::Usage,
        HttpError::Connect(ConnectError::TimedOut { .. }) | HttpError::TimedOut { .. } => {
            Code::Timeout
        }
        HttpError::Connect(_) | HttpError::CutShort { .. } | HttpError::Io { .. } => Code::Network,
        HttpError::TlsSetup(_) => Code::LocalFile,
        HttpError::Proxy { source, .. } if source.is_login() => Code::Credentials,
        HttpError::Proxy {
            source: ProxyError::Connect(ConnectError::TimedOut { .. }) | ProxyError::Silent { .. },
            ..
        } => Code::Timeout,
        HttpError::Proxy { .. } => Code::Network,
        HttpError::Tls { .. } => Code::Tls,
        HttpError::Protocol { .. } => Code::Protocol,
    }
}
