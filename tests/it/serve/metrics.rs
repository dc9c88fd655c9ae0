//! Metrics, statistics and events.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::clients::peer;
use crate::harness::serve::ask;
use crate::harness::{Running, Server, UNRESOLVABLE_HOST, myapp, schema};

/// Starts a server with a metrics endpoint, and returns its address.
#[track_caller]
pub(super) fn measured(arguments: &[&str]) -> (Server, SocketAddr) {
    let metrics = ["serve", "--metrics", "0", "127.0.0.1:0"];
    let mut server = Server::of(myapp([&metrics, arguments].concat()), 1);
    let line = server.line();
    let address = line
        .strip_prefix("listening on http://")
        .and_then(|a| a.strip_suffix("/metrics"));
    let address = address.and_then(|address| address.parse().ok());
    (
        server,
        address.unwrap_or_else(|| panic!("no metrics line: {line:?}")),
    )
}

/// Sends a raw request and returns the response.
#[track_caller]
pub(super) fn request(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connect for metrics");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer without a reset");
    answer
}

/// Returns the body of `GET /metrics`.
#[track_caller]
pub(super) fn scrape(address: SocketAddr) -> String {
    let answer = request(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    body.into()
}

/// Waits until the metrics contain all these lines: counters are updated after the reply.
#[track_caller]
pub(super) fn until(address: SocketAddr, lines: &[&str]) {
    let start = Instant::now();
    loop {
        let text = scrape(address);
        let missing = lines
            .iter()
            .find(|line| !text.lines().any(|found| found == **line));
        let Some(missing) = missing else { return };
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{missing} is not in\n{text}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn metrics_count_connections_and_errors() {
    let (server, metrics) = measured(&["--max-line", "10", "--max-per-ip", "1"]);
    let client = server.connect();
    ask(&client, b"hello\n");
    until(
        metrics,
        &[
            "myapp_connections_active 1",
            "myapp_connections_total 1",
            "myapp_messages_total 1",
            "myapp_received_bytes_total 6",
            "myapp_sent_bytes_total 6",
        ],
    );
    drop(server.connect());
    (&client).write_all(b"much too long").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let refused = "myapp_connections_refused_total{reason=\"max_per_ip\"} 1";
    let too_long = "myapp_errors_total{kind=\"line_too_long\"} 1";
    until(metrics, &["myapp_connections_active 0", refused, too_long]);
    server.stop();
    assert!(TcpStream::connect(metrics).is_err(), "ends with the server");
}

#[test]
fn metrics_follow_prometheus_conventions() {
    let (_server, metrics) = measured(&[]);
    let text = scrape(metrics);
    let mut kinds = HashMap::new();
    let mut helped = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped.push(help.split_once(' ').expect("a text").0);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(helped.last(), Some(&name), "HELP precedes TYPE");
            assert_eq!(
                kind == "counter",
                name.ends_with("_total"),
                "{name} is a {kind}"
            );
            assert!(kinds.insert(name, kind).is_none(), "{name} comes twice");
        } else {
            let (name, value) = line.split_once(' ').expect("a value");
            let name = name.split('{').next().unwrap();
            let family = helped.last().unwrap();
            let suffix = name.strip_prefix(family).expect("a sample of its family");
            let suffixes: &[_] = match kinds[family] {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(
                value.parse::<f64>().is_ok_and(|value| value >= 0.0),
                "{line}"
            );
        }
    }
    assert!(kinds.len() >= 9 && text.ends_with('\n'), "{text}");
}

/// Regression: sixteen unfinished requests kept others waiting for their timeout.
#[test]
fn unfinished_requests_do_not_block_others() {
    let (_server, metrics) = measured(&[]);
    let start = Instant::now();
    let unfinished: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(metrics).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            stream
        })
        .collect();
    scrape(metrics);
    for mut oldest in unfinished.iter().take(40 - 15) {
        // An end or a reset.
        assert!(oldest.read(&mut [0]).unwrap_or(0) == 0);
    }
    // Before the timeout of a request, which would end them as well.
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

/// Returns the value of a sample.
#[track_caller]
fn sample(text: &str, name: &str) -> f64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}

