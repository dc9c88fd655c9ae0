//! Names and connections of Unix sockets in system calls.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::net::address::UnixPath;

/// Returns the address of a path or abstract name.
pub(super) fn socket_addr(path: &UnixPath) -> io::Result<SocketAddrUnix> {
    match path.abstract_name() {
        #[cfg(target_os = "linux")]
        Some(name) => Ok(SocketAddrUnix::new_abstract_name(name)?),
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => Ok(SocketAddrUnix::new(path.as_ref())?),
    }
}

/// Creates a non-blocking stream socket.
pub(super) fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Connects without waiting. The socket is non-blocking.
///
/// # Errors
///
/// The errors of connect(2); `WouldBlock` if the backlog is full.
pub(super) fn connect_stream(path: &UnixPath) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    connect(&socket, &socket_addr(path)?)?;
    Ok(socket)
}
