//! `myapp cat`.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use myapp::cat::{self, Config, Mode, Report, Sink, Source};
use rustix::process::Signal;

use crate::harness::{Folder, Ran, Running};

/// What a random file is made of: mostly what the display options look at.
const NASTY: &[u8] = b"\n\n\n\n\n\n\r\r\r\n\t\tab \0\x1f\x7f\x80\x89\x8a\x9f\xa0\xfe\xff";

/// Runs a line of shell in the folder, with `$MYAPP` as our program.
#[track_caller]
fn shell(folder: &Folder, line: &str) -> Output {
    Command::new("bash")
        .args(["-c", line])
        .current_dir(folder.path(""))
        .env("MYAPP", env!("CARGO_BIN_EXE_myapp"))
        .stdin(Stdio::null())
        .output()
        .expect("run bash")
}

#[track_caller]
fn gnu(folder: &Folder, arguments: &[String], stdin: &[u8]) -> Output {
    let mut child = Command::new("cat")
        .args(arguments)
        .current_dir(folder.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the system's cat");
    let (mut pipe, bytes) = (child.stdin.take().unwrap(), stdin.to_vec());
    let feeder = thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().expect("run the system's cat");
    feeder.join().unwrap();
    output
}

fn nasty(random: &mut fastrand::Rng) -> Vec<u8> {
    let most = if random.u8(..20) == 0 { 400_000 } else { 300 };
    let long_lines = random.bool();
    (0..random.usize(..most))
        .map(|_| match random.u8(..40) {
            0 => random.u8(..),
            _ if long_lines && random.u8(..30) > 0 => b'x',
            _ => NASTY[random.usize(..NASTY.len())],
        })
        .collect()
}

/// Waits until a file's or a folder's state is as wanted.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn fifo(folder: &Folder, name: &str) {
    let status = Command::new("mkfifo").arg(folder.path(name)).status().expect("run mkfifo");
    assert!(status.success());
}

#[track_caller]
fn ended_by(ran: &Ran, signal: i32) {
    assert_eq!(ran.status.signal(), Some(signal), "{}\n{}", ran.status, ran.stderr);
}

#[test]
fn a_thousand_random_runs_show_what_gnu_cat_shows() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    let names: Vec<_> = (0..8).map(|n| format!("file {n}")).collect();
    for run in 0..1000 {
        if run % 10 == 0 {
            names.iter().for_each(|name| drop(folder.write(name, nasty(&mut random))));
        }
        let mut arguments: Vec<String> = Vec::new();
        for _ in 0..random.usize(..4) {
            arguments.push(format!("-{}", random.choice(*b"AbeEnstTuv").unwrap() as char));
        }
        for _ in 0..random.usize(..5) {
            arguments.push(match random.u8(..10) {
                0..2 => "-".to_owned(),
                2 => "no such file".to_owned(),
                _ => random.choice(&names).unwrap().clone(),
            });
        }
        let stdin = nasty(&mut random);
        let wanted = gnu(&folder, &arguments, &stdin);
        let mut ours = vec!["cat".to_owned()];
        ours.extend(arguments);
        let ran = folder.myapp(&ours).stdin(&stdin).run();
        let same = ran.stdout == wanted.stdout && ran.status.code() == wanted.status.code();
        assert!(same, "seed {seed}, run {run}: {ours:?} differs; {}", ran.stderr);
    }
}

#[test]
fn long_names_mean_what_the_short_ones_mean() {
    let folder = Folder::new();
    folder.write("a", b"a\t\x01\r\n\n\n\xff");
    for (long, short) in [
        ("--show-all", "-A"),
        ("--number-nonblank", "-b"),
        ("--show-ends", "-E"),
        ("--number", "-n"),
        ("--squeeze-blank", "-s"),
        ("--show-tabs", "-T"),
        ("--show-nonprinting", "-v"),
    ] {
        let wanted = gnu(&folder, &[short.to_owned(), "a".to_owned()], b"").stdout;
        folder.myapp(["cat", long, "a"]).run().code(0).prints(wanted).silent();
    }
}

#[test]
fn a_thousand_files_come_in_order() {
    let folder = Folder::new();
    let mut arguments = vec!["cat".to_owned()];
    let mut all = String::new();
    for n in 0..1000 {
        let text = format!("{n}\n").repeat(n % 50);
        all.push_str(&text);
        folder.write(&format!("{n}"), text);
        arguments.push(format!("{n}"));
    }
    folder.myapp(&arguments).run().code(0).prints(&all).silent();
    arguments.extend(["-j", "7", "-o", "out"].map(str::to_owned));
    folder.myapp(&arguments).run().code(0).prints("").silent();
    assert_eq!(folder.read("out"), all.as_bytes());
}

