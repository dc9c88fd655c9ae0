//! `-c` over files that another program has left: truncated, complete, or something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::peers::{nginx, site};
use super::*;
use crate::harness::ports::ChildGuard;

const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Length of the samples that are compared.
const SAMPLE: usize = 64 << 10;

/// Length of the file on the server.
const TOTAL: usize = 300_000;

/// Length of the truncated file.
const TRUNCATED: usize = 200_000;

const ETAG: &str = "\"a\"";

fn body() -> Vec<u8> {
    seeded(1, TOTAL)
}

/// Starts a server of a file with these validators. It ignores ranges of paths that begin with
/// `/plain`.
fn server(body: Vec<u8>, etag: &'static str, modified: &str) -> Server {
    let modified = modified.to_owned();
    Server::start(move |request| {
        let mut request = request.clone();
        if request.field("If-Range") == Some(&modified) {
            request
                .fields
                .retain(|field| !field.starts_with("If-Range:"));
        }
        let response = if request.path.starts_with("/plain") {
            Response::body(body.clone())
        } else {
            request.respond_with(&body, etag)
        };
        let response = response.header("Date", &httpdate::fmt_http_date(SystemTime::now()));
        match modified.as_str() {
            "" => response,
            modified => response.header("Last-Modified", modified),
        }
    })
    .may_be_idle()
}

#[track_caller]
fn assert_names(folder: &Folder, names: &[&str]) {
    assert_eq!(folder.names(), names);
}

/// Runs `-c` over `f`, and asserts that it is kept for this reason and that the file is saved as
/// `f.1`.
#[track_caller]
fn assert_refused(server: &Server, folder: &Folder, body: &[u8], reason: &str) {
    let before = fs::read(folder.path("f")).unwrap();
    let others = folder.names();
    fetch(folder, ["-c", &server.url("/f")])
        .code(0)
        .says("existing file kept")
        .says(reason);
    assert!(folder.read("f") == before, "{reason}: f was changed");
    assert!(folder.read("f.1") == body, "{reason}: f.1 is wrong");
    fs::remove_file(folder.path("f.1")).unwrap();
    assert_eq!(folder.names(), others, "{reason}");
}

#[test]
fn truncated_file_is_continued_from_equal_samples() {
    for etag in [ETAG, "", "W/\"a\""] {
        let folder = Folder::new();
        let body = body();
        let server = server(body.clone(), etag, OLD);
        folder.write("f", &body[..TRUNCATED]);
        let url = server.url("/f");
        fetch(&folder, ["-c", &url])
            .code(0)
            .says("continuing the existing file");
        assert!(folder.read("f") == body, "{etag}");
        assert_names(&folder, &["f"]);
        let starts: Vec<_> = server
            .requests()
            .iter()
            .map(|request| request.range_start())
            .collect();
        let middle = (TRUNCATED - SAMPLE) / 2;
        let rest = if etag.starts_with('W') {
            TRUNCATED - (64 << 10)
        } else {
            TRUNCATED
        };
        let expected = [0, 0, middle, TRUNCATED - SAMPLE, rest].map(Some);
        assert_eq!(starts, expected, "{etag}");
        fetch(&folder, ["-c", &url]).code(0).says("kept f");
        assert_eq!(server.requests().len(), starts.len(), "the file is marked");
    }
}

#[test]
fn truncated_file_is_continued_by_several_connections() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let server = server(body.clone(), ETAG, OLD);
    folder.write("f", &body[..1 << 20]);
    let url = server.url("/f");
    fetch(&folder, ["-c", "-s", "4", "-k", "1M", &url]).code(0);
    assert!(folder.read("f") == body);
    assert_names(&folder, &["f"]);
}

