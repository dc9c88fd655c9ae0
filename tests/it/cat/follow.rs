//! Files that go on.

use super::*;

fn append(folder: &Folder, name: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).open(folder.path(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn followed_files_go_on_whatever_happens_to_them() {
    let folder = Folder::new();
    folder.write("a", "a 1\n");
    folder.write("b", "b 1\n");
    let program = folder.myapp(["cat", "-f", "a", "b", "later"]);
    let mut running = program.with_default_signals().start();
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
