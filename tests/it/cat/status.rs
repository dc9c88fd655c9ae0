//! Timing and progress on stderr.

use super::*;

#[test]
fn timing_reports_each_file_and_the_total() {
    let folder = Folder::new();
    folder.write("a", "abc");
    let ran = folder
        .myapp(["cat", "--timing", "a", "-", "no"])
        .stdin("de")
        .run()
        .code(1);
    let ran = ran
        .prints("abcde")
        .says("myapp: a: opened at 0.0")
        .says(" s, 3 B\n");
    ran.says("myapp: standard input: opened at")
        .says("2 files, 1 failed, 5 B written in ");
    folder
        .myapp(["cat", "--timing", "-q", "a"])
        .run()
        .code(0)
        .prints("abc")
        .silent();
}

#[test]
fn progress_is_a_bar_on_a_terminal_else_a_line() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 30_000]);
    let ran = folder
        .myapp(["cat", "--progress", "-o", "out", "a"])
        .run()
        .code(0)
        .prints("");
    let ran = ran.says("myapp: 1 file, 29.3 KiB written in ");
    assert_eq!(ran.stderr.lines().count(), 1);
    folder
        .myapp(["cat", "--progress", "-q", "a", "-o", "out"])
        .run()
        .code(0)
        .silent();
    // `script` provides a terminal for stderr.
    let line = "$MYAPP cat --progress --limit-rate 50K --partial -o out a no a; echo $? > code";
    let output = shell(
        &folder,
        &format!("script -qc '{line}' /dev/null < /dev/null"),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // The rows of `download`: the current file, and all of them.
    assert!(text.contains("==] 100% of 29.3 KiB"), "{text:?}");
    assert!(text.contains("0 of 3 files, "), "{text:?}");
    assert!(text.contains(" of 58.6 KiB, "), "{text:?}");
    assert!(text.contains("1 of 3 files, 1 failed"), "{text:?}");
    assert!(text.contains("myapp: open no: No such file"), "{text:?}");
    assert_eq!(folder.read("code"), b"1\n");
    assert_eq!(folder.read("out").len(), 60_000);
}
