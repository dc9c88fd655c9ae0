//! `myapp download` through proxies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::https;
use crate::harness::http::{Certificate, Response, Server};
use crate::harness::ports::RefusingPort;
use crate::harness::{Folder, Program, RunOutput, UNRESOLVABLE_HOST};

/// `Basic` of `user:secret`.
const AUTHORIZATION: &str = "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=";

/// Proxy on plain sockets that records its requests.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy that runs `serve` on each connection; `serve` records requests.
    fn serve(serve: fn(TcpStream, &mut dyn FnMut(String)) -> Option<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::default();
        let recorded: Arc<Mutex<Vec<String>>> = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let recorded = Arc::clone(&recorded);
                let mut record = move |text| recorded.lock().unwrap().push(text);
                thread::spawn(move || serve(stream.unwrap(), &mut record));
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

fn read(stream: &mut TcpStream, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Copies bytes in both directions until both have ended.
fn relay(mut one: TcpStream, mut other: TcpStream) -> Option<()> {
    let mut from = one.try_clone().ok()?;
    let mut to = other.try_clone().ok()?;
    thread::spawn(move || {
        // Either side may close at any time.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut other, &mut one);
    let _ = one.shutdown(std::net::Shutdown::Write);
    Some(())
}

/// Starts a proxy that opens tunnels, and replies to other requests with their request line.
pub(super) fn http_proxy() -> Proxy {
    Proxy::serve(|mut stream, record| {
        while let Some(head) = read_head(&mut stream) {
            record(head.clone());
            let line = head.lines().next()?;
            if let Some(to) = line.strip_prefix("CONNECT ") {
                let to = TcpStream::connect(to.split(' ').next()?).ok()?;
                stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
                return relay(stream, to);
            }
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
                line.len()
            );
            stream.write_all(response.as_bytes()).ok()?;
        }
        Some(())
    })
}

/// Starts a SOCKS5 proxy that requires a login; the only name that it resolves is `inside.invalid`.
fn socks_proxy() -> Proxy {
    Proxy::serve(|mut stream, record| {
        let [_, count] = read(&mut stream, 2)?[..] else {
            return None;
        };
        if !read(&mut stream, count.into())?.contains(&2) {
            record("no login".into());
            return stream.write_all(&[5, 0xff]).ok();
        }
        stream.write_all(&[5, 2]).ok()?;
        let length = read(&mut stream, 2)?[1];
        let user = read(&mut stream, length.into())?;
        let length = read(&mut stream, 1)?[0];
        let password = read(&mut stream, length.into())?;
        if (&user[..], &password[..]) != (b"user", b"secret") {
            record("wrong login".into());
            return stream.write_all(&[1, 1]).ok();
        }
        stream.write_all(&[1, 0]).ok()?;
        let kind = read(&mut stream, 4)?[3];
        let host = if kind == 1 {
            let ip = read(&mut stream, 4)?;
            format!("{}.{}.{}.{}", ip[0], ip[1], ip[2], ip[3])
        } else {
            let length = read(&mut stream, 1)?[0];
            String::from_utf8(read(&mut stream, length.into())?).unwrap()
        };
        let port = read(&mut stream, 2)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        record(format!("{host}:{port}"));
        match TcpStream::connect((host.replace("inside.invalid", "127.0.0.1"), port)) {
            Ok(to) => {
                stream.write_all(&[5, 0, 0, 3, 2, b'm', b'e', 0, 0]).ok()?;
                relay(stream, to)
            }
            Err(_) => stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).ok(),
        }
    })
}

fn ok() -> Response {
    Response::body("good")
}

fn program(folder: &Folder, line: &[&str]) -> Program {
    folder.myapp([&["download", "--retry", "0", "-o", "-"], line].concat())
}

fn fetch(line: &[&str]) -> RunOutput {
    program(&Folder::new(), line).run()
}

#[test]
fn http_proxy_gets_the_absolute_url_and_its_password() {
    let proxy = http_proxy();
    let named = proxy.url("http").replace("//", "//user:se%63ret@");
    fetch(&["--proxy", &named, "http://no.such.host.invalid/x?y"])
        .code(0)
        .prints("GET http://no.such.host.invalid/x?y HTTP/1.1");
    let head = &proxy.requests()[0];
    assert!(
        head.contains(AUTHORIZATION) && head.contains("\r\nHost: no.such.host.invalid\r\n"),
        "{head}"
    );
}

#[test]
fn https_uses_a_connect_tunnel() {
    let folder = Folder::new();
    let proxy = http_proxy();
    let server = https::serve(&folder);
    let named = proxy.url("http").replace("//", "//user:secret@");
    let url = format!("https://localhost:{}/f", server.port());
    let line = ["--cacert", "ca.pem", "--proxy", &named, "-u", "a:b", &url];
    program(&folder, &line).run().code(0).prints("good");
    let [head] = &proxy.requests()[..] else {
        panic!("{:?}", proxy.requests())
    };
    let to = format!("localhost:{}", server.port());
    assert_eq!(
        *head,
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{AUTHORIZATION}\r\n\r\n")
    );
}

/// Starts a proxy that redirects requests for `a.invalid` to `b.invalid`.
fn redirecting_proxy() -> Proxy {
    Proxy::serve(|mut stream, record| {
        while let Some(head) = read_head(&mut stream) {
            record(head.clone());
            let is_first = head.contains("http://a.invalid/");
            let response: &[u8] = if is_first {
                b"HTTP/1.1 302 Found\r\nLocation: http://b.invalid/\r\nContent-Length: 0\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
            };
            stream.write_all(response).ok()?;
        }
        Some(())
    })
}

#[test]
fn proxy_authorization_header_goes_to_the_proxy_only() {
    // Also after a redirect to another origin, and instead of the password in the URL.
    let proxy = redirecting_proxy();
    for login in ["//", "//other:password@"] {
        let named = proxy.url("http").replace("//", login);
        let line = ["--proxy", &named, "-H", AUTHORIZATION, "http://a.invalid/"];
        fetch(&line).code(0).prints("good");
    }
    let heads = proxy.requests();
    assert_eq!(heads.len(), 4);
    for head in heads {
        assert_eq!(head.matches("Proxy-Authorization").count(), 1, "{head}");
        assert!(head.contains(AUTHORIZATION), "{head}");
    }

    let folder = Folder::new();
    let proxy = http_proxy();
    let named = proxy.url("http");
    let certificate = Certificate::of(&["127.0.0.1"]);
    folder.write("ca.pem", &certificate.pem);
    let server = Server::start_tls(&certificate, |_| ok());
    let url = server.url("/f");
    let line = ["--cacert", "ca.pem", "--proxy", &named, "-H", AUTHORIZATION];
    let run = program(&folder, &[&line[..], &[&url]].concat()).run();
    run.code(0).prints("good");
    let [head] = &proxy.requests()[..] else {
        panic!("{:?}", proxy.requests())
    };
    assert!(head.starts_with("CONNECT ") && head.contains(AUTHORIZATION));
    assert_eq!(server.requests()[0].field("Proxy-Authorization"), None);
}

#[test]
fn origin_never_receives_proxy_authorization() {
    let socks = socks_proxy();
    let named = socks.url("socks5").replace("//", "//user:secret@");
    let target = Server::with_paths([("/g", ok())]);
    let server = Server::with_paths([
        ("/e", Response::redirect(302, "/f")),
        ("/f", Response::redirect(302, target.url("/g"))),
    ]);
    let url = server.url("/e");
    for line in [&[][..], &["--location-trusted"], &["--proxy", &named]] {
        let line = [&["-H", AUTHORIZATION], line, &[&url]].concat();
        fetch(&line).code(0).prints("good");
    }
    for request in [server.requests(), target.requests()].concat() {
        assert_eq!(request.field("Proxy-Authorization"), None, "{request:?}");
    }
}

#[test]
fn proxy_connections_are_reused() {
    let folder = Folder::new();
    let proxy = http_proxy();
    let line = [
        "download",
        "-j1",
        "--proxy",
        &proxy.url("http"),
        "http://a.invalid/1",
        "http://a.invalid/2",
    ];
    let ran = folder.myapp([&line[..], &["-vv"]].concat()).run().code(0);
    assert_eq!(proxy.requests().len(), 2);
    assert_eq!(
        ran.stderr.matches("connected to").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn environment_sets_proxy_and_exceptions() {
    let folder = Folder::new();
    let proxy = http_proxy();
    let server = Server::with_paths([("/f", ok())]);
    let named = proxy.url("http");
    let url = server.url("/f");
    let through = format!("GET {url} HTTP/1.1");
    for (variables, line, says) in [
        (&[("http_proxy", &*named)][..], &[][..], &*through),
        (&[("ALL_PROXY", &named)], &[], &through),
        (&[("HTTP_PROXY", &named)], &[], "good"),
        (&[("https_proxy", &named)], &[], "good"),
        (
            &[("http_proxy", &named), ("NO_PROXY", "127.0.0.0/8")],
            &[],
            "good",
        ),
        (
            &[("http_proxy", &named), ("no_proxy", "*")],
            &["--no-proxy", ""],
            &through,
        ),
        (
            &[("http_proxy", &named)],
            &["--no-proxy", "127.0.0.1"],
            "good",
        ),
        (&[("http_proxy", &named)], &["--proxy", ""], "good"),
        (
            &[("http_proxy", "nonsense://")],
            &["--proxy", &named],
            &through,
        ),
    ] {
        let mut program = program(&folder, &[line, &[&url]].concat());
        for (name, value) in variables {
            program = program.env(name, value);
        }
        program.run().code(0).prints(says);
    }
}

#[test]
fn socks5_resolves_locally_and_socks5h_remotely() {
    let proxy = socks_proxy();
    let server = Server::with_paths([("/f", ok())]);
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    let named = |scheme: &str| proxy.url(scheme).replace("//", "//user:secret@");
    fetch(&[
        "-4",
        "--proxy",
        &named("socks5"),
        &format!("http://localhost:{port}/f"),
    ])
    .code(0);
    fetch(&[
        "--proxy",
        &named("socks5h"),
        &format!("http://inside.invalid:{port}/f"),
    ])
    .code(0);
    assert_eq!(
        proxy.requests(),
        [
            format!("127.0.0.1:{port}"),
            format!("inside.invalid:{port}")
        ]
    );
    let url = format!("http://{UNRESOLVABLE_HOST}/f");
    fetch(&["--proxy", &named("socks5"), &url])
        .code(4)
        .says(&format!("resolve {UNRESOLVABLE_HOST}"));
}

#[test]
fn socks5_tries_every_address_of_a_name() {
    let proxy = socks_proxy();
    let server = Server::with_paths([("/f", ok())]);
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    let named = proxy.url("socks5").replace("//", "//user:secret@");
    let [closed, open] = ["127.0.0.2", "127.0.0.1"].map(|ip| format!("a.invalid:{port}:{ip}"));
    let url = format!("http://a.invalid:{port}/f");
    fetch(&[
        "--resolve",
        &closed,
        "--resolve",
        &open,
        "--proxy",
        &named,
        &url,
    ])
    .code(0);
    assert_eq!(
        proxy.requests(),
        ["127.0.0.2", "127.0.0.1"].map(|ip| format!("{ip}:{port}"))
    );
    fetch(&[
        "--resolve",
        &closed,
        "--resolve",
        &closed,
        "--proxy",
        &named,
        &url,
    ])
    .code(4)
    .says("connection refused");
    // A rejected login is not retried with another address.
    let requests = proxy.requests().len();
    let wrong = named.replace("secret", "wrong");
    fetch(&[
        "--resolve",
        &closed,
        "--resolve",
        &open,
        "--proxy",
        &wrong,
        &url,
    ])
    .code(6);
    assert_eq!(proxy.requests()[requests..], ["wrong login"]);
}

#[test]
fn tls_works_through_socks() {
    let folder = Folder::new();
    let proxy = socks_proxy();
    let url = format!("https://localhost:{}/f", https::serve(&folder).port());
    let named = proxy.url("socks5h").replace("//", "//user:secret@");
    let line = ["--cacert", "ca.pem", "--proxy", &named, &url];
    program(&folder, &line).run().code(0).prints("good");
}

#[test]
fn proxy_authentication_failure_hides_the_password() {
    let refusing = Proxy::serve(|mut stream, record| {
        record(read_head(&mut stream)?);
        let head = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n";
        stream.write_all(head).ok()
    });
    let socks = socks_proxy();
    for (proxy, scheme) in [(&refusing, "http"), (&socks, "socks5h")] {
        for url in ["http://a.invalid/f", "https://a.invalid/f"] {
            let named = proxy.url(scheme);
            let says = format!("connect through proxy {named}: user name and password required");
            fetch(&["--proxy", &named, url])
                .code(6)
                .says(&says)
                .says("hint: --proxy");
            let wrong = named.replace("//", "//user:hidden@");
            let says = format!("connect through proxy {named}: user name or password rejected");
            let ran = fetch(&["-vv", "--proxy", &wrong, url]).code(6).says(&says);
            assert!(!ran.stderr.contains("hidden"), "{}", ran.stderr);
        }
    }
}

#[test]
fn proxy_failure_names_proxy_and_cause() {
    let port = RefusingPort::new();
    let closed = port.address();
    let bad = Proxy::serve(|mut stream, _| {
        read_head(&mut stream)?;
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .ok()
    });
    let surplus = Proxy::serve(|mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nHTTP").ok()
    });
    let closing = Proxy::serve(|mut stream, _| read_head(&mut stream).map(drop));
    let web = Proxy::serve(|mut stream, _| {
        read(&mut stream, 3)?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok()
    });
    let silent = Proxy::serve(|mut stream, _| read(&mut stream, 100_000).map(drop));
    let login = socks_proxy().url("socks5h").replace("//", "//user:secret@");
    for (proxy, code, says) in [
        (
            format!("http://{closed}"),
            4,
            format!("connect to {closed}: Connection refused"),
        ),
        (
            bad.url("http"),
            4,
            "HTTP status 403 in response to CONNECT".into(),
        ),
        (
            surplus.url("http"),
            4,
            "unexpected data after the response".into(),
        ),
        (
            closing.url("http"),
            4,
            "connection closed by the proxy".into(),
        ),
        (web.url("socks5"), 4, "not a SOCKS5 proxy".into()),
        (
            silent.url("socks5"),
            10,
            "connect to 127.0.0.1:1: timed out after 500ms".into(),
        ),
        (login, 4, "connection refused".into()),
    ] {
        let url = "https://127.0.0.1:1/f";
        let line = ["--connect-timeout", "500ms", "--proxy", &proxy, url];
        let shown = proxy.replace("user:secret@", "");
        fetch(&line)
            .code(code)
            .says(&format!("connect through proxy {shown}: {says}"));
    }
}

#[test]
fn invalid_proxy_error_hides_the_password() {
    for value in [
        "ftp://user:secret@h",
        "http://user:secret@h/path",
        "http://user:secret@",
    ] {
        for ran in [
            fetch(&["--proxy", value, "u"]),
            program(&Folder::new(), &["http://127.0.0.1/"])
                .env("all_proxy", value)
                .run(),
        ] {
            assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
            ran.code(2);
        }
    }
}

#[test]
fn invalid_proxy_variable_fails_only_its_requests() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", ok())]);
    let urls = [server.url("/f"), "https://127.0.0.1:1/g".to_owned()];
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let line = ["download", "--overwrite", &urls[0], &urls[1]];
        let ran = folder
            .myapp(line)
            .env(name, "ftp://user:secret@127.0.0.1")
            .run();
        let says = format!(
            "download {}: parse proxy in {name}: only http, https, socks5 and socks5h proxies",
            urls[1]
        );
        ran.code(2).says(&says).says("hint: --proxy URL overrides");
        assert_eq!(folder.read("f"), b"good", "{name}");
    }
    let excepted = program(&folder, &[&urls[0]])
        .env("ALL_PROXY", "ftp://127.0.0.1")
        .env("no_proxy", "127.0.0.1");
    excepted.run().code(0).prints("good");
}

#[test]
fn socks_scheme_of_desktops_is_socks5() {
    let proxy = socks_proxy();
    let server = Server::with_paths([("/f", ok())]);
    let named = proxy.url("socks").replace("//", "//user:secret@");
    let folder = Folder::new();
    let program = program(&folder, &[&server.url("/f")]).env("ALL_PROXY", &named);
    program.run().code(0).prints("good");
    assert_eq!(proxy.requests().len(), 1);
}
