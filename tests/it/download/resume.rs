//! Resume: interrupted downloads continue, and versions are never mixed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::http::{Request, Response, Server, seeded};
use crate::harness::{Folder, RunOutput};

const LARGE: usize = (8 << 20) + 12_345;

/// Length at which the first response is truncated.
const CUT_LEN: usize = 3 << 20;

const OLD: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT");
const LATER: (&str, &str) = ("Date", "Sun, 06 Nov 1994 09:00:00 GMT");

/// Starts a server whose handler gets the number of the request, from 0.
fn serve(response: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Server {
    let count = Mutex::new(0);
    Server::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        response(*count - 1, request)
    })
}

#[track_caller]
pub(super) fn fetch(folder: &Folder, server: &Server, arguments: &[&str]) -> RunOutput {
    let url = server.url("/f");
    folder
        .myapp([&["download", "--retry-delay", "10ms"], arguments, &[&url]].concat())
        .run()
}

/// Runs into a truncated response, then again with `-c`, and checks the file and the folder.
#[track_caller]
fn assert_second_run_gives(server: &Server, body: &[u8]) -> RunOutput {
    let folder = Folder::new();
    fetch(&folder, server, &["--retry", "0"]).code(4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    let ran = fetch(&folder, server, &["-c", "--retry", "0"])
        .code(0)
        .prints("");
    assert_exact(&folder, body);
    ran
}

#[track_caller]
fn assert_exact(folder: &Folder, body: &[u8]) {
    assert_eq!(folder.names(), ["f"]);
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
}

/// Returns the starts of the requested ranges; `None` for the whole file.
fn range_starts(server: &Server) -> Vec<Option<usize>> {
    server.requests().iter().map(Request::range_start).collect()
}

// In one run.

#[test]
fn interrupted_body_resumes() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, "\"a\""),
    });
    fetch(&folder, &server, &[])
        .code(0)
        .says("incomplete response after 3145728");
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, Some(CUT_LEN)]);
    assert_eq!(server.requests()[1].field("If-Range"), Some("\"a\""));
    assert!(
        server.sent() <= LARGE + (64 << 10),
        "{} bytes sent",
        server.sent()
    );
}

#[test]
fn old_last_modified_is_a_validator() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => Response::body(&whole[..])
            .header(OLD.0, OLD.1)
            .header(LATER.0, LATER.1)
            .truncated_at(CUT_LEN),
        _ => Response::part(&whole, request.range_start().unwrap(), LARGE).header(OLD.0, OLD.1),
    });
    fetch(&folder, &server, &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(server.requests()[1].field("If-Range"), Some(OLD.1));
}

#[test]
fn without_validators_the_overlap_is_compared() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, ""),
    });
    fetch(&folder, &server, &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, Some(CUT_LEN - (32 << 10))]);
    assert_eq!(server.requests()[1].field("If-Range"), None);
    assert!(
        server.sent() <= LARGE + (64 << 10),
        "{} bytes sent",
        server.sent()
    );
}

#[test]
fn differing_overlap_restarts() {
    let old = seeded(1, LARGE);
    let new = seeded(2, LARGE);
    let folder = Folder::new();
    let body = new.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&old, "").truncated_at(CUT_LEN),
        _ => request.respond_with(&new, ""),
    });
    fetch(&folder, &server, &[])
        .code(0)
        .says("differ from those of the server");
    assert_exact(&folder, &body);
    assert_eq!(
        range_starts(&server),
        [None, Some(CUT_LEN - (32 << 10)), None]
    );
}

#[test]
fn short_partial_responses_are_continued() {
    let body = seeded(1, 100_000);
    let folder = Folder::new();
    let whole = body.clone();
    let server = serve(move |number, request| match request.range_start() {
        None => request.respond_with(&whole, "\"a\"").truncated_at(1000),
        Some(first) if number < 9 => {
            Response::part(&whole, first, first + 10_000).header("ETag", "\"a\"")
        }
        Some(_) => request.respond_with(&whole, "\"a\""),
    });
    fetch(&folder, &server, &["--retry", "1"]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn expired_redirect_target_is_requested_again() {
    for status in [403, 410] {
        let body = seeded(1, LARGE);
        let folder = Folder::new();
        let whole = body.clone();
        let server = serve(move |number, request| match (&request.path[..], number) {
            ("/f", 0) => Response::redirect(302, "/signed?1"),
            ("/f", 2) => Response::redirect(302, "/signed?1"),
            ("/f", _) => Response::redirect(302, "/signed?2"),
            ("/signed?1", 1) => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
            ("/signed?1", _) => Response::status(status),
            _ => request.respond_with(&whole, "\"a\""),
        });
        fetch(&folder, &server, &[]).code(0);
        assert_exact(&folder, &body);
        assert_eq!(server.requests().len(), 6);
    }
}

#[test]
fn stdout_resumes_or_reports_that_it_cannot() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, "\"a\""),
    });
    let ran = fetch(&Folder::new(), &server, &["-o", "-"]).code(0);
    assert!(ran.stdout == body);
    let old = seeded(1, LARGE);
    let new = seeded(2, LARGE);
    let begin = old[..CUT_LEN].to_vec();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&old, "\"a\"").truncated_at(CUT_LEN),
        _ => request.respond_with(&new, "\"b\""),
    });
    let ran = fetch(&Folder::new(), &server, &["-o", "-"])
        .code(4)
        .says("cannot be undone");
    assert!(ran.stdout == begin);
}

