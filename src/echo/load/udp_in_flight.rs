//! Messages in flight on one UDP socket: verification, order and duplicates of the replies.

use std::collections::BTreeMap;

use super::driver::Sent;
use super::verify::{Divergence, first_mismatch};
use crate::echo::error::Mismatch;
use crate::echo::payload::Payload;

/// Minimum length of a datagram of a ping or a load: it starts with its sequence number on the
/// socket, big-endian, counted from 0.
pub const MIN_DATAGRAM_LEN: usize = size_of::<u64>();

/// Number of recent messages for which duplicate replies are distinguished from late ones.
const REPLY_WINDOW: usize = 8192;

/// Messages in flight on one socket.
#[derive(Debug)]
pub(crate) struct UdpInFlight<'a> {
    payload: &'a Payload,
    seed: u64,
    verify: bool,
    in_flight: BTreeMap<u64, Sent>,
    /// Message whose reply differs. The box keeps the struct small.
    mismatched: Option<Box<Sent>>,
    /// Sequence number of the next message.
    next: u64,
    /// One more than the highest sequence number that has a reply.
    highest_acked: u64,
    replies: ReplyBitmap,
}

/// Kind of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// The reply to a message; `out_of_order` if a later one already has its reply.
    Reply { sent: Sent, out_of_order: bool },
    /// A reply that was received before.
    Duplicate,
    /// The reply to a message that counts as lost.
    Late,
}

impl<'a> UdpInFlight<'a> {
    pub(crate) fn new(payload: &'a Payload, seed: u64, verify: bool) -> Self {
        Self {
            payload,
            seed,
            verify,
            in_flight: BTreeMap::new(),
            mismatched: None,
            next: 0,
            highest_acked: 0,
            replies: ReplyBitmap::new(),
        }
    }

    /// Returns the number of messages in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the oldest message in flight.
    pub(crate) fn oldest(&self) -> Option<&Sent> {
        self.in_flight.first_key_value().map(|(_, sent)| sent)
    }

    /// Writes the next message into `datagram` and returns its length.
    pub(crate) fn fill_next(&self, datagram: &mut [u8]) -> usize {
        self.fill(self.next, datagram)
    }

    /// Returns whether a reply has been received.
    pub(crate) fn has_received_reply(&self) -> bool {
        self.highest_acked > 0
    }

    /// Returns the sequence numbers of the messages in flight.
    pub(crate) fn sequence_numbers(&self) -> impl Iterator<Item = u64> + use<> {
        self.in_flight
            .keys()
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Adds the next message.
    pub(crate) fn push(&mut self, sent: Sent) {
        self.replies.clear(self.next);
        self.in_flight.insert(self.next, sent);
        self.next += 1;
    }

    /// Removes the message whose reply differs.
    pub(crate) fn take_mismatched(&mut self) -> Option<Sent> {
        self.mismatched.take().map(|sent| *sent)
    }

    /// Removes the oldest message, whose reply counts as lost.
    pub(crate) fn abandon_oldest(&mut self) -> Option<Sent> {
        self.in_flight.pop_first().map(|(_, sent)| sent)
    }

    /// Verifies a received datagram, with `expected` as a buffer for the bytes sent.
    ///
    /// # Errors
    ///
    /// Offset of the first difference in all bytes of this socket, and its kind. A message whose
    /// sequence number can be read is no longer in flight.
    pub(crate) fn received(
        &mut self,
        datagram: &[u8],
        expected: &mut [u8],
    ) -> Result<Received, (u64, Mismatch)> {
        let number = datagram
            .first_chunk()
            .map(|bytes| u64::from_be_bytes(*bytes));
        let number = number.filter(|number| *number < self.next);
        let number = number.ok_or((0, Mismatch::Changed))?;
        let sent = self.in_flight.remove(&number);
        if self.verify {
            let start = number.wrapping_mul(self.payload.size());
            if let Err((offset, mismatch)) = self.check(number, datagram, expected) {
                self.mismatched = sent.map(Box::new);
                return Err((start + offset as u64, mismatch));
            }
        }
        let Some(sent) = sent else {
            return Ok(if self.replies.contains(number) {
                Received::Duplicate
            } else {
                Received::Late
            });
        };
        let out_of_order = number < self.highest_acked;
        self.highest_acked = self.highest_acked.max(number + 1);
        self.replies.insert(number);
        Ok(Received::Reply { sent, out_of_order })
    }

    /// Compares a datagram with the message of this sequence number.
    fn check(
        &self,
        number: u64,
        received: &[u8],
        expected: &mut [u8],
    ) -> Result<(), (usize, Mismatch)> {
        let len = self.fill(number, expected);
        let common = received.len().min(len);
        let offset = match first_mismatch(&received[..common], &expected[..common]) {
            Some(offset) => offset,
            None if received.len() < len => return Err((common, Mismatch::Dropped)),
            None if received.len() > len => common,
            None => return Ok(()),
        };
        let divergence =
            Divergence::new(offset as u64, &received[offset..], &expected[offset..len]);
        Err((offset, divergence.classify()))
    }

    /// Writes the message of a sequence number and returns its length.
    pub(crate) fn fill(&self, number: u64, datagram: &mut [u8]) -> usize {
        let size = self.payload.size();
        let len = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(datagram.len());
        let datagram = &mut datagram[..len];
        self.payload
            .fill(self.seed, number.wrapping_mul(size), datagram);
        if let Some(start) = datagram.first_chunk_mut() {
            *start = number.to_be_bytes();
        }
        len
    }
}

/// Ring of bits for the last [`REPLY_WINDOW`] messages, set if a reply was received.
#[derive(Debug)]
struct ReplyBitmap(Box<[u64]>);

impl ReplyBitmap {
    fn new() -> Self {
        Self(vec![0; REPLY_WINDOW / 64].into())
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::position(number);
        self.0[word] &= !bit;
    }

