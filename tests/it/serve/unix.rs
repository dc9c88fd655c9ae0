//! Unix sockets: permissions, existing paths, removal.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use super::clients::peer;
use super::random_bytes;
use crate::harness::{Folder, Program, Running, myapp};

/// Starts `myapp serve ARGUMENTS unix:socket` in a directory.
#[track_caller]
fn serve(folder: &Folder, arguments: &[&str]) -> Running {
    begin(folder.myapp([&["serve"], arguments, &["unix:socket"]].concat()))
}

#[track_caller]
fn begin(program: Program) -> Running {
    let mut running = program.start();
    assert_eq!(running.line(), "listening on unix:socket");
    running
}

/// Sends `bytes` over a path, shuts down writing, and returns all replies.
#[track_caller]
fn exchange(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let stream = UnixStream::connect(path).expect("connect to the path");
    let mut answer = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut answer).expect("read the answer");
    });
    answer
}

#[test]
fn abstract_socket_is_served() {
    let folder = Folder::new();
    let address = format!("unix:@myapp-test-{}", std::process::id());
    let mut server = folder.myapp(["serve", &address]).start();
    assert_eq!(server.line(), format!("listening on {address}"));
    folder
        .myapp(["echo", "-q", "-c", &address, "hello"])
        .run()
        .code(0)
        .prints("hello\n");
    let load = [
        "echo",
        "-q",
        "-c",
        &address,
        "-n",
        "100",
        "--connections",
        "3",
    ];
    folder.myapp(load).run().code(0);
    let taken = folder.myapp(["serve", &address]).run().code(3);
    taken.says(&format!("listen on {address}: Address already in use"));
    assert!(folder.names().is_empty(), "there is no file");
    server.signal(Signal::TERM);
    server.wait().code(0).says("peer=unix");
    folder
        .myapp(["serve", "unix:@"])
        .run()
        .code(2)
        .says("empty path or name");
}

