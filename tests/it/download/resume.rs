//! `myapp download` goes on where it broke, and never puts two versions of a file together.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::http::{Answer, Request, Server, seeded};
use crate::harness::{Folder, Ran};

const LARGE: usize = (8 << 20) + 12_345;

/// Where the first answer is cut.
const CUT: usize = 3 << 20;

const OLD: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT");
const LATER: (&str, &str) = ("Date", "Sun, 06 Nov 1994 09:00:00 GMT");

/// What the server gives to the n-th request, from 0.
fn serve(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Server {
    let asked = Mutex::new(0);
    Server::start(move |request| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        answer(*asked - 1, request)
    })
}

#[track_caller]
fn fetch(folder: &Folder, server: &Server, arguments: &[&str]) -> Ran {
    let url = server.url("/f");
    folder
        .myapp([&["download", "--retry-delay", "10ms"], arguments, &[&url]].concat())
        .run()
}

/// Runs once into a cut, and again with `-c`; then the file is this, and nothing else is there.
#[track_caller]
fn second_run_gives(server: &Server, body: &[u8]) -> Ran {
    let folder = Folder::new();
    fetch(&folder, server, &["--retry", "0"]).code(4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    let ran = fetch(&folder, server, &["-c", "--retry", "0"])
        .code(0)
        .prints("");
    is_exact(&folder, body);
    ran
}

#[track_caller]
fn is_exact(folder: &Folder, body: &[u8]) {
    assert_eq!(folder.names(), ["f"]);
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
}

/// Where the ranges began that were asked for; `None` for the whole file.
fn firsts(server: &Server) -> Vec<Option<usize>> {
    server.requests().iter().map(Request::first).collect()
}

// Within a run.

#[test]
fn interrupted_body_resumes() {
    let body = seeded(1, LARGE);
    let (folder, whole) = (Folder::new(), body.clone());
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        _ => request.honestly(&whole, "\"a\""),
    });
    fetch(&folder, &server, &[])
        .code(0)
        .says("incomplete response after 3145728");
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, Some(CUT)]);
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
    let (folder, whole) = (Folder::new(), body.clone());
    let server = serve(move |number, request| match number {
        0 => Answer::body(&whole[..])
            .header(OLD.0, OLD.1)
            .header(LATER.0, LATER.1)
            .cut_at(CUT),
        _ => Answer::part(&whole, request.first().unwrap(), LARGE).header(OLD.0, OLD.1),
    });
    fetch(&folder, &server, &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!(server.requests()[1].field("If-Range"), Some(OLD.1));
}

#[test]
fn without_validators_the_overlap_is_compared() {
    for etag in ["", "W/\"weak\""] {
        let body = seeded(1, LARGE);
        let (folder, whole) = (Folder::new(), body.clone());
        let server = serve(move |number, request| match number {
            0 => request.honestly(&whole, etag).cut_at(CUT),
            _ => request.honestly(&whole, etag),
        });
        fetch(&folder, &server, &[]).code(0);
        is_exact(&folder, &body);
        assert_eq!(firsts(&server), [None, Some(CUT - (32 << 10))]);
        assert_eq!(server.requests()[1].field("If-Range"), None);
        assert!(
            server.sent() <= LARGE + (64 << 10),
            "{} bytes sent",
            server.sent()
        );
    }
}

#[test]
fn differing_overlap_restarts() {
    let (old, new) = (seeded(1, LARGE), seeded(2, LARGE));
    let (folder, body) = (Folder::new(), new.clone());
    let server = serve(move |number, request| match number {
        0 => request.honestly(&old, "").cut_at(CUT),
        _ => request.honestly(&new, ""),
    });
    fetch(&folder, &server, &[])
        .code(0)
        .says("differ from those of the server");
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, Some(CUT - (32 << 10)), None]);
}

