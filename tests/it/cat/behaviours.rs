//! Behaviours that the test suites of GNU, busybox, toybox and uutils check of `cat`, and that of GNU
//! of `tail -F`, beyond the random runs and the other files of this folder.

use std::os::unix::net::UnixListener;

use super::*;

/// Arguments, stdin, stdout and errors of a run.
type Case = (
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static [&'static str],
);

const CASES: &[Case] = &[
    // Options given again, and in any place.
    (&["-vv", "-"], "\t\0\n", "\t^@\n", &[]),
    (&["-TT", "-T"], "\ta", "^Ia", &[]),
    (&["-EE", "-"], "\t\0\n\t", "\t\0$\n\t", &[]),
    (&["-ee", "-e"], "\t\0\n", "\t^@$\n", &[]),
    (&["-tt", "-t"], "\t\0\n", "^I^@\n", &[]),
    (&["-uu"], "hello", "hello", &[]),
    (
        &["-n", "-b", "-n"],
        "\na\n\n\nc",
        "\n     1\ta\n\n\n     2\tc",
        &[],
    ),
    (
        &["-s", "-n", "-"],
        "a\n\n\nb",
        "     1\ta\n     2\t\n     3\tb",
        &[],
    ),
    (&["-n"], "a\r\nb", "     1\ta\r\n     2\tb", &[]),
    (&["-E"], "b\r\n\rc\n\r\n\r", "b^M$\n\rc$\n^M$\n\r", &[]),
    // Empty lines at the end of a file and the start of the next are adjacent.
    (&["blank", "more", "-s"], "", "a\n\nb", &[]),
    (
        &["blank", "empty", "more", "-sb"],
        "",
        "     1\ta\n\n     2\tb",
        &[],
    ),
    // Inputs of all kinds in any order.
    (&["-", "one"], "zero\n", "zero\none\n", &[]),
    (&["one", "-"], "zero\n", "one\nzero\n", &[]),
    (
        &["one", "no", "one"],
        "",
        "one\none\n",
        &["no: No such file or directory"],
    ),
    (
        &["d/e", "one", "-", "no", "blank", "d/e/../e", "d"],
        "in",
        "one\nina\n\n",
        &[
            "d/e: Is a directory",
            "no: No such file or directory",
            "d/e/../e: Is a directory",
            "d: Is a directory",
        ],
    ),
    (
        &["1", "one"],
        "",
        "one\n",
        &["1: Too many levels of symbolic links"],
    ),
];

#[test]
fn small_inputs_give_the_output_of_gnu() {
    let folder = Folder::new();
    folder.write("one", "one\n");
    folder.write("blank", "a\n\n");
    folder.write("more", "\n\nb");
    folder.write("empty", "");
    fs::create_dir_all(folder.path("d/e")).unwrap();
    symlink("2", folder.path("1")).unwrap();
    symlink("1", folder.path("2")).unwrap();
    for (arguments, stdin, stdout, failed) in CASES {
        let line = [&["cat"], *arguments].concat();
        let ran = folder.myapp(line).stdin(stdin).run();
        let errors = failed.iter().map(|error| format!("myapp: open {error}\n"));
        assert_eq!(ran.stderr, errors.collect::<String>(), "{arguments:?}");
        assert_eq!(ran.text(), *stdout, "{arguments:?}");
        ran.code(i32::from(!failed.is_empty()));
    }
}

#[test]
fn sizes_around_those_of_buffers_are_copied() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    for size in [
        0,
        1,
        4096,
        16 << 10,
        64 << 10,
        128 << 10,
        256 << 10,
        1 << 20,
    ] {
        for size in [size.max(1) - 1, size, size + 1] {
            let bytes: Vec<_> = std::iter::repeat_with(|| random.u8(..))
                .take(size)
                .collect();
            folder.write("a", &bytes);
            for arguments in [
                &["a"][..],
                &["-"],
                &["a", "-"],
                &["-u", "-o", "out", "a", "-"],
            ] {
                let line = [&["cat"], arguments].concat();
                let ran = folder.myapp(line).stdin(&bytes).run().code(0).silent();
                let times = arguments
                    .iter()
                    .filter(|name| ["a", "-"].contains(name))
                    .count();
                let found = if arguments.contains(&"out") {
                    folder.read("out")
                } else {
                    ran.stdout
                };
                assert!(found == bytes.repeat(times), "{size} bytes, {arguments:?}");
            }
        }
    }
}

