//! Many files in one run.

use std::fs;
use std::process::Command;

use super::*;
use crate::harness::http::Request;

#[test]
fn jobs_limit_concurrent_downloads() {
    let folder = Folder::new();
    let server = Server::start(|request| {
        let number: u64 = request.path[1..].parse().unwrap();
        Response::body(seeded(number, 1000)).delayed(Duration::from_millis(3))
    });
    let urls: Vec<_> = (0..300)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let line = ["download", "-j", "3"]
        .into_iter()
        .chain(urls.iter().map(String::as_str));
    folder
        .myapp(line)
        .run()
        .code(0)
        .prints("")
        .says("300 of 300 files saved");
    for number in 0..300 {
        assert_eq!(
            folder.read(&number.to_string()),
            seeded(number, 1000),
            "{number}"
        );
    }
    assert_eq!(folder.names().len(), 300);
    assert_eq!(server.max_concurrent(), 3);
    assert!(
        server.connections() <= 10,
        "{} connections",
        server.connections()
    );
}

#[test]
fn one_failure_does_not_stop_the_other_files() {
    for broken in 0..3 {
        let folder = Folder::new();
        let server = Server::with_paths([("/0", ok()), ("/1", ok()), ("/2", ok())]);
        let mut urls = [0, 1, 2].map(|number| server.url(&format!("/{number}")));
        urls[broken] = server.url("/missing");
        fetch(&folder, [&urls[0], &urls[1], &urls[2]])
            .code(8)
            .says("2 of 3 files saved")
            .says(&format!("download {}: HTTP status 404", urls[broken]));
        assert_eq!(folder.names().len(), 2);
    }
}

#[test]
fn exit_code_is_the_lowest_of_all_failures() {
    let folder = Folder::new();
    let server = Server::with_paths([
        ("/401", Response::status(401)),
        ("/cut", ok().truncated_at(1)),
    ]);
    let urls = ["/404", "/401", "/cut"].map(|path| server.url(path));
    fetch(
        &folder,
        ["--retry", "0", &urls[0], &urls[1], "ftp://x", &urls[2]],
    )
    .code(4);
}

