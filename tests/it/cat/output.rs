//! Outputs: replaced atomically, appended to, or written into.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::*;

#[test]
fn full_output_is_a_write_error() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 300_000]);
    for script in [
        "$MYAPP cat a > /dev/full",
        "$MYAPP cat -n a > /dev/full",
        "echo x | $MYAPP cat > /dev/full",
        "(ulimit -f 100; $MYAPP cat a > out)",
    ] {
        let output = shell(&folder, script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {text}");
        assert!(text.starts_with("myapp: write error: "), "{script}: {text}");
        assert!(
            text.contains("No space left") || text.contains("File too large"),
            "{text}"
        );
    }
}

#[test]
fn failed_write_keeps_the_old_file() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 300_000]);
    folder.write("out", "old");
    let output = shell(&folder, "ulimit -f 100; trap '' XFSZ; $MYAPP cat -o out a");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text, "myapp: out: write error: File too large\n");
    assert_eq!(folder.read("out"), b"old");
    assert_eq!(folder.names(), ["a", "out"]);
}

#[test]
fn input_that_is_also_output_does_not_loop() {
    let folder = Folder::new();
    for (script, file, content, code) in [
        ("$MYAPP cat a >> a", "a", "aaa\n", 1),
        ("$MYAPP cat b a >> a", "a", "aaa\nb\n", 1),
        ("$MYAPP cat a b >> a", "a", "aaa\nb\n", 1),
        ("$MYAPP cat -a -o a a b", "a", "aaa\n", 1),
        ("$MYAPP cat --partial -a -o a a b", "a", "aaa\nb\n", 1),
        (
            "ln a hard; ln -s hard soft; $MYAPP cat soft b >> a",
            "a",
            "aaa\nb\n",
            1,
        ),
        ("$MYAPP cat b c > c", "c", "b\n", 1),
        ("$MYAPP cat a b 1<>a", "a", "aaa\nb\n", 0),
        ("$MYAPP cat -n a b 1<>a", "a", "     1\tb\n", 1),
        ("$MYAPP cat e b >> e", "e", "b\n", 0),
        ("$MYAPP cat a >> $(readlink -f /dev/null)", "a", "aaa\n", 0),
        ("$MYAPP cat -o a a b", "a", "aaa\nb\n", 0),
        ("$MYAPP cat -o a b a a", "a", "b\naaa\naaa\n", 0),
    ] {
        shell(
            &folder,
            "rm -f *; echo aaa > a; echo b > b; echo c > c; : > e",
        );
        let output = shell(&folder, script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{script}: {text}");
        assert_eq!(
            text.contains(": input file is output file\n"),
            code == 1,
            "{script}: {text}"
        );
        assert_eq!(
            String::from_utf8_lossy(&folder.read(file)),
            content,
            "{script}"
        );
    }
}

#[test]
fn pipe_on_both_sides_is_refused() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    let output = shell(
        &folder,
        "exec 3<>f; echo x >&3; timeout 20 $MYAPP cat <&3 >&3",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "myapp: standard input: input file is output file\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn closed_standard_streams_are_dev_null() {
    let folder = Folder::new();
    folder.write("a", "a");
    // The standard library opens /dev/null in their place, so that no file gets their descriptor.
    let output = shell(&folder, "$MYAPP cat - a <&-");
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"a"[..]),
        "{output:?}"
    );
    let output = shell(
        &folder,
        "$MYAPP cat a >&-; echo $?; $MYAPP cat -o b a >&- 2>&-; cat b",
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\na");
}

