//! The built program, run in a temporary folder; failures tell the whole story.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A run that takes longer hangs: it is killed and the test fails.
const HANGS: Duration = Duration::from_secs(60);

/// A temporary folder, removed when dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("make a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("write {name}: {error}"));
        path
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| {
            panic!("read {name}: {error}; the folder holds {:?}", self.names())
        })
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    /// The program, to be run in this folder.
    pub fn myapp<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Program {
        let mut program = myapp(arguments);
        program.command.current_dir(self.0.path());
        program.folder = Some(self.0.path().to_owned());
        program
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("list the folder");
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The program with its arguments, not yet started.
pub struct Program {
    command: Command,
    folder: Option<PathBuf>,
    stdin: Vec<u8>,
    holds_stdin: bool,
}

/// The program, to be run with these arguments.
pub fn myapp<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myapp"));
    command
        .args(arguments)
        .env_remove("MYAPP_LOG")
        .env_remove("NO_COLOR");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    Program {
        command,
        folder: None,
        stdin: Vec::new(),
        holds_stdin: false,
    }
}

impl Program {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Lets it have at most so many descriptors.
    pub fn descriptors(self, limit: u32) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Starts it with this umask.
    pub fn umask(self, mask: &str) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("umask {mask} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Has signals end it that it does not catch, also where whoever runs the tests ignores them
    /// (as a shell has its background jobs ignore SIGINT).
    pub fn with_default_signals(self) -> Self {
        let mut env = Command::new("env");
        env.arg("--default-signal=INT,TERM");
        self.through(env)
    }

    /// Sends its stderr there, where nobody collects it.
    pub fn stderr_to(self, path: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 2>>\"$STDERR\"")
            .env("STDERR", path);
        self.through(shell)
    }

    /// Has `starter`, which is given the program and its arguments, start it.
    pub fn through(mut self, mut starter: Command) -> Self {
        starter
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => starter.env(name, value),
                None => starter.env_remove(name),
            };
        }
        starter.current_dir(self.command.get_current_dir().unwrap_or(Path::new(".")));
        self.command = starter;
        self
    }

    /// Leaves stdin open for [`Running::write`].
    pub fn hold_stdin(mut self) -> Self {
        self.holds_stdin = true;
        self
    }

    /// Runs to the end.
    #[track_caller]
    pub fn run(self) -> Ran {
        self.start().wait()
    }

    /// Starts and goes on beside the test; stdin is fed, then closed unless it is held.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let command = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {line}: {error}"));
        let mut stdin = child.stdin.take();
        if !self.holds_stdin {
            let (mut stdin, bytes) = (stdin.take().unwrap(), self.stdin);
            // A program that reads no stdin closes it: that is no failure of the test.
            thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        Running {
            child,
            line,
            folder: self.folder,
            stdin,
            stdout,
            stderr,
        }
    }
}

type Collector = thread::JoinHandle<Vec<u8>>;

fn collect(mut from: impl Read + Send + 'static) -> Collector {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What has come before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// The program while it runs; killed when dropped.
pub struct Running {
    child: Child,
    line: String,
    folder: Option<PathBuf>,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<Collector>,
}

impl Running {
    /// The next line on stdout, without its end; empty at the end of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout
            .as_mut()
            .unwrap()
            .read_line(&mut line)
            .expect("read stdout");
        line.trim_end_matches('\n').to_owned()
    }

    /// Writes to the stdin that is held.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is held");
        stdin.write_all(bytes.as_ref()).expect("write to stdin");
    }

    /// Writes to the stdin that is held until the program has ended. Once would not do for one that
    /// is to find nobody reading its stdout: what another test has just forked has a copy of the
    /// other end for a moment.
    #[track_caller]
    pub fn write_until_it_ends(&mut self, bytes: &str) {
        let start = Instant::now();
        while !self.has_ended() {
            assert!(start.elapsed() < HANGS, "still runs: {}", self.line);
            // It may end before it has read all.
            let _ = self
                .stdin
                .as_mut()
                .expect("stdin is held")
                .write_all(bytes.as_bytes());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the stdin that is held.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Reads no more of stdout.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("look at the program")
            .is_some()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it catches a signal by now.
    pub fn catches(&self, signal: Signal) -> bool {
        let caught = status(&self.proc("status"), "SigCgt:");
        let mask = u64::from_str_radix(&caught, 16).unwrap_or(0);
        mask >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Whether all its threads wait for something.
    pub fn sleeps(&self) -> bool {
        let threads = fs::read_dir(self.proc("task")).expect("list the threads");
        let mut states = threads
            .flatten()
            .map(|thread| status(&thread.path().join("status"), "State:"));
        states.all(|state| state.starts_with('S'))
    }

    /// Whether it has a file of this name open.
    pub fn has_open(&self, path: &Path) -> bool {
        let open = fs::read_dir(self.proc("fd"))
            .into_iter()
            .flatten()
            .flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target == path)
    }

    /// The most memory that it has had at once, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let peak = status(&self.proc("status"), "VmHWM:");
        peak.trim_end_matches(" kB")
            .parse()
            .expect("a peak of memory")
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.id()).into()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("send a signal");
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let stdout = self.stdout.take().map(collect);
        let stderr = self.stderr.take().unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the program") {
                break status;
            }
            if start.elapsed() > HANGS {
                self.child.kill().expect("kill the program");
                panic!("hangs: {}", self.line);
            }
            thread::sleep(Duration::from_millis(2));
        };
        Ran {
            line: self.line.clone(),
            folder: self.folder.take(),
            status,
            stdout: stdout
                .map(|stdout| stdout.join().unwrap())
                .unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
        }
    }
}

/// A field of what the kernel tells of a process or thread; empty where it is gone.
fn status(path: &Path, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(field));
    found.unwrap_or_default().trim().to_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program left behind.
pub struct Ran {
    line: String,
    folder: Option<PathBuf>,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless the program ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        if self.status.code() != Some(code) {
            self.fail(&format!("exit code {code}"));
        }
        self
    }

    /// Fails unless stdout is this.
    #[track_caller]
    pub fn prints(self, stdout: impl AsRef<[u8]>) -> Self {
        if self.stdout != stdout.as_ref() {
            self.fail(&format!(
                "on stdout {:?}",
                String::from_utf8_lossy(stdout.as_ref())
            ));
        }
        self
    }

    /// Fails unless stderr holds this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        if !self.stderr.contains(text) {
            self.fail(&format!("on stderr {text:?}"));
        }
        self
    }

    /// Fails unless stderr is empty.
    #[track_caller]
    pub fn silent(self) -> Self {
        if !self.stderr.is_empty() {
            self.fail("nothing on stderr");
        }
        self
    }

    #[track_caller]
    fn fail(&self, wanted: &str) -> ! {
        let folder = self.folder.as_deref().map(names).unwrap_or_default();
        let stdout = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(4000)]);
        panic!(
            "wanted: {wanted}\ncommand: {}\nfolder: {folder:?}\nended: {}\nstdout: {stdout}\nstderr: {}",
            self.line, self.status, self.stderr
        );
    }
}
