//! Percentiles of a load compared with an independent truth.
//!
//! A server of the standard library logs when it received each message and when it had sent the
//! reply. Message `i` was due at `start + i / rate`, so the log gives each response time without any
//! code of the client. The start is the earliest one that the log permits: it differs from the true
//! one by the time that the fastest message took to arrive. The response times are sorted, and a
//! percentile is the sample at its rank. A client of the standard library confirms the method.
//!
//! The percentiles must agree within 2 % or 1 ms. On a busy machine the client may receive a reply
//! some milliseconds after the server has sent it. Therefore a run that differs is repeated: an error
//! of the client is in every run, a delay by the scheduler is not.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::accounting::assert_adds_up;
use crate::harness::{Program, myapp, schema, until};

/// Runs of a comparison, one of which must agree.
const MAX_RUNS: usize = 5;

/// Length of a message.
const SIZE: usize = 64;

/// Percentiles that are compared, with their names in the report.
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];

const NOW: Action = Action::Reply(Duration::ZERO);

/// Reaction of the server to a message.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Reply after this time, in which nothing more of this connection is read.
    Reply(Duration),
    /// Never reply, and wait until the client closes the connection.
    Ignore,
    /// Close the connection, and listen again after this time.
    GoAway(Duration),
}

/// Times of a message at the server.
#[derive(Debug, Clone, Copy)]
struct Entry {
    received: Instant,
    /// Time at which the reply had been sent or the connection was closed.
    ended: Option<Instant>,
}

/// The server. Its threads end with the tests.
struct TruthServer {
    port: u16,
    /// For each connection of the client, in the order of their first messages, the messages.
    logs: Arc<Mutex<Vec<Vec<Entry>>>>,
}

impl TruthServer {
    /// Starts a server for one connection of a client and its replacements. `behave` gets the number
    /// of each message, counted from 0.
    fn start(behave: impl Fn(usize) -> Action + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logs = Arc::new(Mutex::new(vec![Vec::new()]));
        let shared = logs.clone();
        thread::spawn(move || {
            let mut listener = Some(listener);
            loop {
                let open = listener.get_or_insert_with(|| {
                    TcpListener::bind(("127.0.0.1", port)).expect("listen again")
                });
                let (stream, _) = open.accept().unwrap();
                // An error is the end of the connection.
                if let Ok(Some(away)) = serve(stream, &shared, 0, &behave) {
                    listener = None;
                    thread::sleep(away);
                }
            }
        });
        Self { port, logs }
    }

    /// Starts a server for connections that are not replaced. `behave` gets the number of each
    /// message of a connection.
    fn start_many(behave: impl Fn(usize) -> Action + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logs = Arc::new(Mutex::new(Vec::new()));
        let shared = logs.clone();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                shared.lock().unwrap().push(Vec::new());
                let logs = shared.clone();
                let behave = behave.clone();
                thread::spawn(move || serve(stream.unwrap(), &logs, index, &behave));
            }
        });
        Self { port, logs }
    }

    /// Returns a load of one thread.
    fn load(&self, arguments: &str) -> Program {
        let address = format!("127.0.0.1:{}", self.port);
        let fixed = ["echo", "-q", "-c", &address, "--threads", "1", "--json"];
        myapp(fixed.into_iter().chain(arguments.split(' ')))
    }

    fn has_received(&self, count: usize) -> bool {
        let logs = self.logs.lock().unwrap();
        logs.iter().map(Vec::len).sum::<usize>() >= count
    }
}

/// Serves one connection. Returns for how long the server goes away, if it does.
fn serve(
    mut stream: TcpStream,
    logs: &Mutex<Vec<Vec<Entry>>>,
    index: usize,
    behave: &impl Fn(usize) -> Action,
) -> io::Result<Option<Duration>> {
    stream.set_nodelay(true)?;
    let mut message = [0; SIZE];
    loop {
        stream.read_exact(&mut message)?;
        let received = Instant::now();
        let log = |update: &dyn Fn(&mut Vec<Entry>)| update(&mut logs.lock().unwrap()[index]);
        log(&|log| {
            log.push(Entry {
                received,
                ended: None,
            });
        });
        let number = logs.lock().unwrap()[index].len() - 1;
        let action = behave(number);
        let end = || log(&|log| log[number].ended = Some(Instant::now()));
        match action {
            Action::Reply(delay) => {
                thread::sleep(delay);
                // Before the write, after which the client may end and the log be read.
                end();
                stream.write_all(&message)?;
            }
            Action::Ignore => return stream.read_exact(&mut [0]).map(|()| None),
            Action::GoAway(away) => {
                end();
                drop(stream.shutdown(std::net::Shutdown::Both));
                return Ok(Some(away));
            }
        }
    }
}

/// Schedule and limits of a load.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rate: f64,
    seconds: f64,
    timeout: f64,
}

