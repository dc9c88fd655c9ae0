//! Files that `-o` replaces, writes in place, or refuses to write.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::*;

/// User and group of the runs without privileges, and their mode of the folder.
pub(super) const USER: u32 = 54321;
pub(super) const OTHER_USER: u32 = 54322;
pub(super) const GROUP: u32 = 54323;

/// ACL `user::rw-,user:54324:r--,group::---,mask::r--,other::---` (linux/posix_acl_xattr.h).
pub(super) const ACL: [u8; 44] = {
    const fn entry(tag: u8, mode: u8, id: u32) -> [u8; 8] {
        let id = id.to_le_bytes();
        [tag, 0, mode, 0, id[0], id[1], id[2], id[3]]
    }
    let entries = [
        entry(1, 6, u32::MAX),
        entry(2, 4, 54324),
        entry(4, 0, u32::MAX),
        entry(16, 4, u32::MAX),
        entry(32, 0, u32::MAX),
    ];
    let mut acl = [0; 44];
    acl[0] = 2;
    let mut at = 0;
    while at < 40 {
        acl[4 + at] = entries[at / 8][at % 8];
        at += 1;
    }
    acl
};

pub(super) const ACL_NAME: &str = "system.posix_acl_access";

pub(super) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can act as other users");
    }
    is_root
}

/// Runs `myapp cat` as another user with `group` as its only group. The program is copied, as the
/// build folder need not be accessible.
#[track_caller]
pub(super) fn cat_as(folder: &Folder, (user, group): (u32, u32), arguments: &[&str]) -> Output {
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.path().join("myapp");
    // Not by this process: a child of another test could inherit the open file, which could then
    // not be executed.
    let mut copy = Command::new("cp");
    let copied = copy.arg(env!("CARGO_BIN_EXE_myapp")).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(program.as_path());
    command.arg("cat").args(arguments).stdin(Stdio::null());
    command.current_dir(folder.path("")).uid(user).gid(group);
    command.output().unwrap()
}

