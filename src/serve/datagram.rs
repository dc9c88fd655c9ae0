//! Answers datagrams, each of which is one message in every mode.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::replace;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future;
use tracing::{info, warn};

use crate::error_chain::ErrorChain;
use crate::limits::shutdown::Shutdown;
use crate::limits::timeout::race;
use crate::net::stream::Peer;
use crate::net::udp::{MAX_DATAGRAM_LEN, PacketInfo, UdpServerSocket};
use crate::runtime::{Timer, yield_to_reactor};
use crate::serve::guard::Guard;
use crate::serve::late_datagrams::LateDatagrams;
use crate::serve::shard::Shared;
use crate::serve::visit::{TRAFFIC, without_end};

/// Datagrams in a row before others have their turn.
const TURNS: usize = 16;

/// How long an answer waits for room in the system before it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait after an error that is not about one datagram.
const PAUSE: Duration = Duration::from_millis(100);

/// How long datagrams that wait are answered at the end. A flood would have no end of its own.
const FLOOD: Duration = Duration::from_secs(1);

/// What answers the datagrams of one socket.
#[derive(Debug)]
pub(super) struct Answerer {
    socket: UdpServerSocket,
    shared: Rc<Shared>,
    guard: Arc<Guard>,
    draining: Shutdown,
    buffer: Box<[u8]>,
    /// With faults, the answers that wait for their time.
    late: Option<LateDatagrams<PacketInfo>>,
}

/// Why a datagram is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Denied,
    Loop,
    TooLong,
}

/// What there is to do next.
enum Next {
    /// A datagram may wait.
    Receive,
    /// The time of an answer has come.
    Send,
    /// The server drains.
    Drain,
}

impl Answerer {
    /// Starts to answer what comes to `socket`.
    pub(super) fn new(
        socket: UdpServerSocket,
        shared: Rc<Shared>,
        guard: Arc<Guard>,
        draining: Shutdown,
    ) -> Self {
        let late = shared
            .faults
            .as_ref()
            .map(|(faults, _)| LateDatagrams::new(faults));
        let buffer = vec![0; MAX_DATAGRAM_LEN].into();
        Self {
            socket,
            shared,
            guard,
            draining,
            buffer,
            late,
        }
    }

    /// Answers until the server drains, and then what waits already.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the socket is closed with what waits.
    pub(super) async fn run(mut self) {
        loop {
            match self.next().await {
                Next::Receive => _ = self.receive_some().await,
                Next::Send => self.send_due().await,
                Next::Drain => break,
            }
        }
        let rest = async { while self.receive_some().await {} };
        // Whether all could be read in time or not: what comes now comes to a closed server.
        let _ = race(Timer::after(FLOOD), rest).await;
        while let Some(due) = self.next_due() {
            Timer::at(due).await;
            self.send_due().await;
        }
    }

    async fn next(&self) -> Next {
        let drain = async {
            self.draining.wait().await;
            Next::Drain
        };
        let send = async {
            match self.next_due() {
                Some(due) => drop(Timer::at(due).await),
                None => future::pending().await,
            }
            Next::Send
        };
        let receive = async {
            if self.is_full() {
                return future::pending().await;
            }
            // What is wrong with the socket is told by an attempt to receive from it.
            let _ = self.socket.readable().await;
            Next::Receive
        };
        future::or(drain, future::or(send, receive)).await
    }

    fn next_due(&self) -> Option<Instant> {
        self.late.as_ref().and_then(LateDatagrams::next_due)
    }

    fn is_full(&self) -> bool {
        self.late.as_ref().is_some_and(LateDatagrams::is_full)
    }

    /// Answers some of what waits, and tells whether more may be taken.
    async fn receive_some(&mut self) -> bool {
        for _ in 0..TURNS {
            if self.is_full() {
                return false;
            }
            match self.receive().await {
                Ok(None) => return false,
                Ok(Some((length, origin))) => self.take_in(length, origin).await,
                // What was sent before has not arrived; that says nothing about what comes.
                Err(error) if is_undelivered(&error) => {}
                Err(error) => self.pause(&error).await,
            }
        }
        others_first().await;
        true
    }

    /// Takes a datagram into the buffer, if one waits.
    async fn receive(&mut self) -> io::Result<Option<(usize, PacketInfo)>> {
        let Self { socket, buffer, .. } = self;
        future::poll_once(poll_fn(|cx| socket.poll_receive(cx, buffer)))
            .await
            .transpose()
    }

    async fn pause(&self, error: &io::Error) {
        if self.shared.admission.complaints.allow(Instant::now()) {
            let address = self.socket.local_addr();
            warn!(%address, error = %ErrorChain(error), "cannot receive datagrams, trying again");
        }
        Timer::after(PAUSE).await;
    }

    /// Answers the datagram in the buffer, or says why not.
    async fn take_in(&mut self, length: usize, origin: PacketInfo) {
        if let Err(refusal) = self.admit(length, &origin) {
            return self.refuse(refusal, length, &origin);
        }
        let number = self.note_message(length, &origin);
        let message = &self.buffer[..length];
        if let (Some(late), Some((_, prefix))) = (&mut self.late, &self.shared.faults) {
            let answer = [prefix, message].concat();
            if !late.put_off(Instant::now(), number, origin, answer) {
                self.shared.figures.lost.fetch_add(1, Relaxed);
            }
        } else if self.shared.framing.answers() {
            self.send([self.shared.framing.prefix(), message], &origin)
                .await;
        }
    }

