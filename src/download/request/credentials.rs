//! Who asks: what proves it, and to which servers it is told. Pure.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::download::http::BasicAuth;
use crate::download::request::headers::is_value;
use crate::download::request::netrc::Netrc;

/// What is told to servers about who asks. `Debug` shows no secret of it.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// What is sent to the server of each URL that holds no login of its own. Default: nothing.
    pub authorization: Option<Authorization>,
    /// The cookies that are sent along. Default: none.
    pub cookies: Vec<Cookie>,
    /// Where the logins of further servers are found, each by its name: also of those that a
    /// redirect leads to. Its `default` entry is for the first server alone. Default: nowhere.
    pub netrc: Option<Netrc>,
    /// Who else is told. Default: nobody.
    pub scope: Scope,
}

/// What an `Authorization` field holds. A field that is among the given headers counts more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// A name and a password (RFC 7617).
    Basic(BasicAuth),
    /// A token (RFC 6750).
    Bearer(Token),
}

/// Who is told what is meant for the server of a URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// That server alone: its scheme, host and port.
    #[default]
    FirstOrigin,
    /// Whoever a redirect leads to as well.
    EveryOrigin,
}

/// A bearer token (RFC 6750 section 2.1). Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A text that is no [`Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is not empty and holds no blanks and no characters beyond ASCII")]
pub struct TokenError;

/// Cookies as they are sent, `NAME=VALUE` (RFC 6265 section 4.2.1). Its `Debug` does not show
/// them.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(String);

/// A text that is no [`Cookie`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// There is no equals sign, or no name before it.
    #[error("not of the form NAME=VALUE")]
    Form,
    /// It would break the request.
    #[error("a cookie holds a control character")]
    Control,
}

impl Credentials {
    /// The value of `Authorization` for `url`. To a server that is not `trusted` goes only what
    /// the netrc file has for it by name.
    pub(crate) fn authorization(
        &self,
        url: &Url,
        own: Option<&BasicAuth>,
        trusted: bool,
    ) -> Option<String> {
        let given = own
            .map(BasicAuth::to_basic)
            .or_else(|| Some(self.authorization.as_ref()?.value()));
        if let Some(given) = given.filter(|_| trusted) {
            return Some(given);
        }
        let netrc = self.netrc.as_ref()?;
        let host = url.host_str()?.trim_matches(['[', ']']);
        let found = netrc.of_machine(host);
        found
            .or_else(|| netrc.of_default().filter(|_| trusted))
            .map(BasicAuth::to_basic)
    }

    /// The value of `Cookie`.
    pub(crate) fn cookie(&self) -> Option<String> {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|cookie| cookie.0.as_str())
            .collect();
        (!cookies.is_empty()).then(|| cookies.join("; "))
    }
}

impl Authorization {
    fn value(&self) -> String {
        match self {
            Self::Basic(login) => login.to_basic(),
            Self::Bearer(Token(token)) => format!("Bearer {token}"),
        }
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

    fn basic(text: &str) -> Option<String> {
        Some(text.parse::<BasicAuth>().unwrap().to_basic())
    }

    #[test]
    fn the_urls_own_login_counts_more_than_the_given_one_and_that_more_than_the_file() {
        let own = "o:o".parse().unwrap();
        let user = Some(Authorization::Basic("u:u".parse().unwrap()));
        let token = Some(Authorization::Bearer("t".parse().unwrap()));
        for (given, own, host, trusted, wanted) in [
            (user.clone(), Some(&own), "a", true, basic("o:o")),
            (user.clone(), None, "b", true, basic("u:u")),
            (token.clone(), None, "a", true, Some("Bearer t".to_owned())),
            (None, None, "b", true, basic("b:b")),
            (None, None, "B", true, basic("b:b")),
            (None, None, "a", true, basic("d:d")),
            (user, Some(&own), "b", false, basic("b:b")),
            (token, Some(&own), "a", false, None),
        ] {
            let url = format!("http://{host}:1/").parse().unwrap();
            let found = credentials(given).authorization(&url, own, trusted);
            assert_eq!(found, wanted, "{host} {trusted}");
        }
        let url = "http://a/".parse().unwrap();
        assert_eq!(Credentials::default().authorization(&url, None, true), None);
    }

    #[test]
    fn an_ipv6_address_stands_in_the_file_without_its_brackets() {
        let netrc = "machine ::1 login a password b".parse().ok();
        let found = Credentials {
            netrc,
            ..Credentials::default()
        };
        let url = "http://[::1]:8080/".parse().unwrap();
        assert_eq!(found.authorization(&url, None, false), basic("a:b"));
    }

    #[test]
    fn cookies_are_one_field() {
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
    fn a_token_is_one_word() {
        assert!("abc-._~+/=".parse::<Token>().is_ok());
        for text in ["", "a b", "a\n", "é"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text:?}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let all = Credentials {
            authorization: Some(Authorization::Bearer("secret".parse().unwrap())),
            cookies: vec!["secret=secret".parse().unwrap()],
            netrc: "machine secret login secret password secret".parse().ok(),
            scope: Scope::EveryOrigin,
        };
        assert!(!format!("{all:?}").contains("secret"), "{all:?}");
    }
}
