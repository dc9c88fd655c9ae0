use super::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fastrand::Rng;

use crate::limits::semaphore::Semaphore;
use crate::net::stream::{Peer, Stream};
use crate::serve::admission::Admission;
use crate::serve::config::{Config, Faults, Mode};
use crate::serve::lateness::{Late, Punctual};
use crate::serve::stats::Figures;

#[test]
fn a_connection_that_waits_takes_little_memory() {
    let size = size_of::<Service<Stream, Punctual>>();
    assert!(size <= 88, "{size} bytes for each open connection");
}

/// A stream that takes some of what it is given, or nothing for now, as the dice fall.
#[derive(Debug)]
struct Moody {
    dice: Rng,
    reads: VecDeque<Vec<u8>>,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Moody {
    fn hesitates(&mut self, cx: &Context<'_>) -> bool {
        let hesitates = self.dice.u8(..3) == 0;
        if hesitates {
            cx.waker().wake_by_ref();
        }
        hesitates
    }
}

impl AsyncRead for Moody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.hesitates(cx) {
            return Poll::Pending;
        }
        let read = self.reads.pop_front().unwrap_or_default();
        buffer[..read.len()].copy_from_slice(&read);
        Poll::Ready(Ok(read.len()))
    }
}

impl AsyncWrite for Moody {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hesitates(cx) {
            return Poll::Pending;
        }
        let bytes: Vec<_> = pieces
            .iter()
            .flat_map(|piece| piece.iter().copied())
            .collect();
        let count = self.dice.usize(1..=bytes.len());
        self.written.borrow_mut().extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ResetOnClose for Moody {
    fn set_reset_on_close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The messages in what is read, and whether a line behind them is too long.
fn messages(config: &Config, reads: &[Vec<u8>]) -> (Vec<Vec<u8>>, bool) {
    if config.mode != Mode::Line {
        return (reads.to_vec(), false);
    }
    let all = reads.concat();
    let lines = all
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec);
    let fits = |line: &Vec<u8>| without_end(line).0.len() <= config.max_line;
    let fitting: Vec<_> = lines.clone().take_while(fits).collect();
    let too_long = fitting.len() < lines.count();
    (fitting, too_long)
}

/// What is to be answered.
fn answers(config: &Config, messages: &[Vec<u8>], too_long: bool) -> Vec<u8> {
    if config.mode == Mode::Discard {
        return Vec::new();
    }
    let mut answers: Vec<_> = messages
        .iter()
        .flat_map(|message| [&config.prefix, message])
        .flatten()
        .copied()
        .collect();
    if too_long {
        answers.extend(format!("error: line longer than {} bytes\n", config.max_line).bytes());
    }
    answers
}

/// Serves a connection on which everything is as the dice fall, and looks whether what is
/// answered and counted is what it should be.
fn serve_at_random(seed: u64) {
    let mut dice = Rng::with_seed(seed);
    let config = Config {
        mode: [Mode::Line, Mode::Line, Mode::Chunk, Mode::Discard][dice.usize(..4)],
        prefix: b"> "[..dice.usize(..3)].into(),
        max_line: dice.usize(8..40),
        threads: NonZeroUsize::MIN,
        faults: dice.bool().then(Faults::default),
        ..Config::default()
    };
    let mut byte = || {
        if dice.u8(..6) == 0 {
            b'\n'
        } else {
            dice.alphanumeric() as u8
        }
    };
    let bytes: Vec<_> = (0..300).map(|_| byte()).collect();
    let mut reads = Vec::new();
    let mut rest = &bytes[..dice.usize(..=bytes.len())];
    while !rest.is_empty() {
        let (read, more) = rest.split_at(dice.usize(1..=rest.len().min(60)));
        reads.push(read.to_vec());
        rest = more;
    }
    let (messages, too_long) = messages(&config, &reads);
    let wanted = answers(&config, &messages, too_long);

    let figures = Arc::new(Figures::new(NonZeroUsize::MIN));
    let traffic = figures.traffic().next().unwrap();
    let (admission, permits) = (Admission::new(&config), Semaphore::new(NonZeroUsize::MIN));
    let permit = permits.try_acquire().unwrap();
    let shared = Shared::new(
        &config,
        Arc::clone(&figures),
        traffic,
        admission.into(),
        permits.clone(),
    );
    let shared = Rc::new(shared);
    let peer = Peer::Unix {
        process: 1,
        user: 0,
    };
    let (visit, number) = Visit::begin(Rc::clone(&shared), permit, peer);
    let late = Late::new(&shared, number);
    let written = Rc::default();
    let stream = Moody {
        dice,
        reads: reads.clone().into(),
        written: Rc::clone(&written),
    };
    assert!(permits.try_acquire().is_none());
    future::block_on(Session::open(visit, stream, late).run());
    assert!(permits.try_acquire().is_some(), "the place is free again");

    let seen = written.borrow().escape_ascii().to_string();
    assert_eq!(
        seen,
        wanted.escape_ascii().to_string(),
        "seed {seed}: {config:?} {reads:?}"
    );
    let summary = figures.summary();
    assert_eq!((summary.connections, summary.open), (1, 0));
    assert_eq!(summary.messages, messages.len() as u64, "seed {seed}");
    assert_eq!(summary.sent, wanted.len() as u64, "seed {seed}");
    assert_eq!(summary.too_long, u64::from(too_long), "seed {seed}");
    if !too_long {
        assert_eq!(summary.received, reads.concat().len() as u64, "seed {seed}");
    }
}

#[test]
fn whatever_comes_in_whatever_pieces_each_message_is_answered_once() {
    (0..5000).for_each(serve_at_random);
}
