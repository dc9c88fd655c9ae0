//! Running a future to completion on the current thread ([`block_on`]).
//!
//! Each tool is one future with an executor of its own inside, so a program may run it on any
//! executor; dropping the future ends all of its tasks.

// A worker thread (`WorkerThread`) waits for its sockets with epoll, where many small exchanges must
// have low latency. smol's reactor serves the whole process from one thread, rearms each socket per
// wait and wakes the executor through another thread; the worker's reactor is edge-triggered and
// local to its thread, which halves the system calls per message. Where there is no epoll, worker
// threads use smol's reactor behind the same interface.

mod direction;
mod driver;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;
pub(crate) mod start;
mod tasks;
#[cfg(target_os = "linux")]
mod timers;
mod worker;

use std::future::Future;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

pub(crate) use direction::Direction;
#[cfg(test)]
pub(crate) use driver::Driver;
pub(crate) use driver::{Socket, Timer, busy_poll_time, mark_all_readable, yield_to_reactor};
pub(crate) use tasks::run_tasks;
pub(crate) use worker::WorkerThread;

/// The maximum number of threads for blocking file I/O.
///
/// The pool never ends its threads, so its default limit (500) would keep as many for the rest of a
/// run that once opened many files.
const BLOCKING_THREADS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Runs `future` to completion on the current thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    blocking::set_max_blocking_threads(BLOCKING_THREADS);
    smol::block_on(future)
}

