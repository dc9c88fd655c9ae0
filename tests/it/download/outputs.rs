//! Output paths, devices and stdout, and outputs that cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;

use super::*;
use crate::harness::myapp;

#[test]
fn file_permissions_follow_the_umask() {
    let (folder, ran) = fetch_f(ok(), &[]);
    ran.code(0);
    let plain = fs::metadata(folder.write("plain", ""))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        fs::metadata(folder.path("f")).unwrap().permissions().mode(),
        plain
    );
}

#[test]
fn missing_output_directory_is_created() {
    for option in ["-d", "--dir", "--output-dir"] {
        let (folder, ran) = fetch_f(ok(), &[option, "a/b"]);
        ran.code(0);
        assert_eq!(folder.read("a/b/f"), b"good");
    }
}

#[test]
fn output_path_is_used_as_given() {
    for (path, file) in [("x y", "x y"), ("a/b/c", "a/b/c"), ("./z", "z")] {
        let (folder, ran) = fetch_f(ok(), &["-o", path]);
        ran.code(0);
        assert_eq!(folder.read(file), b"good");
    }
    let (folder, ran) = fetch_f(ok(), &["-d", "dir", "--output", "name"]);
    ran.code(0);
    assert_eq!(folder.read("dir/name"), b"good");
}

#[test]
fn existing_output_is_kept_and_a_directory_refused() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    folder.write("name", "mine");
    fetch(&folder, ["-o", "name", &server.url("/f")])
        .code(0)
        .says("saved name.1");
    assert_eq!(
        (folder.read("name"), folder.read("name.1")),
        (b"mine".to_vec(), b"good".to_vec())
    );
    let server = server.may_be_idle();
    fetch(&folder, ["-o", ".", &server.url("/f")])
        .code(3)
        .says("hint: -d DIR");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn device_output_is_written() {
    let (folder, ran) = fetch_f(Response::body(seeded(1, LARGE)), &["-o", "/dev/null"]);
    ran.code(0);
    assert!(folder.names().is_empty());
}

#[test]
fn stdout_gets_only_the_body() {
    let body = seeded(5, LARGE);
    let (folder, ran) = fetch_f(Response::body(body.clone()), &["-o", "-"]);
    let ran = ran.code(0).silent();
    assert!(ran.stdout == body);
    assert!(folder.names().is_empty());
}

#[test]
fn stdout_gets_the_bytes_before_a_failure() {
    let (_, ran) = fetch_f(Response::body("abcdef").truncated_at(3), &["-o", "-"]);
    ran.code(4)
        .prints("abc")
        .says("incomplete response after 3");
}

#[test]
fn closed_stdout_ends_the_run_quietly() {
    let server = Server::with_paths([("/f", Response::body(seeded(1, LARGE)))]);
    let mut running = myapp(["download", "-o-", &server.url("/f")]).start();
    running.close_stdout();
    running.wait().code(141).silent();
}

#[test]
fn unwritable_output_prevents_the_request() {
    let server = Server::start(|_| ok()).may_be_idle();
    let folder = Folder::new();
    folder.write("file", "");
    for arguments in [
        ["-d", "file/sub"],
        ["-d", "/proc/nowhere"],
        ["-o", "file/f"],
    ] {
        fetch(&folder, [arguments[0], arguments[1], &server.url("/f")])
            .code(3)
            .says(&format!("create {}", arguments[1]));
    }
    assert!(server.requests().is_empty());
}

#[test]
#[ignore = "peer: mount (tmpfs)"]
fn full_disk_is_reported_before_a_body_of_known_length() {
    let folder = Folder::new();
    let mounted = folder.path("small");
    fs::create_dir(&mounted).unwrap();
    let mount = |line: &[&str]| {
        assert!(
            Command::new(line[0])
                .args(&line[1..])
                .arg(&mounted)
                .status()
                .unwrap()
                .success()
        );
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
    let long = Response::body(seeded(1, LARGE));
    for (response, kept) in [(long.clone(), 0), (long.chunked(), 2)] {
        let server = Server::with_paths([("/f", response)]);
        let ran = fetch(&folder, ["-d", "small", &server.url("/f")]);
        let left = fs::read_dir(&mounted).unwrap().count();
        if ran.status.code() != Some(3) || left != kept {
            mount(&["umount"]);
            panic!("{left} files are left");
        }
        ran.says("No space left on device");
    }
    mount(&["umount"]);
}

#[test]
fn incomplete_file_has_a_part_name() {
    let stalled = Response::body(seeded(1, LARGE)).stalled_at(HALF);
    let folder = Folder::new();
    let server = Server::with_paths([("/f", stalled)]);
    let running = folder.myapp(["download", &server.url("/f")]).start();
    until(|| folder.names().iter().any(|name| name == "f.part"));
    assert!(!folder.path("f").exists());
    running.signal(Signal::INT);
    running.wait().code(130);
}
