//! The built program, run in a temporary folder. A failed check prints the command, the folder,
//! the exit status and both output streams.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// A run that takes longer is killed, and its test fails.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

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

    /// Returns the names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    /// Returns the program with these arguments and this folder as its working directory.
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

/// Program that has not been started yet.
pub struct Program {
    command: Command,
    folder: Option<PathBuf>,
    stdin: Vec<u8>,
    holds_stdin: bool,
}

/// Returns the program with these arguments, without the environment variables that it reads.
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

    /// Limits the number of descriptors.
    pub fn descriptors(self, limit: u32) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Sets the soft limit of descriptors, which the program may raise.
    pub fn descriptors_soft(self, limit: u32) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit -S -n {limit} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Sets the umask.
    pub fn umask(self, mask: &str) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("umask {mask} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Limits the length of files in KiB.
    pub fn file_size(self, limit: u32) -> Self {
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(format!("ulimit -f {limit} && exec \"$0\" \"$@\""));
        self.through(shell)
    }

    /// Makes each call of a system call fail with an error.
    pub fn refuse_syscall(self, name: &str, errno: Errno) -> Self {
        static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
        let folder = COMPILED.get_or_init(|| {
            let folder = tempfile::tempdir().expect("make a temporary folder");
            let source = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/it/harness/refuse_syscall.c"
            );
            let mut compiler = Command::new("cc");
            compiler.arg(source).arg("-o");
            let compiled = compiler.arg(folder.path().join("refuse_syscall")).status();
            assert!(compiled.expect("run cc").success());
            folder
        });
        let mut starter = Command::new(folder.path().join("refuse_syscall"));
        starter.arg(name).arg(errno.raw_os_error().to_string());
        self.through(starter)
    }

    /// Appends stderr to a file instead of collecting it.
    pub fn stderr_to(self, path: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 2>>\"$STDERR\"")
            .env("STDERR", path);
        self.through(shell)
    }

    /// Runs the program through `starter`, which gets the program and its arguments as arguments.
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

    /// Keeps stdin open for [`Running::write`].
    pub fn hold_stdin(mut self) -> Self {
        self.holds_stdin = true;
        self
    }

    /// Runs the program until it exits.
    #[track_caller]
    pub fn run(self) -> RunOutput {
        self.start().wait()
    }

    /// Starts the program. Its stdin is written by a thread, then closed unless it is held.
    #[track_caller]
    pub fn start(mut self) -> Running {
        restore_signals();
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
            let mut stdin = stdin.take().unwrap();
            let bytes = self.stdin;
            // The write fails if the program exits without reading all of it.
            thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        Running {
            child,
            line,
            folder: self.folder,
            stdin,
            stdout: Some(BufReader::new(stdout)),
            stderr: Some(read_in_background(stderr)),
        }
    }
}

/// Makes programs start with the default action of SIGINT and SIGHUP. A shell starts its background
/// jobs, and so the tests, with SIGINT ignored, and `nohup` ignores SIGHUP, which children inherit; a
/// handler is reset by execve(2).
fn restore_signals() {
    static RESTORED: OnceLock<()> = OnceLock::new();
    RESTORED.get_or_init(|| {
        let ignored = signal_mask(Path::new("/proc/self/status"), "SigIgn:");
        for signal in [Signal::INT.as_raw(), Signal::HUP.as_raw()] {
            if ignored >> (signal - 1) & 1 != 0 {
                let received = Arc::new(AtomicBool::new(false));
                signal_hook::flag::register(signal, received).expect("catch a signal");
            }
        }
    });
}

/// Returns a field of a `/proc/PID/status` file that has a bit for each signal.
fn signal_mask(path: &Path, field: &str) -> u64 {
    u64::from_str_radix(&status(path, field), 16).unwrap_or(0)
}

type ReaderThread = thread::JoinHandle<Vec<u8>>;

