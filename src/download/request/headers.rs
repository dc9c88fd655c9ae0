//! Header fields that the user adds to requests. They are validated before a request is sent,
//! and secrets are only sent to the first origin.

use std::str::FromStr;

use crate::download::http::is_token;

/// Fields that control message framing or the requested range. The downloader sets them itself,
/// and would misinterpret the response to other values.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Words in a field name that mark its value as a secret, such as `X-Api-Key`, `Private-Token`
/// or `X-Amz-Security-Token`.
const SECRET_WORDS: [&str; 8] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "password",
    "secret",
    "session",
    "token",
];

/// Header field, `NAME: VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

/// Text that is not a [`Header`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is no colon.
    #[error("not of the form 'NAME: VALUE'")]
    Form,
    /// The name is empty or contains an invalid character (RFC 9110 section 5.1).
    #[error("invalid header name")]
    Name,
    /// The value contains a control character (RFC 9110 section 5.5).
    #[error("value contains a control character")]
    Value,
    /// The field is set by the downloader.
    #[error("{0} is set by the program itself")]
    Own(String),
}

impl Header {
    /// Returns the name in its original case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value without surrounding whitespace.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Returns whether a field of this name contains a credential for an origin. Such fields are only
/// sent to the first origin.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // It is sent to the proxy only, for requests to any origin.
    name != "proxy-authorization" && SECRET_WORDS.iter().any(|word| name.contains(word))
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
        if RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            return Err(HeaderError::Own(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Omits the value, which may be a secret.
impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

pub(crate) fn is_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_ascii_control() && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_name_colon_value() {
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
    fn request_smuggling_headers_are_rejected() {
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
    fn secret_field_names_are_recognized() {
        for name in [
            "Authorization",
            "cookie",
            "Cookie2",
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
            // For the proxy, not for an origin.
            "Proxy-Authorization",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn debug_omits_the_value() {
        let header: Header = "Authorization: Bearer abc".parse().unwrap();
        assert_eq!(format!("{header:?}"), "Authorization: ***");
    }
}
