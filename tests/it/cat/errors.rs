//! Attribution of errors to the input or the output, for each system call that copies bytes.

use super::*;

/// Outputs, and the system call that copies large files to them.
const ZERO_COPY_CALLS: [(&str, &str); 2] =
    [("> out", "copy_file_range"), ("| cat > out", "splice")];

/// Runs a shell script; in `$CAT`, `faults` are injected into the system calls on `path`.
fn run_with_faults(folder: &Folder, path: &str, faults: &str, script: &str) -> Output {
    let cat = format!("strace -o trace -P \"$(readlink -m {path})\" {faults} $MYAPP cat");
    shell(
        folder,
        &format!("{}; exit ${{PIPESTATUS[0]}}", script.replace("$CAT", &cat)),
    )
}

#[test]
#[ignore = "peer: strace"]
fn read_errors_are_attributed_to_the_input() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let big: Vec<_> = std::iter::repeat_with(|| random.u8(..))
        .take(9 << 20)
        .collect();
    folder.write("big", &big);
    folder.write("next", "next file");
    for (to, call) in ZERO_COPY_CALLS {
        let faults = format!("-e inject={call}:error=EIO:when=2+ -e inject=read:error=EIO");
        let output = run_with_faults(&folder, "big", &faults, &format!("$CAT big next {to}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "myapp: read big: Input/output error\n", "{to}");
        assert_eq!(output.status.code(), Some(1), "{to}");
        let out = folder.read("out");
        let head = out
            .strip_suffix(b"next file")
            .expect("the next file is written");
        assert!(
            !head.is_empty() && big.starts_with(head),
            "{to}: {} bytes",
            head.len()
        );
    }
    let faults = "-e inject=sendfile:error=EIO:when=2+ -e inject=read:error=EIO";
    let output = run_with_faults(&folder, "big", faults, "$CAT big > /dev/null");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "myapp: read big: Input/output error\n");
}

#[test]
#[ignore = "peer: strace"]
fn failed_zero_copy_falls_back_to_read_and_write() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    folder.write(
        "big",
        std::iter::repeat_with(|| random.u8(..))
            .take(9 << 20)
            .collect::<Vec<_>>(),
    );
    for (to, call) in ZERO_COPY_CALLS {
        for error in ["EINVAL", "EXDEV", "ENOSYS", "EIO", "ENOMEM"] {
            for when in ["1", "2+"] {
                let faults = format!("-e inject={call}:error={error}:when={when}");
                let output = run_with_faults(&folder, "big", &faults, &format!("$CAT big {to}"));
                let text = String::from_utf8_lossy(&output.stderr);
                assert_eq!(
                    (output.status.code(), &*text),
                    (Some(0), ""),
                    "{to} {error} {when}"
                );
                assert!(
                    folder.read("out") == folder.read("big"),
                    "{to} {error} {when}"
                );
            }
        }
    }
}

#[test]
#[ignore = "peer: strace"]
fn write_and_close_errors_are_attributed_to_the_output() {
    let folder = Folder::new();
    folder.write("big", vec![b'b'; 9 << 20]);
    folder.write("small", "small");
    for (files, faults) in [
        (
            "big",
            "-e inject=copy_file_range:error=ENOSPC:when=2+ -e inject=write:error=ENOSPC",
        ),
        ("small", "-e inject=write:error=ENOSPC"),
        ("-n small", "-e inject=write:error=ENOSPC"),
        ("small", "-e inject=close:error=ENOSPC"),
        ("big", "-e inject=close:error=ENOSPC"),
    ] {
        let output = run_with_faults(&folder, "out", faults, &format!("$CAT {files} > out"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            text, "myapp: write error: No space left on device\n",
            "{files} {faults}"
        );
        assert_eq!(output.status.code(), Some(1), "{files} {faults}");
    }
}

#[test]
#[ignore = "peer: strace"]
fn interrupted_and_short_writes_lose_no_bytes() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let bytes: Vec<_> = std::iter::repeat_with(|| random.u8(..))
        .take(1 << 20)
        .collect();
    folder.write("a", &bytes);
    for call in ["read", "write", "splice", "copy_file_range"] {
        let faults = format!("-e inject={call}:error=EINTR:when=1+2");
        for (path, script) in [
            ("a", "$CAT a > out"),
            ("a", "$CAT a | cat > out"),
            ("out", "$CAT a > out"),
        ] {
            let output = run_with_faults(&folder, path, &faults, script);
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{call} {script}: {output:?}"
            );
            assert!(folder.read("out") == bytes, "{call} {script}");
        }
    }
    let output = shell(
        &folder,
        "$MYAPP cat a a | dd bs=777 status=none | cmp - <(cat a a)",
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "peer: mount (tmpfs)"]
fn full_file_system_keeps_the_old_file() {
    let folder = Folder::new();
    folder.write("elsewhere", vec![b'e'; 2 << 20]);
    fs::create_dir(folder.path("full")).unwrap();
    for (command, files) in [
        ("$MYAPP cat here > new", "here new out "),
        ("$MYAPP cat -n here > new", "here new out "),
        ("$MYAPP cat ../elsewhere > new", "here new out "),
        ("$MYAPP cat < ../elsewhere >> new", "here new out "),
        ("cat here | $MYAPP cat > new", "here new out "),
        ("$MYAPP cat -a -o new here", "here new out "),
        ("$MYAPP cat -o out here", "here out "),
        ("$MYAPP cat -o out here here", "here out "),
        ("$MYAPP cat -o new ../elsewhere", "here out "),
    ] {
        // The mount ends with its namespace.
        let script = format!(
            "unshare --mount --map-root-user bash -c '
                mount -t tmpfs -o size=1m tmpfs full && cd full && echo old > out || exit
                head -c 700000 /dev/zero > here
                {command}; echo $? $(cat out) $(ls -A)'"
        );
        let output = shell(&folder, &script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.ends_with("write error: No space left on device\n"),
            "{command}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{command}: {text}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            stdout.trim_end(),
            format!("1 old {files}").trim_end(),
            "{command}"
        );
    }
}