#[test]
fn many_files_need_few_descriptors() {
    let folder = Folder::new();
    let script = "for i in $(seq 2000); do echo $i > $i; done; ulimit -n 20
        $MYAPP cat $(seq 2000) | cmp - <(seq 2000)";
    let output = shell(&folder, script);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.is_empty(), "{}", text.lines().next().unwrap());
}

#[test]
fn slow_inputs_are_read_at_the_same_time() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    let names = ["one", "two", "three", "four"];
    names.iter().for_each(|name| fifo(&folder, name));
    let start = Instant::now();
    let running = folder.myapp(["cat", "one", "file", "two", "three", "four"]).start();
    let writers = names.map(|name| {
        let path = folder.path(name);
        thread::spawn(move || {
            let mut fifo = OpenOptions::new().write(true).open(path).unwrap();
            // Each writes more than a pipe holds, so it ends only if somebody reads.
            for _ in 0..6 {
                thread::sleep(Duration::from_millis(200));
                fifo.write_all(&[name.as_bytes()[0]; 30_000]).unwrap();
            }
        })
    });
    let ran = running.wait().code(0).silent();
    let elapsed = start.elapsed();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let text = |c: &str| c.repeat(180_000);
    let all = [&text("o"), "file\n", &text("t"), &text("t"), &text("f")].concat();
    assert!(ran.text() == all, "{} bytes", ran.stdout.len());
    assert!(elapsed < Duration::from_secs(3), "one after another takes 4.8 s, this {elapsed:?}");
}

#[test]
fn one_after_another_a_slow_input_waits_for_its_turn() {
    let folder = Folder::new();
    fifo(&folder, "one");
    fifo(&folder, "two");
    let running = folder.myapp(["cat", "--sequential", "one", "two"]).start();
    let mut one = OpenOptions::new().write(true).open(folder.path("one")).unwrap();
    let no_wait = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let open = || rustix::fs::open(folder.path("two"), no_wait, rustix::fs::Mode::empty());
    one.write_all(b"1").unwrap();
    assert_eq!(open().err(), Some(rustix::io::Errno::NXIO), "nobody reads the second yet");
    drop(one);
    until("the second is read", || open().is_ok());
    running.wait().code(0).prints("1");
}

#[test]
fn a_fifo_named_twice_is_read_twice_in_turn() {
    let folder = Folder::new();
    fifo(&folder, "f");
    symlink("f", folder.path("g")).unwrap();
    folder.write("file", "between\n");
    let mut running = folder.myapp(["cat", "f", "file", "g"]).start();
    fs::write(folder.path("f"), "first\n").unwrap();
    assert_eq!(running.line(), "first");
    assert_eq!(running.line(), "between");
    fs::write(folder.path("f"), "second").unwrap();
    running.wait().code(0).prints("second").silent();
}

#[test]
fn a_file_that_comes_before_its_turn_is_read() {
    let folder = Folder::new();
    fifo(&folder, "f");
    let running = folder.myapp(["cat", "f", "later"]).start();
    let mut f = OpenOptions::new().write(true).open(folder.path("f")).unwrap();
    f.write_all(b"now ").unwrap();
    folder.write("later", "later");
    drop(f);
    running.wait().code(0).prints("now later").silent();
}

#[test]
fn the_first_bytes_of_a_slow_pipe_appear_at_once() {
    for flags in [&["cat"][..], &["cat", "-n"], &["cat", "-v"]] {
        let folder = Folder::new();
        fifo(&folder, "f");
        let mut running = folder.myapp([flags, &["f"]].concat()).start();
        let mut f = OpenOptions::new().write(true).open(folder.path("f")).unwrap();
        f.write_all(b"hello\n").unwrap();
        assert!(running.line().ends_with("hello"), "{flags:?}");
        drop(f);
        running.wait().code(0);
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_others_come() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.write("b", "b");
    fs::create_dir(folder.path("folder")).unwrap();
    folder
        .myapp(["cat", "a", "missing", "b", "folder", "a", "/proc/self/mem", "b"])
        .run()
        .code(1)
        .prints("abab")
        .says("myapp: open missing: No such file or directory\n")
        .says("myapp: open folder: Is a directory\n")
        .says("myapp: read /proc/self/mem: Input/output error\n");
}

#[test]
fn errors_and_output_come_in_their_order() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let output = shell(&folder, "$MYAPP cat a missing a 2>&1");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "a\nmyapp: open missing: No such file or directory\na\n");
}

