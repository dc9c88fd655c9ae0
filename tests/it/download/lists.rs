//! URL lists: options, streaming, and shards.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::harness::http::{Response, Server};
use crate::harness::{Folder, Running, until};

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a server whose files contain their paths.
fn server() -> Server {
    Server::start(|request| Response::body(request.path.as_bytes()))
}

#[test]
fn list_options_apply_to_their_url_only() {
    let folder = Folder::new();
    let server = server();
    let list = format!(
        "# a list\r\n{}\r\n\tout=x/one\r\n header=X-One: 1\r\n\r\n{}\n dir=sub\n checksum=sha256={}\n\
         {}  {}\n{}\n out=two",
        server.url("/a"),
        server.url("/b"),
        hex(b"/b"),
        hex(b"/c"),
        server.url("/c"),
        server.url("/d"),
    );
    folder.write("list", list);
    folder
        .myapp(["download", "-i", "list", "-d", "d", "-H", "X-All: 2"])
        .run()
        .code(0)
        .prints("");
    for (path, body) in [
        ("d/x/one", "/a"),
        ("d/sub/b", "/b"),
        ("d/c", "/c"),
        ("d/two", "/d"),
    ] {
        assert_eq!(folder.read(path), body.as_bytes(), "{path}");
    }
    for request in server.requests() {
        assert_eq!(
            request.field("X-One").is_some(),
            request.path == "/a",
            "{request:?}"
        );
        assert_eq!(request.field("X-All"), Some("2"));
    }
}

#[test]
fn invalid_list_line_affects_only_its_file() {
    let folder = Folder::new();
    let server = server();
    let list = format!(
        "{}\n out=../escaped\n{}\n chekcsum=sha256=00\n{}\n checksum=sha256={}\nhttp://\n{}\n",
        server.url("/a"),
        server.url("/b"),
        server.url("/c"),
        hex(b"else"),
        server.url("/d"),
    );
    folder.write("list", list);
    let named = |path, line| format!("myapp: download {}: list, line {line}: ", server.url(path));
    folder
        .myapp(["download", "-ilist", "-dd"])
        .run()
        .code(9)
        .says(&(named("/a", 2) + "out= is not a plain path inside the output directory"))
        .says(&(named("/b", 4) + "unknown option"))
        .says("download http://: list, line 7: not a URL: empty host")
        .says("1 of 5 files saved");
    assert_eq!(folder.names(), ["d", "list"]);
    assert_eq!(folder.read("d/d"), b"/d");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| ["/c", "/d"].contains(&&request.path[..]))
    );
}

#[test]
fn lines_of_other_formats_are_shown_and_fail() {
    let folder = Folder::new();
    let server = server();
    let [a, b, c, d] = ["/a", "/b", "/c", "/d"].map(|path| server.url(path));
    let list = [
        format!("\"{a}\",\n{a},{b}\n{a} b.iso\n{a}\0\n{a}\r{b}\n"),
        "http://u:secret@127.0.0.1/?k=secret, http://v:secret@127.0.0.1/\n".to_owned(),
        format!("{c} # a comment\n{d}\t# no mirror\n"),
    ];
    folder.write("list", list.concat());
    let ran = folder.myapp(["download", "-ilist", "-dd"]).run().code(2);
    let expected = "expected one percent-encoded URL, or mirrors separated by tabs";
    let ran = ran
        .says(&format!(
            "download \"{a}\",: list, line 1: quotation mark in the line, {expected}"
        ))
        .says(&format!(
            "download {a},{b}: list, line 2: comma between URLs in the line"
        ))
        .says(&format!(
            "download {a} b.iso: list, line 3: blank in the line"
        ))
        .says(&format!("download {a}\\x00: list, line 4: NUL byte"))
        .says(&format!(
            "download {a}\\r{b}: list, line 5: carriage return in"
        ))
        .says("download http://***@127.0.0.1/?…: list, line 6: blank in the line")
        .says("2 of 8 files saved");
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    assert_eq!(server.requests().len(), 2);
    assert!(folder.read("d/c") == b"/c" && folder.read("d/d") == b"/d");
}

