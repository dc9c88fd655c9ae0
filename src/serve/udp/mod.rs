//! UDP service: each datagram is one message in every mode.

pub(super) mod loop_guard;

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
use crate::serve::context::WorkerContext;
use crate::serve::fault::handle::WorkerFaults;
use crate::serve::fault::udp::{DatagramQueue, Reply};
use crate::serve::traffic_log::{TRAFFIC, trim_newline};
use crate::serve::udp::loop_guard::LoopGuard;
use crate::serve::whoami;

/// Datagrams in a row before the socket yields to others.
const MAX_DATAGRAMS_PER_POLL: usize = 16;

/// Time limit for sending a reply while the send buffer is full; then it is dropped.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Delay after a receive error that does not concern a single datagram.
const RECEIVE_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Time limit for receiving when the server drains. A flood would never end by itself; later
/// datagrams are treated as sent to a closed socket.
const DRAIN_RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time without datagrams after which a burst has ended, when the server drains.
const QUIET_PERIOD: Duration = Duration::from_millis(250);

/// Task that replies to the datagrams of one socket.
#[derive(Debug)]
pub(super) struct UdpResponder {
    socket: UdpServerSocket,
    context: Rc<WorkerContext>,
    loop_guard: Arc<LoopGuard>,
    draining: Shutdown,
    buffer: Box<[u8]>,
    /// With fault injection, the replies to be sent later.
    queue: DatagramQueue<PacketInfo>,
}

/// Reason why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Acl,
    Loop,
    TooLong,
}

/// Next event of the task.
enum Event {
    /// The socket may be readable.
    Readable,
    /// A delayed reply is due.
    ReplyDue,
    /// The server drains.
    Drain,
}

impl UdpResponder {
    pub(super) fn new(
        socket: UdpServerSocket,
        context: Rc<WorkerContext>,
        loop_guard: Arc<LoopGuard>,
        draining: Shutdown,
    ) -> Self {
        Self {
            socket,
            context,
            loop_guard,
            draining,
            buffer: vec![0; MAX_DATAGRAM_LEN].into(),
            queue: DatagramQueue::new(),
        }
    }

