//! Reload on SIGHUP.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;

use crate::harness::serve::ask;
use crate::harness::{Folder, Running, Server, until};

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

/// Writes a self-signed certificate that is valid from the year 2000 up to a date.
fn write_certificate(folder: &Folder, not_after: SystemTime) {
    let mut parameters = CertificateParams::new(["localhost".into()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    parameters.not_after = not_after.into();
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    folder.write("cert.pem", certificate.pem());
    folder.write("key.pem", key.serialize_pem());
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns a server with these TLS options that logs to `log`.
fn tls_server(folder: &Folder, options: &[&str]) -> Running {
    let arguments = ["serve", "--log-file", "log", "tls://127.0.0.1:0"];
    let mut server = folder.myapp([&arguments, options].concat()).start();
    assert!(server.line().starts_with("listening on tls://"));
    server
}

#[test]
fn expiry_of_the_certificate_is_logged_at_start_and_reload() {
    let folder = Folder::new();
    let now = SystemTime::now();
    let files = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    write_certificate(&folder, now - DAY);
    let server = tls_server(&folder, &files);
    let log = folder.path("log");
    until(|| says(&log, "WARN the certificate has expired not_after=\""));
    assert!(!says(&log, "expires soon"));

    write_certificate(&folder, now + 6 * DAY);
    server.signal(Signal::HUP);
    until(|| says(&log, "WARN the certificate expires soon not_after=\""));
    assert!(says(
        &log,
        "certificate_changed=true client_ca_changed=false"
    ));

    write_certificate(&folder, now + 8 * DAY);
    fs::write(&log, "").unwrap();
    server.signal(Signal::HUP);
    until(|| says(&log, "certificate_changed=true"));
    server.signal(Signal::HUP);
    until(|| says(&log, "certificate_changed=false client_ca_changed=false"));
    server.signal(Signal::TERM);
    server.wait().code(0);
    assert!(!says(&log, "the certificate"));
}

#[test]
fn self_signed_certificate_is_kept_and_its_client_ca_reloaded() {
    let folder = Folder::new();
    let log = folder.path("log");
    let server = tls_server(&folder, &["--tls-self-signed"]);
    fs::remove_file(&log).unwrap();
    server.signal(Signal::HUP);
    until(|| says(&log, "log file reopened: new file"));
    server.signal(Signal::TERM);
    server.wait().code(0);
    assert!(!says(&log, "TLS files"), "there are none");

    let now = SystemTime::now();
    write_certificate(&folder, now + 30 * DAY);
    let options = ["--tls-self-signed", "--tls-client-ca", "cert.pem"];
    let server = tls_server(&folder, &options);
    server.signal(Signal::HUP);
    until(|| says(&log, "certificate_changed=false client_ca_changed=false"));
    write_certificate(&folder, now + 40 * DAY);
    server.signal(Signal::HUP);
    until(|| says(&log, "certificate_changed=false client_ca_changed=true"));
    server.signal(Signal::TERM);
    server.wait().code(0);
}

#[test]
#[ignore = "peer: logrotate"]
fn logrotate_rotates_the_log() {
    let folder = Folder::new();
    let server = Server::of(folder.myapp(["serve", "--log-file", "log", "0"]), 1);
    server.exchange(b"before\n");
    let log = folder.path("log");
    until(|| says(&log, "text=before"));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/logrotate/myapp");
    let mut rules = fs::read_to_string(rules).unwrap();
    for (installed, tested) in [
        ("/var/log/myapp/*.log", log.to_str().unwrap()),
        (
            "systemctl reload myapp.service",
            &format!("kill -HUP {}", server.id()),
        ),
    ] {
        assert!(rules.contains(installed), "{installed}");
        rules = rules.replace(installed, tested);
    }
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
