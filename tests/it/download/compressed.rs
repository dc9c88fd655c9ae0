//! Compressed bodies (`--compressed`).

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::download::{LARGE, fetch, fetch_f};
use crate::harness::Folder;
use crate::harness::http::{Response, Server, seeded};

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(bytes: impl Into<Vec<u8>>, coding: &str) -> Response {
    Response::body(bytes)
        .header("Content-Encoding", coding)
        .header("ETag", "\"v\"")
}

#[test]
fn compressed_bodies_are_requested_and_decoded() {
    let body = [seeded(1, LARGE), vec![0; LARGE]].concat();
    let folder = Folder::new();
    let whole = gzip(&body);
    let server = Server::start(move |request| {
        assert_eq!(
            request.field("Accept-Encoding"),
            Some("gzip, deflate, br, zstd")
        );
        match &request.path[..] {
            "/brotli" => encoded(b"\x0b\x02\x80hello\x03", "br"),
            "/chunked" => encoded(whole.clone(), "x-gzip").chunked(),
            "/twice" => encoded(gzip(&gzip(b"text")), "gzip, gzip"),
            "/plain" => Response::body("text"),
            "/empty" => encoded("", "gzip"),
            _ => encoded(whole.clone(), "gzip"),
        }
    });
    let urls = ["/f", "/brotli", "/chunked", "/twice", "/plain", "/empty"];
    let urls = urls.map(|path| server.url(path));
    let line = ["download", "--compressed"]
        .into_iter()
        .chain(urls.iter().map(String::as_str));
    folder.myapp(line).run().code(0);
    assert!(folder.read("f") == body && folder.read("chunked") == body);
    assert_eq!(folder.read("brotli"), b"hello");
    assert_eq!(
        (folder.read("twice"), folder.read("plain")),
        (b"text".into(), b"text".into())
    );
    assert_eq!(folder.read("empty"), b"");
    assert_eq!(folder.names().len(), 6);
}

#[test]
fn explicit_accept_encoding_replaces_the_default() {
    let server = Server::start(|request| {
        let lists = request
            .fields
            .iter()
            .map(|field| field.to_ascii_lowercase());
        let lists: Vec<_> = lists
            .filter(|field| field.starts_with("accept-encoding:"))
            .collect();
        assert_eq!(lists, ["accept-encoding: gzip;q=1"]);
        encoded(gzip(b"text"), "gzip")
    });
    let folder = Folder::new();
    let own = [
        "--compressed",
        "-H",
        "accept-encoding: gzip;q=1",
        &server.url("/f"),
    ];
    fetch(&folder, own).code(0);
    assert_eq!(folder.read("f"), b"text");
}

#[test]
fn decompression_bomb_stops_at_max_filesize() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    let line = ["--compressed", "--max-filesize", "1M"];
    let (folder, ran) = fetch_f(encoded(bomb, "gzip"), &line);
    ran.code(11).says("longer than 1048576 bytes");
    assert!(!folder.path("f").exists());
    let part = folder
        .path("f.part")
        .metadata()
        .map_or(0, |data| data.len());
    assert!(part <= (1 << 20) + 1, "{part} bytes");
}

#[test]
fn stacked_codings_without_output_stop_early() {
    // 64 MB of empty gzip members.
    let members = gzip(&gzip(b"").repeat(64_000_000 / gzip(b"").len()));
    let (folder, ran) = fetch_f(encoded(members, "gzip, gzip"), &["--compressed"]);
    ran.code(7)
        .says("decompress: codings expand to too many bytes between them");
    assert!(!folder.path("f").exists());
    // Three codings are not decoded at all.
    let body = gzip(&gzip(&gzip(b"text")));
    let (folder, ran) = fetch_f(encoded(body.clone(), "gzip, gzip, gzip"), &["--compressed"]);
    ran.code(0).says("saved undecoded");
    assert_eq!(folder.read("f"), body);
}

