//! `myapp download`, against a server that misbehaves as it is told.

mod lists;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::{StreamExt as _, future, stream};
use myapp::download::{Config, Downloader, Event, Item};
use myapp::limits::stop::stop;
use myapp::runtime;
use rustix::process::Signal;

use crate::harness::http::{Answer, Certificate, Server, seeded};
use crate::harness::{Folder, Ran, myapp};

/// Longer than any one read or buffer, and no multiple of them.
const LARGE: usize = (8 << 20) + 12_345;

/// Longer than all a socket holds.
const HALF: usize = LARGE / 2;

#[track_caller]
fn fetch<const N: usize>(folder: &Folder, arguments: [&str; N]) -> Ran {
    folder.myapp([&["download"], &arguments[..]].concat()).run()
}

/// Fetches `/f` of a server that answers so, into an empty folder.
#[track_caller]
fn fetch_f(answer: Answer, arguments: &[&str]) -> (Folder, Ran) {
    let (folder, server) = (Folder::new(), Server::with([("/f", answer)]));
    let url = server.url("/f");
    let ran = folder.myapp([&["download"], arguments, &[&url]].concat()).run();
    (folder, ran)
}

#[track_caller]
fn is_saved(answer: Answer, body: &[u8]) {
    let (folder, ran) = fetch_f(answer, &[]);
    ran.code(0).prints("");
    assert!(folder.read("f") == body, "other bytes, {} of them", folder.read("f").len());
    assert_eq!(folder.names(), ["f"]);
}

#[track_caller]
fn fails(answer: Answer, arguments: &[&str], code: i32, says: &str) {
    assert!(fails_with(answer, arguments, code, says).is_empty());
}

/// Like [`fails`], but what came stays as a part, if anything did.
#[track_caller]
fn breaks(answer: Answer, arguments: &[&str], code: i32, says: &str) {
    let names = fails_with(answer, arguments, code, says);
    assert!(names.is_empty() || names == ["f.part", "f.part.json"], "left behind: {names:?}");
}

#[track_caller]
fn fails_with(answer: Answer, arguments: &[&str], code: i32, says: &str) -> Vec<String> {
    let (folder, ran) = fetch_f(answer, &[&["--retry", "0"], arguments].concat());
    ran.code(code).prints("").says(says);
    folder.names()
}

// Bodies.

#[test]
fn a_file_of_any_size_is_saved_whole() {
    for size in [0, 1, 1000, 256 << 10, (256 << 10) + 1, 1 << 20, (1 << 20) + 1, LARGE] {
        let body = seeded(size as u64, size);
        is_saved(Answer::body(body.clone()), &body);
    }
}

#[test]
fn every_framing_is_understood() {
    for size in [0, 5000, 256 << 10, (256 << 10) + 1, LARGE] {
        let body = seeded(7, size);
        is_saved(Answer::body(body.clone()).chunked(), &body);
        is_saved(Answer::body(body.clone()).until_close(), &body);
        is_saved(Answer::body(body.clone()).http_1_0(), &body);
    }
}

#[test]
fn a_body_that_is_cut_is_never_taken_for_a_file() {
    for at in [0, 1000, HALF] {
        breaks(Answer::body(seeded(1, LARGE)).cut_at(at), &[], 4, "cut short");
        breaks(Answer::body(seeded(1, LARGE)).chunked().cut_at(at), &[], 4, "cut short");
    }
}

#[test]
fn surplus_bytes_harm_neither_the_file_nor_the_next() {
    let (folder, server) = (
        Folder::new(),
        Server::start(|request| Answer::body(request.path.as_bytes()).surplus("HTTP/1.1 200 X")),
    );
    fetch(&folder, ["-j1", &server.url("/a"), &server.url("/b")]).code(0);
    assert_eq!((folder.read("a"), folder.read("b")), (b"/a".to_vec(), b"/b".to_vec()));
    assert_eq!(server.connections(), 2);
}

