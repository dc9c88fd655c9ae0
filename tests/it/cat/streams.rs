//! Readers and writers of the caller as inputs and as the output.

use std::fs;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::Cursor;
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, future};
use myapp::cat::{self, Config, Display, Error, Event, FileSink, Numbers, Sink, Source, WriteMode};
use smol::Timer;

use crate::harness::until;

/// Writer that records its bytes and whether it was closed. It fails after `limit` bytes.
#[derive(Debug, Clone)]
struct Recorder {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_closed: Arc<Mutex<bool>>,
    limit: usize,
}

impl Recorder {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Arc::default(),
            is_closed: Arc::default(),
            limit,
        }
    }

    fn is_closed(&self) -> bool {
        *self.is_closed.lock().unwrap()
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut all = self.bytes.lock().unwrap();
        if all.len() + bytes.len() > self.limit {
            return Poll::Ready(Err(io::Error::other("disk full")));
        }
        all.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        *self.is_closed.lock().unwrap() = true;
        Poll::Ready(Ok(()))
    }
}

/// Reader that returns a few bytes, and then an error.
struct Broken(bool);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(io::Error::other("line noise")));
        }
        buffer[..4].copy_from_slice(b"half");
        Poll::Ready(Ok(4))
    }
}

/// Reader that never returns, until it is dropped.
struct Silent {
    /// Shows whether the reader still exists.
    _alive: Arc<()>,
}

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

#[test]
fn readers_and_files_are_copied_to_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..3 << 20).map(|_| fastrand::u8(..)).collect();
    fs::write(dir.path().join("a"), &large).unwrap();
    let sources = || {
        let slow = Cursor::new(b"one\n".to_vec()).chain(Cursor::new(large.clone()));
        [
            Source::reader("first", slow),
            Source::Path(dir.path().join("a")),
            Source::reader("last", Cursor::new(b"end\n".to_vec())),
        ]
    };
    let expected = [b"one\n", &large[..], &large, b"end\n"].concat();
    let writer = Recorder::new(usize::MAX);
    let sink = Sink::writer(writer.clone());
    let report = smol::block_on(cat::run(sources(), Config::default(), sink, |_| {})).unwrap();
    assert_eq!((report.files, report.written), (3, expected.len() as u64));
    assert!(*writer.bytes.lock().unwrap() == expected);
    assert!(writer.is_closed());
    let writer = Recorder::new(usize::MAX);
    let sink = Sink::writer(writer.clone());
    cat::run_blocking(sources(), &Config::default(), sink, |_| {}).unwrap();
    assert!(*writer.bytes.lock().unwrap() == expected);
    assert!(writer.is_closed());
}

#[test]
fn lines_of_a_reader_are_numbered() {
    let config = Config {
        display: Display {
            numbers: Numbers::All,
            ..Display::default()
        },
        ..Config::default()
    };
    let writer = Recorder::new(usize::MAX);
    let source = Source::reader("lines", Cursor::new(b"a\nb\n".to_vec()));
    let sink = Sink::writer(writer.clone());
    smol::block_on(cat::run([source], config, sink, |_| {})).unwrap();
    assert_eq!(*writer.bytes.lock().unwrap(), b"     1\ta\n     2\tb\n");
}

#[test]
fn error_of_a_reader_is_that_of_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut failures = Vec::new();
    let source = Source::reader("the modem", Broken(false));
    let sink = Sink::File(FileSink::new(&path, WriteMode::Replace));
    let result = smol::block_on(cat::run([source], Config::default(), sink, |event| {
        if let Event::Failed(Error::Read { input, source }) = event {
            failures.push(format!("{input}: {source}"));
        }
    }));
    assert!(
        matches!(result, Err(Error::Incomplete { .. })),
        "{result:?}"
    );
    assert_eq!(failures, ["the modem: line noise"]);
    assert!(!path.exists());
}

#[test]
fn error_of_a_writer_ends_the_run() {
    let writer = Recorder::new(1 << 20);
    let source = Source::reader("zeros", futures_lite::io::repeat(0));
    let sink = Sink::writer(writer.clone());
    let result = smol::block_on(cat::run([source], Config::default(), sink, |_| {}));
    let Err(Error::Write { path: None, source }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(source.to_string(), "disk full");
    assert!(!writer.is_closed());
}

#[test]
fn dropped_run_ends_its_streams_unclosed() {
    let alive = Arc::new(());
    let writer = Recorder::new(usize::MAX);
    let sources = [
        Source::reader("bytes", Cursor::new(b"bytes".to_vec())),
        Source::reader(
            "silent",
            Silent {
                _alive: Arc::clone(&alive),
            },
        ),
    ];
    let run = cat::run(
        sources,
        Config::default(),
        Sink::writer(writer.clone()),
        |_| {},
    );
    let written = async {
        while writer.bytes.lock().unwrap().is_empty() {
            Timer::after(Duration::from_millis(1)).await;
        }
    };
    smol::block_on(future::or(async { drop(run.await) }, written));
    until(|| Arc::strong_count(&alive) == 1);
    assert_eq!(*writer.bytes.lock().unwrap(), b"bytes");
    assert!(!writer.is_closed());
    until(|| Arc::strong_count(&writer.bytes) == 1);
}

#[test]
fn reader_is_read_once() {
    let source = Source::reader("once", Cursor::new(b"a\n".to_vec()));
    let mut failures = 0;
    let writer = Recorder::new(usize::MAX);
    let sources = [source.clone(), source];
    let sink = Sink::writer(writer.clone());
    let report = smol::block_on(cat::run(sources, Config::default(), sink, |event| {
        failures += u32::from(matches!(event, Event::Failed(Error::Open { .. })));
    }));
    assert_eq!(report.unwrap().written, 2);
    assert_eq!(failures, 1);
}
