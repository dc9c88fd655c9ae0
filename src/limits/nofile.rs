//! How many at once, as the system sees it: the limit of file descriptors.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left to the rest of the program: the standard streams, the reactor, a few
/// listening sockets, log files.
const RESERVE: u64 = 32;

/// Descriptors of a thread that waits for its sockets: what it waits with, what wakes it, its
/// timer.
pub const FDS_PER_WORKER: usize = 3;

/// The most for which room is made at once: half a megabyte of the system's memory.
const MAX_PREALLOCATED: usize = (1 << 16) - 1;

/// Raises this process's limit of file descriptors as far as it may go without privileges: to
/// the hard limit.
///
/// # Errors
///
/// Those of `setrlimit(2)`; the limit is what it was then.
pub fn raise_limit() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?)
}

/// Has the system make room for so many descriptors at once, at most 65,536.
///
/// It does so by itself when they are opened, but stops a process of several threads for tens of
/// milliseconds each time that their number doubles (Linux waits in `expand_fdtable` until no other
/// thread can look at the old table). In this time a backlog fills. So it is best called while
/// there is one thread.
///
/// # Errors
///
/// Those of `socket(2)` and `fcntl(2)`; room is then made when it is needed.
pub fn preallocate_fd_table(count: usize) -> io::Result<()> {
    let highest = count
        .saturating_add(RESERVE as usize)
        .min(available().get())
        .min(MAX_PREALLOCATED);
    let any = UnixDatagram::unbound()?;
    fcntl_dupfd_cloexec(&any, highest as RawFd)?;
    Ok(())
}

/// The number of connections for which the limit of file descriptors has room now.
pub fn available() -> NonZeroUsize {
    available_after(0)
}

/// As [`available`], where `taken` descriptors more than a few are needed for other things.
pub fn available_after(taken: usize) -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile).current;
    available_of(limit.map(|limit| limit.saturating_sub(taken as u64)))
}

fn available_of(limit: Option<u64>) -> NonZeroUsize {
    // Without a limit, what all processes together may have is far below this.
    let limit = limit.unwrap_or(1 << 30).min(1 << 30);
    let room = limit - RESERVE.min(limit / 2);
    usize::try_from(room)
        .ok()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_descriptors_are_left_to_the_rest_of_the_program() {
        for (limit, room) in [(1024, 992), (64, 32), (20, 10), (1, 1), (0, 1)] {
            assert_eq!(available_of(Some(limit)).get(), room, "{limit}");
        }
        assert_eq!(available_of(None).get(), (1 << 30) - 32);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_makes_room_at_once() {
        raise_limit().unwrap();
        let many = available().get().min(3000);
        preallocate_fd_table(many).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("FDSize:"))
            .unwrap();
        let size: usize = size.trim().parse().unwrap();
        assert!(size >= many, "{size} for {many}");
        preallocate_fd_table(usize::MAX).unwrap();
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_go() {
        raise_limit().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
