//! Resume with weak validators, and with a checksum that decides.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sha2::{Digest as _, Sha256};

use super::resume::fetch;
use super::*;
use crate::harness::http::Request;

/// Length at which the first response is truncated.
const CUT_LEN: usize = 3 << 20;

const WEAK_OVERLAP_LEN: usize = 64 << 10;
const OVERLAP_LEN: usize = 32 << 10;

const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const LATER: &str = "Sun, 06 Nov 1994 09:00:00 GMT";

/// Starts a server whose first response is truncated.
fn serve(response: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| match count.fetch_add(1, SeqCst) {
        0 => response(0, request).truncated_at(CUT_LEN),
        number => response(number, request),
    })
}

fn range_starts(server: &Server) -> Vec<Option<usize>> {
    let requests = server.requests();
    requests.iter().map(Request::range_start).collect()
}

/// Downloads in one run, or in two, and checks the file and the starts of the ranges.
#[track_caller]
fn assert_resumed(server: &Server, options: &[&str], body: &[u8], starts: &[usize]) -> RunOutput {
    let folder = Folder::new();
    let ran = if options.contains(&"-c") {
        fetch(&folder, server, &["--retry=0"]).code(4);
        fetch(&folder, server, options)
    } else {
        fetch(&folder, server, options)
    };
    let ran = ran.code(0);
    assert!(folder.names() == ["f"] && folder.read("f") == body);
    let starts: Vec<_> = starts
        .iter()
        .map(|start| (*start > 0).then_some(*start))
        .collect();
    assert_eq!(range_starts(server), starts, "{options:?}");
    ran
}

fn with_date(response: Response, modified: &str) -> Response {
    response
        .header("Last-Modified", modified)
        .header("Date", LATER)
}

#[test]
fn weak_etag_with_an_old_date_resumes() {
    for options in [&["-c"][..], &[]] {
        let body = seeded(1, LARGE);
        let sent = body.clone();
        let server =
            serve(move |_, request| with_date(request.respond_with(&sent, "W/\"a\""), OLD));
        assert_resumed(&server, options, &body, &[0, CUT_LEN - WEAK_OVERLAP_LEN]);
        assert_eq!(server.requests()[1].field("If-Range"), None);
        assert!(server.sent() <= LARGE + 2 * WEAK_OVERLAP_LEN);
    }
}

#[test]
fn weak_etag_without_further_evidence_restarts() {
    let recent = "Sun, 06 Nov 1994 08:59:30 GMT";
    for (etag, modified, says) in [
        ("W/\"b\"", OLD, "different ETag"),
        ("W/\"a\"", recent, "different Last-Modified"),
        ("W/\"a\"", OLD, "local bytes differ"),
    ] {
        let [old, new] = [1, 2].map(|seed| seeded(seed, LARGE));
        let body = new.clone();
        let server = serve(move |number, request| match number {
            0 => with_date(request.respond_with(&old, "W/\"a\""), OLD),
            _ => with_date(request.respond_with(&new, etag), modified),
        });
        let starts = [0, CUT_LEN - WEAK_OVERLAP_LEN, 0];
        let ran = assert_resumed(&server, &["-c"], &body, &starts);
        ran.says(&format!("cannot resume, restarting: {says}"));
    }
    for modified in [recent, ""] {
        let body = seeded(1, LARGE);
        let sent = body.clone();
        let server =
            serve(move |_, request| with_date(request.respond_with(&sent, "W/\"a\""), modified));
        assert_resumed(&server, &["-c"], &body, &[0, 0])
            .says("restarting: nothing proves that the server has the same version");
    }
}

pub(super) fn checksum_of(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("--checksum=sha256={digits}")
}

#[test]
fn checksum_continues_across_backends_with_other_etags() {
    for options in [&["-c"][..], &[]] {
        let body = seeded(1, LARGE);
        let sent = body.clone();
        let server = serve(move |number, request| {
            let response = request.respond_with(&sent, &format!("\"{number}\""));
            with_date(response, ["", OLD, LATER][number % 3])
        });
        let checksum = checksum_of(&body);
        let options = [options, &[&checksum]].concat();
        let starts = [0, CUT_LEN, CUT_LEN - OVERLAP_LEN];
        assert_resumed(&server, &options, &body, &starts)
            .says("continuing because the checksum decides");
    }
}

/// Bytes that only a checksum could verify are useless without it.
#[test]
fn part_that_requires_another_checksum_is_restarted() {
    for checksum in ["--fsync", &format!("--checksum=sha256:{}", "0".repeat(64))] {
        let body = seeded(1, LARGE);
        let sent = body.clone();
        let server = serve(move |number, request| {
            let response = request.respond_with(&sent, &format!("\"{number}\""));
            if number < 3 {
                response.truncated_at(CUT_LEN)
            } else {
                response
            }
        });
        let folder = Folder::new();
        let right = checksum_of(&body);
        fetch(&folder, &server, &["--retry=0", &right]).code(4);
        fetch(&folder, &server, &["-c", "--retry=0", &right]).code(4);
        let ran = fetch(&folder, &server, &["-c", checksum]);
        ran.says("cannot resume, restarting: only sha256=")
            .says(" can verify the partial file");
        assert_eq!(range_starts(&server).last(), Some(&None));
    }
}

#[test]
fn checksum_continues_without_validators() {
    for etag in ["", "W/\"a\""] {
        let body = seeded(1, LARGE);
        let sent = body.clone();
        let server = serve(move |_, request| request.respond_with(&sent, etag));
        let checksum = checksum_of(&body);
        let starts = [0, CUT_LEN - OVERLAP_LEN];
        assert_resumed(&server, &["-c", &checksum], &body, &starts);
    }
}

/// Both versions end alike, so that only the checksum tells them apart.
#[test]
fn changed_file_with_a_checksum_is_fetched_again() {
    let old = seeded(1, LARGE);
    let mut new = old.clone();
    new[10] ^= 1;
    let body = new.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&old, "\"a\""),
        _ => request.respond_with(&new, "\"b\""),
    });
    let checksum = checksum_of(&body);
    let starts = [0, CUT_LEN, CUT_LEN - OVERLAP_LEN, 0];
    assert_resumed(&server, &["-c", &checksum], &body, &starts).says("restarting: sha256 mismatch");
}
