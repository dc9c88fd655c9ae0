//! Redirect policy, and the headers of redirected requests.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::harness::http::Certificate;

#[test]
fn redirect_keeps_the_name_of_the_first_url() {
    for status in [301, 302, 303, 307, 308] {
        let responses = [
            ("/f", Response::redirect(status, "b/é?x=1")),
            ("/b/%C3%A9?x=1", ok()),
        ];
        let folder = Folder::new();
        let server = Server::with_paths(responses);
        fetch(&folder, [&server.url("/f")]).code(0);
        assert_eq!(folder.names(), ["f"]);
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn redirects_are_limited_to_twenty() {
    let hops = |count: usize| {
        let server = Server::start(move |request| match request.path[1..].parse::<usize>() {
            Ok(hop) if hop < count => Response::redirect(302, format!("/{}", hop + 1)),
            _ => ok(),
        });
        fetch(&Folder::new(), [&server.url("/0")])
    };
    hops(20).code(0);
    hops(21)
        .code(7)
        .says("follow redirect from http://127.0.0.1:")
        .says("more than 20");
}

#[test]
fn invalid_redirects_are_refused() {
    for (location, says) in [
        ("/f", "more than 20 redirects"),
        (
            "file:///etc/passwd",
            "unsupported scheme: file:///etc/passwd",
        ),
        ("ftp://127.0.0.1/f", "unsupported scheme: ftp://127.0.0.1/f"),
        ("http://[", "not a URL"),
    ] {
        assert_fails(Response::redirect(302, location), &[], 7, says);
    }
    assert_fails(Response::status(302), &[], 7, "no Location header");
    assert_fails(
        Response::redirect(302, "/g"),
        &["--max-redirs", "0"],
        7,
        "more than 0 redirects",
    );
}

#[test]
fn cookie_of_a_redirect_is_sent_to_the_same_url() {
    let server = Server::start(|request| match request.field("Cookie") {
        Some("session=1") => ok(),
        _ => Response::redirect(302, "/f").header("Set-Cookie", "session=1; HttpOnly"),
    });
    let folder = Folder::new();
    let line = ["--save-cookies", "cookies.txt", &server.url("/f")];
    fetch(&folder, line).code(0);
    assert_eq!(server.requests().len(), 2);
    let saved = folder.path("cookies.txt").metadata().unwrap();
    assert_eq!(saved.permissions().mode() & 0o777, 0o600);
    let saved = folder.read("cookies.txt");
    let line = "#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t1\n";
    assert!(saved.ends_with(line.as_bytes()), "{saved:?}");
    // Another run starts without them, unless the file is given.
    for (option, requests) in [("-b", 3), ("--load-cookies", 4)] {
        let line = [option, "cookies.txt", "--overwrite", &server.url("/f")];
        fetch(&folder, line).code(0);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn cookies_of_a_server_are_not_sent_to_others() {
    let other = Server::with_paths([("/g", ok())]);
    // Cookies do not distinguish ports (RFC 6265 section 8.5), hosts they do.
    let place = other.url("/g").replace("127.0.0.1", "localhost");
    let first = Server::with_paths([(
        "/f",
        Response::redirect(302, &place).header("Set-Cookie", "session=1"),
    )]);
    let pin = format!(
        "{}:127.0.0.1",
        &place["http://".len()..place.len() - "/g".len()]
    );
    fetch(&Folder::new(), ["--resolve", &pin, &first.url("/f")]).code(0);
    assert_eq!(other.requests()[0].field("Cookie"), None);
}

#[test]
fn cookies_are_saved_after_a_failure() {
    let failure = Response::status(404).header("Set-Cookie", "c=d; Max-Age=600");
    let server = Server::with_paths([("/f", failure)]);
    let folder = Folder::new();
    let line = ["-b", "e=f", "--save-cookies", "c", &server.url("/f")];
    fetch(&folder, line).code(8);
    let saved = String::from_utf8(folder.read("c")).unwrap();
    assert!(saved.contains("\tc\td\n"), "{saved}");
    assert!(!saved.contains("\te\tf\n"), "{saved}");
}

#[test]
fn unusable_cookie_files_end_the_run_before_a_request() {
    let server = Server::with_paths([("/f", ok())]).may_be_idle();
    let folder = Folder::new();
    folder.write("json", "{\"cookies\": []}");
    let url = server.url("/f");
    for (option, path, says) in [
        ("-b", "missing", "read cookie file missing: No such file"),
        (
            "-b",
            "json",
            "read cookie file json: not a Netscape cookie file",
        ),
        ("--load-cookies", "json", "not a Netscape cookie file"),
        ("--save-cookies", "no/c", "create no/c: No such file"),
    ] {
        fetch(&folder, [option, path, &url]).code(3).says(says);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn redirect_strips_credential_headers() {
    let other = Server::with_paths([("/g", ok())]);
    let place = other.url("/g").replace("http://", "http://user:secret@");
    let first = Server::with_paths([
        ("/f", Response::redirect(302, "/e")),
        ("/e", Response::redirect(302, place)),
    ]);
    let secrets = ["Authorization", "Cookie", "X-Api-Key", "Private-Token"];
    let headers = secrets.map(|name| format!("-H{name}: x"));
    let mut line: Vec<_> = headers.iter().map(String::as_str).collect();
    let url = first.url("/f");
    line.extend(["-HAccept-Language: eo", "-Ame", &url]);
    let folder = Folder::new();
    folder
        .myapp([&["download"], &line[..]].concat())
        .run()
        .code(0);
    for request in first.requests() {
        assert!(
            secrets.iter().all(|name| request.field(name) == Some("x")),
            "{request:?}"
        );
    }
    let [request] = &other.requests()[..] else {
        panic!("{:?}", other.requests())
    };
    assert!(
        secrets.iter().all(|name| request.field(name).is_none()),
        "{request:?}"
    );
    assert_eq!(request.field("Accept-Language"), Some("eo"));
    assert_eq!(request.field("User-Agent"), Some("me"));
}

#[test]
fn error_after_a_redirect_names_the_final_url() {
    let server = Server::with_paths([("/f", Response::redirect(302, "/g?secret"))]);
    let says = format!(
        "download {}: {}?…: HTTP status 404",
        server.url("/f"),
        server.url("/g")
    );
    fetch(&Folder::new(), [&server.url("/f")])
        .code(8)
        .says(&says);
}

#[test]
fn http_error_behind_a_redirect_names_its_url() {
    for cut in [
        Response::body("hello").truncated_at(3),
        Response::body("hello").header("Content-Length", "6"),
    ] {
        let server = Server::with_paths([
            ("/f", Response::redirect(302, "/g?secret")),
            ("/g?secret", cut),
        ]);
        let ran = fetch(&Folder::new(), ["--retry=0", &server.url("/f")]);
        let prefix = format!("/f: get {}?…: ", server.url("/g"));
        ran.says(&prefix);
    }
    let server = Server::with_paths([("/f", Response::body("hello").truncated_at(3))]);
    let ran = fetch(&Folder::new(), ["--retry=0", &server.url("/f")]);
    ran.says("/f: incomplete response after 3 of 5 bytes");
}

#[test]
fn https_downgrade_is_refused_by_default() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let plain = Server::with_paths([("/g", ok())]);
    let folder = Folder::new();
    let place = plain.url("/g");
    folder.write("ca.pem", &certificate.pem);
    let server = Server::start_tls(&certificate, move |_| Response::redirect(301, &place));
    let url = server.url("/f");
    fetch(&folder, ["--cacert", "ca.pem", &url])
        .code(7)
        .says(&format!("redirect from https to http: {}", plain.url("/g")))
        .says("hint: --allow-http-redirect");
    assert!(plain.requests().is_empty());
    fetch(
        &folder,
        ["--cacert", "ca.pem", "--allow-http-redirect", &url],
    )
    .code(0);
    assert_eq!(folder.names(), ["ca.pem", "f"]);
}

#[test]
fn static_hosts_may_be_internationalized_with_several_addresses() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", ok())]);
    let (_, port) = server
        .url("")
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    // Nothing listens at the first address.
    let host = format!("b\u{fc}cher.invalid:{port}:127.0.0.9,127.0.0.1");
    let url = format!("http://b\u{fc}cher.invalid:{port}/f");
    fetch(&folder, ["--resolve", &host, &url]).code(0);
    assert_eq!(folder.names(), ["f"]);
}