#[test]
fn names_of_all_kinds_are_names() {
    let folder = Folder::new();
    shell(&folder, r"printf dash > ./-; printf minus > ./-n; printf odd > $'\xff\n'");
    let output = shell(&folder, r"$MYAPP cat ./- $'\xff\n' -- -n < /dev/null");
    assert_eq!(output.stdout, b"dashoddminus", "{output:?}");
    let output = shell(&folder, r"$MYAPP cat $'\xfe\n\e[2J'");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text, "myapp: open \\xfe\\n\\x1b[2J: No such file or directory\n");
}

#[test]
fn stdin_goes_on_where_it_stands() {
    let folder = Folder::new();
    folder.write("lines", "one\ntwo\nthree\n");
    let script = "{ read first; $MYAPP cat -n - -; } < lines";
    assert_eq!(shell(&folder, script).stdout, b"     1\ttwo\n     2\tthree\n");
    folder.myapp(["cat", "-", "lines", "-"]).stdin("in\n").run().prints("in\none\ntwo\nthree\n");
}

#[test]
fn files_that_do_not_tell_their_size_are_read_to_the_end() {
    let folder = Folder::new();
    folder.write("empty", "");
    let wanted = fs::read("/proc/cpuinfo").unwrap().len();
    let ran = folder.myapp(["cat", "empty", "/proc/cpuinfo"]).run().code(0).silent();
    assert!(ran.stdout.len().abs_diff(wanted) < 1000 && wanted > 0);
    let page = fs::read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if !page.is_empty() {
        folder
            .myapp(["cat", "/sys/kernel/mm/transparent_hugepage/enabled"])
            .run()
            .code(0)
            .prints(page);
    }
}

#[test]
fn an_input_without_end_ends_with_its_reader() {
    let folder = Folder::new();
    let script = "truncate -s 1T sparse
        $MYAPP cat /dev/zero | head -c 10 | wc -c; echo ${PIPESTATUS[0]}
        $MYAPP cat sparse | head -c 1 | wc -c; echo ${PIPESTATUS[0]}
        $MYAPP cat -n /dev/zero | head -c 10 | wc -c; echo ${PIPESTATUS[0]}";
    let output = shell(&folder, script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "10\n141\n1\n141\n10\n141\n");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_full_output_is_blamed_on_the_output() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 300_000]);
    for script in [
        "$MYAPP cat a > /dev/full",
        "$MYAPP cat -n a > /dev/full",
        "echo x | $MYAPP cat > /dev/full",
        "(ulimit -f 100; trap '' XFSZ; $MYAPP cat a > out)",
    ] {
        let output = shell(&folder, script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {text}");
        assert!(text.starts_with("myapp: write error: "), "{script}: {text}");
        assert!(text.contains("No space left") || text.contains("File too large"), "{text}");
    }
}

#[test]
fn after_a_failed_write_the_old_file_is_there_and_nothing_beside() {
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
fn an_input_that_is_also_the_output_does_not_feed_on_itself() {
    let folder = Folder::new();
    for (script, file, content, code) in [
        ("$MYAPP cat a >> a", "a", "aaa\n", 1),
        ("$MYAPP cat b a >> a", "a", "aaa\nb\n", 1),
        ("$MYAPP cat a b >> a", "a", "aaa\nb\n", 1),
        ("$MYAPP cat -a -o a a b", "a", "aaa\nb\n", 1),
        ("ln a hard; ln -s hard soft; $MYAPP cat soft b >> a", "a", "aaa\nb\n", 1),
        ("$MYAPP cat b c > c", "c", "b\n", 1),
        ("$MYAPP cat a b 1<>a", "a", "aaa\nb\n", 0),
        ("$MYAPP cat -n a b 1<>a", "a", "     1\tb\n", 1),
        ("$MYAPP cat e b >> e", "e", "b\n", 0),
        ("$MYAPP cat a >> $(readlink -f /dev/null)", "a", "aaa\n", 0),
        ("$MYAPP cat -o a a b", "a", "aaa\nb\n", 0),
        ("$MYAPP cat -o a b a a", "a", "b\naaa\naaa\n", 0),
    ] {
        shell(&folder, "rm -f *; echo aaa > a; echo b > b; echo c > c; : > e");
        let output = shell(&folder, script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{script}: {text}");
        assert_eq!(text.contains(": input file is output file\n"), code == 1, "{script}: {text}");
        assert_eq!(String::from_utf8_lossy(&folder.read(file)), content, "{script}");
    }
}

#[test]
fn a_pipe_that_is_input_and_output_is_refused() {
    let folder = Folder::new();
    fifo(&folder, "f");
    let output = shell(&folder, "exec 3<>f; echo x >&3; timeout 20 $MYAPP cat <&3 >&3");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "myapp: standard input: input file is output file\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn closed_streams_end_nothing_badly() {
    let folder = Folder::new();
    folder.write("a", "a");
    // The standard library opens /dev/null in their place, so that no file gets their number.
    let output = shell(&folder, "$MYAPP cat - a <&-");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"a"[..]), "{output:?}");
    let output = shell(&folder, "$MYAPP cat a >&-; echo $?; $MYAPP cat -o b a >&- 2>&-; cat b");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\na");
}

