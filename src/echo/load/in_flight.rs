//! The books of one connection: which messages are on the way, and whether what comes back is
//! what was sent.

use std::collections::VecDeque;
use std::time::Instant;

use crate::echo::load::verify::{Difference, first_difference};
use crate::echo::payload::Payload;

/// A message on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When it should have gone.
    pub(crate) due: Instant,
    /// When it went.
    pub(crate) at: Instant,
}

/// The messages on the way, of which most often there is one: it has its place here. Small, as
/// what is known of thousands of connections soon no longer fits into the processor's cache.
#[derive(Debug, Default)]
struct OnWay {
    oldest: Option<Sent>,
    #[expect(
        clippy::box_collection,
        reason = "most often there is none, and no room is needed"
    )]
    others: Option<Box<VecDeque<Sent>>>,
}

impl OnWay {
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

/// The books of one connection.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    payload: &'a Payload,
    seed: u64,
    verify: bool,
    on_way: OnWay,
    /// Bytes of all messages so far, of what is written, and of what has come back.
    started: u64,
    written: u64,
    read: u64,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(payload: &'a Payload, seed: u64, verify: bool) -> Self {
        let on_way = OnWay::default();
        Self {
            payload,
            seed,
            verify,
            on_way,
            started: 0,
            written: 0,
            read: 0,
        }
    }

    /// What tells its bytes from those of other connections.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// How many messages are on the way.
    pub(crate) fn on_way(&self) -> usize {
        self.on_way.len()
    }

    /// The message that has been on the way for longest.
    pub(crate) fn oldest(&self) -> Option<&Sent> {
        self.on_way.oldest.as_ref()
    }

    /// Whether a message has been answered.
    pub(crate) fn was_answered(&self) -> bool {
        self.read >= self.payload.size()
    }

    /// The bytes that have come of the reply that is not whole.
    pub(crate) fn partial(&self) -> u64 {
        self.read % self.payload.size()
    }

    /// Starts another message.
    pub(crate) fn start(&mut self, sent: Sent) {
        self.on_way.push(sent);
        self.started += self.payload.size();
    }

    /// How many bytes are to be written.
    pub(crate) fn unwritten(&self) -> u64 {
        self.started - self.written
    }

    /// Puts the next bytes that are to be written into `piece`, and tells how many.
    pub(crate) fn fill(&self, piece: &mut [u8]) -> usize {
        let count = up_to(self.unwritten(), piece);
        self.payload
            .fill(self.seed, self.written, &mut piece[..count]);
        count
    }

    /// Counts bytes as written.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Checks bytes that have come back, and hands on each message whose reply is whole.
    ///
    /// # Errors
    ///
    /// Where they first are not what was sent, and what they are from there on.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        wanted: &mut [u8],
        mut answered: impl FnMut(Sent),
    ) -> Result<(), Difference> {
        let asked = up_to(self.started - self.read, bytes);
        let good = match self.verify {
            true => self.check(&bytes[..asked], &mut wanted[..asked]),
            false => asked,
        };
        self.read += good as u64;
        while self.read >= self.first_end() {
            let Some(sent) = self.on_way.pop() else { break };
            answered(sent);
        }
        if good == bytes.len() {
            Ok(())
        } else {
            Err(self.difference(&bytes[good..]))
        }
    }

    /// How many of these bytes are the next that were sent.
    fn check(&self, bytes: &[u8], wanted: &mut [u8]) -> usize {
        self.payload.fill(self.seed, self.read, wanted);
        first_difference(bytes, wanted).unwrap_or(bytes.len())
    }

    /// That these bytes are not the next that were sent.
    pub(crate) fn difference(&self, bytes: &[u8]) -> Difference {
        let mut wanted = [0; Difference::WANTED];
        // What has not been written cannot come back.
        let count = up_to(self.written.saturating_sub(self.read), &wanted);
        self.payload
            .fill(self.seed, self.read, &mut wanted[..count]);
        Difference::new(self.read, bytes, &wanted[..count])
    }

    /// The offset at which the reply to the oldest message ends.
    fn first_end(&self) -> u64 {
        self.started - (self.on_way.len() as u64).saturating_sub(1) * self.payload.size()
    }
}

/// As much of a number of bytes as has room.
fn up_to(count: u64, room: &[u8]) -> usize {
    usize::try_from(count).map_or(room.len(), |count| count.min(room.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::error::Mismatch;
    use crate::echo::message::Message;

    fn hola() -> Payload {
        Payload::Message(Message::new("hola").unwrap())
    }

    /// What becomes of three messages of which these bytes come back: how many are answered
    /// after each piece, and where it went wrong.
    #[track_caller]
    fn answers(pieces: &[&str], answered: &[usize], end: Result<(), (u64, Mismatch)>) {
        let payload = hola();
        let mut ledger = Ledger::new(&payload, 0, true);
        let now = Instant::now();
        (0..3).for_each(|_| ledger.start(Sent { due: now, at: now }));
        ledger.wrote(3 * 5);
        let (mut count, mut counts, mut result) = (0, Vec::new(), Ok(()));
        for piece in pieces {
            let found = ledger.received(piece.as_bytes(), &mut [0; 100], |_| count += 1);
            result = found.map_err(|difference| (difference.offset, difference.kind()));
            counts.push(count);
        }
        assert_eq!((counts.as_slice(), result), (answered, end), "{pieces:?}");
        assert_eq!(ledger.on_way(), 3 - count);
    }

    #[test]
    fn a_message_is_answered_when_as_many_bytes_have_come() {
        answers(&["hola", "\n", "hola\nho", "la\n"], &[0, 1, 2, 3], Ok(()));
        answers(&["hola\nhola\nhola\n"], &[3], Ok(()));
        answers(&["", "hola\n"], &[0, 1], Ok(()));
    }

    #[test]
    fn what_was_not_sent_is_found_and_what_was_right_before_counts() {
        answers(&["hola\nhOla\n"], &[1], Err((6, Mismatch::Changed)));
        answers(&["hola\nholla\nhola\n"], &[1], Err((8, Mismatch::Added)));
        answers(&["hola\nhoa\nhola\n"], &[1], Err((7, Mismatch::Dropped)));
        answers(&["hola\nhola\nhola\nx"], &[3], Err((15, Mismatch::Added)));
    }

    #[test]
    fn messages_are_written_piece_by_piece() {
        let payload = hola();
        let mut ledger = Ledger::new(&payload, 0, true);
        let (now, mut piece) = (Instant::now(), [0; 7]);
        assert_eq!(ledger.fill(&mut piece), 0);
        (0..2).for_each(|_| ledger.start(Sent { due: now, at: now }));
        assert_eq!((ledger.fill(&mut piece), &piece), (7, b"hola\nho"));
        ledger.wrote(4);
        assert_eq!(
            (ledger.fill(&mut piece), &piece[..6]),
            (6, b"\nhola\n".as_slice())
        );
        ledger.wrote(6);
        assert_eq!(ledger.fill(&mut piece), 0);
    }
}