    /// Replies until the server drains, then to the datagrams queued in the kernel.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket and drops its queue.
    pub(super) async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Readable => _ = self.receive_batch().await,
                Event::ReplyDue => self.send_due().await,
                Event::Drain => break,
            }
        }
        self.drain().await;
    }

    /// Replies to the datagrams queued in the kernel. If they were more than a batch, more may be
    /// on their way.
    async fn drain(&mut self) {
        let mut time_left = DRAIN_RECEIVE_TIMEOUT;
        let mut quiet_period = Duration::ZERO;
        while !time_left.is_zero() {
            let start = Instant::now();
            if self.receive_batch().await {
                quiet_period = QUIET_PERIOD;
            } else if self.queue.is_full() {
                // Only receiving is limited: delays may be longer.
                self.send_next().await;
                continue;
            } else if !self.readable_within(quiet_period).await {
                break;
            }
            time_left = time_left.saturating_sub(start.elapsed());
        }
        while self.queue.next_due().is_some() {
            self.send_next().await;
        }
    }

    async fn readable_within(&self, limit: Duration) -> bool {
        if limit.is_zero() {
            return false;
        }
        let readable = race(Timer::after(limit), self.socket.readable());
        matches!(readable.await, Ok(Ok(())))
    }

    /// Waits until the next delayed replies are due, and sends some of them.
    async fn send_next(&mut self) {
        if let Some(due) = self.queue.next_due() {
            Timer::at(due).await;
            self.send_due().await;
        }
    }

    async fn next_event(&self) -> Event {
        let drain = async {
            self.draining.wait().await;
            Event::Drain
        };
        let reply_due = async {
            match self.queue.next_due() {
                Some(due) => drop(Timer::at(due).await),
                None => future::pending().await,
            }
            Event::ReplyDue
        };
        let readable = async {
            if self.queue.is_full() {
                return future::pending().await;
            }
            // The next receive reports the error.
            let _ = self.socket.readable().await;
            Event::Readable
        };
        future::or(drain, future::or(reply_due, readable)).await
    }

    /// Processes some datagrams, and returns whether there may be more.
    async fn receive_batch(&mut self) -> bool {
        for _ in 0..MAX_DATAGRAMS_PER_POLL {
            if self.queue.is_full() {
                return false;
            }
            match self.receive().await {
                Ok(None) => return false,
                Ok(Some((length, origin))) => self.process_datagram(length, origin).await,
                // A previous reply was not delivered; the socket itself works.
                Err(error) if is_icmp_error(&error) => {}
                Err(error) => self.back_off(&error).await,
            }
        }
        yield_to_other_sockets().await;
        true
    }

    /// Receives a datagram into the buffer, if one is queued.
    async fn receive(&mut self) -> io::Result<Option<(usize, PacketInfo)>> {
        let Self { socket, buffer, .. } = self;
        future::poll_once(poll_fn(|cx| socket.poll_receive(cx, buffer)))
            .await
            .transpose()
    }

    async fn back_off(&self, error: &io::Error) {
        if self.context.access.accept_error_log.allow(Instant::now()) {
            let address = self.socket.local_addr();
            warn!(%address, error = %ErrorChain(error), "receive failed, retrying");
        }
        Timer::after(RECEIVE_RETRY_DELAY).await;
    }

    /// Replies to the datagram in the buffer, or drops it.
    async fn process_datagram(&mut self, length: usize, origin: PacketInfo) {
        if let Err(refusal) = self.admit(length, &origin) {
            return self.refuse(refusal, length, &origin);
        }
        let number = self.record_message(length, &origin);
        let start = self.context.sampler.is_due().then(Instant::now);
        self.reply(length, origin, number).await;
        if let Some(start) = start {
            self.context.traffic.handling.record(start.elapsed());
        }
    }

    /// Sends or queues the reply to the datagram in the buffer.
    async fn reply(&mut self, length: usize, origin: PacketInfo, number: u64) {
        let whoami = self.context.is_whoami.then(|| {
            let local = self.socket.destination(&origin);
            whoami::datagram_reply(number, origin.peer, local)
        });
        let message = whoami.as_deref().unwrap_or(&self.buffer[..length]);
        let reply = [self.context.framing.prefix(), message];
        let faults = self.context.faults.as_ref();
        if let Some(faults) = faults.and_then(WorkerFaults::active) {
            let reply = Reply {
                peer: origin.peer,
                target: origin,
                bytes: reply.concat(),
            };
            let counters = &self.context.stats.faults;
            self.queue
                .enqueue(&faults, Instant::now(), number, reply, counters);
        } else if self.context.framing.replies() {
            self.send(reply, &origin).await;
        }
    }

    fn admit(&self, length: usize, origin: &PacketInfo) -> Result<(), Refusal> {
        if !self.context.access.is_allowed(origin.peer.ip()) {
            Err(Refusal::Acl)
        } else if origin.ttl_exhausted()
            || self.loop_guard.refuses(origin.peer)
            || self.is_own_reply(&self.buffer[..length])
        {
            Err(Refusal::Loop)
        } else if length > self.context.max_datagram {
            Err(Refusal::TooLong)
        } else {
            Ok(())
        }
    }

    /// Returns whether a datagram begins with the prefix of the replies, or like a reply that
    /// describes a datagram. Another such server would send a reply, in the first case longer each
    /// time.
    fn is_own_reply(&self, message: &[u8]) -> bool {
        let prefix = self.context.framing.prefix();
        if self.context.is_whoami && whoami::is_datagram_reply(message) {
            return true;
        }
        !prefix.is_empty() && self.context.framing.replies() && message.starts_with(prefix)
    }

    fn refuse(&self, refusal: Refusal, bytes: usize, origin: &PacketInfo) {
        let counters = &self.context.stats.datagrams;
        let (counter, reason) = match refusal {
            Refusal::Acl => (&counters.refused_acl, "acl"),
            Refusal::Loop => (&counters.loops_suppressed, "loops_suppressed"),
            Refusal::TooLong => (&counters.too_long, "too_long"),
        };
        counter.fetch_add(1, Relaxed);
        info!(target: TRAFFIC, peer = %Peer::from(origin.peer), bytes, reason, "dropped");
    }

    /// Counts the message, and returns the number of datagrams before it.
    fn record_message(&self, bytes: usize, origin: &PacketInfo) -> u64 {
        let stats = &self.context.stats;
        self.context.traffic.add_messages(1);
        self.context.traffic.add_received(bytes);
        let text = trim_newline(&self.buffer[..bytes]);
        info!(target: TRAFFIC, peer = %Peer::from(origin.peer), bytes, %text, "received");
        stats.datagrams.received.fetch_add(1, Relaxed)
    }

    /// Sends some of the delayed replies that are due.
    async fn send_due(&mut self) {
        for _ in 0..MAX_DATAGRAMS_PER_POLL {
            let Some(reply) = self.queue.pop_due(Instant::now()) else {
                return;
            };
            self.send([&[], &reply.bytes], &reply.target).await;
        }
        yield_to_other_sockets().await;
    }

    /// Sends a reply. A failure is only counted, as UDP does not guarantee delivery.
    async fn send(&self, parts: [&[u8]; 2], origin: &PacketInfo) {
        let slices = parts.map(IoSlice::new);
        let send = poll_fn(|cx| self.socket.poll_send(cx, &slices, origin));
        let result = race(Timer::after(SEND_TIMEOUT), send).await;
        match result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(count) => self.context.traffic.add_sent(count),
            Err(error) => {
                let counters = &self.context.stats.datagrams;
                counters.send_errors.fetch_add(1, Relaxed);
                let peer = Peer::from(origin.peer);
                info!(target: TRAFFIC, %peer, error = %ErrorChain(&error), "send failed");
            }
        }
    }
}

