//! A user name and password, for servers and for proxies: pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

/// A user name and password that can be sent as RFC 7617 has it. Its `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

/// What is no [`Login`]. The text names no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// There is no colon.
    #[error("not of the form USER:PASSWORD")]
    Form,
    /// A control character (RFC 7617 section 2).
    #[error("a user name or password holds a control character")]
    Control,
    /// A colon in the name would end it (RFC 7617 section 2).
    #[error("a user name holds a colon")]
    Colon,
    /// What the percent signs of a URL stand for is no UTF-8.
    #[error("a user name or password is no text")]
    Text,
}

impl Login {
    /// Makes one of its parts; either may be empty.
    ///
    /// # Errors
    ///
    /// [`LoginError`] for what cannot be sent.
    pub fn new(user: &str, password: &str) -> Result<Self, LoginError> {
        if user.contains(':') {
            return Err(LoginError::Colon);
        }
        if [user, password]
            .iter()
            .any(|part| part.chars().any(char::is_control))
        {
            return Err(LoginError::Control);
        }
        Ok(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// The name and password that stand in a URL, percent-decoded (RFC 3986 section 3.2.1).
    ///
    /// # Errors
    ///
    /// [`LoginError`] for what cannot be sent.
    pub fn of_url(url: &Url) -> Result<Option<Self>, LoginError> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(None);
        }
        let decode = |part| {
            percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| LoginError::Text)
        };
        let (user, password) = (
            decode(url.username())?,
            decode(url.password().unwrap_or(""))?,
        );
        Self::new(&user, &password).map(Some)
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The value of `Authorization` or `Proxy-Authorization`.
    pub(in crate::download) fn to_basic(&self) -> String {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }
}

impl FromStr for Login {
    type Err = LoginError;

    /// Reads `USER:PASSWORD`; further colons belong to the password.
    fn from_str(text: &str) -> Result<Self, LoginError> {
        let (user, password) = text.split_once(':').ok_or(LoginError::Form)?;
        Self::new(user, password)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_name_a_colon_and_a_password() {
        for (text, user, password, basic) in [
            (
                "Aladdin:open sesame",
                "Aladdin",
                "open sesame",
                "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("test:123£", "test", "123£", "dGVzdDoxMjPCow=="),
            ("a:b:c", "a", "b:c", "YTpiOmM="),
            (":", "", "", "Og=="),
        ] {
            let login: Login = text.parse().unwrap();
            assert_eq!((login.user(), login.password()), (user, password), "{text}");
            assert_eq!(login.to_basic(), format!("Basic {basic}"), "{text}");
            assert_eq!(format!("{login:?}"), "***");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for (text, error) in [
            ("secret", LoginError::Form),
            ("", LoginError::Form),
            ("a:b\r\nc", LoginError::Control),
            ("a\0:b", LoginError::Control),
        ] {
            assert_eq!(text.parse::<Login>(), Err(error), "{text:?}");
        }
        assert_eq!(Login::new("a:b", ""), Err(LoginError::Colon));
    }

    #[test]
    fn a_url_holds_a_login_in_percent_signs() {
        let of = |url: &str| Login::of_url(&url.parse().unwrap());
        for (url, login) in [
            ("http://h/", None),
            ("http://@h/", None),
            ("http://token@h/", Some("token:")),
            ("http://a%40b:c%3Ad@h/", Some("a@b:c:d")),
            ("http://:p@h/", Some(":p")),
            ("http://ü:p%25@h/", Some("ü:p%")),
        ] {
            assert_eq!(
                of(url),
                Ok(login.map(|text| text.parse().unwrap())),
                "{url}"
            );
        }
        assert_eq!(of("http://a%3Ab:c@h/"), Err(LoginError::Colon));
        assert_eq!(of("http://a:%0D%0A@h/"), Err(LoginError::Control));
        assert_eq!(of("http://a:%FF@h/"), Err(LoginError::Text));
    }
}
