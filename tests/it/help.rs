//! Help, version and colors of every command.

use std::process::Command;

const COMMANDS: [&str; 6] = ["serve", "echo", "download", "cat", "completions", "man"];
const MAX_SHORT_HELP_LINES: usize = 24;

/// Runs the program on a terminal of this width, and returns its output.
#[track_caller]
fn print(arguments: &[&str], columns: usize) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_myapp"))
        .args(arguments)
        .env("COLUMNS", columns.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns what a failing run prints to stderr.
#[track_caller]
fn errors(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_myapp"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn short_help_fits_one_screen() {
    let commands = COMMANDS.map(|command| vec![command, "-h"]);
    for arguments in [vec!["-h"]].into_iter().chain(commands) {
        let text = print(&arguments, 80);
        let lines = text.lines().count();
        assert!(lines <= MAX_SHORT_HELP_LINES, "{lines} lines:\n{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains(" --help shows everything"), "{text}");
        assert!(text.starts_with(|c: char| c.is_uppercase()), "{text}");
        assert!(text.contains("\nUsage: myapp "), "{text}");
    }
}

#[test]
fn each_way_to_ask_gives_the_same_help() {
    for command in COMMANDS {
        let long = print(&[command, "--help"], 80);
        assert_eq!(print(&["help", command], 80), long);
        assert_eq!(print(&["--color", "never", command, "--help"], 80), long);
        assert!(!long.contains("\n\n      --"), "blank lines: {long}");
        let short = print(&[command, "-h"], 80);
        assert_ne!(short, long);
        assert_eq!(print(&["--color=never", command, "-h"], 80), short);
    }
    assert_eq!(print(&["serve", "-qh"], 80), print(&["serve", "-h"], 80));
    assert_eq!(print(&["help"], 80), print(&["--help"], 80));
}

#[test]
fn long_help_keeps_its_lists_on_narrow_terminals() {
    let list =
        "\n  2    Invalid command line\n  3    Local file: certificate, key, log or Unix socket\n";
    for columns in [60, 80, 100, 200] {
        let text = print(&["serve", "--help"], columns);
        assert!(text.contains(list), "{columns}: {text}");
        let limit = columns.min(100);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(limit), "{columns}: {text}");
    }
}

#[test]
fn version_is_printed_before_and_after_a_command() {
    let version = format!("myapp {}\n", env!("CARGO_PKG_VERSION"));
    for option in ["-V", "--version"] {
        assert_eq!(print(&[option], 80), version);
        for command in COMMANDS {
            assert_eq!(print(&[command, option], 80), version);
            assert_eq!(print(&[option, command], 80), version);
            assert_eq!(print(&["--color=never", command, option], 80), version);
        }
    }
}

#[test]
fn color_is_accepted_before_and_after_a_command() {
    let red = "\u{1b}[1;31mmyapp:\u{1b}[0m ";
    for arguments in [
        ["cat", "no such file"],
        ["download", "ftp://127.0.0.1/f"],
        ["serve", "--no-such-option"],
        ["cat", "--num"],
        ["echo", "--jobs=x"],
    ] {
        let [command, argument] = arguments;
        for line in [
            [command, argument, "--color=always"].as_slice(),
            &[command, "--color", "always", argument],
            &["--color", "always", command, argument],
            &["--color=always", command, argument],
        ] {
            let text = errors(line);
            assert!(text.starts_with(red), "{line:?}: {text}");
            let plain = text.replace("\u{1b}[1;31m", "").replace("\u{1b}[36m", "");
            let plain = plain.replace("\u{1b}[0m", "");
            assert_eq!(plain, errors(&arguments), "{line:?}");
        }
    }
    let help = print(&["--color", "always", "serve", "-h"], 80);
    assert!(help.contains('\u{1b}'), "{help}");
    let long = print(&["--color=always", "cat", "--help"], 80);
    assert!(long.contains('\u{1b}'), "{long}");
}