#[test]
fn short_partial_responses_are_continued() {
    let body = seeded(1, 100_000);
    let (folder, whole) = (Folder::new(), body.clone());
    let server = serve(move |number, request| match request.first() {
        None => request.honestly(&whole, "\"a\"").cut_at(1000),
        Some(first) if number < 9 => {
            Answer::part(&whole, first, first + 10_000).header("ETag", "\"a\"")
        }
        Some(_) => request.honestly(&whole, "\"a\""),
    });
    fetch(&folder, &server, &["--retry", "1"]).code(0);
    is_exact(&folder, &body);
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn expired_redirect_target_is_requested_again() {
    for status in [403, 410] {
        let body = seeded(1, LARGE);
        let (folder, whole) = (Folder::new(), body.clone());
        let server = serve(move |number, request| match (&request.path[..], number) {
            ("/f", 0) => Answer::redirect(302, "/signed?1"),
            ("/f", 2) => Answer::redirect(302, "/signed?1"),
            ("/f", _) => Answer::redirect(302, "/signed?2"),
            ("/signed?1", 1) => request.honestly(&whole, "\"a\"").cut_at(CUT),
            ("/signed?1", _) => Answer::status(status),
            _ => request.honestly(&whole, "\"a\""),
        });
        fetch(&folder, &server, &[]).code(0);
        is_exact(&folder, &body);
        assert_eq!(server.requests().len(), 6);
    }
}

#[test]
fn stdout_resumes_or_reports_that_it_cannot() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        _ => request.honestly(&whole, "\"a\""),
    });
    let ran = fetch(&Folder::new(), &server, &["-o", "-"]).code(0);
    assert!(ran.stdout == body);
    let (old, new) = (seeded(1, LARGE), seeded(2, LARGE));
    let begin = old[..CUT].to_vec();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&old, "\"a\"").cut_at(CUT),
        _ => request.honestly(&new, "\"b\""),
    });
    let ran = fetch(&Folder::new(), &server, &["-o", "-"])
        .code(4)
        .says("cannot be undone");
    assert!(ran.stdout == begin);
}

// Across runs.

#[test]
fn later_run_resumes() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        _ => request.honestly(&whole, "\"a\""),
    });
    second_run_gives(&server, &body);
    assert_eq!(firsts(&server), [None, Some(CUT)]);
    assert_eq!(server.requests()[1].field("If-Range"), Some("\"a\""));
}

#[test]
fn without_continue_the_part_is_restarted() {
    let body = seeded(1, LARGE);
    let (folder, whole) = (Folder::new(), body.clone());
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        _ => request.honestly(&whole, "\"a\""),
    });
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, None]);
}

#[test]
fn changed_file_is_restarted() {
    for length in [LARGE, LARGE - 1, LARGE + 1, CUT, 100] {
        let (old, new) = (seeded(1, LARGE), seeded(2, length));
        let body = new.clone();
        let server = serve(move |number, request| match number {
            0 => request.honestly(&old, "\"a\"").cut_at(CUT),
            _ => request.honestly(&new, "\"b\""),
        });
        second_run_gives(&server, &body).says("changed on the server");
    }
}

#[test]
fn mismatching_partial_response_restarts() {
    let body = seeded(1, LARGE);
    let part = |first, end| Answer::part(&seeded(1, LARGE), first, end).header("ETag", "\"a\"");
    let other = Answer::part(&seeded(2, LARGE + 1), CUT, LARGE).header("ETag", "\"a\"");
    let plain = Answer::part(&seeded(2, LARGE), CUT, LARGE);
    let multipart = part(CUT, LARGE).header("Content-Type", "multipart/byteranges; boundary=x");
    let encoded = part(CUT, LARGE).header("Content-Encoding", "gzip");
    for (wrong, says) in [
        (part(CUT - 1, LARGE), "starts at another offset"),
        (part(0, LARGE), "starts at another offset"),
        (other, "different file length"),
        (plain.clone().header("ETag", "\"b\""), "different ETag"),
        (plain, "different ETag"),
        (multipart, "missing or invalid Content-Range"),
        (encoded, "different Content-Encoding"),
        (Answer::status(416), "not the complete file"),
        (
            Answer::status(416).header("Content-Range", "bytes */100"),
            "not the complete file",
        ),
    ] {
        let whole = body.clone();
        let server = serve(move |number, request| match number {
            0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
            1 => wrong.clone(),
            _ => request.honestly(&whole, "\"a\""),
        });
        second_run_gives(&server, &body).says(says);
        assert_eq!(firsts(&server), [None, Some(CUT), None], "{says}");
    }
}

