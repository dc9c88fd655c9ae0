//! `myapp download` through proxies over TLS.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;

use async_net::{TcpListener, TcpStream};
use futures_lite::{future, io};
use futures_rustls::TlsAcceptor;

use super::https;
use super::proxies::http_proxy;
use crate::harness::http::{Certificate, Response, Server};
use crate::harness::raw_peer::Peer;
use crate::harness::{Folder, RunOutput};

/// Starts a server for `localhost` that ends TLS in front of `plain`, and writes its certificate to
/// `proxy.pem`.
fn tls_front(folder: &Folder, plain: SocketAddr) -> SocketAddr {
    let certificate = Certificate::of(&["localhost"]);
    folder.write("proxy.pem", &certificate.pem);
    let acceptor = TlsAcceptor::from(certificate.config());
    let listener = smol::block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        smol::block_on(async {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                smol::spawn(async move {
                    let tls = acceptor.accept(client).await?;
                    let server = TcpStream::connect(plain).await?;
                    let (from_client, to_client) = io::split(tls);
                    let up = io::copy(from_client, server.clone());
                    let down = io::copy(server, to_client);
                    // Either side may close at any time.
                    future::race(up, down).await
                })
                .detach();
            }
        })
    });
    address
}

fn fetch(folder: &Folder, proxy_port: u16, line: &[&str]) -> RunOutput {
    let proxy = format!("https://user:secret@localhost:{proxy_port}");
    let common = ["download", "--retry", "0", "-o", "-", "--proxy", &proxy];
    folder.myapp([&common, line].concat()).run()
}

#[test]
fn https_proxy_forwards_http_and_tunnels_https() {
    let folder = Folder::new();
    let origin = https::serve(&folder);
    let plain = http_proxy();
    let front = tls_front(&folder, plain.address);
    let trust = ["--proxy-cacert", "proxy.pem", "--cacert", "ca.pem"];
    let url = "http://a.invalid/x?y";
    fetch(&folder, front.port(), &[&trust[..], &[url]].concat())
        .code(0)
        .prints("GET http://a.invalid/x?y HTTP/1.1");
    let url = format!("https://localhost:{}/f", origin.port());
    fetch(&folder, front.port(), &[&trust[..], &[&url]].concat())
        .code(0)
        .prints("good");
    let heads = plain.requests();
    assert!(heads[1].starts_with("CONNECT localhost:"), "{heads:?}");
    for head in heads {
        assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
    }
}

#[test]
fn https_proxy_is_not_trusted_by_options_for_origins() {
    let folder = Folder::new();
    let plain = http_proxy();
    let front = tls_front(&folder, plain.address);
    for line in [&[][..], &["--cacert", "proxy.pem"], &["--insecure"]] {
        fetch(
            &folder,
            front.port(),
            &[line, &["http://a.invalid/"]].concat(),
        )
        .code(5)
        .says(&format!(
            "connect through proxy https://localhost:{}: TLS handshake: unknown certificate \
                 issuer",
            front.port()
        ))
        .says("hint: --proxy-cacert FILE");
    }
    assert_eq!(plain.requests(), [""; 0]);

    let web = Peer::start(|mut stream| {
        stream.read_exact(&mut [0; 3])?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    let line = ["--proxy-cacert", "proxy.pem", "http://a.invalid/"];
    fetch(&folder, web.port(), &line)
        .code(5)
        .says("server does not speak TLS")
        .says("hint: use an http:// proxy");
    let line = ["--proxy-cacert", "missing.pem", "http://a.invalid/"];
    fetch(&folder, front.port(), &line)
        .code(3)
        .says("read certificates from missing.pem");
}

#[test]
fn connections_through_an_https_proxy_are_reused() {
    let folder = Folder::new();
    let plain = http_proxy();
    let front = tls_front(&folder, plain.address);
    let certificate = Certificate::of(&["127.0.0.1"]);
    folder.write("ca.pem", &certificate.pem);
    let origin = Server::start_tls(&certificate, |_| Response::body("good"));
    let proxy = format!("https://localhost:{}", front.port());
    let trust = ["--proxy-cacert", "proxy.pem", "--cacert", "ca.pem"];
    let line = ["download", "-vv", "-j1", "--proxy", &proxy];
    for (urls, requests) in [
        (["/1", "/2"].map(|path| origin.url(path)), 1),
        (
            ["/3", "/4"].map(|path| format!("http://a.invalid{path}")),
            3,
        ),
    ] {
        let urls = urls.each_ref().map(String::as_str);
        let ran = folder.myapp([&line[..], &trust, &urls].concat()).run();
        let ran = ran.code(0);
        assert_eq!(
            ran.stderr.matches("connected to").count(),
            1,
            "{}",
            ran.stderr
        );
        assert_eq!(plain.requests().len(), requests);
    }
}
