//! Output paths, devices and stdout, and outputs that cannot be written.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use rustix::io::Errno;
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
fn existing_output_is_kept() {
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
}

#[test]
fn directory_output_gets_the_name_of_the_url() {
    for (option, file) in [
        (["-o", "new/"], "new/f"),
        (["-o", "old"], "old/f"),
        (["-o", "."], "./f"),
    ] {
        let folder = Folder::new();
        fs::create_dir(folder.path("old")).unwrap();
        let server = Server::start(|_| ok());
        let url = server.url("/f");
        let planned = fetch(&folder, ["--dry-run", option[0], option[1], &url]);
        planned.code(0).prints(format!("{url} -> {file}\n"));
        fetch(&folder, [option[0], option[1], &url]).code(0);
        assert_eq!(folder.read(file), b"good", "{option:?}");
    }
    let named = ok().header("Content-Disposition", "attachment; filename=g");
    let (folder, ran) = fetch_f(named, &["-J", "-o", "new/"]);
    ran.code(0);
    assert_eq!(folder.read("new/g"), b"good");
}

#[test]
fn device_output_is_written() {
    let (folder, ran) = fetch_f(Response::body(seeded(1, LARGE)), &["-o", "/dev/null"]);
    ran.code(0);
    assert!(folder.names().is_empty());
    let (_, ran) = fetch_f(ok(), &["-o", "/dev/full"]);
    ran.code(3).says("write /dev/full: No space left on device");
}

#[test]
fn fifo_output_is_written() {
    let folder = Folder::new();
    let body = seeded(2, LARGE);
    let server = Server::with_paths([("/f", Response::body(body.clone()))]);
    let fifo = folder.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let running = folder
        .myapp(["download", "-o", "fifo", &server.url("/f")])
        .start();
    assert!(fs::read(&fifo).unwrap() == body);
    running.wait().code(0);
    assert_eq!(folder.names(), ["fifo"]);
}

#[test]
fn descriptor_output_is_written_at_its_position() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        fetch(&folder, ["-o", path, &server.url("/f")])
            .code(0)
            .prints("good");
        fetch(&folder, ["--json", "-o", path, &server.url("/f")])
            .code(2)
            .says("would both write to stdout");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "{ echo before; \"$0\" \"$@\"; } 3>file"]);
    let program = folder.myapp(["download", "-o", "/dev/fd/3", &server.url("/f")]);
    program.through(shell).run().code(0).prints("before\n");
    assert_eq!(folder.read("file"), b"good");
    let mut shell = Command::new("sh");
    shell.args(["-c", "{ echo before; \"$0\" \"$@\"; } >file"]);
    let program = folder.myapp(["download", "-o", "/dev/stdout", &server.url("/f")]);
    program.through(shell).run().code(0);
    assert_eq!(folder.read("file"), b"before\ngood");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn refused_modification_time_is_a_warning() {
    let folder = Folder::new();
    let dated = ok().header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT");
    let server = Server::with_paths([("/f", dated)]);
    let program = folder.myapp(["download", "--remote-time", &server.url("/f")]);
    let ran = program.refuse_syscall("utimensat", Errno::PERM).run();
    ran.code(0)
        .says("warning: cannot set the modification time")
        .says("saved f");
    assert_eq!(folder.read("f"), b"good");
}

#[test]
fn refused_splice_falls_back_to_copying() {
    let body = seeded(3, LARGE);
    for errno in [Errno::PERM, Errno::INVAL] {
        let folder = Folder::new();
        let server = Server::with_paths([("/f", Response::body(body.clone()))]);
        let program = folder.myapp(["download", &server.url("/f")]);
        program.refuse_syscall("splice", errno).run().code(0);
        assert!(folder.read("f") == body, "{errno}");
    }
}

#[test]
fn file_size_limit_keeps_the_part() {
    let folder = Folder::new();
    let body = seeded(4, LARGE);
    let server = Server::with_paths([("/f", Response::body(body.clone()))]);
    let program = folder.myapp(["download", &server.url("/f")]);
    let ran = program.file_size(2048).run();
    ran.code(3)
        .says("write f.part: file size limit of this process exceeded (2097152 bytes)");
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    assert!(folder.read("f.part").len() > 1 << 20);
    fetch(&folder, ["-c", &server.url("/f")]).code(0);
    assert!(folder.read("f") == body);
}

#[test]
fn many_jobs_share_few_descriptors() {
    // The second shell opens 24 further descriptors, which the number of jobs does not consider.
    let few = "ulimit -n 44 && exec \"$0\" \"$@\"";
    let used = "for n in {18..41}; do eval \"exec $n</dev/null\"; done; ulimit -n 44 && exec \"$0\" \"$@\"";
    for script in [few, used] {
        let folder = Folder::new();
        let body = seeded(6, 300_000);
        let response = Response::body(body.clone()).throttled(100_000, Duration::from_millis(50));
        let server = Server::start(move |_| response.clone());
        let urls: Vec<_> = (0..40).map(|n| server.url(&format!("/{n}"))).collect();
        let mut shell = Command::new("bash");
        shell.args(["-c", script]);
        let program = folder.myapp(
            ["download", "-vv", "-j", "40", "--retry", "0"]
                .map(str::to_owned)
                .into_iter()
                .chain(urls),
        );
        let ran = program.through(shell).run();
        let ran = ran
            .code(0)
            .says("fewer concurrent files: descriptor limit")
            .says("40 of 40 files saved");
        let has_waited = ran.stderr.contains("waiting for descriptors");
        assert_eq!(has_waited, script == used);
        assert!((0..40).all(|n| folder.read(&n.to_string()) == body));
    }
}

