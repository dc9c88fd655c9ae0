//! Media types: a part is never replaced by a response of another type, such as a login page.

use std::sync::Mutex;

use super::resume::fetch;
use crate::harness::Folder;
use crate::harness::http::{Request, Response, Server, seeded};

const LARGE: usize = (8 << 20) + 12_345;

/// Length at which the first response is truncated.
const CUT_LEN: usize = 6 << 20;

const ZIP: &str = "application/zip";

/// Login page, as a captive portal or an expired session sends it.
fn login_page() -> Response {
    Response::body("<html>log in</html>").header("Content-Type", "text/html; charset=utf-8")
}

/// Starts a server whose handler gets the number of the request, from 0.
fn serve(response: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Server {
    let count = Mutex::new(0);
    Server::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        response(*count - 1, request)
    })
}

/// Starts a server that truncates the first response and gives its `others` to all further ones.
fn cut_first(
    etag: &'static str,
    others: impl Fn(&Request, &[u8]) -> Response + Send + Sync + 'static,
) -> Server {
    let whole = seeded(1, LARGE);
    serve(move |number, request| match number {
        0 => request
            .respond_with(&whole, etag)
            .header("Content-Type", ZIP)
            .truncated_at(CUT_LEN),
        _ => others(request, &whole),
    })
}

#[track_caller]
fn assert_part_kept(folder: &Folder) {
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    assert!(folder.read("f.part") == seeded(1, LARGE)[..CUT_LEN]);
}

#[test]
fn part_is_not_replaced_by_another_media_type() {
    for etag in ["\"a\"", "W/\"a\"", ""] {
        let folder = Folder::new();
        let server = cut_first(etag, |_, _| login_page());
        fetch(&folder, &server, &["--retry", "0"]).code(4);
        fetch(&folder, &server, &["-c"])
            .code(8)
            .says("media type text/html instead of application/zip")
            .says("--overwrite")
            .says("delete the .part");
        assert_part_kept(&folder);
        // One retry.
        assert_eq!(server.requests().len(), 3, "{etag:?}");
        fetch(&folder, &server, &["-c", "--overwrite"]).code(0);
        assert_eq!(folder.names(), ["f"]);
        assert_eq!(folder.read("f"), b"<html>log in</html>");
    }
}

#[test]
fn retry_does_not_accept_another_media_type() {
    for options in [&[][..], &["--overwrite"], &["--compressed"]] {
        let folder = Folder::new();
        let server = cut_first("\"a\"", |_, _| login_page());
        fetch(&folder, &server, options)
            .code(8)
            .says("media type text/html instead of application/zip");
        assert_part_kept(&folder);
        assert_eq!(server.requests().len(), 3, "{options:?}");
    }
}

#[test]
fn mismatching_range_does_not_admit_another_media_type() {
    let folder = Folder::new();
    let server = cut_first("\"a\"", |request, whole| match request.range_start() {
        Some(_) => Response::part(whole, 5, 100).header("ETag", "\"a\""),
        None => login_page(),
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &["-c", "--retry", "0"]).code(8);
    assert_part_kept(&folder);
}

#[test]
fn partial_response_of_another_media_type_is_refused() {
    const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    let folder = Folder::new();
    let whole = seeded(1, LARGE);
    let server = serve(move |number, request| {
        let response = match request.range_start() {
            Some(first) => Response::part(&whole, first, LARGE),
            None => Response::body(&whole[..]).truncated_at(CUT_LEN),
        };
        let media_type = if number == 0 { ZIP } else { "text/html" };
        response
            .header("Last-Modified", OLD)
            .header("Date", "Sun, 06 Nov 1994 09:00:00 GMT")
            .header("Content-Type", media_type)
    });
    fetch(&folder, &server, &["--retry", "1"]).code(8);
    assert_part_kept(&folder);
}

#[test]
fn mirror_of_another_media_type_keeps_the_part() {
    let folder = Folder::new();
    let server = cut_first("\"a\"", |_, _| Response::status(404));
    let mirror = Server::start(|_| login_page());
    folder.write(
        "list",
        format!("{}\t{}\n", server.url("/f"), mirror.url("/f")),
    );
    folder
        .myapp(["download", "--retry-delay=10ms", "-i", "list"])
        .run()
        .code(8);
    assert_eq!(folder.names(), ["f.part", "f.part.json", "list"]);
    assert!(folder.read("f.part") == seeded(1, LARGE)[..CUT_LEN]);
}

#[test]
fn parameters_and_case_of_a_media_type_are_ignored() {
    for media_type in [
        "application/zip;x=y",
        "Application/ZIP ; x=y",
        " application/zip",
    ] {
        let folder = Folder::new();
        let server = cut_first("", move |_, _| {
            Response::body("new").header("Content-Type", media_type)
        });
        fetch(&folder, &server, &["--retry", "0"]).code(4);
        fetch(&folder, &server, &["-c"]).code(0);
        assert_eq!(folder.read("f"), b"new", "{media_type:?}");
    }
}

#[test]
fn media_type_is_ignored_for_an_equal_strong_etag() {
    let folder = Folder::new();
    let server = cut_first("\"a\"", |request, whole| {
        request
            .respond_with(whole, "\"a\"")
            .header("Content-Type", "application/octet-stream")
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &["-c"]).code(0);
    assert!(folder.read("f") == seeded(1, LARGE));
}

#[test]
fn media_type_is_ignored_if_a_checksum_is_given() {
    use sha2::{Digest as _, Sha256};

    let folder = Folder::new();
    let server = cut_first("\"a\"", |_, whole| {
        Response::body(whole).header("Content-Type", "text/plain")
    });
    let digest = Sha256::digest(seeded(1, LARGE));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let checksum = format!("--checksum=sha256={hex}");
    fetch(&folder, &server, &["--retry", "0", &checksum]).code(4);
    fetch(&folder, &server, &["-c", &checksum]).code(0);
    assert!(folder.read("f") == seeded(1, LARGE));
}

#[test]
fn state_without_a_media_type_is_continued() {
    let folder = Folder::new();
    let server = cut_first("\"a\"", |request, whole| {
        request
            .respond_with(whole, "\"b\"")
            .header("Content-Type", "text/plain")
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    let state = String::from_utf8(folder.read("f.part.json")).unwrap();
    let field = "\"media_type\":\"application/zip\",";
    assert!(state.contains(field), "{state}");
    folder.write("f.part.json", state.replace(field, ""));
    fetch(&folder, &server, &["-c"]).code(0);
    assert!(folder.read("f") == seeded(1, LARGE));
}
