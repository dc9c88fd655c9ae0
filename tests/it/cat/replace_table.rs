//! Files of all kinds as FILE of `-o`, for root and for an ordinary user.

use std::fs::File;
use std::os::unix::fs::chown;

use rustix::fs::{IFlags, ioctl_setflags};

use super::replace::{
    ACL, ACL_NAME, GROUP, OTHER_USER, USER, attributes, cat_as, check, is_root, set_xattr,
    shared_folder, xattr,
};
use super::*;

/// Existing file in a folder.
struct Row {
    name: &'static str,
    folder_owner: u32,
    folder_mode: u32,
    owner: (u32, u32),
    mode: u32,
    acl: Option<[u8; 44]>,
    /// Result for the ordinary user: owner, group and mode of the new file, or the reason why it is
    /// not replaced. Root replaces each file, and keeps owner and mode.
    result: Result<(u32, u32, u32), &'static str>,
}

/// A file of the ordinary user in a folder of this user.
const OWN: Row = Row {
    name: "own file",
    folder_owner: USER,
    folder_mode: 0o755,
    owner: (USER, GROUP),
    mode: 0o640,
    acl: None,
    result: Ok((USER, GROUP, 0o640)),
};

const ROWS: [Row; 9] = [
    OWN,
    Row {
        name: "set-user-ID",
        mode: 0o6755,
        result: Ok((USER, GROUP, 0o6755)),
        ..OWN
    },
    Row {
        name: "ACL",
        acl: Some(ACL),
        ..OWN
    },
    Row {
        name: "other owner",
        owner: (OTHER_USER, GROUP),
        mode: 0o660,
        result: Ok((USER, GROUP, 0o660)),
        ..OWN
    },
    Row {
        name: "other group",
        owner: (OTHER_USER, OTHER_USER),
        mode: 0o666,
        result: Err("keep the group of soft: Operation not permitted\n\
            hint: --partial replaces FILE without it, --in-place writes into FILE"),
        ..OWN
    },
    Row {
        name: "read-only",
        mode: 0o440,
        result: Err("replace soft: it is read-only\nhint: --force replaces FILE"),
        ..OWN
    },
    Row {
        name: "read-only for this user",
        owner: (OTHER_USER, OTHER_USER),
        mode: 0o644,
        result: Err("replace soft: it is read-only\nhint: --force replaces FILE"),
        ..OWN
    },
    Row {
        name: "unwritable folder",
        folder_owner: OTHER_USER,
        result: Err(
            "replace soft: its directory is not writable\nhint: --in-place writes into FILE",
        ),
        ..OWN
    },
    Row {
        name: "sticky folder",
        folder_owner: OTHER_USER,
        folder_mode: 0o1777,
        owner: (OTHER_USER, GROUP),
        mode: 0o666,
        result: Err(
            "replace soft: its directory is sticky, and it belongs to another user\n\
            hint: --in-place writes into FILE",
        ),
        ..OWN
    },
];

#[test]
fn replaced_files_keep_their_attributes_or_stay() {
    if !is_root() {
        return;
    }
    for row in &ROWS {
        for user in [USER, 0] {
            let folder = shared_folder(row.folder_mode, row.owner, row.mode);
            chown(folder.path(""), Some(row.folder_owner), None).unwrap();
            let old = folder.path("out");
            set_xattr(&old, "user.note", b"kept");
            if let Some(acl) = row.acl {
                set_xattr(&old, ACL_NAME, &acl);
            }
            let mode = attributes(&folder).2;
            fs::hard_link(&old, folder.path("link")).unwrap();
            symlink("out", folder.path("soft")).unwrap();

            let group = if user == 0 { 0 } else { GROUP };
            let output = cat_as(&folder, (user, group), &["-o", "soft", "a"]);
            let result = if user == 0 {
                Ok((row.owner.0, row.owner.1, mode))
            } else {
                row.result
            };
            let name = format!("{}, user {user}", row.name);
            println!("{name}");
            match result {
                Ok(expected) => {
                    check(&output, 0, "");
                    assert_eq!(folder.read("out"), b"new", "{name}");
                    assert_eq!(attributes(&folder), expected, "{name}");
                }
                Err(reason) => {
                    check(&output, 1, &format!("myapp: {reason}\n"));
                    assert_eq!(folder.read("out"), b"old", "{name}");
                    let (owner, group) = row.owner;
                    assert_eq!(attributes(&folder), (owner, group, mode), "{name}");
                }
            }
            let acl = xattr(&folder, ACL_NAME);
            assert_eq!(
                acl.as_deref(),
                row.acl.as_ref().map(|acl| &acl[..]),
                "{name}"
            );
            assert_eq!(
                xattr(&folder, "user.note").as_deref(),
                Some(&b"kept"[..]),
                "{name}"
            );
            assert_eq!(folder.read("link"), b"old", "{name}");
            assert!(folder.path("soft").is_symlink(), "{name}");
            assert_eq!(folder.names(), ["a", "link", "out", "soft"], "{name}");
        }
    }
}

#[test]
fn immutable_file_is_an_error() {
    for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
        let folder = Folder::new();
        folder.write("a", "new");
        let old = File::open(folder.write("out", "old")).unwrap();
        if ioctl_setflags(&old, flag).is_err() {
            eprintln!("skipped: only root can make files immutable, on some file systems");
            return;
        }
        let ran = folder.myapp(["cat", "-o", "out", "a"]).run();
        ioctl_setflags(&old, IFlags::empty()).unwrap();
        let ran = ran.code(1).prints("");
        let error = "myapp: replace out: it is immutable or append-only\n";
        assert_eq!(ran.stderr, error);
        assert_eq!(folder.read("out"), b"old");
    }
}

#[test]
#[ignore = "peer: unshare, setpriv, mount (bind, tmpfs)"]
fn mounted_file_and_full_disk_keep_the_old_file() {
    if !is_root() {
        return;
    }
    let user = format!("setpriv --reuid={USER} --regid={GROUP} --clear-groups");
    for prefix in ["", &user] {
        let folder = shared_folder(0o777, (USER, GROUP), 0o666);
        folder.write("mounted", "old");
        fs::create_dir(folder.path("full")).unwrap();
        let run = |script: &str| {
            let script = format!(
                "unshare --mount bash -c '
                    mount -t tmpfs -o size=1g tmpfs full || exit
                    mkdir full/disk; cp $MYAPP full/myapp; CAT=\"{prefix} $PWD/full/myapp cat\"
                    mount --bind mounted out && mount -t tmpfs -o size=1m tmpfs full/disk || exit
                    chmod 777 full/disk mounted; {script}'"
            );
            shell(&folder, &script)
        };
        let output = run("$CAT -o out a");
        let hint = "hint: --in-place writes into FILE\n";
        check(
            &output,
            1,
            &format!("myapp: replace out: it is a mount point\n{hint}"),
        );
        assert_eq!(folder.read("mounted"), b"old");
        check(&run("$CAT --in-place -o out a"), 0, "");
        assert_eq!(folder.read("mounted"), b"new");
        let output = run(
            &format!("cd full/disk; echo old > out; chown {USER}:{GROUP} out; head -c 700000 /dev/zero > here
             $CAT -o out here here; echo $? $(cat out) $(ls -A)"),
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            stderr, "myapp: out: write error: No space left on device\n",
            "{prefix}"
        );
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, "1 old here out\n", "{prefix}");
    }
}