#[test]
fn doubtful_file_is_not_continued() {
    let now = httpdate::fmt_http_date(SystemTime::now());
    let mut sparse = body();
    sparse[SAMPLE..2 * SAMPLE].fill(0);
    let mut uniform = body();
    uniform[..SAMPLE].fill(b'x');
    let mut other = body();
    other[TRUNCATED - 1] ^= 1;
    let body = body();
    let truncated = &body[..TRUNCATED];
    for (of_server, modified, content, reason) in [
        (&body, now.as_str(), truncated, "may be newer"),
        (&body, "", truncated, "may be newer"),
        (&body, OLD, &[], "it is empty"),
        (
            &body,
            OLD,
            &other[..TRUNCATED],
            "differs from the file of the server at offset 134464",
        ),
        (&body, OLD, &[&body[..], b"x"].concat(), "longer"),
        (&sparse, OLD, &sparse[..TRUNCATED], "a block of zeros"),
        (&uniform, OLD, &uniform[..TRUNCATED], "too uniform"),
        (&body, OLD, &body[..1], "no strong validator"),
    ] {
        let etag = if content.len() == 1 { "W/\"a\"" } else { ETAG };
        let server = server(of_server.clone(), etag, modified);
        let folder = Folder::new();
        folder.write("f", content);
        assert_refused(&server, &folder, of_server, reason);
    }
}

#[test]
fn file_with_a_hole_control_file_or_link_is_not_continued() {
    let body = body();
    let server = server(body.clone(), ETAG, OLD);
    let with = |change: &dyn Fn(&Folder)| {
        let folder = Folder::new();
        folder.write("f", &body[..TRUNCATED]);
        change(&folder);
        folder
    };
    let preallocated = with(&|folder| {
        let file = fs::File::create(folder.path("f")).unwrap();
        file.set_len(TRUNCATED as u64).unwrap();
    });
    assert_refused(&server, &preallocated, &body, "differs");
    for suffix in ["aria2", "st"] {
        let folder = with(&|folder| drop(folder.write(&format!("f.{suffix}"), "")));
        assert_refused(&server, &folder, &body, &format!("f.{suffix} beside it"));
    }
    let linked = with(&|folder| {
        fs::hard_link(folder.path("f"), folder.path("g")).unwrap();
    });
    assert_refused(&server, &linked, &body, "hard links");
    let symbolic = with(&|folder| {
        fs::rename(folder.path("f"), folder.path("g")).unwrap();
        symlink("g", folder.path("f")).unwrap();
    });
    assert_refused(&server, &symbolic, &body, "symbolic links");
}

#[test]
fn file_of_a_server_without_ranges_or_length_is_not_continued() {
    let folder = Folder::new();
    let body = body();
    folder.write("plain", &body[..TRUNCATED]);
    let server = server(body.clone(), ETAG, OLD);
    fetch(&folder, ["-c", &server.url("/plain")])
        .code(0)
        .says("does not send the ranges");
    assert!(folder.read("plain.1") == body);
    let chunked = Server::start(|_| Response::body("abc").chunked());
    folder.write("f", "abc");
    for says in ["does not state the length", "kept f.1"] {
        fetch(&folder, ["-c", &chunked.url("/f")])
            .code(0)
            .says(says);
    }
    assert_names(&folder, &["f", "f.1", "plain", "plain.1"]);
}