#[test]
fn utf16_list_is_named_once() {
    let server = server().may_be_idle();
    let text = format!("{}\r\n{}\r\n", server.url("/a"), server.url("/b"));
    for with_mark in ["\u{feff}", ""] {
        let marked = format!("{with_mark}{text}");
        let little = marked.encode_utf16().flat_map(u16::to_le_bytes);
        let big = marked.encode_utf16().flat_map(u16::to_be_bytes);
        for bytes in [little.collect::<Vec<_>>(), big.collect()] {
            let folder = Folder::new();
            folder.write("list", &bytes);
            let ran = folder.myapp(["download", "-ilist"]).run().code(2);
            let ran = ran.says("list, line 1: the list is UTF-16, expected UTF-8");
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        }
    }
    assert!(server.requests().is_empty());
}

#[test]
fn checksums_in_lists_are_known_by_length() {
    const MD5_OF_A: &str = "0639767f3e9eaad729b54037a7e2abf5";
    const SHA1_OF_B: &str = "25c8e1f6d41c229df676ec805640fc7d09925006";
    let folder = Folder::new();
    let server = server();
    let list = format!(
        "{}  {}\n{} *{}\n{}  {}\n",
        MD5_OF_A.to_uppercase(),
        server.url("/a"),
        SHA1_OF_B,
        server.url("/b"),
        "0".repeat(128),
        server.url("/c"),
    );
    folder.write("list", list);
    folder
        .myapp(["download", "-ilist", "-dd"])
        .run()
        .code(9)
        .says("sha512 mismatch: expected 000")
        .says("2 of 3 files saved");
    assert_eq!(folder.read("d/a"), b"/a");
}

#[test]
fn empty_shard_is_reported() {
    let folder = Folder::new();
    folder.write("list", "http://127.0.0.1:1/a\n");
    let run = |options: &[&str]| {
        folder
            .myapp([&["download", "-ilist"], options].concat())
            .run()
    };
    let owner = (0..2).find(|index| {
        !run(&["--dry-run", "--shard", &format!("{index}/2")])
            .stdout
            .is_empty()
    });
    let other = format!("{}/2", 1 - owner.unwrap());
    let note = format!("no URL is in shard {other}");
    run(&["--shard", &other]).code(0).says(&note);
    run(&["--shard", &other, "--dry-run"]).code(0).says(&note);
}

#[test]
fn invalid_list_exits_2_and_missing_list_exits_3() {
    let folder = Folder::new();
    folder.write("list", " out=x\n");
    folder
        .myapp(["download", "-i", "list"])
        .run()
        .code(2)
        .says("list, line 1: option without a preceding URL");
    let missing = folder.myapp(["download", "-i", "missing"]).run();
    missing
        .code(3)
        .says("myapp: open list missing: No such file or directory");
    folder.write("empty", "# nothing\n");
    folder
        .myapp(["download", "-i", "empty"])
        .run()
        .code(0)
        .prints("");
}

#[test]
fn single_file_options_are_rejected_with_a_list() {
    let folder = Folder::new();
    for flags in [["-o", "x"], ["--checksum", &format!("sha256={}", hex(b""))]] {
        let line = ["download", "-i", "-", flags[0], flags[1]];
        folder.myapp(line).run().code(2).says("a single URL");
    }
}

fn streaming(folder: &Folder) -> Running {
    folder.myapp(["download", "-i", "-"]).hold_stdin().start()
}

#[test]
fn option_after_a_started_url_is_reported() {
    let folder = Folder::new();
    let server = server();
    let mut running = streaming(&folder);
    running.write(server.url("/a\n"));
    server.wait_for(1);
    running.write(" out=late\n");
    running.write(server.url("/b\n"));
    server.wait_for(2);
    running.close_stdin();
    let late = format!(
        "{}: stdin, line 2: option after the download",
        server.url("/a")
    );
    running
        .wait()
        .code(2)
        .says(&late)
        .says("2 of 3 files saved");
    assert_eq!(folder.names(), ["a", "b"]);
}

