//! `myapp echo --merge` and `--hdr-log`.

use std::fs::File;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::echo;
use crate::harness::{Folder, Peer, myapp, raw_peer, schema};

/// Runs a load in a folder, with its JSON report and its log in files `NAME.json` and `NAME.hlog`.
fn run(folder: &Folder, peer: &Peer, name: &str, arguments: &[&str]) -> Value {
    let log = format!("{name}.hlog");
    let options = [
        "echo",
        "-q",
        "-c",
        &peer.address(),
        "--json",
        "--hdr-log",
        &log,
    ];
    let ran = folder.myapp([&options, arguments].concat()).run().code(0);
    let text = ran.text();
    folder.write(&format!("{name}.json"), &text);
    schema::json("echo", &text)
}

/// Returns the report of merged files.
#[track_caller]
fn merged(folder: &Folder, files: &[&str]) -> Value {
    let options = ["echo", "--json", "--merge"];
    let ran = folder.myapp([&options, files].concat()).run().code(0);
    schema::json("echo", &ran.silent().text())
}

#[test]
fn runs_are_merged_from_reports_and_logs() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let loads = [
        ["--connections", "2", "-n", "300"],
        ["--rate", "1000", "-n", "200"],
    ];
    let [a, b] = [("a", loads[0]), ("b", loads[1])]
        .map(|(name, arguments)| run(&folder, &peer, name, &arguments));
    let report = merged(&folder, &["a.json", "b.json"]);
    for name in ["sent", "answered", "due", "connections", "late_sends"] {
        let sum = a[name].as_u64().unwrap() + b[name].as_u64().unwrap();
        assert_eq!(report[name], sum, "{name}");
    }
    for (name, end) in [("min", f64::min as fn(f64, f64) -> f64), ("max", f64::max)] {
        let [one, other] = [&a, &b].map(|report| report["response"][name].as_f64().unwrap());
        assert_eq!(report["response"][name], end(one, other), "{name}");
    }
    assert_eq!(report["merge"]["runs"].as_array().unwrap().len(), 2);
    assert_eq!(report["start"], a["start"], "a was first");
    folder.write(
        "both.json",
        [folder.read("a.json"), folder.read("b.json")].concat(),
    );
    for files in [
        &["a.hlog", "b.hlog"][..],
        &["a.json", "b.hlog"],
        &["both.json"],
    ] {
        assert_eq!(merged(&folder, files), report, "{files:?}");
    }

    let options = ["echo", "--percentiles", "50,99.99", "--report", "all.html"];
    let files = ["--merge", "a.json", "b.json"];
    let ran = folder.myapp([&options[..], &files].concat()).run().code(0);
    let text = ran.silent().text();
    let title = format!(
        "--- {}: 2 runs merged, 64 B, connections: 3, ",
        peer.address()
    );
    assert!(text.starts_with(&title), "{text}");
    assert!(text.contains("\n500 sent, 500 answered"), "{text}");
    assert!(
        text.contains("\np99.99 ") && !text.contains("\np90 "),
        "{text}"
    );
    let page = String::from_utf8(folder.read("all.html")).unwrap();
    assert!(page.contains("2 runs merged, 64 B") && page.ends_with("</html>\n"));
    assert!(page.contains("<td>p99.99</td>") && !page.contains("<td>p90</td>"));
}