/// Makes the folder accessible to all users, and `out` with this owner and mode.
pub(super) fn shared_folder(folder_mode: u32, (user, group): (u32, u32), mode: u32) -> Folder {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(folder_mode)).unwrap();
    fs::set_permissions(folder.path("a"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(&old, Some(user), Some(group)).unwrap();
    fs::set_permissions(old, fs::Permissions::from_mode(mode)).unwrap();
    folder
}

/// Returns owner, group and mode of `out`.
pub(super) fn attributes(folder: &Folder) -> (u32, u32, u32) {
    let file = fs::metadata(folder.path("out")).unwrap();
    (file.uid(), file.gid(), file.mode() & 0o7777)
}

pub(super) fn xattr(folder: &Folder, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::getxattr(folder.path("out"), name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

pub(super) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[track_caller]
pub(super) fn check(output: &Output, code: i32, stderr: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*text), (Some(code), stderr));
}

#[test]
fn failed_input_keeps_the_old_file() {
    let folder = Folder::new();
    folder.write("a", "new");
    folder.write("cut.gz", &decompress::gzip(&[b'x'; 1000])[..20]);
    let missing = "myapp: open missing: No such file or directory\n";
    let incomplete = "myapp: out: not written completely, as an input failed\n\
        hint: --partial writes what could be read\n";
    for (arguments, content, stdout) in [
        (&["a", "missing", "a"][..], "old", ""),
        (&["missing"], "old", ""),
        (&["--in-place", "a", "missing"], "old", ""),
        (&["--tee", "a", "missing", "a"], "old", "newnew"),
        (&["-a", "a", "missing", "a"], "oldnew", ""),
        (&["-a", "--tee", "a", "missing", "a"], "oldnew", "newnew"),
    ] {
        folder.write("out", "old");
        let arguments = [&["cat", "-o", "out"], arguments].concat();
        let ran = folder.myapp(&arguments).run().code(1).prints(stdout);
        assert_eq!(
            ran.stderr,
            format!("{missing}{incomplete}"),
            "{arguments:?}"
        );
        assert_eq!(folder.read("out"), content.as_bytes(), "{arguments:?}");
        assert_eq!(folder.names(), ["a", "cut.gz", "out"], "{arguments:?}");
    }
    folder.write("out", "old");
    let ran = folder
        .myapp(["cat", "-z", "-o", "out", "a", "cut.gz"])
        .run();
    ran.code(1).says(incomplete);
    assert_eq!(folder.read("out"), b"old");
    folder.myapp(["cat", "-o", "none", "missing"]).run().code(1);
    assert_eq!(folder.names(), ["a", "cut.gz", "out"]);
}

#[test]
fn partial_output_is_written_on_request() {
    let folder = Folder::new();
    folder.write("a", "new");
    let missing = "myapp: open missing: No such file or directory\n";
    for (arguments, content) in [
        (&["a", "missing", "a"][..], "newnew"),
        (&["missing"], ""),
        (&["--in-place", "a", "missing"], "new"),
        (&["-a", "a", "missing", "a"], "oldnewnew"),
    ] {
        folder.write("out", "old");
        let arguments = [&["cat", "--partial", "-o", "out"], arguments].concat();
        let ran = folder.myapp(&arguments).run().code(1).prints("");
        assert_eq!(ran.stderr, missing, "{arguments:?}");
        assert_eq!(folder.read("out"), content.as_bytes(), "{arguments:?}");
    }
}

#[test]
fn empty_stdin_replaces_the_file() {
    let folder = Folder::new();
    folder.write("out", "old");
    folder.myapp(["cat", "-o", "out"]).run().code(0).silent();
    assert_eq!(folder.read("out"), b"");
}

#[test]
fn terminal_as_only_input_is_a_usage_error() {
    let folder = Folder::new();
    folder.write("out", "old");
    let script = "script -qec '$MYAPP cat -o out' /dev/null; echo $?";
    let output = shell(&folder, script);
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert_eq!(
        text,
        "myapp: no input for FILE of -o: stdin is a terminal\n\
         hint: name the inputs, or give - to type the input\n2\n"
    );
    assert_eq!(folder.read("out"), b"old");
}

#[test]
fn replaced_file_keeps_acl_and_attributes() {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    set_xattr(&old, ACL_NAME, &ACL);
    set_xattr(&old, "user.note", b"kept");
    let mode = attributes(&folder).2;
    assert_eq!(mode, 0o640, "the mask of the ACL");
    folder
        .myapp(["cat", "-o", "out", "a"])
        .run()
        .code(0)
        .silent();
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(xattr(&folder, ACL_NAME).as_deref(), Some(&ACL[..]));
    assert_eq!(xattr(&folder, "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(attributes(&folder).2, mode);
}

#[test]
fn default_acl_of_the_directory_does_not_change_the_file() {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
    set_xattr(&folder.path(""), "system.posix_acl_default", &ACL);
    folder
        .myapp(["cat", "-o", "out", "a"])
        .run()
        .code(0)
        .silent();
    assert_eq!(xattr(&folder, ACL_NAME), None);
    assert_eq!(attributes(&folder).2, 0o600);
}

#[test]
fn group_that_cannot_be_kept_is_an_error() {
    if !is_root() {
        return;
    }
    let folder = shared_folder(0o777, (OTHER_USER, GROUP), 0o666);
    set_xattr(&folder.path("out"), "user.note", b"kept");
    let output = cat_as(&folder, (USER, USER), &["-o", "out", "a"]);
    check(
        &output,
        1,
        "myapp: keep the group of out: Operation not permitted\n\
         hint: --partial replaces FILE without it, --in-place writes into FILE\n",
    );
    assert_eq!(folder.read("out"), b"old");
    let output = cat_as(&folder, (USER, USER), &["--in-place", "-o", "out", "a"]);
    check(&output, 0, "");
    assert_eq!(attributes(&folder), (OTHER_USER, GROUP, 0o666));
    assert_eq!(folder.read("out"), b"new");
    folder.write("a", "newer");
    fs::set_permissions(folder.path("out"), fs::Permissions::from_mode(0o676)).unwrap();
    let output = cat_as(&folder, (USER, USER), &["--partial", "-o", "out", "a"]);
    check(
        &output,
        0,
        "myapp: warning: keep the group of out: Operation not permitted\n",
    );
    assert_eq!(folder.read("out"), b"newer");
    assert_eq!(attributes(&folder), (USER, USER, 0o666), "no more rights");
    assert_eq!(xattr(&folder, "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(folder.names(), ["a", "out"]);
}

#[test]
fn group_alone_is_kept_where_only_that_is_permitted() {
    if !is_root() {
        return;
    }
    let folder = shared_folder(0o2777, (OTHER_USER, GROUP), 0o4660);
    // The group of the new file is that of the directory, unless it is set.
    chown(folder.path(""), None, Some(USER)).unwrap();
    let output = cat_as(&folder, (USER, GROUP), &["-o", "out", "a"]);
    check(&output, 0, "");
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(attributes(&folder), (USER, GROUP, 0o660));
}

#[test]
fn refused_mode_is_a_warning() {
    let folder = Folder::new();
    folder.write("a", "new");
    let old = folder.write("out", "old");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o666)).unwrap();
    // As on CIFS and exFAT.
    let program = folder.myapp(["cat", "-o", "out", "a"]);
    let ran = program.refuse_syscall("fchmod", Errno::PERM).run().code(0);
    assert_eq!(
        ran.stderr,
        "myapp: warning: keep the mode of out: Operation not permitted\n"
    );
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(attributes(&folder).2, 0o600, "no more rights");
}

#[test]
fn read_only_file_needs_force() {
    if !is_root() {
        return;
    }
    let folder = shared_folder(0o777, (USER, USER), 0o444);
    let output = cat_as(&folder, (USER, USER), &["-o", "out", "a"]);
    check(
        &output,
        1,
        "myapp: replace out: it is read-only\nhint: --force replaces FILE\n",
    );
    assert_eq!(folder.read("out"), b"old");
    let output = cat_as(&folder, (USER, USER), &["--force", "-o", "out", "a"]);
    check(&output, 0, "");
    assert_eq!(folder.read("out"), b"new");
    assert_eq!(attributes(&folder), (USER, USER, 0o444));
}

#[test]
fn directory_is_checked_before_reading() {
    if !is_root() {
        return;
    }
    let sticky = "its directory is sticky, and it belongs to another user";
    for (mode, reason) in [(0o755, "its directory is not writable"), (0o1777, sticky)] {
        let folder = shared_folder(mode, (OTHER_USER, GROUP), 0o666);
        // An input that would wait forever.
        make_fifo(&folder, "f");
        let output = cat_as(&folder, (USER, GROUP), &["-o", "out", "f"]);
        let hint = "hint: --in-place writes into FILE\n";
        check(&output, 1, &format!("myapp: replace out: {reason}\n{hint}"));
        let output = cat_as(&folder, (USER, GROUP), &["--in-place", "-o", "out", "a"]);
        check(&output, 0, "");
        assert_eq!(folder.read("out"), b"new");
        assert_eq!(attributes(&folder), (OTHER_USER, GROUP, 0o666));
        assert_eq!(folder.names(), ["a", "f", "out"]);
    }
}

#[test]
fn in_place_keeps_hard_links_and_inputs_work() {
    let folder = Folder::new();
    folder.write("a", "a longer text than the old one\n".repeat(50_000));
    folder.write("out", "old\n");
    fs::hard_link(folder.path("out"), folder.path("link")).unwrap();
    symlink("out", folder.path("soft")).unwrap();
    let ran = folder.myapp(["cat", "--in-place", "-o", "soft", "a", "out"]);
    ran.run().code(0).silent();
    let long = [folder.read("a"), b"old\n".to_vec()].concat();
    assert!(folder.read("link") == long);
    folder.write("b", "short");
    let ran = folder.myapp(["cat", "--in-place", "--fsync", "-o", "out", "b"]);
    ran.run().code(0).silent();
    assert_eq!(folder.read("link"), b"short");
    let ran = folder.myapp(["cat", "--in-place", "-o", "new", "b"]);
    ran.run().code(0).silent();
    assert_eq!(folder.read("new"), b"short");
    assert_eq!(folder.names(), ["a", "b", "link", "new", "out", "soft"]);
    // A replaced file leaves the other link alone.
    folder
        .myapp(["cat", "-o", "out", "a"])
        .run()
        .code(0)
        .silent();
    assert_eq!(folder.read("link"), b"short");
}

#[test]
fn descriptors_are_written_into() {
    let folder = Folder::new();
    folder.write("a", "new\n");
    for (script, content) in [
        (
            "{ echo 1; $MYAPP cat -o /dev/fd/3 a; echo 2; } 3> out >&3",
            "1\nnew\n2\n",
        ),
        (
            "{ echo 1; $MYAPP cat -o /dev/stdout a; echo 2; } > out",
            "1\nnew\n2\n",
        ),
        (
            "ln -sf /dev/stderr log; $MYAPP cat -a -o log a 2> out",
            "new\n",
        ),
        ("$MYAPP cat -o /proc/self/fd/3 a 3>&1 | cat > out", "new\n"),
        // A file without a name.
        (
            "exec 3<> gone; rm gone; $MYAPP cat -o /dev/fd/3 a; cat /dev/fd/3 > out",
            "new\n",
        ),
    ] {
        let output = shell(&folder, script);
        check(&output, 0, "");
        assert_eq!(
            String::from_utf8_lossy(&folder.read("out")),
            content,
            "{script}"
        );
        shell(&folder, "rm -f log");
        assert_eq!(folder.names(), ["a", "out"], "{script}");
    }
    let output = shell(&folder, "$MYAPP cat -o /dev/fd/3 a 3< a");
    check(
        &output,
        1,
        "myapp: open /dev/fd/3 for writing: Bad file descriptor\n",
    );
}

#[test]
#[ignore = "peer: mount (bind, tmpfs)"]
fn mounted_file_is_written_in_place_only() {
    let folder = Folder::new();
    folder.write("a", vec![b'n'; 700_000]);
    folder.write("small", "new");
    folder.write("out", "old");
    folder.write("mounted", "old");
    fs::create_dir(folder.path("full")).unwrap();
    let in_namespace = |script: &str| {
        let script = format!(
            "unshare --mount --map-root-user bash -c '
                mount --bind mounted out && mount -t tmpfs -o size=1m tmpfs full || exit
                {script}'"
        );
        shell(&folder, &script)
    };
    check(
        &in_namespace("$MYAPP cat -o out small"),
        1,
        "myapp: replace out: it is a mount point\nhint: --in-place writes into FILE\n",
    );
    assert_eq!(folder.read("mounted"), b"old");
    check(&in_namespace("$MYAPP cat --in-place -o out small"), 0, "");
    assert_eq!(folder.read("mounted"), b"new");
    assert_eq!(folder.read("out"), b"old");

    // Too full for the content and its copy: the old file and the new content stay.
    let output = in_namespace(
        "cd full; echo old > out; $MYAPP cat --in-place -o out ../a
         echo $? $(cat out); cmp .out.* ../a && ls -A | wc -l",
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = "/full/out in place: the complete new content is in ";
    assert!(stderr.contains(text), "{stderr}");
    assert!(stderr.ends_with(": No space left on device\n"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 old\n2\n");
}