fn read_in_background(mut from: impl Read + Send + 'static) -> ReaderThread {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // The bytes before an error are kept.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Running program; killed when dropped.
pub struct Running {
    child: Child,
    line: String,
    folder: Option<PathBuf>,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<ReaderThread>,
}

/// Returns the only child of a process.
pub fn only_child(id: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.trim().parse().ok().and_then(Pid::from_raw)
}

impl Running {
    /// Returns the next line of stdout without its newline; empty at the end of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let stdout = self.stdout.as_mut().unwrap();
        let deadline = Instant::now() + RUN_TIMEOUT;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if stdout.buffer().is_empty() && !is_readable(stdout.get_ref(), deadline) {
                panic!("no line: {}", self.line);
            }
            let bytes = stdout.fill_buf().expect("read stdout");
            if bytes.is_empty() {
                break;
            }
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let len = newline.map_or(bytes.len(), |newline| newline + 1);
            line.extend_from_slice(&bytes[..len]);
            stdout.consume(len);
        }
        let line = String::from_utf8(line).expect("stdout is text");
        line.trim_end_matches('\n').to_owned()
    }

    /// Writes to the stdin that is held.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is held");
        stdin.write_all(bytes.as_ref()).expect("write to stdin");
    }

    /// Writes to the stdin that is held until the program exits. A single write is not enough for
    /// a program that should fail with EPIPE on its stdout: until its `exec`, a child that another
    /// test has just forked has a copy of the read end.
    #[track_caller]
    pub fn write_until_exit(&mut self, bytes: &str) {
        let start = Instant::now();
        while !self.has_exited() {
            assert!(start.elapsed() < RUN_TIMEOUT, "still runs: {}", self.line);
            // The write fails if the program exits before it has read all.
            let _ = self
                .stdin
                .as_mut()
                .expect("stdin is held")
                .write_all(bytes.as_bytes());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Closes the stdin that is held.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes the read end of stdout.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Returns whether the program has exited.
    pub fn has_exited(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("look at the program")
            .is_some()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether a handler for the signal is installed.
    pub fn catches(&self, signal: Signal) -> bool {
        let mask = signal_mask(&self.proc("status"), "SigCgt:");
        mask >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Returns whether all threads are blocked.
    pub fn sleeps(&self) -> bool {
        self.are_all('S')
    }

    /// Returns whether all threads are in a state (proc_pid_status(5)).
    fn are_all(&self, expected: char) -> bool {
        let threads = fs::read_dir(self.proc("task")).expect("list the threads");
        let mut states = threads
            .flatten()
            .map(|thread| status(&thread.path().join("status"), "State:"));
        states.all(|state| state.starts_with(expected))
    }

    /// Returns whether SIGSTOP has stopped all threads.
    pub fn is_stopped(&self) -> bool {
        self.are_all('T')
    }

    /// Returns whether a file of this name is open.
    pub fn has_open(&self, path: &Path) -> bool {
        let open = fs::read_dir(self.proc("fd"))
            .into_iter()
            .flatten()
            .flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target == path)
    }

    /// Returns the peak memory in KiB.
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

    /// Sends a signal to the program that a wrapper such as `unshare` runs as its only child.
    #[track_caller]
    pub fn signal_child(&self, signal: Signal) {
        kill_process(only_child(self.id()).expect("one child"), signal).expect("send a signal");
    }

    /// Waits until the program exits.
    #[track_caller]
    pub fn wait(mut self) -> RunOutput {
        let stdout = self.stdout.take().map(read_in_background);
        let stderr = self.stderr.take().unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the program") {
                break status;
            }
            if start.elapsed() > RUN_TIMEOUT {
                self.child.kill().expect("kill the program");
                panic!("hangs: {}", self.line);
            }
            thread::sleep(Duration::from_millis(2));
        };
        RunOutput {
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

/// Waits until a read returns at once. Returns whether it does so before the deadline.
fn is_readable(file: &ChildStdout, deadline: Instant) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).expect("a short time");
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll") > 0
}

/// Returns a field of a `/proc/PID/status` file; empty if the process or thread has exited.
fn status(path: &Path, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(field));
    found.unwrap_or_default().trim().to_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if the program has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit status and output of a finished run.
pub struct RunOutput {
    line: String,
    folder: Option<PathBuf>,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl RunOutput {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless this is the exit code; as in a shell, 128 + n if signal n ended the program.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        let signal = self.status.signal();
        let found = self.status.code().or(signal.map(|signal| 128 + signal));
        if found != Some(code) {
            self.fail(&format!("exit code {code}"));
        }
        self
    }

    /// Fails unless stdout equals this.
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

    /// Fails unless stderr contains this.
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
    fn fail(&self, expected: &str) -> ! {
        let folder = self.folder.as_deref().map(names).unwrap_or_default();
        let stdout = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(4000)]);
        panic!(
            "expected: {expected}\ncommand: {}\nfolder: {folder:?}\nended: {}\nstdout: {stdout}\nstderr: {}",
            self.line, self.status, self.stderr
        );
    }
}