#[test]
fn corrupt_compressed_body_is_never_saved() {
    let whole = gzip(&seeded(2, LARGE));
    let mut flipped = whole.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    for (bytes, coding, says) in [
        (flipped, "gzip", "decompress: corrupt gzip data"),
        (
            whole[..LARGE / 2].to_vec(),
            "gzip",
            "decompress: truncated gzip data",
        ),
        ([&whole[..], b"more"].concat(), "gzip", "decompress: "),
        (
            b"plain text".to_vec(),
            "zstd",
            "decompress: corrupt zstd data",
        ),
        (
            b"plain text".to_vec(),
            "br",
            "decompress: corrupt brotli data",
        ),
    ] {
        let (folder, ran) = fetch_f(encoded(bytes, coding), &["--compressed"]);
        ran.code(7).says(says);
        assert!(!folder.path("f").exists());
    }
}

#[test]
fn interrupted_compressed_body_restarts() {
    let folder = Folder::new();
    let body = seeded(3, LARGE);
    let whole = gzip(&body);
    let server = Server::start(move |request| {
        assert_eq!(request.field("Range"), None);
        let response = encoded(whole.clone(), "gzip");
        match request.field("X-Cut") {
            Some(_) => response.truncated_at(whole.len() / 2),
            None => response,
        }
    });
    let url = server.url("/f");
    let cut = [
        "--compressed",
        "--retry",
        "1",
        "--retry-delay",
        "1ms",
        "-H",
        "X-Cut: 1",
        &url,
    ];
    fetch(&folder, cut).code(4).says("incomplete response");
    assert!(!folder.path("f").exists());
    fetch(&folder, ["-c", "--compressed", &url]).code(0);
    assert!(folder.read("f") == body);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn unknown_content_encoding_is_saved_undecoded() {
    let (folder, ran) = fetch_f(encoded("packed", "compress"), &["--compressed"]);
    ran.code(0).says("saved undecoded");
    assert_eq!(folder.read("f"), b"packed");
}

/// Output of `zlib.compress` in Python.
const ZLIB_OF_HELLO: [u8; 13] = [
    0x78, 0x9c, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x06, 0x2c, 0x02, 0x15,
];

#[test]
fn deflate_is_decoded_with_and_without_zlib_header() {
    let raw = &ZLIB_OF_HELLO[2..9];
    for sent in [&ZLIB_OF_HELLO[..], raw] {
        let (folder, ran) = fetch_f(encoded(sent, "deflate"), &["--compressed"]);
        ran.code(0);
        assert_eq!(folder.read("f"), b"hello");
    }
    for sent in [
        &ZLIB_OF_HELLO[..10],
        &raw[..4],
        &[raw, b"x"].concat(),
        b"hello",
    ] {
        let (folder, ran) = fetch_f(encoded(sent, "deflate"), &["--compressed", "--retry=0"]);
        ran.code(7).says("deflate data");
        assert!(!folder.path("f").exists());
    }
}

#[test]
fn words_that_are_no_coding_cause_no_warning() {
    for word in ["aws-chunked", "none", "UTF-8", "identity,aws-chunked"] {
        for options in [&[][..], &["--compressed"]] {
            let (folder, ran) = fetch_f(encoded("text", word), options);
            let ran = ran.code(0);
            assert!(!ran.stderr.contains("Encoding"), "{}", ran.stderr);
            assert_eq!(folder.read("f"), b"text");
        }
    }
}

#[test]
fn compressed_file_by_its_name_stays_compressed() {
    let sent = gzip(b"text");
    for (path, name) in [
        ("/a.tar.gz", "a.tar.gz"),
        ("/b.TGZ?x", "b.TGZ"),
        ("/c", "c"),
    ] {
        for options in [&["--compressed"][..], &[]] {
            let folder = Folder::new();
            let body = sent.clone();
            let server = Server::start(move |_| encoded(body.clone(), "gzip"));
            let url = server.url(path);
            let line = [&["download"], options, &[&url]].concat();
            let ran = folder.myapp(line).run().code(0);
            let is_kept = name != "c" || options.is_empty();
            let expected = if is_kept { &sent[..] } else { b"text" };
            assert_eq!(folder.read(name), expected, "{path} {options:?}");
            let is_warned = ran.stderr.contains("unsupported Content-Encoding");
            assert_eq!(is_warned, name == "c" && is_kept, "{path} {options:?}");
        }
    }
}