    fn insert(&mut self, number: u64) {
        let (word, bit) = Self::position(number);
        self.0[word] |= bit;
    }

    fn contains(&self, number: u64) -> bool {
        let (word, bit) = Self::position(number);
        self.0[word] & bit != 0
    }

    fn position(number: u64) -> (usize, u64) {
        let index = (number % REPLY_WINDOW as u64) as usize;
        (index / 64, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;
    use std::time::Instant;

    const SIZE: usize = 20;

    fn payload() -> Payload {
        Payload::Generated(NonZeroU64::new(SIZE as u64).unwrap())
    }

    /// Sends `count` messages and returns their datagrams.
    fn send(in_flight: &mut UdpInFlight<'_>, count: usize) -> Vec<Vec<u8>> {
        let send_one = |_| {
            let mut datagram = vec![0; 100];
            let len = in_flight.fill_next(&mut datagram);
            datagram.truncate(len);
            let now = Instant::now();
            in_flight.push(Sent { due: now, at: now });
            datagram
        };
        (0..count).map(send_one).collect()
    }

    /// Checks the kinds of the replies to five messages, received in this order: `a` a reply, `o`
    /// out of order, `2` a duplicate, `l` late, `!` an error.
    #[track_caller]
    fn assert_kinds(order: &[usize], kinds: &str) {
        let payload = payload();
        let mut in_flight = UdpInFlight::new(&payload, 7, true);
        let datagrams = send(&mut in_flight, 5);
        let mut kind = |number: &usize| match in_flight.received(&datagrams[*number], &mut [0; 100])
        {
            Ok(Received::Reply { out_of_order, .. }) if out_of_order => 'o',
            Ok(Received::Reply { .. }) => 'a',
            Ok(Received::Duplicate) => '2',
            Ok(Received::Late) => 'l',
            Err(_) => '!',
        };
        let found: String = order.iter().map(&mut kind).collect();
        assert_eq!(found, kinds, "{order:?}");
    }

    #[test]
    fn order_and_duplicates_are_detected() {
        assert_kinds(&[0, 1, 2, 3, 4], "aaaaa");
        assert_kinds(&[0, 2, 1, 4, 3], "aaoao");
        assert_kinds(&[4, 3, 2, 1, 0], "aoooo");
        assert_kinds(&[0, 0, 1, 0, 1], "a2a22");
        assert_kinds(&[3, 3, 1, 1], "a2o2");
    }

    #[test]
    fn reply_to_an_abandoned_message_is_late() {
        let payload = payload();
        let mut in_flight = UdpInFlight::new(&payload, 7, true);
        let datagrams = send(&mut in_flight, 3);
        assert!(in_flight.abandon_oldest().is_some());
        let late = in_flight.received(&datagrams[0], &mut [0; 100]);
        assert_eq!(late, Ok(Received::Late));
        assert_eq!(in_flight.len(), 2);
        in_flight.received(&datagrams[2], &mut [0; 100]).unwrap();
        assert!(in_flight.oldest().is_some() && in_flight.abandon_oldest().is_some());
        assert!(in_flight.oldest().is_none() && in_flight.abandon_oldest().is_none());
    }

    #[test]
    fn duplicates_are_detected_within_the_window() {
        let payload = payload();
        let mut in_flight = UdpInFlight::new(&payload, 7, true);
        let first = send(&mut in_flight, 2);
        in_flight.received(&first[0], &mut [0; 100]).unwrap();
        send(&mut in_flight, REPLY_WINDOW - 3);
        let again = in_flight.received(&first[0], &mut [0; 100]);
        assert_eq!(again, Ok(Received::Duplicate));
        send(&mut in_flight, 3);
        let late = in_flight.received(&first[0], &mut [0; 100]);
        assert_eq!(late, Ok(Received::Late));
    }

    #[test]
    fn corrupted_datagram_is_detected() {
        const NUMBER: usize = MIN_DATAGRAM_LEN;
        let payload = payload();
        let mut in_flight = UdpInFlight::new(&payload, 7, true);
        let datagram = send(&mut in_flight, 1).remove(0);
        let mut other = UdpInFlight::new(&payload, 8, true);
        let foreign = send(&mut other, 2);
        assert_eq!(foreign[0].len(), SIZE);
        let bodies_differ = foreign[0][NUMBER..] != datagram[NUMBER..];
        assert!(bodies_differ, "sockets send different bytes");
        let mut assert_error = |datagram: &[u8], expected| {
            let result = in_flight.received(datagram, &mut [0; 100]);
            assert_eq!(result, Err(expected), "{datagram:?}");
        };
        assert_error(b"", (0, Mismatch::Changed));
        assert_error(&datagram[..NUMBER - 1], (0, Mismatch::Changed));
        assert_error(&foreign[1], (0, Mismatch::Changed));
        assert_error(&foreign[0], (NUMBER as u64, Mismatch::Changed));
        let end = SIZE as u64;
        assert_error(&datagram[..SIZE - 1], (end - 1, Mismatch::Dropped));
        assert_error(&[&datagram[..], b"x"].concat(), (end, Mismatch::Added));
        assert_eq!(in_flight.len(), 0, "a corrupted reply ends its message");
        let mut unverified = UdpInFlight::new(&payload, 7, false);
        send(&mut unverified, 1);
        assert!(unverified.received(&foreign[0], &mut [0; 100]).is_ok());
    }
}
