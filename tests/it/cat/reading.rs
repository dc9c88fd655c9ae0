//! Inputs: order, errors, waiting, and endless inputs.

use super::*;

/// A file without read permission, even for root.
const UNREADABLE: &str = "/proc/sys/vm/drop_caches";

#[test]
fn files_are_written_in_argument_order() {
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
fn many_files_fit_a_low_descriptor_limit() {
    let folder = Folder::new();
    let script = "for i in $(seq 2000); do echo $i > $i; done; ulimit -n 20
        $MYAPP cat $(seq 2000) | cmp - <(seq 2000)";
    let output = shell(&folder, script);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.is_empty(),
        "{}",
        text.lines().next().unwrap()
    );
}

#[test]
fn slow_inputs_are_read_concurrently() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    let names = ["one", "two", "three", "four"];
    names.iter().for_each(|name| make_fifo(&folder, name));
    let start = Instant::now();
    let running = folder
        .myapp(["cat", "one", "file", "two", "three", "four"])
        .start();
    let writers = names.map(|name| {
        let path = folder.path(name);
        thread::spawn(move || {
            let mut fifo = OpenOptions::new().write(true).open(path).unwrap();
            // Each writes more than the capacity of a pipe, so it ends only if its pipe is read.
            for _ in 0..6 {
                thread::sleep(Duration::from_millis(200));
                fifo.write_all(&[name.as_bytes()[0]; 30_000]).unwrap();
            }
        })
    });
    let ran = running.wait().code(0).silent();
    let elapsed = start.elapsed();
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    let text = |c: &str| c.repeat(180_000);
    let all = [&text("o"), "file\n", &text("t"), &text("t"), &text("f")].concat();
    assert!(ran.text() == all, "{} bytes", ran.stdout.len());
    assert!(
        elapsed < Duration::from_secs(3),
        "{elapsed:?}, but sequential reading takes 4.8 s"
    );
}

#[test]
fn sequential_opens_one_input_at_a_time() {
    let folder = Folder::new();
    make_fifo(&folder, "one");
    make_fifo(&folder, "two");
    let running = folder.myapp(["cat", "--sequential", "one", "two"]).start();
    let mut one = OpenOptions::new()
        .write(true)
        .open(folder.path("one"))
        .unwrap();
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let open = || rustix::fs::open(folder.path("two"), flags, rustix::fs::Mode::empty());
    one.write_all(b"1").unwrap();
    assert_eq!(
        open().err(),
        Some(rustix::io::Errno::NXIO),
        "the second is not open yet"
    );
    drop(one);
    wait_until("the second is open", || open().is_ok());
    running.wait().code(0).prints("1");
}

#[test]
fn as_completed_writes_complete_files_as_ready() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    ["slow", "quick", "long"]
        .iter()
        .for_each(|name| make_fifo(&folder, name));
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
    let mut slow = open("slow");
    let mut long = open("long");
    let mut quick = open("quick");
    slow.write_all(b"slow 1\n").unwrap();
    quick.write_all(b"quick\n").unwrap();
    drop(quick);
    assert_eq!(running.line(), "quick");
    // More than the read-ahead buffer, so this input is written next, before it has ended.
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
fn fifo_given_twice_is_read_twice_in_order() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
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
fn file_created_before_its_turn_is_read() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    let running = folder.myapp(["cat", "f", "later"]).start();
    let mut f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    f.write_all(b"now ").unwrap();
    folder.write("later", "later");
    drop(f);
    running.wait().code(0).prints("now later").silent();
}

#[test]
fn file_changed_before_its_turn_is_read_as_it_is_then() {
    for (change, expected, code) in [
        ("echo new > t; mv t b", "head\nnew\n", 0),
        ("echo new > b", "head\nnew\n", 0),
        ("echo new >> b", "head\nold\nnew\n", 0),
        ("rm b", "head\n", 1),
        ("true", "head\nold\n", 0),
    ] {
        let folder = Folder::new();
        folder.write("b", "old\n");
        make_fifo(&folder, "f");
        let running = folder.myapp(["cat", "f", "b"]).start();
        let mut f = OpenOptions::new()
            .write(true)
            .open(folder.path("f"))
            .unwrap();
        wait_until("b is open", || {
            let fds = fs::read_dir(format!("/proc/{}/fd", running.id())).unwrap();
            let mut links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
            links.any(|link| link == folder.path("b"))
        });
        assert!(shell(&folder, change).status.success());
        f.write_all(b"head\n").unwrap();
        drop(f);
        running.wait().code(code).prints(expected);
    }
}

