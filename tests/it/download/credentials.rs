//! Credentials: the servers that get them, and no leaks elsewhere.

use std::path::Path;

use crate::harness::http::{Request, Response, Server};
use crate::harness::{Folder, RunOutput};

/// `Basic` of `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

const NETRC: &str = "machine 127.0.0.1 login user password secret\n\
                     default login nobody password nothing\n";

fn ok() -> Response {
    Response::body("good")
}

fn fetch(folder: &Folder, line: &[&str], url: &str) -> RunOutput {
    folder
        .myapp([&["download"], line, &[url]].concat())
        .env("HOME", folder.path(""))
        .run()
}

/// Starts a server that requires this `Authorization`.
fn requiring(value: &'static str) -> Server {
    Server::start(move |request| match request.field("Authorization") {
        Some(given) if given == value => ok(),
        _ => Response::status(401),
    })
}

fn with_login(url: &str) -> String {
    url.replace("http://", "http://user:se%63ret@")
}

/// Downloads from a server that redirects to another one, and returns the request of each.
fn redirected(line: &[&str], change: impl Fn(&str) -> String) -> (Request, Request) {
    let folder = Folder::new();
    let other = Server::with_paths([("/g", ok())]);
    folder.write("netrc", NETRC.replace("127.0.0.1", "localhost"));
    let place = other.url("/g").replace("127.0.0.1", "localhost");
    let first = Server::with_paths([("/f", Response::redirect(302, place))]);
    fetch(&folder, line, &change(&first.url("/f"))).code(0);
    (first.requests().remove(0), other.requests().remove(0))
}

#[test]
fn each_kind_of_credential_is_sent() {
    let folder = Folder::new();
    folder.write(".netrc", NETRC);
    for (line, expected) in [
        (&["-u", "user:secret"][..], BASIC),
        (&["--bearer", "abc.def"], "Bearer abc.def"),
        (&["--netrc"], BASIC),
        (&["--netrc-file", ".netrc"], BASIC),
        (&["-H", "Authorization: Own x", "--netrc"], "Own x"),
    ] {
        fetch(&folder, line, &requiring(expected).url("/f")).code(0);
    }
    for line in [&[][..], &["-u", "other:one", "--netrc"]] {
        fetch(&folder, line, &with_login(&requiring(BASIC).url("/f"))).code(0);
    }
}

#[test]
fn cookies_and_referer_are_sent() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", ok())]);
    let line = [
        "-b",
        "a=b",
        "--cookie",
        "c=d",
        "--referer",
        "http://u:p@h/x#y",
    ];
    fetch(&folder, &line, &server.url("/f")).code(0);
    let request = server.requests().remove(0);
    assert_eq!(request.field("Cookie"), Some("a=b; c=d"));
    assert_eq!(request.field("Referer"), Some("http://h/x"));
}

#[test]
fn userinfo_of_a_url_is_never_part_of_the_file_name() {
    let folder = Folder::new();
    let server = requiring(BASIC);
    let a = with_login(&server.url("/"));
    let b = with_login(&server.url("/missing"));
    folder.myapp(["download", "-", &a]).stdin(&b).run().code(0);
    assert_eq!(folder.names(), ["index.html", "missing"]);
}

#[test]
fn credentials_are_not_sent_to_another_origin() {
    let line = [
        "-u",
        "a:b",
        "-b",
        "c=d",
        "-H",
        "X-Api-Key: e",
        "--referer",
        "http://h/",
    ];
    let (first, other) = redirected(&line, str::to_owned);
    for name in ["Authorization", "Cookie", "X-Api-Key"] {
        assert!(
            first.field(name).is_some() && other.field(name).is_none(),
            "{name}: {other:?}"
        );
    }
    assert_eq!(other.field("Referer"), Some("http://h/"));
    let (first, other) = redirected(&[], with_login);
    assert_eq!(
        (first.field("Authorization"), other.field("Authorization")),
        (Some(BASIC), None)
    );
}

#[test]
fn netrc_is_consulted_for_each_origin() {
    let line = ["-u", "a:b", "--netrc-file", "netrc"];
    let (first, other) = redirected(&line, str::to_owned);
    assert_eq!(first.field("Authorization"), Some("Basic YTpi"));
    assert_eq!(other.field("Authorization"), Some(BASIC));
}

