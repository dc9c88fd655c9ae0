//! The head of a request (RFC 9112 sections 3 and 5): pure, into bytes.

use url::{Position, Url};

use super::error::HttpError;
use super::proxy::Proxy;
use crate::escape::Escaped;

/// Writes a GET of `url` with these fields. `Host`, `User-Agent`, `Accept` and `Accept-Encoding`
/// are added where they are not given; user and password in the URL are not sent. What goes to a
/// `proxy` as a whole names scheme and host too (RFC 9112 section 3.2.2), and who asks the proxy.
///
/// # Errors
///
/// [`HttpError::Field`] for a name or a value that would break the head, and for a field that
/// announces a body: the server would take the next request for it.
pub(super) fn write_get(
    url: &Url,
    fields: &[(String, String)],
    user_agent: &str,
    proxy: Option<&Proxy>,
) -> Result<Vec<u8>, HttpError> {
    // The URL parser lets none of these through; if one did come through, it would end the line.
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
        // These are fields: the user agent was checked when the client was made.
        if !given && !value.is_empty() {
            write_field(&mut head, name, value);
        }
    }
    for (name, value) in fields {
        check(name, value)?;
        write_field(&mut head, name, value);
    }
    if let Some(login) = proxy.and_then(|proxy| proxy.login.as_ref()) {
        write_field(&mut head, "Proxy-Authorization", &login.to_basic());
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn write_field(head: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

/// Checks that a field is one (RFC 9110 sections 5.1 and 5.5) and announces no body.
///
/// # Errors
///
/// [`HttpError::Field`] where not.
pub(super) fn check(name: &str, value: &str) -> Result<(), HttpError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    let announces = |it: &&str| name.eq_ignore_ascii_case(it);
    let problem = if name.is_empty() || !name.bytes().all(token) {
        "not a header name"
    } else if value.bytes().any(control) {
        "its value holds a line end or another control character"
    } else if ["content-length", "transfer-encoding"]
        .iter()
        .any(announces)
    {
        "a GET has no body"
    } else {
        return Ok(());
    };
    Err(HttpError::Field {
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
    fn asks(url: &str, line: &str, host: &str) {
        let head = write(url, &[]).unwrap();
        let rest = "User-Agent: test/1\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n";
        assert_eq!(
            head,
            format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n{rest}"),
            "{url}"
        );
    }

    #[test]
    fn the_target_and_the_host_come_from_the_url_without_what_is_the_users_own() {
        asks("http://example.org", "/", "example.org");
        asks("http://example.org:80/a/b?c=d#e", "/a/b?c=d", "example.org");
        asks("https://example.org:8443/?", "/?", "example.org:8443");
        asks("http://user:secret@example.org/x", "/x", "example.org");
        asks("http://[::1]:8080/x", "/x", "[::1]:8080");
        asks(
            "http://bücher.example/ä\u{7} b",
            "/%C3%A4%07%20b",
            "xn--bcher-kva.example",
        );
        asks("http://example.org/a\r\nX: y", "/aX:%20y", "example.org");
    }

    #[test]
    fn a_proxy_is_told_the_whole_url_and_who_asks() {
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
    fn a_given_field_takes_the_place_of_the_one_that_would_be_added() {
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
    fn what_would_break_the_request_is_refused() {
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
                matches!(error, HttpError::Field { .. }),
                "{name:?}: {value:?}: {error:?}"
            );
            assert!(!error.to_string().contains(['\r', '\n']), "{error}");
        }
    }
}
