//! `myapp download -s`: one file over several connections.

use std::sync::Mutex;

use rustix::process::Signal;

use super::resume::killed;
use super::*;
use crate::harness::http::Request;

const ETAG: &str = "\"a\"";
const PAUSE: Duration = Duration::from_millis(2);

/// A server of `body`, which sends it slowly enough for all connections to take part; `change` is
/// what happens to the n-th answer, from 0.
fn serve(
    body: &[u8],
    change: impl Fn(usize, &Request, Answer) -> Answer + Send + Sync + 'static,
) -> Server {
    let (body, asked) = (body.to_vec(), Mutex::new(0));
    Server::start(move |request| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let answer = request.honestly(&body, ETAG).dripping(64 << 10, PAUSE);
        change(*asked - 1, request, answer)
    })
}

fn honest(_: usize, _: &Request, answer: Answer) -> Answer {
    answer
}

#[track_caller]
fn split(folder: &Folder, server: &Server, arguments: &[&str]) -> Ran {
    let url = server.url("/f");
    let line = ["download", "-s", "4", "-k", "1M", "--retry-delay", "10ms", &url];
    folder.myapp([&line[..], arguments].concat()).run()
}

#[track_caller]
fn is_exact(folder: &Folder, body: &[u8]) {
    assert_eq!(folder.names(), ["f"]);
    assert!(folder.read("f") == body, "other bytes, {} of them", folder.read("f").len());
}

/// Fetches from a server whose answers change so, over four connections; the file is exact.
#[track_caller]
fn gives_the_file(
    change: impl Fn(usize, &Request, Answer) -> Answer + Send + Sync + 'static,
) -> (Server, Ran) {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, change);
    let ran = split(&folder, &server, &[]).code(0).prints("");
    is_exact(&folder, &body);
    (server, ran)
}

#[test]
fn a_large_file_comes_over_several_connections() {
    let (server, _) = gives_the_file(honest);
    assert_eq!(server.most_at_once(), 4);
    let requests = server.requests();
    assert_eq!(requests[0].range(), None);
    for request in &requests[1..] {
        let (first, end) = request.range().unwrap();
        assert!(end.is_some_and(|end| end - first >= 1 << 20), "{request:?}");
        assert_eq!(request.field("If-Range"), Some(ETAG));
    }
    let mut quarters: Vec<_> = requests[1..4].iter().filter_map(Request::first).collect();
    quarters.sort_unstable();
    for (number, first) in (1..).zip(quarters) {
        assert!(first.abs_diff(LARGE * number / 4) < LARGE / 8, "{number}: {first}");
    }
}

#[test]
fn what_is_small_or_has_no_certain_version_comes_over_one_connection() {
    let body = seeded(1, LARGE);
    for (etag, arguments) in [("W/\"a\"", &["-k1M"][..]), ("", &["-k1M"]), (ETAG, &["-k5M"])] {
        let (folder, whole) = (Folder::new(), body.clone());
        let server = Server::start(move |request| request.honestly(&whole, etag));
        let url = server.url("/f");
        folder.myapp([&["download", "-s4", &url], arguments].concat()).run().code(0);
        is_exact(&folder, &body);
        assert_eq!(server.requests().len(), 1, "{etag} {arguments:?}");
    }
}

#[test]
fn a_server_without_ranges_sends_it_over_the_first_connection() {
    let body = seeded(1, LARGE);
    let (server, _) = gives_the_file(move |number, _, answer| match number {
        0 => answer,
        _ => Answer::body(&body[..]).header("ETag", ETAG).dripping(64 << 10, PAUSE),
    });
    assert!(server.requests().len() <= 4, "{}", server.requests().len());
}

#[test]
fn a_file_that_changes_meanwhile_is_the_one_that_was_begun() {
    let other = seeded(2, LARGE);
    gives_the_file(move |number, request, answer| match number {
        0 => answer,
        _ => request.honestly(&other, "\"b\""),
    });
}