#[test]
fn the_output_keeps_the_mode_and_the_links_of_the_old_one() {
    let folder = Folder::new();
    folder.write("a", "new");
    folder.write("real", "old");
    fs::set_permissions(folder.path("real"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(folder.path("sub")).unwrap();
    symlink("../real", folder.path("sub/link")).unwrap();
    folder.myapp(["cat", "--fsync", "-o", "sub/link", "a"]).run().code(0).prints("").silent();
    assert_eq!(folder.read("real"), b"new");
    let mode = |name: &str| fs::metadata(folder.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("real"), 0o640);
    assert!(folder.path("sub/link").is_symlink());

    symlink("made", folder.path("dangling")).unwrap();
    folder.myapp(["cat", "-o", "dangling", "a"]).run().code(0).silent();
    assert_eq!(folder.read("made"), b"new");
    assert_eq!(mode("made"), mode("a"), "as any new file");
    assert_eq!(folder.names(), ["a", "dangling", "made", "real", "sub"]);
}

#[test]
fn the_owner_of_the_old_file_stays_the_owner() {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    if std::os::unix::fs::chown(&old, Some(12345), Some(12346)).is_err() {
        eprintln!("only root can give a file to another owner: nothing to see here");
        return;
    }
    fs::set_permissions(&old, fs::Permissions::from_mode(0o4755)).unwrap();
    folder.myapp(["cat", "-o", "out", "a"]).run().code(0).silent();
    let new = fs::metadata(old).unwrap();
    assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (12345, 12346, 0o4755));
}

#[test]
fn the_output_appears_only_when_it_is_whole() {
    let folder = Folder::new();
    fifo(&folder, "f");
    folder.write("out", "old");
    let running = folder.myapp(["cat", "-o", "out", "f"]).start();
    let mut f = OpenOptions::new().write(true).open(folder.path("f")).unwrap();
    f.write_all(b"new").unwrap();
    until("the new file grows beside", || size_beside(&folder) == 3);
    assert_eq!(folder.read("out"), b"old");
    drop(f);
    running.wait().code(0).silent();
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(folder.names(), ["f", "out"]);
}

/// The size of the temporary file beside `out`.
fn size_beside(folder: &Folder) -> u64 {
    let names = folder.names().into_iter().find(|name| name.starts_with(".out."));
    names.and_then(|name| fs::metadata(folder.path(&name)).ok()).map_or(0, |file| file.len())
}

#[track_caller]
fn start_on_fifo(folder: &Folder) -> (Running, fs::File) {
    fifo(folder, "f");
    folder.write("out", "old");
    let running = folder.myapp(["cat", "-o", "out", "f"]).start();
    let mut f = OpenOptions::new().write(true).open(folder.path("f")).unwrap();
    f.write_all(b"new").unwrap();
    until("the new file grows beside", || size_beside(folder) == 3);
    (running, f)
}

#[test]
fn a_signal_leaves_the_old_file_and_nothing_beside() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = Folder::new();
        let (running, _f) = start_on_fifo(&folder);
        running.signal(signal);
        running.wait().code(code).silent();
        assert_eq!(folder.read("out"), b"old");
        assert_eq!(folder.names(), ["f", "out"]);
    }
}

#[test]
fn a_fifo_that_nobody_opens_is_left_by_a_signal() {
    let folder = Folder::new();
    fifo(&folder, "f");
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let running = folder.myapp(["cat", "f"]).start();
        let status = format!("/proc/{}/wchan", running.id());
        until("it waits", || fs::read_to_string(&status).is_ok_and(|at| at.contains("poll")));
        running.signal(signal);
        // Ended by the signal itself, which a shell shows as 130 and 143.
        ended_by(&running.wait(), number);
    }
    let running = folder.myapp(["cat", "-o", "f", "/dev/null"]).start();
    let threads = format!("/proc/{}/task", running.id());
    until("the pool waits for a reader", || {
        let tasks = fs::read_dir(&threads).unwrap().flatten();
        let mut states = tasks.map(|task| fs::read_to_string(task.path().join("wchan")));
        states.any(|at| at.is_ok_and(|at| at.contains("partner")))
    });
    running.signal(Signal::INT);
    running.wait().code(130).silent();
}

