//! Checksum of the output, and hints for inputs that are URLs.

use super::*;

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ABC_MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
const OTHER_MD5: &str = "900150983cd24fb0d6963f7d28e17f73";

#[test]
fn checksum_of_the_output_is_printed() {
    let folder = Folder::new();
    folder.write("a", "ab");
    folder.write("c", "c");
    let arguments = ["cat", "--checksum", "sha256", "a", "c"];
    let ran = folder.myapp(arguments).run().code(0).prints("abc");
    assert_eq!(ran.stderr, format!("{ABC}  -\n"));
    // Of the bytes as they are written, also by what would otherwise be moved inside the kernel.
    folder.write("large", vec![b'x'; 3 << 20]);
    for arguments in [
        &["--checksum=md5", "-o", "out", "a", "c"][..],
        &["--checksum=MD5", "--in-place", "-o", "out", "a", "c"],
        &["--checksum=blake3", "-nE", "-o", "out", "a", "c"],
        &["--checksum=sha1", "-o", "out", "--tee", "large"],
        &[
            "--checksum=sha512",
            "-o",
            "out",
            "--limit-rate",
            "100M",
            "large",
            "a",
        ],
        &["--checksum=sha512", "-q", "-a", "-o", "new", "large"],
    ] {
        let ran = folder.myapp([&["cat"], arguments].concat()).run().code(0);
        let name = if arguments.contains(&"new") {
            "new"
        } else {
            "out"
        };
        let found = ran.stderr.strip_suffix(&format!("  {name}\n")).unwrap();
        let algorithm = arguments[0].trim_start_matches("--checksum=");
        let verified = format!("--checksum={algorithm}={found}");
        let ran = folder.myapp(["cat", &verified, name]).run();
        ran.code(0).silent();
    }
    assert_eq!(shell(&folder, "sha512sum < new | cut -c-128 > sum; $MYAPP cat --checksum sha512 new 2>&1 > /dev/null | cut -c-128 | cmp - sum").status.code(), Some(0));
}

#[test]
fn mismatched_checksum_keeps_the_old_file() {
    let folder = Folder::new();
    folder.write("a", "abc");
    let right = format!("md5={ABC_MD5}");
    let wrong = format!("md5={OTHER_MD5}");
    let mismatch = format!("md5 mismatch: expected {OTHER_MD5}, got {ABC_MD5}\n");
    for (mode, appended) in [(&[][..], false), (&["--in-place"], false), (&["-a"], true)] {
        folder.write("out", "old");
        let line = |checksum| [&["cat", "-o", "out", "a", "--checksum", checksum], mode].concat();
        if !appended {
            let ran = folder.myapp(line(&wrong)).run().code(1);
            assert_eq!(ran.stderr, format!("myapp: out: {mismatch}"));
            assert_eq!(folder.read("out"), b"old");
            assert_eq!(folder.names(), ["a", "out"]);
        }
        folder.myapp(line(&right)).run().code(0).silent();
        let expected = if appended { "oldabc" } else { "abc" };
        assert_eq!(folder.read("out"), expected.as_bytes());
    }
    let ran = folder.myapp(["cat", "--checksum", &wrong, "a"]).run();
    let ran = ran.code(1).prints("abc");
    assert_eq!(ran.stderr, format!("myapp: {mismatch}"));
}

#[test]
fn invalid_checksum_is_a_usage_error() {
    let folder = Folder::new();
    for (text, cause) in [
        ("sha3=00", "not one of sha256, sha512, sha1, md5, blake3"),
        ("sha3", "not one of sha256, sha512, sha1, md5, blake3"),
        ("md5=", "not 32 hexadecimal digits"),
        ("sha256=abc", "not 64 hexadecimal digits"),
    ] {
        let ran = folder.myapp(["cat", "--checksum", text]).run();
        ran.code(2).prints("").says(cause);
    }
    let follow = ["cat", "-f", "--checksum", "md5", "-"];
    folder.myapp(follow).run().code(2);
}

#[test]
fn url_as_input_gets_a_hint() {
    let folder = Folder::new();
    for url in ["https://127.0.0.1/a", "http://127.0.0.1/a"] {
        let ran = folder.myapp(["cat", url]).run().code(1).prints("");
        assert_eq!(
            ran.stderr,
            format!(
                "myapp: open {url}: No such file or directory\n\
                 hint: download -o - URL writes a URL to stdout\n"
            )
        );
    }
    // A folder may have such a name.
    fs::create_dir_all(folder.path("http:/127.0.0.1")).unwrap();
    folder.write("http:/127.0.0.1/a", "a");
    let ran = folder.myapp(["cat", "http://127.0.0.1/a"]).run();
    ran.code(0).prints("a").silent();
}