#[test]
fn process_and_build_are_described() {
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let (server, metrics) = measured(&["--max-connections", "77"]);
    let text = scrape(metrics);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        sample(&text, &format!("myapp_build_info{{version=\"{version}\"}}")),
        1.0
    );
    assert_eq!(sample(&text, "myapp_connections_max"), 77.0);
    let cpu = sample(&text, "process_cpu_seconds_total");
    assert!(cpu > 0.0 && cpu < 10.0, "{cpu}");
    let started = sample(&text, "process_start_time_seconds");
    assert!((started - before).abs() < 30.0, "{started}, not {before}");
    let resident = sample(&text, "process_resident_memory_bytes");
    assert!(resident >= server.memory() as f64 * 0.5, "{resident}");
    assert!(sample(&text, "process_virtual_memory_bytes") > resident);
    // One is that of the scrape.
    let open = sample(&text, "process_open_fds");
    assert!((open - server.descriptors() as f64).abs() <= 1.0, "{open}");
    assert!(sample(&text, "process_max_fds") > open);
}

#[test]
fn expiry_of_the_certificate_is_a_metric() {
    let arguments = [
        "serve",
        "-q",
        "--tls-self-signed",
        "--metrics",
        "0",
        "tls://127.0.0.1:0",
    ];
    let mut server = myapp(arguments).start();
    server.line();
    let line = server.line();
    let address = line.strip_prefix("listening on http://").unwrap();
    let text = scrape(address.strip_suffix("/metrics").unwrap().parse().unwrap());
    let not_after = sample(&text, "myapp_tls_certificate_not_after_timestamp_seconds");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(not_after > now.as_secs_f64(), "{not_after}");
}

#[test]
fn handling_times_are_measured() {
    let (server, metrics) = measured(&["--threads", "1"]);
    let client = server.connect();
    for _ in 0..33 {
        ask(&client, b"hello\n");
    }
    until(metrics, &["myapp_handling_seconds_count 3"]);
    let text = scrape(metrics);
    assert_eq!(
        sample(&text, "myapp_handling_seconds_bucket{le=\"+Inf\"}"),
        3.0
    );
    let sum = sample(&text, "myapp_handling_seconds_sum");
    assert!(sum > 0.0 && sum < 3.0, "{sum}");
}

#[test]
#[ignore = "peer: promtool"]
fn promtool_accepts_the_metrics() {
    let (server, metrics) = measured(&[]);
    ask(&server.connect(), b"hello\n");
    let text = scrape(metrics);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && says.is_empty(), "{says}");
}

#[test]
#[ignore = "peer: curl"]
fn curl_scrapes_the_metrics() {
    let (server, metrics) = measured(&[]);
    ask(&server.connect(), b"hello\n");
    until(metrics, &["myapp_messages_total 1"]);
    let url = format!("http://{metrics}/metrics");
    let kind = "%{http_code} %{content_type}";
    let scraped = peer("curl", &["-sS", "--max-time", "10", "-w", kind, &url], b"");
    let scraped = String::from_utf8(scraped).unwrap();
    assert!(scraped.contains("\nmyapp_messages_total 1\n"), "{scraped}");
    assert!(
        scraped.ends_with("\n200 text/plain; version=0.0.4; charset=utf-8"),
        "{scraped}"
    );
}