#[test]
fn replaced_file_keeps_mode_and_symlink() {
    let folder = Folder::new();
    folder.write("a", "new");
    folder.write("real", "old");
    fs::set_permissions(folder.path("real"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(folder.path("sub")).unwrap();
    symlink("../real", folder.path("sub/link")).unwrap();
    folder
        .myapp(["cat", "--fsync", "-o", "sub/link", "a"])
        .run()
        .code(0)
        .prints("")
        .silent();
    assert_eq!(folder.read("real"), b"new");
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("real"), 0o640);
    assert!(folder.path("sub/link").is_symlink());

    symlink("made", folder.path("dangling")).unwrap();
    folder
        .myapp(["cat", "-o", "dangling", "a"])
        .run()
        .code(0)
        .silent();
    assert_eq!(folder.read("made"), b"new");
    assert_eq!(mode("made"), mode("a"), "like any new file");
    assert_eq!(folder.names(), ["a", "dangling", "made", "real", "sub"]);
}

#[test]
fn replaced_file_keeps_its_owner() {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    if std::os::unix::fs::chown(&old, Some(12345), Some(12346)).is_err() {
        eprintln!("skipped: only root can change the owner of a file");
        return;
    }
    fs::set_permissions(&old, fs::Permissions::from_mode(0o4755)).unwrap();
    folder
        .myapp(["cat", "-o", "out", "a"])
        .run()
        .code(0)
        .silent();
    let new = fs::metadata(old).unwrap();
    assert_eq!(
        (new.uid(), new.gid(), new.mode() & 0o7777),
        (12345, 12346, 0o4755)
    );
}

#[test]
fn file_is_replaced_only_when_complete() {
    let folder = Folder::new();
    let (running, f) = start_on_fifo(&folder);
    assert_eq!(folder.read("out"), b"old");
    drop(f);
    running.wait().code(0).silent();
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(folder.names(), ["f", "out"]);
}

#[test]
fn sigkill_keeps_the_old_file() {
    let folder = Folder::new();
    let (running, _f) = start_on_fifo(&folder);
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(folder.read("out"), b"old");
    // The temporary file has no name, on most file systems.
    assert_eq!(folder.names(), ["f", "out"]);
    folder
        .myapp(["cat", "-o", "out", "out", "out"])
        .run()
        .code(0)
        .silent();
    assert_eq!(folder.read("out"), b"oldold");
}

#[track_caller]
fn start_on_fifo(folder: &Folder) -> (Running, fs::File) {
    make_fifo(folder, "f");
    folder.write("out", "old");
    let running = folder.myapp(["cat", "-o", "out", "f"]).start();
    let mut f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    f.write_all(b"new").unwrap();
    wait_until("the temporary file is written", || {
        temporary_file_len(folder, running.id()) == 3
    });
    (running, f)
}

#[test]
fn signal_keeps_the_old_file() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let folder = Folder::new();
        let (running, _f) = start_on_fifo(&folder);
        running.signal(signal);
        running.wait().code(code).silent();
        assert_eq!(folder.read("out"), b"old");
        assert_eq!(folder.names(), ["f", "out"]);
    }
}

#[test]
fn ignored_hangup_stays_ignored() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    let mut nohup = Command::new("sh");
    nohup.args(["-c", r#"trap '' HUP; exec "$0" "$@""#]);
    let program = folder.myapp(["cat", "-o", "out", "f"]).through(nohup);
    let running = program.start();
    let mut f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    wait_until("the signals are caught", || running.catches(Signal::TERM));
    assert!(!running.catches(Signal::HUP));
    running.signal(Signal::HUP);
    f.write_all(b"new").unwrap();
    drop(f);
    running.wait().code(0).silent();
    assert_eq!(folder.read("out"), b"new");
}

#[test]
fn append_keeps_existing_bytes() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder
        .myapp(["cat", "-a", "-o", "out", "a"])
        .run()
        .code(0)
        .silent();
    folder
        .myapp(["cat", "-a", "--fsync", "--output", "out", "a", "-"])
        .stdin("b")
        .run()
        .code(0);
    assert_eq!(folder.read("out"), b"aab");
}

#[test]
fn tee_writes_to_file_and_stdout() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    folder
        .myapp(["cat", "-n", "--tee", "-o", "out", "a"])
        .run()
        .code(0)
        .prints("     1\ta\n");
    assert_eq!(folder.read("out"), b"     1\ta\n");
    // Larger than a pipe, which holds up to 1 MiB.
    folder.write("big", vec![b'x'; 4 << 20]);
    let output = shell(
        &folder,
        "$MYAPP cat --tee -o out big | true; echo ${PIPESTATUS[0]}",
    );
    assert_eq!(output.stdout, b"141\n");
    assert_eq!(folder.read("out"), b"     1\ta\n");
}

