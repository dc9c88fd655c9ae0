//! Comparisons of `cat` beyond plain copies: display options, decompression, following.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cases::{OURS, ROUNDS, cats, contenders};
use crate::machine;
use crate::measure::{Contender, Timing, interleaved};
use crate::report::Report;

/// Names of the comparisons on the command line.
pub(crate) const NAMES: [&str; 3] = ["cat-display", "cat-decompress", "cat-follow"];

/// Length of the texts for the display options.
const TEXT_LEN: usize = 50_000_000;

/// Number of lines whose latency is measured.
const FOLLOWED_LINES: usize = 1_000;

pub(crate) fn all(
    folder: &Path,
    report: &mut Report,
    is_selected: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    for (name, compare) in NAMES.iter().zip([display, decompress, follow]) {
        if is_selected(name) {
            let folder = folder.join(name);
            fs::create_dir(&folder)?;
            compare(&folder, report)?;
        }
    }
    Ok(())
}

/// Compares the display options, and appending.
fn display(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let cats = cats(report);
    write_texts(folder)?;
    let folder = folder.display();
    for (options, text) in [
        ("-v", "ASCII"),
        ("-v", "Cyrillic"),
        ("-v", "random"),
        ("-A", "tabs"),
        ("-A", "CRLF"),
        ("-E", "CRLF"),
        ("-T", "tabs"),
        ("-s", "ASCII"),
        ("-s", "empty"),
        ("-b", "empty"),
        ("-n", "empty"),
        ("-n", "one-line"),
        ("-An", "Cyrillic"),
    ] {
        let script = format!("exec CAT {options} {folder}/{text} >/dev/null");
        let timings = interleaved(&contenders(&cats, &script), ROUNDS, &|| Ok(()))?;
        report.add(&format!("{options}, 50 MB, {text}"), &timings);
    }
    let script = format!("cd {folder}; : >out; exec CAT random random >>out");
    let timings = interleaved(&contenders(&cats, &script), ROUNDS, &|| Ok(()))?;
    report.add("100 MB appended to a file", &timings);
    Ok(())
}

/// Writes a file of each kind of text.
fn write_texts(folder: &Path) -> anyhow::Result<()> {
    const WORDS: [&str; 8] = ["return", "let", "value;", "{", "x", "alpha", "=", "beta"];
    const CYRILLIC: [&str; 6] = ["привет", "мир", "и", "хорошая", "погода", "мы"];
    let mut random = fastrand::Rng::with_seed(1);
    let mut write = |name: &str, words: &[&str], separator: &str, end: &str| {
        let mut text = Vec::with_capacity(TEXT_LEN + 1000);
        while text.len() < TEXT_LEN {
            for _ in 0..random.usize(..16) {
                text.extend_from_slice(random.choice(words).unwrap_or(&"").as_bytes());
                text.extend_from_slice(separator.as_bytes());
            }
            text.extend_from_slice(end.as_bytes());
        }
        fs::write(folder.join(name), text)
    };
    write("ASCII", &WORDS, " ", "\n")?;
    write("CRLF", &WORDS, " ", "\r\n")?;
    write("tabs", &WORDS, "\t", "\n")?;
    write("Cyrillic", &CYRILLIC, " ", "\n")?;
    write("one-line", &WORDS, " ", "")?;
    fs::write(folder.join("empty"), vec![b'\n'; TEXT_LEN])?;
    let bytes: Vec<_> = (0..TEXT_LEN).map(|_| random.u8(..)).collect();
    Ok(fs::write(folder.join("random"), bytes)?)
}

/// Compares decompression of 3,000 tiny files, and of a large one on one thread.
fn decompress(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let text = folder.join("text");
    let script = format!("seq 20000000 | head -c 100000000 >{}", text.display());
    crate::measure::run(&script)?;
    let ours = |script: &str| Contender {
        name: "myapp cat -z".to_owned(),
        script: script.replace("CAT", OURS),
    };
    let folder = folder.display();
    for (program, compress, decompress, extension) in [
        ("gzip", "gzip -c", "gzip -dc", "gz"),
        ("bzip2", "bzip2 -c", "bzip2 -dc", "bz2"),
        ("zstd", "zstd -qc", "zstd -qdc --single-thread", "zst"),
        ("xz", "xz -2c", "xz -dc -T1", "xz"),
    ] {
        let Some(version) = machine::version(program) else {
            report.skipped(program);
            continue;
        };
        crate::measure::run(&format!("cd {folder}; {compress} text >text.{extension}"))?;
        let theirs = |script: String| Contender {
            name: version.clone(),
            script,
        };
        let large = format!("{folder}/text.{extension} >/dev/null");
        let contenders = [
            ours(&format!("exec CAT cat -z {large}")),
            theirs(format!("exec {decompress} {large}")),
        ];
        let timings = interleaved(&contenders, ROUNDS, &|| Ok(()))?;
        report.add(&format!("100 MB of {program}"), &timings);

        let tiny = format!(
            "mkdir {folder}/{extension}; cd {folder}/{extension}; seq 10 | {compress} >1; \
             for n in $(seq 2 3000); do cp 1 $n.{extension}; done; rm 1"
        );
        crate::measure::run(&tiny)?;
        let tiny = |command: &str| format!("cd {folder}/{extension}; exec {command} * >/dev/null");
        let contenders = [ours(&tiny("CAT cat -z")), theirs(tiny(decompress))];
        let timings = interleaved(&contenders, ROUNDS, &|| Ok(()))?;
        report.add(&format!("3,000 tiny files of {program}"), &timings);
    }
    Ok(())
}

/// A program that follows a file.
struct Follower {
    child: Child,
    output: BufReader<ChildStdout>,
    file: File,
}

impl Follower {
    fn start(path: &Path, command: &mut Command) -> anyhow::Result<Self> {
        fs::write(path, "start\n")?;
        let mut child = command.arg(path).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("open the pipe")?;
        let file = OpenOptions::new().append(true).open(path)?;
        let output = BufReader::new(output);
        let mut follower = Self {
            child,
            output,
            file,
        };
        follower.output.read_line(&mut String::new())?;
        Ok(follower)
    }

    /// Appends a line and returns the time until it is printed.
    fn latency(&mut self) -> anyhow::Result<f64> {
        // Until the program waits again.
        std::thread::sleep(Duration::from_millis(1));
        let start = Instant::now();
        self.file.write_all(b"a line\n")?;
        self.output.read_line(&mut String::new())?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Compares the time from appending a line to a followed file until it is printed.
fn follow(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let Some(tail) = machine::version("tail") else {
        report.skipped("tail");
        return Ok(());
    };
    let names = ["myapp cat --follow".to_owned(), format!("{tail}, -F")];
    let mut followers = [
        Follower::start(&folder.join("a"), Command::new(OURS).args(["cat", "-f"]))?,
        Follower::start(&folder.join("b"), Command::new("tail").arg("-F"))?,
    ];
    let mut times = vec![Vec::new(), Vec::new()];
    for _ in 0..FOLLOWED_LINES {
        for (follower, times) in followers.iter_mut().zip(&mut times) {
            times.push(follower.latency()?);
        }
    }
    for follower in &mut followers {
        follower.child.kill()?;
        follower.child.wait()?;
    }
    let contenders = names.map(|name| Contender {
        name,
        script: String::new(),
    });
    let timings = Timing::relative_to_first(&contenders, times);
    report.add("--follow: an appended line", &timings);
    Ok(())
}