/// Yields until the reactor has polled all other sockets.
async fn yield_to_other_sockets() {
    let mut yielded = false;
    poll_fn(|cx| {
        if replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        yield_to_reactor(cx);
        Poll::Pending
    })
    .await;
}

/// Returns whether an error reports the fate of an earlier datagram, by ICMP.
fn is_icmp_error(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, UdpSocket};
    use std::num::NonZeroUsize;

    use rustix::net::sockopt;
    use smol::LocalExecutor;

    use crate::limits::semaphore::Semaphore;
    use crate::limits::shutdown;
    use crate::net::address::Address;
    use crate::runtime::Driver;
    use crate::serve::access::AccessControl;
    use crate::serve::config::{Config, FaultInjection};
    use crate::serve::fault::handle::Faults;
    use crate::serve::stats::{Datagrams, ServerStats};

    fn responder(
        socket: UdpSocket,
        config: Config,
        own: &[Address],
        stats: &Arc<ServerStats>,
        draining: &Shutdown,
    ) -> UdpResponder {
        let access = Arc::new(AccessControl::new(&config));
        let permits = Semaphore::new(NonZeroUsize::MIN);
        let traffic = stats.traffic().next().unwrap();
        let faults = config.fault_injection.clone();
        let faults = faults.map(|faults| Faults::new(faults, Arc::clone(stats)).unwrap());
        let stats = Arc::clone(stats);
        let context = WorkerContext::new(&config, stats, traffic, access, permits, faults);
        let context = Rc::new(context);
        let loop_guard = Arc::new(LoopGuard::new(own));
        let socket = UdpServerSocket::new(socket.try_into().unwrap()).unwrap();
        UdpResponder::new(socket, context, loop_guard, draining.clone())
    }

    /// Starts a reply loop between two servers with a spoofed datagram, and returns the counters
    /// once it is suppressed. The datagram has the maximum hop limit. The servers know only their
    /// own addresses, or those of both.
    fn run_loop(at: &str, config: &Config, shared_addresses: bool) -> Datagrams {
        let sockets = [(); 2].map(|()| UdpSocket::bind(at).unwrap());
        let addresses = sockets
            .each_ref()
            .map(|socket| socket.local_addr().unwrap());
        let own = addresses.map(|address| Address::Udp(address.into()));
        let spoofed = sockets[0].try_clone().unwrap();
        let stats = Arc::new(ServerStats::new(NonZeroUsize::MIN));
        let servers = async {
            let executor = LocalExecutor::new();
            let (_trigger, draining) = shutdown::channel();
            for (index, socket) in sockets.into_iter().enumerate() {
                let own = if shared_addresses {
                    &own[..]
                } else {
                    &own[index..=index]
                };
                executor
                    .spawn(responder(socket, config.clone(), own, &stats, &draining).run())
                    .detach();
            }
            send_with_max_hops(&spoofed, b"loop", addresses[1]);
            let suppressed = async {
                while stats.datagrams.loops_suppressed.load(Relaxed) == 0 {
                    Timer::after(Duration::from_millis(1)).await;
                }
            };
            executor
                .run(race(Timer::after(Duration::from_secs(10)), suppressed))
                .await
                .unwrap();
        };
        Driver::new().unwrap().run(|| servers).unwrap();
        stats.summary().datagrams
    }

    fn send_with_max_hops(socket: &UdpSocket, message: &[u8], to: SocketAddr) {
        if to.is_ipv4() {
            sockopt::set_ip_ttl(socket, 255).unwrap();
        } else {
            sockopt::set_ipv6_unicast_hops(socket, Some(255)).unwrap();
        }
        socket.send_to(message, to).unwrap();
    }

    #[test]
    fn addresses_of_one_server_do_not_loop() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let expected = Datagrams {
                loops_suppressed: 1,
                ..Datagrams::default()
            };
            assert_eq!(run_loop(at, &Config::default(), true), expected);
        }
    }

    #[test]
    fn loop_between_two_servers_is_suppressed() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let counted = run_loop(at, &Config::default(), false);
            assert_eq!((counted.loops_suppressed, counted.send_errors), (1, 0));
            // The datagram itself, and replies with hop limits from 32 to 2.
            assert_eq!(counted.received, 32);
        }
    }

    #[test]
    fn reply_with_own_prefix_gets_no_reply() {
        let prefix = b"> ".to_vec();
        let plain = Config {
            prefix: prefix.clone(),
            ..Config::default()
        };
        let faulty = Config {
            fault_injection: Some(FaultInjection::default()),
            ..plain.clone()
        };
        for config in [plain, faulty] {
            let counted = run_loop("127.0.0.1:0", &config, false);
            let expected = Datagrams {
                received: 1,
                loops_suppressed: 1,
                ..Datagrams::default()
            };
            assert_eq!(counted, expected);
        }
    }
}
