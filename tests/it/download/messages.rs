//! Usage errors, status lines, and progress events of the library.

use std::sync::Mutex;

use futures_lite::{StreamExt as _, future, stream};
use myapp::download::{Config, Downloader, Event, Item, OutputPolicy, RetryPolicy};
use myapp::runtime;
use rustix::process::Signal;

use super::compressed::gzip;
use super::*;

#[test]
fn invalid_arguments_are_usage_errors_with_hints() {
    for (line, says) in [
        (&["-O", "u"][..], "hint: files are named after their URLs"),
        (&["-nc", "u"], "hint: use --no-clobber"),
        (&["-C", "-", "u"], "hint: use -c to resume"),
        (&[], "no URL"),
        (&["-o", "f", "a", "b"], "hint: use -d DIR"),
        (&["-o", "f", "-"], "hint: use -d DIR"),
        (&["-d", "a=b", "u"], "hint: create the directory first"),
        (&["-d", "@data", "u"], "hint: create the directory first"),
        (&["-j", "0", "u"], "--jobs"),
        (&["-T", "soon", "u"], "not a duration"),
        (&["-H", "no colon", "u"], "NAME: VALUE"),
        (&["-H", "A: b\r\nC: d", "u"], "control character"),
        (
            &["-H", "Range: bytes=0-1", "u"],
            "set by the program itself",
        ),
        (&["-A", "a\nb", "u"], "User-Agent"),
        (&["ftp://127.0.0.1/f"], "ftp is not supported"),
        (
            &["http://user:secret%0A@127.0.0.1/f"],
            "download http://***@127.0.0.1/f: parse user name and password of the URL",
        ),
        (
            &["http://user:secret@127.0.0.1:x/"],
            "download http://***@127.0.0.1:x/: not a URL",
        ),
    ] {
        let folder = Folder::new();
        let ran = folder.myapp([&["download"], line].concat()).run();
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
        ran.code(2).prints("").says(says);
        assert!(folder.names().is_empty(), "{line:?}");
    }
}

#[test]
fn habitual_curl_and_wget_options_are_accepted() {
    let arguments = [
        "-L",
        "--location",
        "-f",
        "--fail",
        "-Z",
        "--remote-name-all",
        "--create-dirs",
        "-LfZ",
    ];
    let (folder, ran) = fetch_f(ok(), &arguments);
    ran.code(0);
    assert_eq!(folder.names(), ["f"]);
}

#[test]
fn stderr_without_terminal_has_one_line_per_file() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::body(seeded(1, 5000)));
    let ran = fetch(&folder, [&server.url("/a"), &server.url("/b")]).code(0);
    assert!(!ran.stderr.contains(['\r', '\x1b']), "{:?}", ran.stderr);
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines
            .iter()
            .filter(|line| line.starts_with("saved "))
            .count()
            == 2,
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("2 of 2 files saved, 9.77 KiB in "),
        "{lines:?}"
    );
}

#[test]
fn quiet_prints_only_failures() {
    let folder = Folder::new();
    let server = Server::with_paths([("/a", ok())]);
    fetch(&folder, ["-q", &server.url("/a")]).code(0).silent();
    let missing = server.url("/missing");
    let ran = fetch(&folder, ["-q", &missing, &server.url("/a")]).code(8);
    assert_eq!(
        ran.stderr,
        format!("myapp: download {missing}: HTTP status 404\n")
    );
}

#[test]
fn control_characters_of_servers_are_escaped() {
    let server = Server::with_paths([("/f", Response::redirect(302, "x:\u{1b}]0;t\u{7}\u{9b}"))]);
    let ran = fetch(&Folder::new(), [&server.url("/f")]).code(7);
    assert!(
        !ran.stderr.contains(['\x1b', '\x07', '\u{9b}']),
        "{:?}",
        ran.stderr
    );
}

