//! Credential options.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use myapp::download::http::BasicAuth;
use myapp::download::{Authorization, Config, Cookie, Credentials, Header, Netrc, Scope, Token};
use url::Url;

use crate::exit_code::{CommandError, ExitCode};
use crate::output::stderr;
use crate::redacted_arg::secret;

/// Maximum size of a netrc file.
const MAX_NETRC_LEN: u64 = 1024 * 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Credentials (sent to the first origin only)")]
pub(super) struct CredentialOptions {
    /// User name and password; those in a URL take precedence
    #[arg(short, long, value_name = "USER:PASSWORD", value_parser = secret::<BasicAuth>(), conflicts_with = "bearer")]
    user: Option<BasicAuth>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", value_parser = secret::<Token>())]
    bearer: Option<Token>,
    /// Cookie (repeatable)
    #[arg(short = 'b', long, value_name = "NAME=VALUE", value_parser = secret::<Cookie>())]
    cookie: Vec<Cookie>,
    /// Read user names and passwords from ~/.netrc, per origin
    #[arg(long)]
    netrc: bool,
    /// Read them from FILE instead of ~/.netrc
    #[arg(long, value_name = "FILE")]
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
            ("Cookie", "-b", !self.cookie.is_empty()),
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
        let user = self.user.clone().map(Authorization::Basic);
        config
            .headers
            .extend(self.referer.clone().map(|Referer(header)| header));
        config.credentials = Credentials {
            authorization: user.or(self.bearer.clone().map(Authorization::Bearer)),
            cookies: self.cookie.clone(),
            netrc,
            scope: if self.location_trusted {
                Scope::EveryOrigin
            } else {
                Scope::FirstOrigin
            },
        };
        Ok(())
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
    let read = || -> Result<Netrc, anyhow::Error> {
        let mut text = String::new();
        let length = File::open(path)?
            .take(MAX_NETRC_LEN + 1)
            .read_to_string(&mut text)?;
        if length as u64 > MAX_NETRC_LEN {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        Ok(text.parse()?)
    };
    read()
        .with_context(|| format!("read netrc file {}", stderr::path(path)))
        .map_err(|error| CommandError::new(ExitCode::LocalFile, error))
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