#[test]
fn partial_response_without_content_range_restarts() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        1 => Answer::status(206).header("ETag", "\"a\""),
        _ => request.honestly(&whole, "\"a\""),
    });
    second_run_gives(&server, &body).says("missing or invalid Content-Range");
}

#[test]
fn ignored_if_range_is_retried_without_it() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
        _ if request.field("If-Range").is_some() => {
            Answer::body(&whole[..]).header("ETag", "\"a\"")
        }
        _ => request.honestly(&whole, "\"a\""),
    });
    second_run_gives(&server, &body);
    assert_eq!(firsts(&server), [None, Some(CUT), Some(CUT)]);
}

#[test]
fn full_response_keeps_the_part_until_it_is_passed() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let (folder, server) = (
        Folder::new(),
        serve(move |number, _| {
            let answer = Answer::body(&whole[..]).header("ETag", "\"a\"");
            match number {
                0 => answer.cut_at(CUT),
                2 => answer.cut_at(1 << 20),
                _ => answer,
            }
        }),
    );
    fetch(&folder, &server, &["--retry", "0"]).code(4);
    fetch(&folder, &server, &["-c", "--retry", "0"]).code(4);
    assert_eq!(folder.read("f.part").len(), CUT);
    fetch(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
}

#[test]
fn without_validators_a_later_run_restarts() {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "").cut_at(CUT),
        _ => request.honestly(&whole, ""),
    });
    second_run_gives(&server, &body);
    assert_eq!(firsts(&server), [None, None]);
}

/// A folder with a part of these bytes, and the state that a cut of `whole` leaves.
fn with_part(whole: &[u8], part: &[u8]) -> (Folder, Server) {
    let (folder, whole) = (Folder::new(), whole.to_vec());
    let server = serve(move |number, request| match number {
        0 => request.honestly(&whole, "\"a\"").cut_at(whole.len() / 2),
        _ => request.honestly(&whole, "\"a\""),
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
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, Some(100_000)]);

    let (folder, server) = with_part(&body, &[&body[..], b"more"].concat());
    fetch(&folder, &server, &["-c"])
        .code(0)
        .says("not the complete file");
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, Some(100_004), None]);
}

