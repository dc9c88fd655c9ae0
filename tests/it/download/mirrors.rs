//! Mirrors of one file, which stand in for one another.

use sha2::{Digest as _, Sha256};

use crate::harness::http::{Answer, Request, Server, seeded};
use crate::harness::{Folder, Ran};

const LARGE: usize = (8 << 20) + 12_345;

/// Where the first server cuts the file.
const CUT: usize = 3 << 20;

/// Fetches the `/f` of the first server into `d`, with that of the second as its mirror and these
/// options of the list.
#[track_caller]
fn fetch(folder: &Folder, servers: [&Server; 2], options: &str, arguments: &[&str]) -> Ran {
    let [first, second] = servers.map(|server| server.url("/f"));
    folder.write("list", format!("{first}\t{}\n{options}", second.replace("/f", "/other")));
    let line = ["download", "-i", "list", "-d", "d", "--retry", "1", "--retry-delay", "10ms"];
    folder.myapp([&line[..], arguments].concat()).run()
}

fn checksum(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(" checksum=sha256={hex}\n")
}

/// Breaks at [`CUT`], and never answers well again.
fn breaking(body: &[u8], etag: &'static str) -> Server {
    let body = body.to_vec();
    Server::start(move |request| match request.first() {
        None => request.honestly(&body, etag).cut_at(CUT),
        Some(_) => Answer::status(404),
    })
}

fn honest(body: &[u8], etag: &'static str) -> Server {
    let body = body.to_vec();
    Server::start(move |request| request.honestly(&body, etag))
}

#[track_caller]
fn is_exact(folder: &Folder, body: &[u8]) {
    assert!(folder.read("d/f") == body, "other bytes, {} of them", folder.read("d/f").len());
    assert!(!folder.path("d/f.part").exists() && !folder.path("d/other").exists());
}

fn firsts(server: &Server) -> Vec<Option<usize>> {
    server.requests().iter().map(Request::first).collect()
}

#[test]
fn a_mirror_serves_what_the_first_refuses_at_once() {
    let first = Server::start(|_| Answer::status(404));
    let (folder, second) = (Folder::new(), honest(b"good", ""));
    let ran = fetch(&folder, [&first, &second], "", &["--json"]).code(0);
    is_exact(&folder, b"good");
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    let stdout = String::from_utf8(ran.stdout).unwrap();
    let file: serde_json::Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!(file["url"], first.url("/f"));
    assert_eq!(file["final_url"], second.url("/other"));
    assert_eq!((&file["status"], &file["retries"]), (&200.into(), &0.into()));
}

#[test]
fn a_mirror_with_the_same_strong_etag_goes_on_where_the_first_broke() {
    let (folder, body) = (Folder::new(), seeded(1, LARGE));
    let (first, second) = (breaking(&body, "\"a\""), honest(&body, "\"a\""));
    fetch(&folder, [&first, &second], "", &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!(firsts(&second), [Some(CUT)]);
    assert_eq!(second.requests()[0].field("If-Range"), Some("\"a\""));
}

#[test]
fn bytes_of_another_version_are_never_put_together() {
    for (ours, theirs) in [("\"a\"", "\"b\""), ("W/\"a\"", "W/\"a\""), ("", "")] {
        let (folder, old, new) = (Folder::new(), seeded(1, LARGE), seeded(2, LARGE));
        let (first, second) = (breaking(&old, ours), honest(&new, theirs));
        fetch(&folder, [&first, &second], "", &[]).code(0);
        is_exact(&folder, &new);
    }
}

#[test]
fn with_a_checksum_the_same_length_will_do() {
    let (folder, body) = (Folder::new(), seeded(1, LARGE));
    let (first, second) = (breaking(&body, "\"a\""), honest(&body, "\"b\""));
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!(firsts(&second), [Some(CUT - (32 << 10))]);
}

#[test]
fn two_halves_that_do_not_add_up_are_fetched_anew_from_the_mirror() {
    let (folder, body) = (Folder::new(), seeded(1, LARGE));
    let mut wrong = body.clone();
    wrong[0] ^= 1;
    let (first, second) = (breaking(&wrong, ""), honest(&body, ""));
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!(firsts(&second), [Some(CUT - (32 << 10)), None]);
}

#[test]
fn what_the_first_has_wrong_the_mirror_sends_from_the_start() {
    let (folder, body) = (Folder::new(), seeded(1, LARGE));
    let (first, second) = (honest(&seeded(2, LARGE), "\"a\""), honest(&body, "\"a\""));
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    is_exact(&folder, &body);
    assert_eq!((firsts(&first), firsts(&second)), (vec![None], vec![None]));
}

#[test]
fn where_all_fail_one_failure_names_the_last_and_the_rest_of_the_list_is_fetched() {
    let answer = |request: &Request| match &request.path[..] {
        "/good" => Answer::body("good"),
        _ => Answer::status(404),
    };
    let (folder, first) = (Folder::new(), Server::start(answer));
    let second = Server::start(|_| Answer::status(401));
    let other = first.url("/good\n");
    let says =
        format!("{}: the last mirror, {}: HTTP status 401", first.url("/f"), second.url("/other"));
    let ran = fetch(&folder, [&first, &second], &other, &[]).code(6).says(&says);
    assert_eq!(ran.stderr.matches("myapp: download").count(), 1, "{}", ran.stderr);
    assert_eq!(folder.read("d/good"), b"good");
}

#[test]
fn a_later_run_does_not_take_the_bytes_of_a_mirror_for_those_of_the_first() {
    let (folder, old, new) = (Folder::new(), seeded(1, LARGE), seeded(2, LARGE));
    let (refusing, half) = (Server::start(|_| Answer::status(404)), breaking(&old, "\"a\""));
    fetch(&folder, [&refusing, &half], "", &[]).code(8);
    assert!(folder.path("d/f.part").exists());
    let honest = honest(&new, "\"b\"");
    fetch(&folder, [&refusing, &honest], "", &["-c"]).code(0);
    is_exact(&folder, &new);
    assert_eq!(honest.requests()[0].field("If-Range"), Some("\"a\""));
}

#[test]
fn a_secret_for_the_first_is_not_told_to_its_mirror() {
    let first = Server::start(|_| Answer::status(404));
    let (folder, second) = (Folder::new(), honest(b"good", ""));
    let headers = " header=Authorization: Bearer x\n header=X-One: 1\n";
    fetch(&folder, [&first, &second], headers, &[]).code(0);
    assert_eq!(first.requests()[0].field("Authorization"), Some("Bearer x"));
    let asked = &second.requests()[0];
    assert_eq!((asked.field("Authorization"), asked.field("X-One")), (None, Some("1")));
}