    fn admit(&self, length: usize, origin: &PacketInfo) -> Result<(), Refusal> {
        if !self.shared.admission.is_allowed(origin.peer.ip()) {
            Err(Refusal::Denied)
        } else if origin.ttl_exhausted() || self.guard.refuses(origin.peer) {
            Err(Refusal::Loop)
        } else if length > self.shared.udp_max {
            Err(Refusal::TooLong)
        } else {
            Ok(())
        }
    }

    fn refuse(&self, refusal: Refusal, bytes: usize, origin: &PacketInfo) {
        let figures = &self.shared.figures.datagrams;
        let (counter, why) = match refusal {
            Refusal::Denied => (&figures.denied, "its address may not ask"),
            Refusal::Loop => (&figures.looped, "the answer would be answered"),
            Refusal::TooLong => (&figures.too_long, "longer than a datagram may be"),
        };
        counter.fetch_add(1, Relaxed);
        info!(target: TRAFFIC, peer = %Peer::from(origin.peer), bytes, why, "not answered");
    }

    /// Counts the message, and returns how many datagrams came before it.
    fn note_message(&self, bytes: usize, origin: &PacketInfo) -> u64 {
        let figures = &self.shared.figures;
        self.shared.traffic.add_messages(1);
        self.shared.traffic.add_received(bytes);
        let text = without_end(&self.buffer[..bytes]);
        info!(target: TRAFFIC, peer = %Peer::from(origin.peer), bytes, %text, "received");
        figures.datagrams.taken.fetch_add(1, Relaxed)
    }

    /// Sends some of the answers whose time has come.
    async fn send_due(&mut self) {
        for _ in 0..TURNS {
            let late = self
                .late
                .as_mut()
                .and_then(|late| late.take(Instant::now()));
            let Some((origin, answer)) = late else { return };
            self.send([&[], &answer], &origin).await;
        }
        others_first().await;
    }

    /// Sends an answer; one that cannot be sent is lost, as any datagram may be.
    async fn send(&self, pieces: [&[u8]; 2], origin: &PacketInfo) {
        let pieces = pieces.map(IoSlice::new);
        let send = poll_fn(|cx| self.socket.poll_send(cx, &pieces, origin));
        let sent = race(Timer::after(PATIENCE), send).await;
        match sent.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(count) => self.shared.traffic.add_sent(count),
            Err(error) => {
                self.shared.figures.datagrams.unsent.fetch_add(1, Relaxed);
                info!(target: TRAFFIC, peer = %Peer::from(origin.peer), error = %ErrorChain(&error), "cannot answer");
            }
        }
    }
}

/// Lets all other sockets be looked at.
async fn others_first() {
    let mut looked_at = false;
    poll_fn(|cx| match replace(&mut looked_at, true) {
        true => Poll::Ready(()),
        false => {
            yield_to_reactor(cx);
            Poll::Pending
        }
    })
    .await;
}

/// Whether an error tells what has become of something that was sent before.
fn is_undelivered(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::num::NonZeroUsize;

    use smol::LocalExecutor;

    use crate::limits::semaphore::Semaphore;
    use crate::limits::shutdown;
    use crate::net::address::Address;
    use crate::runtime::Driver;
    use crate::serve::admission::Admission;
    use crate::serve::config::Config;
    use crate::serve::stats::{Datagrams as Counted, Figures};

    fn answerer(
        socket: UdpSocket,
        own: &[Address],
        figures: &Arc<Figures>,
        draining: &Shutdown,
    ) -> Answerer {
        let config = Config::default();
        let admission = Arc::new(Admission::new(&config));
        let permits = Semaphore::new(NonZeroUsize::MIN);
        let traffic = figures.traffic().next().unwrap();
        let figures = Arc::clone(figures);
        let shared = Rc::new(Shared::new(&config, figures, traffic, admission, permits));
        let guard = Arc::new(Guard::new(own));
        let socket = UdpServerSocket::new(socket.try_into().unwrap()).unwrap();
        Answerer::new(socket, shared, guard, draining.clone())
    }

    /// What two servers do that are made to answer each other, by a datagram that claims to be of
    /// the first, until one of them notices. Each knows itself alone, or both know both.
    fn circle(at: &str, together: bool) -> Counted {
        let sockets = [(); 2].map(|()| UdpSocket::bind(at).unwrap());
        let addresses = sockets
            .each_ref()
            .map(|socket| socket.local_addr().unwrap());
        let own = addresses.map(|address| Address::Udp(address.into()));
        let claiming = sockets[0].try_clone().unwrap();
        let figures = Arc::new(Figures::new(NonZeroUsize::MIN));
        let servers = async {
            let executor = LocalExecutor::new();
            let (_stopper, draining) = shutdown::channel();
            for (at, socket) in sockets.into_iter().enumerate() {
                let own = if together { &own[..] } else { &own[at..=at] };
                executor
                    .spawn(answerer(socket, own, &figures, &draining).run())
                    .detach();
            }
            claiming.send_to(b"round and round", addresses[1]).unwrap();
            let noticed = async {
                while figures.datagrams.looped.load(Relaxed) == 0 {
                    Timer::after(Duration::from_millis(1)).await;
                }
            };
            executor
                .run(race(Timer::after(Duration::from_secs(10)), noticed))
                .await
                .unwrap();
        };
        Driver::new().unwrap().run(|| servers).unwrap();
        figures.summary().datagrams
    }

    #[test]
    fn two_addresses_of_one_server_do_not_answer_each_other() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let counted = Counted {
                looped: 1,
                ..Counted::default()
            };
            assert_eq!(circle(at, true), counted);
        }
    }

    #[test]
    fn two_servers_do_not_answer_each_other_for_ever() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let counted = circle(at, false);
            assert_eq!((counted.looped, counted.unsent), (1, 0));
            assert!((1..255).contains(&counted.taken), "{counted:?}");
        }
    }
}