#[test]
fn other_metrics_requests_are_refused() {
    let (server, metrics) = measured(&[]);
    let silent = TcpStream::connect(metrics).unwrap();
    let long = [
        b"GET /metrics HTTP/1.1\r\nX: ".as_slice(),
        &[b'x'; 20_000],
        b"\r\n\r\n",
    ]
    .concat();
    for (asked, status) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), "404 Not Found"),
        (
            b"POST /metrics HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
        ),
        (b"hello\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let answer = request(metrics, asked);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
    }
    assert!(
        scrape(metrics).contains("myapp_connections_total 0\n"),
        "metrics requests are not counted"
    );
    let start = Instant::now();
    silent
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(
        (&silent).read(&mut [0; 1]).unwrap(),
        0,
        "a silent client is closed"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    server.stop();
}

#[test]
fn metrics_bind_error_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let ran = myapp(["serve", "--metrics", &taken, "127.0.0.1:0"])
        .run()
        .code(4)
        .prints("");
    let in_use = format!("myapp: --metrics: listen on {taken}: Address already in use\nhint: ");
    ran.says(&in_use);
    let unknown = format!("{UNRESOLVABLE_HOST}:1");
    let ran = myapp(["serve", "--metrics", &unknown, "127.0.0.1:0"]).run();
    ran.code(4)
        .prints("")
        .says(&format!("myapp: --metrics: resolve {UNRESOLVABLE_HOST}: "));
}

/// Returns the next event, checked against the schema.
#[track_caller]
fn event(running: &mut Running, name: &str) -> serde_json::Value {
    let line = running.line();
    assert!(
        line.starts_with(&format!("{{\"event\":\"{name}\",")),
        "{line}"
    );
    schema::json("serve", &line)
}