#[test]
fn parts_that_do_not_fit_are_not_taken() {
    let other = seeded(2, LARGE + 1);
    gives_the_file(move |number, request, answer| match (number, request.range()) {
        // Another ETag, another total, another place.
        (1, Some((first, _))) => Answer::part(&other, first, LARGE).header("ETag", "\"b\""),
        (2, Some((first, _))) => Answer::part(&other, first, LARGE).header("ETag", ETAG),
        (3, Some((first, _))) => Answer::part(&other, first + 1, LARGE).header("ETag", ETAG),
        _ => answer,
    });
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_broke() {
    for broken in 0..4 {
        let (server, _) = gives_the_file(move |number, _, answer| match number {
            number if number == broken => answer.cut_at(300_000),
            _ => answer,
        });
        assert!(server.requests().len() >= 5, "{broken}");
    }
}

#[test]
fn a_server_that_wants_one_connection_a_client_is_not_waited_for() {
    let start = Instant::now();
    gives_the_file(|number, _, answer| match number {
        0 => answer,
        _ => Answer::status(503).header("Retry-After", "60"),
    });
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_later_run_fetches_what_is_missing_alone_however_many_connections_it_has() {
    for arguments in [&["-c"][..], &["-c", "-s", "1"]] {
        let (body, folder) = (seeded(1, LARGE), Folder::new());
        let server = serve(&body, |number, _, answer| match number {
            0..4 => answer.cut_at(1 << 20),
            _ => answer,
        });
        split(&folder, &server, &["--retry", "0"]).code(4);
        assert_eq!(folder.names(), ["f.part", "f.part.json"]);
        assert_eq!(server.requests().len(), 4);
        split(&folder, &server, arguments).code(0);
        is_exact(&folder, &body);
        let (first_run, later) = (&server.requests()[..4], &server.requests()[4..]);
        let firsts = |requests: &[Request]| {
            requests.iter().map(|request| request.first().unwrap_or(0)).collect::<Vec<_>>()
        };
        for at in firsts(later) {
            // Each connection had brought its first mebibyte.
            let had = firsts(first_run).into_iter().any(|had| (had..had + (1 << 20)).contains(&at));
            assert!(!had, "{at} of {:?}", server.requests());
        }
    }
}

#[test]
fn a_part_with_gaps_of_another_version_is_started_over() {
    let (old, new, folder) = (seeded(1, LARGE), seeded(2, LARGE), Folder::new());
    let whole = new.clone();
    let server = serve(&old, move |number, request, answer| match number {
        0..4 => answer.cut_at(1 << 20),
        _ => request.honestly(&whole, "\"b\""),
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    split(&folder, &server, &["-c"]).code(0).says("changed on the server");
    is_exact(&folder, &new);
}

#[test]
fn a_part_with_gaps_is_trusted_no_further_than_it_is_on_the_disk() {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, |number, _, answer| match number {
        0..4 => answer.cut_at(1 << 20),
        _ => answer,
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    let part = folder.read("f.part");
    folder.write("f.part", &part[..part.len() / 2]);
    split(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
}

#[test]
fn a_checksum_is_that_of_the_whole_file() {
    let body = seeded(1, LARGE);
    let right = blake3::hash(&body).to_hex();
    for (digest, code) in [(right.as_str(), 0), (&"0".repeat(64), 9)] {
        let folder = Folder::new();
        let checksum = format!("blake3={digest}");
        split(&folder, &serve(&body, honest), &["--checksum", &checksum]).code(code);
        assert_eq!(folder.path("f").exists(), code == 0);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_divided() {
    let (folder, server) = (Folder::new(), serve(&seeded(1, LARGE), honest));
    split(&folder, &server, &["--max-filesize", "8M"]).code(11);
    assert_eq!((folder.names(), server.requests().len()), (vec![], 1));
}

#[test]
fn a_signal_leaves_a_part_to_go_on_with() {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, |number, _, answer| match number {
        0..4 => answer.stalled_at(1 << 20),
        _ => answer,
    });
    let url = server.url("/f");
    let running = folder.myapp(["download", "-s4", "-k1M", &url]).start();
    server.wait_for(4);
    thread::sleep(Duration::from_millis(100));
    running.signal(Signal::INT);
    running.wait().code(130);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    split(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
}

#[test]
fn killed_at_any_moment_it_goes_on_with_all_parts_and_the_file_is_exact() {
    killed(20, &["-s4", "-k256K"]);
}

#[test]
#[ignore = "takes minutes"]
fn killed_two_hundred_times_it_goes_on_with_all_parts_and_the_file_is_exact() {
    killed(200, &["-s4", "-k256K"]);
}