#[test]
fn queries_of_urls_are_hidden() {
    let folder = Folder::new();
    let server = Server::with_paths([
        ("/f?secret", Response::body("f")),
        (
            "/r?secret",
            Response::redirect(302, "ftp://a/?secret#secret"),
        ),
        ("/l?secret", Response::redirect(302, "http://[/?secret")),
    ]);
    let [f, r, l, missing] =
        ["/f", "/r", "/l", "/missing"].map(|path| server.url(path) + "?secret#secret");
    let checksums = server.url("/f?secret");
    let bad = "http://127.0.0.1:x/?secret#secret";
    let urls = [&f, &r, &l, &missing, bad, "http://127.0.0.1:1/#secret"];
    for arguments in [
        &[][..],
        &["-vv"],
        &["--dry-run"],
        &["-o-", "-j1"],
        &["--checksums", &checksums],
    ] {
        let urls = if arguments.contains(&"-o-") {
            &urls[3..4]
        } else {
            &urls[..]
        };
        let line = [&["download", "--retry", "0"], arguments, urls].concat();
        let ran = folder.myapp(line).env("MYAPP_LOG", "trace").run();
        for output in [&ran.text(), &ran.stderr] {
            assert!(!output.contains("secret"), "{arguments:?}: {output}");
        }
        if arguments.is_empty() {
            ran.says(&format!("download {}?…", server.url("/missing")))
                .says(&format!("  {}?…: HTTP status 404", server.url("/missing")));
        } else if arguments == ["--dry-run"] {
            let planned = format!("{}?… -> missing\n", server.url("/missing"));
            assert!(ran.text().contains(&planned), "{}", ran.text());
        }
    }
    // Machines need the complete URL.
    let line = ["download", "--json", "--retry", "0", &missing];
    let ran = folder.myapp(line).run();
    assert!(
        ran.text().contains("/missing?secret#secret"),
        "{}",
        ran.text()
    );
}

#[test]
fn events_are_consistent_after_failures() {
    let folder = Folder::new();
    let server = Server::with_paths([
        ("/whole", Response::body(seeded(1, LARGE))),
        ("/chunked", Response::body(seeded(2, 1000)).chunked()),
        ("/cut", Response::body(seeded(3, LARGE)).truncated_at(HALF)),
    ]);
    let steps_by_file = Mutex::new(vec![Vec::new(); 4]);
    let observer = |number: u64, event: Event<'_>| {
        let step = match event {
            Event::Started { .. } => Step::Started,
            Event::ResponseReceived { .. } => return,
            Event::BodyStarted { total, .. } => Step::Length(total),
            Event::Progress { downloaded } => Step::Position(downloaded),
            Event::Saved(saved) => Step::Saved(saved.bytes),
            Event::Failed(_) => Step::Failed,
            other => panic!("{other:?}"),
        };
        steps_by_file.lock().unwrap()[number as usize].push(step);
    };
    let config = Config {
        output: OutputPolicy {
            dir: folder.path("."),
            ..OutputPolicy::default()
        },
        retry: RetryPolicy {
            max_retries: 0,
            ..RetryPolicy::default()
        },
        ..Config::default()
    };
    let urls = ["/whole", "/chunked", "/cut", "/missing"].map(|path| server.url(path));
    let list = stream::iter(urls).map(|url| Item::parse(&url));
    let downloader = Downloader::new(config).unwrap();
    let report = runtime::block_on(downloader.run(list, &observer, future::pending()));
    assert_eq!((report.saved, report.failed, report.cancelled), (2, 2, 0));
    assert_eq!(report.bytes, LARGE as u64 + 1000);

    let steps_by_file = steps_by_file.into_inner().unwrap();
    for (steps, length, last) in [
        (
            &steps_by_file[0],
            Some(LARGE as u64),
            Step::Saved(LARGE as u64),
        ),
        (&steps_by_file[1], None, Step::Saved(1000)),
        (&steps_by_file[2], Some(LARGE as u64), Step::Failed),
    ] {
        assert_steps(steps, length, &last);
    }
    assert_eq!(steps_by_file[3], [Step::Started, Step::Failed]);
}

