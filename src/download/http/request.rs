//! Request head encoder (RFC 9112 sections 3, 5 and 6).

use std::io::Write;

use http_client::http_types::Method;
use url::{Position, Url};

use super::error::HttpError;
use crate::escape::Escaped;

/// Length from which a body is announced with `Expect: 100-continue`, as in curl.
const MIN_EXPECT_LEN: u64 = 1024 * 1024;

/// Field with the credentials for a proxy (RFC 9110 section 11.7.2).
pub(super) const PROXY_AUTHORIZATION: &str = "Proxy-Authorization";

/// Framing of a request body (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestLength {
    /// No body and no `Content-Length`.
    NoBody,
    /// `Content-Length`.
    Known(u64),
    /// Chunked transfer coding.
    Chunked,
}

impl RequestLength {
    /// Returns the framing of a body of `length` bytes, if that is known. An empty body is only
    /// announced for methods that anticipate one (RFC 9110 section 8.6).
    pub(super) fn new(method: Method, length: Option<usize>) -> Self {
        let anticipates_body = matches!(method, Method::Post | Method::Put | Method::Patch);
        match length {
            None => Self::Chunked,
            Some(0) if !anticipates_body => Self::NoBody,
            Some(length) => Self::Known(length as u64),
        }
    }

    /// Returns whether there is a body of at least one byte, or of unknown length.
    pub(super) fn has_body(self) -> bool {
        !matches!(self, Self::NoBody | Self::Known(0))
    }
}

/// Use of `Expect: 100-continue` (RFC 9110 section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    /// For large bodies, and if a header requests it.
    Auto,
    /// Never: the server does not support it.
    Never,
}

/// Parts of a request from which its head is encoded.
pub(super) struct RequestParts<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) length: RequestLength,
    pub(super) expectation: Expectation,
    pub(super) user_agent: &'a str,
    /// Whether a proxy receives the request itself instead of a tunnel.
    pub(super) is_for_proxy: bool,
    /// Value of `Proxy-Authorization` for that proxy.
    pub(super) proxy_authorization: Option<&'a str>,
}

/// Encoded request head.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) bytes: Vec<u8>,
    /// Whether the body waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// Whether the request contains `Connection: close`.
    pub(super) closes: bool,
}

/// Framing-related properties of the given headers.
#[derive(Default)]
struct Given {
    host: bool,
    expects_continue: Option<bool>,
    closes: bool,
}