#[test]
fn stdin_list_is_fetched_line_by_line() {
    let folder = Folder::new();
    let server = Server::with_paths([("/a", ok()), ("/b", ok())]);
    let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
    running.write(format!("\n{}\r\n", server.url("/a")));
    server.wait_for(1);
    running.write(format!("not a url\n{}", server.url("/b")));
    running.close_stdin();
    running
        .wait()
        .code(2)
        .says("stdin, line 3: blank in the line")
        .says("2 of 3 files saved");
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn stdin_list_keeps_its_place_between_urls() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    let [a, b, c] = ["/a", "/b", "/c"].map(|path| server.url(path));
    folder
        .myapp(["download", "-j1", &a, "-", &c])
        .stdin(b)
        .run()
        .code(0);
    let paths: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

/// Downloads this number of URLs from a pipe that stays open, and checks the peak memory in KiB.
fn fetch_through_open_pipe(count: usize, max_memory: u64) {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    let mut running = folder
        .myapp(["download", "-q", "-j8", "-"])
        .hold_stdin()
        .start();
    running.write(format!("{}\n", server.url("/0")));
    server.wait_for(1);
    for start in (1..count).step_by(1000) {
        let lines = start..count.min(start + 1000);
        running.write(
            lines
                .map(|n| server.url(&format!("/{n}\n")))
                .collect::<String>(),
        );
    }
    server.wait_for(count);
    until(|| folder.path(&(count - 1).to_string()).exists());
    let peak = running.peak_memory();
    assert!(peak < max_memory, "{peak} KiB of memory");
    assert!(!running.has_exited());
    running.close_stdin();
    running.wait().code(0).prints("").silent();
    let names = folder.names();
    assert!(names.len() == count && names.iter().all(|name| !name.contains('.')));
}

#[test]
fn open_stdin_list_uses_bounded_memory() {
    fetch_through_open_pipe(2_000, 40 << 10);
}

#[test]
#[ignore = "slow: half a minute"]
fn list_of_100_000_urls_uses_bounded_memory() {
    fetch_through_open_pipe(100_000, 100 << 10);
}

/// A file system without extended attributes cannot mark a file as complete.
#[test]
#[ignore = "peer: unshare, mount (ramfs)"]
fn rerun_without_xattrs_fetches_nothing_twice() {
    let lengths = [0, 1, 1000, 300_000, LARGE];
    let bodies = lengths.map(|length| seeded(length as u64, length));
    let served = bodies.clone();
    let server = Server::start(move |request| {
        let index: usize = request.path[1..].parse().unwrap();
        request.respond_with(&served[index], "\"a\"")
    });
    let urls: Vec<_> = (0..lengths.len())
        .map(|index| server.url(&format!("/{index}")))
        .collect();
    let folder = Folder::new();
    for dir in ["out", "saved"] {
        fs::create_dir(folder.path(dir)).unwrap();
    }
    let script = "mount -t ramfs ramfs out && \
        \"$0\" \"$@\" 2> first && ls -Ai out > before && \
        \"$0\" \"$@\" && ls -Ai out > after && cp out/* saved";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    let arguments = ["download", "-c", "-d", "out", "-s", "4", "-k", "1M"];
    let arguments = arguments.into_iter().chain(urls.iter().map(String::as_str));
    let again = folder.myapp(arguments).through(unshare).run();
    again.code(0).prints("").says("5 already there");
    let inodes = |list: &str| String::from_utf8(folder.read(list)).unwrap();
    assert_eq!(inodes("before").lines().count(), lengths.len());
    assert_eq!(inodes("before"), inodes("after"), "a file is new");
    for (index, body) in bodies.iter().enumerate() {
        assert!(folder.read(&format!("saved/{index}")) == *body, "{index}");
    }
    // The second run requests one byte of each file, for its length, and nothing else.
    let requests = server.requests();
    let is_probe = |request: &&Request| request.range() == Some((0, Some(1)));
    assert_eq!(requests.iter().filter(is_probe).count(), lengths.len());
    let last = requests.iter().rev().take_while(is_probe);
    assert_eq!(last.count(), lengths.len(), "{requests:?}");
}

/// Number of small files whose system calls are counted.
const FILES: usize = 2000;

/// Maximum number of system calls per small file: request, response, and seven for the file.
const MAX_CALLS: usize = 13;

/// Calls that are not counted: waits, whose number depends on the server, and `fcntl`, by which
/// the standard library checks each descriptor in debug builds.
const UNCOUNTED: [&str; 4] = ["epoll_pwait", "epoll_ctl", "futex", "fcntl"];

#[test]
#[ignore = "peer: strace"]
fn small_file_takes_few_system_calls() {
    for options in [&[][..], &["-c"]] {
        let server = Server::start(|request| Response::body(request.path.clone()));
        let urls: String = (0..FILES)
            .map(|number| server.url(&format!("/{number}\n")))
            .collect();
        let folder = Folder::new();
        let list = folder.write("urls", urls);
        let list = list.to_string_lossy();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o", "calls"]);
        let fixed = ["download", "-q", "-d", "out", "-i", &list];
        let arguments = [&fixed, options].concat();
        folder.myapp(arguments).through(strace).run().code(0);
        let saved = fs::read_dir(folder.path("out")).unwrap();
        assert_eq!(saved.count(), FILES);
        let table = String::from_utf8(folder.read("calls")).unwrap();
        // Columns: share, seconds, microseconds per call, calls, errors if any, name.
        let calls: usize = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|row| {
                row.last()
                    .is_some_and(|name| *name != "total" && !UNCOUNTED.contains(name))
            })
            .filter_map(|row| row.get(3)?.parse::<usize>().ok())
            .sum();
        println!("{options:?}: {:.1} per file", calls as f64 / FILES as f64);
        let is_plausible = (FILES * 8..=FILES * MAX_CALLS).contains(&calls);
        assert!(is_plausible, "{table}");
    }
}
