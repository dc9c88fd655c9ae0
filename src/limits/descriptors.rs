//! How many at once, as the system sees it: the limit of file descriptors.

use std::io;
use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left to the rest of the program: the standard streams, the reactor, a few
/// listening sockets, log files.
const RESERVE: u64 = 32;

/// Raises this process's limit of file descriptors as far as it may go without privileges: to
/// the hard limit.
///
/// # Errors
///
/// Those of `setrlimit(2)`; the limit is what it was then.
pub fn raise() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The number of connections for which the limit of file descriptors has room now.
pub fn room() -> NonZeroUsize {
    room_beside(0)
}

/// As [`room`], where `taken` descriptors more than a few are needed for other things.
pub fn room_beside(taken: usize) -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile).current;
    room_of(limit.map(|limit| limit.saturating_sub(taken as u64)))
}

fn room_of(limit: Option<u64>) -> NonZeroUsize {
    // Without a limit, what all processes together may have is far below this.
    let limit = limit.unwrap_or(1 << 30).min(1 << 30);
    let room = limit - RESERVE.min(limit / 2);
    usize::try_from(room).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_descriptors_are_left_to_the_rest_of_the_program() {
        for (limit, room) in [(1024, 992), (64, 32), (20, 10), (1, 1), (0, 1)] {
            assert_eq!(room_of(Some(limit)).get(), room, "{limit}");
        }
        assert_eq!(room_of(None).get(), (1 << 30) - 32);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_go() {
        raise().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
