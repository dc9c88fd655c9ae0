//! The HTTP client of the library against servers that others have written.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;

use futures_lite::{AsyncReadExt, stream};
use myapp::download::http::{Client, ClientConfig};
use myapp::limits::semaphore::for_each_concurrent;
use myapp::net::tls::{TlsConfig, Trust};
use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::peers::{nginx, python};
use crate::harness::Folder;

const FILES: usize = 500;
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// Files of all sizes up to 200,000 bytes.
fn write_files(folder: &Folder) -> Vec<Vec<u8>> {
    fs::create_dir(folder.path("files")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let file = |number| {
        let bytes: Vec<u8> = (0..number * 400).map(|_| random.u8(..)).collect();
        folder.write(&format!("files/{number}"), &bytes);
        bytes
    };
    (0..FILES).map(file).collect()
}

fn client(roots: Option<std::path::PathBuf>) -> Client {
    let trust = roots.map_or(Trust::SystemRoots, Trust::RootCertificates);
    let tls = TlsConfig {
        trust,
        ..TlsConfig::default()
    };
    Client::new(ClientConfig {
        tls,
        ..ClientConfig::default()
    })
    .unwrap()
}

/// Fetches all files, some at once, and compares them byte for byte.
fn fetch_all(client: &Client, base: &str, files: &[Vec<u8>]) {
    let jobs = stream::iter(files.iter().enumerate());
    myapp::runtime::block_on(for_each_concurrent(
        AT_ONCE,
        jobs,
        async |(number, file)| {
            let url = format!("{base}/{number}").parse().unwrap();
            let mut response = client.get(&url, &[]).await.unwrap();
            let mut body = Vec::new();
            response.read_to_end(&mut body).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(
                body == *file,
                "{url}: {} bytes of {}",
                body.len(),
                file.len()
            );
        },
    ));
}

/// The number of connections that nginx has logged.
fn connections(folder: &Folder) -> usize {
    let log = String::from_utf8(folder.read("log")).unwrap();
    let connections: BTreeSet<_> = log.lines().map(|line| line.split(' ').next()).collect();
    connections.len()
}

#[test]
#[ignore = "peer: nginx"]
fn many_files_reuse_few_connections() {
    let folder = Folder::new();
    let files = write_files(&folder);
    let server = nginx(&folder, "", "");
    fetch_all(
        &client(None),
        &format!("http://localhost:{}", server.port),
        &files,
    );
    assert!(
        (1..=AT_ONCE.get()).contains(&connections(&folder)),
        "{}",
        connections(&folder)
    );
}

#[test]
#[ignore = "peer: nginx"]
fn occasionally_closed_connections_lose_no_file() {
    let folder = Folder::new();
    let files = write_files(&folder);
    let server = nginx(&folder, "", "keepalive_requests 7;");
    fetch_all(
        &client(None),
        &format!("http://127.0.0.1:{}", server.port),
        &files,
    );
    assert!(connections(&folder) >= FILES / 7);
}

#[test]
#[ignore = "peer: nginx"]
fn chunked_files_are_complete() {
    let folder = Folder::new();
    let files = write_files(&folder);
    let server = nginx(&folder, "", "ssi on; ssi_types *;");
    let base = format!("http://127.0.0.1:{}", server.port);
    let response = smol::block_on(client(None).get(&format!("{base}/9").parse().unwrap(), &[]));
    assert_eq!(
        response.unwrap().header("transfer-encoding"),
        Some(b"chunked".as_slice())
    );
    fetch_all(&client(None), &base, &files);
}

#[test]
#[ignore = "peer: nginx"]
fn tls_files_are_complete_and_sessions_resumed() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let folder = Folder::new();
        let files = write_files(&folder);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let roots = folder.write("cert.pem", cert.pem());
        folder.write("key.pem", signing_key.serialize_pem());
        let tls = format!(
            "ssl_certificate cert.pem; ssl_certificate_key key.pem; ssl_protocols {version};
             ssl_session_cache shared:it:1m; keepalive_requests 20;"
        );
        let server = nginx(&folder, "ssl", &tls);
        let base = format!("https://localhost:{}", server.port);
        fetch_all(&client(Some(roots)), &base, &files);
        let log = String::from_utf8(folder.read("log")).unwrap();
        assert!(
            log.lines().any(|line| line.contains(" r ")),
            "{version} resumed none"
        );
    }
}

#[test]
#[ignore = "peer: python3"]
fn http_1_0_server_is_supported() {
    let folder = Folder::new();
    let files = write_files(&folder);
    let server = python(&folder);
    fetch_all(
        &client(None),
        &format!("http://127.0.0.1:{}", server.port),
        &files,
    );
}
