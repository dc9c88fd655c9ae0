//! Existing files: kept, skipped or replaced; attributes and names of new files.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::http::{Response, Server, seeded};
use crate::harness::{Folder, RunOutput};

#[track_caller]
fn fetch(folder: &Folder, arguments: &[&str]) -> RunOutput {
    folder
        .myapp([&["download", "--retry=0"], arguments].concat())
        .run()
        .prints("")
}

/// Returns a folder with an old `f`, and a server with a new one.
fn old_and_new() -> (Folder, Server) {
    let folder = Folder::new();
    folder.write("f", "old");
    (
        folder,
        Server::with_paths([
            ("/f", Response::body("new")),
            ("/cut", Response::body("new").truncated_at(1)),
        ]),
    )
}

#[test]
fn existing_file_is_skipped_on_request() {
    for option in ["--no-clobber", "--skip-existing"] {
        let (folder, server) = old_and_new();
        let server = server.may_be_idle();
        fetch(&folder, &[option, &server.url("/f")])
            .code(0)
            .says("kept f: already complete");
        assert_eq!(
            (folder.names(), folder.read("f")),
            (vec!["f".into()], b"old".to_vec())
        );
        assert!(server.requests().is_empty());
    }
}

#[test]
fn urls_with_the_same_name_get_separate_files() {
    for option in ["--no-clobber", "-c", "--overwrite"] {
        let folder = Folder::new();
        let server = Server::start(|request| Response::body(request.path.as_bytes()));
        fetch(
            &folder,
            &["-j1", option, &server.url("/1/f"), &server.url("/2/f")],
        )
        .code(0);
        assert_eq!(folder.names(), ["f", "f.1"], "{option}");
    }
}

#[test]
fn overwrite_is_atomic() {
    let (folder, server) = old_and_new();
    fetch(&folder, &["--overwrite", "-o", "f", &server.url("/cut")]).code(4);
    assert_eq!(folder.read("f"), b"old");
    fetch(&folder, &["--no-clobber", "--overwrite", &server.url("/f")]).code(0);
    assert_eq!(
        (folder.names(), folder.read("f")),
        (vec!["f".into()], b"new".to_vec())
    );
}

#[test]
fn symlink_targets_are_never_modified() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", Response::body("new"))]);
    let target = folder.write("target", "mine");
    symlink(&target, folder.path("f")).unwrap();
    symlink(&target, folder.path("f.part.json")).unwrap();
    symlink(&target, folder.path("f.part.new")).unwrap();
    fetch(&folder, &["--overwrite", &server.url("/f")]).code(0);
    assert_eq!(
        (folder.read("f"), folder.read("target")),
        (b"new".to_vec(), b"mine".to_vec())
    );
    symlink(&target, folder.path("f.part")).unwrap();
    fetch(&folder, &["--overwrite", &server.url("/f")])
        .code(0)
        .says("saved f:");
    assert_eq!(folder.read("target"), b"mine");
}

#[test]
fn directory_is_never_replaced() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::body("new")).may_be_idle();
    fs::create_dir(folder.path("f")).unwrap();
    fetch(&folder, &["--overwrite", &server.url("/f")])
        .code(3)
        .says("replace f: ");
    assert!(server.requests().is_empty());
}

#[test]
fn remote_time_sets_the_modification_time() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let folder = Folder::new();
    let server = Server::start(move |_| Response::body("new").header("Last-Modified", date));
    fetch(&folder, &["--remote-time", "--fsync", &server.url("/f")]).code(0);
    let modified = fs::metadata(folder.path("f")).unwrap().modified().unwrap();
    assert_eq!(modified, UNIX_EPOCH + Duration::from_secs(784_111_777));
    fetch(&folder, &[&server.url("/g")]).code(0);
    assert_ne!(
        fs::metadata(folder.path("g")).unwrap().modified().unwrap(),
        modified
    );
}

#[test]
fn max_filesize_is_enforced_for_every_framing() {
    let body = seeded(1, 2 << 20);
    let server = Server::with_paths([
        ("/length", Response::body(body.clone()).stalled_at(0)),
        ("/chunked", Response::body(body.clone()).chunked()),
        ("/close", Response::body(body.clone()).close_delimited()),
        ("/just", Response::body(&body[..1 << 20])),
        ("/just-chunked", Response::body(&body[..1 << 20]).chunked()),
    ]);
    for (path, kept) in [("/length", 0), ("/chunked", 1), ("/close", 1)] {
        let folder = Folder::new();
        fetch(&folder, &["--max-filesize", "1M", &server.url(path)])
            .code(11)
            .says("longer than 1048576 bytes");
        assert!(!folder.path(&path[1..]).exists());
        let part = fs::metadata(folder.path(&format!("{}.part", &path[1..])));
        assert_eq!(
            part.map_or(0, |data| data.len()),
            kept * ((1 << 20) + 1),
            "{path}"
        );
    }
    for path in ["/just", "/just-chunked"] {
        let folder = Folder::new();
        fetch(&folder, &["--max-filesize", "1M", &server.url(path)]).code(0);
        assert!(folder.read(&path[1..]) == body[..1 << 20]);
    }
}