#[test]
fn devices_pipes_and_sockets_are_read() {
    let folder = Folder::new();
    make_fifo(&folder, "fifo");
    symlink("fifo", folder.path("link")).unwrap();
    let running = folder.myapp(["cat", "link"]).start();
    fs::write(folder.path("fifo"), vec![b'x'; 200_000]).unwrap();
    running.wait().code(0).prints(vec![b'x'; 200_000]).silent();
    for (script, expected) in [
        (
            "$MYAPP cat /dev/full | head -c 5000 | tr -d '\\0' | wc -c",
            "0\n",
        ),
        ("$MYAPP cat -A /dev/full | head -c 4", "^@^@"),
        ("$MYAPP cat < /dev/zero | head -c 70000 | wc -c", "70000\n"),
        ("$MYAPP cat /dev/urandom | head -c 70000 | wc -c", "70000\n"),
        // In order, although only one of them can be moved inside the kernel.
        (
            "echo a > a; $MYAPP cat /proc/sys/kernel/ostype a | cat",
            "Linux\na\n",
        ),
        (
            "$MYAPP cat a 2>&1 >> a; $MYAPP cat a",
            "myapp: a: input file is output file\na\n",
        ),
        (
            "$MYAPP cat < a 2>&1 >> a; $MYAPP cat a",
            "myapp: standard input: input file is output file\na\n",
        ),
        (": > b; $MYAPP cat b a >> b; $MYAPP cat b", "a\n"),
        (
            "echo c > c; $MYAPP cat c c a 2> err >> c; cat c; wc -l < err",
            "c\na\n2\n",
        ),
        (
            "for mode in '>' '>>'; do echo x | eval \"$MYAPP cat $mode /dev/full\" 2>&1; echo $?; done",
            "myapp: write error: No space left on device\n1\nmyapp: write error: No space left on device\n1\n",
        ),
        ("echo x | $MYAPP cat >> /dev/null; echo $?", "0\n"),
    ] {
        let output = shell(&folder, script);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{script}"
        );
    }
    let _listener = UnixListener::bind(folder.path("socket")).unwrap();
    let ran = folder
        .myapp(["cat", "socket", "a"])
        .run()
        .code(1)
        .prints("a\n");
    assert_eq!(
        ran.stderr,
        "myapp: open socket: No such device or address\n"
    );
}

