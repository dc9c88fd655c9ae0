//! Socket activation, service notification and watchdog (systemd).

use myapp::error_chain::ErrorChain;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// The first descriptor of `LISTEN_FDS` (sd_listen_fds(3)).
const FIRST_FD: u64 = 3;

/// Time limit of a notification: a service manager that reads nothing must not stop the server.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket of `LISTEN_FDS`.
#[derive(Debug)]
pub(crate) struct PassedSocket {
    pub(crate) socket: OwnedFd,
    pub(crate) is_datagram: bool,
    /// Whether its name in `LISTEN_FDNAMES`, the `FileDescriptorName=` of its unit, is `tls`.
    pub(crate) is_tls: bool,
}

/// Returns the sockets that `LISTEN_FDS` passes to this process, marked close-on-exec. Without a
/// matching `LISTEN_PID` there are none (sd_listen_fds(3)). Changes the environment: to be called
/// while there is one thread.
pub(crate) fn sockets() -> io::Result<Vec<PassedSocket>> {
    // listenfd would accept a missing LISTEN_PID.
    let listen_pid = env::var("LISTEN_PID").ok().and_then(|id| id.parse().ok());
    if listen_pid != Some(process::id()) {
        return Ok(Vec::new());
    }
    check_count(&env::var("LISTEN_FDS").unwrap_or_default())?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .map(|index| take(&mut passed, index, names.next().unwrap_or_default()))
        .collect()
}

/// Rejects a `LISTEN_FDS` that is not a number of descriptors that this process can have.
fn check_count(text: &str) -> io::Result<()> {
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let max = getrlimit(Resource::Nofile).current.unwrap_or(1 << 30);
    match text.parse::<u64>() {
        _ if text.is_empty() => Ok(()),
        Err(_) => invalid(format!("{text:?} is not a number of descriptors")),
        Ok(count) if count > max.saturating_sub(FIRST_FD) => invalid(format!(
            "{count} descriptors exceed the limit of open files ({max})"
        )),
        Ok(_) => Ok(()),
    }
}

fn take(passed: &mut ListenFd, index: usize, name: &str) -> io::Result<PassedSocket> {
    let is_tls = name == "tls";
    let stream = |socket| PassedSocket {
        socket,
        is_datagram: false,
        is_tls,
    };
    let descriptor = index as u64 + FIRST_FD;
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
        return Ok(stream(socket.into()));
    }
    if is_tls {
        return invalid(format!("descriptor {descriptor} (tls) is not a TCP socket"));
    }
    if let Ok(Some(socket)) = passed.take_unix_listener(index) {
        return Ok(stream(socket.into()));
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(index) {
        return Ok(PassedSocket {
            is_datagram: true,
            ..stream(socket.into())
        });
    }
    invalid(format!(
        "descriptor {descriptor} is not a TCP, UDP or Unix stream socket"
    ))
}

/// Reports that the server accepts connections.
pub(crate) fn notify_ready() {
    notify("READY=1");
}

/// Reports that the server shuts down.
pub(crate) fn notify_stopping() {
    notify("STOPPING=1");
}

/// Reports that the server makes progress.
pub(crate) fn notify_watchdog() {
    notify("WATCHDOG=1");
}

/// Returns the interval at which the service manager expects [`notify_watchdog`] from this process
/// (sd_watchdog_enabled(3)): half the time after which it would kill the service.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let pid = env::var("WATCHDOG_PID").ok();
    if pid.is_some_and(|pid| pid.parse() != Ok(process::id())) {
        return None;
    }
    let usec = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let interval = Duration::from_micros(usec) / 2;
    (!interval.is_zero()).then_some(interval)
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
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_passed_descriptors_is_checked() {
        for text in ["", "0", "2"] {
            assert!(check_count(text).is_ok(), "{text}");
        }
        for text in ["two", "-1", "1.5", "4294967296", "99999999999999999999"] {
            assert!(check_count(text).is_err(), "{text}");
        }
    }
}
