//! Cost of a run: system calls, threads, memory.

use std::collections::BTreeMap;

use super::*;

/// Returns the number of system calls of `$CAT` in a shell script, by name.
#[track_caller]
fn count_calls(folder: &Folder, script: &str) -> BTreeMap<String, u64> {
    let cat = "strace -f -c -U calls,name -o counts $MYAPP cat";
    let output = shell(folder, &script.replace("$CAT", cat));
    assert!(output.status.success(), "{script}: {output:?}");
    let counts = String::from_utf8(folder.read("counts")).unwrap();
    let rows = counts.lines().filter_map(|row| row.trim().split_once(' '));
    rows.filter_map(|(count, name)| Some((name.trim().to_owned(), count.parse().ok()?)))
        .collect()
}

/// Returns the difference of two counts.
fn additional_calls(
    many: &BTreeMap<String, u64>,
    few: &BTreeMap<String, u64>,
) -> BTreeMap<String, i64> {
    let names = many.keys().chain(few.keys());
    let count = |of: &BTreeMap<String, u64>, name| of.get(name).copied().unwrap_or(0) as i64;
    names
        .map(|name| (name.clone(), count(many, name) - count(few, name)))
        .collect()
}

#[test]
#[ignore = "peer: strace"]
fn small_file_costs_six_system_calls() {
    let folder = Folder::new();
    shell(
        &folder,
        "for n in $(seq 1001); do head -c 100 /dev/zero > $n; done",
    );
    for to in ["> out", "> /dev/null", "| cat > /dev/null"] {
        let few = count_calls(&folder, &format!("$CAT 1 {to}"));
        let many = count_calls(&folder, &format!("$CAT $(seq 1001) {to}"));
        let more = additional_calls(&many, &few);
        let counts = |names: &[&str]| names.iter().filter_map(|name| more.get(*name)).sum::<i64>();
        assert_eq!(counts(&["open", "openat"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["fstat", "newfstatat"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["fadvise64"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["read"]), 2000, "{to}: {more:?}");
        assert_eq!(counts(&["close"]), 1000, "{to}: {more:?}");
        assert_eq!(
            counts(&["write"]),
            0,
            "{to}: one write for all files: {more:?}"
        );
        // The rest is memory for the longer list. A debug build calls fcntl before each close.
        let all = counts(&["total"]) - counts(&["fcntl"]);
        assert!((6000..6030).contains(&all), "{to}: {more:?}");
    }
}

#[test]
#[ignore = "peer: strace"]
fn large_file_costs_one_system_call_per_4_mib() {
    let folder = Folder::new();
    folder.write("small", "");
    folder.write("large", vec![b'x'; 64 << 20]);
    // 16 calls of 4 MiB, and one at the end of the file, which a read then confirms.
    for (to, by) in [("> out", "copy_file_range"), ("> /dev/null", "sendfile")] {
        let few = count_calls(&folder, &format!("$CAT small {to}"));
        let large = count_calls(&folder, &format!("$CAT large {to}"));
        let more = additional_calls(&large, &few);
        assert_eq!((more[by], more["total"]), (17, 17), "{more:?}");
    }
    // Each 256 KiB fill the intermediate pipe once, and take one or more calls to the reader's pipe.
    let pipe = count_calls(&folder, "$CAT large | cat > /dev/null");
    let rounds = (64 << 20) / (256 << 10);
    assert!(
        (2 * rounds..3 * rounds).contains(&pipe["splice"]),
        "{pipe:?}"
    );
    assert!(!pipe.contains_key("write"), "{pipe:?}");
}

#[test]
#[ignore = "peer: strace"]
fn plain_run_creates_no_reactor_or_pipe() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let plain = count_calls(&folder, "$CAT a > out");
    for call in [
        "clone",
        "clone3",
        "epoll_create1",
        "eventfd2",
        "socket",
        "pipe2",
        "fadvise64",
    ] {
        assert!(!plain.contains_key(call), "{call}: {plain:?}");
    }
    assert_eq!(plain["write"], 1, "{plain:?}");
}

#[test]
#[ignore = "peer: strace"]
fn compressed_files_are_read_without_threads_or_pipes() {
    let folder = Folder::new();
    for number in 0..20 {
        folder.write(&format!("{number}.gz"), decompress::gzip(b"text\n"));
    }
    let calls = count_calls(&folder, "$CAT -z *.gz > out");
    for call in ["clone", "clone3", "pipe2"] {
        assert!(!calls.contains_key(call), "{call}: {calls:?}");
    }
    assert_eq!(folder.read("out"), b"text\n".repeat(20));
}

#[test]
fn plain_run_starts_no_thread() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    let mut running = folder.myapp(["cat", "f"]).start();
    let mut f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    f.write_all(b"x\n").unwrap();
    assert_eq!(running.line(), "x");
    let threads = fs::read_dir(format!("/proc/{}/task", running.id()))
        .unwrap()
        .count();
    assert_eq!(threads, 1);
}

#[test]
fn read_ahead_memory_is_bounded() {
    let folder = Folder::new();
    let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| make_fifo(&folder, name));
    make_fifo(&folder, "head");
    let mut arguments = vec!["cat", "head"];
    arguments.extend(names.iter().map(String::as_str));
    let running = folder.myapp(arguments).start();
    let head = OpenOptions::new()
        .write(true)
        .open(folder.path("head"))
        .unwrap();
    let writers: Vec<_> = names
        .iter()
        .map(|name| {
            let path = folder.path(name);
            thread::spawn(move || fs::write(path, vec![b'x'; 4 << 20]).unwrap())
        })
        .collect();
    wait_until("all inputs are read ahead", || {
        running.peak_memory() > 9_000
    });
    thread::sleep(Duration::from_millis(300));
    assert!(
        running.peak_memory() < 40_000,
        "{} KiB",
        running.peak_memory()
    );
    drop(head);
    assert_eq!(running.wait().code(0).stdout.len(), 20 * (4 << 20));
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
}

#[test]
fn many_small_files_need_little_memory() {
    let folder = Folder::new();
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    names
        .iter()
        .for_each(|name| drop(folder.write(name, format!("{name}\n").repeat(7))));
    make_fifo(&folder, "f");
    let hundred_thousand = names.iter().cycle().take(100_000).map(String::as_str);
    let arguments = ["cat", "-o", "out"]
        .into_iter()
        .chain(hundred_thousand)
        .chain(["f"]);
    let running = folder.myapp(arguments).descriptors(100).start();
    let f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    let once: String = names
        .iter()
        .map(|name| format!("{name}\n").repeat(7))
        .collect();
    let all = once.repeat(1000);
    wait_until("all but the last file are written", || {
        temporary_file_len(&folder, running.id()) > 2_000_000
    });
    let memory = running.peak_memory();
    drop(f);
    running.wait().code(0).prints("").silent();
    assert!(
        folder.read("out") == all.as_bytes(),
        "{} bytes",
        folder.read("out").len()
    );
    assert!(memory < 60_000, "{memory} KiB");
}
