//! What systemd hands over to a service, and what it is told of it.

use myapp::causes::Causes;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use sd_notify::{NotifyState, listen_fds, notify};
use tracing::warn;

/// The sockets that `LISTEN_FDS` hands over to this process; they are not handed on to others.
/// Without `LISTEN_PID` they are for nobody (sd_listen_fds(3)).
pub(crate) fn sockets() -> io::Result<Vec<OwnedFd>> {
    // listenfd would take those for nobody, too.
    if listen_fds()?.len() == 0 {
        return Ok(Vec::new());
    }
    let mut handed = ListenFd::from_env();
    (0..handed.len()).map(|index| take(&mut handed, index)).collect()
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
    let text = format!("number {} is no socket for TCP, UDP or Unix streams", index + 1);
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Says that all listeners accept.
pub(crate) fn tell_ready() {
    tell(NotifyState::Ready);
}

/// Says that nothing new is accepted.
pub(crate) fn tell_stopping() {
    tell(NotifyState::Stopping);
}

/// Tells who started us, if they have said where (`NOTIFY_SOCKET`).
fn tell(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        warn!(error = %Causes(&error), "cannot tell the state to NOTIFY_SOCKET");
    }
}