/// Regression: each run saved the file once more.
#[test]
fn second_run_keeps_the_file_beside_a_refused_one() {
    let folder = Folder::new();
    let server = server(body(), ETAG, "");
    folder.write("f", &body()[..TRUNCATED]);
    let url = server.url("/f");
    fetch(&folder, ["-c", &url]).code(0);
    assert_names(&folder, &["f", "f.1"]);
    fetch(&folder, ["-c", &url]).code(0).says("kept f.1");
    assert_names(&folder, &["f", "f.1"]);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn file_of_equal_length_is_compared() {
    let body = body();
    let now = httpdate::fmt_http_date(SystemTime::now());
    let mut last = body.clone();
    last[TOTAL - 1] ^= 1;
    for (modified, content, says, names) in [
        (OLD, &body[..], "kept, equal to the file", &["f"][..]),
        (&now, &body, "kept, not verified", &["f"]),
        (&now, &last, "differs", &["f", "f.1"]),
    ] {
        let folder = Folder::new();
        let server = server(body.clone(), ETAG, modified);
        folder.write("f", content);
        let url = server.url("/f");
        fetch(&folder, ["-c", &url]).code(0).says(says);
        assert_names(&folder, names);
        assert!(folder.read("f") == content);
        let requests = server.requests().len();
        assert!(requests == if names.len() == 1 { 4 } else { 5 }, "{says}");
        if says.starts_with("kept, equal") {
            fetch(&folder, ["-c", &url]).code(0).says("kept f");
            assert_eq!(server.requests().len(), requests, "the file is marked");
        }
    }
}

#[test]
fn short_file_of_equal_length_is_compared_completely() {
    for (content, says, names) in [
        ("abc", "kept, equal to the file", &["f"][..]),
        ("abd", "differs", &["f", "f.1"]),
    ] {
        let folder = Folder::new();
        let server = server(b"abc".to_vec(), "", "");
        folder.write("f", content);
        fetch(&folder, ["-c", &server.url("/f")]).code(0).says(says);
        assert_names(&folder, names);
    }
    let folder = Folder::new();
    let server = server(Vec::new(), "", "");
    folder.write("f", "");
    fetch(&folder, ["-c", &server.url("/f")]).code(0);
    assert_names(&folder, &["f"]);
}

/// Preallocated by another program, which keeps a control file until it is complete.
#[test]
fn file_of_equal_length_with_a_control_file_is_incomplete() {
    let folder = Folder::new();
    let body = body();
    let server = server(body.clone(), ETAG, OLD);
    folder.write("f", &body);
    folder.write("f.aria2", "");
    assert_refused(&server, &folder, &body, "f.aria2 beside it");
}

/// The file is continued in a part, which a later run continues.
#[test]
fn interrupted_continuation_is_completed_by_a_later_run() {
    for is_changed in [false, true] {
        let folder = Folder::new();
        let whole = body();
        let server = Server::start(move |request| {
            let response = request.respond_with(&whole, ETAG);
            let response = response.header("Last-Modified", OLD);
            match request.range() {
                Some((TRUNCATED, None)) => response.truncated_at(70_000),
                _ => response,
            }
        });
        let old = body()[..TRUNCATED].to_vec();
        folder.write("f", &old);
        let url = server.url("/f");
        fetch(&folder, ["-c", "--retry=0", &url]).code(4);
        assert_names(&folder, &["f", "f.part", "f.part.json"]);
        assert!(folder.read("f") == old);
        if is_changed {
            folder.write("f", "mine");
        }
        fetch(&folder, ["-c", "--retry=0", &url]).code(0);
        if is_changed {
            assert_names(&folder, &["f", "f.1"]);
            assert!(folder.read("f") == b"mine" && folder.read("f.1") == body());
        } else {
            assert_names(&folder, &["f"]);
            assert!(folder.read("f") == body());
        }
    }
}

/// Returns the SHA-256 of the file on the server as a value of `--checksum`.
fn checksum_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

#[test]
fn checksum_decides_on_a_continued_file() {
    let body = body();
    let mut middle = body.clone();
    middle[TRUNCATED / 2] ^= 1;
    let mut last = body.clone();
    last[TRUNCATED - 1] ^= 1;
    for (content, names) in [
        (&body[..TRUNCATED], &["f"][..]),
        (&middle[..TRUNCATED], &["f", "f.1"]),
        (&last[..TRUNCATED], &["f", "f.1"]),
        (&middle, &["f", "f.1"]),
        (&[&body[..], b"x"].concat(), &["f", "f.1"]),
        (&body[..10], &["f", "f.1"]),
    ] {
        let folder = Folder::new();
        // Neither a validator nor an old date.
        let server = server(body.clone(), "", "");
        folder.write("f", content);
        let checksum = checksum_of(&body);
        let url = server.url("/f");
        fetch(&folder, ["-c", "--checksum", &checksum, &url]).code(0);
        assert_names(&folder, names);
        if names.len() == 1 {
            assert!(folder.read("f") == body);
            assert!(server.sent() < 2 * (TOTAL - TRUNCATED), "the rest only");
        } else {
            assert!(folder.read("f") == content, "f was changed");
            assert!(folder.read("f.1") == body);
        }
        // A second run keeps the file that matches.
        let requests = server.requests().len();
        fetch(&folder, ["-c", "--checksum", &checksum, &url]).code(0);
        assert_names(&folder, names);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn continued_file_stays_if_the_checksum_is_wrong() {
    let folder = Folder::new();
    let body = body();
    let server = server(body.clone(), ETAG, OLD);
    folder.write("f", &body[..TRUNCATED]);
    let checksum = checksum_of(b"another file");
    let url = server.url("/f");
    fetch(&folder, ["-c", "--checksum", &checksum, &url]).code(9);
    assert_names(&folder, &["f", "f.part", "f.part.json"]);
    assert!(folder.read("f") == body[..TRUNCATED]);
    let from_start = server
        .requests()
        .iter()
        .filter(|request| request.range().is_none())
        .count();
    assert_eq!(from_start, 1, "retried once from the first byte");
}

/// Regression: of the files of a name, only the first was compared with the checksum.
#[test]
fn each_kept_file_is_verified_by_its_checksum() {
    let folder = Folder::new();
    let server = server(body(), ETAG, OLD);
    let url = server.url("/f");
    fetch(&folder, [&url]).code(0);
    fetch(&folder, [&url]).code(0);
    assert_names(&folder, &["f", "f.1"]);
    // Changed by something that sets the time again.
    for name in ["f", "f.1"] {
        let path = folder.path(name);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = body();
        bytes[1000] ^= 1;
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
    }
    let checksum = checksum_of(&body());
    fetch(&folder, ["-c", "--checksum", &checksum, &url]).code(0);
    assert_names(&folder, &["f", "f.1", "f.2"]);
    assert!(folder.read("f.2") == body());
}

/// Starts a program that downloads `url` slowly, and kills it when this file has more than `len`
/// bytes.
fn run_and_kill(folder: &Folder, command: &[&str], url: &str, (watched, len): (&str, u64)) {
    let mut program = Command::new(command[0]);
    program
        .args(&command[1..])
        .arg(url)
        .current_dir(folder.path(""));
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let running = ChildGuard::spawn(&mut program);
    let watched = folder.path(watched);
    until(|| fs::metadata(&watched).is_ok_and(|file| file.len() > len));
    drop(running);
}

const CURL: &[&str] = &["curl", "--noproxy", "*", "-s", "-O"];
const WGET: &[&str] = &["wget", "--no-config", "--no-proxy", "-q"];
const ARIA2: &[&str] = &["aria2c", "--no-conf", "--all-proxy=", "-q"];

#[test]
#[ignore = "peer: nginx, curl, wget, aria2c"]
fn killed_downloads_of_other_programs_are_completed() {
    let site = site();
    let root = site.path("files");
    let slow = format!(
        "location /slow/ {{ alias {}/; limit_rate 4m; }}",
        root.display()
    );
    let server = nginx(&site, "", &slow);
    let slow = format!("{}/slow/huge", server.url());
    let url = format!("{}/huge", server.url());
    let whole = site.read("files/huge");
    let aria2_growing = [ARIA2, &["--file-allocation=none"]].concat();
    let is_started = ("huge.aria2", 0);
    let has_data = ("huge", 1 << 20);
    for (command, watched, names) in [
        (CURL, has_data, &["huge"][..]),
        (WGET, has_data, &["huge"]),
        // Its file has the complete length from the start.
        (ARIA2, is_started, &["huge", "huge.1", "huge.aria2"]),
        (
            &aria2_growing,
            is_started,
            &["huge", "huge.1", "huge.aria2"],
        ),
    ] {
        let folder = Folder::new();
        run_and_kill(&folder, command, &slow, watched);
        let program = command[0];
        let truncated = folder.read("huge");
        let ran = fetch(&folder, ["-c", &url]).code(0);
        assert_eq!(folder.names(), names, "{program} {}", ran.stderr);
        let complete = if names.len() == 1 { "huge" } else { "huge.1" };
        assert!(folder.read(complete) == whole, "{program}");
        if names.len() == 1 {
            ran.says(&format!(
                "continuing the existing file path=\"huge\" bytes={}",
                truncated.len()
            ));
        } else {
            ran.says("huge.aria2 beside it");
            assert!(folder.read("huge") == truncated, "{program}");
        }
    }
}

#[test]
#[ignore = "peer: nginx, curl, wget, aria2c"]
fn complete_downloads_of_other_programs_are_kept() {
    let site = site();
    let server = nginx(&site, "", "");
    let url = format!("{}/huge", server.url());
    for program in [CURL, WGET, ARIA2] {
        let folder = Folder::new();
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(&url)
            .current_dir(folder.path(""));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{program:?}");
        fetch(&folder, ["-c", &url])
            .code(0)
            .says("kept, equal to the file of the server");
        assert_eq!(folder.names(), ["huge"]);
    }
}
