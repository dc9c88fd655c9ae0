//! Documentation checks: commands run and print what the pages show, options exist, links resolve,
//! help texts are current, and every example is listed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const COMMANDS: [&str; 4] = ["serve", "echo", "download", "cat"];
const MAX_README_LINES: usize = 200;
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown pages at the top, in `docs` and in `examples`, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "examples"].map(|name| root().join(name)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|block| block.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_myapp"))
        .args([command, "--help"])
        .env("COLUMNS", "80")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command} --help");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn first_two_commands_are_tour_and_tests() {
    let first: Vec<_> = blocks(&page("README.md"), "sh")
        .into_iter()
        .take(2)
        .collect();
    assert_eq!(
        first,
        ["cargo run --release --example tour\n", "cargo test\n"]
    );
}

#[test]
fn readme_is_short() {
    let lines = page("README.md").lines().count();
    assert!(lines <= MAX_README_LINES, "{lines} lines");
}

/// To update the texts:
/// `for c in serve echo download cat; do COLUMNS=80 myapp $c --help | sed 's/ *$//' > docs/cli/$c.txt; done`.
#[test]
fn help_in_docs_is_current() {
    for command in COMMANDS {
        let current: Vec<_> = help(command)
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        let path = root().join(format!("docs/cli/{command}.txt"));
        let documented = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            documented,
            current.join("\n") + "\n",
            "docs/cli/{command}.txt"
        );
    }
}

#[test]
fn help_fits_eighty_columns() {
    for command in COMMANDS {
        for line in help(command).lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}

/// Long options in the part of a line that belongs to `myapp COMMAND`.
fn options_of<'a>(line: &'a str, command: &str) -> Vec<&'a str> {
    let Some((_, arguments)) = line.split_once(&format!("myapp {command} ")) else {
        return Vec::new();
    };
    let end = [" | ", " # ", "; ", " && ", " 2>"]
        .iter()
        .filter_map(|separator| arguments.find(separator))
        .min()
        .unwrap_or(arguments.len());
    arguments[..end]
        .split_whitespace()
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .map(|word| word.split('=').next().unwrap())
        .collect()
}

#[test]
fn options_in_commands_exist() {
    for command in COMMANDS {
        let help = help(command);
        let known: BTreeSet<_> = help
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .collect();
        for (path, text) in pages() {
            for language in ["sh", "console"] {
                for line in blocks(&text, language)
                    .iter()
                    .flat_map(|block| block.lines())
                {
                    for option in options_of(line, command) {
                        assert!(
                            known.contains(option),
                            "{}: {command} has no {option}",
                            path.display()
                        );
                    }
                }
            }
        }
    }
}

