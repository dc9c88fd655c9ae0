//! Reload on SIGHUP.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::serve::ask;
use crate::harness::{Folder, Server, until};

fn says(path: &std::path::Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|log| log.contains(text))
}

#[test]
fn hangup_reopens_the_log_file_and_keeps_connections() {
    let folder = Folder::new();
    let server = Server::of(folder.myapp(["serve", "--log-file", "log", "0"]), 1);
    let open = server.connect();
    ask(&open, b"before\n");
    let log = folder.path("log");
    until(|| says(&log, "text=before"));
    let rotated = folder.path("log.1");
    fs::rename(&log, &rotated).unwrap();
    server.signal(Signal::HUP);
    until(|| says(&log, "log file reopened: new file"));
    ask(&open, b"after\n");
    until(|| says(&log, "text=after"));
    assert!(!says(&rotated, "text=after"));
    server.signal(Signal::HUP);
    until(|| says(&log, "log file reopened: same file"));
    ask(&open, b"again\n");
    drop(open);
    server.stop().says("");
    assert!(says(&log, "summary connections=1"));
}

#[test]
fn hangup_keeps_the_log_file_that_cannot_be_reopened() {
    let folder = Folder::new();
    fs::create_dir(folder.path("logs")).unwrap();
    let server = Server::of(folder.myapp(["serve", "--log-file", "logs/log", "0"]), 1);
    fs::rename(folder.path("logs"), folder.path("moved")).unwrap();
    server.signal(Signal::HUP);
    let log = folder.path("moved/log");
    until(|| says(&log, "cannot reopen the log file, keeping the current one"));
    assert_eq!(server.exchange(b"goes on\n"), b"goes on\n");
    server.stop().says("");
    assert!(says(&log, "summary connections=1"));
}

#[test]
fn hangup_without_files_is_logged() {
    let folder = Folder::new();
    let stderr = folder.path("stderr");
    let program = folder.myapp(["serve", "0"]).stderr_to(&stderr);
    let server = Server::of(program, 1);
    server.signal(Signal::HUP);
    until(|| says(&stderr, "SIGHUP: no log file and no TLS files to reload"));
    assert_eq!(server.exchange(b"goes on\n"), b"goes on\n");
    server.stop();
}

#[test]
#[ignore = "peer: logrotate"]
fn logrotate_rotates_the_log() {
    let folder = Folder::new();
    let server = Server::of(folder.myapp(["serve", "--log-file", "log", "0"]), 1);
    server.exchange(b"before\n");
    let log = folder.path("log");
    until(|| says(&log, "text=before"));
    let rules = format!(
        "{} {{\n rotate 2\n nocreate\n postrotate\n kill -HUP {}\n endscript\n}}\n",
        log.display(),
        server.id()
    );
    let rules = folder.write("rules", rules);
    let mut logrotate = Command::new("logrotate");
    logrotate
        .args(["--force", "--state"])
        .arg(folder.path("state"))
        .arg(rules);
    assert!(logrotate.status().expect("run logrotate").success());
    until(|| says(&log, "log file reopened: new file"));
    assert!(says(&folder.path("log.1"), "text=before"));
    server.stop();
}
