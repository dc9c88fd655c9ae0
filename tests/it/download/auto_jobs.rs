//! `-j auto`: the number of concurrent files follows the server.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::Folder;
use crate::harness::http::{Response, Server, seeded};

/// Downloads so many files of 100 kB with `-j auto`, and returns the summary of the run.
fn fetch(server: &Server, files: usize, line: &[&str]) -> Value {
    let folder = Folder::new();
    let urls: Vec<_> = (0..files)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let common = ["download", "-d", "out", "-j", "auto", "--json", "-"];
    let ran = folder
        .myapp([&common, line].concat())
        .stdin(urls.join("\n"))
        .run()
        .code(0);
    for number in 0..files {
        let name = format!("out/{number}");
        assert!(folder.read(&name) == seeded(1, 100_000), "{name}");
    }
    let text = ran.text();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn slow_responses_raise_the_concurrency() {
    let body = seeded(1, 100_000);
    let delay = Duration::from_millis(50);
    let server = Server::start(move |_| Response::body(&body[..]).delayed(delay));
    // With four at a time, this takes 5 s.
    let summary = fetch(&server, 400, &[]);
    let most = server.max_concurrent();
    assert!((8..=64).contains(&most), "{most}: {summary}");
    let max = summary["auto_jobs"]["max"].as_u64().unwrap();
    assert!((8..=64).contains(&max), "{summary}");
}

#[test]
fn refusing_server_lowers_the_concurrency() {
    let body = seeded(1, 100_000);
    let active = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let response = if active.fetch_add(1, SeqCst) < 4 {
            thread::sleep(Duration::from_millis(50));
            Response::body(&body[..])
        } else {
            Response::status(503)
        };
        active.fetch_sub(1, SeqCst);
        response
    });
    let line = ["--retry", "30", "--retry-delay", "50ms"];
    let summary = fetch(&server, 300, &line);
    assert!(
        summary["auto_jobs"]["last"].as_u64().unwrap() <= 8,
        "{summary}"
    );
}

#[test]
fn fixed_number_of_jobs_is_not_reported_as_automatic() {
    let server = Server::start(|_| Response::body("good"));
    let folder = Folder::new();
    let url = server.url("/f");
    let ran = folder.myapp(["download", "--json", &url]).run().code(0);
    assert!(ran.text().contains("\"auto_jobs\":null"), "{}", ran.text());
    let wrong = folder.myapp(["download", "-j", "many", &url]).run();
    wrong.code(2).says("not a whole number");
}