/// An interactive `sh` in a folder of its own. Ports 8888 and 9100 are replaced by free ones, so
/// that sessions do not collide with other programs.
struct Session {
    shell: Child,
    output: PathBuf,
    /// Removed when the session is dropped.
    _folder: tempfile::TempDir,
    consumed: usize,
    steps: usize,
    ports: [(&'static str, String); 2],
}

impl Session {
    fn start(number: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join(".session");
        let file = File::create(&output).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_myapp")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let shell = Command::new("sh")
            .current_dir(folder.path())
            // A group of its own: it includes the background jobs of the session.
            .process_group(0)
            .env("PATH", path)
            .env_remove("MYAPP_LOG")
            .stdin(Stdio::piped())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .spawn()
            .unwrap();
        // Below the range of ephemeral ports, so that no other test can hold them.
        let first = 10_000 + (std::process::id() as usize * 64 + 2 * number) % 20_000;
        let ports = [
            ("8888", first.to_string()),
            ("9100", (first + 1).to_string()),
        ];
        Self {
            shell,
            output,
            _folder: folder,
            consumed: 0,
            steps: 0,
            ports,
        }
    }

    fn with_ports(&self, text: &str) -> String {
        self.ports
            .iter()
            .fold(text.to_owned(), |text, (shown, real)| {
                text.replace(shown, real)
            })
    }

    /// Runs one command and asserts its output. Output of a background job is awaited.
    fn step(&mut self, command: &str, expected: &str) {
        let expected = normalize(&self.with_ports(expected));
        self.steps += 1;
        let marker = format!("\u{1e}{}\n", self.steps);
        let line = format!(
            "{}\nprintf '\\036%d\\n' {}\n",
            self.with_ports(command),
            self.steps
        );
        let stdin = self.shell.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        let background = command.ends_with('&');
        let start = Instant::now();
        loop {
            let all = String::from_utf8_lossy(&fs::read(&self.output).unwrap()).into_owned();
            let printed = &all[self.consumed..];
            let text = normalize(&printed.replace(&marker, ""));
            let is_complete = printed.contains(&marker) && (!background || text == expected);
            if is_complete || start.elapsed() > STEP_TIMEOUT {
                assert_eq!(text, expected, "$ {command}");
                assert!(is_complete, "no end of: {command}");
                self.consumed = all.len();
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Background jobs end with their session, also when an assertion fails. The group exists
        // at least until the shell is waited for.
        kill_process_group(Pid::from_child(&self.shell), Signal::KILL).unwrap();
        self.shell.wait().unwrap();
    }
}

/// Replaces measured values (`1.50 ms`, `2.11 KiB`, `952 KiB/s`) by `#`, and trims the text.
fn normalize(text: &str) -> String {
    const UNITS: [&str; 8] = ["ns", "µs", "ms", "s", "B", "KiB", "MiB", "GiB"];
    let mut lines = Vec::new();
    for line in text.trim_end().lines() {
        let mut words: Vec<String> = Vec::new();
        for word in line.trim_end().split(' ') {
            let unit = word.trim_matches(['(', ')', ',', ':']);
            let unit = unit.strip_suffix("/s").unwrap_or(unit);
            let number = words.last_mut().filter(|last| {
                last.ends_with(|c: char| c.is_ascii_digit()) && UNITS.contains(&unit)
            });
            match number {
                Some(number) => {
                    let keep = number.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
                    *number = format!("{keep}#");
                }
                None => words.push(word.to_owned()),
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[test]
fn measured_values_are_normalized() {
    for (text, normalized) in [
        ("saved f: 2.11 KiB in 1.50 ms", "saved f: # in #"),
        ("(952 KiB/s), 1 failed", "(# 1 failed"),
        ("seq=1 time=439 µs", "seq=1 time=#"),
        ("     1\tone$", "     1\tone$"),
        ("1 of 2 files", "1 of 2 files"),
    ] {
        assert_eq!(normalize(text), normalized);
    }
}

/// Each `console` block is a session in a folder of its own: `$ COMMAND`, then its output.
#[test]
fn sessions_run_as_shown() {
    let mut number = 0;
    for (path, text) in pages() {
        for block in blocks(&text, "console") {
            println!("{}:\n{block}", path.display());
            let mut session = Session::start(number);
            number += 1;
            for step in format!("\n{block}").split("\n$ ").skip(1) {
                let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
                session.step(command, expected);
            }
        }
    }
    assert!(number > 0, "no sessions");
}

/// The text without fenced blocks and inline code.
fn prose(text: &str) -> String {
    let without_blocks: String = text
        .split("\n```")
        .step_by(2)
        .map(|part| format!("{part}\n"))
        .collect();
    without_blocks.split('`').step_by(2).collect()
}

/// Targets of inline links, images and link definitions.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned());
    let definitions = prose
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .map(|(_, target)| target.to_owned());
    inline.chain(definitions).collect()
}

/// Anchors of the headings as forges derive them: lower case, hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    text.split("\n```")
        .step_by(2)
        .flat_map(str::lines)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn links_resolve() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                _ => path.parent().unwrap().join(file),
            };
            let is_found = target.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !is_found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// crates.io has the package alone.
#[test]
fn files_that_pages_refer_to_are_packaged() {
    let manifest = page("Cargo.toml");
    let excluded = manifest.split("\nexclude = [").nth(1).unwrap();
    let excluded = excluded.split(']').next().unwrap();
    let folders: Vec<_> = excluded.split('"').skip(1).step_by(2).collect();
    assert!(folders.contains(&"fuzz"), "{folders:?}");
    for (path, text) in pages() {
        for link in links(&text) {
            let target = link.trim_start_matches("../");
            let is_excluded = folders.iter().any(|folder| target.starts_with(folder));
            assert!(
                !is_excluded,
                "{}: {link} is not in the package",
                path.display()
            );
        }
    }
}

#[test]
fn examples_are_listed() {
    let listed = page("examples/README.md");
    for name in crate::examples::names() {
        assert!(
            listed.contains(&format!("({name}.rs)")),
            "{name} is not in examples/README.md"
        );
    }
}