#[test]
fn devices_and_fifos_are_written_into() {
    let folder = Folder::new();
    folder.write("a", "a");
    fs::create_dir(folder.path("folder")).unwrap();
    folder
        .myapp(["cat", "-o", "/dev/null", "a"])
        .run()
        .code(0)
        .silent();
    assert!(!Path::new("/dev/null").is_file());
    make_fifo(&folder, "f");
    let running = folder.myapp(["cat", "-o", "f", "a"]).start();
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"a");
    running.wait().code(0).silent();
    let error = "myapp: open folder for writing: Is a directory\n";
    folder
        .myapp(["cat", "-o", "folder", "a"])
        .run()
        .code(1)
        .says(error);
    let error = "myapp: open no/out for writing: No such file or directory\n";
    folder
        .myapp(["cat", "-o", "no/out", "a"])
        .run()
        .code(1)
        .says(error);
    folder
        .myapp(["cat", "-o", "/dev/full", "a"])
        .run()
        .code(1)
        .says("/dev/full: write error: ");
    assert_eq!(folder.names(), ["a", "f", "folder"]);
}

#[test]
fn large_files_are_copied_by_every_system_call() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    for (name, size) in [
        ("big", 9 << 20),
        ("large", 131_072),
        ("small", 1000),
        ("odd", 300_001),
    ] {
        folder.write(
            name,
            std::iter::repeat_with(|| random.u8(..))
                .take(size)
                .collect::<Vec<_>>(),
        );
    }
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let other = other.path().join("out").display().to_string();
    let inputs = "big small large small odd - big";
    for output in [
        // A pipe; files on this and another file system, truncated, appended to and replaced.
        "$MYAPP cat INPUTS < odd | cat > out",
        "$MYAPP cat INPUTS < odd > out",
        "rm -f out; $MYAPP cat INPUTS < odd >> out",
        "$MYAPP cat INPUTS < odd > OTHER; cp OTHER out",
        "$MYAPP cat -o out INPUTS < odd",
        "$MYAPP cat -o OTHER INPUTS < odd; cp OTHER out",
        "rm -f out; $MYAPP cat -a -o out INPUTS < odd",
        "$MYAPP cat --tee -o out INPUTS < odd | cmp - out",
        // From pipes.
        "cat odd | $MYAPP cat INPUTS | cat > out",
        "cat odd | $MYAPP cat INPUTS > out",
        "cat odd | $MYAPP cat INPUTS >> OTHER; cp OTHER out",
        "$MYAPP cat <(cat big) small <(cat large) small odd - <(cat big) < odd | cat > out",
        "$MYAPP cat <(cat big) small <(cat large) small odd - <(cat big) < odd > out",
    ] {
        let _ = fs::remove_file(&other);
        let line = output.replace("INPUTS", inputs).replace("OTHER", &other);
        let check = "cat big small large small odd odd big | cmp - out";
        let output = shell(&folder, &format!("set -e -o pipefail; {line}; {check}"));
        assert!(output.status.success(), "{line}: {output:?}");
    }
    let script = "$MYAPP cat big > /dev/null
        { dd bs=1000 count=1 status=none > /dev/null; $MYAPP cat; } < large | wc -c";
    let output = shell(&folder, script);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "130072\n",
        "{output:?}"
    );
}

#[test]
fn each_file_is_one_datagram() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.write("b", "bb\n");
    folder.write("large", vec![b'c'; 140_000]);
    let (receiver, sender) = UnixDatagram::pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_myapp"));
    command.args(["cat", "a", "b", "empty", "large", "b"]);
    command
        .current_dir(folder.path(""))
        .stdout(OwnedFd::from(sender));
    folder.write("empty", "");
    let mut child = command.spawn().unwrap();
    drop(command);
    receiver
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut buffer = vec![0; 300_000];
    let lengths = [(); 4].map(|()| receiver.recv(&mut buffer).unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!(lengths, [1, 3, 140_000, 3]);
}

#[test]
fn nonblocking_pipe_receives_all_bytes() {
    let folder = Folder::new();
    folder.write("big", vec![b'x'; 5 << 20]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_myapp"))
        .args(["cat", "big", "big"])
        .current_dir(folder.path(""))
        .stdout(writer)
        .spawn();
    let mut child = child.unwrap();
    wait_until("the pipe is full", || {
        let capacity = rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
        rustix::io::ioctl_fionread(&reader).unwrap() == capacity as u64
    });
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(all.len(), 10 << 20);
}
