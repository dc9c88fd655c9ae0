//! Messages in flight on one connection, and verification of the received bytes.

use std::collections::VecDeque;

use super::driver::Sent;
use super::verify::{Divergence, first_mismatch};
use crate::echo::payload::Payload;

/// Queue of the messages in flight. The common case of one message needs no allocation, and the
/// queue is small, because the state of thousands of connections must fit into the processor's
/// cache.
#[derive(Debug, Default)]
struct SendQueue {
    oldest: Option<Sent>,
    #[expect(
        clippy::box_collection,
        reason = "usually absent; the box keeps the struct small"
    )]
    others: Option<Box<VecDeque<Sent>>>,
}

impl SendQueue {
    fn len(&self) -> usize {
        match self.oldest {
            Some(_) => 1 + self.others.as_ref().map_or(0, |others| others.len()),
            None => 0,
        }
    }

    fn push(&mut self, sent: Sent) {
        match self.oldest {
            Some(_) => self.others.get_or_insert_default().push_back(sent),
            None => self.oldest = Some(sent),
        }
    }

    fn pop(&mut self) -> Option<Sent> {
        let next = self.others.as_mut().and_then(|others| others.pop_front());
        std::mem::replace(&mut self.oldest, next)
    }
}

/// Messages in flight on one connection.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    payload: &'a Payload,
    seed: u64,
    verify: bool,
    queue: SendQueue,
    /// Bytes of all messages pushed so far.
    pushed: u64,
    /// Bytes written to the connection.
    written: u64,
    /// Bytes received and verified.
    read: u64,
}

impl<'a> InFlight<'a> {
    pub(crate) fn new(payload: &'a Payload, seed: u64, verify: bool) -> Self {
        Self {
            payload,
            seed,
            verify,
            queue: SendQueue::default(),
            pushed: 0,
            written: 0,
            read: 0,
        }
    }

    /// Returns the seed, which makes the bytes of each connection different.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the number of messages in flight.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the oldest message in flight.
    pub(crate) fn oldest(&self) -> Option<&Sent> {
        self.queue.oldest.as_ref()
    }

    /// Removes the oldest message in flight.
    pub(crate) fn take_oldest(&mut self) -> Option<Sent> {
        self.queue.pop()
    }

    /// Returns whether a complete reply has been received.
    pub(crate) fn has_received_reply(&self) -> bool {
        self.read >= self.payload.size()
    }

    /// Returns the number of bytes received of the incomplete reply.
    pub(crate) fn partial_len(&self) -> u64 {
        self.read % self.payload.size()
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, sent: Sent) {
        self.queue.push(sent);
        self.pushed += self.payload.size();
    }

    /// Returns the number of bytes to write.
    pub(crate) fn unwritten(&self) -> u64 {
        self.pushed - self.written
    }

    /// Copies the next bytes to write into `buffer` and returns their number.
    pub(crate) fn fill(&self, buffer: &mut [u8]) -> usize {
        let count = clamped_len(self.unwritten(), buffer);
        self.payload
            .fill(self.seed, self.written, &mut buffer[..count]);
        count
    }

    /// Counts bytes as written.
    pub(crate) fn record_write(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Verifies received bytes and calls `on_reply` for each message whose reply is complete.
    ///
    /// # Errors
    ///
    /// The first difference from the sent bytes. Replies completed before it still count.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        expected: &mut [u8],
        mut on_reply: impl FnMut(Sent),
    ) -> Result<(), Divergence> {
        let outstanding = clamped_len(self.pushed - self.read, bytes);
        let valid = if self.verify {
            self.valid_len(&bytes[..outstanding], &mut expected[..outstanding])
        } else {
            outstanding
        };
        self.read += valid as u64;
        while self.read >= self.oldest_end() {
            let Some(sent) = self.queue.pop() else { break };
            on_reply(sent);
        }
        if valid == bytes.len() {
            Ok(())
        } else {
            Err(self.divergence(&bytes[valid..]))
        }
    }