#[test]
fn what_came_compressed_is_saved_as_it_came_with_a_warning() {
    let answer = Answer::body("not really gzip").header("Content-Encoding", "gzip");
    let (folder, ran) = fetch_f(answer, &[]);
    ran.code(0).says("still encoded");
    assert_eq!(folder.read("f"), b"not really gzip");
}

#[test]
fn what_is_no_http_is_refused_at_a_limit() {
    let fields =
        (0..100_000).fold(ok(), |answer, number| answer.header(&format!("X-{number}"), ""));
    for (answer, says) in [
        (ok().header("X", &"x".repeat(10 << 20)), "longer than 256 KiB"),
        (fields, "the head"),
        (Answer::body("zz\r\n").header("Transfer-Encoding", "chunked"), "not a chunk size: \"zz\""),
        (
            Answer::body("400000000000000000\r\n").header("Transfer-Encoding", "chunked"),
            "not a chunk size",
        ),
    ] {
        fails(answer, &[], 7, says);
    }
}

// Many files.

#[test]
fn three_hundred_files_come_three_at_a_time() {
    let (folder, server) = (
        Folder::new(),
        Server::start(|request| {
            let number: u64 = request.path[1..].parse().unwrap();
            Answer::body(seeded(number, 1000)).delayed(Duration::from_millis(3))
        }),
    );
    let urls: Vec<_> = (0..300).map(|number| server.url(&format!("/{number}"))).collect();
    let line = ["download", "-j", "3"].into_iter().chain(urls.iter().map(String::as_str));
    folder.myapp(line).run().code(0).prints("").says("300 of 300 files saved");
    for number in 0..300 {
        assert_eq!(folder.read(&number.to_string()), seeded(number, 1000), "{number}");
    }
    assert_eq!(folder.names().len(), 300);
    assert_eq!(server.most_at_once(), 3);
    assert!(server.connections() <= 10, "{} connections", server.connections());
}

#[test]
fn one_that_fails_does_not_stop_the_others_wherever_it_stands() {
    for broken in 0..3 {
        let (folder, server) =
            (Folder::new(), Server::with([("/0", ok()), ("/1", ok()), ("/2", ok())]));
        let mut urls = [0, 1, 2].map(|number| server.url(&format!("/{number}")));
        urls[broken] = server.url("/missing");
        fetch(&folder, [&urls[0], &urls[1], &urls[2]])
            .code(8)
            .says("2 of 3 files saved")
            .says(&format!("download {}: HTTP status 404", urls[broken]));
        assert_eq!(folder.names().len(), 2);
    }
}

fn ok() -> Answer {
    Answer::body("good")
}

#[test]
fn of_several_failures_the_lowest_code_wins() {
    let (folder, server) =
        (Folder::new(), Server::with([("/401", Answer::status(401)), ("/cut", ok().cut_at(1))]));
    let urls = ["/404", "/401", "/cut"].map(|path| server.url(path));
    fetch(&folder, ["--retry", "0", &urls[0], &urls[1], "ftp://x", &urls[2]]).code(4);
}

#[test]
fn the_list_is_fetched_as_its_lines_come() {
    let (folder, server) = (Folder::new(), Server::with([("/a", ok()), ("/b", ok())]));
    let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
    running.write(format!("\n{}\r\n", server.url("/a")));
    server.wait_for(1);
    running.write(format!("not a url\n{}", server.url("/b")));
    running.close_stdin();
    running.wait().code(2).says("stdin, line 3: not a URL").says("2 of 3 files saved");
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn a_list_may_stand_between_other_urls() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()));
    let [a, b, c] = ["/a", "/b", "/c"].map(|path| server.url(path));
    folder.myapp(["download", "-j1", &a, "-", &c]).stdin(b).run().code(0);
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

// Names.

