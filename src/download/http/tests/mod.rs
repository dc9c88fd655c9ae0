//! Client tests against peers that send fixed bytes.

mod peer;
mod tls;

use std::error::Error;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use futures_lite::AsyncReadExt;
use smol::block_on;
use url::Url;

use super::{Client, ClientConfig, HttpError, ProtocolError, Response};
use peer::{End, Peer, Script};

/// Longer than any wait of a client that does not hang.
const LONG: Duration = Duration::from_secs(20);

fn config() -> ClientConfig {
    ClientConfig {
        idle_timeout: LONG,
        connect_timeout: LONG,
        ..ClientConfig::default()
    }
}

fn client() -> Client {
    Client::new(config()).unwrap()
}

async fn read(response: &mut Response) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    response
        .read_to_end(&mut body)
        .await
        .map_err(HttpError::from_io)?;
    Ok(body)
}

fn fetch(client: &Client, url: &Url) -> Result<(u16, Vec<u8>), HttpError> {
    block_on(async {
        let mut response = client.get(url, &[]).await?;
        Ok((response.status(), read(&mut response).await?))
    })
}

fn get(answer: impl AsRef<[u8]>, end: End) -> Result<(u16, Vec<u8>), HttpError> {
    let peer = Peer::start([Script::new([answer], end)]);
    fetch(&client(), &peer.url("/x"))
}

#[track_caller]
fn gives(answer: impl AsRef<[u8]>, end: End, body: impl AsRef<[u8]>) {
    let (status, got) = get(answer, end).unwrap();
    assert_eq!(status, 200);
    assert!(
        got == body.as_ref(),
        "{} bytes: {:?}",
        got.len(),
        String::from_utf8_lossy(&got)
    );
}

#[test]
fn body_is_read_with_every_framing() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
    gives(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        End::Hold,
        "hello",
    );
    gives(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        End::Hold,
        "",
    );
    gives("HTTP/1.0 200 OK\r\n\r\nhello", End::Close, "hello");
    gives("HTTP/1.1 200 OK\r\n\r\n", End::Close, "");
    gives(
        format!("{chunked}\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n"),
        End::Hold,
        "hello",
    );
    gives(
        format!("{chunked}Content-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        End::Hold,
        "hello",
    );
}

#[test]
fn large_body_is_intact_for_any_buffer_size() {
    let mut random = fastrand::Rng::with_seed(1);
    let body: Vec<u8> = (0..1_000_000).map(|_| random.u8(..)).collect();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(random.usize(1..100_000).min(rest.len()));
        chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        chunked.extend([piece, b"\r\n"].concat());
        rest = more;
    }
    chunked.extend(b"0\r\n\r\n");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let sized = [head.as_bytes(), &body].concat();
    let plain = [b"HTTP/1.0 200 OK\r\n\r\n", &body[..]].concat();
    for (answer, end) in [
        (sized, End::Hold),
        (chunked, End::Hold),
        (plain, End::Close),
    ] {
        for room in [1000, 32 * 1024, 300_000] {
            let peer = Peer::start([Script::new([&answer], end)]);
            let got = block_on(read_with(&peer.url("/"), room));
            assert!(got == body, "{} bytes with room for {room}", got.len());
        }
    }
}

async fn read_with(url: &Url, room: usize) -> Vec<u8> {
    let mut response = client().get(url, &[]).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        match response.read(&mut buffer).await.unwrap() {
            0 => return got,
            count => got.extend_from_slice(&buffer[..count]),
        }
    }
}

#[track_caller]
fn is_cut(answer: &str, end: End, bytes: u64, length: Option<u64>) {
    let error = get(answer, end).unwrap_err();
    let HttpError::IncompleteBody {
        received, expected, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*received, *expected), (bytes, length), "{error}");
    assert!(error.is_transient());
}

#[test]
fn truncated_body_is_an_error() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    is_cut(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        End::Close,
        4,
        Some(5),
    );
    is_cut(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        End::Close,
        0,
        Some(5),
    );
    is_cut(&format!("{chunked}5\r\nhello\r\n"), End::Close, 5, None);
    is_cut(&format!("{chunked}5\r\nhel"), End::Close, 3, None);
    is_cut(
        &format!("{chunked}5\r\nhello\r\n0\r\nT: u\r\n"),
        End::Close,
        5,
        None,
    );
    is_cut(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        End::Close,
        0,
        None,
    );
    is_cut("", End::Close, 0, None);
}

#[test]
fn truncated_body_stays_an_error() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    let peer = Peer::start([Script::new([answer], End::Close)]);
    block_on(async {
        let mut response = client().get(&peer.url("/"), &[]).await.unwrap();
        assert_eq!(response.length(), Some(5));
        assert!(read(&mut response).await.is_err());
        assert!(read(&mut response).await.is_err());
    });
}

