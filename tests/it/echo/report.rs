//! `myapp echo --report`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use super::echo;
use crate::harness::{Folder, Peer, Program, raw_peer, schema};

/// Returns `myapp echo` in a folder with a peer as its server.
fn load(folder: &Folder, peer: &Peer, arguments: &[&str]) -> Program {
    folder.myapp([&["echo", "-q", "-c", &peer.address()], arguments].concat())
}

fn text(folder: &Folder, name: &str) -> String {
    String::from_utf8(folder.read(name)).unwrap()
}

/// Asserts that a page is a complete report.
#[track_caller]
fn assert_report(page: &str) {
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"),
        "{page}"
    );
    for part in [
        "Latency by percentile",
        "Throughput and errors",
        "Response time",
        "Statistics",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    for part in ["<script", "http:", "https:", "src=", "href=", "NaN"] {
        assert!(!page.contains(part), "{part} in {page}");
    }
}

#[test]
fn page_contains_the_command() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let arguments = [
        "-n",
        "50",
        "--connections",
        "2",
        "--report",
        "new.html",
        "<b>it's</b>",
    ];
    load(&folder, &peer, &arguments).run().code(0).silent();
    let page = text(&folder, "new.html");
    assert_report(&page);
    let command = format!(
        "myapp echo -q -c {} -n 50 --connections 2 --report new.html \
         &#39;&lt;b&gt;it&#39;\\&#39;&#39;s&lt;/b&gt;&#39;",
        peer.address()
    );
    assert!(page.contains(&command), "no {command} in {page}");
    assert!(page.contains("50 replies are too few for p90"), "{page}");
    assert_eq!(folder.names(), ["new.html"], "temporary files are removed");
}

#[test]
fn old_report_is_replaced_through_a_symlink() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    folder.write("old.html", "old");
    symlink("old.html", folder.path("link.html")).unwrap();
    let arguments = ["-n", "5", "--in-flight", "2", "--report", "link.html"];
    load(&folder, &peer, &arguments).run().code(0);
    assert_report(&text(&folder, "old.html"));
    assert!(
        fs::symlink_metadata(folder.path("link.html"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(folder.names(), ["link.html", "old.html"]);
}

#[test]
fn percentiles_of_a_report_are_selectable() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let options = ["-n", "20", "--in-flight", "2", "--percentiles", "99.99,50"];
    let ran = load(
        &folder,
        &peer,
        &[&options[..], &["--report", "a.html"]].concat(),
    );
    let text = ran.run().code(0).text();
    assert!(
        text.contains("\np50 ") && text.contains("\np99.99 "),
        "{text}"
    );
    assert!(!text.contains("\np90 "), "{text}");
    let warning = "warning: 20 replies are too few for p99.99 and above, which needs 100000";
    assert!(text.contains(warning), "{text}");
    let page = self::text(&folder, "a.html");
    assert!(page.contains("<td>p99.99</td>") && !page.contains("<td>p90</td>"));
    for mode in [&["--in-flight", "2"][..], &["--interval", "0"]] {
        let options = ["-n", "20", "--json", "--percentiles", "99.99,50"];
        let ran = load(&folder, &peer, &[&options[..], mode].concat());
        let report = schema::json("echo", &ran.run().code(0).text());
        let times = report.get("round_trip").unwrap_or(&report["response"]);
        let names: Vec<_> = times.as_object().unwrap().keys().collect();
        assert_eq!(names, ["max", "mean", "min", "p50", "p99_99"]);
    }
    let options = ["-n", "2", "--interval", "0", "--percentiles", "50,90"];
    let text = load(&folder, &peer, &options).run().code(0).text();
    assert!(
        text.contains("\nround trip min/avg/p50/p90/max = "),
        "{text}"
    );
    for (list, value) in [("50,p99", "p99"), ("101", "101"), ("9,9", "9"), ("", "")] {
        let ran = load(&folder, &peer, &["-n", "2", "--percentiles", list]);
        let ran = ran.run().code(2).prints("");
        let value = format!("for '--percentiles <LIST>': '{value}' ");
        assert!(
            list.is_empty() || ran.stderr.contains(&value),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn signal_leaves_a_complete_page() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let running = load(
        &folder,
        &peer,
        &["--duration", "1h", "--report", "new.html"],
    )
    .start();
    peer.wait_for_connections(1);
    running.signal(Signal::TERM);
    running.wait().code(143);
    assert_report(&text(&folder, "new.html"));
}

#[test]
fn unwritable_report_fails_before_the_load() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    for (path, cause) in [
        ("missing/new.html", "No such file or directory"),
        ("folder", "Is a directory"),
        ("new/", "Is a directory"),
    ] {
        let arguments = ["echo", "--duration", "1h", "-c", &address, "--report", path];
        let ran = folder.myapp(arguments).run().code(3).prints("");
        assert_eq!(ran.stderr, format!("myapp: create {path}: {cause}\n"));
        assert!(listener.accept().is_err(), "connected before the error");
    }
    assert_eq!(folder.names(), ["folder"]);
}

#[test]
fn report_is_written_into_a_device() {
    let peer = Peer::start(raw_peer::echo);
    echo(
        &peer,
        &["-n", "5", "--in-flight", "2", "--report", "/dev/null"],
    )
    .run()
    .code(0)
    .silent();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let ran = echo(
        &peer,
        &["-n", "5", "--in-flight", "2", "--report", "/dev/full"],
    )
    .run()
    .code(3);
    assert!(ran.text().contains("5 sent, 5 answered"), "{}", ran.text());
    assert_eq!(
        ran.stderr,
        "myapp: write /dev/full: No space left on device\n"
    );
}