impl RequestParts<'_> {
    /// Encodes the head. `Host`, `User-Agent`, `Accept` and `Accept-Encoding` are added unless
    /// given; user and password in the URL are not sent. A request to a proxy uses the absolute
    /// form (RFC 9112 section 3.2.2) and `Proxy-Authorization`, which no other request contains.
    ///
    /// `Content-Length`, `Transfer-Encoding` and `Expect` are derived from the body. Given ones
    /// must agree with it: a server that reads another length takes a part of the body for the
    /// next request, or waits for more (RFC 9112 section 11.2).
    ///
    /// # Errors
    ///
    /// [`HttpError::InvalidHeader`] for an invalid name or value and for contradictory framing;
    /// [`HttpError::UnsupportedRequest`] for CONNECT and for TRACE with a body.
    pub(super) fn encode(&self) -> Result<RequestHead, HttpError> {
        self.check_method()?;
        let given = self.check_fields()?;
        let mut head = self.request_line()?;
        let host = &self.url[Position::BeforeHost..Position::AfterPort];
        let defaults = [
            ("Host", host),
            ("User-Agent", self.user_agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
        ];
        for (name, value) in defaults {
            let is_given = self
                .fields
                .iter()
                .any(|(given, _)| given.eq_ignore_ascii_case(name));
            // Defaults are valid: `Transport::new` validated the user agent.
            if !is_given && !value.is_empty() {
                write_field(&mut head, name, value);
            }
        }
        for (name, value) in self.fields {
            // That of the proxy is written below; an origin must not receive it.
            if !is_derived(name) && !name.eq_ignore_ascii_case(PROXY_AUTHORIZATION) {
                write_field(&mut head, name, value);
            }
        }
        if let Some(authorization) = self.proxy_authorization {
            write_field(&mut head, PROXY_AUTHORIZATION, authorization);
        }
        match self.length {
            RequestLength::NoBody => {}
            // Writing to a vector cannot fail.
            RequestLength::Known(length) => {
                let _ = write!(head, "Content-Length: {length}\r\n");
            }
            RequestLength::Chunked => write_field(&mut head, "Transfer-Encoding", "chunked"),
        }
        let expects_continue = self.expects_continue(&given);
        if expects_continue {
            write_field(&mut head, "Expect", "100-continue");
        }
        head.extend_from_slice(b"\r\n");
        Ok(RequestHead {
            bytes: head,
            expects_continue,
            closes: given.closes,
        })
    }

    fn check_method(&self) -> Result<(), HttpError> {
        let problem = match self.method {
            Method::Connect => "CONNECT is not supported",
            // The connection preface of HTTP/2 (RFC 9113 section 11.1).
            Method::Pri => "PRI is not a method of HTTP/1.1",
            // RFC 9110 section 9.3.8.
            Method::Trace if self.length != RequestLength::NoBody => "TRACE has no body",
            _ => return Ok(()),
        };
        Err(HttpError::UnsupportedRequest { problem })
    }

    fn check_fields(&self) -> Result<Given, HttpError> {
        let mut given = Given::default();
        for (name, value) in self.fields {
            validate_header(name, value)?;
            if let Err(problem) = self.check_framing(name, value, &mut given) {
                return Err(invalid(name, problem));
            }
        }
        Ok(given)
    }

    /// Checks the headers that control the connection and the length of the body.
    fn check_framing(
        &self,
        name: &str,
        value: &str,
        given: &mut Given,
    ) -> Result<(), &'static str> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            // RFC 9112 section 3.2.
            if std::mem::replace(&mut given.host, true) {
                return Err("given more than once");
            }
        } else if is("content-length") {
            let length = match self.length {
                RequestLength::NoBody => Some(0),
                RequestLength::Known(length) => Some(length),
                RequestLength::Chunked => None,
            };
            if length.is_none_or(|length| value != length.to_string()) {
                return Err("not the length of the body");
            }
        } else if is("transfer-encoding") {
            if self.length != RequestLength::Chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err("not the transfer coding of the body");
            }
        } else if is("expect") {
            given.expects_continue = match value {
                "" => Some(false),
                value if value.eq_ignore_ascii_case("100-continue") => Some(true),
                _ => return Err("only 100-continue is supported"),
            };
        } else if is("connection") {
            given.closes |= check_connection(value)?;
        } else if is("upgrade") {
            return Err("not supported");
        }
        Ok(())
    }

    fn expects_continue(&self, given: &Given) -> bool {
        // RFC 9110 section 10.1.1: never without a body.
        self.expectation == Expectation::Auto
            && self.length.has_body()
            && given.expects_continue.unwrap_or(matches!(
                self.length,
                RequestLength::Known(MIN_EXPECT_LEN..)
            ))
    }

    fn request_line(&self) -> Result<Vec<u8>, HttpError> {
        // The URL parser encodes all other bytes; this check prevents request splitting if it
        // fails to.
        let target = &self.url[Position::BeforePath..Position::AfterQuery];
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HttpError::UnsupportedUrl);
        }
        let mut line = Vec::with_capacity(512);
        line.extend_from_slice(self.method.as_ref().as_bytes());
        line.push(b' ');
        if self.is_for_proxy {
            line.extend_from_slice(absolute_form(self.url).as_bytes());
        } else {
            line.extend_from_slice(target.as_bytes());
        }
        line.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(line)
    }
}

/// Returns the target of a request to a proxy (RFC 9112 section 3.2.2).
pub(super) fn absolute_form(url: &Url) -> String {
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let target = &url[Position::BeforePath..Position::AfterQuery];
    format!("{}://{host}{target}", url.scheme())
}

/// Returns whether a header is derived from the body, so that a given one is not copied.
fn is_derived(name: &str) -> bool {
    ["content-length", "transfer-encoding", "expect"]
        .iter()
        .any(|derived| name.eq_ignore_ascii_case(derived))
}

/// Returns whether `Connection` contains `close`. Other options than `close` and `keep-alive` would
/// make proxies remove the headers of that name (RFC 9110 section 7.6.1).
fn check_connection(value: &str) -> Result<bool, &'static str> {
    let mut closes = false;
    for option in value.split(',').map(str::trim) {
        if option.eq_ignore_ascii_case("close") {
            closes = true;
        } else if !option.is_empty() && !option.eq_ignore_ascii_case("keep-alive") {
            return Err("only close and keep-alive are supported");
        }
    }
    Ok(closes)
}