#[test]
fn connection_reset_keeps_its_cause() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    let error = get(answer, End::Reset).unwrap_err();
    let HttpError::Io { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(error.is_transient());
}

#[track_caller]
fn breaks(answer: impl AsRef<[u8]>, wanted: ProtocolError) {
    let error = get(answer, End::Hold).unwrap_err();
    let HttpError::Protocol { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*source, wanted);
    assert!(!error.is_transient());
}

#[test]
fn protocol_violations_are_rejected() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size = |line: &str| ProtocolError::ChunkSize { line: line.into() };
    breaks(
        "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
        ProtocolError::UnexpectedUpgrade,
    );
    breaks(format!("{chunked}zz\r\n"), size("zz"));
    breaks(
        format!("{chunked}400000000000000000\r\n"),
        size("400000000000000000"),
    );
    breaks(
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(11),
        ProtocolError::TooManyInformational,
    );
    let reason = "x".repeat(10 << 20);
    breaks(format!("HTTP/1.1 200 {reason}"), ProtocolError::HeadTooLong);
    breaks(
        "SSH-2.0-x\r\n",
        ProtocolError::StatusLine {
            line: "SSH-2.0-x".into(),
        },
    );
    let fields = "A: b\r\n".repeat(100_000);
    breaks(
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n"),
        ProtocolError::HeadTooLong,
    );
    let fields = "A: b\r\n".repeat(1001);
    breaks(
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n"),
        ProtocolError::TooManyFields,
    );
}

#[test]
fn informational_responses_are_skipped() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(10);
    gives(
        format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        End::Hold,
        "ok",
    );
}

#[test]
fn long_head_with_raw_values_is_read() {
    let long = "x".repeat(200_000);
    let answer = format!(
        "HTTP/1.1 599 Odd\r\nLong: {long}\r\nLocation: /ü\r\nA: 1\r\na: 2\r\nContent-Length: 2\r\n\r\nok"
    );
    let peer = Peer::start([Script::new([answer], End::Hold)]);
    block_on(async {
        let mut response = client().get(&peer.url("/"), &[]).await.unwrap();
        assert_eq!(response.status(), 599);
        assert_eq!(response.header("long").map(<[u8]>::len), Some(long.len()));
        assert_eq!(response.header("location"), Some("/ü".as_bytes()));
        assert_eq!(response.headers("A").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(response.header("none"), None);
        assert_eq!(read(&mut response).await.unwrap(), b"ok");
    });
}

#[test]
fn request_excludes_url_credentials() {
    let peer = Peer::start([Script::new(["HTTP/1.1 204 None\r\n\r\n"], End::Hold)]);
    let mut url = peer.url("/a?b=c#d");
    url.set_username("user").unwrap();
    url.set_password(Some("secret")).unwrap();
    let fields = [("X-Name".to_owned(), "ü".to_owned())];
    block_on(client().get(&url, &fields)).unwrap();
    let host = peer.address();
    let agent = concat!("myapp/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        peer.requests(),
        [format!(
            "GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\
             Accept-Encoding: identity\r\nX-Name: ü\r\n\r\n"
        )]
    );
}

#[test]
fn invalid_request_is_not_sent() {
    let peer = Peer::start([]);
    let fields = [("X".to_owned(), "y\r\nZ: w".to_owned())];
    let error = block_on(client().get(&peer.url("/"), &fields)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "request header X: control character in the value"
    );
    let error = fetch(&client(), &"ftp://user:secret@h/x".parse().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "not an http or https URL");
    let agent = ClientConfig {
        user_agent: "a\n".into(),
        ..config()
    };
    assert!(matches!(
        Client::new(agent),
        Err(HttpError::InvalidHeader { .. })
    ));
    assert!(peer.requests().is_empty());
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Fetches `fetches` times and checks the connection number of each request.
#[track_caller]
fn served_by(scripts: impl IntoIterator<Item = Script>, fetches: usize, connections: &[usize]) {
    let peer = Peer::start(scripts);
    let client = client();
    for _ in 0..fetches {
        assert_eq!(fetch(&client, &peer.url("/")).unwrap().1, b"ok");
    }
    assert_eq!(peer.connections(), connections);
}

#[test]
fn connection_is_reused_after_a_complete_body() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let kept = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    served_by(
        [Script::new([OK, chunked, kept, OK], End::Hold)],
        4,
        &[0, 0, 0, 0],
    );
}

#[test]
fn non_persistent_connection_is_not_reused() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\n\r\n";
    let once = |answer| Script::new([answer], End::Hold);
    served_by(
        [once(closing), once(old), once(both), once(OK)],
        4,
        &[0, 1, 2, 3],
    );
}

