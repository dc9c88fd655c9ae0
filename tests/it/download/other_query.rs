//! Parts of earlier runs whose URL differs in its query: renewed signed links, and other files.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::validators::checksum_of;
use super::*;
use crate::harness::http::Request;

/// Length at which the first response of a query is truncated.
const CUT_LEN: usize = 3 << 20;

const OVERLAP_LEN: usize = 64 << 10;

/// Starts a server that truncates bodies, unless their end is requested, until `is_complete` is
/// set.
fn serve(
    is_complete: &'static AtomicBool,
    respond: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| {
        let response = respond(request);
        let has_end = request.range().is_some_and(|(_, end)| end.is_some());
        if is_complete.load(SeqCst) || has_end {
            response
        } else {
            response.truncated_at(CUT_LEN)
        }
    })
}

/// Returns the start of the requested range of each request, and its end.
fn ranges(server: &Server) -> Vec<Option<(usize, Option<usize>)>> {
    server.requests().iter().map(Request::range).collect()
}

#[test]
fn renewed_signed_link_continues_its_part() {
    static COMPLETE: AtomicBool = AtomicBool::new(false);
    let body = seeded(1, LARGE);
    let sent = body.clone();
    let server = serve(&COMPLETE, move |request| {
        request.respond_with(&sent, "\"a\"")
    });
    let folder = Folder::new();
    fetch(&folder, ["--retry=0", &server.url("/f?sig=old")]).code(4);
    COMPLETE.store(true, SeqCst);
    let ran = fetch(&folder, ["-c", &server.url("/f?sig=new")]).code(0);
    ran.says("continuing the part of a URL with another query");
    assert!(folder.names() == ["f"] && folder.read("f") == body);
    let expected = [
        None,
        Some((0, Some(1))),
        Some((CUT_LEN - OVERLAP_LEN, Some(CUT_LEN))),
        Some((CUT_LEN, None)),
    ];
    assert_eq!(ranges(&server), expected);
    assert_eq!(server.requests()[3].field("If-Range"), Some("\"a\""));
}