/// Writes a report, a log, and files that cannot be merged.
fn write_unusable_files(folder: &Folder) {
    let peer = Peer::start(raw_peer::echo);
    run(folder, &peer, "a", &["--connections", "1", "-n", "20"]);
    let ping = myapp(["echo", "-q", "-c", &peer.address(), "-n", "1", "--json"]);
    folder.write("ping.json", ping.run().code(0).text());
    folder.write("list.json", "[]");
    folder.write("empty.json", "");
    let report = String::from_utf8(folder.read("a.json")).unwrap();
    folder.write("cut.json", &report[..report.len() / 2]);
    folder.write(
        "newer.json",
        report.replace(r#""version":1"#, r#""version":2"#),
    );
    let log = String::from_utf8(folder.read("a.hlog")).unwrap();
    folder.write("cut.hlog", &log[..log.len() - 1]);
    folder.write("foreign.hlog", log.replace("myapp", "other"));
    let mut lines: Vec<_> = log.split_inclusive('\n').collect();
    lines.retain(|line| !line.starts_with("Tag=service"));
    folder.write("gap.hlog", lines.concat());
    let huge = File::create(folder.path("huge.json")).unwrap();
    huge.set_len((512 << 20) + 1).unwrap();
}

#[test]
fn unusable_file_is_named() {
    let folder = Folder::new();
    write_unusable_files(&folder);
    let causes = [
        "open missing.json: No such file or directory",
        "read .: Is a directory",
        "merge list.json: not a report of 'myapp echo'",
        "merge empty.json: not a report of 'myapp echo'",
        "merge ping.json: the report of a ping; only loads can be merged",
        "merge cut.json: incomplete or damaged: EOF while parsing ",
        "merge newer.json: format 2 of another version; ",
        "merge cut.hlog: incomplete: the end of the log is missing",
        "merge foreign.hlog: not an interval log of myapp",
        "merge gap.hlog: incomplete: 20 response and 0 service times of 20",
    ];
    let causes = causes.map(|cause| (3, cause)).into_iter().chain([
        (11, "merge huge.json: longer than 536870912 bytes"),
        (2, "merge a.hlog: the same run as in a.json"),
        (2, "merge ./a.json: the same run as in a.json"),
    ]);
    for (code, cause) in causes {
        let file = cause.split([' ', ':']).nth(1).unwrap();
        let ran = folder.myapp(["echo", "--merge", "a.json", file]).run();
        let ran = ran.code(code).prints("");
        let start = format!("myapp: {cause}");
        assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
    }
}

#[test]
fn merge_with_a_server_is_a_usage_error() {
    for arguments in [
        &["127.0.0.1:1", "--merge", "a.json"][..],
        &["--merge", "a.json", "-c", "127.0.0.1:1"],
        &["--merge", "a.json", "--duration", "1s"],
        &["--merge", "a.json", "--hdr-log", "b.hlog"],
        &["--merge"],
    ] {
        let ran = myapp([&["echo"], arguments].concat()).run().code(2);
        ran.says("--merge <FILE>...");
    }
    let ran = myapp(["echo", "--merge", "a.json", "--percentiles", "50,200"]);
    ran.run().code(2).says("'200' is not above 0 and below 100");
}

#[test]
fn log_has_an_interval_for_each_second() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let report = run(
        &folder,
        &peer,
        "a",
        &["--rate", "500", "--duration", "1200ms"],
    );
    assert_eq!(folder.names(), ["a.hlog", "a.json"]);
    let log = String::from_utf8(folder.read("a.hlog")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines[0], "#[Histogram log format version 1.3]");
    assert!(lines[2].starts_with("#[StartTime: "), "{log}");
    assert!(lines[3].starts_with("#[BaseTime: "), "{log}");
    let starts = lines.iter().filter_map(|line| line.strip_prefix("Tag="));
    let starts: Vec<_> = starts
        .map(|line| line.split(',').take(2).collect::<Vec<_>>())
        .collect();
    // 1.2 s are in two or three seconds.
    assert!((4..=6).contains(&starts.len()), "{log}");
    assert!(
        starts[0][1].starts_with("0.") && starts[0][0] == "response",
        "{log}"
    );
    assert_eq!(starts[2], ["response", "1.000"]);
    assert_eq!(starts[3], ["service", "1.000"]);
    assert_eq!(merged(&folder, &["a.hlog"])["response"], report["response"]);
}

