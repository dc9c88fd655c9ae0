//! Followed files.

use super::*;

fn append(folder: &Folder, name: &str, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.path(name))
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Follows these files, after creating the first ones with their name as a line.
#[track_caller]
fn follow(existing: &[&str], missing: &[&str]) -> (Folder, Running) {
    let folder = Folder::new();
    existing
        .iter()
        .for_each(|name| drop(folder.write(name, format!("{name}\n"))));
    let arguments = [&["cat", "-f"], existing, missing].concat();
    let mut running = folder.myapp(arguments).start();
    existing
        .iter()
        .for_each(|name| assert_eq!(running.line(), *name));
    (folder, running)
}

#[test]
fn appended_lines_of_several_files_are_followed() {
    let (folder, mut running) = follow(&["a", "b", "c"], &[]);
    for round in 0..20 {
        for name in ["b", "a", "c"] {
            let line = format!("{name} {round}");
            append(&folder, name, &format!("{line}\n"));
            assert_eq!(running.line(), line);
        }
    }
    append(&folder, "b", "half a line");
    append(&folder, "b", " and the other\n");
    assert_eq!(running.line(), "half a line and the other");
    // With concurrent writers, the lines of each file are complete and in order.
    let writers = ["a", "b", "c"].map(|name| {
        let path = folder.path(name);
        thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            (0..1000).for_each(|n| file.write_all(format!("{name}{n}\n").as_bytes()).unwrap());
        })
    });
    let mut next = [0; 3];
    for _ in 0..3000 {
        let line = running.line();
        let file = usize::from(line.as_bytes()[0] - b'a');
        assert_eq!(line[1..], next[file].to_string(), "{line}");
        next[file] += 1;
    }
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    running.signal(Signal::INT);
    let ran = running.wait();
    assert_killed_by(&ran, 2);
    ran.silent();
}

#[test]
fn truncated_file_is_read_from_its_start() {
    let (folder, mut running) = follow(&["a"], &[]);
    append(&folder, "a", "a longer line than the next\n");
    assert_eq!(running.line(), "a longer line than the next");
    fs::write(folder.path("a"), "rewritten\n").unwrap();
    assert_eq!(running.line(), "rewritten");
    append(&folder, "a", "more\n");
    assert_eq!(running.line(), "more");
    // Copied and truncated, as log rotation does.
    fs::copy(folder.path("a"), folder.path("a.1")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(folder.path("a"))
        .unwrap()
        .set_len(0)
        .unwrap();
    append(&folder, "a", "truncated\n");
    assert_eq!(running.line(), "truncated");
}

#[test]
fn renamed_file_is_read_to_its_end_before_the_new_one() {
    let (folder, mut running) = follow(&["a"], &[]);
    fs::rename(folder.path("a"), folder.path("a.1")).unwrap();
    append(&folder, "a.1", "to the old\n");
    assert_eq!(running.line(), "to the old");
    folder.write("a", "to the new\n");
    assert_eq!(running.line(), "to the new");
    append(&folder, "a", "more\n");
    assert_eq!(running.line(), "more");
}

#[test]
fn replacement_of_a_followed_file_is_followed() {
    let (folder, mut running) = follow(&["a", "b"], &[]);
    // A hard link, then appended to by its other name.
    folder.write("other", "linked\n");
    fs::remove_file(folder.path("b")).unwrap();
    fs::hard_link(folder.path("other"), folder.path("b")).unwrap();
    assert_eq!(running.line(), "linked");
    append(&folder, "other", "by its other name\n");
    assert_eq!(running.line(), "by its other name");
    // A renamed file.
    folder.write("new", "renamed\n");
    fs::rename(folder.path("new"), folder.path("b")).unwrap();
    assert_eq!(running.line(), "renamed");
    append(&folder, "b", "more\n");
    assert_eq!(running.line(), "more");
    // A symbolic link to another file.
    fs::remove_file(folder.path("a")).unwrap();
    symlink("other", folder.path("a")).unwrap();
    assert_eq!(
        [running.line(), running.line()],
        ["linked", "by its other name"]
    );
}

#[test]
fn followed_file_may_appear_and_reappear() {
    let (folder, mut running) = follow(&["a"], &["later"]);
    folder.write("later", "here\n");
    assert_eq!(running.line(), "here");
    append(&folder, "later", "still\n");
    assert_eq!(running.line(), "still");
    fs::remove_file(folder.path("later")).unwrap();
    folder.write("later", "back\n");
    assert_eq!(running.line(), "back");
    append(&folder, "a", "the other is still followed\n");
    assert_eq!(running.line(), "the other is still followed");
    running.signal(Signal::TERM);
    let ran = running.wait();
    assert_killed_by(&ran, 15);
    assert_eq!(ran.stderr, "myapp: open later: No such file or directory\n");
}

#[test]
fn idle_follow_uses_no_cpu_and_ends_with_its_reader() {
    let folder = Folder::new();
    folder.write("a", "a\n");
    let script = "$MYAPP cat -f a no 2> err | head -n 1; echo ${PIPESTATUS[0]}";
    assert_eq!(shell(&folder, script).stdout, b"a\n141\n");
    let mut running = folder
        .myapp(["cat", "--follow", "-n", "-", "a", "no"])
        .stdin("x")
        .start();
    assert_eq!(running.line(), "     1\txa");
    let process = running.id();
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<_> = stat.split_whitespace().collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let idle = || {
        let before = ticks();
        thread::sleep(Duration::from_millis(1500));
        assert!(ticks() - before <= 2, "{} ticks", ticks() - before);
    };
    idle();
    append(&folder, "a", "b\n");
    assert_eq!(running.line(), "     2\tb");
    // The same while the file is missing, or a folder has taken its place.
    fs::remove_file(folder.path("a")).unwrap();
    idle();
    fs::create_dir(folder.path("a")).unwrap();
    idle();
    fs::remove_dir(folder.path("a")).unwrap();
    folder.write("a", "c\n");
    assert_eq!(running.line(), "     3\tc");
}

#[test]
fn follow_without_regular_files_ends() {
    let folder = Folder::new();
    folder
        .myapp(["cat", "-f"])
        .stdin("x")
        .run()
        .code(0)
        .prints("x")
        .silent();
    folder
        .myapp(["cat", "-f", "/dev/null"])
        .run()
        .code(0)
        .prints("")
        .silent();
}