#[test]
fn names_are_made_safe() {
    for (path, name) in [
        ("/a%20b?c#d", "a b"),
        ("/", "index.html"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/..%5Cx", "x"),
        ("/%2Ftmp%2Fabs", "abs"),
        ("/a%00b%1Bc", "a_b_c"),
        ("/%E2%80%AEx", "_x"),
        ("/-rf", "_-rf"),
        ("/.bashrc", ".bashrc"),
        ("/CON", "CON"),
    ] {
        let (folder, server) = (Folder::new(), Server::start(|_| ok()));
        fetch(&folder, [&server.url(path)]).code(0);
        assert_eq!(folder.names(), [name], "{path}");
    }
}

#[test]
fn a_name_of_four_hundred_bytes_is_cut() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()));
    let long = server.url(&format!("/{}.tar", "x".repeat(396)));
    fetch(&folder, [&long, &long]).code(0);
    let lengths: Vec<_> = folder.names().iter().map(String::len).collect();
    assert_eq!(lengths, [245, 245]);
    assert!(folder.names().iter().any(|name| name.ends_with(".tar")));
    assert!(folder.names().iter().any(|name| name.ends_with(".tar.1")));
}

#[test]
fn twenty_urls_of_one_name_give_twenty_files() {
    let (folder, server) =
        (Folder::new(), Server::start(|request| Answer::body(request.path.as_bytes())));
    let urls: Vec<_> = (0..20).map(|number| server.url(&format!("/{number}/f"))).collect();
    let line = ["download", "-j8"].into_iter().chain(urls.iter().map(String::as_str));
    folder.myapp(line).run().code(0);
    let mut bodies: Vec<_> = folder.names().iter().map(|name| folder.read(name)).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20);
}

#[test]
fn whatever_has_the_name_keeps_it() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()));
    let target = folder.write("target", "mine");
    folder.write("file", "mine");
    fs::create_dir(folder.path("folder")).unwrap();
    symlink(&target, folder.path("link")).unwrap();
    symlink(&target, folder.path("f.part")).unwrap();
    for name in ["file", "folder", "link", "f"] {
        fetch(&folder, [&server.url(&format!("/{name}"))]).code(0).says(&format!("{name}.1: "));
        assert_eq!(folder.read(&format!("{name}.1")), b"good");
    }
    assert_eq!((folder.read("target"), folder.read("file")), (b"mine".to_vec(), b"mine".to_vec()));
}

#[test]
fn a_part_left_by_a_dead_run_is_started_over() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()));
    folder.write("f.part", "old and longer than the new one");
    fetch(&folder, [&server.url("/f")]).code(0);
    assert_eq!((folder.names(), folder.read("f")), (vec!["f".into()], b"good".to_vec()));
}

#[test]
fn two_programs_at_one_name_do_not_mix() {
    let body = seeded(3, LARGE);
    let slow = Answer::body(body.clone()).delayed(Duration::from_millis(300));
    let (folder, server) = (Folder::new(), Server::with([("/f", slow)]));
    let first = folder.myapp(["download", &server.url("/f")]).start();
    server.wait_for(1);
    fetch(&folder, [&server.url("/f")]).code(0);
    first.wait().code(0);
    assert_eq!(folder.names(), ["f", "f.1"]);
    assert!(folder.read("f") == body && folder.read("f.1") == body);
}

#[test]
fn a_file_appears_with_the_usual_permissions() {
    let (folder, ran) = fetch_f(ok(), &[]);
    ran.code(0);
    let plain = fs::metadata(folder.write("plain", "")).unwrap().permissions().mode();
    assert_eq!(fs::metadata(folder.path("f")).unwrap().permissions().mode(), plain);
}

// Folders, and where else the bytes may go.

#[test]
fn the_folder_is_made_if_it_is_missing() {
    for option in ["-d", "--dir", "--output-dir"] {
        let (folder, ran) = fetch_f(ok(), &[option, "a/b"]);
        ran.code(0);
        assert_eq!(folder.read("a/b/f"), b"good");
    }
}

#[test]
fn an_output_is_taken_as_typed() {
    for (path, file) in [("x y", "x y"), ("a/b/c", "a/b/c"), ("./z", "z")] {
        let (folder, ran) = fetch_f(ok(), &["-o", path]);
        ran.code(0);
        assert_eq!(folder.read(file), b"good");
    }
    let (folder, ran) = fetch_f(ok(), &["-d", "dir", "--output", "name"]);
    ran.code(0);
    assert_eq!(folder.read("dir/name"), b"good");
}