#[test]
fn appended_bytes_come_behind_the_old_ones() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.myapp(["cat", "-a", "-o", "out", "a"]).run().code(0).silent();
    folder.myapp(["cat", "-a", "--fsync", "--output", "out", "a", "-"]).stdin("b").run().code(0);
    assert_eq!(folder.read("out"), b"aab");
}

#[test]
fn tee_writes_to_both() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    folder.myapp(["cat", "-n", "--tee", "-o", "out", "a"]).run().code(0).prints("     1\ta\n");
    assert_eq!(folder.read("out"), b"     1\ta\n");
    folder.write("big", vec![b'x'; 1 << 20]);
    let output = shell(&folder, "$MYAPP cat --tee -o out big | true; echo ${PIPESTATUS[0]}");
    assert_eq!(output.stdout, b"141\n");
    assert_eq!(folder.read("out"), b"     1\ta\n");
}

#[test]
fn what_is_no_regular_file_is_written_into() {
    let folder = Folder::new();
    folder.write("a", "a");
    fs::create_dir(folder.path("folder")).unwrap();
    folder.myapp(["cat", "-o", "/dev/null", "a"]).run().code(0).silent();
    assert!(!Path::new("/dev/null").is_file());
    fifo(&folder, "f");
    let running = folder.myapp(["cat", "-o", "f", "a"]).start();
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"a");
    running.wait().code(0).silent();
    let error = "myapp: open folder for writing: Is a directory\n";
    folder.myapp(["cat", "-o", "folder", "a"]).run().code(1).says(error);
    let error = "myapp: open no/out for writing: No such file or directory\n";
    folder.myapp(["cat", "-o", "no/out", "a"]).run().code(1).says(error);
    folder.myapp(["cat", "-o", "/dev/full", "a"]).run().code(1).says("/dev/full: write error: ");
    assert_eq!(folder.names(), ["a", "f", "folder"]);
}

#[test]
fn a_delay_waits_after_each_line_and_other_inputs_come_meanwhile() {
    let folder = Folder::new();
    folder.write("lines", "a\nb\nc\nno end");
    fifo(&folder, "f");
    let start = Instant::now();
    let mut running = folder.myapp(["cat", "--delay", "300ms", "lines", "f"]).start();
    // More than the pipe holds: read while the lines wait.
    let f = OpenOptions::new().write(true).open(folder.path("f"));
    f.unwrap().write_all(&[b'f'; 200_000]).unwrap();
    let filled = start.elapsed();
    assert_eq!(running.line(), "a");
    let ran = running.wait().code(0).silent();
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(filled < Duration::from_millis(800), "{filled:?}");
    let wanted = format!("b\nc\nno end{}", "f".repeat(200_000));
    assert!(ran.text() == wanted, "{}", ran.stdout.len());
}

#[test]
fn as_completed_what_is_ready_comes_first_and_whole() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    ["slow", "quick", "long"].iter().for_each(|name| fifo(&folder, name));
    let arguments = ["cat", "--as-completed", "slow", "no", "long", "quick", "file", "-", "-"];
    let mut running = folder.myapp(arguments).stdin("stdin\n").start();
    let open = |name: &str| OpenOptions::new().write(true).open(folder.path(name)).unwrap();
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
    running.wait().code(1).prints("").says("myapp: open no: No such file");
}

#[test]
fn a_rate_limits_what_is_written() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 60_000]);
    let start = Instant::now();
    let arguments = ["cat", "--limit-rate", "100K", "a", "-"];
    let ran = folder.myapp(arguments).stdin([b'b'; 42_400]).run().code(0).silent();
    let elapsed = start.elapsed();
    assert_eq!(ran.stdout.len(), 102_400);
    assert!(elapsed >= Duration::from_millis(900), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(3000), "{elapsed:?}");
}

#[test]
fn timing_names_each_file_and_the_total() {
    let folder = Folder::new();
    folder.write("a", "abc");
    let ran = folder.myapp(["cat", "--timing", "a", "-", "no"]).stdin("de").run().code(1);
    let ran = ran.prints("abcde").says("myapp: a: opened at 0.0").says(" s, 3 B\n");
    ran.says("myapp: standard input: opened at").says("2 files, 1 failed, 5 B written in ");
    folder.myapp(["cat", "--timing", "-q", "a"]).run().code(0).prints("abc").silent();
}

