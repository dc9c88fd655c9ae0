//! How the bytes of a file come, whole and broken.

use super::*;

#[test]
fn files_of_any_size_are_saved_completely() {
    for size in [
        0,
        1,
        1000,
        256 << 10,
        (256 << 10) + 1,
        1 << 20,
        (1 << 20) + 1,
        LARGE,
    ] {
        let body = seeded(size as u64, size);
        is_saved(Answer::body(body.clone()), &body);
    }
}

#[test]
fn every_framing_is_decoded() {
    for size in [0, 5000, 256 << 10, (256 << 10) + 1, LARGE] {
        let body = seeded(7, size);
        is_saved(Answer::body(body.clone()).chunked(), &body);
        is_saved(Answer::body(body.clone()).until_close(), &body);
        is_saved(Answer::body(body.clone()).http_1_0(), &body);
    }
}

#[test]
fn truncated_body_is_never_saved() {
    for at in [0, 1000, HALF] {
        breaks(
            Answer::body(seeded(1, LARGE)).cut_at(at),
            &[],
            4,
            "incomplete response",
        );
        breaks(
            Answer::body(seeded(1, LARGE)).chunked().cut_at(at),
            &[],
            4,
            "incomplete response",
        );
    }
}

#[test]
fn surplus_bytes_do_not_affect_any_file() {
    let (folder, server) = (
        Folder::new(),
        Server::start(|request| Answer::body(request.path.as_bytes()).surplus("HTTP/1.1 200 X")),
    );
    fetch(&folder, ["-j1", &server.url("/a"), &server.url("/b")]).code(0);
    assert_eq!(
        (folder.read("a"), folder.read("b")),
        (b"/a".to_vec(), b"/b".to_vec())
    );
    assert_eq!(server.connections(), 2);
}

#[test]
fn unrequested_content_encoding_is_saved_with_a_warning() {
    let answer = Answer::body("not really gzip").header("Content-Encoding", "gzip");
    let (folder, ran) = fetch_f(answer, &[]);
    ran.code(0).says("saved undecoded");
    assert_eq!(folder.read("f"), b"not really gzip");
}

#[test]
fn malformed_responses_are_refused() {
    let fields = (0..100_000).fold(ok(), |answer, number| {
        answer.header(&format!("X-{number}"), "")
    });
    for (answer, says) in [
        (
            ok().header("X", &"x".repeat(10 << 20)),
            "longer than 256 KiB",
        ),
        (fields, "the head"),
        (
            Answer::empty(100).surplus("HTTP/1.1 103 X\r\n\r\n".repeat(100_000)),
            "informational",
        ),
        (
            Answer::body("zz\r\n").header("Transfer-Encoding", "chunked"),
            "invalid chunk size: \"zz\"",
        ),
        (
            Answer::body("400000000000000000\r\n").header("Transfer-Encoding", "chunked"),
            "invalid chunk size",
        ),
    ] {
        fails(answer, &[], 7, says);
    }
}