#[test]
fn file_length_overrides_the_recorded_offset() {
    let body = seeded(1, 100_000);
    let (folder, server) = with_part(&body, &body[..1000]);
    fetch(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
    assert_eq!(firsts(&server), [None, Some(1000)]);
}

#[test]
fn invalid_resume_state_warns_and_restarts() {
    let body = seeded(1, 100_000);
    for (state, says) in [
        (Some("{"), "damaged"),
        (Some(""), "damaged"),
        (None, "has no resume state"),
        (Some("other"), "another URL"),
    ] {
        let (folder, server) = with_part(&body, &seeded(9, 1000));
        let good = String::from_utf8(folder.read("f.part.json")).unwrap();
        match state {
            Some("other") => {
                let (before, after) = good.split_once("\"url_sha256\":\"").unwrap();
                let other = format!(
                    "{before}\"url_sha256\":\"{}{}",
                    "0".repeat(64),
                    &after[64..]
                );
                drop(folder.write("f.part.json", other));
            }
            Some(text) => drop(folder.write("f.part.json", text)),
            None => fs::remove_file(folder.path("f.part.json")).unwrap(),
        }
        fetch(&folder, &server, &["-c"]).code(0).says(says);
        if state.is_none() {
            // It could be anybody's.
            assert_eq!(folder.read("f.part"), seeded(9, 1000));
            fs::remove_file(folder.path("f.part")).unwrap();
        }
        is_exact(&folder, &body);
        assert_eq!(firsts(&server), [None, None]);
    }
}

#[test]
fn resume_state_is_private_and_holds_no_secrets() {
    let (folder, server) = (
        Folder::new(),
        Server::start(|_| {
            Answer::body(seeded(1, LARGE))
                .header("ETag", "\"a\"")
                .cut_at(CUT)
        }),
    );
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
        let answer = request.honestly(&whole, &format!("\"{}\"", request.path));
        if number < 3 {
            answer.cut_at(CUT)
        } else {
            answer
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
    assert_eq!(firsts(&server)[3..], [Some(CUT); 3]);
    // Everything is there: nothing is asked for any more.
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
        let answer = request.honestly(&whole, "\"a\"");
        if number == 0 {
            answer.cut_at(CUT)
        } else {
            answer.delayed(Duration::from_millis(300))
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
        let (folder, whole) = (Folder::new(), body.clone());
        let server = serve(move |number, request| match number {
            0 => request.honestly(&whole, "\"a\"").cut_at(CUT),
            _ => request.honestly(&whole, "\"a\""),
        });
        folder.write("f.part", "of a browser");
        fetch(&folder, &server, &["--retry", "0"]).code(4);
        assert_eq!(folder.names(), ["f.1.part", "f.1.part.json", "f.part"]);
        taken.inspect(|taken| drop(folder.write(taken, "come meanwhile")));
        fetch(&folder, &server, &["-c"])
            .code(0)
            .says(&format!("saved {name}:"));
        assert_eq!(firsts(&server), [None, Some(CUT)]);
        assert!(folder.read(name) == body);
        assert_eq!(folder.read("f.part"), b"of a browser");
    }
}

// Killed.

/// The most that a program which takes bytes has not written yet: two pieces of 1 MiB, and what the
/// test takes for read of the piece that the server is just sending.
const UNWRITTEN: u64 = (2 << 20) + DRIP as u64;

/// What the server sends at once.
const DRIP: usize = 256 << 10;

/// Kills the program at a random moment, again and again, until a run ends by itself; returns how
/// often it was killed.
fn killed_until_done(random: &mut fastrand::Rng, arguments: &[&str]) -> usize {
    let body = seeded(1, LARGE);
    let whole = body.clone();
    let folder = Folder::new();
    let server = Server::start(move |request| {
        request
            .honestly(&whole, "\"a\"")
            .dripping(DRIP, Duration::from_millis(4))
    });
    let (mut least, mut kills) = (0, 0);
    let mut lengths = vec![0];
    loop {
        // What is sent to a program that is dead counts for none.
        server.wait_until_idle();
        let before = server.sent();
        let url = server.url("/f");
        let line = [&["download", "-c", &url], arguments].concat();
        let mut running = folder.myapp(line).start();
        let end = Instant::now() + Duration::from_millis(random.u64(..300));
        while Instant::now() < end && !running.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        if running.has_ended() {
            running.wait().code(0);
            break;
        }
        let taken = server.taken().saturating_sub(before);
        running.signal(Signal::KILL);
        drop(running);
        kills += 1;
        assert!(!folder.path("f").exists() || folder.read("f") == body);
        // What is on disk is never less than before.
        let part = fs::metadata(folder.path("f.part")).map_or(0, |data| data.len());
        assert!(
            part >= least || folder.path("f").exists(),
            "{part} after {least}"
        );
        if arguments.is_empty() && !folder.path("f").exists() {
            // A kill loses what is on its way to the disk: what is read and what is written.
            let least = least + taken as u64;
            assert!(
                part + UNWRITTEN >= least,
                "{taken} taken: {part}, not {least} on the disk"
            );
        }
        least = part;
        lengths.push(part as usize);
    }
    is_exact(&folder, &body);
    if arguments.is_empty() {
        fetches_only_what_was_missing(&server, &lengths);
    }
    kills
}

/// Each run has asked for what was behind one of these lengths of its part.
fn fetches_only_what_was_missing(server: &Server, lengths: &[usize]) {
    for request in server.requests() {
        let first = request.first().unwrap_or(0);
        assert!(lengths.contains(&first), "{first} of {lengths:?}");
        assert_eq!(request.field("If-Range").is_some(), first > 0);
    }
}

pub(super) fn killed(times: usize, arguments: &[&str]) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    while kills < times {
        kills += killed_until_done(&mut random, arguments);
    }
}

#[test]
fn killed_download_resumes_exactly() {
    killed(8, &[]);
}

#[test]
#[ignore = "slow: minutes"]
fn download_killed_200_times_resumes_exactly() {
    killed(200, &[]);
}
