//! Fault injection.

mod draw;
pub(super) mod handle;
#[cfg(test)]
mod random_tests;
pub(super) mod replies;
pub(super) mod stream;
pub(super) mod udp;

/// Flips one bit, which `random` selects. Returns `false` if there is none.
fn corrupt(reply: &mut [u8], random: u64) -> bool {
    let Some(bit) = random.checked_rem(reply.len() as u64 * 8) else {
        return false;
    };
    reply[(bit / 8) as usize] ^= 1 << (bit % 8);
    true
}
