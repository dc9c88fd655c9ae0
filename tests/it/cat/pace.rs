//! How fast, in which order, and what is told meanwhile.

use super::*;

#[test]
fn a_delay_waits_after_each_line_and_other_inputs_come_meanwhile() {
    let folder = Folder::new();
    folder.write("lines", "a\nb\nc\nno end");
    fifo(&folder, "f");
    let start = Instant::now();
    let mut running = folder
        .myapp(["cat", "--delay", "300ms", "lines", "f"])
        .start();
    // More than the pipe holds: read while the lines wait.
    let f = OpenOptions::new().write(true).open(folder.path("f"));
    f.unwrap().write_all(&[b'f'; 200_000]).unwrap();
    let filled = start.elapsed();
    assert_eq!(running.line(), "a");
    let ran = running.wait().code(0).silent();
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(filled < Duration::from_millis(800), "{filled:?}");
    let wanted = format!("b\nc\nno end{}", "f".repeat(200_000));
    assert!(ran.text() == wanted, "{}", ran.stdout.len());
}

#[test]
fn as_completed_what_is_ready_comes_first_and_whole() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    ["slow", "quick", "long"]
        .iter()
        .for_each(|name| fifo(&folder, name));
    let arguments = [
        "cat",
        "--as-completed",
        "slow",
        "no",
        "long",
        "quick",
        "file",
        "-",
        "-",
    ];
    let mut running = folder.myapp(arguments).stdin("stdin\n").start();
    let open = |name: &str| {
        OpenOptions::new()
            .write(true)
            .open(folder.path(name))
            .unwrap()
    };
    let first: Vec<_> = (0..2).map(|_| running.line()).collect();
    assert!(first.contains(&"file".to_owned()), "{first:?}");
    assert!(first.contains(&"stdin".to_owned()), "{first:?}");
    let (mut slow, mut long, mut quick) = (open("slow"), open("long"), open("quick"));
    slow.write_all(b"slow 1\n").unwrap();
    quick.write_all(b"quick\n").unwrap();
    drop(quick);
    assert_eq!(running.line(), "quick");
    // More than is kept before its turn: from here on it has its turn.
    let bulk = [&b"long\n"[..], &[b'l'; 1 << 20], b"\n"].concat();
    let writer = thread::spawn(move || long.write_all(&bulk).unwrap());
    assert_eq!(running.line(), "long");
    drop(slow);
    assert_eq!(running.line().len(), 1 << 20);
    writer.join().unwrap();
    assert_eq!(running.line(), "slow 1");
    running
        .wait()
        .code(1)
        .prints("")
        .says("myapp: open no: No such file");
}

#[test]
fn a_rate_limits_what_is_written() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 60_000]);
    let start = Instant::now();
    let arguments = ["cat", "--limit-rate", "100K", "a", "-"];
    let ran = folder
        .myapp(arguments)
        .stdin([b'b'; 42_400])
        .run()
        .code(0)
        .silent();
    let elapsed = start.elapsed();
    assert_eq!(ran.stdout.len(), 102_400);
    assert!(elapsed >= Duration::from_millis(900), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(3000), "{elapsed:?}");
}

#[test]
fn timing_names_each_file_and_the_total() {
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
fn progress_is_a_bar_on_a_terminal_and_a_line_elsewhere() {
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
    // `script` gives it a terminal for its stderr.
    let line = "$MYAPP cat --progress --limit-rate 50K -o out a no a; echo $? > code";
    let output = shell(
        &folder,
        &format!("script -qc '{line}' /dev/null < /dev/null"),
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("58.59 KiB") || text.contains(" % "),
        "{text:?}"
    );
    assert!(text.contains("myapp: open no: No such file"), "{text:?}");
    assert_eq!(folder.read("code"), b"1\n");
    assert_eq!(folder.read("out").len(), 60_000);
}
