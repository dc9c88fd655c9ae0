//! HTTP Basic authentication (RFC 7617) for servers and proxies.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

/// User name and password for Basic authentication (RFC 7617). `Debug` redacts both.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    user: String,
    password: String,
}

/// Error of an invalid [`BasicAuth`]. The message contains no part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BasicAuthError {
    /// The separating colon is missing.
    #[error("not of the form USER:PASSWORD")]
    MissingColon,
    /// Control characters are not allowed (RFC 7617 section 2).
    #[error("control character in user name or password")]
    ControlCharacter,
    /// A colon is not allowed in the user name (RFC 7617 section 2).
    #[error("colon in user name")]
    ColonInUser,
    /// The percent-decoded bytes are not UTF-8.
    #[error("user name or password is not UTF-8")]
    InvalidUtf8,
}

impl BasicAuth {
    /// Creates credentials; either part may be empty.
    ///
    /// # Errors
    ///
    /// [`BasicAuthError`] if the credentials cannot be sent.
    pub fn new(user: &str, password: &str) -> Result<Self, BasicAuthError> {
        if user.contains(':') {
            return Err(BasicAuthError::ColonInUser);
        }
        if [user, password]
            .iter()
            .any(|part| part.chars().any(char::is_control))
        {
            return Err(BasicAuthError::ControlCharacter);
        }
        Ok(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Returns the user name and password of a URL, percent-decoded (RFC 3986 section 3.2.1).
    ///
    /// # Errors
    ///
    /// [`BasicAuthError`] if the credentials cannot be sent.
    pub(crate) fn from_url(url: &Url) -> Result<Option<Self>, BasicAuthError> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(None);
        }
        let decode = |part| {
            percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| BasicAuthError::InvalidUtf8)
        };
        let user = decode(url.username())?;
        let password = decode(url.password().unwrap_or(""))?;
        Self::new(&user, &password).map(Some)
    }

    /// Returns the user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns the value of `Authorization` or `Proxy-Authorization`.
    pub(in crate::download) fn to_basic(&self) -> String {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }
}

impl FromStr for BasicAuth {
    type Err = BasicAuthError;

    /// Parses `USER:PASSWORD`; further colons belong to the password.
    fn from_str(text: &str) -> Result<Self, BasicAuthError> {
        let (user, password) = text.split_once(':').ok_or(BasicAuthError::MissingColon)?;
        Self::new(user, password)
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_split_at_the_first_colon() {
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
            let login: BasicAuth = text.parse().unwrap();
            assert_eq!((login.user(), login.password()), (user, password), "{text}");
            assert_eq!(login.to_basic(), format!("Basic {basic}"), "{text}");
            assert_eq!(format!("{login:?}"), "***");
        }
    }

    #[test]
    fn invalid_credentials_are_rejected() {
        for (text, error) in [
            ("secret", BasicAuthError::MissingColon),
            ("", BasicAuthError::MissingColon),
            ("a:b\r\nc", BasicAuthError::ControlCharacter),
            ("a\0:b", BasicAuthError::ControlCharacter),
        ] {
            assert_eq!(text.parse::<BasicAuth>(), Err(error), "{text:?}");
        }
        assert_eq!(BasicAuth::new("a:b", ""), Err(BasicAuthError::ColonInUser));
    }

    #[test]
    fn url_credentials_are_percent_decoded() {
        let of = |url: &str| BasicAuth::from_url(&url.parse().unwrap());
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
        assert_eq!(of("http://a%3Ab:c@h/"), Err(BasicAuthError::ColonInUser));
        assert_eq!(
            of("http://a:%0D%0A@h/"),
            Err(BasicAuthError::ControlCharacter)
        );
        assert_eq!(of("http://a:%FF@h/"), Err(BasicAuthError::InvalidUtf8));
    }
}