// In a later run.

#[test]
fn later_run_resumes() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, "\"a\""),
    });
    assert_second_run_gives(&server, &body);
    assert_eq!(range_starts(&server), [None, Some(CUT_LEN)]);
    assert_eq!(server.requests()[1].field("If-Range"), Some("\"a\""));
}

#[test]
fn without_continue_the_part_is_restarted() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, "\"a\""),
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, None]);
}

#[test]
fn changed_file_is_restarted() {
    for length in [LARGE, LARGE - 1, LARGE + 1, CUT_LEN, 100] {
        let old = seeded(1, LARGE);
        let new = seeded(2, length);
        let body = new.clone();
        let server = serve(move |number, request| match number {
            0 => request.respond_with(&old, "\"a\"").truncated_at(CUT_LEN),
            _ => request.respond_with(&new, "\"b\""),
        });
        assert_second_run_gives(&server, &body).says("changed on the server");
    }
}

#[test]
fn mismatching_partial_response_restarts() {
    let body = seeded(1, LARGE);
    let part = |first, end| Response::part(&seeded(1, LARGE), first, end).header("ETag", "\"a\"");
    let other = Response::part(&seeded(2, LARGE + 1), CUT_LEN, LARGE).header("ETag", "\"a\"");
    let plain = Response::part(&seeded(2, LARGE), CUT_LEN, LARGE);
    let multipart = part(CUT_LEN, LARGE).header("Content-Type", "multipart/byteranges; boundary=x");
    let encoded = part(CUT_LEN, LARGE).header("Content-Encoding", "gzip");
    for (wrong, says) in [
        (part(CUT_LEN - 1, LARGE), "starts at another offset"),
        (part(0, LARGE), "starts at another offset"),
        (other, "different file length"),
        (plain.clone().header("ETag", "\"b\""), "different ETag"),
        (plain, "different ETag"),
        (multipart, "missing or invalid Content-Range"),
        (encoded, "different Content-Encoding"),
        (Response::status(416), "not the complete file"),
        (
            Response::status(416).header("Content-Range", "bytes */100"),
            "not the complete file",
        ),
    ] {
        let whole = body.clone();
        let server = serve(move |number, request| match number {
            0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
            1 => wrong.clone(),
            _ => request.respond_with(&whole, "\"a\""),
        });
        assert_second_run_gives(&server, &body).says(says);
        assert_eq!(range_starts(&server), [None, Some(CUT_LEN), None], "{says}");
    }
}

#[test]
fn partial_response_without_content_range_restarts() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        1 => Response::status(206).header("ETag", "\"a\""),
        _ => request.respond_with(&whole, "\"a\""),
    });
    assert_second_run_gives(&server, &body).says("missing or invalid Content-Range");
}

#[test]
fn ignored_if_range_is_retried_without_it() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
        _ if request.field("If-Range").is_some() => {
            Response::body(&whole[..]).header("ETag", "\"a\"")
        }
        _ => request.respond_with(&whole, "\"a\""),
    });
    assert_second_run_gives(&server, &body);
    assert_eq!(range_starts(&server), [None, Some(CUT_LEN), Some(CUT_LEN)]);
}

#[test]
fn full_response_keeps_the_part_until_it_is_passed() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let folder = Folder::new();
    let server = serve(move |number, _| {
        let response = Response::body(&whole[..]).header("ETag", "\"a\"");
        match number {
            0 => response.truncated_at(CUT_LEN),
            2 => response.truncated_at(1 << 20),
            _ => response,
        }
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &["-c", "--retry", "0"]).code(4);
    assert_eq!(folder.read("f.part").len(), CUT_LEN);
    fetch(&folder, &server, &["-c"]).code(0);
    assert_exact(&folder, &body);
}

#[test]
fn without_validators_a_later_run_restarts() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.respond_with(&whole, "").truncated_at(CUT_LEN),
        _ => request.respond_with(&whole, ""),
    });
    assert_second_run_gives(&server, &body)
        .says("restarting: nothing proves that the server has the same version");
    assert_eq!(range_starts(&server), [None, None]);
}

