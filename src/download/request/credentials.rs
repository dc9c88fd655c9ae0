//! Credentials and the origins that they are sent to.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::download::error::Error;
use crate::download::http::{BasicAuth, PasswordScheme};
use crate::download::request::cookies::CookieJar;
use crate::download::request::headers::is_value;
use crate::download::request::netrc::Netrc;

/// Credentials for servers. `Debug` omits secrets.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Authorization for each URL without credentials of its own. Default: none.
    pub authorization: Option<Authorization>,
    /// Cookies. Default: none.
    pub cookies: Vec<Cookie>,
    /// Cookies set by servers. Default: empty.
    pub jar: CookieJar,
    /// Credentials by host name, also used after a redirect. The `default` entry applies to the
    /// first origin only. Default: none.
    pub netrc: Option<Netrc>,
    /// Origins that receive the credentials. Default: [`Scope::FirstOrigin`].
    pub scope: Scope,
    /// Use of user names and passwords. Default: [`PasswordScheme::BasicFirst`].
    pub password_scheme: PasswordScheme,
}

/// Value of `Authorization`. A header field given by the user takes precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authorization {
    /// User name and password (RFC 7617).
    Basic(BasicAuth),
    /// Bearer token (RFC 6750).
    Bearer(Token),
}

/// Origins that receive the credentials of a URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The origin of the URL: its scheme, host and port.
    #[default]
    FirstOrigin,
    /// Also the targets of redirects.
    EveryOrigin,
}

/// Bearer token (RFC 6750 section 2.1). `Debug` omits it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Text that is not a [`Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token is not printable ASCII without spaces, or is empty")]
pub struct TokenError;

/// Cookie, `NAME=VALUE` (RFC 6265 section 4.2.1). `Debug` omits it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(String);

/// Text that is not a [`Cookie`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// The equals sign or the name is missing.
    #[error("not of the form NAME=VALUE")]
    Form,
    /// It contains a control character.
    #[error("cookie contains a control character")]
    Control,
}

impl Credentials {
    /// Returns the authorization for `url`. A host that is not `trusted` only receives
    /// its own netrc entry. A user name without a password is looked up there.
    ///
    /// # Errors
    ///
    /// [`Error::Netrc`] if the entry for the host cannot be sent.
    pub(crate) fn authorization(
        &self,
        url: &Url,
        own: Option<&BasicAuth>,
        trusted: bool,
    ) -> Result<Option<Authorization>, Error> {
        let failed = |source| Error::Netrc {
            host: url.host_str().unwrap_or_default().to_owned(),
            source,
        };
        if trusted && let Some(own) = own {
            let found = match &self.netrc {
                Some(netrc) if own.password().is_empty() => netrc.of_url(url, Some(own.user())),
                _ => Ok(None),
            };
            let login = found.map_err(failed)?;
            let login = login.unwrap_or_else(|| own.clone());
            return Ok(Some(Authorization::Basic(login)));
        }
        if trusted && self.authorization.is_some() {
            return Ok(self.authorization.clone());
        }
        let Some(netrc) = &self.netrc else {
            return Ok(None);
        };
        let found = match netrc.of_url(url, None) {
            Ok(None) if trusted => netrc.of_default(),
            found => found,
        };
        Ok(found.map_err(failed)?.map(Authorization::Basic))
    }

    /// Returns the value of `Cookie`.
    pub(crate) fn cookie(&self) -> Option<String> {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|cookie| cookie.0.as_str())
            .collect();
        (!cookies.is_empty()).then(|| cookies.join("; "))
    }
}

impl Token {
    /// Returns the value of `Authorization`.
    pub(crate) fn to_bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError)
        }
    }
}

impl FromStr for Cookie {
    type Err = CookieError;

    fn from_str(text: &str) -> Result<Self, CookieError> {
        match text.split_once('=') {
            None | Some(("", _)) => Err(CookieError::Form),
            Some(_) if !is_value(text) => Err(CookieError::Control),
            Some(_) => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(authorization: Option<Authorization>) -> Credentials {
        let netrc = "machine b login b password b\ndefault login d password d";
        Credentials {
            authorization,
            netrc: netrc.parse().ok(),
            ..Credentials::default()
        }
    }

    fn basic(text: &str) -> Option<Authorization> {
        Some(Authorization::Basic(text.parse().unwrap()))
    }

    #[test]
    fn url_login_precedes_option_precedes_netrc() {
        let own = "o:o".parse().unwrap();
        let user = Some(Authorization::Basic("u:u".parse().unwrap()));
        let token = Some(Authorization::Bearer("t".parse().unwrap()));
        for (given, own, host, trusted, wanted) in [
            (user.clone(), Some(&own), "a", true, basic("o:o")),
            (user.clone(), None, "b", true, basic("u:u")),
            (token.clone(), None, "a", true, token.clone()),
            (None, None, "b", true, basic("b:b")),
            (None, None, "B", true, basic("b:b")),
            (None, None, "a", true, basic("d:d")),
            (user, Some(&own), "b", false, basic("b:b")),
            (token, Some(&own), "a", false, None),
        ] {
            let url = format!("http://{host}:1/").parse().unwrap();
            let found = credentials(given).authorization(&url, own, trusted);
            assert_eq!(found.unwrap(), wanted, "{host} {trusted}");
        }
        let url = "http://a/".parse().unwrap();
        let none = Credentials::default().authorization(&url, None, true);
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn password_of_a_user_in_the_url_is_looked_up() {
        let netrc = "machine a login x password y machine a login u password p";
        let all = Credentials {
            netrc: netrc.parse().ok(),
            ..Credentials::default()
        };
        let url = "http://a/".parse().unwrap();
        for (own, wanted) in [("u:", "u:p"), ("u:q", "u:q"), ("z:", "z:")] {
            let own = own.parse().unwrap();
            let found = all.authorization(&url, Some(&own), true);
            assert_eq!(found.unwrap(), basic(wanted));
        }
    }

    #[test]
    fn netrc_ipv6_addresses_have_no_brackets() {
        let netrc = "machine ::1 login a password b".parse().ok();
        let found = Credentials {
            netrc,
            ..Credentials::default()
        };
        let url = "http://[::1]:8080/".parse().unwrap();
        assert_eq!(
            found.authorization(&url, None, false).unwrap(),
            basic("a:b")
        );
    }

    #[test]
    fn cookies_are_joined_into_one_field() {
        let cookies = ["a=b", "c=d; e=f"].map(|text| text.parse().unwrap()).into();
        let all = Credentials {
            cookies,
            ..Credentials::default()
        };
        assert_eq!(all.cookie().as_deref(), Some("a=b; c=d; e=f"));
        assert_eq!(Credentials::default().cookie(), None);
        assert_eq!("cookies.txt".parse::<Cookie>(), Err(CookieError::Form));
        assert_eq!("=b".parse::<Cookie>(), Err(CookieError::Form));
        assert_eq!("a=b\r\nc".parse::<Cookie>(), Err(CookieError::Control));
    }

    #[test]
    fn token_is_printable_ascii() {
        assert!("abc-._~+/=".parse::<Token>().is_ok());
        for text in ["", "a b", "a\n", "é"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text:?}");
        }
    }

    #[test]
    fn debug_omits_secrets() {
        let all = Credentials {
            authorization: Some(Authorization::Bearer("secret".parse().unwrap())),
            cookies: vec!["secret=secret".parse().unwrap()],
            netrc: "machine secret login secret password secret".parse().ok(),
            ..Credentials::default()
        };
        assert!(!format!("{all:?}").contains("secret"), "{all:?}");
    }
}
