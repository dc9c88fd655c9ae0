//! Inputs: their order, their errors, what waits and what never ends.

use super::*;

/// A file that can only be written.
const FORBIDDEN: &str = "/proc/sys/vm/drop_caches";

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
    assert!(
        output.status.success() && text.is_empty(),
        "{}",
        text.lines().next().unwrap()
    );
}

#[test]
fn slow_inputs_are_read_at_the_same_time() {
    let folder = Folder::new();
    folder.write("file", "file\n");
    let names = ["one", "two", "three", "four"];
    names.iter().for_each(|name| fifo(&folder, name));
    let start = Instant::now();
    let running = folder
        .myapp(["cat", "one", "file", "two", "three", "four"])
        .start();
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
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    let text = |c: &str| c.repeat(180_000);
    let all = [&text("o"), "file\n", &text("t"), &text("t"), &text("f")].concat();
    assert!(ran.text() == all, "{} bytes", ran.stdout.len());
    assert!(
        elapsed < Duration::from_secs(3),
        "one after another takes 4.8 s, this {elapsed:?}"
    );
}

#[test]
fn one_after_another_a_slow_input_waits_for_its_turn() {
    let folder = Folder::new();
    fifo(&folder, "one");
    fifo(&folder, "two");
    let running = folder.myapp(["cat", "--sequential", "one", "two"]).start();
    let mut one = OpenOptions::new()
        .write(true)
        .open(folder.path("one"))
        .unwrap();
    let no_wait = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let open = || rustix::fs::open(folder.path("two"), no_wait, rustix::fs::Mode::empty());
    one.write_all(b"1").unwrap();
    assert_eq!(
        open().err(),
        Some(rustix::io::Errno::NXIO),
        "nobody reads the second yet"
    );
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
fn the_first_bytes_of_a_slow_pipe_appear_at_once() {
    for flags in [&["cat"][..], &["cat", "-n"], &["cat", "-v"]] {
        let folder = Folder::new();
        fifo(&folder, "f");
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
fn what_cannot_be_read_is_named_and_the_others_come() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder.write("b", "b");
    fs::create_dir(folder.path("folder")).unwrap();
    folder
        // Not even root may read the last.
        .myapp([
            "cat",
            "a",
            "missing",
            "b",
            "folder",
            "a",
            "/proc/self/mem",
            "b",
            FORBIDDEN,
        ])
        .run()
        .code(1)
        .prints("abab")
        .says(&format!("myapp: open {FORBIDDEN}: Permission denied\n"))
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
    assert_eq!(
        text,
        "a\nmyapp: open missing: No such file or directory\na\n"
    );
}

#[test]
fn names_of_all_kinds_are_names() {
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
fn stdin_goes_on_where_it_stands() {
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
fn files_that_do_not_tell_their_size_are_read_to_the_end() {
    let folder = Folder::new();
    folder.write("empty", "");
    let wanted = fs::read("/proc/cpuinfo").unwrap().len();
    let ran = folder
        .myapp(["cat", "empty", "/proc/cpuinfo"])
        .run()
        .code(0)
        .silent();
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
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "10\n141\n1\n141\n10\n141\n"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_fifo_that_nobody_opens_is_left_by_a_signal() {
    let folder = Folder::new();
    fifo(&folder, "f");
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let running = folder.myapp(["cat", "f"]).with_default_signals().start();
        until("it waits", || running.has_open(&folder.path("f")));
        running.signal(signal);
        // Ended by the signal itself, which a shell shows as 130 and 143.
        ended_by(&running.wait(), number);
    }
    let running = folder.myapp(["cat", "-o", "f", "/dev/null"]).start();
    until("it waits for a reader", || {
        running.catches(Signal::INT) && running.sleeps()
    });
    running.signal(Signal::INT);
    running.wait().code(130).silent();
}
