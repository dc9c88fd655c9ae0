//! Command line and log options that all commands share.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Folder, RunOutput, Server, myapp};

const MISSING_LOAD: &str = "missing --connections <C> or --duration <TIME> or --rate <R> or \
                            --in-flight <N> or --merge <FILE>...";
const SERVE_HELP: &str = "myapp serve --help lists all options";
const ECHO_HELP: &str = "myapp echo --help lists all options";

/// Command lines with the text and the hint of their errors.
const USAGE_ERRORS: [(&[&str], &str, &str); 18] = [
    (
        &["serv"],
        "unknown command serv",
        "did you mean myapp serve?",
    ),
    (
        &["listen", "-p", "1"],
        "unknown command listen",
        "did you mean myapp serve?",
    ),
    (
        &["ping"],
        "unknown command ping",
        "did you mean myapp echo?",
    ),
    (
        &["wget", "-O", "x"],
        "unknown command wget",
        "did you mean myapp download?",
    ),
    (
        &["version"],
        "unknown command version",
        "did you mean myapp --version?",
    ),
    (
        &["qqq"],
        "unknown command qqq",
        "myapp --help lists all commands",
    ),
    (
        &["help", "qqq"],
        "unknown command qqq",
        "myapp --help lists all commands",
    ),
    (
        &["\u{1b}[1m"],
        "unknown command \\x1b[1m",
        "myapp --help lists all commands",
    ),
    (
        &["-v", "serve"],
        "unknown option -v",
        "options of serve follow it",
    ),
    (
        &["--limit-rate=1", "cat", "a"],
        "unknown option --limit-rate",
        "options of cat follow it",
    ),
    (
        &["-v"],
        "unexpected argument '-v' found",
        "myapp --help lists all options",
    ),
    (
        &["completions"],
        "missing <SHELL>",
        "myapp completions --help lists all options",
    ),
    (
        &["serve", "--mode", "echo"],
        "invalid value 'echo' for '--mode <MODE>'",
        "possible values: line, chunk, discard, whoami",
    ),
    (
        &["serve", "127.0.0.1"],
        "invalid value '127.0.0.1' for '[ADDRESS]...': missing port (HOST:PORT)",
        SERVE_HELP,
    ),
    (
        &["serve", "--tls-cert", "c"],
        "missing --tls-key <FILE>",
        SERVE_HELP,
    ),
    (&["echo", "--report", "x.html"], MISSING_LOAD, ECHO_HELP),
    (
        &["echo", "-n", "1", "--size", "9", "hi"],
        "the argument '--size <SIZE>' cannot be used with '[MESSAGE]...'",
        ECHO_HELP,
    ),
    (
        &["echo", "--raw", "-j", "1", "--verify"],
        "the argument '--raw' cannot be used with: --jobs <N>, --verify",
        ECHO_HELP,
    ),
];

#[test]
fn usage_error_is_one_line_and_a_hint() {
    for (line, text, hint) in USAGE_ERRORS {
        let ran = myapp(line).run().code(2).prints("");
        let expected = format!("myapp: {text}\nhint: {hint}\n");
        assert_eq!(ran.stderr, expected, "{line:?}");
    }
    myapp::<&str>([]).run().code(2).says("Usage");
}

#[test]
fn invalid_number_is_named_in_plain_words() {
    for line in [
        ["serve", "--threads=x"],
        ["echo", "--threads=x"],
        ["echo", "--retry=1.5"],
        ["cat", "--tail=-"],
        ["download", "--retry=5x"],
        ["download", "--max-redirs=-1"],
    ] {
        myapp(line).run().code(2).says("': not a whole number\n");
    }
    for command in ["serve", "echo"] {
        let ran = myapp([command, "--threads", "1025"]).run().code(2);
        ran.says("'--threads <N>': must be at most 1024\n");
    }
}

/// `-c` is the number of connections in load generators, and of messages in ping.
#[test]
fn refused_low_port_explains_the_connect_option() {
    let hint = "hint: -c is the address of the server; --connections N are those of a load";
    myapp(["echo", "-c", "1", "-n", "1"])
        .run()
        .code(4)
        .says(hint);
    let ran = myapp(["echo", "-c", "50000", "--timeout", "1s", "-n", "1"]).run();
    assert!(!ran.stderr.contains(hint), "{}", ran.stderr);
}

