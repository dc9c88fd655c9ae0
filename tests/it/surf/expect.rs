//! `Expect: 100-continue` (RFC 9110 section 10.1.1).

use std::time::Instant;

use super::*;

/// Length from which a body is announced with an expectation.
const LARGE: usize = 1 << 20;

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn put_large(client: &surf::Client, server: &RawServer) -> surf::RequestBuilder {
    client.put(server.url("/")).body(vec![7; LARGE])
}

#[test]
fn large_body_waits_for_continue() {
    let server = RawServer::start(|conversation| {
        for _ in 0..2 {
            let head = conversation.head()?;
            // An early body would be here already, on loopback; `fetch` would fail without one.
            conversation.send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
            conversation.send(CONTINUE)?;
            conversation.body(&head)?;
            conversation.send(OK)?;
        }
        Ok(())
    });
    let client = client();
    let start = Instant::now();
    for _ in 0..2 {
        assert_eq!(fetch(put_large(&client, &server)).unwrap().1, "ok");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "no timeout");
    assert_eq!(server.connections(), [0, 0]);
    for request in server.received() {
        assert!(request.has_field("Expect: 100-continue"));
        assert!(request.body == vec![7; LARGE]);
    }
}

#[test]
fn body_is_sent_without_continue_after_a_second() {
    let server = RawServer::start(|conversation| {
        let head = conversation.head()?;
        let start = Instant::now();
        conversation.stream.fill_buf()?;
        assert!(start.elapsed() >= Duration::from_millis(900));
        conversation.body(&head)?;
        // Too late, and skipped.
        conversation.send(CONTINUE)?;
        conversation.send(OK)
    });
    let start = Instant::now();
    assert_eq!(fetch(put_large(&client(), &server)).unwrap().1, "ok");
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert!(server.received()[0].body == vec![7; LARGE]);
}

#[test]
fn idle_timeout_does_not_shorten_the_wait() {
    let server = RawServer::answering([OK]);
    let client = client_with(ClientConfig {
        idle_timeout: Duration::from_millis(500),
        ..config()
    });
    assert_eq!(fetch(put_large(&client, &server)).unwrap().1, "ok");
}

#[test]
fn final_response_suppresses_the_body() {
    for status in [200, 401, 413] {
        let (leftover, bytes) = smol::channel::bounded(1);
        let server = RawServer::start(move |conversation| {
            conversation.head()?;
            if conversation.number > 0 {
                return conversation.send(OK);
            }
            conversation.send(format!(
                "HTTP/1.1 {status} Early\r\nContent-Length: 2\r\n\r\nno"
            ))?;
            leftover.send_blocking(conversation.rest()?).unwrap();
            Ok(())
        });
        let client = client();
        let response = fetch(put_large(&client, &server)).unwrap();
        assert_eq!(response, (status, "no".into()));
        // The server may wait for the body: the connection is not reused.
        assert_eq!(fetch(client.get(server.url("/"))).unwrap().1, "ok");
        assert_eq!(server.connections(), [0, 1]);
        assert_eq!(bytes.recv_blocking().unwrap(), b"", "{status}");
    }
}

#[test]
fn request_is_repeated_without_a_failed_expectation() {
    let server = RawServer::start(|conversation| {
        let head = conversation.head()?;
        if head.contains("Expect") {
            return conversation
                .send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
        }
        conversation.body(&head)?;
        conversation.send(OK)
    });
    let reader = Cursor::new(vec![7; LARGE]);
    let request = client()
        .post(server.url("/"))
        .body(Body::from_reader(reader, Some(LARGE)));
    assert_eq!(fetch(request).unwrap(), (200, "ok".into()));
    assert_eq!(server.connections(), [0, 1]);
    assert!(server.received()[1].body == vec![7; LARGE]);
}

#[test]
fn expect_header_requests_or_disables_it() {
    let server = RawServer::start(|conversation| {
        while let Ok(head) = conversation.head() {
            if head.contains("Expect: 100-continue\r\n") {
                conversation.send(CONTINUE)?;
            }
            conversation.body(&head)?;
            conversation.send(OK)?;
        }
        Ok(())
    });
    let client = client();
    let small = client
        .post(server.url("/"))
        .header("Expect", "100-continue")
        .body("hello");
    let chunked = client
        .post(server.url("/"))
        .header("expect", "100-Continue")
        .body(unsized_body(b"hello"));
    let disabled = put_large(&client, &server).header("expect", "");
    let empty = client.get(server.url("/")).header("Expect", "100-continue");
    for request in [small, chunked, disabled, empty] {
        assert_eq!(fetch(request).unwrap().1, "ok");
    }
    let expected: Vec<_> = server
        .received()
        .iter()
        .map(|request| request.head.to_lowercase().contains("expect"))
        .collect();
    assert_eq!(expected, [true, true, false, false]);
}