#[test]
fn unix_path_is_served_and_removed() {
    let folder = Folder::new();
    let server = serve(
        &folder,
        &[
            "--threads",
            "3",
            "--max-per-ip",
            "1",
            "--allow",
            "10.0.0.0/8",
        ],
    );
    let path = folder.path("socket");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _open = UnixStream::connect(&path).unwrap();
    for length in [0, 5, 100_000, 4 << 20] {
        assert!(
            exchange(&path, &random_bytes(length)) == random_bytes(length),
            "{length} bytes differ"
        );
    }
    server.signal(Signal::TERM);
    let id = std::process::id();
    server
        .wait()
        .code(0)
        .says(&format!("opened peer=unix:pid={id},uid="));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn paths_and_ports_are_announced_in_argument_order() {
    let folder = Folder::new();
    let mut server = folder
        .myapp(["serve", "-q", "unix:b", "tcp://127.0.0.1:0", "unix:./a"])
        .start();
    assert_eq!(server.line(), "listening on unix:b");
    assert!(server.line().starts_with("listening on tcp://127.0.0.1:"));
    assert_eq!(server.line(), "listening on unix:./a");
    for path in ["a", "b"] {
        assert_eq!(exchange(&folder.path(path), b"x\n"), b"x\n");
    }
}

#[test]
fn unix_permissions_ignore_the_umask() {
    for (umask, mode) in [("000", "600"), ("077", "666"), ("777", "777")] {
        let folder = Folder::new();
        let arguments = ["serve", "-q", "--unix-mode", mode, "unix:socket"];
        let _server = begin(folder.myapp(arguments).umask(umask));
        let found = fs::metadata(folder.path("socket"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(format!("{:o}", found & 0o777), mode, "umask {umask}");
    }
}

#[test]
fn stale_unix_path_is_replaced() {
    let folder = Folder::new();
    let killed = serve(&folder, &[]);
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(folder.names(), ["socket"]);
    let server = serve(&folder, &[]);
    assert_eq!(exchange(&folder.path("socket"), b"x\n"), b"x\n");
    server.signal(Signal::TERM);
    server.wait().code(0);
}

#[test]
fn shutdown_drains_and_removes_the_unix_path() {
    let folder = Folder::new();
    let server = serve(&folder, &[]);
    let mut client = UnixStream::connect(folder.path("socket")).unwrap();
    client.write_all(b"one\ntwo\nbegun").unwrap();
    server.signal(Signal::TERM);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "one\ntwo\nbegun");
    drop(client);
    server
        .wait()
        .code(0)
        .says("reason=\"drained\"")
        .says("aborted_on_shutdown=0");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn second_signal_removes_the_unix_path() {
    let folder = Folder::new();
    let server = serve(&folder, &["-q", "--delay", "1h"]);
    let mut client = UnixStream::connect(folder.path("socket")).unwrap();
    client.write_all(b"x\n").unwrap();
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    server.wait().code(0);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn unix_path_of_another_server_is_kept() {
    let folder = Folder::new();
    let server = serve(&folder, &[]);
    fs::remove_file(folder.path("socket")).unwrap();
    let _other = UnixListener::bind(folder.path("socket")).unwrap();
    server.signal(Signal::TERM);
    server.wait().code(0);
    assert_eq!(folder.names(), ["socket"]);
}

#[test]
fn unusable_unix_path_is_named_and_kept() {
    let folder = Folder::new();
    let _live = serve(&folder, &["-q"]);
    folder.write("file", "text");
    for (path, says) in [
        (
            "socket",
            "myapp: listen on unix:socket: Address already in use\nhint: another program",
        ),
        (
            "file",
            "myapp: listen on unix:file: there is a file that is no socket\nhint: only",
        ),
        (
            "none/s",
            "myapp: listen on unix:none/s: No such file or directory\nhint: create the directory",
        ),
    ] {
        folder
            .myapp(["serve", &format!("unix:{path}")])
            .run()
            .code(3)
            .prints("")
            .says(says);
    }
    assert_eq!(folder.read("file"), b"text");
    assert_eq!(exchange(&folder.path("socket"), b"x\n"), b"x\n");
}

#[test]
fn invalid_unix_path_is_a_usage_error() {
    let long = format!("unix:{}", "x".repeat(108));
    for (arguments, says) in [
        (
            &[&long as &str] as &[_],
            "path of a Unix socket is longer than 107 bytes (108)",
        ),
        (&["unix:"], "empty path"),
        (&["unix://run/x"], "ambiguous slashes after unix:"),
        (&["--unix-mode", "1777", "unix:x"], "not octal permissions"),
        (&["--unix-mode", "rw", "unix:x"], "not octal permissions"),
        (&["--metrics", "unix:x"], "not a TCP address"),
    ] {
        myapp([&["serve"], arguments].concat())
            .run()
            .code(2)
            .says(says);
    }
}

#[test]
#[ignore = "peer: socat"]
fn socat_gets_all_back_over_a_path() {
    let folder = Folder::new();
    let _server = serve(&folder, &["-q"]);
    let address = format!("UNIX-CONNECT:{}", folder.path("socket").display());
    for length in [5, 100_000, 4 << 20] {
        let answer = peer("socat", &["-t", "10", "-", &address], &random_bytes(length));
        assert!(answer == random_bytes(length), "{length} bytes differ");
    }
}

#[test]
#[ignore = "peer: ncat"]
fn ncat_gets_all_back_over_a_path() {
    let folder = Folder::new();
    let _server = serve(&folder, &["-q"]);
    let path = folder.path("socket");
    for length in [5, 100_000, 4 << 20] {
        let answer = peer(
            "ncat",
            &["-U", path.to_str().unwrap()],
            &random_bytes(length),
        );
        assert!(answer == random_bytes(length), "{length} bytes differ");
    }
}