#[test]
fn invalid_log_filter_is_a_usage_error() {
    myapp(["serve", "0"])
        .env("MYAPP_LOG", "a=b=c")
        .run()
        .code(2)
        .says("MYAPP_LOG");
}

#[test]
fn unopenable_log_file_is_named() {
    myapp(["serve", "--log-file", "/no/such/folder/x", "0"])
        .run()
        .code(3)
        .says("open log file /no/such/folder/x: No such file or directory");
}

/// Sends a line to a server, stops it, and returns its output.
#[track_caller]
fn run_server(arguments: &[&str], line: &[u8]) -> RunOutput {
    let server = Server::start(arguments);
    let before = server.descriptors();
    assert_eq!(server.exchange(line), line);
    // The end of the connection is logged before its socket is closed.
    server.until_descriptors(before);
    server.stop()
}

/// Parses the lines of a log, each of which must be a JSON object.
#[track_caller]
fn parse_objects(log: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str::<Value>(line);
    let lines = log
        .lines()
        .map(|line| read(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines
        .inspect(|value| assert!(value.is_object(), "{value}"))
        .collect()
}

#[test]
fn connection_lifecycle_and_summary_are_logged() {
    let log = run_server(&[], b"hello\nworld\n").stderr;
    let lines: Vec<_> = log.lines().collect();
    let expected = [
        "INFO opened peer=127.0.0.1:",
        " bytes=6 text=hello",
        " bytes=6 text=world",
        " messages=2 received=12 sent=12 seconds=",
        "INFO shutting down",
        "INFO summary connections=1 messages=2 received=12 sent=12 ",
    ];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{expected:?} is not in {line:?}");
    }
}

#[test]
fn quiet_logs_only_errors() {
    run_server(&["-q"], b"hello\n").silent();
    run_server(&["--quiet"], b"hello\n").silent();
}

#[test]
fn environment_filter_overrides_quiet_and_verbose() {
    let start = |filter: &str, arguments: &[&str]| {
        let program = myapp([&["serve"], arguments, &["127.0.0.1:0"]].concat());
        let server = Server::of(program.env("MYAPP_LOG", filter), 1);
        server.exchange(b"hello\n");
        server.stop()
    };
    start("info", &["-q"]).says("text=hello");
    start("error", &["-v"]).silent();
    let without_traffic = start("myapp=info,myapp::traffic=off", &[]).says("summary");
    assert!(!without_traffic.stderr.contains("hello"));
}

#[test]
fn json_log_has_one_object_per_line() {
    let input = b"\x1b[2J\x1b]0;x\x07 \"quotes\" {\"level\":1}\\ \xff \xe2\x80\xae\r\n";
    let log = parse_objects(&run_server(&["--log-format", "json"], input).stderr);
    let field = |message: &str, field: &str| {
        let line = log.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("no {message}: {log:?}"))[field].clone()
    };
    let text = r#"\x1b[2J\x1b]0;x\x07 "quotes" {"level":1}\\ \xff \u{202e}\r"#;
    assert_eq!(field("received", "text"), text);
    assert_eq!(field("received", "bytes"), input.len());
    assert_eq!(field("received", "level"), "INFO");
    assert_eq!(field("closed", "messages"), 1);
    assert_eq!(field("summary", "sent"), input.len());
    assert!(field("summary", "elapsed").is_f64());
}

#[test]
fn received_text_is_escaped_and_truncated() {
    // A megabyte without a newline.
    let input = [
        b"\x1b[31mred\x07\x7f\xc2\x9b\xe2\x80\xae".as_slice(),
        &[b'x'; 1_000_000],
    ];
    let log = run_server(&[], &input.concat()).says(r"text=\x1b[31mred\x07\x7f\u{9b}\u{202e}xxx");
    let line = log
        .stderr
        .lines()
        .find(|line| line.contains("received"))
        .unwrap();
    assert!(line.ends_with("bytes more)"), "{line}");
    assert!(line.len() < 500, "{line}");
    let is_printable = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(log.stderr.chars().all(is_printable));
}

