//! Header fields that a person adds to the requests: checked before anything is sent, and kept
//! from servers that they are not meant for.

use std::str::FromStr;

/// Fields that say how the message itself is framed, or which part of the file is wanted: the
/// downloader writes them, and would misread the answer to any others.
const OWN: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Words in a field's name that mark its value as a secret, beside those of the standards:
/// `X-Api-Key`, `Private-Token`, `X-Amz-Security-Token` and their many kin.
const SECRET: [&str; 8] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "password",
    "secret",
    "session",
    "token",
];

/// One header field, `NAME: VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

/// A text that is no [`Header`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no colon.
    #[error("not of the form 'NAME: VALUE'")]
    Form,
    /// The name is empty or holds characters that no name has (RFC 9110 section 5.1).
    #[error("the name before the colon is no header name")]
    Name,
    /// The value holds a control character (RFC 9110 section 5.5).
    #[error("the value holds a control character")]
    Value,
    /// The field is written by the downloader itself.
    #[error("{0} is set by the program itself")]
    Own(String),
}

impl Header {
    /// The name, as it was typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, without the blanks around it.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Whether a field of this name carries a credential: it is meant for the first origin alone.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

impl FromStr for Header {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let (name, value) = text.split_once(':').ok_or(HeaderError::Form)?;
        let value = value.trim_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeaderError::Name);
        }
        if !is_value(value) {
            return Err(HeaderError::Value);
        }
        if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(HeaderError::Own(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Without the value, which may be a secret.
impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

pub(crate) fn is_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_ascii_control() && c != '\t')
}

/// The characters of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_a_colon_and_a_value() {
        for (text, name, value) in [
            ("Accept: text/html", "Accept", "text/html"),
            ("X:", "X", ""),
            ("x-a:b:c \t", "x-a", "b:c"),
            ("X-Name: Zoë", "X-Name", "Zoë"),
        ] {
            let header: Header = text.parse().unwrap();
            assert_eq!((header.name(), header.value()), (name, value), "{text}");
        }
    }

    #[test]
    fn what_could_forge_a_request_is_refused() {
        for (text, error) in [
            ("Accept", HeaderError::Form),
            (": x", HeaderError::Name),
            ("A B: x", HeaderError::Name),
            ("Näme: x", HeaderError::Name),
            ("A\r\nB: x", HeaderError::Name),
            ("A: x\r\nB: y", HeaderError::Value),
            ("A: \0", HeaderError::Value),
            (
                "transfer-encoding: chunked",
                HeaderError::Own("transfer-encoding".into()),
            ),
            ("Range: bytes=0-9", HeaderError::Own("Range".into())),
        ] {
            assert_eq!(text.parse::<Header>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn fields_that_carry_credentials_are_known() {
        for name in [
            "Authorization",
            "cookie",
            "Cookie2",
            "Proxy-Authorization",
            "X-Api-Key",
            "PRIVATE-TOKEN",
            "X-Amz-Security-Token",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "Accept",
            "Accept-Language",
            "Referer",
            "User-Agent",
            "X-Trace-Id",
            "Host",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_value_is_not_shown() {
        let header: Header = "Authorization: Bearer abc".parse().unwrap();
        assert_eq!(format!("{header:?}"), "Authorization: ***");
    }
}
