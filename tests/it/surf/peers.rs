//! The transport against servers that others have written.

use std::time::Instant;
use std::{fs, thread};

use super::*;
use crate::download::peers::nginx;
use crate::harness::Folder;
use crate::harness::http::seeded;

/// Longer than a small body, and shorter than one with an expectation.
const MEDIUM: usize = 300_000;

/// With an expectation.
const LARGE: usize = 5 << 20;

#[test]
#[ignore = "peer: nginx (with its DAV module)"]
fn nginx_stores_serves_and_deletes_over_one_connection() {
    let folder = Folder::new();
    fs::create_dir(folder.path("files")).unwrap();
    let server = nginx(
        &folder,
        "",
        "dav_methods PUT DELETE; client_max_body_size 6m;",
    );
    let url = |name: &str| format!("{}/{name}", server.url());
    let client = client();
    for (name, length) in [("small", 5), ("medium", MEDIUM), ("large", LARGE)] {
        let bytes = seeded(5, length);
        let chunked = format!("{name}-chunked");
        for (name, body) in [
            (name, bytes.clone().into()),
            (&chunked[..], unsized_body(&bytes)),
        ] {
            let status = fetch(client.put(url(name)).body(body)).unwrap().0;
            assert_eq!(status, 201, "{name}");
            assert!(folder.read(&format!("files/{name}")) == bytes, "{name}");

            let mut response = block_on(async { client.get(url(name)).await.unwrap() });
            assert_eq!(response.len(), Some(length));
            assert!(block_on(response.body_bytes()).unwrap() == bytes, "{name}");

            let mut response = block_on(async { client.head(url(name)).await.unwrap() });
            let announced = response.header("content-length").unwrap().as_str();
            assert_eq!(announced, length.to_string());
            assert_eq!(block_on(response.body_bytes()).unwrap(), b"");

            assert_eq!(fetch(client.delete(url(name))).unwrap().0, 204);
            assert_eq!(fetch(client.get(url(name))).unwrap().0, 404);
        }
    }
    // nginx writes a line after its response.
    let log = || String::from_utf8(folder.read("log")).unwrap();
    let start = Instant::now();
    while log().lines().count() < 30 {
        assert!(start.elapsed() < LONG, "{}", log());
        thread::sleep(Duration::from_millis(5));
    }
    let log = log();
    let connection = |line: &str| line.split(' ').next().unwrap().to_owned();
    let first = connection(log.lines().next().unwrap());
    assert!(log.lines().all(|line| connection(line) == first), "{log}");
}

#[test]
#[ignore = "peer: nginx (with its DAV module)"]
fn nginx_refuses_a_body_before_it_is_sent() {
    let folder = Folder::new();
    fs::create_dir(folder.path("files")).unwrap();
    let server = nginx(&folder, "", "dav_methods PUT; client_max_body_size 1m;");
    let url = format!("{}/large", server.url());
    let client = client();
    let read = Arc::new(AtomicUsize::new(0));
    let counted = CountedReader {
        bytes: Cursor::new(vec![7; LARGE]),
        read: Arc::clone(&read),
    };
    let body = Body::from_reader(futures_lite::io::BufReader::new(counted), Some(LARGE));
    assert_eq!(fetch(client.put(&url).body(body)).unwrap().0, 413);
    assert_eq!(read.load(SeqCst), 0);
    // Without a known length the limit is exceeded in the middle.
    let chunked = fetch(client.put(&url).body(unsized_body(&vec![7; 64 << 20])));
    assert_eq!(chunked.unwrap().0, 413);
    assert!(!folder.path("files/large").exists());
}

/// Reader that counts the bytes read from it.
struct CountedReader {
    bytes: Cursor<Vec<u8>>,
    read: Arc<AtomicUsize>,
}

impl futures_lite::AsyncRead for CountedReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut [u8],
    ) -> std::task::Poll<io::Result<usize>> {
        let polled = std::pin::Pin::new(&mut self.bytes).poll_read(cx, into);
        if let std::task::Poll::Ready(Ok(count)) = &polled {
            self.read.fetch_add(*count, SeqCst);
        }
        polled
    }
}
