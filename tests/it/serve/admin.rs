//! The admin endpoint.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::peer;
use crate::harness::serve::ask;
use crate::harness::{Folder, Server, myapp, schema, until};

/// Starts a server with an admin endpoint, and returns the path of its socket.
#[track_caller]
fn administered(folder: &Folder, arguments: &[&str]) -> (Server, PathBuf) {
    let path = folder.path("admin");
    let admin = format!("--admin=unix:{}", path.display());
    let server = Server::start(&[&[admin.as_str()], arguments].concat());
    (server, path)
}

#[track_caller]
fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("connect to the admin socket");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// Sends a raw request, and returns the status and the content of the response.
#[track_caller]
fn exchange(path: &Path, request: &[u8]) -> (String, String) {
    let mut stream = connect(path);
    stream.write_all(request).unwrap();
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .expect("a response without a reset");
    let (head, content) = response.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().unwrap();
    let status = status.strip_prefix("HTTP/1.1 ").expect("a status");
    (status.into(), content.into())
}

/// Sends a request with content for the faults.
#[track_caller]
fn request(path: &Path, method: &str, content: &str) -> (String, String) {
    let length = content.len();
    let request = format!(
        "{method} /faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{content}"
    );
    exchange(path, request.as_bytes())
}

/// Sends a request that succeeds, and returns the faults.
#[track_caller]
fn faults(path: &Path, method: &str, content: &str) -> Value {
    let (status, content) = request(path, method, content);
    assert_eq!(status, "200 OK", "{content}");
    schema::json("serve-faults", &content)
}

fn stats(path: &Path) -> Value {
    let (_, content) = exchange(path, b"GET /stats HTTP/1.1\r\n\r\n");
    serde_json::from_str(&content).unwrap()
}