#[test]
fn progress_is_a_bar_on_a_terminal_and_a_line_elsewhere() {
    let folder = Folder::new();
    folder.write("a", vec![b'a'; 30_000]);
    let ran = folder.myapp(["cat", "--progress", "-o", "out", "a"]).run().code(0).prints("");
    let ran = ran.says("myapp: 1 file, 29.3 KiB written in ");
    assert_eq!(ran.stderr.lines().count(), 1);
    folder.myapp(["cat", "--progress", "-q", "a", "-o", "out"]).run().code(0).silent();
    // `script` gives it a terminal for its stderr.
    let line = "$MYAPP cat --progress --limit-rate 50K -o out a no a; echo $? > code";
    let output = shell(&folder, &format!("script -qc '{line}' /dev/null < /dev/null"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("58.59 KiB") || text.contains(" % "), "{text:?}");
    assert!(text.contains("myapp: open no: No such file"), "{text:?}");
    assert_eq!(folder.read("code"), b"1\n");
    assert_eq!(folder.read("out").len(), 60_000);
}

fn append(folder: &Folder, name: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).open(folder.path(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn followed_files_go_on_whatever_happens_to_them() {
    let folder = Folder::new();
    folder.write("a", "a 1\n");
    folder.write("b", "b 1\n");
    let mut running = folder.myapp(["cat", "-f", "a", "b", "later"]).start();
    let path = |name: &str| folder.path(name);
    assert_eq!([running.line(), running.line()], ["a 1", "b 1"]);
    append(&folder, "a", "a 2\n");
    assert_eq!(running.line(), "a 2");
    append(&folder, "b", "b 2");
    append(&folder, "b", " and on\n");
    assert_eq!(running.line(), "b 2 and on");
    // Cut and written anew.
    fs::write(path("a"), "").unwrap();
    append(&folder, "a", "a\n");
    assert_eq!(running.line(), "a");
    // Renamed and made again; what is written to the old one before is not lost.
    fs::rename(path("a"), path("a.1")).unwrap();
    append(&folder, "a.1", "to the old\n");
    assert_eq!(running.line(), "to the old");
    folder.write("a", "to the new\n");
    assert_eq!(running.line(), "to the new");
    // Replaced by a hard link, then appended to under the other name.
    folder.write("other", "linked\n");
    fs::remove_file(path("b")).unwrap();
    fs::hard_link(path("other"), path("b")).unwrap();
    assert_eq!(running.line(), "linked");
    append(&folder, "other", "by its other name\n");
    assert_eq!(running.line(), "by its other name");
    // Replaced by a rename.
    folder.write("new", "renamed\n");
    fs::rename(path("new"), path("b")).unwrap();
    assert_eq!(running.line(), "renamed");
    // Not there at first.
    folder.write("later", "here\n");
    assert_eq!(running.line(), "here");
    append(&folder, "later", "still\n");
    assert_eq!(running.line(), "still");
    // Deleted while it is open, and made again.
    fs::remove_file(path("later")).unwrap();
    folder.write("later", "back\n");
    assert_eq!(running.line(), "back");
    running.signal(Signal::INT);
    let ran = running.wait();
    ended_by(&ran, 2);
    assert_eq!(ran.stderr, "myapp: open later: No such file or directory\n");
}

#[test]
fn following_costs_nothing_while_nothing_happens_and_ends_with_its_reader() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let script = "$MYAPP cat -f a no 2> err | head -n 1; echo ${PIPESTATUS[0]}";
    assert_eq!(shell(&folder, script).stdout, b"a\n141\n");
    let mut running = folder.myapp(["cat", "--follow", "-n", "-", "a", "no"]).stdin("x").start();
    assert_eq!(running.line(), "     1\txa");
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.id())).unwrap();
        let fields: Vec<_> = stat.split_whitespace().collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let before = ticks();
    thread::sleep(Duration::from_millis(1500));
    assert!(ticks() - before <= 2, "{} ticks", ticks() - before);
    append(&folder, "a", "b\n");
    assert_eq!(running.line(), "     2\tb");
}

#[test]
fn with_nothing_to_follow_the_end_is_the_end() {
    let folder = Folder::new();
    folder.myapp(["cat", "-f"]).stdin("x").run().code(0).prints("x").silent();
    folder.myapp(["cat", "-f", "/dev/null"]).run().code(0).prints("").silent();
}

#[test]
fn options_that_cannot_be_meant_are_usage_errors() {
    let folder = Folder::new();
    folder.write("a", "a");
    for arguments in [
        &["cat", "-x", "a"][..],
        &["cat", "-a", "a"],
        &["cat", "--tee", "a"],
        &["cat", "--fsync", "a"],
        &["cat", "-j", "0", "a"],
        &["cat", "-j", "3", "--sequential", "a"],
        &["cat", "--delay", "soon", "a"],
        &["cat", "-o", "-", "a"],
        &["cat", "--limit-rate", "0", "a"],
        &["cat", "--follow", "-o", "out", "a"],
        &["cat", "--as-completed", "--sequential", "a"],
        &["cat", "--limit-rate", "fast", "a"],
    ] {
        let ran = folder.myapp(arguments).run().code(2).prints("");
        assert!(!ran.stderr.is_empty());
    }
    assert_eq!(folder.names(), ["a"]);
}