#[test]
fn an_output_that_is_there_is_kept_and_a_folder_refused() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()));
    folder.write("name", "mine");
    fetch(&folder, ["-o", "name", &server.url("/f")]).code(0).says("saved name.1");
    assert_eq!((folder.read("name"), folder.read("name.1")), (b"mine".to_vec(), b"good".to_vec()));
    let server = server.may_be_idle();
    fetch(&folder, ["-o", ".", &server.url("/f")]).code(3).says("hint: -d DIR");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_device_is_written_into() {
    let (folder, ran) = fetch_f(Answer::body(seeded(1, LARGE)), &["-o", "/dev/null"]);
    ran.code(0);
    assert!(folder.names().is_empty());
}

#[test]
fn stdout_gets_the_bytes_and_nothing_else() {
    let body = seeded(5, LARGE);
    let (folder, ran) = fetch_f(Answer::body(body.clone()), &["-o", "-"]);
    let ran = ran.code(0).silent();
    assert!(ran.stdout == body);
    assert!(folder.names().is_empty());
}

#[test]
fn stdout_gets_what_came_before_a_failure() {
    let (_, ran) = fetch_f(Answer::body("abcdef").cut_at(3), &["-o", "-"]);
    ran.code(4).prints("abc").says("cut short after 3");
}

#[test]
fn nobody_reading_stdout_ends_it_quietly() {
    let server = Server::with([("/f", Answer::body(seeded(1, LARGE)))]);
    let mut running = myapp(["download", "-o-", &server.url("/f")]).start();
    running.close_stdout();
    running.wait().code(141).silent();
}

#[test]
fn what_cannot_be_written_is_not_asked_for() {
    let server = Server::start(|_| ok()).may_be_idle();
    let folder = Folder::new();
    folder.write("file", "");
    for arguments in [["-d", "file/sub"], ["-d", "/proc/nowhere"], ["-o", "file/f"]] {
        fetch(&folder, [arguments[0], arguments[1], &server.url("/f")])
            .code(3)
            .says(&format!("create {}", arguments[1]));
    }
    assert!(server.requests().is_empty());
}