fn write_field(head: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

fn invalid(name: &str, problem: &'static str) -> HttpError {
    HttpError::InvalidHeader {
        name: Escaped(name.as_bytes()).to_string(),
        problem,
    }
}

/// Returns whether a byte is a token character (RFC 9110 section 5.6.2).
pub(in crate::download) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Validates the syntax of a header (RFC 9110 sections 5.1 and 5.5).
///
/// # Errors
///
/// [`HttpError::InvalidHeader`] if it is invalid.
pub(super) fn validate_header(name: &str, value: &str) -> Result<(), HttpError> {
    let control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    if name.is_empty() || !name.bytes().all(is_token) {
        Err(invalid(name, "invalid header name"))
    } else if value.bytes().any(control) {
        Err(invalid(name, "control character in the value"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(url: &'a Url, fields: &'a [(&'a str, &'a str)]) -> RequestParts<'a> {
        RequestParts {
            method: Method::Get,
            url,
            fields,
            length: RequestLength::NoBody,
            expectation: Expectation::Auto,
            user_agent: "test/1",
            is_for_proxy: false,
            proxy_authorization: None,
        }
    }

    fn text(parts: &RequestParts<'_>) -> Result<String, HttpError> {
        parts
            .encode()
            .map(|head| String::from_utf8(head.bytes).unwrap())
    }

    fn write(url: &str, given: &[(&str, &str)]) -> Result<String, HttpError> {
        text(&parts(&url.parse().unwrap(), given))
    }

    #[track_caller]
    fn check_target(url: &str, line: &str, host: &str) {
        let head = write(url, &[]).unwrap();
        let rest = "User-Agent: test/1\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n";
        assert_eq!(
            head,
            format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n{rest}"),
            "{url}"
        );
    }

    #[test]
    fn target_and_host_exclude_url_credentials() {
        check_target("http://example.org", "/", "example.org");
        check_target("http://example.org:80/a/b?c=d#e", "/a/b?c=d", "example.org");
        check_target("https://example.org:8443/?", "/?", "example.org:8443");
        check_target("http://user:secret@example.org/x", "/x", "example.org");
        check_target("http://[::1]:8080/x", "/x", "[::1]:8080");
        check_target(
            "http://bücher.example/ä\u{7} b",
            "/%C3%A4%07%20b",
            "xn--bcher-kva.example",
        );
        check_target("http://example.org/a\r\nX: y", "/aX:%20y", "example.org");
    }

    #[test]
    fn proxy_request_uses_absolute_form_and_authorization() {
        let url = "http://user:secret@example.org:8080/x?y#z".parse().unwrap();
        let head = text(&RequestParts {
            user_agent: "",
            is_for_proxy: true,
            proxy_authorization: Some("Basic YTpi"),
            ..parts(&url, &[])
        });
        assert_eq!(
            head.unwrap(),
            "GET http://example.org:8080/x?y HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\n\
             Accept-Encoding: identity\r\nProxy-Authorization: Basic YTpi\r\n\r\n"
        );
    }

    #[test]
    fn given_header_replaces_the_default() {
        let given = [
            ("host", "other"),
            ("USER-AGENT", ""),
            ("X-Name", "ümlaut\t!"),
        ];
        let head = write("http://example.org/", &given).unwrap();
        assert_eq!(
            head,
            "GET / HTTP/1.1\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
             host: other\r\nUSER-AGENT: \r\nX-Name: ümlaut\t!\r\n\r\n"
        );
    }

    #[test]
    fn invalid_header_is_rejected() {
        for given in [
            &[("", "x")][..],
            &[("a b", "x")],
            &[("a:", "x")],
            &[("a\r\n", "x")],
            &[("ä", "x")],
            &[("a", "x\r\nb: c")],
            &[("a", "x\n")],
            &[("a", "\0")],
            &[("a", "\x7f")],
            &[("Content-Length", "5")],
            &[("transfer-encoding", "chunked")],
            &[("Host", "a"), ("host", "a")],
            &[("Upgrade", "h2c")],
            &[("Expect", "200-maybe")],
            &[("Connection", "close, Authorization")],
            &[("Connection", "Transfer-Encoding")],
        ] {
            let error = write("http://example.org/", given).unwrap_err();
            assert!(
                matches!(error, HttpError::InvalidHeader { .. }),
                "{given:?}: {error:?}"
            );
            assert!(!error.to_string().contains(['\r', '\n']), "{error}");
        }
    }

    /// Encodes a POST and returns what follows the defaults.
    fn post(length: RequestLength, fields: &[(&str, &str)]) -> Result<String, HttpError> {
        let url = "http://h/".parse().unwrap();
        let head = text(&RequestParts {
            method: Method::Post,
            length,
            ..parts(&url, fields)
        })?;
        let defaults = "POST / HTTP/1.1\r\nHost: h\r\nUser-Agent: test/1\r\nAccept: */*\r\n\
                        Accept-Encoding: identity\r\n";
        Ok(head.strip_prefix(defaults).unwrap().into())
    }

    #[test]
    fn framing_headers_follow_the_body() {
        use RequestLength::{Chunked, Known, NoBody};
        for (length, fields, rest) in [
            (NoBody, &[][..], "\r\n"),
            (NoBody, &[("Content-Length", "0")], "\r\n"),
            (Known(0), &[], "Content-Length: 0\r\n\r\n"),
            (
                Known(5),
                &[("content-length", "5")],
                "Content-Length: 5\r\n\r\n",
            ),
            (Chunked, &[], "Transfer-Encoding: chunked\r\n\r\n"),
            (
                Chunked,
                &[("transfer-encoding", "Chunked")],
                "Transfer-Encoding: chunked\r\n\r\n",
            ),
            (
                Known(5),
                &[("Connection", "Close")],
                "Connection: Close\r\nContent-Length: 5\r\n\r\n",
            ),
        ] {
            assert_eq!(post(length, fields).unwrap(), rest, "{length:?} {fields:?}");
        }
        for (length, name, value) in [
            (Known(5), "Content-Length", "6"),
            (Known(5), "Content-Length", "05"),
            (Known(5), "Content-Length", "5, 5"),
            (Chunked, "Content-Length", "5"),
            (Known(5), "Transfer-Encoding", "chunked"),
            (Chunked, "Transfer-Encoding", "gzip, chunked"),
            (Chunked, "Transfer-Encoding", "identity"),
        ] {
            let error = post(length, &[(name, value)]).unwrap_err();
            assert!(
                matches!(error, HttpError::InvalidHeader { .. }),
                "{length:?} {name}: {value}: {error:?}"
            );
        }
    }

    #[test]
    fn only_large_bodies_expect_continue_by_default() {
        use RequestLength::{Chunked, Known, NoBody};
        let url = "http://h/".parse().unwrap();
        let large = Known(MIN_EXPECT_LEN);
        for (length, fields, expectation, expected) in [
            (NoBody, &[][..], Expectation::Auto, false),
            (Chunked, &[], Expectation::Auto, false),
            (Known(MIN_EXPECT_LEN - 1), &[], Expectation::Auto, false),
            (large, &[], Expectation::Auto, true),
            (large, &[], Expectation::Never, false),
            (large, &[("Expect", "")], Expectation::Auto, false),
            (
                Chunked,
                &[("Expect", "100-Continue")],
                Expectation::Auto,
                true,
            ),
            (
                Known(0),
                &[("Expect", "100-continue")],
                Expectation::Auto,
                false,
            ),
        ] {
            let head = RequestParts {
                method: Method::Put,
                length,
                expectation,
                ..parts(&url, fields)
            }
            .encode()
            .unwrap();
            let text = String::from_utf8(head.bytes).unwrap();
            assert_eq!(head.expects_continue, expected, "{text}");
            assert_eq!(
                text.contains("\r\nExpect: 100-continue\r\n"),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn unsupported_methods_are_rejected() {
        let url = "http://h/".parse().unwrap();
        for (method, length) in [
            (Method::Connect, RequestLength::NoBody),
            (Method::Pri, RequestLength::NoBody),
            (Method::Trace, RequestLength::Known(1)),
            (Method::Trace, RequestLength::Chunked),
        ] {
            let error = RequestParts {
                method,
                length,
                ..parts(&url, &[])
            }
            .encode()
            .unwrap_err();
            assert!(
                matches!(error, HttpError::UnsupportedRequest { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn empty_body_is_announced_where_one_is_anticipated() {
        for (method, length) in [
            (Method::Get, RequestLength::NoBody),
            (Method::Delete, RequestLength::NoBody),
            (Method::Post, RequestLength::Known(0)),
            (Method::Put, RequestLength::Known(0)),
        ] {
            assert_eq!(RequestLength::new(method, Some(0)), length, "{method}");
        }
        assert_eq!(
            RequestLength::new(Method::Get, Some(3)),
            RequestLength::Known(3)
        );
        assert_eq!(
            RequestLength::new(Method::Delete, None),
            RequestLength::Chunked
        );
    }
}