#[test]
fn log_file_is_appended_to() {
    let folder = Folder::new();
    folder.write("log", "from before\n");
    let arguments = [
        "serve",
        "--log-file",
        "log",
        "--log-format",
        "json",
        "127.0.0.1:0",
    ];
    let server = Server::of(folder.myapp(arguments), 1);
    let before = server.descriptors();
    assert_eq!(server.exchange(b"hello\n"), b"hello\n");
    server.until_descriptors(before);
    server.stop().silent();
    let log = String::from_utf8(folder.read("log")).unwrap();
    let rest = log.strip_prefix("from before\n").expect("the old lines");
    let messages: Vec<_> = parse_objects(rest)
        .iter()
        .map(|line| line["message"].clone())
        .collect();
    assert_eq!(
        messages,
        [
            "opened",
            "received",
            "closed",
            "shutting down; a second signal exits immediately",
            "summary"
        ]
    );
}

#[test]
fn failed_log_writes_are_reported_once_and_counted() {
    let arguments = ["serve", "--log-file", "/dev/full", "127.0.0.1:0"];
    let server = Server::of(myapp(arguments), 1);
    let before = server.descriptors();
    assert_eq!(server.exchange(b"hello\n"), b"hello\n");
    server.until_descriptors(before);
    let expected = "myapp: write the log to /dev/full: No space left on device\n\
                myapp: log lines lost: 5\n";
    assert_eq!(server.stop().code(0).stderr, expected);
}

#[test]
fn message_logging_is_rate_limited_and_counted() {
    let burst = b"line\n".repeat(1000);
    let server = Server::start(&[]);
    server.exchange(&burst);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    server.exchange(&burst);
    let log = server.stop().stderr;
    let lines_with = |text: &'static str| log.lines().filter(move |line| line.contains(text));
    let shown = lines_with("received peer").count();
    // A burst may span the end of a second.
    assert!((190..=400).contains(&shown), "{shown} lines");
    let left_out =
        lines_with("suppressed").filter_map(|l| l.split_once("lines=")?.1.parse::<usize>().ok());
    let traffic = shown + lines_with("opened peer").count() + lines_with("closed peer").count();
    assert_eq!(
        traffic + left_out.sum::<usize>(),
        2004,
        "each line is logged or counted"
    );
    assert!(
        lines_with("suppressed").count() >= 2,
        "reported after a second, and at the end"
    );
    let all = run_server(&["-v"], &burst).stderr;
    assert_eq!(
        all.lines()
            .filter(|line| line.contains("received peer"))
            .count(),
        1000
    );
}

/// Makes a FIFO that is open for reading and writing, so that opening it does not block, and that
/// has no reader.
fn unread_fifo(folder: &Folder) -> (PathBuf, File) {
    let path = folder.path("fifo");
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    (path, file)
}

#[test]
fn blocked_log_file_does_not_block_service() {
    let folder = Folder::new();
    let (_, _keep) = unread_fifo(&folder);
    let server = Server::of(
        folder.myapp(["serve", "-v", "--log-file", "fifo", "127.0.0.1:0"]),
        1,
    );
    assert_burst_is_echoed(&server);
    let ran = server.stop();
    assert_eq!(ran.text(), "", "stdout is empty");
    ran.says("log lines dropped: reader too slow");
}

#[test]
fn blocked_stderr_does_not_block_shutdown() {
    let folder = Folder::new();
    let (path, _keep) = unread_fifo(&folder);
    let server = Server::of(
        folder
            .myapp(["serve", "-v", "127.0.0.1:0"])
            .stderr_to(&path),
        1,
    );
    // More lines than the queue of the log holds.
    assert_burst_is_echoed(&server);
    assert_eq!(server.stop().text(), "", "stdout is empty");
}

#[track_caller]
fn assert_burst_is_echoed(server: &Server) {
    let client = server.connect();
    let burst = b"line\n".repeat(10_000);
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&burst).unwrap());
        let mut answer = vec![0; burst.len()];
        std::io::Read::read_exact(&mut &client, &mut answer).unwrap();
        assert!(answer == burst);
    });
}