#[test]
#[ignore = "needs to mount a tmpfs"]
fn a_full_disk_is_told_before_the_body_where_its_length_is_known() {
    let folder = Folder::new();
    let mounted = folder.path("small");
    fs::create_dir(&mounted).unwrap();
    let mount = |line: &[&str]| {
        assert!(Command::new(line[0]).args(&line[1..]).arg(&mounted).status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
    let long = Answer::body(seeded(1, LARGE));
    for (answer, kept) in [(long.clone(), 0), (long.chunked(), 2)] {
        let server = Server::with([("/f", answer)]);
        let ran = fetch(&folder, ["-d", "small", &server.url("/f")]);
        let left = fs::read_dir(&mounted).unwrap().count();
        if ran.status.code() != Some(3) || left > kept {
            mount(&["umount"]);
            panic!("{left} files are left");
        }
        ran.says("No space left on device");
    }
    mount(&["umount"]);
}

// Redirects.

#[test]
fn a_redirect_is_followed_and_the_name_is_that_of_the_first_url() {
    for status in [301, 302, 303, 307, 308] {
        let answers = [("/f", Answer::redirect(status, "b/é?x=1")), ("/b/%C3%A9?x=1", ok())];
        let (folder, server) = (Folder::new(), Server::with(answers));
        fetch(&folder, [&server.url("/f")]).code(0);
        assert_eq!(folder.names(), ["f"]);
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn twenty_redirects_are_followed_and_no_more() {
    let hops = |count: usize| {
        let server = Server::start(move |request| match request.path[1..].parse::<usize>() {
            Ok(hop) if hop < count => Answer::redirect(302, format!("/{}", hop + 1)),
            _ => ok(),
        });
        fetch(&Folder::new(), [&server.url("/0")])
    };
    hops(20).code(0);
    hops(21).code(7).says("follow the redirect from http://127.0.0.1:").says("more than 20");
}

#[test]
fn a_redirect_that_leads_nowhere_or_astray_is_refused() {
    for (location, says) in [
        ("/f", "a loop, back to http://127.0.0.1:"),
        ("file:///etc/passwd", "it leads to file:///etc/passwd"),
        ("ftp://127.0.0.1/f", "it leads to ftp://127.0.0.1/f"),
        ("http://[", "no URL"),
    ] {
        fails(Answer::redirect(302, location), &[], 7, says);
    }
    fails(Answer::status(302), &[], 7, "does not say where it leads");
    fails(Answer::redirect(302, "/g"), &["--max-redirs", "0"], 7, "more than 0 redirects");
}

#[test]
fn credentials_do_not_go_to_another_origin() {
    let other = Server::with([("/g", ok())]);
    let place = other.url("/g").replace("http://", "http://user:secret@");
    let first =
        Server::with([("/f", Answer::redirect(302, "/e")), ("/e", Answer::redirect(302, place))]);
    let secrets = ["Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "Private-Token"];
    let headers = secrets.map(|name| format!("-H{name}: x"));
    let mut line: Vec<_> = headers.iter().map(String::as_str).collect();
    let url = first.url("/f");
    line.extend(["-HAccept-Language: eo", "-Ame", &url]);
    let folder = Folder::new();
    folder.myapp([&["download"], &line[..]].concat()).run().code(0);
    for request in first.requests() {
        assert!(secrets.iter().all(|name| request.field(name) == Some("x")), "{request:?}");
    }
    let [request] = &other.requests()[..] else { panic!("{:?}", other.requests()) };
    assert!(secrets.iter().all(|name| request.field(name).is_none()), "{request:?}");
    assert_eq!(request.field("Accept-Language"), Some("eo"));
    assert_eq!(request.field("User-Agent"), Some("me"));
}

#[test]
fn an_error_behind_a_redirect_says_who_answered() {
    let server = Server::with([("/f", Answer::redirect(302, "/g?secret"))]);
    let says = format!("download {}: {}?…: HTTP status 404", server.url("/f"), server.url("/g"));
    fetch(&Folder::new(), [&server.url("/f")]).code(8).says(&says);
}

// TLS.

#[test]
fn a_certificate_that_is_trusted_is_good_and_any_other_is_refused() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let body = seeded(4, LARGE);
    let answer = Answer::body(body.clone());
    let server = Server::start_tls(&certificate, move |_| answer.clone());
    let (folder, url) = (Folder::new(), server.url("/f"));
    folder.write("ca.pem", &certificate.pem);
    fetch(&folder, [&url]).code(5).says("the issuer of the certificate is unknown");
    fetch(&folder, ["--cacert", "ca.pem", &url]).code(0);
    assert!(folder.read("f") == body);
    folder.write("other.pem", &Certificate::of(&["127.0.0.1"]).pem);
    fetch(&folder, ["--cacert", "other.pem", &url]).code(5);
    fetch(&folder, ["--cacert", "missing.pem", &url]).code(3).says("missing.pem: No such file");
    assert_eq!(folder.names(), ["ca.pem", "f", "other.pem"]);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let certificate = Certificate::of(&["example.com"]);
    let server = Server::start_tls(&certificate, |_| ok()).may_be_idle();
    let folder = Folder::new();
    folder.write("ca.pem", &certificate.pem);
    fetch(&folder, ["--cacert", "ca.pem", &server.url("/f")]).code(5).says("example.com");
}

#[test]
fn a_redirect_out_of_tls_is_followed_only_where_that_is_allowed() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let plain = Server::with([("/g", ok())]);
    let (folder, place) = (Folder::new(), plain.url("/g"));
    folder.write("ca.pem", &certificate.pem);
    let server = Server::start_tls(&certificate, move |_| Answer::redirect(301, &place));
    let url = server.url("/f");
    fetch(&folder, ["--cacert", "ca.pem", &url])
        .code(7)
        .says(&format!("it leads from https to http, {}", plain.url("/g")))
        .says("hint: --allow-http-redirect");
    assert!(plain.requests().is_empty());
    fetch(&folder, ["--cacert", "ca.pem", "--allow-http-redirect", &url]).code(0);
    assert_eq!(folder.names(), ["ca.pem", "f"]);
}

// What servers say, and what the network does.

#[test]
fn the_page_of_an_error_is_never_saved() {
    for (status, code) in [(400, 8), (404, 8), (500, 8), (503, 8), (401, 6), (407, 6)] {
        fails(Answer::status(status), &[], code, &format!("HTTP status {status}"));
    }
    fails(Answer::status(206), &[], 7, "HTTP status 206 does not answer");
    fails(Answer::status(304), &[], 7, "HTTP status 304 does not answer");
}

#[test]
fn what_cannot_be_reached_is_named_with_its_cause() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = Folder::new();
    fetch(&folder, ["--retry", "0", &format!("http://{closed}/f")])
        .code(4)
        .says(&format!("connect to {closed}: Connection refused"));
    fetch(&folder, ["--retry=0", "http://no.such.host.invalid/f"])
        .code(4)
        .says("resolve no.such.host.invalid");
    assert!(folder.names().is_empty());
}

#[test]
fn a_host_is_where_it_is_said_to_be() {
    let (folder, server) = (Folder::new(), Server::with([("/f", ok())]));
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    let url = format!("http://no.such.host.invalid:{port}/f");
    let closed = format!("No.such.host.invalid:{port}:127.0.0.2");
    let open = format!("no.such.host.invalid:{port}:127.0.0.1");
    fetch(&folder, ["--resolve", &closed, "--resolve", &open, &url]).code(0);
    assert_eq!(server.requests()[0].field("Host"), url.split('/').nth(2));
    fetch(&folder, ["--retry=0", "--resolve", &open, "-6", &url])
        .code(4)
        .says("it has no IPv6 address");
    fetch(&folder, ["-4", &server.url("/f")]).code(0);
    fetch(&folder, ["--retry=0", "-4", "http://[::1]:1/f"])
        .code(4)
        .says("resolve [::1]: it has no IPv4");
    fetch(&folder, ["--resolve", "a:1", "u"]).code(2).says("not of the form HOST:PORT:IP");
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    for answer in [
        Answer::body(seeded(1, LARGE)).stalled_at(1 << 20),
        Answer::body(seeded(1, LARGE)).stalled_at(10),
        ok().delayed(Duration::from_secs(4)),
    ] {
        let start = Instant::now();
        breaks(answer, &["-T", "1"], 10, "not a byte for 1s");
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}

#[test]
fn a_server_that_drips_is_waited_for() {
    let drip = Answer::body(seeded(2, 30)).dripping(1, Duration::from_millis(50));
    let (folder, ran) = fetch_f(drip, &["-T", "1"]);
    ran.code(0);
    assert_eq!(folder.read("f"), seeded(2, 30));
}

// Usage.

#[test]
fn what_cannot_be_meant_is_a_usage_error_with_a_hint() {
    for (line, says) in [
        (&["-O", "u"][..], "hint: files are named after their URLs"),
        (&["-nc", "u"], "hint: --no-clobber"),
        (&["-C", "-", "u"], "hint: -c goes on"),
        (&[], "no URL"),
        (&["-o", "f", "a", "b"], "hint: -d DIR"),
        (&["-o", "f", "-"], "hint: -d DIR"),
        (&["-d", "a=b", "u"], "hint: make the folder first"),
        (&["-d", "@data", "u"], "hint: make the folder first"),
        (&["-j", "0", "u"], "--jobs"),
        (&["-T", "soon", "u"], "not a duration"),
        (&["-H", "no colon", "u"], "NAME: VALUE"),
        (&["-H", "A: b\r\nC: d", "u"], "control character"),
        (&["-H", "Range: bytes=0-1", "u"], "set by the program itself"),
        (&["-A", "a\nb", "u"], "User-Agent"),
        (&["ftp://127.0.0.1/f"], "ftp is not supported"),
        (
            &["http://user:secret%0A@127.0.0.1/f"],
            "download http://***@127.0.0.1/f: read the URL's user",
        ),
        (&["http://user:secret@127.0.0.1:x/"], "download http://***@127.0.0.1:x/: not a URL"),
    ] {
        let folder = Folder::new();
        let ran = folder.myapp([&["download"], line].concat()).run();
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
        ran.code(2).prints("").says(says);
        assert!(folder.names().is_empty(), "{line:?}");
    }
}

#[test]
fn what_fingers_type_for_curl_and_wget_is_understood() {
    let arguments =
        ["-L", "--location", "-f", "--fail", "-Z", "--remote-name-all", "--create-dirs", "-LfZ"];
    let (folder, ran) = fetch_f(ok(), &arguments);
    ran.code(0);
    assert_eq!(folder.names(), ["f"]);
}

// What is told.

#[test]
fn without_a_terminal_each_file_has_a_plain_line() {
    let (folder, server) = (Folder::new(), Server::start(|_| Answer::body(seeded(1, 5000))));
    let ran = fetch(&folder, [&server.url("/a"), &server.url("/b")]).code(0);
    assert!(!ran.stderr.contains(['\r', '\x1b']), "{:?}", ran.stderr);
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().filter(|line| line.starts_with("saved ")).count() == 2, "{lines:?}");
    assert!(lines[2].starts_with("2 of 2 files saved, 9.77 KiB in "), "{lines:?}");
}

#[test]
fn quiet_says_only_what_failed() {
    let (folder, server) = (Folder::new(), Server::with([("/a", ok())]));
    fetch(&folder, ["-q", &server.url("/a")]).code(0).silent();
    let missing = server.url("/missing");
    let ran = fetch(&folder, ["-q", &missing, &server.url("/a")]).code(8);
    assert_eq!(ran.stderr, format!("myapp: download {missing}: HTTP status 404\n"));
}

#[test]
fn names_from_strangers_cannot_write_to_the_terminal() {
    let server = Server::with([("/f", Answer::redirect(302, "x:\u{1b}]0;t\u{7}\u{9b}"))]);
    let ran = fetch(&Folder::new(), [&server.url("/f")]).code(7);
    assert!(!ran.stderr.contains(['\x1b', '\x07', '\u{9b}']), "{:?}", ran.stderr);
}

// Signals.

#[test]
fn a_signal_ends_it_soon_and_leaves_parts_to_go_on_with() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let stalled = |_: &_| Answer::body(seeded(1, LARGE)).stalled_at(HALF);
        let (folder, server) = (Folder::new(), Server::start(stalled));
        let urls = ["/a", "/b", "/c", "/d"].map(|path| server.url(path));
        let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
        running.write(urls.join("\n") + "\n");
        server.wait_for(4);
        // A part has its name at once, and bytes a little later.
        let has_bytes = |name| fs::metadata(folder.path(name)).is_ok_and(|data| data.len() > 0);
        while !["a.part", "b.part", "c.part", "d.part"].into_iter().all(has_bytes) {
            thread::sleep(Duration::from_millis(2));
        }
        running.signal(signal);
        let start = Instant::now();
        running.wait().code(code).says("interrupted: 0 of 4 files saved").says("4 not finished");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let parts = ["a", "b", "c", "d"].map(|f| [format!("{f}.part"), format!("{f}.part.json")]);
        assert_eq!(folder.names(), parts.concat());
    }
}

