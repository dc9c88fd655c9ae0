//! Verification of a reply against its message.

use crate::echo::config::Config;
use crate::echo::error::Error;
use crate::echo::message::Message;

/// Compares a reply with its message if `config` requires it.
pub(crate) fn verify(message: &Message, reply: &[u8], config: &Config) -> Result<(), Error> {
    if !config.verify {
        return Ok(());
    }
    match message.first_mismatch(reply) {
        Some(offset) => Err(Error::ReplyMismatch {
            address: config.target.address.clone(),
            offset,
        }),
        None => Ok(()),
    }
}
