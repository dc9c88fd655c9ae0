//! The built program against third-party servers and proxies: every file is exact, directly and
//! through each proxy.

use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use rustix::process::Signal;

use super::*;
use crate::harness::third_party::{self, ListeningProgram};

const MANY: u64 = 100;

/// Large enough to kill the program before the file is complete.
const HUGE: usize = 64 << 20;

/// Starts nginx, which serves `files` of the folder and logs its requests.
pub(crate) fn nginx(folder: &Folder, listen: &str, more: &str) -> ListeningProgram {
    let root = folder.path("");
    let root = root.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
        .concat();
    third_party::nginx(folder, |port| {
        format!(
            "http {{
               {temporary} log_format it '$connection $ssl_session_reused $request';
               access_log {root}/log it; root {root}/files;
               server {{ listen 127.0.0.1:{port} {listen}; {more} }}
             }}"
        )
    })
}

pub(super) fn python(folder: &Folder) -> ListeningProgram {
    ListeningProgram::start(|port| {
        let mut command = Command::new("python3");
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", "-d"])
            .arg(folder.path("files"))
            .arg(port.to_string());
        command
    })
}

fn tinyproxy(folder: &Folder) -> ListeningProgram {
    ListeningProgram::start(|port| {
        let config = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth user secret\n");
        let config = folder.write("tinyproxy.conf", config);
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(config);
        command
    })
}

fn microsocks() -> ListeningProgram {
    ListeningProgram::start(|port| {
        let mut command = Command::new("microsocks");
        command
            .args(["-i", "127.0.0.1", "-u", "user", "-P", "secret", "-p"])
            .arg(port.to_string());
        command
    })
}

/// Returns a folder with the files that the servers serve.
pub(super) fn site() -> Folder {
    let folder = Folder::new();
    fs::create_dir(folder.path("files")).unwrap();
    folder.write("files/small", "small");
    folder.write("files/empty", "");
    folder.write("files/huge", seeded(1, HUGE));
    for number in 0..MANY {
        folder.write(&format!("files/{number}"), seeded(number, 3000));
    }
    // Old enough for its date to be a strong validator.
    let huge = fs::File::open(folder.path("files/huge")).unwrap();
    huge.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777))
        .unwrap();
    folder
}

/// Downloads all files with these options and compares them.
#[track_caller]
pub(super) fn assert_serves_all(server: &ListeningProgram, options: &[&str]) {
    let folder = Folder::new();
    let url = |name: &str| format!("{}/{name}", server.url());
    let program =
        |more: &[&str]| folder.myapp([&["download", "--retry=0"], options, more].concat());
    program(&[&url("small"), &url("empty"), &url("missing")])
        .run()
        .code(8)
        .says("HTTP status 404");
    assert_eq!(folder.names(), ["empty", "small"]);
    assert_eq!(
        (folder.read("small"), folder.read("empty")),
        (b"small".to_vec(), vec![])
    );

    let urls: Vec<_> = (0..MANY).map(|number| url(&number.to_string())).collect();
    program(&["-"])
        .stdin(urls.join("\n"))
        .run()
        .code(0)
        .says("100 of 100 files saved");
    for number in 0..MANY {
        assert!(
            folder.read(&number.to_string()) == seeded(number, 3000),
            "{number}"
        );
    }

    let running = program(&[&url("huge")]).start();
    until(|| fs::metadata(folder.path("huge.part")).is_ok_and(|data| data.len() > 0));
    running.signal(Signal::KILL);
    drop(running);
    assert!(folder.path("huge.part").exists() && !folder.path("huge").exists());
    program(&["-c", &url("huge")]).run().code(0);
    assert!(folder.read("huge") == seeded(1, HUGE));
    assert_eq!(folder.names().len(), MANY as usize + 3);
}

#[test]
#[ignore = "peer: nginx"]
fn nginx_serves_all_files() {
    let site = site();
    assert_serves_all(&nginx(&site, "", ""), &[]);
    let log = String::from_utf8(site.read("log")).unwrap();
    assert_eq!(log.matches("/huge").count(), 2, "{log}");
}

#[test]
#[ignore = "peer: python3"]
fn python_serves_all_files() {
    assert_serves_all(&python(&site()), &[]);
}

#[test]
#[ignore = "peer: nginx, python3 and tinyproxy"]
fn tinyproxy_forwards_all_files() {
    let folder = Folder::new();
    let site = site();
    let proxy = tinyproxy(&folder);
    let named = format!("http://user:secret@127.0.0.1:{}", proxy.port);
    assert_serves_all(&nginx(&site, "", ""), &["--proxy", &named]);
    assert_serves_all(&python(&site), &["--proxy", &named]);
    assert_authenticates(&named);
}

#[test]
#[ignore = "peer: nginx, python3 and microsocks"]
fn microsocks_forwards_all_files() {
    let proxy = microsocks();
    let site = site();
    for scheme in ["socks5", "socks5h"] {
        let named = format!("{scheme}://user:secret@127.0.0.1:{}", proxy.port);
        assert_serves_all(&nginx(&site, "", ""), &["--proxy", &named]);
        assert_serves_all(&python(&site), &["--proxy", &named]);
        assert_authenticates(&named);
    }
}

/// Downloads over TLS through this proxy, and fails with a wrong password.
fn assert_authenticates(named: &str) {
    let folder = Folder::new();
    let url = format!("https://localhost:{}/f", https::serve(&folder).port());
    fetch(&folder, ["--cacert", "ca.pem", "--proxy", named, &url]).code(0);
    assert_eq!(folder.read("f"), b"good");
    let wrong = named.replace("secret", "wrong");
    fetch(&folder, ["--proxy", &wrong, "https://127.0.0.1:1/"])
        .code(6)
        .says("rejected");
}
