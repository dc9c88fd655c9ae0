//! Random loads over a relay that loses, delays, duplicates, corrupts and breaks off at random: each
//! message that was due is in exactly one count.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use myapp::echo::{self, LoadConfig, LoadReport, Payload, RunLimit, Target};
use myapp::measure::live::LiveStats;
use myapp::measure::timeline::Bucket;
use myapp::net::address::Address;
use smol::Timer;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Reaction of a relay to a piece of a stream or a datagram.
enum Fault {
    Forward,
    Drop,
    Duplicate,
    Corrupt,
    Delay(Duration),
    Close,
}

/// Returns a fault for one piece in ten.
fn fault() -> Fault {
    match fastrand::u32(..60) {
        0 => Fault::Drop,
        1 => Fault::Duplicate,
        2 => Fault::Corrupt,
        3 | 4 => Fault::Delay(Duration::from_millis(fastrand::u64(1..30))),
        5 => Fault::Close,
        _ => Fault::Forward,
    }
}

/// Relays one direction until it ends.
fn pump(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut piece = [0; 1000];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        match fault() {
            Fault::Drop => continue,
            Fault::Duplicate => to.write_all(&piece[..count])?,
            Fault::Corrupt => piece[fastrand::usize(..count)] ^= 1 << fastrand::u8(..8),
            Fault::Delay(time) => thread::sleep(time),
            Fault::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
            Fault::Forward => {}
        }
        to.write_all(&piece[..count])?;
    }
}

/// Starts a TCP relay to a server. It ends with the tests.
fn relay_tcp(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = Arc::new(client.unwrap());
            // One connection in twenty is closed at once.
            if fastrand::u32(..20) == 0 {
                continue;
            }
            let server = Arc::new(TcpStream::connect(server).unwrap());
            for (from, to) in [(client.clone(), server.clone()), (server, client)] {
                thread::spawn(move || {
                    if pump(&from, &to).is_err() {
                        // Both fail if the other direction has closed them.
                        let _ = from.shutdown(Shutdown::Both);
                        let _ = to.shutdown(Shutdown::Both);
                    }
                });
            }
        }
    });
    address
}

/// Sends a datagram with faults, on another thread if it is delayed.
fn forward(mut datagram: Vec<u8>, send: impl Fn(&[u8]) + Send + 'static) {
    match fault() {
        Fault::Drop | Fault::Close => {}
        Fault::Delay(time) => {
            thread::spawn(move || {
                thread::sleep(time);
                send(&datagram);
            });
        }
        Fault::Duplicate => (0..2).for_each(|_| send(&datagram)),
        Fault::Corrupt => {
            let at = fastrand::usize(..datagram.len());
            datagram[at] ^= 1;
            send(&datagram);
        }
        Fault::Forward => send(&datagram),
    }
}

/// Starts a UDP relay to a server. It ends with the tests.
fn relay_udp(server: SocketAddr) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind((LOCALHOST, 0)).unwrap());
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut upstreams = HashMap::new();
        let mut buffer = [0; 2000];
        // A refusal of a client that has ended is an error.
        while let Some((len, client)) = receive(&socket, &mut buffer) {
            let upstream = upstreams.entry(client).or_insert_with(|| {
                let upstream = Arc::new(UdpSocket::bind((LOCALHOST, 0)).unwrap());
                upstream.connect(server).unwrap();
                let back = upstream.clone();
                let socket = socket.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 2000];
                    // Unused sockets of ended runs must not pile up.
                    let idle = Duration::from_secs(2);
                    back.set_read_timeout(Some(idle)).unwrap();
                    while let Ok(len) = back.recv(&mut buffer) {
                        let socket = socket.clone();
                        let send = move |datagram: &[u8]| drop(socket.send_to(datagram, client));
                        forward(buffer[..len].to_vec(), send);
                    }
                });
                upstream
            });
            let upstream = upstream.clone();
            let send = move |datagram: &[u8]| drop(upstream.send(datagram));
            forward(buffer[..len].to_vec(), send);
        }
    });
    address
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return None,
        }
    }
}

