//! Load: the same message again and again over many connections.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use async_net::TcpStream;
use futures_lite::future;
use rustix::time::{ClockId, Timespec, clock_gettime};
use smol::{LocalExecutor, Timer};

use crate::echo::config::{Length, LoadConfig};
use crate::echo::flow::{Event, Flow, Rules, Scratch};
use crate::echo::meter::Meter;
use crate::echo::open;
use crate::echo::pace::{Pace, Turn};
use crate::echo::report::LoadReport;
use crate::limits::backoff::Backoff;
use crate::measure::live::Live;

/// The longest wait after the first connection in a row that came to nothing, and after later
/// ones.
const FAILED_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// After so many in a row that came to nothing no other takes their place.
const GIVE_UP: u32 = 10;

/// What a longer time counts as: a moment in the future must have a place in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends the same message again and again over many connections, until all are sent, the time is
/// over, or `stop` is done; then tells how it went. `live` has the latest figures meanwhile, the
/// warm-up not counted.
///
/// Each connection has a schedule of its own when a rate is asked, and a message that the server
/// holds up does not move those behind it: its response time counts from when it was due. At the
/// end of the time nothing more is sent, and the replies on the way are waited for. A connection
/// on which something fails is closed, and another takes its place; one that cannot be opened at
/// all, or fails ten times in a row, is given up.
///
/// All connections run on the thread that polls this.
///
/// # Cancel safety
///
/// When this is dropped halfway, all connections are closed and the report is lost. `stop` is the
/// way to end it early.
pub async fn load(config: &LoadConfig, stop: impl Future<Output = ()>, live: &Live) -> LoadReport {
    let (start, cpu) = (Instant::now(), cpu_time());
    let measured_from = start + config.warmup.min(LONGEST);
    let end = match config.length {
        Length::Time(time) => Some(measured_from + time.min(LONGEST)),
        Length::Count(_) => None,
    };
    let meter = RefCell::new(Meter::new(measured_from, live.clone()));
    let load = Load { config, start, end, meter, scratch: RefCell::default() };
    load.run(stop).await;
    let mut report = load.meter.into_inner().into_report();
    let (now, last) = (Instant::now(), report.last_answer.unwrap_or(start));
    let until = end.map_or(now, |end| now.min(end).max(last));
    report.elapsed = until.saturating_duration_since(measured_from);
    report.cpu = cpu_time().saturating_sub(cpu).as_secs_f64() / (now - start).as_secs_f64();
    report
}

/// The processor time that this thread has used.
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), tv_nsec.try_into().unwrap_or(0))
}

/// What all connections share.
struct Load<'a> {
    config: &'a LoadConfig,
    start: Instant,
    end: Option<Instant>,
    meter: RefCell<Meter>,
    scratch: RefCell<Scratch>,
}

impl Load<'_> {
    async fn run(&self, stop: impl Future<Output = ()>) {
        let executor = LocalExecutor::new();
        let connections = 0..self.config.connections.get();
        let all: Vec<_> = connections.map(|index| executor.spawn(self.drive(index))).collect();
        let work = async {
            for connection in all {
                connection.await;
            }
        };
        executor.run(future::or(stop, work)).await;
    }

    /// Keeps one connection busy, whichever take its place.
    async fn drive(&self, index: u32) {
        let LoadConfig { connections, new_connections, ramp_up, .. } = *self.config;
        let share = f64::from(index) / f64::from(connections.get());
        let opening = self.start + ramp_up.min(LONGEST).mul_f64(share);
        Timer::at(self.end.map_or(opening, |end| end.min(opening))).await;
        let mut pace = self.pace(index, Instant::now());
        let (mut opened, mut failures, mut backoff) = (false, 0, backoff());
        loop {
            match pace.turn(Instant::now()) {
                Turn::Over => return,
                Turn::At(due) if opened || new_connections => _ = Timer::at(due).await,
                _ => {}
            }
            let (open, of_use) = self.connect(index, &mut pace, opened).await;
            opened |= open;
            if of_use {
                (failures, backoff) = (0, self::backoff());
                continue;
            }
            failures += 1;
            if !opened || failures == GIVE_UP {
                return;
            }
            Timer::after(backoff.next_delay()).await;
        }
    }

    /// Opens a connection and sends over it until nothing is left to send or it fails; tells
    /// whether it was open, and whether it was of use: all went well, or something was answered.
    async fn connect(&self, index: u32, pace: &mut Pace, again: bool) -> (bool, bool) {
        let LoadConfig { server, payload, verify, in_flight, new_connections, .. } = self.config;
        if *new_connections && self.config.rate.is_none() {
            // The next message is due when its connection is begun: that belongs to its response.
            pace.start = Instant::now();
        }
        let Some(stream) = self.open().await else {
            pace.take();
            return (false, false);
        };
        // A schedule starts when its connection is there, unless connecting is what is timed.
        if !again && !new_connections {
            *pace = self.pace(index, Instant::now());
        }
        let (in_flight, most) = match new_connections {
            true => (1, 1),
            false => (in_flight.get(), u64::MAX),
        };
        let rules = Rules { server, payload, verify: *verify, in_flight };
        let mut flow = Flow::new(stream, rules, u64::from(index) + 1);
        let mut answers = false;
        let told = |event| {
            answers |= matches!(event, Event::Answered { .. });
            self.meter.borrow_mut().count(event);
        };
        match flow.run(pace, most, &self.scratch, told).await {
            Ok(()) => (true, true),
            Err(error) => {
                self.meter.borrow_mut().fail(error);
                (true, answers)
            }
        }
    }

    /// Connects, and counts how long it took or that it failed.
    async fn open(&self) -> Option<TcpStream> {
        let start = Instant::now();
        match open(&self.config.server).await {
            Ok(stream) => {
                self.meter.borrow_mut().connected(start);
                Some(stream)
            }
            Err(error) => {
                self.meter.borrow_mut().fail(error.into());
                None
            }
        }
    }

    /// The schedule of a connection.
    fn pace(&self, index: u32, now: Instant) -> Pace {
        let connections = self.config.connections.get();
        // The time that so many messages take at the rate that is asked.
        let time = |messages: u32| {
            let seconds = self.config.rate.map(|rate| f64::from(messages) / rate);
            seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or(LONGEST).min(LONGEST))
        };
        let left = match self.config.length {
            Length::Time(_) => u64::MAX,
            Length::Count(count) => {
                let (each, more) = (count / u64::from(connections), count % u64::from(connections));
                each + u64::from(u64::from(index) < more)
            }
        };
        let at_once = self.config.new_connections.then_some(Duration::ZERO);
        let start = now + time(index).unwrap_or_default();
        Pace { start, every: time(connections).or(at_once), end: self.end, left }
    }
}

fn backoff() -> Backoff {
    Backoff::new(FAILED_DELAY.0, FAILED_DELAY.1)
}
