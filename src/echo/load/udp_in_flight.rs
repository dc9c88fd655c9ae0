//! The books of one socket for datagrams: which messages are on the way, and what comes back of
//! them, in which order and how often.

use std::collections::BTreeMap;

use crate::echo::error::Mismatch;
use crate::echo::load::in_flight::Sent;
use crate::echo::load::verify::{Difference, first_difference};
use crate::echo::payload::Payload;

/// The least bytes that a datagram of a ping or a load has: it begins with its number on its socket,
/// big-endian, counted from 0.
pub const NUMBER: usize = size_of::<u64>();

/// How many numbers back it is known what was answered, so that what comes again is told from
/// what comes too late.
const REMEMBERED: usize = 8192;

/// The books of one socket.
#[derive(Debug)]
pub(crate) struct Roll<'a> {
    payload: &'a Payload,
    seed: u64,
    verify: bool,
    on_way: BTreeMap<u64, Sent>,
    /// The number of the next message.
    next: u64,
    /// The number behind the last that was answered of all so far.
    reached: u64,
    answered: Answered,
}

/// What a datagram that came back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The answer to a message; `overtaken`, if a later one has been answered before.
    Answer { sent: Sent, overtaken: bool },
    /// An answer that has come before.
    Again,
    /// The answer to a message that counts as lost.
    TooLate,
}

impl<'a> Roll<'a> {
    pub(crate) fn new(payload: &'a Payload, seed: u64, verify: bool) -> Self {
        let (on_way, answered) = (BTreeMap::new(), Answered::new());
        Self {
            payload,
            seed,
            verify,
            on_way,
            next: 0,
            reached: 0,
            answered,
        }
    }

    /// How many messages are on the way.
    pub(crate) fn on_way(&self) -> usize {
        self.on_way.len()
    }

    /// The message that has been on the way for longest.
    pub(crate) fn oldest(&self) -> Option<&Sent> {
        self.on_way.first_key_value().map(|(_, sent)| sent)
    }

    /// Writes the next message into `datagram`, and tells its length.
    pub(crate) fn write(&self, datagram: &mut [u8]) -> usize {
        self.fill(self.next, datagram)
    }

    /// Whether anything has been answered.
    pub(crate) fn was_answered(&self) -> bool {
        self.reached > 0
    }

    /// The numbers of the messages that are on the way.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        self.on_way.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Counts the next message as sent.
    pub(crate) fn start(&mut self, sent: Sent) {
        self.answered.forget(self.next);
        self.on_way.insert(self.next, sent);
        self.next += 1;
    }

    /// Gives up the oldest message.
    pub(crate) fn give_up(&mut self) -> Option<Sent> {
        self.on_way.pop_first().map(|(_, sent)| sent)
    }

    /// Checks a datagram that came back, with `wanted` as room for what it should be.
    ///
    /// # Errors
    ///
    /// The offset in all bytes of this socket from which on it is not what was sent, and what was
    /// done to it. If it can be told which message it answers, that is not on the way any more.
    pub(crate) fn received(
        &mut self,
        datagram: &[u8],
        wanted: &mut [u8],
    ) -> Result<Came, (u64, Mismatch)> {
        let number = datagram
            .first_chunk()
            .map(|bytes| u64::from_be_bytes(*bytes));
        let number = number.filter(|number| *number < self.next);
        let number = number.ok_or((0, Mismatch::Changed))?;
        let sent = self.on_way.remove(&number);
        if self.verify {
            let start = number.wrapping_mul(self.payload.size());
            let explain = |(at, mismatch)| (start + at as u64, mismatch);
            self.check(number, datagram, wanted).map_err(explain)?;
        }
        let Some(sent) = sent else {
            return Ok(if self.answered.has(number) {
                Came::Again
            } else {
                Came::TooLate
            });
        };
        let overtaken = number < self.reached;
        self.reached = self.reached.max(number + 1);
        self.answered.note(number);
        Ok(Came::Answer { sent, overtaken })
    }

    fn check(&self, number: u64, found: &[u8], wanted: &mut [u8]) -> Result<(), (usize, Mismatch)> {
        let length = self.fill(number, wanted);
        let both = found.len().min(length);
        let at = match first_difference(&found[..both], &wanted[..both]) {
            Some(at) => at,
            None if found.len() < length => return Err((both, Mismatch::Dropped)),
            None if found.len() > length => both,
            None => return Ok(()),
        };
        let difference = Difference::new(at as u64, &found[at..], &wanted[at..length]);
        Err((at, difference.kind()))
    }

    /// Writes a message, and tells its length.
    pub(crate) fn fill(&self, number: u64, datagram: &mut [u8]) -> usize {
        let size = self.payload.size();
        let length = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(datagram.len());
        let datagram = &mut datagram[..length];
        self.payload
            .fill(self.seed, number.wrapping_mul(size), datagram);
        if let Some(start) = datagram.first_chunk_mut() {
            *start = number.to_be_bytes();
        }
        length
    }
}

