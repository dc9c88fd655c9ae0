//! Reuse of connections, retries, timeouts and TLS.

use std::time::Instant;

use myapp::net::tls::{TlsConfig, Trust};
use rustix::net::sockopt::set_socket_linger;
use surf::HttpClient;

use super::*;
use crate::harness::Folder;
use crate::harness::http::{Certificate, seeded};

#[test]
fn connection_is_reused_after_each_method() {
    let server = RawServer::answering([OK; 6]);
    let client = client();
    for request in [
        client.get(server.url("/")),
        client.post(server.url("/")).body("hello"),
        client.put(server.url("/")).body(unsized_body(b"hello")),
        client.put(server.url("/")).body(vec![7; 100_000]),
        client.delete(server.url("/")),
        client.get(server.url("/")),
    ] {
        assert_eq!(fetch(request).unwrap(), (200, "ok".into()));
    }
    assert_eq!(server.connections(), [0; 6]);
    assert_eq!(server.peer.connections(), 1);
}

#[test]
fn unread_or_closed_connection_is_not_reused() {
    let server = RawServer::start(|conversation| {
        while conversation.request().is_ok() {
            conversation.send(OK)?;
        }
        Ok(())
    });
    let client = client();
    let response = block_on(async { client.get(server.url("/")).await.unwrap() });
    drop(response);
    let closing = client.get(server.url("/")).header("connection", "close");
    assert_eq!(fetch(closing).unwrap().1, "ok");
    assert_eq!(fetch(client.get(server.url("/"))).unwrap().1, "ok");
    assert_eq!(server.connections(), [0, 1, 2]);
}

/// Starts a server that closes its first connection when it receives a second head, and answers
/// all other requests.
fn closing_on_second_head() -> RawServer {
    RawServer::start(|conversation| {
        conversation.request()?;
        conversation.send(OK)?;
        if conversation.number == 0 {
            return conversation.head().map(drop);
        }
        conversation.request()?;
        conversation.send(OK)
    })
}

#[test]
fn idempotent_request_on_a_stale_connection_is_repeated() {
    for repeat in [
        |client: &surf::Client, url| client.get(url),
        |client: &surf::Client, url| client.head(url),
        |client: &surf::Client, url| client.delete(url),
        |client: &surf::Client, url| client.put(url).body("hello"),
    ] {
        let server = closing_on_second_head();
        let client = client();
        fetch(client.get(server.url("/"))).unwrap();
        assert_eq!(fetch(repeat(&client, server.url("/"))).unwrap().0, 200);
        assert_eq!(server.connections(), [0, 0, 1]);
    }
}

#[test]
fn post_on_a_stale_connection_is_not_repeated() {
    for post in [
        |client: &surf::Client, url| client.post(url),
        |client: &surf::Client, url| client.post(url).body("hello"),
        |client: &surf::Client, url| client.post(url).body(unsized_body(b"hello")),
        |client: &surf::Client, url| client.post(url).body(vec![7; 100_000]),
        |client: &surf::Client, url| client.patch(url).body("hello"),
    ] {
        let server = closing_on_second_head();
        let client = client();
        fetch(client.get(server.url("/"))).unwrap();
        let error = fetch(post(&client, server.url("/"))).unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(server.connections(), [0, 0]);
        assert_eq!(server.peer.connections(), 1);
    }
}

#[test]
fn partly_sent_body_is_not_repeated() {
    let server = closing_on_second_head();
    let client = client();
    fetch(client.get(server.url("/"))).unwrap();
    // More than the sockets hold, so that the end is seen in the middle of the body.
    let body = Body::from_reader(Cursor::new(vec![7; 32 << 20]), None);
    let error = fetch(client.put(server.url("/")).body(body)).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(server.connections(), [0, 0]);
    assert_eq!(server.peer.connections(), 1);
}

#[test]
fn early_error_ends_the_body_and_the_connection() {
    for resets in [false, true] {
        let server = RawServer::start(move |conversation| {
            conversation.head()?;
            if conversation.number > 0 {
                return conversation.send(OK);
            }
            conversation.stream.fill_buf()?;
            conversation.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")?;
            if !resets {
                // Reads on, so that nothing but the response can stop the client.
                assert!(conversation.rest()?.len() < 1 << 30);
            }
            Ok(())
        });
        let client = client();
        let endless = futures_lite::io::BufReader::new(futures_lite::io::repeat(7));
        let request = client
            .post(server.url("/"))
            .body(Body::from_reader(endless, None));
        let response = block_on(async { request.await.unwrap() });
        assert_eq!(u16::from(response.status()), 413);
        drop(response);
        assert_eq!(fetch(client.get(server.url("/"))).unwrap().1, "ok");
        assert_eq!(server.connections(), [0, 1]);
    }
}

#[test]
fn early_success_does_not_end_the_body() {
    let server = RawServer::start(|conversation| {
        let head = conversation.head()?;
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?;
        conversation.body(&head)?;
        conversation.send("ok")
    });
    let body = seeded(4, 8 << 20);
    let reader = Cursor::new(body.clone());
    let request = client()
        .put(server.url("/"))
        .header("Expect", "")
        .body(Body::from_reader(reader, Some(body.len())));
    assert_eq!(fetch(request).unwrap().1, "ok");
    assert!(server.received()[0].body == body);
}

#[test]
fn reset_while_sending_is_an_error() {
    let server = RawServer::start(|conversation| {
        conversation.head()?;
        Ok(set_socket_linger(&conversation.tcp, Some(Duration::ZERO))?)
    });
    let endless = futures_lite::io::BufReader::new(futures_lite::io::repeat(7));
    let request = client()
        .post(server.url("/"))
        .body(Body::from_reader(endless, None));
    let error = fetch(request).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(server.peer.connections(), 1);
}