#[test]
fn a_log_is_kept_only_when_asked_for() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.myapp(["cat", "a"]).run().code(0).prints("a").silent();
    folder.myapp(["cat", "--verbose", "a"]).run().code(0).prints("a").says("bytes=1");
    folder.myapp(["cat", "--verbose", "--log-file", "log", "a"]).run().code(0).silent();
    assert!(String::from_utf8(folder.read("log")).unwrap().contains("bytes=1"));
    folder.myapp(["cat", "--log-file", "no/log", "a"]).run().code(1).says("open log file no/log");
}

#[test]
fn a_plain_run_starts_no_thread() {
    let folder = Folder::new();
    fifo(&folder, "f");
    let mut running = folder.myapp(["cat", "f"]).start();
    let mut f = OpenOptions::new().write(true).open(folder.path("f")).unwrap();
    f.write_all(b"x\n").unwrap();
    assert_eq!(running.line(), "x");
    let threads = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap().count();
    assert_eq!(threads, 1);
}

#[test]
fn memory_stays_small_whatever_comes() {
    let folder = Folder::new();
    let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| fifo(&folder, name));
    fifo(&folder, "head");
    let mut arguments = vec!["cat", "head"];
    arguments.extend(names.iter().map(String::as_str));
    let running = folder.myapp(arguments).start();
    let head = OpenOptions::new().write(true).open(folder.path("head")).unwrap();
    let writers: Vec<_> = names
        .iter()
        .map(|name| {
            let path = folder.path(name);
            thread::spawn(move || fs::write(path, vec![b'x'; 4 << 20]).unwrap())
        })
        .collect();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    until("all are read ahead", || resident() > 9_000);
    thread::sleep(Duration::from_millis(300));
    assert!(resident() < 40_000, "{} KiB", resident());
    drop(head);
    assert_eq!(running.wait().code(0).stdout.len(), 20 * (4 << 20));
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// The library's face: what a run of these sources into `out` came to.
async fn run(folder: &Folder, sources: &[&str]) -> Result<Report, cat::Error> {
    let sources: Vec<_> = sources.iter().map(|name| Source::Path(folder.path(name))).collect();
    let path = folder.path("out");
    let sink = Sink::File { path, mode: Mode::Replace, fsync: false, tee: None };
    cat::run(sources, Config::default(), sink, |_| {}).await
}

#[test]
fn inputs_that_nobody_writes_to_hold_up_no_other_work() {
    let folder = Folder::new();
    fifo(&folder, "f");
    folder.write("a", "a");
    let others = Folder::new();
    others.write("b", "bb");
    // More runs that wait than the pool has threads.
    let waiting = (0..600).map(|_| Box::pin(run(&folder, &["f", "a"])));
    let mut waiting: Vec<_> = waiting.collect();
    let report = future::block_on(async {
        for run in &mut waiting {
            assert!(future::poll_once(run).await.is_none());
        }
        run(&others, &["b", "b"]).await.unwrap()
    });
    assert_eq!((report.files, report.failed, report.written), (2, 0, 4));
    assert_eq!(others.read("out"), b"bbbb");
}

#[test]
fn a_dropped_run_leaves_the_old_file_and_nothing_beside() {
    let folder = Folder::new();
    fifo(&folder, "f");
    folder.write("a", "a");
    folder.write("out", "old");
    future::block_on(async {
        let mut halfway = Box::pin(run(&folder, &["a", "f"]));
        let start = Instant::now();
        while size_beside(&folder) != 1 {
            assert!(future::poll_once(&mut halfway).await.is_none());
            assert!(start.elapsed() < Duration::from_secs(30), "never got halfway");
        }
        drop(halfway);
    });
    assert_eq!(folder.read("out"), b"old");
    assert_eq!(folder.names(), ["a", "f", "out"]);
}

#[test]
fn a_library_run_counts_what_failed() {
    let folder = Folder::new();
    folder.write("a", "a");
    let report = future::block_on(run(&folder, &["a", "missing", "a"])).unwrap();
    assert_eq!((report.files, report.failed, report.written), (2, 1, 2));
}

