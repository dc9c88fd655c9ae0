//! The built program against servers and proxies that others have written: every file comes byte
//! for byte, straight and through each proxy.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::UNIX_EPOCH;

use rustix::process::Signal;

use super::*;

const MANY: u64 = 100;

/// So large that it is killed in the middle.
const HUGE: usize = 64 << 20;

/// A program that listens, killed when dropped.
pub(super) struct Listening {
    child: Child,
    pub(super) port: u16,
}

impl Listening {
    pub(super) fn start(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut listening = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                listening.child.try_wait().unwrap().is_none(),
                "it ended: {command:?}"
            );
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it does not listen: {command:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        listening
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts nginx, which serves `files` of the folder and logs what it did of each connection.
pub(super) fn nginx(folder: &Folder, listen: &str, more: &str) -> Listening {
    let port = free_port();
    let root = folder.path("");
    let root = root.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;
         events {{}}
         http {{
           {temporary} log_format it '$connection $ssl_session_reused $request';
           access_log {root}/log it; root {root}/files;
           server {{ listen 127.0.0.1:{port} {listen}; {more} }}
         }}"
    );
    let path = folder.write("nginx.conf", config);
    Listening::start(
        Command::new("nginx")
            .arg("-p")
            .arg(folder.path(""))
            .arg("-c")
            .arg(path),
        port,
    )
}

pub(super) fn python(folder: &Folder) -> Listening {
    let port = free_port();
    let mut command = Command::new("python3");
    command
        .args(["-m", "http.server", "--bind", "127.0.0.1", "-d"])
        .arg(folder.path("files"));
    Listening::start(command.arg(port.to_string()), port)
}

fn tinyproxy(folder: &Folder) -> Listening {
    let port = free_port();
    let config = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth user secret\n");
    let config = folder.write("tinyproxy.conf", config);
    Listening::start(
        Command::new("tinyproxy").arg("-d").arg("-c").arg(config),
        port,
    )
}

fn microsocks() -> Listening {
    let port = free_port();
    let mut command = Command::new("microsocks");
    command.args([
        "-i",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-u",
        "user",
        "-P",
        "secret",
    ]);
    Listening::start(&mut command, port)
}

/// What the servers serve.
fn site() -> Folder {
    let folder = Folder::new();
    fs::create_dir(folder.path("files")).unwrap();
    folder.write("files/small", "small");
    folder.write("files/empty", "");
    folder.write("files/huge", seeded(1, HUGE));
    for number in 0..MANY {
        folder.write(&format!("files/{number}"), seeded(number, 3000));
    }
    // So old that its date proves a version.
    let huge = fs::File::open(folder.path("files/huge")).unwrap();
    huge.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777))
        .unwrap();
    folder
}

/// Fetches everything with these options.
#[track_caller]
fn gives_everything(server: &Listening, options: &[&str]) {
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
    gives_everything(&nginx(&site, "", ""), &[]);
    let log = String::from_utf8(site.read("log")).unwrap();
    assert_eq!(log.matches("/huge").count(), 2, "{log}");
}

#[test]
#[ignore = "peer: python3"]
fn python_serves_all_files() {
    gives_everything(&python(&site()), &[]);
}

#[test]
#[ignore = "peer: nginx, python3 and tinyproxy"]
fn tinyproxy_forwards_all_files() {
    let (folder, site) = (Folder::new(), site());
    let proxy = tinyproxy(&folder);
    let named = format!("http://user:secret@127.0.0.1:{}", proxy.port);
    gives_everything(&nginx(&site, "", ""), &["--proxy", &named]);
    gives_everything(&python(&site), &["--proxy", &named]);
    lets_in(&named);
}

#[test]
#[ignore = "peer: nginx, python3 and microsocks"]
fn microsocks_forwards_all_files() {
    let (proxy, site) = (microsocks(), site());
    for scheme in ["socks5", "socks5h"] {
        let named = format!("{scheme}://user:secret@127.0.0.1:{}", proxy.port);
        gives_everything(&nginx(&site, "", ""), &["--proxy", &named]);
        gives_everything(&python(&site), &["--proxy", &named]);
        lets_in(&named);
    }
}

/// Fetches over TLS through this proxy, and fails with another password.
fn lets_in(named: &str) {
    let folder = Folder::new();
    let url = format!("https://localhost:{}/f", https::serve(&folder).port());
    fetch(&folder, ["--cacert", "ca.pem", "--proxy", named, &url]).code(0);
    assert_eq!(folder.read("f"), b"good");
    let wrong = named.replace("secret", "wrong");
    fetch(&folder, ["--proxy", &wrong, "https://127.0.0.1:1/"])
        .code(6)
        .says("rejected");
}
