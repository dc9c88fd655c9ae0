//! Start of every command with too few descriptors or threads.

use std::process::Command;

use crate::harness::Folder;

/// A run of each command that needs the runtime.
const COMMANDS: [&[&str]; 4] = [
    &["serve", "127.0.0.1:0"],
    &["echo", "-c", "127.0.0.1:9", "hello"],
    &["download", "http://127.0.0.1:9/f"],
    &["cat", "-o", "copy", "file"],
];

/// Regression: the reactor panicked without a descriptor.
#[test]
fn missing_descriptors_are_an_error_at_startup() {
    let folder = Folder::new();
    folder.write("file", "text");
    for command in COMMANDS {
        for limit in 5..10 {
            let ran = folder.myapp(command).descriptors(limit).run().code(1);
            let says = "myapp: open descriptors for events: Too many open files\n";
            assert_eq!(ran.stderr, says, "{command:?} with {limit} descriptors");
            assert_eq!(folder.names(), ["file"]);
        }
    }
}

/// Regression: without a thread, the program panicked, or the pool of threads tried forever.
#[test]
#[ignore = "peer: setpriv, prlimit, timeout"]
fn missing_threads_are_an_error_at_startup() {
    let folder = Folder::new();
    folder.write("file", "text");
    for command in COMMANDS {
        for limit in 1..5 {
            // The limit does not apply to root.
            let uid = ["--reuid", "54321", "--regid", "54321", "--clear-groups"];
            let is_root = rustix::process::geteuid().is_root();
            let mut through = Command::new("timeout");
            through.args(["-s", "KILL", "10"]);
            if is_root {
                through.arg("setpriv").args(uid);
            }
            through.arg("prlimit").arg(format!("--nproc={limit}"));
            let ran = folder.myapp(command).through(through).run().code(1);
            let says = "myapp: start threads: Resource temporarily unavailable\n";
            assert_eq!(ran.stderr, says, "{command:?} with {limit} threads");
        }
    }
}