/// Returns a folder with this part and the state of an interrupted download of `whole`.
fn with_part(whole: &[u8], part: &[u8]) -> (Folder, Server) {
    let folder = Folder::new();
    let whole = whole.to_vec();
    let server = serve(move |number, request| match number {
        0 => request
            .respond_with(&whole, "\"a\"")
            .truncated_at(whole.len() / 2),
        _ => request.respond_with(&whole, "\"a\""),
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    folder.write("f.part", part);
    (folder, server)
}

#[test]
fn complete_part_is_kept_and_oversized_part_restarts() {
    let body = seeded(1, 100_000);
    let (folder, server) = with_part(&body, &body);
    fetch(&folder, &server, &["-c"]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, Some(100_000)]);

    let (folder, server) = with_part(&body, &[&body[..], b"more"].concat());
    fetch(&folder, &server, &["-c"])
        .code(0)
        .says("not the complete file");
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, Some(100_004), None]);
}

#[test]
fn file_length_overrides_the_recorded_offset() {
    let body = seeded(1, 100_000);
    let (folder, server) = with_part(&body, &body[..1000]);
    fetch(&folder, &server, &["-c"]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&server), [None, Some(1000)]);
}

#[test]
fn invalid_resume_state_warns_and_restarts() {
    let body = seeded(1, 100_000);
    for (state, says, is_own_state) in [
        (Some("{"), "damaged", false),
        (Some(""), "was lost", true),
        (None, "has no resume state", true),
        (Some("other"), "another URL", true),
    ] {
        let (folder, server) = with_part(&body, &seeded(9, 1000));
        let good = String::from_utf8(folder.read("f.part.json")).unwrap();
        match state {
            Some("other") => {
                let mut other = good;
                for name in ["\"url_sha256\":\"", "\"path_sha256\":\""] {
                    let start = other.find(name).unwrap() + name.len();
                    other.replace_range(start..start + 64, &"0".repeat(64));
                }
                drop(folder.write("f.part.json", other));
            }
            Some(text) => drop(folder.write("f.part.json", text)),
            None => fs::remove_file(folder.path("f.part.json")).unwrap(),
        }
        fetch(&folder, &server, &["-c"]).code(0).says(says);
        if !is_own_state {
            // The file may belong to another program, so neither name is reused.
            assert_eq!(folder.read("f.part"), seeded(9, 1000));
            fs::remove_file(folder.path("f.part")).unwrap();
            fs::remove_file(folder.path("f.part.json")).unwrap();
        }
        assert_exact(&folder, &body);
        assert_eq!(range_starts(&server), [None, None]);
    }
}

