//! Request head encoder (RFC 9112 sections 3 and 5).

use url::{Position, Url};

use super::error::HttpError;
use super::proxy::Proxy;
use crate::escape::Escaped;

/// Encodes a GET request for `url` with these headers. `Host`, `User-Agent`, `Accept` and
/// `Accept-Encoding` are added unless given; user and password in the URL are not sent. A request
/// to a `proxy` uses the absolute form (RFC 9112 section 3.2.2) and `Proxy-Authorization`.
///
/// # Errors
///
/// [`HttpError::InvalidHeader`] for an invalid name or value, and for headers that announce a body:
/// the server would read the next request as that body.
pub(super) fn write_get(
    url: &Url,
    fields: &[(String, String)],
    user_agent: &str,
    proxy: Option<&Proxy>,
) -> Result<Vec<u8>, HttpError> {
    // The URL parser encodes all other bytes; this check prevents request splitting if it fails to.
    let target = &url[Position::BeforePath..Position::AfterQuery];
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HttpError::url(url));
    }
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let base = if proxy.is_some() {
        format!("{}://{host}", url.scheme())
    } else {
        String::new()
    };
    let mut head = format!("GET {base}{target} HTTP/1.1\r\n").into_bytes();
    let defaults = [
        ("Host", host),
        ("User-Agent", user_agent),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
    ];
    for (name, value) in defaults {
        let given = fields
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name));
        // Defaults are valid: `Client::new` validated the user agent.
        if !given && !value.is_empty() {
            write_field(&mut head, name, value);
        }
    }
    for (name, value) in fields {
        validate_header(name, value)?;
        write_field(&mut head, name, value);
    }
    if let Some(basic_auth) = proxy.and_then(|proxy| proxy.basic_auth.as_ref()) {
        write_field(&mut head, "Proxy-Authorization", &basic_auth.to_basic());
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn write_field(head: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

/// Validates a header (RFC 9110 sections 5.1 and 5.5) and rejects those that announce a body.
///
/// # Errors
///
/// [`HttpError::InvalidHeader`] if it is invalid.
pub(super) fn validate_header(name: &str, value: &str) -> Result<(), HttpError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    let announces = |it: &&str| name.eq_ignore_ascii_case(it);
    let problem = if name.is_empty() || !name.bytes().all(token) {
        "invalid header name"
    } else if value.bytes().any(control) {
        "control character in the value"
    } else if ["content-length", "transfer-encoding"]
        .iter()
        .any(announces)
    {
        "not allowed: GET has no body"
    } else {
        return Ok(());
    };
    Err(HttpError::InvalidHeader {
        name: Escaped(name.as_bytes()).to_string(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn write(url: &str, given: &[(&str, &str)]) -> Result<String, HttpError> {
        let url = url.parse().unwrap();
        write_get(&url, &fields(given), "test/1", None).map(|head| String::from_utf8(head).unwrap())
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
        let proxy = "http://a:b@proxy".parse().unwrap();
        let head = write_get(&url, &[], "", Some(&proxy)).unwrap();
        assert_eq!(
            String::from_utf8(head).unwrap(),
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
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:", "x"),
            ("a\r\n", "x"),
            ("ä", "x"),
            ("a", "x\r\nb: c"),
            ("a", "x\n"),
            ("a", "\0"),
            ("a", "\x7f"),
            ("Content-Length", "5"),
            ("transfer-encoding", "chunked"),
        ] {
            let error = write("http://example.org/", &[(name, value)]).unwrap_err();
            assert!(
                matches!(error, HttpError::InvalidHeader { .. }),
                "{name:?}: {value:?}: {error:?}"
            );
            assert!(!error.to_string().contains(['\r', '\n']), "{error}");
        }
    }
}