/// Which of the last messages were answered.
#[derive(Debug)]
struct Answered(Box<[u64]>);

impl Answered {
    fn new() -> Self {
        Self(vec![0; REMEMBERED / 64].into())
    }

    /// Makes room for this number, which is the next.
    fn forget(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.0[word] &= !bit;
    }

    fn note(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.0[word] |= bit;
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.0[word] & bit != 0
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let at = (number % REMEMBERED as u64) as usize;
        (at / 64, 1 << (at % 64))
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

    /// Sends so many messages and returns their datagrams.
    fn sent(roll: &mut Roll<'_>, count: usize) -> Vec<Vec<u8>> {
        let send = |_| {
            let mut datagram = vec![0; 100];
            let length = roll.write(&mut datagram);
            datagram.truncate(length);
            let now = Instant::now();
            roll.start(Sent { due: now, at: now });
            datagram
        };
        (0..count).map(send).collect()
    }

    /// What datagrams of five messages are that come back in this order.
    #[track_caller]
    fn comes(order: &[usize], kinds: &str) {
        let payload = payload();
        let mut roll = Roll::new(&payload, 7, true);
        let datagrams = sent(&mut roll, 5);
        let mut kind = |number: &usize| match roll.received(&datagrams[*number], &mut [0; 100]) {
            Ok(Came::Answer {
                overtaken: false, ..
            }) => 'a',
            Ok(Came::Answer {
                overtaken: true, ..
            }) => 'o',
            Ok(Came::Again) => '2',
            Ok(Came::TooLate) => 'l',
            Err(_) => '!',
        };
        let found: String = order.iter().map(&mut kind).collect();
        assert_eq!(found, kinds, "{order:?}");
    }

    #[test]
    fn order_and_repetition_are_told() {
        comes(&[0, 1, 2, 3, 4], "aaaaa");
        comes(&[0, 2, 1, 4, 3], "aaoao");
        comes(&[4, 3, 2, 1, 0], "aoooo");
        comes(&[0, 0, 1, 0, 1], "a2a22");
        comes(&[3, 3, 1, 1], "a2o2");
    }

    #[test]
    fn what_was_given_up_comes_too_late() {
        let payload = payload();
        let mut roll = Roll::new(&payload, 7, true);
        let datagrams = sent(&mut roll, 3);
        assert!(roll.give_up().is_some());
        assert_eq!(
            roll.received(&datagrams[0], &mut [0; 100]),
            Ok(Came::TooLate)
        );
        assert_eq!(roll.on_way(), 2);
        roll.received(&datagrams[2], &mut [0; 100]).unwrap();
        assert!(roll.oldest().is_some() && roll.give_up().is_some());
        assert!(roll.oldest().is_none() && roll.give_up().is_none());
    }

    #[test]
    fn after_many_more_messages_it_is_still_known_what_was_answered() {
        let payload = payload();
        let mut roll = Roll::new(&payload, 7, true);
        let first = sent(&mut roll, 2);
        roll.received(&first[0], &mut [0; 100]).unwrap();
        sent(&mut roll, REMEMBERED - 3);
        assert_eq!(roll.received(&first[0], &mut [0; 100]), Ok(Came::Again));
        sent(&mut roll, 3);
        assert_eq!(roll.received(&first[0], &mut [0; 100]), Ok(Came::TooLate));
    }

    #[test]
    fn what_was_not_sent_is_found() {
        let payload = payload();
        let mut roll = Roll::new(&payload, 7, true);
        let datagram = sent(&mut roll, 1).remove(0);
        let mut other = Roll::new(&payload, 8, true);
        let foreign = sent(&mut other, 2);
        assert_eq!(foreign[0].len(), SIZE);
        assert_ne!(
            foreign[0][NUMBER..],
            datagram[NUMBER..],
            "sockets send different bytes"
        );
        let mut finds = |datagram: &[u8], found| {
            assert_eq!(
                roll.received(datagram, &mut [0; 100]),
                Err(found),
                "{datagram:?}"
            );
        };
        finds(b"", (0, Mismatch::Changed));
        finds(&datagram[..NUMBER - 1], (0, Mismatch::Changed));
        finds(&foreign[1], (0, Mismatch::Changed));
        finds(&foreign[0], (NUMBER as u64, Mismatch::Changed));
        finds(&datagram[..SIZE - 1], (SIZE as u64 - 1, Mismatch::Dropped));
        finds(
            &[&datagram[..], b"x"].concat(),
            (SIZE as u64, Mismatch::Added),
        );
        assert_eq!(
            roll.on_way(),
            0,
            "whatever came for it, the message was answered"
        );
        let mut trusting = Roll::new(&payload, 7, false);
        sent(&mut trusting, 1);
        assert!(trusting.received(&foreign[0], &mut [0; 100]).is_ok());
    }
}