#[test]
fn resume_state_is_private_and_holds_no_secrets() {
    let folder = Folder::new();
    let server = Server::start(|_| {
        Response::body(seeded(1, LARGE))
            .header("ETag", "\"a\"")
            .truncated_at(CUT_LEN)
    });
    let url = server.url("/f?token=secret");
    let line = [
        "download",
        "--retry=0",
        "-H",
        "Authorization: secret",
        "-H",
        "Cookie: secret",
    ];
    folder.myapp([&line[..], &[&url]].concat()).run().code(4);
    let state = String::from_utf8(folder.read("f.part.json")).unwrap();
    assert!(!state.contains("secret"), "{state}");
    let mode = fs::metadata(folder.path("f.part.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_with_one_name_resume_their_own_parts() {
    let server = serve(|number, request| {
        let whole = seeded(request.path.len() as u64, LARGE);
        let response = request.respond_with(&whole, &format!("\"{}\"", request.path));
        if number < 3 {
            response.truncated_at(CUT_LEN)
        } else {
            response
        }
    });
    let folder = Folder::new();
    let urls = ["/1/f", "/22/f", "/333/f"].map(|path| server.url(path));
    let line = |option| ["download", "-j1", option, &urls[0], &urls[1], &urls[2]];
    folder.myapp(line("--retry=0")).run().code(4);
    folder
        .myapp(line("-c"))
        .run()
        .code(0)
        .says("3 of 3 files saved");
    assert_eq!(folder.names(), ["f", "f.1", "f.2"]);
    for (name, seed) in [("f", 4), ("f.1", 5), ("f.2", 6)] {
        assert!(folder.read(name) == seeded(seed, LARGE), "{name}");
    }
    assert_eq!(range_starts(&server)[3..], [Some(CUT_LEN); 3]);
    // All files are complete: no request is sent.
    let ran = folder.myapp(line("-c")).run().code(0);
    assert!(
        ran.stderr.contains("kept f: already complete"),
        "{}",
        ran.stderr
    );
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn concurrent_processes_do_not_share_a_part() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| {
        let response = request.respond_with(&whole, "\"a\"");
        if number == 0 {
            response.truncated_at(CUT_LEN)
        } else {
            response.delayed(Duration::from_millis(300))
        }
    });
    let folder = Folder::new();
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    let first = folder.myapp(["download", "-c", &server.url("/f")]).start();
    server.wait_for(2);
    fetch(&folder, &server, &["-c"]).code(0);
    first.wait().code(0);
    assert_eq!(folder.names(), ["f", "f.1"]);
    assert!(folder.read("f") == body && folder.read("f.1") == body);
}

#[test]
fn numbered_part_is_renamed_to_the_free_name() {
    let body = seeded(1, LARGE);
    for (taken, name) in [(None, "f"), (Some("f"), "f.1")] {
        let folder = Folder::new();
        let whole = body.clone();
        let server = serve(move |number, request| match number {
            0 => request.respond_with(&whole, "\"a\"").truncated_at(CUT_LEN),
            _ => request.respond_with(&whole, "\"a\""),
        });
        folder.write("f.part", "of a browser");
        fetch(&folder, &server, &["--retry", "0"]).code(4);
        assert_eq!(folder.names(), ["f.1.part", "f.1.part.json", "f.part"]);
        taken.inspect(|taken| drop(folder.write(taken, "come meanwhile")));
        fetch(&folder, &server, &["-c"])
            .code(0)
            .says(&format!("saved {name}:"));
        assert_eq!(range_starts(&server), [None, Some(CUT_LEN)]);
        assert!(folder.read(name) == body);
        assert_eq!(folder.read("f.part"), b"of a browser");
    }
}

// After SIGKILL.

/// Largest number of received bytes that the program has not written yet: two pieces of 1 MiB, and
/// the piece that the server is sending, which the test counts as received.
const MAX_UNWRITTEN: u64 = (2 << 20) + PIECE_LEN as u64;

/// Length of the pieces that the server sends.
const PIECE_LEN: usize = 256 << 10;

/// Kills the program at random moments until a run completes, and returns the number of kills.
fn kill_until_complete(random: &mut fastrand::Rng, arguments: &[&str]) -> usize {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let folder = Folder::new();
    let server = Server::start(move |request| {
        request
            .respond_with(&whole, "\"a\"")
            .throttled(PIECE_LEN, Duration::from_millis(4))
    });
    let mut least = 0;
    let mut kills = 0;
    let mut lengths = vec![0];
    loop {
        // Bytes that are sent to a killed program do not count.
        server.wait_until_idle();
        let before = server.sent();
        let url = server.url("/f");
        let line = [&["download", "-c", &url], arguments].concat();
        let mut running = folder.myapp(line).start();
        let end = Instant::now() + Duration::from_millis(random.u64(..300));
        while Instant::now() < end && !running.has_exited() {
            thread::sleep(Duration::from_millis(1));
        }
        if running.has_exited() {
            running.wait().code(0);
            break;
        }
        let taken = server.delivered().saturating_sub(before);
        running.signal(Signal::KILL);
        drop(running);
        kills += 1;
        assert!(!folder.path("f").exists() || folder.read("f") == body);
        // The part never shrinks.
        let part = fs::metadata(folder.path("f.part")).map_or(0, |data| data.len());
        assert!(
            part >= least || folder.path("f").exists(),
            "{part} after {least}"
        );
        if arguments.is_empty() && !folder.path("f").exists() {
            // A kill loses only bytes that are read and not yet written.
            let least = least + taken as u64;
            assert!(
                part + MAX_UNWRITTEN >= least,
                "{taken} taken: {part}, not {least} on the disk"
            );
        }
        least = part;
        lengths.push(part as usize);
    }
    assert_exact(&folder, &body);
    if arguments.is_empty() {
        fetches_only_what_was_missing(&server, &lengths);
    }
    kills
}

/// Checks that each request starts at one of these lengths of the part.
fn fetches_only_what_was_missing(server: &Server, lengths: &[usize]) {
    for request in server.requests() {
        let first = request.range_start().unwrap_or(0);
        assert!(lengths.contains(&first), "{first} of {lengths:?}");
        assert_eq!(request.field("If-Range").is_some(), first > 0);
    }
}

pub(super) fn kill_and_resume(times: usize, arguments: &[&str]) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    while kills < times {
        kills += kill_until_complete(&mut random, arguments);
    }
}

#[test]
fn killed_download_resumes_exactly() {
    kill_and_resume(8, &[]);
}

#[test]
#[ignore = "slow: minutes"]
fn download_killed_200_times_resumes_exactly() {
    kill_and_resume(200, &[]);
}