#[test]
fn partially_received_option_delays_its_url() {
    let folder = Folder::new();
    let server = server();
    let mut running = streaming(&folder);
    running.write(server.url("/a\n out="));
    running.write(server.url("").replace("http", "\n# "));
    running.write("\n out=b");
    // A premature download would have started by the time another run is complete.
    folder
        .myapp(["download", "-"])
        .stdin(server.url("/other"))
        .run()
        .code(0);
    running.write("\n");
    running.close_stdin();
    running
        .wait()
        .code(2)
        .says("line 2: out= is not a plain path");
    assert_eq!(server.requests().len(), 1, "{:?}", server.requests());
}

#[test]
fn long_list_is_streamed_in_bounded_memory() {
    let folder = Folder::new();
    let server = server();
    let mut running = folder
        .myapp(["download", "-", "-j1", "--retry", "0"])
        .hold_stdin()
        .start();
    running.write(server.url("/first\n"));
    server.wait_for(1);
    // Invalid URLs fail immediately.
    running.write("http://\n".repeat(25_000));
    let peak = running.peak_memory();
    running.close_stdin();
    running.wait().code(2).says("1 of 25001 files saved");
    assert!(peak < 32 << 10, "{peak} KiB");
}

#[test]
fn endless_options_of_one_url_use_bounded_memory() {
    let folder = Folder::new();
    let server = server();
    let mut running = folder.myapp(["download", "-i", "-"]).hold_stdin().start();
    let option = format!(" header=X-Option: {}\n", "x".repeat(1000));
    let options = option.repeat(64_000);
    // One write: after a pause the URL would be fetched without the later options.
    running.write(format!(
        "{}\n{options}{}\n",
        server.url("/a"),
        server.url("/b")
    ));
    until(|| folder.path("b").exists());
    let memory = running.peak_memory();
    running.close_stdin();
    running.wait().code(2).says("bytes of options for one URL");
    assert!(memory < 40 << 20, "{memory} bytes");
    assert_eq!(folder.names(), ["b"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn shards_partition_the_list() {
    let folder = Folder::new();
    let server = server();
    let list: String = (0..40)
        .map(|n| format!("{}\n out=o{n}\n", server.url(&format!("/{n}"))))
        .collect();
    folder.write("list", &list);
    for (index, argument) in ["0/3", "1/3", "2/3"].into_iter().enumerate() {
        let dir = format!("d{index}");
        folder
            .myapp(["download", "-ilist", "--shard", argument, "-d", &dir])
            .run()
            .code(0);
        let names: Vec<_> = fs::read_dir(folder.path(&dir)).unwrap().collect();
        assert!((4..30).contains(&names.len()), "{names:?}");
    }
    let paths: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths.len(), 40);
    assert_eq!(paths.into_iter().collect::<BTreeSet<_>>().len(), 40);
    let wrong = folder.myapp(["download", "--shard", "3/3", "x"]).run();
    wrong
        .code(2)
        .says("not of the form I/N with I from 0 to N - 1");
}

#[test]
fn shard_index_can_be_computed_by_a_shell() {
    let script = "echo $(( 0x$(printf %s \"$0\" | sha256sum | head -c 8) % 5 ))";
    for number in 0..5 {
        let url = format!("http://127.0.0.1:1/{number}");
        let ran = Command::new("sh")
            .args(["-c", script, &url])
            .output()
            .unwrap();
        let index = String::from_utf8(ran.stdout).unwrap();
        for other in 0..5 {
            let folder = Folder::new();
            let shard = format!("{other}/5");
            let ran = folder
                .myapp(["download", "--retry", "0", "--shard", &shard, &url])
                .run();
            ran.code(if other.to_string() == index.trim() {
                4
            } else {
                0
            });
        }
    }
}
