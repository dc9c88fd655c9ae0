//! What systemd hands over to a service, and what it is told of it.

use myapp::error_chain::ErrorChain;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;

use listenfd::ListenFd;
use tracing::warn;

/// The sockets that `LISTEN_FDS` hands over to this process; they are not handed on to others.
/// Without `LISTEN_PID` they are for nobody (sd_listen_fds(3)).
pub(crate) fn sockets() -> io::Result<Vec<OwnedFd>> {
    // listenfd would take those for nobody, too.
    let whose = env::var("LISTEN_PID").ok().and_then(|id| id.parse().ok());
    if whose != Some(process::id()) {
        return Ok(Vec::new());
    }
    if env::var("LISTEN_FDS").is_ok_and(|count| count.parse::<usize>().is_err()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a number"));
    }
    let mut handed = ListenFd::from_env();
    (0..handed.len())
        .map(|index| take(&mut handed, index))
        .collect()
}

fn take(handed: &mut ListenFd, index: usize) -> io::Result<OwnedFd> {
    if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = handed.take_unix_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = handed.take_udp_socket(index) {
        return Ok(socket.into());
    }
    let text = format!(
        "number {} is no socket for TCP, UDP or Unix streams",
        index + 1
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Says that all listeners accept.
pub(crate) fn tell_ready() {
    tell("READY=1");
}

/// Says that nothing new is accepted.
pub(crate) fn tell_stopping() {
    tell("STOPPING=1");
}

/// Tells who started us, if they have said where (`NOTIFY_SOCKET`).
fn tell(state: &str) {
    if let Err(error) = notify(state) {
        warn!(error = %ErrorChain(&error), "cannot tell the state to NOTIFY_SOCKET");
    }
}

/// As sd_notify(3).
fn notify(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