/// Follows `names` with labels, stdout and stderr together.
fn follow(folder: &Folder, names: &[&str]) -> Running {
    let mut shell = Command::new("bash");
    shell.args(["-c", r#"exec "$0" "$@" 2>&1"#]);
    let arguments = [&["cat", "-f", "--label"], names].concat();
    folder.myapp(arguments).through(shell).start()
}

#[track_caller]
fn assert_lines(running: &mut Running, lines: &[&str]) {
    for line in lines {
        assert_eq!(running.line(), *line);
    }
}

#[test]
fn changes_during_a_stop_are_grouped_by_file() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    folder.write("b", "b\n");
    let mut running = follow(&folder, &["a", "b"]);
    assert_lines(&mut running, &["==> a <==", "a", "", "==> b <==", "b"]);
    running.signal(Signal::STOP);
    wait_until("the program is stopped", || running.is_stopped());
    for name in ["a", "b", "a", "b"] {
        let mut file = OpenOptions::new()
            .append(true)
            .open(folder.path(name))
            .unwrap();
        file.write_all(b"line\n").unwrap();
    }
    running.signal(Signal::CONT);
    let lines = [
        "",
        "==> a <==",
        "line",
        "line",
        "",
        "==> b <==",
        "line",
        "line",
    ];
    assert_lines(&mut running, &lines);
}

#[test]
fn missing_files_get_their_headers() {
    let folder = Folder::new();
    let mut running = follow(&folder, &["a", "b"]);
    let missing = |name| format!("myapp: open {name}: No such file or directory");
    assert_lines(&mut running, &[&missing("a"), &missing("b")]);
    for (name, separator) in [("a", None), ("b", Some(""))] {
        folder.write("new", format!("{name}\n"));
        fs::rename(folder.path("new"), folder.path(name)).unwrap();
        let appeared = format!("myapp: {name}: has appeared, following the file");
        assert_eq!(running.line(), appeared);
        separator
            .into_iter()
            .for_each(|line| assert_eq!(running.line(), line));
        assert_lines(&mut running, &[&format!("==> {name} <=="), name]);
    }
}

#[test]
fn file_renamed_to_another_followed_name_is_followed_there() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    folder.write("b", "b\n");
    let mut running = follow(&folder, &["a", "b"]);
    assert_lines(&mut running, &["==> a <==", "a", "", "==> b <==", "b"]);
    fs::rename(folder.path("a"), folder.path("b")).unwrap();
    let mut reports = [running.line(), running.line()];
    reports.sort();
    assert_eq!(
        reports[0],
        "myapp: a: has become inaccessible: No such file or directory"
    );
    assert_eq!(reports[1], "myapp: b: replaced, following the new file");
    // Without a header: the last bytes were also of `b`.
    assert_lines(&mut running, &["a"]);
    folder.write("new", "new\n");
    fs::rename(folder.path("new"), folder.path("a")).unwrap();
    let appeared = "myapp: a: has appeared, following the file";
    assert_lines(&mut running, &[appeared, "", "==> a <==", "new"]);
}

#[test]
fn directory_that_becomes_a_file_is_followed() {
    let folder = Folder::new();
    fs::create_dir(folder.path("a")).unwrap();
    let mut running = follow(&folder, &["a"]);
    assert_lines(&mut running, &["myapp: open a: Is a directory"]);
    fs::remove_dir(folder.path("a")).unwrap();
    folder.write("a", "a\n");
    assert_lines(
        &mut running,
        &[
            "myapp: a: has appeared, following the file",
            "==> a <==",
            "a",
        ],
    );
}

#[test]
fn followed_link_leads_to_its_new_target() {
    let folder = Folder::new();
    folder.write("1", "1\n");
    symlink("1", folder.path("link")).unwrap();
    let mut running = folder.myapp(["cat", "-f", "link"]).start();
    assert_eq!(running.line(), "1");
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.path("1"))
        .unwrap();
    file.write_all(b"more\n").unwrap();
    assert_eq!(running.line(), "more");
    folder.write("2", "2\n");
    symlink("2", folder.path("new")).unwrap();
    fs::rename(folder.path("new"), folder.path("link")).unwrap();
    assert_eq!(running.line(), "2");
    // The target is replaced, but not the link.
    folder.write("new", "replaced\n");
    fs::rename(folder.path("new"), folder.path("2")).unwrap();
    assert_eq!(running.line(), "replaced");
}

#[test]
fn tail_of_nothing_and_of_a_huge_file_is_found() {
    let folder = Folder::new();
    folder.write("a", "old\n");
    let huge = folder.path("huge");
    let mut file = fs::File::create(&huge).unwrap();
    file.set_len(5 << 30).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\nlast\n").unwrap();
    let mut running = folder.myapp(["cat", "-f", "--tail", "1", "huge"]).start();
    assert_eq!(running.line(), "last");
    let mut running = folder
        .myapp(["cat", "-f", "--tail", "0", "a", "no"])
        .start();
    let is_open = || running.has_open(&folder.path("a"));
    wait_until("the file is open", is_open);
    // It may be open, but not yet at its end.
    wait_until("the program waits", || running.sleeps());
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.path("a"))
        .unwrap();
    file.write_all(b"new\n").unwrap();
    assert_eq!(running.line(), "new");
}

#[test]
fn follow_of_a_closed_stdin_ends() {
    let folder = Folder::new();
    let output = shell(&folder, "$MYAPP cat -f <&-");
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
}
