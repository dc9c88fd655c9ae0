//! Descriptors that the parent of the server leaves open.

use std::fs;
use std::process::Command;

use crate::harness::{Folder, Server, until};

/// Returns a shell that opens these descriptors before the program starts.
fn shell(redirections: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" {redirections}");
    shell.arg("-c").arg(script);
    shell
}

/// Returns the file that a descriptor of the server refers to.
fn open_file(server: &Server, descriptor: u32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", server.id()));
    Some(link.ok()?.to_string_lossy().into_owned())
}

#[test]
fn unused_inherited_descriptors_are_closed() {
    let folder = Folder::new();
    folder.write("kept", "");
    let program = folder.myapp(["serve", "0"]).through(shell("5>kept 9<kept"));
    let server = Server::of(program, 1);
    for descriptor in 3..=20 {
        let file = open_file(&server, descriptor).unwrap_or_default();
        assert!(!file.ends_with("/kept"), "{descriptor} is {file}");
    }
    assert_eq!(server.exchange(b"served\n"), b"served\n");
    server.stop();
}

#[test]
fn inherited_descriptor_named_by_an_option_is_used() {
    let folder = Folder::new();
    let arguments = ["serve", "--log-file", "/dev/fd/9", "0"];
    let program = folder.myapp(arguments).through(shell("9>log 8>other"));
    let server = Server::of(program, 1);
    assert_eq!(
        open_file(&server, 8).filter(|file| file.ends_with("/other")),
        None
    );
    assert_eq!(server.exchange(b"logged\n"), b"logged\n");
    until(|| String::from_utf8_lossy(&folder.read("log")).contains("text=logged"));
    server.stop();
}