#[test]
fn soft_descriptor_limit_is_raised() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 44 && exec \"$0\" \"$@\""]);
    let server = Server::start(|_| ok());
    let folder = Folder::new();
    let program = folder.myapp(["download", "-j", "200", &server.url("/f")]);
    let ran = program.through(shell).run().code(0);
    assert!(!ran.stderr.contains("descriptor"), "{}", ran.stderr);
}

#[test]
fn exceeded_limits_of_the_file_system_are_named() {
    for (errno, text) in [
        (Errno::FBIG, "file too large for the file system"),
        (Errno::DQUOT, "Disk quota exceeded"),
    ] {
        let folder = Folder::new();
        let server = Server::start(|_| ok());
        let program = folder.myapp(["download", &server.url("/f")]);
        let ran = program.refuse_syscall("pwrite64", errno).run();
        ran.code(3).says(text);
    }
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
#[ignore = "peer: mount (bind)"]
fn mounted_file_is_written_in_place_only() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    folder.write("f", "old");
    folder.write("mounted", "older");
    let fetch = |option: &str| {
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "--map-root-user", "bash", "-c"]);
        shell.arg("mount --bind mounted f && exec \"$0\" \"$@\"");
        let program = folder.myapp(["download", option, &server.url("/f")]);
        program.through(shell).run()
    };
    fetch("--overwrite")
        .code(3)
        .says("replace f: it is a mount point\n")
        .says("hint: --in-place writes into the file\n");
    assert_eq!(folder.read("mounted"), b"older");
    assert!(server.requests().is_empty());
    fetch("--in-place").code(0).says("saved f: 4 B");
    assert_eq!(folder.read("mounted"), b"good");
    assert_eq!(folder.names(), ["f", "mounted"]);
}

#[test]
fn in_place_keeps_links_and_mode() {
    let folder = Folder::new();
    let server = Server::with_paths([
        ("/f", ok().header("ETag", "\"a\"")),
        ("/long", Response::body(seeded(1, LARGE))),
    ]);
    let path = folder.write("f", "old and longer");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&path, folder.path("link")).unwrap();
    fetch(&folder, ["--in-place", &server.url("/f")]).code(0);
    assert_eq!(folder.read("link"), b"good");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    fetch(
        &folder,
        ["--in-place", "--fsync", "-o", "f", &server.url("/long")],
    )
    .code(0);
    assert!(folder.read("link") == seeded(1, LARGE));
    fetch(&folder, ["--in-place", &server.url("/f"), "-o", "new"]).code(0);
    assert_eq!(folder.names(), ["f", "link", "new"]);
    // The date and the ETag are those of the file in place.
    fetch(&folder, ["-N", "--in-place", &server.url("/f")]).code(0);
    fetch(&folder, ["-N", "--in-place", &server.url("/f")])
        .code(0)
        .says("kept f: already complete");
    assert_eq!(folder.read("link"), b"good");
}

#[test]
fn in_place_never_follows_a_symbolic_link() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    folder.write("target", "kept");
    symlink("target", folder.path("f")).unwrap();
    fetch(&folder, ["--in-place", &server.url("/f")]).code(0);
    assert_eq!(folder.read("target"), b"kept");
    assert_eq!(folder.read("f"), b"good");
    assert!(fs::symlink_metadata(folder.path("f")).unwrap().is_file());
}

#[test]
fn failed_copy_in_place_keeps_the_part() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    folder.write("f", "old");
    let program = folder.myapp(["download", "--in-place", &server.url("/f")]);
    let ran = program.refuse_syscall("ftruncate", Errno::IO).run().code(3);
    ran.says(
        "write f in place: it may have old and new bytes; the complete new content is in f.part",
    );
    assert_eq!(folder.read("f.part"), b"good");
    fetch(&folder, ["-c", "--in-place", &server.url("/f")]).code(0);
    assert_eq!(folder.read("f"), b"good");
    assert_eq!(folder.names(), ["f"]);
}

#[test]
fn unwritable_file_is_refused_in_place_before_the_request() {
    let folder = Folder::new();
    let server = Server::start(|_| ok()).may_be_idle();
    fs::copy("/bin/sleep", folder.path("f")).unwrap();
    // A program that runs cannot be written, not even by root.
    let mut sleep = Command::new(folder.path("f")).arg("60").spawn().unwrap();
    let ran = fetch(&folder, ["--in-place", &server.url("/f")]);
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    ran.code(3).says("open f: Text file busy");
    assert!(server.requests().is_empty());
    fetch(&folder, ["--in-place", "--no-clobber", &server.url("/f")])
        .code(2)
        .says("cannot be used with");
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
