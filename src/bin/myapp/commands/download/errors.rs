//! Messages, hints and exit codes of failed downloads.

use std::borrow::Cow;
use std::io;

use myapp::download::http::{HttpError, ProxyError};
use myapp::download::{Error as DownloadError, FailedItem, Obstacle, RedirectError};
use myapp::net::connect::ConnectError;
use myapp::net::tls::TlsError;

use crate::commands::tls_hints;
use crate::exit_code::ExitCode;
use crate::output::stderr;

/// Options that decide about hints.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    /// Whether there is a client certificate.
    pub(super) has_certificate: bool,
    /// Whether the failed file has left a part that can be resumed.
    pub(super) has_part: bool,
}

impl Hints {
    /// Returns the error message of a failed file. Empty for a broken pipe.
    pub(super) fn error_text(self, failed: &FailedItem) -> String {
        if code(&failed.source) == ExitCode::BrokenPipe {
            return String::new();
        }
        let text = format!("{failed}: {}", failed.cause());
        let hint = match failed.source {
            DownloadError::Status { status: 403, .. } if self.has_certificate => {
                // RFC 8446 section 4.6.2: only clients that offer it can be asked.
                Some(
                    "if this path alone requires the client certificate: it is sent in the first \
                     TLS handshake only"
                        .into(),
                )
            }
            DownloadError::ChecksumMismatch { .. } if !self.has_part => None,
            _ => glob_hint(failed)
                .map(Cow::from)
                .or_else(|| hint(&failed.source)),
        };
        stderr::error_text(anyhow::Error::msg(text).as_ref(), hint.as_deref())
    }
}

/// Returns the hint for a failed URL with a pattern that curl would have expanded.
fn glob_hint(failed: &FailedItem) -> Option<&'static str> {
    let can_be_cause = matches!(
        failed.source,
        DownloadError::Url(_)
            | DownloadError::Status {
                status: 400 | 403 | 404,
                ..
            }
            | DownloadError::Http(HttpError::Connect(_))
    );
    (can_be_cause && has_glob(&failed.url)).then_some(
        "patterns in URLs are not expanded; without quotes, the shell expands {1..10} and {a,b}",
    )
}

/// Returns whether a URL contains `[1-10]`, `[a-z]` or `{a,b}`, also with encoded braces.
fn has_glob(url: &str) -> bool {
    let url = url.replace("%7B", "{").replace("%7D", "}");
    let between = |open: char, close: char, is_pattern: &dyn Fn(&str) -> bool| {
        let starts = url.split(open).skip(1);
        let mut inner = starts.filter_map(|rest| Some(rest.split_once(close)?.0));
        inner.any(is_pattern)
    };
    let is_bound = |bound: &str| {
        let is_number = !bound.is_empty() && bound.bytes().all(|byte| byte.is_ascii_digit());
        is_number || bound.len() == 1 && bound.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let is_range = |inner: &str| {
        let range = inner
            .split(':')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(first, last)| is_bound(first) && is_bound(last))
    };
    between('[', ']', &is_range) || between('{', '}', &|inner| inner.contains(','))
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
        DownloadError::Http(HttpError::TlsSetup(source)) => {
            return tls_hints::setup_hint(source, "--cacert").map(Into::into);
        }
        DownloadError::Http(HttpError::InvalidProxy(_)) => "--proxy URL overrides the environment",
        DownloadError::Http(HttpError::Proxy {
            source: ProxyError::Tls { source },
            ..
        }) => return proxy_tls_hint(source),
        DownloadError::AuthScheme { schemes, .. }
        | DownloadError::Http(HttpError::Proxy {
            source: ProxyError::AuthScheme { schemes },
            ..
        }) => scheme_hint(schemes),
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
        DownloadError::DigestMismatch { .. } => {
            "--no-server-digest accepts the file, if the digest is wrong"
        }
        DownloadError::NotReplaceable { obstacle, .. } => return obstacle_hint(*obstacle),
        DownloadError::File { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
            "-d DIR sets the output directory"
        }
        _ => return None,
    };
    Some(text.into())
}

fn obstacle_hint(obstacle: Obstacle) -> Option<Cow<'static, str>> {
    let text = match obstacle {
        Obstacle::MountPoint | Obstacle::StickyDirectory => "--in-place writes into the file",
        Obstacle::UnwritableDirectory => {
            "to write into it: myapp download -o - URL | myapp cat --in-place -o FILE"
        }
        _ => return None,
    };
    Some(text.into())
}

fn scheme_hint(schemes: &str) -> &'static str {
    if schemes == "Basic" {
        "without --digest, the password is sent as Basic"
    } else {
        "Basic, Digest and bearer tokens are supported"
    }
}

fn tls_hint(error: &TlsError) -> Option<Cow<'static, str>> {
    let text = match error {
        TlsError::NotTls => "use an http:// URL to connect without TLS",
        TlsError::UnknownIssuer => "--cacert FILE adds the issuer's certificate",
        TlsError::CertificateRequired => "--cert FILE and --key FILE provide a client certificate",
        TlsError::CaUsedAsEndEntity { found } => return Some(stderr::pin_hint(found).into()),
        error => return tls_hints::handshake_hint(error).map(Into::into),
    };
    Some(text.into())
}

fn proxy_tls_hint(error: &TlsError) -> Option<Cow<'static, str>> {
    let text = match error {
        TlsError::NotTls => "use an http:// proxy to connect to it without TLS",
        TlsError::UnknownIssuer => "--proxy-cacert FILE trusts the issuer of the proxy",
        error => return tls_hints::handshake_hint(error).map(Into::into),
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
        | DownloadError::AuthScheme { .. }
        | DownloadError::Status {
            status: 401 | 407, ..
        } => ExitCode::Credentials,
        DownloadError::Status { .. }
        | DownloadError::HostDelay { .. }
        | DownloadError::MediaType { .. } => ExitCode::Status,
        DownloadError::RetryDeadline { source, .. }
        | DownloadError::Mirror { source, .. }
        | DownloadError::Redirected { source, .. } => code(source),
        DownloadError::ChecksumMismatch { .. }
        | DownloadError::DigestMismatch { .. }
        | DownloadError::MissingChecksum => ExitCode::Checksum,
        DownloadError::ReservedName { .. }
        | DownloadError::NotReplaceable { .. }
        | DownloadError::WriteInPlace { .. } => ExitCode::LocalFile,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_in_urls_are_recognised() {
        for url in [
            "http://a/[1-10]",
            "http://a/f[001-100].txt",
            "http://a/[a-z]",
            "http://a/[0-100:10]",
            "http://{one,two}.example/",
            "http://a/%7Bx,y%7D.iso",
        ] {
            assert!(has_glob(url), "{url}");
        }
        for url in [
            "http://[::1]:80/f",
            "http://[fe80::1%25eth-0]/f",
            "http://a/?x[]=1-2",
            "http://a/[draft]-2",
            "http://a/{id}",
            "http://a/]1-2[",
        ] {
            assert!(!has_glob(url), "{url}");
        }
    }
}
