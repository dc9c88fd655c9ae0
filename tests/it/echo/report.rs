//! `myapp echo --report`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::echo;
use crate::harness::{Folder, Peer, Program, peer};

/// `myapp echo` told to talk to this peer, in this folder.
fn load(folder: &Folder, peer: &Peer, arguments: &[&str]) -> Program {
    folder.myapp([&["echo", "-q", "-c", &peer.address()], arguments].concat())
}

fn text(folder: &Folder, name: &str) -> String {
    String::from_utf8(folder.read(name)).unwrap()
}

/// Fails unless this is a whole report.
#[track_caller]
fn is_report(page: &str) {
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"),
        "{page}"
    );
    for part in [
        "Latency by percentile",
        "Throughput and errors",
        "Response time",
        "Figures",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    for part in ["<script", "http:", "https:", "src=", "href=", "NaN"] {
        assert!(!page.contains(part), "{part} in {page}");
    }
}

#[test]
fn a_load_leaves_a_page_that_tells_the_command_that_made_it() {
    let (peer, folder) = (Peer::start(peer::echo), Folder::new());
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
    is_report(&page);
    let command = format!(
        "myapp echo -q -c {} -n 50 --connections 2 --report new.html \
         &#39;&lt;b&gt;it&#39;\\&#39;&#39;s&lt;/b&gt;&#39;",
        peer.address()
    );
    assert!(page.contains(&command), "no {command} in {page}");
    assert!(page.contains("50 replies are too few for p90"), "{page}");
    assert_eq!(folder.names(), ["new.html"], "nothing else is left");
}

#[test]
fn an_old_report_is_replaced_also_behind_a_link() {
    let (peer, folder) = (Peer::start(peer::echo), Folder::new());
    folder.write("old.html", "old");
    symlink("old.html", folder.path("link.html")).unwrap();
    let arguments = ["-n", "5", "--in-flight", "2", "--report", "link.html"];
    load(&folder, &peer, &arguments).run().code(0);
    is_report(&text(&folder, "old.html"));
    assert!(
        fs::symlink_metadata(folder.path("link.html"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(folder.names(), ["link.html", "old.html"]);
}

#[test]
fn a_signal_leaves_the_report_so_far() {
    let (peer, folder) = (Peer::start(peer::echo), Folder::new());
    let running = load(
        &folder,
        &peer,
        &["--duration", "1h", "--report", "new.html"],
    )
    .start();
    while peer.connections() == 0 {
        thread::sleep(Duration::from_millis(2));
    }
    running.signal(Signal::TERM);
    running.wait().code(143);
    is_report(&text(&folder, "new.html"));
}

#[test]
fn a_report_that_cannot_be_written_ends_the_command_before_the_load() {
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
        assert!(listener.accept().is_err(), "somebody came");
    }
    assert_eq!(folder.names(), ["folder"]);
}

#[test]
fn a_device_is_written_into_and_stays() {
    let peer = Peer::start(peer::echo);
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