#[test]
fn timestamping_downloads_only_changed_files() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for with in [("ETag", "\"a\""), ("Last-Modified", date)] {
        let requests = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            let condition = request
                .field("If-None-Match")
                .or(request.field("If-Modified-Since"));
            let number = requests.fetch_add(1, SeqCst);
            match (number, condition) {
                (0, None) => Response::body("old").header(with.0, with.1),
                (1, Some(condition)) => {
                    assert_eq!(condition, with.1);
                    Response::empty(304)
                }
                // Some servers ignore the condition.
                (2, Some(_)) => Response::body("old").header(with.0, with.1),
                _ => Response::body("newer").header("ETag", "\"b\""),
            }
        });
        let folder = Folder::new();
        for (said, body) in [
            ("saved f", "old"),
            ("kept f", "old"),
            ("kept f", "old"),
            ("saved f", "newer"),
        ] {
            fetch(&folder, &["-N", &server.url("/f")])
                .code(0)
                .says(said);
            assert_eq!(
                (folder.names(), folder.read("f")),
                (vec!["f".into()], body.into())
            );
        }
    }
}

#[test]
fn timestamping_reads_the_three_forms_of_dates() {
    for date in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        let server = Server::start(move |_| Response::body("x").header("Last-Modified", date));
        let folder = Folder::new();
        fetch(&folder, &["-N", &server.url("/f")])
            .code(0)
            .says("saved f");
        let modified = fs::metadata(folder.path("f")).unwrap().modified().unwrap();
        let since = modified.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 784_111_777, "{date}");
        // The server ignores the condition.
        fetch(&folder, &["-N", &server.url("/f")])
            .code(0)
            .says("kept f");
    }
}

// Names from Content-Disposition.

#[test]
fn content_disposition_name_is_sanitized() {
    for (said, name) in [
        ("filename=\"../../etc/passwd\"", "passwd"),
        (r"filename=..\\x", "x"),
        ("filename=/abs", "abs"),
        (r#"filename="C:\x""#, "x"),
        ("filename=.", "f"),
        ("filename*=UTF-8''a%00b%1B%E2%80%AEc", "a_b__c"),
        ("filename=CON", "_CON"),
        ("filename=.bashrc", "_.bashrc"),
        ("filename=-rf", "_-rf"),
        ("filename=x; filename*=UTF-8''%E2%82%AC.txt", "€.txt"),
    ] {
        let said = format!("attachment; {said}");
        let server =
            Server::start(move |_| Response::body("x").header("Content-Disposition", &said));
        let folder = Folder::new();
        fetch(&folder, &["-J", &server.url("/f")]).code(0);
        assert_eq!(folder.names(), [name]);
        // The name is ignored without -J and with -o.
        fetch(&folder, &["-d", "d", &server.url("/f")]).code(0);
        fetch(&folder, &["-J", "-o", "o", &server.url("/f")]).code(0);
        assert!(folder.path("d/f").exists() && folder.path("o").exists());
    }
}

/// Starts a server that redirects `/f` to `path`, with this `Content-Disposition`, and describes
/// the file at `path` with the other one.
fn redirecting_server(path: &'static str, hop: &'static str, last: &'static str) -> Server {
    let named = |response: Response, disposition: &str| match disposition {
        "" => response,
        _ => response.header("Content-Disposition", disposition),
    };
    Server::start(move |request| match request.path.as_str() {
        "/f" => named(Response::empty(302).header("Location", path), hop),
        _ => named(Response::body("x"), last),
    })
}

#[test]
fn names_of_redirects_are_used_on_request() {
    for (path, hop, last, names) in [
        ("/to/g?h", "", "", ["f", "g", "g"]),
        ("/g", "filename=hop", "", ["f", "g", "hop"]),
        (
            "/g",
            "inline; filename=hop",
            "filename=last",
            ["f", "g", "last"],
        ),
        (
            "/g",
            "attachment",
            "attachment; filename=..",
            ["f", "g", "g"],
        ),
        ("/%2e%2e%2fpasswd", "", "", ["f", "passwd", "passwd"]),
        ("/.bashrc", "", "", ["f", "_.bashrc", "_.bashrc"]),
        ("/CON", "", "", ["f", "_CON", "_CON"]),
        ("/x/", "", "", ["f", "f", "f"]),
    ] {
        let server = redirecting_server(path, hop, last);
        let options = [&[][..], &["--trust-server-names"], &["-J"]];
        for (options, name) in options.into_iter().zip(names) {
            let folder = Folder::new();
            let url = server.url("/f");
            fetch(&folder, &[options, &[&url]].concat()).code(0);
            assert_eq!(folder.names(), [name], "{path} {hop} {last} {options:?}");
        }
    }
}

#[test]
fn name_of_the_final_url_resumes_and_is_kept() {
    let folder = Folder::new();
    let body = seeded(1, 300_000);
    let requests = AtomicUsize::new(0);
    let sent = body.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/f" => Response::empty(302).header("Location", "/g.pdf"),
        _ if requests.fetch_add(1, SeqCst) == 0 => {
            request.respond_with(&sent, "\"a\"").truncated_at(100_000)
        }
        _ => request.respond_with(&sent, "\"a\""),
    });
    let run = || {
        fetch(
            &folder,
            &["-c", "--retry=0", "--trust-server-names", &server.url("/f")],
        )
    };
    run().code(4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    run().code(0).says("saved g.pdf");
    run().code(0).says("kept g.pdf: already complete");
    assert!(folder.names() == ["g.pdf"] && folder.read("g.pdf") == body);
}