#[test]
fn faults_are_read_and_changed_at_run_time() {
    let folder = Folder::new();
    let (server, path) = administered(&folder, &["--delay=1ms", "--seed=7"]);
    let client = server.connect();
    assert_eq!(ask(&client, b"before\n"), b"before\n");
    let initial = faults(&path, "GET", "");
    assert_eq!(
        (&initial["delay"], &initial["seed"]),
        (&json!(0.001), &json!(7))
    );

    let burst = r#"{"drop_rate": 1, "loss_burst": {"begin": 0.5}}"#;
    let changed = faults(&path, "PATCH", burst);
    let mut expected = initial.clone();
    expected["drop_rate"] = json!(1.0);
    expected["loss_burst"] =
        json!({"begin": 0.5, "end": 0.25, "loss_in_burst": 1.0, "loss_otherwise": 0.0});
    assert_eq!(changed, expected);
    (&client).write_all(b"dropped\n").unwrap();
    assert_eq!(faults(&path, "GET", ""), expected);
    until(|| stats(&path)["fault_dropped"] == 1);
    until(|| faults(&path, "PUT", r#"{"slice": 2}"#)["slice"] == 2);
    // Only the order of the replies shows that the first one was dropped before the change.
    assert_eq!(ask(&client, b"after\n").len(), 6);

    let replaced = faults(&path, "GET", "");
    let none = faults(&path, "PUT", "{}");
    expected = none.clone();
    expected["slice"] = json!(2);
    assert_eq!(replaced, expected, "PUT replaces all faults but the seed");
    assert_eq!((&none["delay"], &none["seed"]), (&json!(0.0), &json!(7)));
    assert_eq!(ask(&client, b"none\n"), b"none\n");
    drop(client);
    server
        .stop()
        .says("fault changed fault=drop_rate old=0.0 new=1.0")
        .says("fault changed fault=loss_burst old=null new={")
        .says("fault changed fault=slice old=null new=2")
        .says("fault changed fault=delay old=0.001 new=0.0")
        .says("fault_changes=3 ");
    assert!(!path.exists(), "removed at the exit");
}

#[test]
fn invalid_changes_are_refused_and_named() {
    let folder = Folder::new();
    let (server, path) = administered(&folder, &[]);
    let initial = faults(&path, "GET", "");
    for (content, cause) in [
        (
            r#"{"delay": 1, "drop_rate": 2}"#,
            "drop_rate: not a share from 0 to 1\n",
        ),
        (
            r#"{"delay": "1s"}"#,
            "delay: not a number of seconds from 0\n",
        ),
        (r#"{"drops": 1}"#, "drops: no such field\n"),
        ("", "not a JSON object: "),
        ("[1]", "not a JSON object: "),
    ] {
        for method in ["PUT", "PATCH"] {
            let (status, text) = request(&path, method, content);
            assert_eq!(status, "400 Bad Request", "{method} {content}");
            assert!(text.starts_with(cause), "{method} {content}: {text}");
        }
    }
    let long = format!("{{\"delay\": {}1}}", " ".repeat(65_536));
    for (raw, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /faults HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("hello\r\n\r\n", "400 Bad Request"),
        (
            "PUT /faults HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "411 Length Required",
        ),
        (
            "PUT /faults HTTP/1.1\r\nContent-Length: 70000\r\n\r\n{}",
            "413 Content Too Large",
        ),
    ] {
        assert_eq!(exchange(&path, raw.as_bytes()).0, status, "{raw}");
    }
    assert_eq!(request(&path, "PUT", &long).0, "413 Content Too Large");
    let head = format!("GET /faults HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let status = exchange(&path, head.as_bytes()).0;
    assert_eq!(status, "431 Request Header Fields Too Large");
    assert_eq!(faults(&path, "GET", ""), initial, "nothing has changed");
    server.stop().says("fault_changes=0 ");
}

#[test]
fn unfinished_admin_requests_do_not_lock_out_others() {
    let folder = Folder::new();
    let (_server, path) = administered(&folder, &[]);
    let start = Instant::now();
    let unfinished: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(&path);
            let request = b"PUT /faults HTTP/1.1\r\nContent-Length: 9\r\n\r\n{";
            // The server may have closed an older one in the meantime.
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    faults(&path, "GET", "");
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    for mut stream in unfinished {
        // Closed by the server, at the latest after its time limit.
        let _ = stream.read(&mut [0; 100]);
    }
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn admin_socket_is_private_and_exclusive() {
    let folder = Folder::new();
    let (server, path) = administered(&folder, &[]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let admin = format!("--admin=unix:{}", path.display());
    let ran = myapp(["serve", &admin, "0"]).run().code(3).prints("");
    ran.says(&format!(
        "myapp: --admin: listen on unix:{}: ",
        path.display()
    ))
    .says("hint: another program listens on this path");
    faults(&path, "GET", "");
    server.stop();

    drop(UnixListener::bind(&path).unwrap());
    let (server, path) = administered(&folder, &[]);
    faults(&path, "GET", "");
    server.stop();

    fs::write(&path, "text").unwrap();
    let ran = myapp(["serve", &admin, "0"]).run().code(3).prints("");
    ran.says("there is a file that is no socket");
    assert_eq!(fs::read(&path).unwrap(), b"text");
}

#[test]
fn stats_are_those_of_the_summary() {
    let folder = Folder::new();
    let (server, path) = administered(&folder, &[]);
    assert_eq!(ask(&server.connect(), b"hello\n"), b"hello\n");
    let stats = || {
        let (status, content) = exchange(&path, b"GET /stats HTTP/1.1\r\n\r\n");
        assert_eq!(status, "200 OK", "{content}");
        let mut stats: Value = serde_json::from_str(&content).unwrap();
        stats["event"] = json!("summary");
        schema::json("serve", &stats.to_string())
    };
    until(|| stats()["active"] == 0);
    let stats = stats();
    assert_eq!((&stats["messages"], &stats["sent"]), (&json!(1), &json!(6)));
    let (status, _) = exchange(&path, b"PUT /stats HTTP/1.1\r\n\r\n");
    assert_eq!(status, "405 Method Not Allowed");
}

#[test]
fn invalid_admin_addresses_are_usage_errors() {
    for address in ["8080", "tcp://127.0.0.1:1", "unix:"] {
        let admin = format!("--admin={address}");
        myapp(["serve", &admin])
            .run()
            .code(2)
            .prints("")
            .says("--admin");
    }
    myapp(["serve", "--admin=unix:@admin", "0"])
        .run()
        .code(2)
        .prints("")
        .says("myapp: --admin: unix:@admin: an abstract socket has no permissions\n")
        .says("hint: any program could change the faults; choose a path");
    let ran = myapp(["serve", "--mode=discard", "--admin=unix:admin"]);
    ran.run()
        .code(2)
        .prints("")
        .says("no effect with --mode discard");
}

#[test]
#[ignore = "peer: curl"]
fn curl_changes_the_faults() {
    let folder = Folder::new();
    let (server, path) = administered(&folder, &[]);
    let socket = path.to_str().unwrap();
    let common = ["-sS", "--max-time", "10", "--unix-socket", socket];
    let curl = |more: &[&str]| {
        let output = peer("curl", &[&common, more].concat(), b"");
        String::from_utf8(output).unwrap()
    };
    let url = "http://127.0.0.1/faults";
    let faults = schema::json("serve-faults", &curl(&[url]));
    assert_eq!(faults["corrupt_rate"], 0.0);
    let change = ["-X", "PATCH", "--json", r#"{"corrupt_rate": 1}"#, url];
    assert_eq!(
        schema::json("serve-faults", &curl(&change))["corrupt_rate"],
        1.0
    );
    assert_ne!(ask(&server.connect(), b"hello\n"), b"hello\n");
    let refused = ["-X", "PATCH", "-d", r#"{"corrupt_rate": 7}"#, url];
    assert_eq!(curl(&refused), "corrupt_rate: not a share from 0 to 1\n");
    let head = curl(&["--head", url]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    // curl waits for 100 Continue before it sends long content.
    let long = format!("{{\"drop_rate\": {}1}}", " ".repeat(60_000));
    let expect = ["-X", "PUT", "-H", "Expect: 100-continue", "-d", &long, url];
    assert_eq!(
        schema::json("serve-faults", &curl(&expect))["drop_rate"],
        1.0
    );
}