#[test]
fn silent_server_times_out() {
    let limit = Duration::from_millis(200);
    let idle = client_with(ClientConfig {
        idle_timeout: limit,
        ..config()
    });
    let mut transport = Transport::new(config()).unwrap();
    transport
        .set_config(transport.config().clone().set_timeout(Some(limit)))
        .unwrap();
    assert_eq!(transport.config().timeout, Some(limit));
    let total = surf::Client::with_http_client(transport);
    for client in [idle, total] {
        for body in [Body::empty(), vec![7; 100_000].into()] {
            let server = RawServer::start(|conversation| {
                conversation.request()?;
                conversation.rest().map(drop)
            });
            let start = Instant::now();
            let error = fetch(client.post(server.url("/")).body(body)).unwrap_err();
            assert!(
                matches!(
                    error,
                    HttpError::TimedOut { limit: found } | HttpError::NoResponse { limit: found }
                        if found == limit
                ),
                "{error:?}"
            );
            assert!(start.elapsed() >= limit && start.elapsed() < LONG);
        }
    }
}

#[test]
fn server_that_stops_reading_times_out() {
    let (done, wait) = smol::channel::bounded::<()>(1);
    let server = RawServer::start(move |conversation| {
        conversation.head()?;
        // Ends when the test does.
        let _ = wait.recv_blocking();
        Ok(())
    });
    let client = client_with(ClientConfig {
        idle_timeout: Duration::from_millis(200),
        ..config()
    });
    let endless = futures_lite::io::BufReader::new(futures_lite::io::repeat(7));
    let request = client
        .post(server.url("/"))
        .body(Body::from_reader(endless, None));
    let error = fetch(request).unwrap_err();
    assert!(matches!(error, HttpError::TimedOut { .. }), "{error:?}");
    drop(done);
}

#[test]
fn slow_reader_of_the_body_does_not_time_out() {
    let server = RawServer::answering([OK]);
    let idle_timeout = Duration::from_millis(200);
    let client = client_with(ClientConfig {
        idle_timeout,
        ..config()
    });
    let (sender, pieces) = smol::channel::bounded::<io::Result<Vec<u8>>>(1);
    let feeder = std::thread::spawn(move || {
        for piece in ["he", "llo"] {
            // The body is slower than the timeout, which is for the server.
            std::thread::sleep(2 * idle_timeout);
            sender.send_blocking(Ok(piece.into())).unwrap();
        }
    });
    let reader = ChannelReader(Box::pin(pieces));
    let body = Body::from_reader(futures_lite::io::BufReader::new(reader), None);
    assert_eq!(
        fetch(client.put(server.url("/")).body(body)).unwrap().1,
        "ok"
    );
    feeder.join().unwrap();
    assert_eq!(
        server.received()[0].body,
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    );
}

/// Reader of the pieces that a channel delivers.
struct ChannelReader(std::pin::Pin<Box<smol::channel::Receiver<io::Result<Vec<u8>>>>>);

impl futures_lite::AsyncRead for ChannelReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut [u8],
    ) -> std::task::Poll<io::Result<usize>> {
        use futures_lite::Stream;
        self.0.as_mut().poll_next(cx).map(|piece| match piece {
            None => Ok(0),
            Some(piece) => {
                let piece = piece?;
                into[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
        })
    }
}

#[test]
fn refused_connection_is_a_connect_error() {
    let error = fetch(client().get("http://127.0.0.1:1/")).unwrap_err();
    assert!(matches!(error, HttpError::Connect(_)), "{error:?}");
}

fn trusting(folder: &Folder, certificate: &Certificate) -> surf::Client {
    let roots = folder.write("ca.pem", &certificate.pem);
    client_with(ClientConfig {
        tls: TlsConfig {
            trust: Trust::RootCertificates(roots),
            ..TlsConfig::default()
        },
        ..config()
    })
}

#[test]
fn tls_carries_all_bodies_over_one_connection() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let server = RawServer::start_tls(certificate.config(), |conversation| {
        while let Ok(head) = conversation.head() {
            if head.contains("Expect: 100-continue") {
                conversation.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            conversation.body(&head)?;
            conversation.send(OK)?;
        }
        Ok(())
    });
    let folder = Folder::new();
    let client = trusting(&folder, &certificate);
    let url = server.url("/").replace("http:", "https:");
    let body = seeded(6, 3 << 20);
    for request in [
        client.get(&url),
        client.post(&url).body("hello"),
        client.put(&url).body(body.clone()),
        client.put(&url).body(unsized_body(b"hello")),
        client.delete(&url),
    ] {
        assert_eq!(fetch(request).unwrap(), (200, "ok".into()));
    }
    assert_eq!(server.connections(), [0; 5]);
    let received = server.received();
    assert_eq!(received[1].body, b"hello");
    assert!(received[2].body == body);
    assert_eq!(received[3].body, b"5\r\nhello\r\n0\r\n\r\n");

    let error = fetch(client_with(config()).get(&url)).unwrap_err();
    assert!(matches!(error, HttpError::Tls { .. }), "{error:?}");
}

#[test]
fn body_cut_inside_tls_is_an_error() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        // Without close_notify the end may be an attacker's.
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    ] {
        let certificate = Certificate::of(&["127.0.0.1"]);
        let server = RawServer::start_tls(certificate.config(), move |conversation| {
            conversation.request()?;
            conversation.send(response)
        });
        let folder = Folder::new();
        let client = trusting(&folder, &certificate);
        let url = server.url("/").replace("http:", "https:");
        let error = fetch(client.get(url)).unwrap_err();
        assert!(
            matches!(error, HttpError::IncompleteBody { .. }),
            "{response}: {error:?}"
        );
    }
}
