//! Responses as a surf client sees them.

use futures_lite::AsyncReadExt;
use myapp::download::http::ResponseHead;

use super::*;

#[track_caller]
fn respond(response: impl AsRef<[u8]> + Send + Sync + 'static) -> surf::Response {
    let server = RawServer::answering([response]);
    block_on(async { client().get(server.url("/")).await.unwrap() })
}

#[test]
fn status_and_headers_are_those_received() {
    let response = respond(
        "HTTP/1.1 404 Gone\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nX: y\r\n\
         SET-COOKIE: b=2\r\nContent-Length: 2\r\n\r\nno",
    );
    assert_eq!(u16::from(response.status()), 404);
    assert_eq!(response.version(), Some(surf::http::Version::Http1_1));
    let cookies = response.header("set-cookie").unwrap();
    let cookies: Vec<_> = cookies.iter().map(|value| value.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(response.header("x").unwrap().as_str(), "y");
    assert_eq!(response.content_type().unwrap().essence(), "text/plain");
    assert_eq!(response.len(), Some(2));
    assert_eq!(response.iter().count(), 4);
}

#[test]
fn raw_head_is_an_extension() {
    let response = respond("HTTP/1.0 599 Odd\r\nLocation: /ü\r\nA: 1\r\n\r\n");
    assert_eq!(u16::from(response.status()), 500);
    assert_eq!(response.version(), Some(surf::http::Version::Http1_0));
    assert!(response.header("location").is_none());
    let head = response.ext::<ResponseHead>().unwrap();
    assert_eq!(head.status(), 599);
    let fields: Vec<_> = head.fields().collect();
    assert_eq!(fields, [("Location", "/ü".as_bytes()), ("A", b"1")]);
}

#[test]
fn content_type_is_not_invented() {
    let response = respond(OK);
    assert!(response.header("content-type").is_none());
    assert_eq!(response.header("content-length").unwrap().as_str(), "2");
}

#[test]
fn body_is_read_with_every_framing() {
    for (response, length) in [
        (OK.to_owned(), Some(2)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
                .into(),
            None,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nok".into(), None),
    ] {
        let mut received = respond(response.clone());
        assert_eq!(received.len(), length, "{response}");
        let body = block_on(received.body_bytes()).unwrap();
        assert_eq!(body, b"ok", "{response}");
    }
}

#[test]
fn large_body_is_streamed_through_any_reader() {
    let body = crate::harness::http::seeded(3, 1_000_000);
    let sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(77_777) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend([piece, b"\r\n"].concat());
    }
    chunked.extend(b"0\r\n\r\n");
    for wire in [[sized.as_bytes(), &body].concat(), chunked] {
        for room in [1, 1000, 300_000] {
            let response = respond(wire.clone());
            let mut got = Vec::new();
            block_on(async {
                // Both ways to read: into a buffer, and out of the reader's own.
                let mut reader = futures_lite::io::BufReader::with_capacity(room, response);
                futures_lite::io::copy(&mut reader, &mut got).await.unwrap();
            });
            assert!(got == body, "{} bytes with room for {room}", got.len());
        }
        let response: surf::http::Response = respond(wire).into();
        let mut got = Vec::new();
        block_on(futures_lite::io::copy(response, &mut got)).unwrap();
        assert!(got == body);
    }
}

#[test]
fn buffered_reads_return_the_complete_body() {
    use futures_lite::{AsyncBufReadExt, StreamExt};
    let lines: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", lines.len());
    let response: surf::http::Response = respond(head + &lines).into();
    let read: Vec<_> = block_on(response.lines().map(|line| line.unwrap()).collect());
    assert_eq!(read.len(), 10_000);
    assert_eq!(read[9_999], "line 9999");
}

#[track_caller]
fn is_cut(response: &'static str, received: u64, expected: Option<u64>) {
    let mut cut = respond(response);
    let mut bytes = Vec::new();
    let error = block_on(cut.read_to_end(&mut bytes)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{response}");
    let whole = respond(response).body_bytes_blocking().unwrap_err();
    for error in [
        HttpError::from_io(error),
        HttpError::from_surf(whole).unwrap(),
    ] {
        let HttpError::IncompleteBody {
            received: found,
            expected: announced,
        } = error
        else {
            panic!("{response}: {error:?}")
        };
        assert_eq!((found, announced), (received, expected), "{response}");
    }
    // The error stays: a second read is no end of the body.
    assert!(block_on(cut.read(&mut [0; 9])).is_err());
}

trait BlockingBody {
    fn body_bytes_blocking(self) -> surf::Result<Vec<u8>>;
}

impl BlockingBody for surf::Response {
    fn body_bytes_blocking(mut self) -> surf::Result<Vec<u8>> {
        block_on(self.body_bytes())
    }
}

#[test]
fn truncated_body_is_an_error_of_the_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    is_cut(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        4,
        Some(5),
    );
    is_cut("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0, Some(5));
    is_cut(chunked, 3, None);
    is_cut(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        5,
        None,
    );
}

#[test]
fn responses_without_body_leave_the_connection_open() {
    let server = RawServer::answering([
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 None\r\n\r\n",
        "HTTP/1.1 304 Same\r\nContent-Length: 1000\r\n\r\n",
        OK,
    ]);
    let client = client();
    let mut lengths = Vec::new();
    for request in [
        client.head(server.url("/")),
        client.head(server.url("/")),
        client.get(server.url("/")),
        client.get(server.url("/")),
    ] {
        let mut response = block_on(async { request.await.unwrap() });
        assert_eq!(response.len(), Some(0));
        let length = response
            .header("content-length")
            .map(|value| value.as_str().to_owned());
        lengths.push(length);
        assert_eq!(block_on(response.body_bytes()).unwrap(), b"");
    }
    let announced = Some("1000".to_owned());
    assert_eq!(lengths, [announced.clone(), None, None, announced]);
    assert_eq!(fetch(client.get(server.url("/"))).unwrap().1, "ok");
    assert_eq!(server.connections(), [0; 5]);
}

#[test]
fn protocol_violation_is_an_http_error() {
    for response in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let server = RawServer::answering([response]);
        let error = fetch(client().get(server.url("/"))).unwrap_err();
        assert!(
            matches!(error, HttpError::Protocol { .. }),
            "{response}: {error:?}"
        );
    }
}

#[test]
fn middleware_and_json_work() {
    let json = r#"{"answer":42}"#;
    let found = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    let server = RawServer::start(move |conversation| {
        while let Ok(head) = conversation.head() {
            if head.contains(" /new ") {
                conversation.send(&found)?;
            } else {
                conversation
                    .send("HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n")?;
            }
        }
        Ok(())
    });
    let client = client().with(surf::middleware::Redirect::new(3));
    let value: serde_json::Value =
        block_on(client.recv_json(client.get(server.url("/old")))).unwrap();
    assert_eq!(value["answer"], 42);
}