#[test]
fn while_a_file_comes_it_has_another_name() {
    let stalled = Answer::body(seeded(1, LARGE)).stalled_at(HALF);
    let (folder, server) = (Folder::new(), Server::with([("/f", stalled)]));
    let running = folder.myapp(["download", &server.url("/f")]).start();
    server.wait_for(1);
    assert_eq!(folder.names()[0], "f.part");
    assert!(!folder.path("f").exists());
    running.signal(Signal::INT);
    running.wait().code(130);
}

#[test]
fn a_signal_ends_it_while_it_waits_for_a_line() {
    let (folder, server) = (Folder::new(), Server::with([("/f", ok())]));
    let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
    running.write(server.url("/f") + "\n");
    server.wait_for(1);
    until(|| folder.names() == ["f"]);
    running.signal(Signal::INT);
    running.wait().code(130).says("interrupted: 1 of 1 files saved");
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never became so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// The library's face.

#[test]
fn what_is_told_adds_up_also_after_failures() {
    let (folder, server) = (
        Folder::new(),
        Server::with([
            ("/whole", Answer::body(seeded(1, LARGE))),
            ("/chunked", Answer::body(seeded(2, 1000)).chunked()),
            ("/cut", Answer::body(seeded(3, LARGE)).cut_at(HALF)),
        ]),
    );
    let told = Mutex::new(vec![Vec::new(); 4]);
    let observer = |number: u64, event: Event<'_>| {
        let step = match event {
            Event::Started { .. } => Told::Started,
            Event::Answered { length } => Told::Length(length),
            Event::Received { position } => Told::Position(position),
            Event::Saved(saved) => Told::Saved(saved.bytes),
            Event::Failed(_) => Told::Failed,
            other => panic!("{other:?}"),
        };
        told.lock().unwrap()[number as usize].push(step);
    };
    let config = Config { dir: folder.path("."), retries: 0, ..Config::default() };
    let urls = ["/whole", "/chunked", "/cut", "/missing"].map(|path| server.url(path));
    let list = stream::iter(urls).map(|url| Item::parse(&url));
    let downloader = Downloader::new(config).unwrap();
    let report = runtime::run(downloader.run(list, &observer, future::pending()));
    assert_eq!((report.saved, report.failed, report.stopped), (2, 2, 0));
    assert_eq!(report.bytes, LARGE as u64 + 1000);

    let told = told.into_inner().unwrap();
    for (steps, length, last) in [
        (&told[0], Some(LARGE as u64), Told::Saved(LARGE as u64)),
        (&told[1], None, Told::Saved(1000)),
        (&told[2], Some(LARGE as u64), Told::Failed),
    ] {
        assert_eq!(steps[..2], [Told::Started, Told::Length(length)]);
        assert_eq!(*steps.last().unwrap(), last);
        let positions = &steps[2..steps.len() - 1];
        assert!(positions.is_sorted(), "{positions:?}");
        assert!(positions.iter().all(|position| matches!(position, Told::Position(_))));
        assert!(*positions.last().unwrap() <= Told::Position(LARGE as u64));
    }
    assert_eq!(told[3], [Told::Started, Told::Failed]);
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Told {
    Started,
    Length(Option<u64>),
    Position(u64),
    Saved(u64),
    Failed,
}

#[test]
fn a_run_that_is_told_to_stop_at_once_fetches_nothing() {
    let (folder, server) = (Folder::new(), Server::start(|_| ok()).may_be_idle());
    let url = server.url("/f");
    let endless = stream::repeat_with(|| Item::parse(&url));
    let config = Config { dir: folder.path("."), ..Config::default() };
    let downloader = Downloader::new(config).unwrap();
    let (stopper, stopped) = stop();
    stopper.stop();
    let report = runtime::run(downloader.run(endless, &|_, _| {}, stopped.stopped()));
    assert_eq!((report.saved, report.failed), (0, 0));
    assert!(server.requests().is_empty() && folder.names().is_empty());
}

// Other programs' servers.

#[test]
#[ignore = "needs python3"]
fn a_file_comes_from_pythons_server() {
    let (folder, site) = (Folder::new(), Folder::new());
    let body = seeded(9, LARGE);
    let path = site.write("f", &body);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()])
        .current_dir(path.parent().unwrap_or(Path::new("/")))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ran = fetch(&folder, [&format!("http://127.0.0.1:{port}/f")]);
    server.kill().unwrap();
    server.wait().unwrap();
    ran.code(0);
    assert!(folder.read("f") == body);
}