    /// Returns the number of bytes that equal the next sent ones.
    fn valid_len(&self, bytes: &[u8], expected: &mut [u8]) -> usize {
        self.payload.fill(self.seed, self.read, expected);
        first_mismatch(bytes, expected).unwrap_or(bytes.len())
    }

    /// Returns the difference of `bytes` from the next sent ones.
    pub(crate) fn divergence(&self, bytes: &[u8]) -> Divergence {
        let mut expected = [0; Divergence::EXPECTED_LEN];
        // Bytes that have not been written cannot be received.
        let count = clamped_len(self.written.saturating_sub(self.read), &expected);
        self.payload
            .fill(self.seed, self.read, &mut expected[..count]);
        Divergence::new(self.read, bytes, &expected[..count])
    }

    /// Returns the offset at which the reply to the oldest message ends.
    fn oldest_end(&self) -> u64 {
        self.pushed - (self.queue.len() as u64).saturating_sub(1) * self.payload.size()
    }
}

/// Returns `count`, limited to the length of a buffer.
fn clamped_len(count: u64, buffer: &[u8]) -> usize {
    usize::try_from(count).map_or(buffer.len(), |count| count.min(buffer.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::error::Mismatch;
    use crate::echo::message::Message;
    use std::time::Instant;

    fn hola() -> Payload {
        Payload::Message(Message::new("hola").unwrap())
    }

    fn sent_now() -> Sent {
        let now = Instant::now();
        Sent { due: now, at: now }
    }

    /// Checks the number of replies after each chunk received for three messages, and the result
    /// of the last one.
    #[track_caller]
    fn assert_replies(chunks: &[&str], replies: &[usize], end: Result<(), (u64, Mismatch)>) {
        let payload = hola();
        let mut in_flight = InFlight::new(&payload, 0, true);
        (0..3).for_each(|_| in_flight.push(sent_now()));
        in_flight.record_write(3 * 5);
        let mut count = 0;
        let mut counts = Vec::new();
        let mut result = Ok(());
        for chunk in chunks {
            let received = in_flight.received(chunk.as_bytes(), &mut [0; 100], |_| count += 1);
            result = received.map_err(|divergence| (divergence.offset, divergence.classify()));
            counts.push(count);
        }
        assert_eq!((counts.as_slice(), result), (replies, end), "{chunks:?}");
        assert_eq!(in_flight.len(), 3 - count);
    }

    #[test]
    fn reply_is_complete_after_as_many_bytes() {
        assert_replies(&["hola", "\n", "hola\nho", "la\n"], &[0, 1, 2, 3], Ok(()));
        assert_replies(&["hola\nhola\nhola\n"], &[3], Ok(()));
        assert_replies(&["", "hola\n"], &[0, 1], Ok(()));
    }

    #[test]
    fn mismatch_is_found_and_earlier_replies_count() {
        assert_replies(&["hola\nhOla\n"], &[1], Err((6, Mismatch::Changed)));
        assert_replies(&["hola\nholla\nhola\n"], &[1], Err((8, Mismatch::Added)));
        assert_replies(&["hola\nhoa\nhola\n"], &[1], Err((7, Mismatch::Dropped)));
        assert_replies(&["hola\nhola\nhola\nx"], &[3], Err((15, Mismatch::Added)));
    }

    #[test]
    fn partial_writes_resume_at_the_next_byte() {
        let payload = hola();
        let mut in_flight = InFlight::new(&payload, 0, true);
        let mut chunk = [0; 7];
        assert_eq!(in_flight.fill(&mut chunk), 0);
        (0..2).for_each(|_| in_flight.push(sent_now()));
        assert_eq!((in_flight.fill(&mut chunk), &chunk), (7, b"hola\nho"));
        in_flight.record_write(4);
        let count = in_flight.fill(&mut chunk);
        assert_eq!((count, &chunk[..6]), (6, b"\nhola\n".as_slice()));
        in_flight.record_write(6);
        assert_eq!(in_flight.fill(&mut chunk), 0);
    }
}