#[test]
fn unsent_messages_are_in_the_log() {
    let peer = Peer::start(raw_peer::say_nothing);
    let folder = Folder::new();
    let options = [
        "echo",
        "-q",
        "-c",
        &peer.address(),
        "--json",
        "--hdr-log",
        "a.hlog",
    ];
    let load = "--rate 100 --duration 300ms --timeout 200ms".split(' ');
    let arguments: Vec<_> = options.into_iter().chain(load).collect();
    let ran = folder.myapp(arguments).run().code(10);
    let report = schema::json("echo", &ran.text());
    assert!(report["unsent"].as_u64().unwrap() > 0, "{report}");
    let logged = merged(&folder, &["a.hlog"]);
    assert_eq!(logged["response"], report["response"]);
    assert_eq!(logged["unsent"], report["unsent"]);
}

#[test]
fn signal_leaves_a_complete_log() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let options = ["echo", "-q", "-c", &peer.address(), "--duration", "1h"];
    let running = folder.myapp([&options[..], &["--hdr-log", "a.hlog"]].concat());
    let running = running.start();
    peer.wait_for_connections(1);
    running.signal(Signal::TERM);
    running.wait().code(143);
    assert_eq!(merged(&folder, &["a.hlog"])["errors"]["read"], 0);
}

#[test]
fn unwritable_log_is_reported() {
    let peer = Peer::start(raw_peer::echo);
    let ran = echo(&peer, &["--duration", "1h", "--hdr-log", "missing/a.hlog"]).run();
    let ran = ran.code(3).prints("");
    assert_eq!(
        ran.stderr,
        "myapp: create missing/a.hlog: No such file or directory\n"
    );
    let ran = echo(
        &peer,
        &["-n", "5", "--in-flight", "2", "--hdr-log", "/dev/full"],
    )
    .run();
    let ran = ran.code(3);
    assert!(ran.text().contains("5 sent, 5 answered"), "{}", ran.text());
    assert_eq!(
        ran.stderr,
        "myapp: write /dev/full: No space left on device\n"
    );
}

/// Prints number, 99th percentile and maximum of the histograms with a tag.
const READ_LOG: &str = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
new = lambda: HdrHistogram(1, 3600000000000, 3)
reader, total = HistogramLogReader(sys.argv[1], new()), new()
while (interval := reader.get_next_interval_histogram()) is not None:
    if interval.get_tag() == sys.argv[2]:
        total.add(interval)
print(total.get_total_count(), total.get_value_at_percentile(99), total.get_max_value())
";

#[test]
#[ignore = "peer: python3 with the package hdrhistogram"]
fn log_is_readable_by_another_implementation() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let arguments = [
        "--connections",
        "4",
        "--duration",
        "2500ms",
        "--rate",
        "2000",
    ];
    let report = run(&folder, &peer, "a", &arguments);
    for (tag, count) in [("response", "due"), ("service", "answered")] {
        let mut python = Command::new("python3");
        python
            .args(["-c", READ_LOG])
            .arg(folder.path("a.hlog"))
            .arg(tag);
        let output = python.output().expect("python3");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let nanos = |name: &str| (report[tag][name].as_f64().unwrap() * 1e9).round();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{} {} {}\n", report[count], nanos("p99"), nanos("max")),
            "{tag}"
        );
    }
}

#[test]
#[ignore = "peer: parallel"]
fn reports_of_parallel_processes_are_merged() {
    let peer = Peer::start(raw_peer::echo);
    let folder = Folder::new();
    let run = format!(
        "seq 3 | parallel -N0 -j0 {} echo -q -c {} -n 100 --in-flight 2 --json > all.json",
        env!("CARGO_BIN_EXE_myapp"),
        peer.address()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &run]).current_dir(folder.path(""));
    assert!(shell.status().expect("sh").success());
    let report = merged(&folder, &["all.json"]);
    assert_eq!(
        (&report["sent"], &report["size"]),
        (&300.into(), &64.into())
    );
    assert_eq!(report["merge"]["runs"].as_array().unwrap().len(), 3);
}
