//! Socket activation and service notification (systemd).

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

/// Returns the sockets that `LISTEN_FDS` passes to this process, marked close-on-exec. Without a
/// matching `LISTEN_PID` there are none (sd_listen_fds(3)).
pub(crate) fn sockets() -> io::Result<Vec<OwnedFd>> {
    // listenfd would accept a missing LISTEN_PID.
    let listen_pid = env::var("LISTEN_PID").ok().and_then(|id| id.parse().ok());
    if listen_pid != Some(process::id()) {
        return Ok(Vec::new());
    }
    if env::var("LISTEN_FDS").is_ok_and(|count| count.parse::<usize>().is_err()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a number"));
    }
    let mut inherited = ListenFd::from_env();
    (0..inherited.len())
        .map(|index| take(&mut inherited, index))
        .collect()
}

fn take(inherited: &mut ListenFd, index: usize) -> io::Result<OwnedFd> {
    if let Ok(Some(socket)) = inherited.take_tcp_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = inherited.take_unix_listener(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = inherited.take_udp_socket(index) {
        return Ok(socket.into());
    }
    let text = format!(
        "descriptor {} is not a TCP, UDP or Unix stream socket",
        index + 1
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Reports that the server accepts connections.
pub(crate) fn notify_ready() {
    notify("READY=1");
}

/// Reports that the server shuts down.
pub(crate) fn notify_stopping() {
    notify("STOPPING=1");
}

/// Sends a state to `NOTIFY_SOCKET` if it is set; a failure is only logged.
fn notify(state: &str) {
    if let Err(error) = send_state(state) {
        warn!(error = %ErrorChain(&error), "cannot send the state to NOTIFY_SOCKET");
    }
}

/// Sends a state as sd_notify(3) does.
fn send_state(state: &str) -> io::Result<()> {
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
