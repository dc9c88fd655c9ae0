//! Credential options.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use myapp::download::http::{BasicAuth, PasswordScheme};
use myapp::download::{
    Authorization, Config, Cookie, CookieError, CookieJar, Credentials, Header, Netrc, Scope, Token,
};
use url::Url;

use crate::exit_code::{CommandError, ExitCode};
use crate::home;
use crate::output::report_file::ReportFile;
use crate::output::stderr;
use crate::redacted_arg::secret;

/// Maximum size of a netrc or cookie file.
const MAX_FILE_LEN: u64 = 1024 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Credentials (sent to the first origin only)")]
pub(super) struct CredentialOptions {
    /// User name and password; those in a URL take precedence
    #[arg(short, long, value_name = "USER:PASSWORD", value_parser = secret::<BasicAuth>(), conflicts_with = "bearer")]
    user: Option<BasicAuth>,
    /// Send passwords by HTTP Digest only, to servers and proxies, never as Basic
    #[arg(long)]
    digest: bool,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", value_parser = secret::<Token>())]
    bearer: Option<Token>,
    /// NAME=VALUE, or a Netscape cookie file to read (repeatable)
    #[arg(short = 'b', long, value_name = "COOKIE", value_parser = secret::<CookieOrFile>())]
    cookie: Vec<CookieOrFile>,
    /// Read cookies from a Netscape file (repeatable)
    #[arg(long, value_name = "FILE", value_parser = home::path())]
    load_cookies: Vec<PathBuf>,
    /// Write all cookies to a Netscape file at the end
    #[arg(long, value_name = "FILE", value_parser = home::path())]
    save_cookies: Option<PathBuf>,
    /// Read user names and passwords from ~/.netrc, per origin
    #[arg(long)]
    netrc: bool,
    /// Read them from FILE instead of ~/.netrc
    #[arg(long, value_name = "FILE", value_parser = home::path())]
    netrc_file: Option<PathBuf>,
    /// Send credentials to redirect targets on other origins too
    #[arg(long)]
    location_trusted: bool,
    /// Referer header
    #[arg(long, value_name = "URL", value_parser = secret::<Referer>(), help_heading = "Requests")]
    referer: Option<Referer>,
}

impl CredentialOptions {
    /// Applies the options to `config`; reads the netrc file.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), CommandError> {
        for (field, option, given) in [
            ("Authorization", "-u", self.user.is_some()),
            ("Authorization", "--bearer", self.bearer.is_some()),
            ("Cookie", "-b", self.cookies().next().is_some()),
            ("Referer", "--referer", self.referer.is_some()),
        ] {
            let twice = |header: &Header| header.name().eq_ignore_ascii_case(field);
            if given && config.headers.iter().any(twice) {
                let text = format!("-H '{field}: …' and {option} set the same header");
                return Err(CommandError::usage(text).hint("use one of them"));
            }
        }
        let netrc = self
            .netrc_path()?
            .map(|path| read_netrc(&path))
            .transpose()?;
        let jar = CookieJar::default();
        for path in self.cookie_files() {
            jar.extend(&read_cookies(path)?);
        }
        let password_scheme = if self.digest {
            PasswordScheme::DigestOnly
        } else {
            PasswordScheme::BasicFirst
        };
        config.connect.proxy_passwords = password_scheme;
        let user = self.user.clone().map(Authorization::Basic);
        config
            .headers
            .extend(self.referer.clone().map(|Referer(header)| header));
        config.credentials = Credentials {
            authorization: user.or(self.bearer.clone().map(Authorization::Bearer)),
            cookies: self.cookies().cloned().collect(),
            jar,
            netrc,
            scope: if self.location_trusted {
                Scope::EveryOrigin
            } else {
                Scope::FirstOrigin
            },
            password_scheme,
        };
        Ok(())
    }

    /// Creates the file of `--save-cookies`, so that an error ends the run before it starts.
    pub(super) fn create_cookie_file(&self) -> Result<Option<ReportFile>, CommandError> {
        let path = self.save_cookies.as_deref();
        path.map(ReportFile::create_private).transpose()
    }

    fn cookies(&self) -> impl Iterator<Item = &Cookie> {
        self.cookie.iter().filter_map(|given| match given {
            CookieOrFile::Cookie(cookie) => Some(cookie),
            CookieOrFile::File(_) => None,
        })
    }

    fn cookie_files(&self) -> impl Iterator<Item = &Path> {
        let given = self.cookie.iter().filter_map(|given| match given {
            CookieOrFile::Cookie(_) => None,
            CookieOrFile::File(path) => Some(path),
        });
        given.chain(&self.load_cookies).map(PathBuf::as_path)
    }

    fn netrc_path(&self) -> Result<Option<PathBuf>, CommandError> {
        if self.netrc_file.is_some() || !self.netrc {
            return Ok(self.netrc_file.clone());
        }
        let home = env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .ok_or_else(|| {
                CommandError::usage("--netrc reads ~/.netrc, but HOME is not set")
                    .hint("use --netrc-file FILE")
            })?;
        Ok(Some(Path::new(&home).join(".netrc")))
    }
}