/// Returns half the number of processor cores, at least one.
pub(crate) fn default_threads() -> NonZeroUsize {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;
    use std::time::Duration;

    use futures_lite::future::poll_once;
    use rustix::fd::AsFd;
    use rustix::net::{SendFlags, send, sockopt};
    use smol::LocalExecutor;
    use smol::channel::bounded;

    use super::WorkerThread;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    /// The same tests for both drivers: what serves off Linux is tested here too.
    macro_rules! tests_of {
        ($driver:ident) => {
            mod $driver {
                use super::super::Direction::{Read as In, Write as Out};
                use super::super::$driver::{Driver, Socket};
                use super::*;

                /// Reads until the end, at most eight bytes at once.
                async fn read_all<T: AsFd>(socket: &Socket<T>) -> Vec<u8>
                where
                    for<'a> &'a T: Read,
                {
                    let mut all = Vec::new();
                    loop {
                        let mut buffer = [0; 8];
                        let read = poll_fn(|cx| {
                            socket.poll(In, cx, |mut stream| stream.read(&mut buffer))
                        });
                        let count = read.await.unwrap();
                        if count == 0 {
                            return all;
                        }
                        if count < buffer.len() {
                            socket.clear_readiness(In);
                        }
                        all.extend(&buffer[..count]);
                    }
                }

                async fn write_all(socket: &Socket<UnixStream>, mut bytes: &[u8]) {
                    while !bytes.is_empty() {
                        let write =
                            poll_fn(|cx| socket.poll(Out, cx, |mut stream| stream.write(bytes)));
                        let count = write.await.unwrap();
                        if count < bytes.len() {
                            socket.clear_readiness(Out);
                        }
                        bytes = &bytes[count..];
                    }
                }

                #[test]
                fn reader_is_woken_by_data_and_by_the_end() {
                    let (ours, mut theirs) = pair();
                    let sender = thread::spawn(move || {
                        for piece in ["one", "exactly8", "and more than eight", ""] {
                            thread::sleep(Duration::from_millis(5));
                            theirs.write_all(piece.as_bytes()).unwrap();
                        }
                    });
                    let driver = Driver::new().unwrap();
                    let all = driver.run(|| async { read_all(&Socket::new(ours).unwrap()).await });
                    assert_eq!(all.unwrap(), b"oneexactly8and more than eight");
                    sender.join().unwrap();
                }

                #[test]
                fn data_and_end_together_are_both_seen() {
                    for round in 0..200 {
                        let (ours, mut theirs) = pair();
                        let sender = thread::spawn(move || theirs.write_all(b"last").unwrap());
                        if round % 2 == 0 {
                            thread::yield_now();
                        }
                        let driver = Driver::new().unwrap();
                        let all =
                            driver.run(|| async { read_all(&Socket::new(ours).unwrap()).await });
                        assert_eq!(all.unwrap(), b"last");
                        sender.join().unwrap();
                    }
                }

                #[test]
                fn urgent_data_does_not_end_the_stream() {
                    let (ours, mut theirs) = tcp_pair();
                    sockopt::set_socket_oobinline(&ours, true).unwrap();
                    let sender = thread::spawn(move || {
                        for _ in 0..100 {
                            theirs.write_all(b"a").unwrap();
                            send(&theirs, b"!", SendFlags::OOB).unwrap();
                            theirs.write_all(b"z").unwrap();
                            thread::yield_now();
                        }
                    });
                    let driver = Driver::new().unwrap();
                    let all = driver.run(|| async { read_all(&Socket::new(ours).unwrap()).await });
                    assert_eq!(all.unwrap(), b"a!z".repeat(100));
                    sender.join().unwrap();
                }

                #[test]
                fn reset_wakes_a_waiting_reader() {
                    let (ours, theirs) = tcp_pair();
                    let resetter = thread::spawn(move || {
                        thread::sleep(Duration::from_millis(10));
                        sockopt::set_socket_linger(&theirs, Some(Duration::ZERO)).unwrap();
                    });
                    let driver = Driver::new().unwrap();
                    let read = driver.run(|| async {
                        let socket = Socket::new(ours).unwrap();
                        let read = |mut stream: &TcpStream| stream.read(&mut [0; 8]);
                        poll_fn(|cx| socket.poll(In, cx, read)).await
                    });
                    let error = read.unwrap().unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    resetter.join().unwrap();
                }

                #[test]
                fn reused_descriptor_wakes_its_new_owner() {
                    let driver = Driver::new().unwrap();
                    driver.run(|| async {
                        for round in 0..100 {
                            let (ours, mut theirs) = pair();
                            let socket = Socket::new(ours).unwrap();
                            assert!(poll_once(read_all(&socket)).await.is_none());
                            // What the old owner was to be told must not be lost on the new one.
                            theirs.write_all(&[round]).unwrap();
                            if round % 2 == 0 {
                                drop(theirs);
                                assert_eq!(read_all(&socket).await, [round]);
                            }
                        }
                    });
                }

                #[test]
                fn writer_is_woken_when_writable() {
                    let (ours, mut theirs) = pair();
                    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
                    let receiver = thread::spawn(move || {
                        thread::sleep(Duration::from_millis(20));
                        let mut all = Vec::new();
                        theirs.read_to_end(&mut all).unwrap();
                        all
                    });
                    let driver = Driver::new().unwrap();
                    driver.run(|| async { write_all(&Socket::new(ours).unwrap(), &bytes).await });
                    assert!(receiver.join().unwrap() == bytes);
                }

                #[test]
                fn both_directions_wait_concurrently() {
                    let (ours, theirs) = pair();
                    let bytes = vec![7; 1_000_000];
                    let driver = Driver::new().unwrap();
                    let echo = thread::spawn(move || {
                        std::io::copy(&mut &theirs, &mut &theirs).unwrap();
                    });
                    let all = driver.run(|| async {
                        let socket = Socket::new(ours).unwrap();
                        let send = async {
                            write_all(&socket, &bytes).await;
                            socket
                                .get_ref()
                                .shutdown(std::net::Shutdown::Write)
                                .unwrap();
                        };
                        futures_lite::future::zip(send, read_all(&socket)).await.1
                    });
                    assert!(all.unwrap() == bytes);
                    echo.join().unwrap();
                }

                #[test]
                fn wakes_of_other_threads_are_not_lost() {
                    let (to, from) = bounded(1);
                    let (back, answers) = bounded(1);
                    let other = thread::spawn(move || {
                        for number in 0..20_000 {
                            to.send_blocking(number).unwrap();
                            assert_eq!(answers.recv_blocking(), Ok(number));
                        }
                    });
                    let driver = Driver::new().unwrap();
                    driver.run(|| async {
                        let executor = LocalExecutor::new();
                        let answer = executor.spawn(async move {
                            while let Ok(number) = from.recv().await {
                                back.send(number).await.unwrap();
                            }
                        });
                        executor.run(answer).await;
                    });
                    other.join().unwrap();
                }

                #[test]
                fn cancelled_run_drops_its_future() {
                    let driver = Driver::new().unwrap();
                    let unparker = driver.unparker();
                    let running = thread::spawn(|| driver.run(std::future::pending::<()>));
                    thread::sleep(Duration::from_millis(10));
                    unparker.cancel();
                    assert_eq!(running.join().unwrap(), None);
                }
            }
        };
    }

    #[cfg(target_os = "linux")]
    tests_of!(epoll);
    tests_of!(portable);

    #[test]
    fn worker_returns_the_output_of_its_future() {
        let worker = WorkerThread::start("test", Duration::ZERO, || async { 7 }).unwrap();
        assert_eq!(smol::block_on(worker.finish()), Some(7));
    }

    #[test]
    fn dropped_worker_drops_its_future() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Flag(Arc::clone(&dropped));
        let work = || async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        };
        drop(WorkerThread::start("test", Duration::ZERO, work).unwrap());
        assert!(dropped.load(SeqCst));
    }
}
