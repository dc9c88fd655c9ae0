//! What reading costs: system calls, threads, memory.

use std::collections::BTreeMap;

use super::*;

/// The system calls of a line of shell in which `$CAT` is ours, by their names.
#[track_caller]
fn calls(folder: &Folder, line: &str) -> BTreeMap<String, u64> {
    let cat = "strace -f -c -U calls,name -o counts $MYAPP cat";
    let output = shell(folder, &line.replace("$CAT", cat));
    assert!(output.status.success(), "{line}: {output:?}");
    let counts = String::from_utf8(folder.read("counts")).unwrap();
    let rows = counts.lines().filter_map(|row| row.trim().split_once(' '));
    rows.filter_map(|(count, name)| Some((name.trim().to_owned(), count.parse().ok()?)))
        .collect()
}

/// Those of one run that another does not have.
fn more(many: &BTreeMap<String, u64>, few: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    let names = many.keys().chain(few.keys());
    let count = |of: &BTreeMap<String, u64>, name| of.get(name).copied().unwrap_or(0) as i64;
    names
        .map(|name| (name.clone(), count(many, name) - count(few, name)))
        .collect()
}

#[test]
#[ignore = "peer: strace"]
fn a_small_file_costs_six_system_calls_and_a_part_of_a_write() {
    let folder = Folder::new();
    shell(
        &folder,
        "for n in $(seq 1001); do head -c 100 /dev/zero > $n; done",
    );
    for to in ["> out", "> /dev/null", "| cat > /dev/null"] {
        let few = calls(&folder, &format!("$CAT 1 {to}"));
        let more = more(&calls(&folder, &format!("$CAT $(seq 1001) {to}")), &few);
        let counts = |names: &[&str]| names.iter().filter_map(|name| more.get(*name)).sum::<i64>();
        assert_eq!(counts(&["open", "openat"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["fstat", "newfstatat"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["fadvise64"]), 1000, "{to}: {more:?}");
        assert_eq!(counts(&["read"]), 2000, "{to}: {more:?}");
        assert_eq!(counts(&["close"]), 1000, "{to}: {more:?}");
        assert_eq!(
            counts(&["write"]),
            0,
            "{to}: all of them are one write: {more:?}"
        );
        // The rest is memory for the longer list. (A debug build looks at what it closes.)
        let all = counts(&["total"]) - counts(&["fcntl"]);
        assert!((6000..6030).contains(&all), "{to}: {more:?}");
    }
}

#[test]
#[ignore = "peer: strace"]
fn a_large_file_costs_a_system_call_for_each_four_mebibytes() {
    let folder = Folder::new();
    folder.write("small", "");
    folder.write("large", vec![b'x'; 64 << 20]);
    // One more finds the end, which a read then confirms.
    for (to, by) in [("> out", "copy_file_range"), ("> /dev/null", "sendfile")] {
        let few = calls(&folder, &format!("$CAT small {to}"));
        let more = more(&calls(&folder, &format!("$CAT large {to}")), &few);
        assert_eq!((more[by], more["total"]), (17, 17), "{more:?}");
    }
    // Into our own pipe as much as it holds, and from there to the reader's, as there is room.
    let pipe = calls(&folder, "$CAT large | cat > /dev/null");
    let rounds = (64 << 20) / (256 << 10);
    assert!(
        (2 * rounds..3 * rounds).contains(&pipe["splice"]),
        "{pipe:?}"
    );
    assert!(!pipe.contains_key("write"), "{pipe:?}");
}

#[test]
#[ignore = "peer: strace"]
fn a_plain_run_starts_nothing_that_it_does_not_need() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let plain = calls(&folder, "$CAT a > out");
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
fn a_plain_run_starts_no_thread() {
    let folder = Folder::new();
    fifo(&folder, "f");
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
fn memory_stays_small_whatever_comes() {
    let folder = Folder::new();
    let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| fifo(&folder, name));
    fifo(&folder, "head");
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
    until("all are read ahead", || running.peak_memory() > 9_000);
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
fn a_hundred_thousand_small_files_take_few_descriptors_and_little_memory() {
    let folder = Folder::new();
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    names
        .iter()
        .for_each(|name| drop(folder.write(name, format!("{name}\n").repeat(7))));
    fifo(&folder, "f");
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
    until("all but the last are written", || {
        size_of_new(&folder, running.id()) > 2_000_000
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
