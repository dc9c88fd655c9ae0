//! Checksums: a file with a wrong checksum never gets its final name.

use crate::harness::http::{Response, Server, seeded};
use crate::harness::{Folder, RunOutput};

const LARGE: usize = (8 << 20) + 12_345;

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// SHA-256 of the empty string.
const NONE: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn fetch(folder: &Folder, arguments: &[&str]) -> RunOutput {
    folder
        .myapp([&["download", "--retry-delay", "1ms"], arguments].concat())
        .run()
        .prints("")
}

fn serve_abc() -> Server {
    Server::start(|request| match &request.path[..] {
        "/list" => Response::body(format!("{ABC}  f\n{NONE} *g\r\n")),
        "/no-list" => Response::body("<html>"),
        _ => Response::body("abc"),
    })
}

#[test]
fn matching_checksum_of_each_algorithm_is_accepted() {
    for checksum in [
        &format!("sha256={ABC}"),
        &format!("sha-256={}", ABC.to_uppercase()),
        "sha512=ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "sha1=a9993e364706816aba3e25717850c26c9cd0d89d",
        "md5=900150983cd24fb0d6963f7d28e17f72",
        "blake3=6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    ] {
        let folder = Folder::new();
        let server = serve_abc();
        fetch(&folder, &["--checksum", checksum, &server.url("/f")]).code(0);
        assert_eq!(folder.names(), ["f"]);
    }
}

#[test]
fn checksum_mismatch_is_not_renamed_or_retried() {
    let folder = Folder::new();
    let server = serve_abc();
    let wrong = format!("sha256={NONE}");
    fetch(&folder, &["--checksum", &wrong, &server.url("/f")])
        .code(9)
        .says(&format!("sha256 mismatch: expected {NONE}, got {ABC}"))
        .says("hint: the data is in the .part");
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn corrected_checksum_accepts_the_existing_part() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let server = Server::start(move |request| request.respond_with(&seeded(1, LARGE), "\"a\""));
    let url = server.url("/f");
    fetch(&folder, &["--checksum", &format!("sha256={NONE}"), &url]).code(9);
    let sum = sha256sum(&folder, "f.part");
    fetch(
        &folder,
        &["-c", "--checksum", &format!("sha256={sum}"), &url],
    )
    .code(0);
    assert!(folder.read("f") == body);
    assert_eq!(server.requests()[1].range_start(), Some(LARGE));
}

/// Returns the output of coreutils for a file.
pub(super) fn sha256sum(folder: &Folder, name: &str) -> String {
    let output = std::process::Command::new("sha256sum")
        .arg(folder.path(name))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn checksum_covers_all_pieces_of_a_resumed_file() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    folder.write("whole", &body);
    let sum = format!("sha256={}", sha256sum(&folder, "whole"));
    for etag in ["\"a\"", ""] {
        let whole = body.clone();
        let server = Server::start(move |request| match request.range_start() {
            None if etag == "\"a\"" => request.respond_with(&whole, etag).truncated_at(3 << 20),
            None => request.respond_with(&whole, etag).truncated_at(1 << 20),
            Some(first) if first < 4 << 20 => {
                request.respond_with(&whole, etag).truncated_at(2 << 20)
            }
            Some(_) => request.respond_with(&whole, etag),
        });
        let folder = Folder::new();
        fetch(&folder, &["--checksum", &sum, &server.url("/f")]).code(0);
        assert!(folder.read("f") == body);
    }
}

#[test]
fn checksum_list_formats_and_sources_are_supported() {
    let folder = Folder::new();
    let server = serve_abc();
    for list in [
        format!("{ABC}  f\n"),
        format!("{ABC} *f\n"),
        format!("{NONE}  other\r\n{ABC}  f\r\n"),
        format!("SHA256 (f) = {ABC}\n"),
        format!("{ABC}  ./f\n"),
    ] {
        folder.write("SHA256SUMS", &list);
        fetch(
            &folder,
            &[
                "--overwrite",
                "--checksums",
                "SHA256SUMS",
                &server.url("/f"),
            ],
        )
        .code(0);
    }
    let list = server.url("/list");
    fetch(
        &folder,
        &["--overwrite", "--checksums", &list, &server.url("/f")],
    )
    .code(0);
    fetch(&folder, &["--checksums", &list, &server.url("/g")]).code(9);
    assert!(!folder.path("g").exists());
}

#[test]
fn file_missing_from_checksum_list_is_not_fetched() {
    let folder = Folder::new();
    let server = serve_abc();
    folder.write("sums", format!("{ABC}  f\n"));
    fetch(
        &folder,
        &[
            "--checksums",
            "sums",
            &server.url("/missing"),
            &server.url("/f"),
        ],
    )
    .code(9)
    .says("no entry in the list of checksums")
    .says("1 of 2 files saved");
    assert_eq!(folder.names(), ["f", "sums"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn invalid_checksum_list_prevents_the_run() {
    let folder = Folder::new();
    let server = serve_abc();
    let f = server.url("/f");
    folder.write("empty", "");
    for (list, code, says) in [
        (
            "empty".to_owned(),
            9,
            "read checksums from empty: no line contains",
        ),
        (
            "nowhere".to_owned(),
            3,
            "read checksums from nowhere: No such file",
        ),
        (server.url("/no-list"), 9, "no line contains"),
        (
            server.url("/404").replace("http", "ftp"),
            2,
            "ftp is not supported",
        ),
    ] {
        fetch(&folder, &["--checksums", &list, &f])
            .code(code)
            .says(says);
    }
    assert_eq!(folder.names(), ["empty"]);
    fetch(&folder, &["--checksum", "md5=1", &f])
        .code(2)
        .says("not 32 hexadecimal digits");
    let sum = format!("sha256={ABC}");
    fetch(&folder, &["--checksum", &sum, &f, &f])
        .code(2)
        .says("--checksums FILE");
}

#[test]
fn checksum_of_stdout_output_is_verified() {
    let folder = Folder::new();
    let server = serve_abc();
    let sum = format!("sha256={NONE}");
    let line = ["download", "-o", "-", "--checksum", &sum, &server.url("/f")];
    folder.myapp(line).run().code(9).prints("abc");
}