/// Starts echo servers that end with the tests, and returns the addresses of relays to them.
fn start_relays() -> [Address; 2] {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let tcp = relay_tcp(listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // A connection that the relay has closed is an error.
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let udp = relay_udp(socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Some((len, from)) = receive(&socket, &mut buffer) {
            // Refused if the run has ended.
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    [format!("{tcp}"), format!("udp://{udp}")].map(|text| text.parse().unwrap())
}

/// Returns the parameters of a short random load.
fn random_config(rng: &mut Rng, addresses: &[Address; 2]) -> LoadConfig {
    let mut millis = |range| Duration::from_millis(rng.u64(range));
    let duration = millis(20..120);
    let warmup = millis(1..30);
    let ramp_up = millis(1..30);
    let target = Target {
        timeout: millis(10..60),
        ..Target::default()
    };
    let new_connections = rng.u32(..6) == 0;
    let has_count = rng.u32(..4) == 0;
    LoadConfig {
        target: Target {
            address: addresses[rng.usize(..2)].clone(),
            ..target
        },
        payload: Payload::Generated(NonZeroU64::new(rng.u64(8..500)).unwrap()),
        connections: NonZeroU32::new(rng.u32(1..8)).unwrap(),
        limit: if has_count {
            RunLimit::Messages(rng.u64(1..200))
        } else {
            RunLimit::Duration(duration)
        },
        in_flight: NonZeroUsize::new(rng.usize(1..10)).unwrap(),
        rate: (rng.u32(..4) > 0).then(|| f64::from(rng.u32(50..5000))),
        warmup: if rng.bool() && !has_count {
            warmup
        } else {
            Duration::ZERO
        },
        ramp_up: if rng.u32(..4) == 0 {
            ramp_up
        } else {
            Duration::ZERO
        },
        new_connections,
        threads: NonZeroUsize::new(rng.usize(1..3)).unwrap(),
        ..LoadConfig::default()
    }
}

/// Returns the number of messages that must be due, if it does not depend on the replies.
fn expected_due(config: &LoadConfig) -> Option<u64> {
    match (config.limit, config.rate) {
        (RunLimit::Messages(count), _) => Some(count),
        (RunLimit::Duration(duration), Some(rate)) => {
            let before = |time: Duration| (time.as_secs_f64() * rate - 1e-6).ceil() as u64;
            Some(before(config.warmup + duration) - before(config.warmup))
        }
        _ => None,
    }
}

/// Asserts that each message is in one count.
fn assert_adds_up(config: &LoadConfig, report: &LoadReport, stopped: bool, run: &str) {
    let LoadReport {
        sent,
        answered,
        mismatched,
        timeouts,
        lost,
        failed,
        unsent,
        ..
    } = *report;
    let run = format!("{run}: {config:?}\n{report:?}");
    assert_eq!(
        sent,
        answered + mismatched + timeouts + lost + failed,
        "{run}"
    );
    assert_eq!(report.due(), sent + unsent, "{run}");
    assert_eq!(report.service.count(), answered, "{run}");
    let buckets = report.timeline.buckets();
    let sum = |count: fn(&Bucket) -> u64| buckets.iter().map(count).sum::<u64>();
    assert_eq!(sum(Bucket::count), answered, "{run}");
    assert_eq!(sum(|bucket| bucket.lost), lost, "{run}");
    let due_unsent = sum(|bucket| bucket.unsent);
    assert_eq!(report.response.count(), sent + due_unsent, "{run}");
    if stopped || matches!(config.limit, RunLimit::Duration(_)) {
        assert_eq!(due_unsent, unsent, "{run}");
    }
    if let (Some(due), false) = (expected_due(config), stopped) {
        assert_eq!(report.due(), due, "{run}");
    }
}

/// Runs random loads, one in six of them stopped early.
pub(super) fn run_random_loads(seed: u64, runs: u64) {
    let addresses = start_relays();
    let mut totals = [0; 6];
    for number in 0..runs {
        let mut rng = Rng::with_seed(seed + number);
        let config = random_config(&mut rng, &addresses);
        let stopped = rng.u32(..6) == 0;
        let after = Duration::from_millis(rng.u64(1..80));
        let stop = async {
            if stopped {
                Timer::after(after).await;
            } else {
                smol::future::pending().await
            }
        };
        let live = LiveStats::default();
        let report = smol::block_on(echo::load(&config, stop, &live)).unwrap();
        assert_adds_up(
            &config,
            &report,
            stopped,
            &format!("seed {}", seed + number),
        );
        let LoadReport {
            answered,
            mismatched,
            timeouts,
            lost,
            failed,
            unsent,
            ..
        } = report;
        let counts = [answered, mismatched, timeouts, lost, failed, unsent];
        totals
            .iter_mut()
            .zip(counts)
            .for_each(|(total, count)| *total += count);
    }
    println!(
        "seed {seed}, {runs} runs: answered, mismatched, timed out, lost, failed, unsent: {totals:?}"
    );
    assert!(totals.iter().all(|total| *total > 0), "{totals:?}");
}

#[test]
#[ignore = "slow: 50 random loads"]
fn counts_of_random_loads_add_up() {
    run_random_loads(fastrand::u64(..1 << 60), 50);
}
