//! Whose fault an error is: the input's or the output's, on each way that bytes take.

use super::*;

/// Ways that a large file takes, and the system call that each is.
const WAYS: [(&str, &str); 2] = [("> out", "copy_file_range"), ("| cat > out", "splice")];

/// Runs `$CAT` in the line with `faults` in the system calls that have to do with `path`.
fn with_faults(folder: &Folder, path: &str, faults: &str, line: &str) -> Output {
    let cat = format!("strace -o trace -P \"$(readlink -m {path})\" {faults} $MYAPP cat");
    shell(
        folder,
        &format!("{}; exit ${{PIPESTATUS[0]}}", line.replace("$CAT", &cat)),
    )
}

#[test]
#[ignore = "peer: strace"]
fn a_disk_that_fails_while_it_is_read_is_blamed_on_the_input_by_every_way() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let big: Vec<_> = std::iter::repeat_with(|| random.u8(..))
        .take(9 << 20)
        .collect();
    folder.write("big", &big);
    folder.write("next", "the next comes");
    for (to, call) in WAYS {
        let faults = format!("-e inject={call}:error=EIO:when=2+ -e inject=read:error=EIO");
        let output = with_faults(&folder, "big", &faults, &format!("$CAT big next {to}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "myapp: read big: Input/output error\n", "{to}");
        assert_eq!(output.status.code(), Some(1), "{to}");
        let out = folder.read("out");
        let head = out
            .strip_suffix(b"the next comes")
            .expect("the next file comes");
        assert!(
            !head.is_empty() && big.starts_with(head),
            "{to}: {} bytes",
            head.len()
        );
    }
    let faults = "-e inject=sendfile:error=EIO:when=2+ -e inject=read:error=EIO";
    let output = with_faults(&folder, "big", faults, "$CAT big > /dev/null");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "myapp: read big: Input/output error\n");
}

#[test]
#[ignore = "peer: strace"]
fn a_way_that_fails_halfway_is_left_and_no_byte_is_lost_or_doubled() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    folder.write(
        "big",
        std::iter::repeat_with(|| random.u8(..))
            .take(9 << 20)
            .collect::<Vec<_>>(),
    );
    for (to, call) in WAYS {
        for error in ["EINVAL", "EXDEV", "ENOSYS", "EIO", "ENOMEM"] {
            for when in ["1", "2+"] {
                let faults = format!("-e inject={call}:error={error}:when={when}");
                let output = with_faults(&folder, "big", &faults, &format!("$CAT big {to}"));
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
fn a_write_that_fails_is_blamed_on_the_output_also_when_it_is_told_at_the_end() {
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
        let output = with_faults(&folder, "out", faults, &format!("$CAT {files} > out"));
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
fn interrupted_and_short_writes_lose_nothing() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let bytes: Vec<_> = std::iter::repeat_with(|| random.u8(..))
        .take(1 << 20)
        .collect();
    folder.write("a", &bytes);
    for call in ["read", "write", "splice", "copy_file_range"] {
        let faults = format!("-e inject={call}:error=EINTR:when=1+2");
        for (path, line) in [
            ("a", "$CAT a > out"),
            ("a", "$CAT a | cat > out"),
            ("out", "$CAT a > out"),
        ] {
            let output = with_faults(&folder, path, &faults, line);
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{call} {line}: {output:?}"
            );
            assert!(folder.read("out") == bytes, "{call} {line}");
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
fn a_full_file_system_is_blamed_on_the_output_and_the_old_file_stays() {
    let folder = Folder::new();
    folder.write("elsewhere", vec![b'e'; 2 << 20]);
    fs::create_dir(folder.path("full")).unwrap();
    for (line, left) in [
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
        // In a namespace of its own the mount is gone at the end.
        let script = format!(
            "unshare --mount --map-root-user bash -c '
                mount -t tmpfs -o size=1m tmpfs full && cd full && echo old > out || exit
                head -c 700000 /dev/zero > here
                {line}; echo $? $(cat out) $(ls -A)'"
        );
        let output = shell(&folder, &script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.ends_with("write error: No space left on device\n"),
            "{line}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            told.trim_end(),
            format!("1 old {left}").trim_end(),
            "{line}"
        );
    }
}
