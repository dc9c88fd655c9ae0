//! Inherited descriptors that the server does not use.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use crate::systemd::PassedSocket;

/// Closes the inherited descriptors above the standard streams, so that the server keeps no file,
/// pipe or port of its parent open. Those in `sockets` stay, as do descriptors that an argument
/// names (`--log-file /dev/fd/9`).
///
/// Called before the program opens anything: later it could not tell its own descriptors apart.
pub(super) fn close_unused(sockets: &[PassedSocket]) -> io::Result<()> {
    let used: HashSet<_> = env::args_os()
        .filter_map(|argument| named_descriptor(&argument))
        .chain(sockets.iter().map(|passed| passed.socket.as_raw_fd()))
        .collect();
    // Collected first: closing while reading would also meet the descriptor of the directory.
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor > 2 && !used.contains(&descriptor) {
            // The descriptor of the directory is closed already.
            let _ = nix::unistd::close(descriptor);
        }
    }
    Ok(())
}

/// Returns the descriptor that an argument names as `/dev/fd/N` or `/proc/self/fd/N`.
fn named_descriptor(argument: &OsStr) -> Option<RawFd> {
    let bytes = argument.as_bytes();
    let start = memchr::memmem::rfind(bytes, b"/fd/")? + 4;
    str::from_utf8(&bytes[start..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_named_in_arguments_are_found() {
        for (argument, descriptor) in [
            ("/dev/fd/63", Some(63)),
            ("--log-file=/proc/self/fd/9", Some(9)),
            ("/dev/fd/", None),
            ("/dev/fd/9/x", None),
            ("unix:/run/echo.sock", None),
        ] {
            assert_eq!(
                named_descriptor(argument.as_ref()),
                descriptor,
                "{argument}"
            );
        }
    }
}
