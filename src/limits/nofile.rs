//! The file-descriptor limit (`RLIMIT_NOFILE`).

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors reserved for the rest of the program: the standard streams, the reactor, a few
/// listeners, log files.
const RESERVE: u64 = 32;

/// Descriptors of a worker thread: its epoll instance, eventfd and timer.
pub const FDS_PER_WORKER: usize = 3;

/// The maximum number of preallocated descriptors, which take half a megabyte of kernel memory.
const MAX_PREALLOCATED: usize = (1 << 16) - 1;

/// Raises the soft limit of this process to its hard limit.
///
/// # Errors
///
/// The errors of `setrlimit(2)`; the limit is unchanged then.
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

/// Makes the kernel allocate a table for this number of descriptors, at most 65,536.
///
/// Linux grows the table when descriptors are opened, but stalls a process of several threads for
/// tens of milliseconds each time that their number doubles (`expand_fdtable` waits for an RCU grace
/// period). A backlog can overflow in that time. Call this while the process has one thread.
///
/// # Errors
///
/// The errors of `socket(2)` and `fcntl(2)`; the table then grows on demand.
pub fn preallocate_fd_table(count: usize) -> io::Result<()> {
    let highest = count
        .saturating_add(RESERVE as usize)
        .min(available().get())
        .min(MAX_PREALLOCATED);
    let any = UnixDatagram::unbound()?;
    fcntl_dupfd_cloexec(&any, highest as RawFd)?;
    Ok(())
}

/// Returns the number of connections that the descriptor limit allows.
pub fn available() -> NonZeroUsize {
    available_after(0)
}

/// Returns the number of connections that the descriptor limit allows beside `taken` further
/// descriptors.
pub fn available_after(taken: usize) -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile).current;
    available_of(limit.map(|limit| limit.saturating_sub(taken as u64)))
}

fn available_of(limit: Option<u64>) -> NonZeroUsize {
    // Without a limit, the system-wide limit is far below this.
    let limit = limit.unwrap_or(1 << 30).min(1 << 30);
    let available = limit - RESERVE.min(limit / 2);
    usize::try_from(available)
        .ok()
        .and_then(NonZeroUsize::new)
        .unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_reserved() {
        for (limit, available) in [(1024, 992), (64, 32), (20, 10), (1, 1), (0, 1)] {
            assert_eq!(available_of(Some(limit)).get(), available, "{limit}");
        }
        assert_eq!(available_of(None).get(), (1 << 30) - 32);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn fd_table_is_preallocated() {
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
    fn limit_is_raised_to_the_hard_limit() {
        raise_limit().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