#[test]
fn connection_with_surplus_bytes_is_not_reused() {
    let once = |answer: &str| Script::new([answer], End::Hold);
    let surplus = format!("{OK}{}", "x".repeat(100));
    served_by([once(&surplus), once(OK)], 2, &[0, 1]);
    let second = format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad");
    served_by([once(&second), once(OK)], 2, &[0, 1]);
}

#[test]
fn stale_pooled_connection_is_not_reused() {
    for late in ["", "x"] {
        let go = smol::channel::bounded::<()>(1);
        let gone = smol::channel::bounded::<()>(1);
        let wait = go.1;
        let told = gone.0;
        let peer = Peer::serve(move |number, stream, asked| {
            Script::new([OK], End::Close).play(stream, &mut *asked);
            if number == 0 {
                wait.recv_blocking().unwrap();
                // One byte too much, or the end.
                stream.write_all(late.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                told.send_blocking(()).unwrap();
                Script::new([""; 0], End::Hold).play(stream, asked);
            }
        });
        let client = client();
        fetch(&client, &peer.url("/")).unwrap();
        go.0.send_blocking(()).unwrap();
        gone.1.recv_blocking().unwrap();
        fetch(&client, &peer.url("/")).unwrap();
        assert_eq!(peer.connections(), [0, 1]);
    }
}

#[test]
fn pooled_connection_closed_on_request_is_retried() {
    for end in [End::Close, End::Reset] {
        // The second answer is nothing at all: the server reads the request and closes.
        served_by(
            [Script::new([OK, ""], end), Script::new([OK], End::Hold)],
            2,
            &[0, 0, 1],
        );
    }
}

#[test]
fn new_connection_that_closes_is_not_retried() {
    let peer = Peer::start([Script::new([""], End::Close), Script::new([OK], End::Hold)]);
    let error = fetch(&client(), &peer.url("/")).unwrap_err();
    assert!(
        matches!(error, HttpError::IncompleteBody { received: 0, .. }),
        "{error:?}"
    );
    assert_eq!(peer.connections(), [0]);
}

#[test]
fn dropped_response_closes_its_connection() {
    let (told, closed) = smol::channel::bounded::<()>(1);
    let peer = Peer::serve(move |number, stream, asked| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok";
        let answer = if number == 0 { answer } else { OK };
        Script::new([answer], End::Hold).play(stream, asked);
        told.send_blocking(()).unwrap();
    });
    let client = client();
    block_on(async {
        let mut response = client.get(&peer.url("/"), &[]).await.unwrap();
        assert_eq!(response.read(&mut [0; 10]).await.unwrap(), 2);
        drop(response);
        closed.recv().await.unwrap();
    });
    fetch(&client, &peer.url("/")).unwrap();
    assert_eq!(peer.connections(), [0, 1]);
}

#[track_caller]
fn times_out(answer: &'static str) {
    let idle_timeout = Duration::from_millis(100);
    let client = Client::new(ClientConfig {
        idle_timeout,
        ..config()
    })
    .unwrap();
    let peer = Peer::start([Script::new([answer], End::Hold)]);
    let start = Instant::now();
    let error = fetch(&client, &peer.url("/x")).unwrap_err();
    let HttpError::TimedOut { limit, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*limit, idle_timeout);
    assert_eq!(error.to_string(), "no data for 100ms");
    assert!(error.is_transient());
    assert!(start.elapsed() >= idle_timeout && start.elapsed() < LONG);
}

#[test]
fn silent_server_times_out() {
    times_out("");
    times_out("HTTP/1.1 200 OK\r\nContent-Le");
    times_out("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell");
    times_out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
}

#[test]
fn slow_server_does_not_time_out() {
    let idle_timeout = Duration::from_secs(1);
    let client = Client::new(ClientConfig {
        idle_timeout,
        ..config()
    })
    .unwrap();
    let peer = Peer::serve(|_, stream, asked| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
            "x".repeat(20)
        );
        Script::new([""], End::Close).play(stream, asked);
        for piece in answer.as_bytes().chunks(5) {
            std::thread::sleep(Duration::from_millis(120));
            stream.write_all(piece).unwrap();
        }
    });
    let start = Instant::now();
    assert_eq!(fetch(&client, &peer.url("/")).unwrap().1.len(), 20);
    assert!(
        start.elapsed() > idle_timeout,
        "the test must last longer than one wait may"
    );
}

#[test]
fn refused_connection_names_the_address() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let error = fetch(&client(), &url).unwrap_err();
    assert_eq!(error.to_string(), format!("connect to 127.0.0.1:{port}"));
    assert!(error.source().is_some() && error.is_transient());
}

#[test]
fn client_and_response_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let url = "http://127.0.0.1/".parse().unwrap();
    let client = client();
    drop(is_send(client.get(&url, &[])));
    fn is_both<T: Send + Sync>() {}
    is_both::<(Client, Response, HttpError)>();
}
