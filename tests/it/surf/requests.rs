//! Requests as they are on the wire.

use surf::http::headers::HeaderValue;

use super::*;

/// Sends a request built by `build` and returns it as received.
#[track_caller]
fn sent(build: impl FnOnce(surf::Client, String) -> surf::RequestBuilder) -> Received {
    let server = RawServer::answering([OK]);
    let request = build(client(), server.url("/x?y=z"));
    assert_eq!(fetch(request).unwrap(), (200, "ok".into()));
    let [received] = &server.received()[..] else {
        panic!("{:?}", server.received())
    };
    let host = format!("Host: {}\r\n", server.peer.address());
    Received {
        head: received.head.replace(&host, "Host: HOST\r\n"),
        ..received.clone()
    }
}

#[track_caller]
fn is(received: &Received, line: &str, fields: &str, body: &[u8]) {
    let head = format!("{line} HTTP/1.1\r\nHost: HOST\r\n{DEFAULTS}{fields}\r\n");
    assert_eq!(received.head, head);
    assert!(received.body == body, "{} bytes", received.body.len());
}

#[test]
fn methods_without_body_have_no_length() {
    is(&sent(|client, url| client.get(url)), "GET /x?y=z", "", b"");
    is(
        &sent(|client, url| client.delete(url)),
        "DELETE /x?y=z",
        "",
        b"",
    );
    is(
        &sent(|client, url| client.options(url)),
        "OPTIONS /x?y=z",
        "",
        b"",
    );
    is(
        &sent(|client, url| client.post(url)),
        "POST /x?y=z",
        "Content-Length: 0\r\n",
        b"",
    );
}

#[test]
fn known_body_is_sent_with_its_length() {
    let small = sent(|client, url| client.post(url).body("hello"));
    let text = "content-type: text/plain;charset=utf-8\r\n";
    is(
        &small,
        "POST /x?y=z",
        &format!("{text}Content-Length: 5\r\n"),
        b"hello",
    );
    for length in [16 * 1024, 16 * 1024 + 1, 1_000_000] {
        let bytes = crate::harness::http::seeded(1, length);
        let large = sent(|client, url| client.put(url).body(bytes.clone()));
        let fields =
            format!("content-type: application/octet-stream\r\nContent-Length: {length}\r\n");
        is(&large, "PUT /x?y=z", &fields, &bytes);
    }
    let deleted = sent(|client, url| client.delete(url).body("why"));
    let fields = format!("{text}Content-Length: 3\r\n");
    is(&deleted, "DELETE /x?y=z", &fields, b"why");
}

#[test]
fn reader_of_unknown_length_is_chunked() {
    let fields = "content-type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n";
    let small = sent(|client, url| client.put(url).body(unsized_body(b"hello, reader")));
    is(
        &small,
        "PUT /x?y=z",
        fields,
        b"d\r\nhello, reader\r\n0\r\n\r\n",
    );
    let empty = sent(|client, url| client.post(url).body(unsized_body(b"")));
    is(&empty, "POST /x?y=z", fields, b"0\r\n\r\n");

    let bytes = crate::harness::http::seeded(2, 3_000_000);
    let large = sent(|client, url| client.put(url).body(unsized_body(&bytes)));
    let wire: Vec<u8> = bytes
        .chunks(32 * 1024)
        .flat_map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    is(&large, "PUT /x?y=z", fields, &wire);
}

#[test]
fn headers_are_sorted_and_replace_the_defaults() {
    let received = sent(|client, url| {
        client
            .get(url)
            .header("X-B", "2")
            .header("x-a", "1")
            .header("User-Agent", "other/1")
            .header("Connection", "keep-alive")
    });
    assert_eq!(
        received.head,
        "GET /x?y=z HTTP/1.1\r\nHost: HOST\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
         connection: keep-alive\r\nuser-agent: other/1\r\nx-a: 1\r\nx-b: 2\r\n\r\n"
    );
}

#[test]
fn repeated_header_keeps_its_values_in_order() {
    let received = sent(|client, url| {
        let values = ["b", "a", "c"].map(|value| value.parse::<HeaderValue>().unwrap());
        client.get(url).header("x", &values[..])
    });
    is(&received, "GET /x?y=z", "x: b\r\nx: a\r\nx: c\r\n", b"");
}

