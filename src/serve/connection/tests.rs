use super::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fastrand::Rng;

use crate::limits::semaphore::Semaphore;
use crate::net::stream::{Delivery, Peer, Stream};
use crate::serve::access::AccessControl;
use crate::serve::config::{Config, FaultInjection, Mode};
use crate::serve::fault::handle::Faults;
use crate::serve::fault::stream::{InjectedFaults, NoFaults};
use crate::serve::stats::ServerStats;

#[test]
fn idle_connection_is_small() {
    let size = size_of::<ConnectionTask<Stream, NoFaults>>();
    assert!(size <= 88, "{size} bytes for each open connection");
    let size = size_of::<ConnectionTask<Stream, InjectedFaults>>();
    assert!(size <= 104, "{size} bytes with faults at run time");
}

/// A stream with random partial writes and random pending results. Reads change the faults of the
/// server at random.
#[derive(Debug)]
struct FlakyStream {
    random: Rng,
    faults: Option<Faults>,
    reads: VecDeque<Vec<u8>>,
    written: Rc<RefCell<Vec<u8>>>,
}

impl FlakyStream {
    fn is_pending(&mut self, cx: &Context<'_>) -> bool {
        let is_pending = self.random.u8(..3) == 0;
        if is_pending {
            cx.waker().wake_by_ref();
        }
        is_pending
    }
}

impl AsyncRead for FlakyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_pending(cx) {
            return Poll::Pending;
        }
        if let Some(faults) = self.faults.clone() {
            let faults_change = self.random.u8(..3) == 0;
            if faults_change {
                let slice = NonZeroUsize::new(self.random.usize(..5));
                let slices = FaultInjection {
                    slice,
                    ..FaultInjection::default()
                };
                faults.set(slices).unwrap();
            }
        }
        let read = self.reads.pop_front().unwrap_or_default();
        buffer[..read.len()].copy_from_slice(&read);
        Poll::Ready(Ok(read.len()))
    }
}

impl AsyncWrite for FlakyStream {
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
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_pending(cx) {
            return Poll::Pending;
        }
        let bytes: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let count = self.random.usize(1..=bytes.len());
        self.written.borrow_mut().extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_pending(cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl SocketControl for FlakyStream {
    fn set_reset_on_close(&self) -> io::Result<()> {
        Ok(())
    }

    fn delivery(&self) -> Delivery {
        Delivery::default()
    }
}

/// Returns the messages in the input, and whether a line over the limit follows.
fn messages(config: &Config, reads: &[Vec<u8>]) -> (Vec<Vec<u8>>, bool) {
    if config.mode != Mode::Line {
        return (reads.to_vec(), false);
    }
    let all = reads.concat();
    let lines = all
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec);
    let fits = |line: &Vec<u8>| trim_newline(line).0.len() <= config.max_line;
    let fitting: Vec<_> = lines.clone().take_while(fits).collect();
    let too_long = fitting.len() < lines.count();
    (fitting, too_long)
}

/// Returns the expected replies.
fn expected_replies(config: &Config, messages: &[Vec<u8>], too_long: bool) -> Vec<u8> {
    if config.mode == Mode::Discard {
        return Vec::new();
    }
    let mut replies: Vec<_> = messages
        .iter()
        .flat_map(|message| [&config.prefix, message])
        .flatten()
        .copied()
        .collect();
    if too_long {
        replies.extend(format!("error: line longer than {} bytes\n", config.max_line).bytes());
    }
    replies
}

/// Returns a prefix of `bytes`, split into reads of random lengths.
fn random_reads(random: &mut Rng, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reads = Vec::new();
    let mut rest = &bytes[..random.usize(..=bytes.len())];
    while !rest.is_empty() {
        let (read, more) = rest.split_at(random.usize(1..=rest.len().min(60)));
        reads.push(read.to_vec());
        rest = more;
    }
    reads
}

fn random_lines(random: &mut Rng) -> Vec<u8> {
    let mut byte = || {
        if random.u8(..6) == 0 {
            b'\n'
        } else {
            random.alphanumeric() as u8
        }
    };
    (0..300).map(|_| byte()).collect()
}

fn random_config(random: &mut Rng) -> Config {
    Config {
        mode: [Mode::Line, Mode::Line, Mode::Chunk, Mode::Discard][random.usize(..4)],
        prefix: b"> "[..random.usize(..3)].into(),
        max_line: random.usize(8..40),
        threads: NonZeroUsize::MIN,
        fault_injection: random.bool().then(FaultInjection::default),
        ..Config::default()
    }
}

/// Serves a connection with a random configuration, input and write lengths, and checks the
/// replies and counters.
fn serve_at_random(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let config = random_config(&mut random);
    let bytes = random_lines(&mut random);
    let reads = random_reads(&mut random, &bytes);
    let (messages, too_long) = messages(&config, &reads);
    let expected = expected_replies(&config, &messages, too_long);

    let stats = Arc::new(ServerStats::new(NonZeroUsize::MIN));
    let traffic = stats.traffic().next().unwrap();
    let faults = config.fault_injection.clone();
    let faults = faults.map(|faults| Faults::new(faults, Arc::clone(&stats)).unwrap());
    let access = AccessControl::new(&config);
    let permits = Semaphore::new(NonZeroUsize::MIN);
    let permit = permits.try_acquire().unwrap();
    let context = WorkerContext::new(
        &config,
        Arc::clone(&stats),
        traffic,
        access.into(),
        permits.clone(),
        faults.clone(),
    );
    let context = Rc::new(context);
    let peer = Peer::Unix {
        process: 1,
        user: 0,
    };
    let (guard, number) = ConnectionGuard::new(Rc::clone(&context), permit, peer);
    let written = Rc::default();
    let stream = FlakyStream {
        random,
        faults: faults.clone(),
        reads: reads.clone().into(),
        written: Rc::clone(&written),
    };
    assert!(permits.try_acquire().is_none());
    if faults.is_some() {
        let faults = InjectedFaults::new(number);
        future::block_on(Connection::new(guard, stream, faults).run());
    } else {
        future::block_on(Connection::new(guard, stream, NoFaults).run());
    }
    assert!(permits.try_acquire().is_some(), "the permit is released");

    let actual = written.borrow().escape_ascii().to_string();
    assert_eq!(
        actual,
        expected.escape_ascii().to_string(),
        "seed {seed}: {config:?} {reads:?}"
    );
    let summary = stats.summary();
    assert_eq!((summary.connections, summary.active), (1, 0));
    assert_eq!(summary.messages, messages.len() as u64, "seed {seed}");
    assert_eq!(summary.sent, expected.len() as u64, "seed {seed}");
    assert_eq!(summary.line_too_long, u64::from(too_long), "seed {seed}");
    if !too_long {
        assert_eq!(summary.received, reads.concat().len() as u64, "seed {seed}");
    }
}

#[test]
fn random_input_gets_exactly_one_reply_per_message() {
    (0..5000).for_each(serve_at_random);
}
