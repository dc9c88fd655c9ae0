//! What is shown: byte for byte what GNU shows.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;

use super::*;

/// How a cat ended, what it wrote, and what it said.
#[derive(PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    bytes: Vec<u8>,
    said: String,
}

/// Where a cat's output goes.
#[derive(Debug, Clone, Copy)]
enum To {
    Pipe,
    File,
    EndOfFile,
}

/// What a cat is given.
#[derive(Debug)]
struct Run {
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    stdin_is_file: bool,
    to: To,
}

impl Run {
    #[track_caller]
    fn of(&self, folder: &Folder, mut cat: Command) -> Ended {
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
        match self.to {
            To::Pipe => {}
            To::File => drop(cat.stdout(File::create(&path).unwrap())),
            To::EndOfFile => {
                cat.stdout(OpenOptions::new().append(true).open(&path).unwrap());
            }
        }
        let mut child = cat.spawn().expect("start a cat");
        let (pipe, bytes) = (child.stdin.take(), self.stdin.clone());
        // One that reads no stdin closes it.
        let feeder = thread::spawn(move || drop(pipe.map(|mut pipe| pipe.write_all(&bytes))));
        let output = child.wait_with_output().expect("run a cat");
        feeder.join().unwrap();
        let written = [output.stdout, folder.read("stdout")].concat();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ended {
            code: output.status.code(),
            bytes: written,
            said,
        }
    }

    fn of_gnu(&self, folder: &Folder) -> Ended {
        self.of(folder, Command::new("cat"))
    }

    /// Ours; of what it says, as much as GNU says too.
    fn of_ours(&self, folder: &Folder) -> Ended {
        let mut cat = Command::new(env!("CARGO_BIN_EXE_myapp"));
        cat.arg("cat");
        let ended = self.of(folder, cat);
        let said = ended
            .said
            .replace("myapp: open ", "cat: ")
            .replace("myapp: read ", "cat: ");
        Ended { said, ..ended }
    }
}

const LONG: [&str; 8] = [
    "--show-all",
    "--number-nonblank",
    "--show-ends",
    "--number",
    "--squeeze-blank",
    "--show-tabs",
    "--show-nonprinting",
    "-u",
];

/// What is named beside nasty files: streams, what cannot be read, names that are hard to read.
const ODD: [&[u8]; 12] = [
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
            0 => random.choice(LONG).unwrap().into(),
            // Several in one.
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
            0 => random.choice(ODD).unwrap().into(),
            _ => format!("file {}", random.u8(..8)).into(),
        });
    }
    // Options may come after files, but behind `--` all are files.
    random.shuffle(&mut arguments);
    if random.u8(..8) == 0 {
        arguments.extend([b"--".to_vec(), b"-n".to_vec(), b"--number".to_vec()]);
    }
    Run {
        arguments: arguments.into_iter().map(OsString::from_vec).collect(),
        stdin: nasty(random),
        stdin_is_file: random.bool(),
        to: random.choice([To::Pipe, To::File, To::EndOfFile]).unwrap(),
    }
}

#[test]
fn random_runs_equal_gnu_cat() {
    compare_random_runs(200);
}

#[test]
#[ignore = "slow: 2,000 random runs"]
fn two_thousand_random_runs_equal_gnu_cat() {
    compare_random_runs(2_000);
}

/// Compares random runs with GNU cat. `SEED=N` in the environment repeats them.
fn compare_random_runs(runs: usize) {
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
            (0..8).for_each(|n| drop(folder.write(&format!("file {n}"), nasty(&mut random))));
        }
        let run = random_run(&mut random);
        let (wanted, ours) = (run.of_gnu(&folder), run.of_ours(&folder));
        let same = [
            ("exit codes", ours.code == wanted.code),
            ("bytes", ours.bytes == wanted.bytes),
            ("errors", ours.said == wanted.said),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            let Run {
                arguments,
                stdin_is_file,
                to,
                ..
            } = run;
            panic!(
                "seed {seed}, run {number}: {what} differ: {arguments:?}, to {to:?}, stdin is a \
                 file: {stdin_is_file}\nours said: {}\ntheirs said: {}",
                ours.said, wanted.said
            );
        }
    }
}

/// What GNU shows of some files.
#[track_caller]
fn gnu(folder: &Folder, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("cat")
        .args(arguments)
        .current_dir(folder.path(""))
        .output();
    output.expect("run the system's cat").stdout
}

#[test]
fn long_names_mean_what_the_short_ones_mean() {
    let folder = Folder::new();
    folder.write("a", b"a\t\x01\r\n\n\n\xff");
    for (long, short) in LONG
        .iter()
        .zip(["-A", "-b", "-E", "-n", "-s", "-T", "-v", "-u"])
    {
        let wanted = gnu(&folder, &[short, "a"]);
        folder
            .myapp(["cat", long, "a"])
            .run()
            .code(0)
            .prints(wanted)
            .silent();
    }
}

#[test]
fn numbers_run_on_over_files_and_past_a_million() {
    let folder = Folder::new();
    folder.write("a", "a\n\n\n".repeat(400_000));
    folder.write("b", "no newline at the end");
    for flag in ["-n", "-b", "-ns", "-bE"] {
        let wanted = gnu(&folder, &[flag, "b", "a", "b", "a", "b"]);
        let ran = folder
            .myapp(["cat", flag, "b", "a", "b", "a", "b"])
            .run()
            .code(0)
            .silent();
        assert!(ran.stdout == wanted, "{flag}");
    }
}

#[test]
fn a_line_end_may_come_in_two_pieces() {
    let folder = Folder::new();
    fifo(&folder, "f");
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