#[track_caller]
fn assert_steps(steps: &[Step], length: Option<u64>, last: &Step) {
    assert_eq!(steps[..2], [Step::Started, Step::Length(length)]);
    assert_eq!(steps.last(), Some(last));
    let positions = &steps[2..steps.len() - 1];
    assert!(positions.is_sorted(), "{positions:?}");
    let is_position = |step: &Step| matches!(step, Step::Position(_));
    assert!(positions.iter().all(is_position), "{positions:?}");
    assert!(*positions.last().unwrap() <= Step::Position(LARGE as u64));
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Step {
    Started,
    Length(Option<u64>),
    Position(u64),
    Saved(u64),
    Failed,
}

#[test]
fn local_file_and_job_count_are_no_urls() {
    let folder = Folder::new();
    folder.write("urls.txt", "http://127.0.0.1:1/f\n");
    fetch(&folder, ["urls.txt"])
        .code(2)
        .says("myapp: urls.txt is a file, not a URL\n")
        .says("hint: -i urls.txt reads URLs from it; https://urls.txt is a URL\n");
    for option in ["--parallel", "-Z"] {
        fetch(&folder, [option, "5", "http://127.0.0.1:1/f"])
            .code(2)
            .says("hint: use -j 5 for concurrent files\n");
    }
    fetch(&folder, ["--dry-run", "--parallel", "http://127.0.0.1:1/f"])
        .code(0)
        .prints("http://127.0.0.1:1/f -> f\n");
}

#[test]
fn failed_url_with_a_pattern_gets_a_hint() {
    let server = Server::with_paths([("/[1-3]", ok())]);
    let hint = "hint: patterns in URLs are not expanded";
    let folder = Folder::new();
    fetch(&folder, [&server.url("/f[1-3]")]).code(8).says(hint);
    fetch(&folder, [&server.url("/{a,b}")]).code(8).says(hint);
    fetch(&folder, ["http://127.0.0.[1-3]/f"])
        .code(2)
        .says(hint);
    // Such a name can exist.
    let ran = fetch(&folder, [&server.url("/[1-3]")]).code(0);
    assert!(!ran.stderr.contains("hint"), "{}", ran.stderr);
    assert_eq!(folder.read("[1-3]"), b"good");
}

#[test]
fn checksum_is_accepted_in_every_usual_form() {
    let sha256 = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c";
    let sha1 = "f5ade31f7e2a53f5cbf7a5a0a4f2bd4d1ad6e9c9";
    let md5 = "755f85c2723bb39381c7379a604160d8";
    for (checksum, code) in [
        (sha256.to_owned(), 0),
        (format!("sha256:{sha256}"), 0),
        (md5.to_owned(), 0),
        (sha1.to_owned(), 9),
    ] {
        let (_, ran) = fetch_f(ok(), &["--checksum", &checksum]);
        ran.code(code);
    }
    fetch(
        &Folder::new(),
        ["--checksum", &sha256[1..], "http://127.0.0.1:1/f"],
    )
    .code(2)
    .says("a digest of 32, 40, 64 or 128 hexadecimal digits");
}

#[test]
fn tilde_in_an_option_value_is_the_home_directory() {
    let folder = Folder::new();
    let url = "http://127.0.0.1:1/f";
    for (option, path) in [("--dir=~/x", "x/f"), ("--output=~/x", "x")] {
        let program = folder.myapp(["download", "--dry-run", option, url]);
        let ran = program.env("HOME", "/home/me").run();
        ran.code(0).prints(format!("{url} -> /home/me/{path}\n"));
    }
    for option in [
        "--input-file",
        "--checksums",
        "--netrc-file",
        "--load-cookies",
        "--save-cookies",
        "--cookie",
        "--cacert",
        "--cert",
        "--log-file",
    ] {
        // The address is one of this machine, on which no server can listen.
        let line = [
            "download",
            &format!("{option}=~/x/y"),
            "https://127.0.0.1:1/f",
        ];
        let program = folder.myapp(line).env("HOME", "/no/home");
        program.run().code(3).says("/no/home/x/y");
    }
}

#[test]
fn resume_is_suggested_only_for_partial_files() {
    let folder = Folder::new();
    let ok_server = Server::start(|_| ok());
    let server = Server::start(|_| ok().delayed(Duration::from_secs(60))).may_be_idle();
    let running = folder.myapp(["download", &server.url("/f")]).start();
    server.wait_for(1);
    running.signal(Signal::INT);
    let ran = running.wait().code(130).says("1 not finished");
    assert!(!ran.stderr.contains("hint"), "{}", ran.stderr);
    // Neither a decoded body nor a stream can be continued.
    let stalled = Response::body(gzip(&seeded(1, LARGE))).stalled_at(HALF);
    let stalled = stalled.header("Content-Encoding", "gzip");
    for option in ["--compressed", "-o/dev/null"] {
        let sent = stalled.clone();
        let server = Server::start(move |_| sent.clone());
        let running = folder
            .myapp(["download", option, &server.url("/f")])
            .start();
        until(|| server.sent() >= HALF);
        running.signal(Signal::INT);
        let ran = running.wait().code(130).says("1 not finished");
        assert!(!ran.stderr.contains("hint"), "{}", ran.stderr);
    }
    let ran = fetch(
        &folder,
        ["-o-", "--checksum", &"0".repeat(64), &ok_server.url("/f")],
    );
    let ran = ran.code(9);
    assert!(!ran.stderr.contains("hint"), "{}", ran.stderr);
}

#[test]
fn colors_follow_the_terminal_the_option_and_no_color() {
    let server = Server::with_paths([("/f", ok()), ("/401", Response::empty(401))]);
    let urls = format!("{} {}", server.url("/f"), server.url("/401"));
    let colored = [
        "\x1b[32msaved\x1b[0m f",
        "\x1b[1;31mmyapp:\x1b[0m download",
        "\x1b[36mhint:\x1b[0m -u USER",
        "\x1b[1m1 of 2 files saved",
    ];
    for (environment, option, has_colors) in [
        ("TERM=xterm", "", true),
        ("TERM=xterm NO_COLOR=1", "", false),
        ("TERM=xterm NO_COLOR=1", "--color always", true),
        ("TERM=xterm", "--color never", false),
        ("TERM=dumb", "", false),
    ] {
        let folder = Folder::new();
        let program = env!("CARGO_BIN_EXE_myapp");
        let line = format!("{environment} {program} download {option} {urls}");
        let mut script = std::process::Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .current_dir(folder.path(""));
        let output = script.env_remove("NO_COLOR").output().expect("run script");
        let text = String::from_utf8_lossy(&output.stdout);
        for part in colored {
            assert_eq!(text.contains(part), has_colors, "{line}: {part}: {text}");
        }
        assert!(text.contains("saved"), "{line}: {text}");
    }
}

#[test]
fn rows_fit_a_small_terminal() {
    let stalled = Response::body(seeded(1, LARGE)).stalled_at(HALF);
    let server = Server::start(move |_| stalled.clone());
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_myapp");
    let name = "%F0%9F%91%A8%E2%80%8D%F0%9F%91%A9-family.iso";
    let urls: Vec<_> = (0..9).map(|n| server.url(&format!("/{n}{name}"))).collect();
    let line = format!(
        "stty rows 5 cols 40; {program} download -j 9 -T 1 --retry 0 {}",
        urls.join(" ")
    );
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm");
    let output = script
        .current_dir(folder.path(""))
        .output()
        .expect("run script");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("and 6 more"), "{text}");
    assert!(text.contains("0/9 files, "), "{text}");
    assert!(text.contains("0\u{1f468}\\u{200d}"), "{text}");
    assert!(!text.contains('\u{200d}'), "{text}");
}