impl Plan {
    fn due(&self, start: Instant, number: usize) -> Instant {
        start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Returns the sorted response times in seconds. `interrupted` is the time of Ctrl-C.
    fn truth(&self, server: &TruthServer, interrupted: Option<Instant>) -> Vec<f64> {
        let mut logs = server.logs.lock().unwrap().clone();
        let connections = logs.len() as f64;
        let seconds = |time: f64| Duration::from_secs_f64(time);
        // The earliest due time of the first message that a connection's log permits. The messages
        // of the connections are due one after another.
        let first_due = |log: &Vec<Entry>| {
            let entries = log.iter().enumerate();
            let due = entries.map(|(entry, times)| {
                times.received - seconds(entry as f64 * connections / self.rate)
            });
            due.min().unwrap()
        };
        logs.sort_by_key(first_due);
        let starts = logs
            .iter()
            .enumerate()
            .map(|(connection, log)| first_due(log) - seconds(connection as f64 / self.rate));
        let start = starts.min().unwrap();
        let stop = interrupted.unwrap_or(start + seconds(self.seconds + self.timeout));
        let until = stop.min(start + seconds(self.seconds));
        let due = (0..).map(|number| (number, self.due(start, number)));
        let due = due.take_while(|(_, due)| *due < until);
        let response = |(number, due): (usize, Instant)| {
            let entry = logs[number % logs.len()].get(number / logs.len());
            let ended = entry.map_or(stop, |entry| {
                let timeout = entry.received + seconds(self.timeout);
                entry.ended.unwrap_or(timeout)
            });
            // The end of a run waits for the replies, Ctrl-C does not.
            let ended = interrupted.map_or(ended, |interrupted| interrupted.min(ended));
            (ended - due).as_secs_f64()
        };
        let mut times: Vec<_> = due.map(response).collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

/// Returns the sample at the rank of a quantile.
fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Returns whether times agree within 2 % or 1 ms.
fn compare(name: &str, found: f64, truth: f64) -> bool {
    let difference = (found - truth).abs();
    println!("{name}: {found:.6} s, truth {truth:.6} s, difference {difference:.6} s");
    difference <= (0.02 * truth).max(0.001)
}

/// Compares the percentiles of a report with the truth.
#[track_caller]
fn compare_all(report: &Value, truth: &[f64]) -> bool {
    assert_adds_up(report);
    assert_eq!(report["due"], truth.len(), "{report}");
    let agree = PERCENTILES.map(|(name, quantile)| {
        let found = report["response"][name].as_f64().unwrap();
        compare(name, found, percentile(truth, quantile))
    });
    agree.iter().all(|agrees| *agrees)
}

/// Repeats a comparison until it agrees.
#[track_caller]
fn assert_agrees(mut compare: impl FnMut() -> bool) {
    let run = (1..=MAX_RUNS).find(|_| compare());
    let run = run.unwrap_or_else(|| panic!("no run agrees within 2 % or 1 ms"));
    println!("run {run} agrees within 2 % or 1 ms");
}

/// Runs a load to its end and compares its report.
#[track_caller]
fn assert_run_agrees(start: impl Fn() -> TruthServer, plan: Plan, more: &str, code: i32) -> Value {
    let Plan {
        rate,
        seconds,
        timeout,
    } = plan;
    let limits = format!("--rate {rate} --duration {seconds}s --timeout {timeout}s");
    let mut report = Value::Null;
    assert_agrees(|| {
        let server = start();
        let ran = server.load(&format!("{limits} {more}")).run().code(code);
        report = schema::json("echo", &ran.text());
        compare_all(&report, &plan.truth(&server, None))
    });
    report
}

/// Stalls once, for 1.5 s, at this message.
fn stall_at(message: usize) -> impl Fn(usize) -> Action + Clone + Send + 'static {
    move |number| {
        if number == message {
            Action::Reply(Duration::from_millis(1500))
        } else {
            NOW
        }
    }
}

/// Fewer than half of the messages are delayed: at the boundary, a percentile would depend on single
/// messages.
const STALLED: Plan = Plan {
    rate: 1000.0,
    seconds: 4.0,
    timeout: 5.0,
};

#[test]
#[ignore = "slow: compares a load with its truth"]
fn stall_in_the_middle_agrees_with_the_truth() {
    assert_run_agrees(
        || TruthServer::start(stall_at(1000)),
        STALLED,
        "--in-flight 1",
        0,
    );
    assert_run_agrees(
        || TruthServer::start(stall_at(1000)),
        STALLED,
        "--in-flight 10000",
        0,
    );
    assert_run_agrees(
        || TruthServer::start_many(stall_at(100)),
        STALLED,
        "--connections 10",
        0,
    );
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn stall_at_the_end_agrees_with_the_truth() {
    assert_run_agrees(
        || TruthServer::start(stall_at(3500)),
        STALLED,
        "--in-flight 1",
        0,
    );
    assert_run_agrees(
        || TruthServer::start_many(stall_at(350)),
        STALLED,
        "--connections 10",
        0,
    );
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn signal_during_a_stall_agrees_with_the_truth() {
    const STALL_AT: usize = 1000;
    let plan = Plan {
        rate: 1000.0,
        seconds: 3600.0,
        timeout: 60.0,
    };
    assert_agrees(|| {
        let server = TruthServer::start(|number| match number {
            STALL_AT => Action::Ignore,
            _ => NOW,
        });
        let running = server
            .load("--rate 1000 --duration 1h --timeout 1m")
            .start();
        until(|| server.has_received(STALL_AT + 1));
        let stalled = Instant::now();
        until(|| stalled.elapsed() >= Duration::from_secs(1));
        let interrupted = Instant::now();
        running.signal(Signal::INT);
        let mut report = schema::json("echo", &running.wait().code(130).text());
        let truth = plan.truth(&server, Some(interrupted));
        // The signal takes a moment to arrive.
        let due = report["due"].as_u64().unwrap();
        if due.abs_diff(truth.len() as u64) > 10 {
            return false;
        }
        report["unsent"] = (truth.len() as u64 - report["sent"].as_u64().unwrap()).into();
        report["due"] = truth.len().into();
        compare_all(&report, &truth)
    });
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn delayed_replies_agree_with_the_truth() {
    let plan = Plan {
        rate: 500.0,
        seconds: 4.0,
        timeout: 5.0,
    };
    let delay = |number| match number % 100 {
        37 => Action::Reply(Duration::from_millis(100)),
        _ => NOW,
    };
    assert_run_agrees(|| TruthServer::start(delay), plan, "--in-flight 1", 0);
    assert_run_agrees(
        || TruthServer::start_many(delay),
        plan,
        "--connections 10",
        0,
    );
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn unanswered_messages_agree_with_the_truth() {
    let plan = Plan {
        rate: 500.0,
        seconds: 4.0,
        timeout: 0.1,
    };
    let start = || {
        TruthServer::start(|number| match number % 100 {
            37 => Action::Ignore,
            _ => NOW,
        })
    };
    let report = assert_run_agrees(start, plan, "--in-flight 1", 10);
    // On a busy machine others may time out too.
    assert!(report["timeouts"].as_u64().unwrap() >= 20, "{report}");
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn absent_server_agrees_with_the_truth() {
    let plan = Plan {
        rate: 500.0,
        seconds: 5.0,
        timeout: 5.0,
    };
    let start = || {
        TruthServer::start(|number| match number {
            500 => Action::GoAway(Duration::from_secs(2)),
            _ => NOW,
        })
    };
    let report = assert_run_agrees(start, plan, "--in-flight 1", 4);
    assert_eq!(
        (&report["failed"], &report["reconnects"]),
        (&1.into(), &1.into())
    );
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn impossible_rate_agrees_with_the_truth_in_constant_memory() {
    let plan = Plan {
        rate: 10_000.0,
        seconds: 4.0,
        timeout: 1.0,
    };
    assert_agrees(|| {
        let server = TruthServer::start(|_| Action::Reply(Duration::from_millis(1)));
        let limits = "--rate 10000 --duration 4s --timeout 1s";
        let running = server.load(limits).start();
        until(|| server.has_received(1500));
        let early = running.peak_memory();
        until(|| server.has_received(3000));
        let late = running.peak_memory();
        println!("peak memory: {early} KiB, then {late} KiB");
        assert!(late <= early + 1024, "{early} KiB, then {late} KiB");
        let report = schema::json("echo", &running.wait().code(0).text());
        assert!(report["unsent"].as_u64().unwrap() > 20_000, "{report}");
        compare_all(&report, &plan.truth(&server, None))
    });
}

/// Sends on a schedule, whatever the replies, and returns the sorted response times.
fn reference_client(server: &TruthServer, plan: Plan) -> Vec<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let count = (plan.rate * plan.seconds) as usize;
    let start = Instant::now() + Duration::from_millis(10);
    let mut reader = stream.try_clone().unwrap();
    let receive = thread::spawn(move || {
        let mut times = Vec::new();
        for number in 0..count {
            reader.read_exact(&mut [0; SIZE]).unwrap();
            times.push((Instant::now() - plan.due(start, number)).as_secs_f64());
        }
        times
    });
    for number in 0..count {
        let due = plan.due(start, number);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&[0; SIZE]).unwrap();
    }
    let mut times = receive.join().unwrap();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
#[ignore = "slow: compares a load with its truth"]
fn reference_client_agrees_with_the_truth() {
    assert_agrees(|| {
        let server = TruthServer::start(stall_at(1000));
        let times = reference_client(&server, STALLED);
        let truth = STALLED.truth(&server, None);
        assert_eq!(times.len(), truth.len());
        let agree = PERCENTILES.map(|(name, quantile)| {
            compare(
                name,
                percentile(&times, quantile),
                percentile(&truth, quantile),
            )
        });
        agree.iter().all(|agrees| *agrees)
    });
}