#[test]
fn events_match_the_schema() {
    let arguments = [
        "serve",
        "--json",
        "-q",
        "--stats",
        "200ms",
        "--metrics",
        "0",
        "0",
    ];
    let mut running = myapp(arguments).start();
    let listening = event(&mut running, "listening");
    let address = listening["address"]
        .as_str()
        .unwrap()
        .strip_prefix("tcp://")
        .unwrap();
    let metrics = event(&mut running, "listening");
    assert!(
        metrics["address"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:"),
        "{metrics}"
    );
    let client = TcpStream::connect(address).unwrap();
    ask(&client, b"hello\n");
    let start = Instant::now();
    let mut messages = 0.0;
    let mut last_elapsed = 0.0;
    let stats = loop {
        let stats = event(&mut running, "stats");
        let elapsed = stats["elapsed"].as_f64().unwrap();
        messages += stats["messages_rate"].as_f64().unwrap() * (elapsed - last_elapsed);
        last_elapsed = elapsed;
        if stats["sent"] == 6 {
            break stats;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{stats}");
    };
    assert_eq!(
        (&stats["active"], &stats["messages"], &stats["received"]),
        (&1.into(), &1.into(), &6.into())
    );
    assert!(
        (0.1..=1.1).contains(&messages),
        "one message, by the rates {messages}"
    );
    drop(client);
    running.signal(Signal::TERM);
    let ran = running.wait().code(0).silent();
    let last = ran.text().lines().last().unwrap().to_owned();
    let summary = schema::json("serve", &last);
    assert_eq!(summary["event"], "summary");
    assert_eq!(
        (&summary["connections"], &summary["sent"]),
        (&1.into(), &6.into())
    );
}

#[test]
fn stats_are_logged_at_the_interval() {
    let server = Server::start(&["--stats", "100ms"]);
    let _open = server.connect();
    thread::sleep(Duration::from_millis(550));
    let ran = server
        .stop()
        .says("stats active=1 connections=1 messages_rate=0");
    let lines = ran
        .stderr
        .lines()
        .filter(|line| line.contains(" stats active="))
        .count();
    assert!((3..=30).contains(&lines), "{lines} lines");
    assert_eq!(ran.text(), "", "nothing else is on stdout");
}

#[test]
fn closed_stdout_ends_the_server() {
    let mut running = myapp(["serve", "--json", "--stats", "50ms", "-q", "0"]).start();
    event(&mut running, "listening");
    running.close_stdout();
    running.wait().code(141).silent();
}

#[test]
fn shortest_stats_interval_does_not_block_shutdown() {
    let server = Server::start(&["-q", "--stats", "1ns"]);
    assert_eq!(ask(&server.connect(), b"meanwhile\n"), b"meanwhile\n");
    server.stop();
}

#[test]
fn zero_stats_interval_is_a_usage_error() {
    let ran = myapp(["serve", "--stats", "0"]).run().code(2).prints("");
    ran.says("--stats must be greater than 0");
}

/// Returns the names of the numbers in a JSON object and in its direct members, with the member's
/// name before them.
fn number_names(value: &serde_json::Value) -> Vec<String> {
    let object = value.as_object().expect("a JSON object");
    let names = object.iter().flat_map(|(name, value)| match value {
        serde_json::Value::Object(_) => number_names(value)
            .into_iter()
            .map(|inner| format!("{name}.{inner}"))
            .collect(),
        serde_json::Value::Number(_) => vec![name.clone()],
        _ => Vec::new(),
    });
    names.collect()
}

/// Metrics of the program and the server as a whole.
const NOT_COUNTERS: [&str; 3] = ["_build_info", "_connections_max", "_handling_seconds"];

/// Returns the name in JSON of a sample: the label's value, with the prefix of its family.
fn json_name(sample: &str) -> String {
    let name = sample.split(' ').next().unwrap();
    let name = name.strip_prefix("myapp_").expect("the common prefix");
    let (family, label) = name.split_once('{').unwrap_or((name, ""));
    let label = label.split('"').nth(1);
    match (family, label) {
        ("connections_active", _) => "active".into(),
        ("uptime_seconds", _) => "elapsed".into(),
        ("connections_refused_total", Some(label)) => format!("refused_{label}"),
        ("datagrams_dropped_total", Some("acl")) => "datagrams.refused_acl".into(),
        ("datagrams_dropped_total", Some(label)) => format!("datagrams.{label}"),
        ("faults_total", Some(label)) => format!("fault_{label}"),
        ("errors_total", Some(label)) => label.into(),
        (family, _) => {
            let name = family.trim_end_matches("_total").trim_end_matches("_bytes");
            name.replacen("datagrams_", "datagrams.", 1)
        }
    }
}

#[test]
fn counters_have_the_same_name_in_json_log_and_metrics() {
    let mut running = myapp(["serve", "--json", "--metrics", "0", "0"]).start();
    event(&mut running, "listening");
    let metrics = event(&mut running, "listening");
    let address = metrics["address"].as_str().unwrap();
    let address = address.strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let text = scrape(address.parse().unwrap());
    running.signal(Signal::TERM);
    let ran = running.wait().code(0);
    let summary = schema::json("serve", ran.text().lines().last().unwrap());
    let json = number_names(&summary);

    // `other` is the rest of `failed`, which the metrics do not contain.
    let mut exported: Vec<_> = text
        .lines()
        .filter(|line| {
            line.starts_with("myapp_") && !NOT_COUNTERS.iter().any(|name| line.contains(name))
        })
        .map(json_name)
        .filter(|name| name != "other")
        .collect();
    for name in &mut exported {
        if let Some(full) = json.iter().find(|full| **full == format!("tls.{name}")) {
            name.clone_from(full);
        }
    }
    exported.push("failed".into());
    exported.sort();
    let mut expected = json.clone();
    expected.sort();
    assert_eq!(exported, expected);

    let line = ran.stderr.lines().find(|line| line.contains(" summary "));
    let fields = line.expect("a summary in the log").split(' ');
    let totals = ["tls_failed", "datagrams_received", "datagrams_unanswered"];
    for (name, _) in fields.filter_map(|field| field.split_once('=')) {
        assert!(
            totals.contains(&name) || json.iter().any(|known| known == name),
            "{name} is not in JSON"
        );
    }
}
