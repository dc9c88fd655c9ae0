//! Machine-readable output: `--json` and `--dry-run`.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::download::{LARGE, fetch};
use crate::harness::http::{Response, Server, seeded};
use crate::harness::{Folder, RunOutput, schema, until};

/// Returns the file lines of a run, sorted by URL, and its summary line.
#[track_caller]
fn lines(ran: &RunOutput) -> (Vec<Value>, Value) {
    let text = ran.text();
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| schema::json("download", line))
        .collect();
    let summary = lines.pop().expect("a line");
    assert_eq!(summary["event"], "summary");
    assert!(lines.iter().all(|line| line["event"] == "file"));
    lines.sort_by_key(|line| line["url"].to_string());
    (lines, summary)
}

#[test]
fn json_reports_each_file_and_a_summary() {
    let folder = Folder::new();
    let body = seeded(1, 5000);
    let whole = body.clone();
    let server = Server::start(move |request| match &request.path[..] {
        "/a" => Response::redirect(302, "/to?signature=secret"),
        "/to?signature=secret" | "/c?q=1" => Response::body(whole.clone()),
        _ => Response::status(404),
    });
    let [a, b, c] = ["/a", "/b", "/c?q=1"].map(|path| server.url(path));
    let url_with_login = a.replace("http://", "http://user:secret@");
    folder.write("c", "old");
    let ran = fetch(
        &folder,
        ["--json", "-q", &url_with_login, &b, &c, "http://"],
    )
    .code(8);
    assert!(!ran.text().contains("secret"), "{}", ran.text());
    let (files, summary) = lines(&ran);
    let [none, a_line, b_line, c_line] = &files[..] else {
        panic!("{files:?}")
    };

    assert_fields(
        a_line,
        json!({
            "result": "saved", "url": a, "final_url": server.url("/to?***"), "path": "a",
            "status": 200, "bytes": 5000, "total": 5000, "retries": 0, "resumed_from": 0,
            "code": 0, "error": null,
        }),
    );
    assert_fields(
        b_line,
        json!({"result": "failed", "status": 404, "code": 8, "error": "HTTP status 404"}),
    );
    assert_fields(c_line, json!({"url": c, "final_url": c, "path": "c.1"}));
    assert_fields(none, json!({"url": "http://", "code": 2}));
    assert_fields(
        &summary,
        json!({"saved": 2, "failed": 2, "bytes": 10_000, "code": 8}),
    );
}

/// Asserts that a line has these fields with these values.
#[track_caller]
fn assert_fields(line: &Value, expected: Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
}

#[test]
fn json_reports_retries_resume_offset_and_checksum() {
    let folder = Folder::new();
    let body = seeded(2, LARGE);
    let whole = body.clone();
    let server = Server::start(move |request| {
        let response = request.respond_with(&whole, "\"v\"");
        let part = whole.len() - request.range_start().unwrap_or(0);
        if part > whole.len() / 4 {
            response.truncated_at(whole.len() / 4)
        } else {
            response
        }
    });
    let url = server.url("/f");
    let cut = fetch(&folder, ["--json", "--retry", "0", &url]).code(4);
    let (files, _) = lines(&cut);
    assert_eq!(files[0]["result"], "failed");
    assert_eq!(files[0]["bytes"], (LARGE / 4) as u64);

    let sum = format!("blake3={}", blake3::hash(&body));
    let line = [
        "-c",
        "--json",
        "--retry-delay",
        "1ms",
        "--checksum",
        &sum,
        &url,
    ];
    let (files, _) = lines(&fetch(&folder, line).code(0));
    assert_eq!(files[0]["result"], "saved");
    assert_eq!(files[0]["resumed_from"], (LARGE / 4) as u64);
    assert_eq!(
        (&files[0]["retries"], &files[0]["status"]),
        (&3.into(), &206.into())
    );
    let digits = &sum["blake3=".len()..];
    assert_eq!(files[0]["checksum"]["hex"], digits);
    assert_eq!(files[0]["checksum"]["algorithm"], "blake3");

    let (files, summary) = lines(&fetch(&folder, ["-c", "--json", &url]).code(0));
    assert_eq!(
        (&files[0]["result"], &summary["skipped"]),
        (&"skipped".into(), &1.into())
    );
}

#[test]
fn json_reports_cancelled_files() {
    let folder = Folder::new();
    let server =
        Server::with_paths([("/f", Response::body(seeded(3, LARGE)).stalled_at(LARGE / 2))]);
    let running = folder
        .myapp(["download", "--json", &server.url("/f")])
        .start();
    server.wait_for(1);
    until(|| folder.path("f.part.json").exists());
    running.signal(Signal::INT);
    let (files, summary) = lines(&running.wait().code(130));
    assert_eq!(
        (&files[0]["result"], &files[0]["code"]),
        (&"cancelled".into(), &130.into())
    );
    assert_eq!(
        (&summary["cancelled"], &summary["code"]),
        (&1.into(), &130.into())
    );
}

#[test]
fn closed_json_pipe_ends_the_run_quietly() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::body("x"));
    let list: String = (0..10_000)
        .map(|number| server.url(&format!("/{number}\n")))
        .collect();
    let mut running = folder
        .myapp(["download", "--json", "-q", "-"])
        .stdin(list)
        .start();
    schema::json("download", &running.line());
    running.close_stdout();
    running.wait().code(141).silent();
    assert!(folder.names().len() < 10_000);
}

#[test]
fn dry_run_prints_paths_and_creates_nothing() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    folder.write("d/a", "old");
    folder.write(
        "list",
        "http://127.0.0.1:1/b\n out=x/y\nhttp://127.0.0.1:1/c\n dir=z\n",
    );
    let line = [
        "download",
        "--dry-run",
        "-dd",
        "-ilist",
        "http://u:p@127.0.0.1:1/a",
        "127.0.0.1:1/a?q",
    ];
    folder.myapp(line).run().code(0).silent().prints(
        "http://127.0.0.1:1/a -> d/a.1\nhttps://127.0.0.1:1/a?… -> d/a.2\n\
         http://127.0.0.1:1/b -> d/x/y\nhttp://127.0.0.1:1/c -> d/z/c\n",
    );
    assert_eq!(folder.names(), ["d", "list"]);
    assert_eq!(fs::read_dir(folder.path("d")).unwrap().count(), 1);

    let dry = |flags: &[&str]| {
        let line = [
            &["download", "--dry-run", "-dd", "http://127.0.0.1:1/a"],
            flags,
        ]
        .concat();
        folder.myapp(line).run()
    };
    dry(&["--overwrite"])
        .code(0)
        .prints("http://127.0.0.1:1/a -> d/a\n");
    dry(&["--no-clobber"])
        .code(0)
        .prints("http://127.0.0.1:1/a -> d/a (exists)\n");
    dry(&["-o", "-"])
        .code(0)
        .prints("http://127.0.0.1:1/a -> stdout\n");
    dry(&["ftp://x"]).code(2).says("ftp is not supported");
    dry(&["--json"]).code(2).says("cannot be used with");
}