/// A part that was taken over belongs to the new URL, and is resumed like any other.
#[test]
fn continued_part_belongs_to_the_new_link() {
    static COMPLETE: AtomicBool = AtomicBool::new(false);
    let body = seeded(1, LARGE);
    let sent = body.clone();
    let server = serve(&COMPLETE, move |request| {
        request.respond_with(&sent, "\"a\"")
    });
    let folder = Folder::new();
    fetch(&folder, ["--retry=0", &server.url("/f?sig=1")]).code(4);
    fetch(&folder, ["-c", "--retry=0", &server.url("/f?sig=2")]).code(4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    let before = folder.read("f.part").len();
    assert!(before > CUT_LEN, "{before}");
    COMPLETE.store(true, SeqCst);
    fetch(&folder, ["-c", &server.url("/f?sig=2")]).code(0);
    assert!(folder.names() == ["f"] && folder.read("f") == body);
    assert_eq!(ranges(&server).last(), Some(&Some((before, None))));
}

/// Contents of an earlier file and of another one, the ETag of the latter, and the reason why its
/// part is not continued.
fn other_files() -> [(Vec<u8>, Vec<u8>, &'static str, &'static str); 7] {
    let tail_differs = |bytes: &[u8]| {
        let mut other = bytes.to_vec();
        other[CUT_LEN - 100] ^= 1;
        other
    };
    let uniform = vec![0; LARGE];
    let longer = [seeded(1, LARGE), vec![1]].concat();
    [
        (
            seeded(1, LARGE),
            seeded(2, LARGE),
            "\"b\"",
            "no long one has the same ETag, length and time",
        ),
        (
            seeded(1, LARGE),
            longer,
            "\"a\"",
            "no long one has the same ETag, length and time",
        ),
        (
            seeded(1, LARGE),
            seeded(1, LARGE),
            "\"a\"\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT",
            "no long one has the same ETag, length and time",
        ),
        (
            seeded(1, LARGE),
            tail_differs(&seeded(1, LARGE)),
            "\"a\"",
            "its bytes differ",
        ),
        (uniform.clone(), uniform, "\"a\"", "its bytes differ"),
        (
            seeded(1, LARGE),
            seeded(2, LARGE),
            "W/\"a\"",
            "nothing proves",
        ),
        (seeded(1, LARGE), seeded(2, LARGE), "", "nothing proves"),
    ]
}

#[test]
fn part_of_another_file_stays_for_its_own_url() {
    for (old, new, etag, says) in other_files() {
        static COMPLETE: AtomicBool = AtomicBool::new(false);
        COMPLETE.store(false, SeqCst);
        let first = old.clone();
        let second = new.clone();
        let server = serve(&COMPLETE, move |request| match request.path.as_str() {
            "/f?id=1" => request.respond_with(&first, "\"a\""),
            _ => request.respond_with(&second, etag),
        });
        let folder = Folder::new();
        fetch(&folder, ["--retry=0", &server.url("/f?id=1")]).code(4);
        COMPLETE.store(true, SeqCst);
        let ran = fetch(&folder, ["-c", &server.url("/f?id=2")]).code(0);
        ran.says(&format!(
            "cannot resume, restarting: the part is of a URL with another query, and {says}"
        ));
        assert_eq!(folder.names(), ["f", "f.part", "f.part.json"], "{says}");
        assert!(folder.read("f") == new, "{says}");
        fetch(&folder, ["-c", &server.url("/f?id=1")]).code(0);
        assert_eq!(folder.names(), ["f", "f.1"]);
        assert!(folder.read("f.1") == old, "{says}");
        assert_eq!(ranges(&server).last(), Some(&Some((CUT_LEN, None))));
    }
}

/// All parts have the same path and length, so that only the ETag tells which item owns which.
#[test]
fn links_of_one_list_keep_their_own_parts() {
    static COMPLETE: AtomicBool = AtomicBool::new(false);
    let server = serve(&COMPLETE, |request| {
        let (_, query) = request.path.split_once("?id=").unwrap();
        let id = query.split('&').next().unwrap();
        request.respond_with(&seeded(id.parse().unwrap(), LARGE), &format!("\"{id}\""))
    });
    let url = |id: u64, sig: u64| server.url(&format!("/f?id={id}&sig={sig}"));
    let folder = Folder::new();
    let first: Vec<_> = (1..=4).map(|id| url(id, 1)).collect();
    let line = ["download", "--retry=0", "-j1"].map(str::to_owned);
    folder.myapp([&line[..], &first].concat()).run().code(4);
    assert_eq!(folder.names().len(), 8);
    COMPLETE.store(true, SeqCst);
    // In another order; two with a new signature, one with the old one, and two new files.
    let second = [
        url(5, 2),
        url(3, 2),
        url(4, 1),
        url(2, 2),
        url(6, 2),
        url(1, 1),
    ];
    let line = ["download", "-c", "-j6"].map(str::to_owned);
    folder.myapp([&line[..], &second].concat()).run().code(0);
    let names = folder.names();
    assert_eq!(names, ["f", "f.1", "f.2", "f.3", "f.4", "f.5"]);
    for id in 1..=6 {
        let count = names
            .iter()
            .filter(|name| folder.read(name) == seeded(id, LARGE))
            .count();
        assert_eq!(count, 1, "file {id}");
    }
    let resumed: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|request| request.range() == Some((CUT_LEN, None)))
        .map(|request| request.path)
        .collect();
    for owned in [url(3, 2), url(4, 1), url(2, 2), url(1, 1)] {
        assert!(
            resumed.iter().any(|path| owned.ends_with(path)),
            "{owned}: {resumed:?}"
        );
    }
    assert_eq!(resumed.len(), 4, "{resumed:?}");
}

#[test]
fn checksum_continues_a_part_of_another_query() {
    static COMPLETE: AtomicBool = AtomicBool::new(false);
    let body = seeded(1, LARGE);
    let sent = body.clone();
    let server = serve(&COMPLETE, move |request| {
        request.respond_with(&sent, &format!("\"{}\"", request.path.len()))
    });
    let folder = Folder::new();
    fetch(&folder, ["--retry=0", &server.url("/f?sig=a")]).code(4);
    COMPLETE.store(true, SeqCst);
    fetch(
        &folder,
        ["-c", &checksum_of(&body), &server.url("/f?sig=ab")],
    )
    .code(0);
    assert!(folder.names() == ["f"] && folder.read("f") == body);
    assert!(server.sent() < LARGE + 4 * OVERLAP_LEN, "{}", server.sent());
}

#[test]
fn compressed_download_keeps_a_part_of_another_query() {
    static COMPLETE: AtomicBool = AtomicBool::new(false);
    let server = serve(&COMPLETE, |request| {
        request.respond_with(&seeded(1, LARGE), "\"a\"")
    });
    let folder = Folder::new();
    fetch(&folder, ["--retry=0", &server.url("/f?sig=a")]).code(4);
    COMPLETE.store(true, SeqCst);
    fetch(&folder, ["-c", "--compressed", &server.url("/f?sig=b")]).code(0);
    assert!(folder.read("f") == seeded(1, LARGE));
    assert_eq!(ranges(&server), [None, None]);
}