#[test]
fn location_trusted_sends_credentials_to_all_origins() {
    let line = ["-b", "c=d", "--location-trusted"];
    let (first, other) = redirected(&line, with_login);
    for name in ["Authorization", "Cookie"] {
        assert!(
            first.field(name).is_some() && first.field(name) == other.field(name),
            "{name}"
        );
    }
}

#[test]
fn unauthorized_response_hints_at_credential_options() {
    let folder = Folder::new();
    fetch(&folder, &[], &requiring(BASIC).url("/f"))
        .code(6)
        .says("HTTP status 401")
        .says("hint: -u USER:PASSWORD, --bearer TOKEN or --netrc");
    fetch(&folder, &["-u", "user:wrong"], &requiring(BASIC).url("/f")).code(6);
    let other = requiring(BASIC);
    let first = Server::with_paths([("/f", Response::redirect(302, other.url("/g")))]);
    fetch(&folder, &["-u", "user:secret"], &first.url("/f"))
        .code(6)
        .says("--location-trusted");
}

#[test]
fn password_of_a_user_in_the_url_comes_from_netrc() {
    let folder = Folder::new();
    let server = requiring(BASIC);
    let host = server.url("/f").replace("http://", "");
    let port = host.split(['/', ':']).nth(1).unwrap();
    folder.write(
        "netrc",
        format!(
            "\u{feff}proto x\nmachine 127.0.0.1 login other password one\nmachine other login a:b\n\
                 MACHINE 127.0.0.1:{port} LOGIN user PASSWORD secret\n"
        ),
    );
    let url = format!("http://user@{host}");
    fetch(&folder, &["--netrc-file", "netrc"], &url).code(0);
    fetch(&folder, &["--netrc-file", "netrc"], &server.url("/f")).code(6);
}

#[test]
fn usage_errors_do_not_reveal_secrets() {
    let folder = Folder::new();
    folder.write("bad", "machine 127.0.0.1 login a:b password secret");
    for (line, code, says) in [
        (
            &["-u", "secret"][..],
            2,
            "invalid value for '--user <USER:PASSWORD>': not of the form",
        ),
        (
            &["--bearer", "a secret"],
            2,
            "invalid value for '--bearer <TOKEN>': token",
        ),
        (
            &["-b", "=secret"],
            2,
            "invalid value for '--cookie <COOKIE>': not of the form",
        ),
        (
            &["-H", "Authorization secret"],
            2,
            "not of the form 'NAME: VALUE'",
        ),
        (&["--referer", "secret"], 2, "not a URL"),
        (
            &["-u", "a:secret", "--bearer", "secret"],
            2,
            "cannot be used with",
        ),
        (
            &["-u", "a:secret", "-H", "authorization: secret"],
            2,
            "set the same header",
        ),
        (
            &["--netrc-file", "bad"],
            6,
            "netrc entry of 127.0.0.1: colon in user name",
        ),
        (
            &["--netrc-file", "none"],
            3,
            "read netrc file none: No such file",
        ),
        (&["--netrc"], 3, ".netrc: No such file"),
    ] {
        let ran = fetch(&folder, line, "http://127.0.0.1:1/");
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
        ran.code(code).says(says);
    }
}

#[test]
fn logs_and_errors_do_not_reveal_secrets() {
    let folder = Folder::new();
    folder.write("netrc", NETRC);
    let other = Server::with_paths([("/g", ok())]);
    let first = Server::with_paths([("/f", Response::redirect(302, with_login(&other.url("/g"))))]);
    let url = with_login(&first.url("/f"));
    let missing = with_login(&first.url("/missing"));
    let line = [
        "download",
        "-vv",
        "-u",
        "user:secret",
        "-b",
        "a=secret",
        "-H",
        "X-Key: secret",
        "--netrc-file",
        "netrc",
        "--location-trusted",
        &url,
        &missing,
        "http://user:secret@[",
    ];
    for level in ["", "trace"] {
        let mut program = folder.myapp(line);
        if !level.is_empty() {
            program = program.env("MYAPP_LOG", level);
        }
        let ran = program.run().code(8);
        for output in [&ran.text(), &ran.stderr] {
            for secret in ["secret", "se%63ret", "dXNlcjpzZWNyZXQ"] {
                assert!(!output.contains(secret), "{secret} in {output}");
            }
        }
        ran.says("response from").says("http://***@[: not a URL");
    }
    assert!(
        folder
            .names()
            .iter()
            .all(|name| Path::new(name).extension().is_none_or(|e| e == "1"))
    );
}