#[test]
fn encoded_words_in_names_are_decoded() {
    for (disposition, name) in [
        ("filename=\"=?UTF-8?B?4oKsLnR4dA==?=\"", "€.txt"),
        ("attachment; filename==?utf-8?Q?=2E=2E/=2Fa=1Bb?=", "a_b"),
        ("attachment; filename=\"=?gb2312?B?1tA=?=\"", "f2"),
    ] {
        let server = redirecting_server("/f2", "", disposition);
        let folder = Folder::new();
        fetch(&folder, &["-J", &server.url("/f2")]).code(0);
        assert_eq!(folder.names(), [name]);
    }
}

#[test]
fn content_disposition_name_is_shortened_and_numbered() {
    let said = format!("attachment; filename={}.txt", "x".repeat(400));
    let server = Server::start(move |_| Response::body("x").header("Content-Disposition", &said));
    let folder = Folder::new();
    fetch(&folder, &["-J", &server.url("/f"), &server.url("/f")]).code(0);
    let lengths: Vec<_> = folder.names().iter().map(String::len).collect();
    assert_eq!(lengths, [245, 245]);
}

/// Starts a server that names each file after its path, and truncates its first response.
fn naming_server() -> Server {
    let requests = AtomicUsize::new(0);
    Server::start(move |request| {
        let name = request.path[1..].replace("/f", ".pdf");
        let body = seeded(name.len() as u64, 300_000);
        let response = request.respond_with(&body, "\"a\"");
        let response = response.header(
            "Content-Disposition",
            &format!("attachment; filename={name}"),
        );
        match requests.fetch_add(1, SeqCst) {
            0 => response.truncated_at(100_000),
            _ => response,
        }
    })
}

#[test]
fn content_disposition_download_resumes_and_is_kept() {
    let folder = Folder::new();
    let server = naming_server();
    let urls = ["/1/f", "/22/f"].map(|path| server.url(path));
    let run = || fetch(&folder, &["-J", "-c", "-j1", &urls[0], &urls[1]]);
    run().code(4);
    assert_eq!(folder.names(), ["22.pdf", "f.part", "f.part.json"]);
    run()
        .code(0)
        .says("saved 1.pdf")
        .says("kept 22.pdf: already complete");
    assert_eq!(server.requests()[2].range_start(), Some(100_000));
    run()
        .code(0)
        .says("kept 1.pdf")
        .says("kept 22.pdf")
        .says("0 of 2 files saved");
    assert_eq!(folder.names(), ["1.pdf", "22.pdf"]);
    assert!(
        folder.read("1.pdf") == seeded(5, 300_000) && folder.read("22.pdf") == seeded(6, 300_000)
    );
    // A different file of that name is kept, and so is any file without -c.
    folder.write("1.pdf", "mine");
    run().code(0).says("saved 1.pdf.1");
    assert_eq!(folder.read("1.pdf"), b"mine");
    fetch(&folder, &["-J", &urls[1]])
        .code(0)
        .says("saved 22.pdf.1");
}