fn read_netrc(path: &Path) -> Result<Netrc, CommandError> {
    let netrc = read_file(path).map(|bytes| Netrc::from_bytes(&bytes));
    in_file("netrc file", path, netrc)
}

fn read_cookies(path: &Path) -> Result<CookieJar, CommandError> {
    let jar = read_file(path).and_then(|bytes| Ok(str::from_utf8(&bytes)?.parse()?));
    in_file("cookie file", path, jar)
}

fn read_file(path: &Path) -> Result<Vec<u8>, anyhow::Error> {
    let mut bytes = Vec::new();
    let length = File::open(path)?
        .take(MAX_FILE_LEN + 1)
        .read_to_end(&mut bytes)?;
    if length as u64 > MAX_FILE_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    Ok(bytes)
}

fn in_file<T>(kind: &str, path: &Path, read: Result<T, anyhow::Error>) -> Result<T, CommandError> {
    read.with_context(|| format!("read {kind} {}", stderr::path(path)))
        .map_err(|error| CommandError::new(ExitCode::LocalFile, error))
}

/// Argument of `--cookie`: as in curl, a text without an equals sign is a file.
#[derive(Debug, Clone)]
enum CookieOrFile {
    Cookie(Cookie),
    File(PathBuf),
}

impl std::str::FromStr for CookieOrFile {
    type Err = CookieError;

    fn from_str(text: &str) -> Result<Self, CookieError> {
        if text.is_empty() || text.contains('=') {
            text.parse().map(Self::Cookie)
        } else {
            Ok(Self::File(home::expand(text.as_ref())))
        }
    }
}

/// `Referer` header without userinfo and fragment (RFC 9110 section 10.1.3).
#[derive(Debug, Clone)]
struct Referer(Header);

impl std::str::FromStr for Referer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, anyhow::Error> {
        let mut url: Url = text.parse().map_err(|_| anyhow::Error::msg("not a URL"))?;
        url.set_fragment(None);
        // Fails only for a URL without a host, which has no userinfo either.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self(format!("Referer: {url}").parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: CredentialOptions,
    }

    fn config(line: &[&str]) -> Result<Config, CommandError> {
        let options = Line::try_parse_from([&["download"], line].concat())
            .unwrap()
            .options;
        let mut config = Config {
            headers: vec!["cookie: x".parse().unwrap()],
            ..Config::default()
        };
        options.apply(&mut config).map(|()| config)
    }

    #[test]
    fn credential_options_reach_the_configuration() {
        let basic = config(&["-u", "a:b", "--location-trusted"])
            .unwrap()
            .credentials;
        assert_eq!(
            basic.authorization,
            Some(Authorization::Basic("a:b".parse().unwrap()))
        );
        assert_eq!((basic.scope, basic.netrc), (Scope::EveryOrigin, None));
        let bearer = config(&["--bearer", "t"]).unwrap().credentials;
        assert_eq!(
            bearer.authorization,
            Some(Authorization::Bearer("t".parse().unwrap()))
        );
        assert_eq!(bearer.scope, Scope::FirstOrigin);
        let referer = config(&["--referer", "http://u:p@h/x#y"]).unwrap();
        assert_eq!(referer.headers[1].value(), "http://h/x");
    }

    #[test]
    fn header_set_twice_is_a_usage_error() {
        assert_eq!(config(&["-b", "c=d"]).unwrap_err().code, ExitCode::Usage);
    }

    #[test]
    fn unreadable_netrc_file_is_an_error() {
        let failure = config(&["--netrc-file", "/nowhere/netrc"]).unwrap_err();
        assert_eq!(failure.code, ExitCode::LocalFile);
        let text = failure.error.to_string();
        assert_eq!(text, "read netrc file /nowhere/netrc");
    }
}
