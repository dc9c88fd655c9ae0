//! Display options: the same output as GNU `cat`.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;

use super::*;

/// Result of a run.
#[derive(PartialEq, Eq)]
struct RunResult {
    code: Option<i32>,
    bytes: Vec<u8>,
    stderr: String,
}

/// Destination of the output.
#[derive(Debug, Clone, Copy)]
enum Stdout {
    Pipe,
    File,
    AppendedFile,
}

/// Arguments and standard streams of a run.
#[derive(Debug)]
struct Run {
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    stdin_is_file: bool,
    stdout: Stdout,
}

impl Run {
    #[track_caller]
    fn run(&self, folder: &Folder, mut cat: Command) -> RunResult {
        cat.args(&self.arguments)
            .current_dir(folder.path(""))
            .env("LC_ALL", "C");
        cat.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.stdin_is_file {
            cat.stdin(File::open(folder.write("stdin", &self.stdin)).unwrap());
        }
        let path = folder.write("stdout", "old\n");
        match self.stdout {
            Stdout::Pipe => {}
            Stdout::File => drop(cat.stdout(File::create(&path).unwrap())),
            Stdout::AppendedFile => {
                cat.stdout(OpenOptions::new().append(true).open(&path).unwrap());
            }
        }
        let mut child = cat.spawn().expect("start cat");
        let pipe = child.stdin.take();
        let bytes = self.stdin.clone();
        // The write fails if the program does not read its stdin.
        let writer = thread::spawn(move || drop(pipe.map(|mut pipe| pipe.write_all(&bytes))));
        let output = child.wait_with_output().expect("wait for cat");
        writer.join().unwrap();
        RunResult {
            code: output.status.code(),
            bytes: [output.stdout, folder.read("stdout")].concat(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn run_gnu(&self, folder: &Folder) -> RunResult {
        self.run(folder, Command::new("cat"))
    }

    /// Runs the program under test, and converts its errors to the form of GNU.
    fn run_myapp(&self, folder: &Folder) -> RunResult {
        let mut cat = Command::new(env!("CARGO_BIN_EXE_myapp"));
        cat.arg("cat");
        let result = self.run(folder, cat);
        let stderr = result
            .stderr
            .replace("myapp: open ", "cat: ")
            .replace("myapp: read ", "cat: ");
        RunResult { stderr, ..result }
    }
}

const LONG_OPTIONS: [&str; 8] = [
    "--show-all",
    "--number-nonblank",
    "--show-ends",
    "--number",
    "--squeeze-blank",
    "--show-tabs",
    "--show-nonprinting",
    "-u",
];

/// Arguments besides random files: streams, unreadable files, unusual names.
const OTHER_FILES: [&[u8]; 12] = [
    b"-",
    b"-",
    b"-",
    b"missing",
    b"folder",
    b"/proc/self/mem",
    b"empty",
    b"/dev/null",
    b"link",
    b"dangling",
    b"./-n",
    b"\xff\n",
];

fn random_run(random: &mut fastrand::Rng) -> Run {
    let mut arguments: Vec<Vec<u8>> = Vec::new();
    for _ in 0..random.usize(..4) {
        arguments.push(match random.u8(..4) {
            0 => random.choice(LONG_OPTIONS).unwrap().into(),
            // Several letters in one argument.
            _ => {
                let short = (0..random.usize(1..4)).map(|_| random.choice(*b"AbeEnstTuv").unwrap());
                [b'-']
                    .into_iter()
                    .chain(short.collect::<Vec<_>>())
                    .collect()
            }
        });
    }
    for _ in 0..random.usize(..6) {
        arguments.push(match random.u8(..3) {
            0 => random.choice(OTHER_FILES).unwrap().into(),
            _ => format!("file {}", random.u8(..8)).into(),
        });
    }
    // Options may follow files, but after `--` all arguments are files.
    random.shuffle(&mut arguments);
    if random.u8(..8) == 0 {
        arguments.extend([b"--".to_vec(), b"-n".to_vec(), b"--number".to_vec()]);
    }
    Run {
        arguments: arguments.into_iter().map(OsString::from_vec).collect(),
        stdin: random_text(random),
        stdin_is_file: random.bool(),
        stdout: random
            .choice([Stdout::Pipe, Stdout::File, Stdout::AppendedFile])
            .unwrap(),
    }
}

#[test]
fn random_runs_equal_gnu_cat() {
    compare_random_runs(200);
}

#[test]
#[ignore = "slow: 2,000 random runs"]
fn many_random_runs_equal_gnu_cat() {
    compare_random_runs(2_000);
}

/// Compares random runs with GNU `cat`. `SEED=N` in the environment repeats them.
pub(super) fn compare_random_runs(runs: usize) {
    let seed = env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    symlink("file 0", folder.path("link")).unwrap();
    symlink("nowhere", folder.path("dangling")).unwrap();
    fs::write(
        folder.path("").join(OsString::from_vec(b"\xff\n".to_vec())),
        "odd\n\n",
    )
    .unwrap();
    for (name, text) in [("empty", ""), ("-n", "minus\r\n"), ("--number", "\r")] {
        folder.write(name, text);
    }
    for number in 0..runs {
        if number % 10 == 0 {
            (0..8).for_each(|n| drop(folder.write(&format!("file {n}"), random_text(&mut random))));
        }
        let run = random_run(&mut random);
        let expected = run.run_gnu(&folder);
        let actual = run.run_myapp(&folder);
        let comparisons = [
            ("exit codes", actual.code == expected.code),
            ("bytes", actual.bytes == expected.bytes),
            ("errors", actual.stderr == expected.stderr),
        ];
        if let Some((difference, _)) = comparisons.iter().find(|(_, is_equal)| !is_equal) {
            let Run {
                arguments,
                stdin_is_file,
                stdout,
                ..
            } = run;
            panic!(
                "seed {seed}, run {number}: {difference} differ: {arguments:?}, stdout {stdout:?}, \
                 stdin is a file: {stdin_is_file}\nactual: {}\nexpected: {}",
                actual.stderr, expected.stderr
            );
        }
    }
}

/// Returns the output of GNU `cat`.
#[track_caller]
fn gnu_output(folder: &Folder, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("cat")
        .args(arguments)
        .current_dir(folder.path(""))
        .output();
    output.expect("run GNU cat").stdout
}

#[test]
fn long_options_equal_short_ones() {
    let folder = Folder::new();
    folder.write("a", b"a\t\x01\r\n\n\n\xff");
    for (long, short) in LONG_OPTIONS
        .iter()
        .zip(["-A", "-b", "-E", "-n", "-s", "-T", "-v", "-u"])
    {
        let expected = gnu_output(&folder, &[short, "a"]);
        folder
            .myapp(["cat", long, "a"])
            .run()
            .code(0)
            .prints(expected)
            .silent();
    }
}

#[test]
fn abbreviated_long_options_equal_gnu() {
    let folder = Folder::new();
    folder.write("a", b"a\t\x01\r\n\n\n\xff");
    for option in [
        "--show-a",
        "--number-",
        "--show-e",
        "--sq",
        "--show-t",
        "--show-n",
    ] {
        let expected = gnu_output(&folder, &[option, "a"]);
        let ran = folder.myapp(["cat", option, "a"]).run();
        ran.code(0).prints(expected).silent();
    }
    for option in ["--num", "--n", "--s", "--show"] {
        let ran = folder.myapp(["cat", option, "a"]).run().code(2).prints("");
        ran.says(&format!(
            "myapp: option '{option}' is ambiguous; possibilities: --"
        ));
    }
    let version = folder.myapp(["--version"]).run().code(0).text();
    for option in ["--version", "--v", "--ver"] {
        let ran = folder.myapp(["cat", option]).run().code(0).silent();
        assert_eq!(ran.text(), version);
    }
    // Options of our own, where GNU has none.
    folder.myapp(["cat", "--seq", "a"]).run().code(0).silent();
    folder
        .myapp(["cat", "--", "--sq"])
        .run()
        .code(1)
        .says("open --sq: ");
}

#[test]
fn line_numbers_continue_across_files() {
    let folder = Folder::new();
    folder.write("a", "a\n\n\n".repeat(400_000));
    folder.write("b", "no newline at the end");
    for flag in ["-n", "-b", "-ns", "-bE"] {
        let expected = gnu_output(&folder, &[flag, "b", "a", "b", "a", "b"]);
        let ran = folder
            .myapp(["cat", flag, "b", "a", "b", "a", "b"])
            .run()
            .code(0)
            .silent();
        assert!(ran.stdout == expected, "{flag}");
    }
}

#[test]
fn crlf_split_across_reads_is_one_line_end() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    let mut running = folder.myapp(["cat", "-E", "f"]).start();
    let mut f = OpenOptions::new()
        .write(true)
        .open(folder.path("f"))
        .unwrap();
    f.write_all(b"first\nsecond\r").unwrap();
    assert_eq!(running.line(), "first$");
    f.write_all(b"\nthird\r").unwrap();
    assert_eq!(running.line(), "second^M$");
    f.write_all(b"\r\n\r").unwrap();
    assert_eq!(running.line(), "third\r^M$");
    drop(f);
    running.wait().code(0).prints("\r");
}