#[test]
fn smuggling_headers_are_not_sent() {
    let server = RawServer::answering([OK]);
    let client = client();
    for (name, value, body) in [
        ("x", "y\r\nGET /evil HTTP/1.1", Body::empty()),
        ("content-length", "3", "hello".into()),
        ("content-length", "5", unsized_body(b"hello")),
        ("content-length", "5", Body::empty()),
        ("transfer-encoding", "chunked", "hello".into()),
        ("transfer-encoding", "chunked, identity", unsized_body(b"x")),
        ("connection", "content-length", "hello".into()),
        ("connection", "upgrade", Body::empty()),
        ("upgrade", "h2c", Body::empty()),
    ] {
        let request = client.post(server.url("/")).header(name, value).body(body);
        let error = fetch(request).unwrap_err();
        assert!(
            matches!(error, HttpError::InvalidHeader { .. }),
            "{name}: {value}: {error:?}"
        );
    }
    // Nothing was sent, and the next request is not disturbed.
    assert_eq!(fetch(client.get(server.url("/"))).unwrap().0, 200);
    assert_eq!(server.received().len(), 1);
}

#[test]
fn agreeing_framing_headers_are_sent_once() {
    let received = sent(|client, url| client.post(url).header("content-length", "5").body("hello"));
    assert_eq!(
        received
            .head
            .to_lowercase()
            .matches("content-length")
            .count(),
        1
    );
    let received = sent(|client, url| {
        client
            .post(url)
            .header("transfer-encoding", "chunked")
            .body(unsized_body(b"hello"))
    });
    assert_eq!(
        received
            .head
            .to_lowercase()
            .matches("transfer-encoding")
            .count(),
        1
    );
}

#[track_caller]
fn is_too_short(server: &RawServer, client: &surf::Client, length: usize) {
    let reader = Cursor::new(vec![7; length - 1]);
    let body = Body::from_reader(reader, Some(length));
    let error = fetch(client.put(server.url("/")).body(body)).unwrap_err();
    let HttpError::RequestBody { source } = &error else {
        panic!("{error:?}")
    };
    let sent = length - 1;
    assert_eq!(
        source.to_string(),
        format!("request body ended after {sent} of {length} bytes")
    );
    assert!(!error.is_transient());
}

#[test]
fn short_reader_cuts_the_request() {
    let (cut, seen) = smol::channel::bounded(1);
    let server = RawServer::start(move |conversation| {
        let head = conversation.head()?;
        cut.send_blocking(conversation.body(&head).is_err())
            .unwrap();
        Ok(())
    });
    is_too_short(&server, &client(), 100_000);
    assert!(seen.recv_blocking().unwrap());
}

#[test]
fn short_reader_of_a_small_body_sends_nothing() {
    let server = RawServer::answering([OK]);
    let client = client();
    is_too_short(&server, &client, 5);
    assert_eq!(fetch(client.get(server.url("/"))).unwrap().1, "ok");
    assert_eq!(server.received().len(), 1);
}

#[test]
fn unsupported_requests_are_errors() {
    let client = client();
    for (method, url) in [
        (surf::http::Method::Connect, "http://127.0.0.1:1/"),
        (surf::http::Method::Get, "ftp://127.0.0.1:1/"),
    ] {
        let error = fetch(client.request(method, url)).unwrap_err();
        assert!(
            matches!(
                error,
                HttpError::UnsupportedRequest { .. } | HttpError::UnsupportedUrl
            ),
            "{error:?}"
        );
    }
}

#[test]
fn proxy_receives_the_absolute_form_and_the_body() {
    let proxy = RawServer::answering([OK, OK]);
    let mut config = config();
    let named = format!("http://user:secret@{}", proxy.peer.address());
    config.proxies.http = ProxySetting::Proxy(named.parse().unwrap());
    let client = client_with(config);
    for _ in 0..2 {
        let request = client.post("http://site.invalid/a?b").body("hello");
        assert_eq!(fetch(request).unwrap(), (200, "ok".into()));
    }
    let received = proxy.received();
    assert_eq!(proxy.connections(), [0, 0]);
    assert!(
        received[1]
            .head
            .starts_with("POST http://site.invalid/a?b HTTP/1.1\r\nHost: site.invalid\r\n"),
        "{}",
        received[1].head
    );
    assert!(received[1].has_field("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(received[1].body, b"hello");
}