#[test]
fn large_files_come_whole_by_every_way() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    for (name, size) in [("big", 9 << 20), ("large", 131_072), ("small", 1000), ("odd", 300_001)] {
        folder.write(name, std::iter::repeat_with(|| random.u8(..)).take(size).collect::<Vec<_>>());
    }
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let other = other.path().join("out").display().to_string();
    let inputs = "big small large small odd - big";
    for output in [
        // A pipe, files here, on another file system and for appending, sockets.
        "$MYAPP cat INPUTS < odd | cat > out",
        "$MYAPP cat INPUTS < odd > out",
        "rm -f out; $MYAPP cat INPUTS < odd >> out",
        "$MYAPP cat INPUTS < odd > OTHER; cp OTHER out",
        "$MYAPP cat -o out INPUTS < odd",
        "$MYAPP cat -o OTHER INPUTS < odd; cp OTHER out",
        "rm -f out; $MYAPP cat -a -o out INPUTS < odd",
        "$MYAPP cat --tee -o out INPUTS < odd | cmp - out",
        // The same from pipes.
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
    assert_eq!(String::from_utf8_lossy(&output.stdout), "130072\n", "{output:?}");
}

#[test]
fn a_pipe_set_to_never_wait_gets_all_bytes() {
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
    thread::sleep(Duration::from_millis(100));
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(all.len(), 10 << 20);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// `hello xz` and a newline, by `xz`.
const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00\x21\x01\x1c\x00\x00\x00\x10\xcfX\xcc\x01\x00\x08hello\x20xz\x0a\x00\x00\x00\x00\xc1I:\xfacR\x14Z\x00\x01\x21\x09l\x18\xc5\xd5\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";

#[test]
fn compressed_inputs_come_as_what_is_in_them() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let text: Vec<_> = (0..3_000_000).map(|_| random.choice(*b"abc\n").unwrap()).collect();
    let (half, rest) = text.split_at(1_000_000);
    folder.write("a.gz", [gzip(half), gzip(b""), gzip(rest)].concat());
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0xyz";
    folder.write("a.zst", [&skipped[..], &zstd(half), skipped, &zstd(rest)].concat());
    folder.write("a.xz", [XZ, &[0; 8], XZ].concat());
    folder.write("plain", "plain\n");
    folder.write("empty", "");
    let arguments = ["cat", "-z", "a.gz", "plain", "a.xz", "empty", "-", "a.zst", "-", "a.gz"];
    let stdin = gzip(b"stdin\n");
    let ran = folder.myapp(arguments).stdin(&stdin).run().code(0).silent();
    let wanted = [&text[..], b"plain\nhello xz\nhello xz\nstdin\n", &text, &text].concat();
    assert!(ran.stdout == wanted, "{} bytes of {}", ran.stdout.len(), wanted.len());

    let ran = folder.myapp(["cat", "-nz", "a.xz", "-o", "out"]).run().code(0);
    ran.silent().prints("");
    assert_eq!(folder.read("out"), b"     1\thello xz\n     2\thello xz\n");
    folder.myapp(["cat", "a.xz"]).run().code(0).prints([XZ, &[0; 8], XZ].concat());
    let script = "$MYAPP cat -z < a.gz | cmp - <($MYAPP cat -z <(cat a.zst))";
    let output = shell(&folder, script);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shell(&folder, "$MYAPP cat -z a.gz | head -c 1 | wc -c").stdout, b"1\n");
}

#[test]
fn damaged_data_is_named_and_the_others_come() {
    let folder = Folder::new();
    let broken = |mut bytes: Vec<u8>| {
        let middle = bytes.len() - 7;
        bytes[middle] ^= 0x55;
        bytes
    };
    let text = b"some text\n".repeat(100);
    for (name, whole) in [("gzip", gzip(&text)), ("zstd", zstd(&text)), ("xz", XZ.to_vec())] {
        folder.write("cut", &whole[..whole.len() - 5]);
        folder.write("broken", broken(whole.clone()));
        folder.write("followed", [&whole[..], b"garbage"].concat());
        folder.write("good", gzip(b"good\n"));
        for file in ["cut", "broken", "followed"] {
            let ran = folder.myapp(["cat", "-z", file, "good"]).run().code(1);
            assert!(ran.stdout.ends_with(b"good\n"), "{name} {file}");
            let ran = ran.says(&format!("myapp: read {file}: ")).says(&format!("{name} data"));
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        }
    }
}

#[test]
#[ignore = "needs gzip, zstd and xz"]
fn what_the_usual_programs_write_is_read() {
    let folder = Folder::new();
    let script = "set -e -o pipefail; seq 200000 > a
        for c in 'gzip -1' 'gzip -9' 'zstd -1' 'zstd -19 --long=27' 'xz -0' 'xz -9e' 'xz -T2'; do
            $c -c a > a.z; { cat a.z; $c -c a; } > b.z
            $MYAPP cat -z a.z b.z | cmp - <(cat a a a) || { echo \"$c\"; exit 1; }
            $MYAPP cat -z <(cat a.z) <(sleep 0.1; cat b.z) | cmp - <(cat a a a)
        done";
    let output = shell(&folder, script);
    assert!(output.status.success(), "{output:?}");
}
