//! Delay and rate limit.

use super::*;

#[test]
fn inputs_are_read_ahead_during_a_delay() {
    let folder = Folder::new();
    folder.write("lines", "a\nb\nc\nno end");
    make_fifo(&folder, "f");
    let start = Instant::now();
    let mut running = folder
        .myapp(["cat", "--delay", "300ms", "lines", "f"])
        .start();
    // More than the capacity of the pipe, so it is read ahead during the delays.
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
    let expected = format!("b\nc\nno end{}", "f".repeat(200_000));
    assert!(ran.text() == expected, "{}", ran.stdout.len());
}

#[test]
fn limit_rate_limits_the_output() {
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