#[test]
fn truncated_file_gives_no_nul_bytes() {
    let folder = Folder::new();
    let path = folder.write("big", vec![b'x'; 8 << 20]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_myapp"));
    command.arg("cat").arg(&path).stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let unread = || rustix::io::ioctl_fionread(&reader).unwrap();
    let capacity = || rustix::pipe::fcntl_getpipe_size(&reader).unwrap() as u64;
    wait_until("the pipe is full", || unread() == capacity());
    let in_pipe = unread() as usize;
    // A truncation clears bytes in the pipe, but no others.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(in_pipe as u64 + 1000).unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(all.len(), in_pipe + 1000);
    assert!(all.iter().all(|byte| *byte == b'x'));
}

#[test]
fn slow_pipe_is_not_buffered() {
    for flags in [&["cat"][..], &["cat", "-n"], &["cat", "-v"]] {
        let folder = Folder::new();
        make_fifo(&folder, "f");
        let mut running = folder.myapp([flags, &["f"]].concat()).start();
        let mut f = OpenOptions::new()
            .write(true)
            .open(folder.path("f"))
            .unwrap();
        f.write_all(b"hello\n").unwrap();
        assert!(running.line().ends_with("hello"), "{flags:?}");
        drop(f);
        running.wait().code(0);
    }
}

#[test]
fn unreadable_inputs_are_reported_and_skipped() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.write("b", "b");
    fs::create_dir(folder.path("folder")).unwrap();
    folder
        .myapp([
            "cat",
            "a",
            "missing",
            "b",
            "folder",
            "a",
            "/proc/self/mem",
            "b",
            UNREADABLE,
        ])
        .run()
        .code(1)
        .prints("abab")
        .says(&format!("myapp: open {UNREADABLE}: Permission denied\n"))
        .says("myapp: open missing: No such file or directory\n")
        .says("myapp: open folder: Is a directory\n")
        .says("myapp: read /proc/self/mem: Input/output error\n");
}

#[test]
fn errors_and_output_appear_in_order() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let output = shell(&folder, "$MYAPP cat a missing a 2>&1");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text,
        "a\nmyapp: open missing: No such file or directory\na\n"
    );
}

#[test]
fn unusual_names_are_read_and_escaped_in_errors() {
    let folder = Folder::new();
    shell(
        &folder,
        r"printf dash > ./-; printf minus > ./-n; printf odd > $'\xff\n'",
    );
    let output = shell(&folder, r"$MYAPP cat ./- $'\xff\n' -- -n < /dev/null");
    assert_eq!(output.stdout, b"dashoddminus", "{output:?}");
    let output = shell(&folder, r"$MYAPP cat $'\xfe\n\e[2J'");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        text,
        "myapp: open \\xfe\\n\\x1b[2J: No such file or directory\n"
    );
}

#[test]
fn stdin_is_read_from_its_current_position() {
    let folder = Folder::new();
    folder.write("lines", "one\ntwo\nthree\n");
    let script = "{ read first; $MYAPP cat -n - -; } < lines";
    assert_eq!(
        shell(&folder, script).stdout,
        b"     1\ttwo\n     2\tthree\n"
    );
    folder
        .myapp(["cat", "-", "lines", "-"])
        .stdin("in\n")
        .run()
        .prints("in\none\ntwo\nthree\n");
}

#[test]
fn files_without_a_size_are_read_to_the_end() {
    let folder = Folder::new();
    folder.write("empty", "");
    let expected = fs::read("/proc/cpuinfo").unwrap().len();
    let ran = folder
        .myapp(["cat", "empty", "/proc/cpuinfo"])
        .run()
        .code(0)
        .silent();
    assert!(ran.stdout.len().abs_diff(expected) < 1000 && expected > 0);
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
fn endless_input_ends_with_its_reader() {
    let folder = Folder::new();
    let script = "truncate -s 1T sparse
        $MYAPP cat /dev/zero | head -c 10 | wc -c; echo ${PIPESTATUS[0]}
        $MYAPP cat sparse | head -c 1 | wc -c; echo ${PIPESTATUS[0]}
        $MYAPP cat -n /dev/zero | head -c 10 | wc -c; echo ${PIPESTATUS[0]}";
    let output = shell(&folder, script);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "10\n141\n1\n141\n10\n141\n"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn signal_ends_a_wait_for_a_fifo() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let running = folder.myapp(["cat", "f"]).start();
        wait_until("the FIFO is open", || running.has_open(&folder.path("f")));
        running.signal(signal);
        // Killed by the signal; a shell reports 130 and 143.
        assert_killed_by(&running.wait(), number);
    }
    let running = folder.myapp(["cat", "-o", "f", "/dev/null"]).start();
    wait_until("the program waits for a reader", || {
        running.catches(Signal::INT) && running.sleeps()
    });
    running.signal(Signal::INT);
    running.wait().code(130).silent();
}
