//! HTTP Digest authentication with servers and proxies.

use std::sync::Mutex;

use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512_256};

use crate::harness::http::{Request, Response, Server};
use crate::harness::{Folder, RunOutput};

const USER: &str = "user";
const PASSWORD: &str = "secret";

fn fetch(folder: &Folder, line: &[&str], urls: &[&str]) -> RunOutput {
    folder
        .myapp([&["download", "-u", "user:secret"], line, urls].concat())
        .run()
}

/// Returns the digest of a text by the algorithm of a Digest response.
fn hash(algorithm: &str, text: &str) -> String {
    let hash = match algorithm.strip_suffix("-sess").unwrap_or(algorithm) {
        "SHA-256" => Sha256::digest(text).to_vec(),
        "SHA-512-256" => Sha512_256::digest(text).to_vec(),
        _ => Md5::digest(text).to_vec(),
    };
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a parameter of a Digest response, without quotes.
fn parameter<'a>(value: &'a str, name: &str) -> &'a str {
    let parts = value.strip_prefix("Digest ").unwrap_or(value).split(", ");
    let mut found = parts.filter_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.next().unwrap_or_default().trim_matches('"')
}

/// Verifies a Digest response by RFC 7616 section 3.4.1, without this program's code.
fn is_valid(value: &str, request: &Request, nonce: &str) -> bool {
    let of = |name| parameter(value, name);
    let hex = |text: &str| hash(of("algorithm"), text);
    let secret = hex(&format!("{USER}:area:{PASSWORD}"));
    let secret = if of("algorithm").ends_with("-sess") {
        hex(&format!("{secret}:{nonce}:{}", of("cnonce")))
    } else {
        secret
    };
    let user = match of("userhash") {
        "true" => hex(&format!("{USER}:area")),
        _ => USER.to_owned(),
    };
    let target = hex(&format!("GET:{}", request.path));
    let expected = match of("qop") {
        "" => hex(&format!("{secret}:{nonce}:{target}")),
        qop => hex(&format!(
            "{secret}:{nonce}:{}:{}:{qop}:{target}",
            of("nc"),
            of("cnonce")
        )),
    };
    of("uri") == request.path
        && of("username") == user
        && of("nonce") == nonce
        && of("response") == expected
}

/// Starts a server that requires Digest with these parameters, and gives each challenge a nonce of
/// its own, which it accepts `uses` times.
fn serve(parameters: &'static str, uses: usize) -> Server {
    let nonces = Mutex::new(Vec::<usize>::new());
    Server::start(move |request| {
        let mut nonces = nonces.lock().unwrap();
        let mut stale = "";
        if let Some(value) = request.field("Authorization") {
            let number: Result<usize, _> =
                parameter(value, "nonce").trim_start_matches('n').parse();
            if let Ok(number) = number
                && is_valid(value, request, &format!("n{number}"))
            {
                let used: &mut usize = &mut nonces[number];
                *used += 1;
                let count = usize::from_str_radix(parameter(value, "nc"), 16);
                let is_counted = count.is_err() || count == Ok(*used);
                if *used <= uses && is_counted {
                    return Response::body("good");
                }
                stale = ", stale=true";
            }
        }
        let nonce = nonces.len();
        nonces.push(0);
        let challenge = format!("Digest realm=\"area\", nonce=\"n{nonce}\"{parameters}{stale}");
        Response::status(401).header("WWW-Authenticate", &challenge)
    })
}

/// Returns the scheme of `Authorization` of each request.
fn schemes(server: &Server) -> Vec<String> {
    let scheme = |request: &Request| {
        let value = request.field("Authorization").unwrap_or("-");
        value.split(' ').next().unwrap_or_default().to_owned()
    };
    server.requests().iter().map(scheme).collect()
}

#[test]
fn each_form_of_digest_is_answered() {
    for parameters in [
        "",
        ", qop=\"auth\"",
        ", qop=\"auth-int,auth\", algorithm=MD5, opaque=\"x\"",
        ", qop=\"auth\", algorithm=MD5-sess",
        ", qop=\"auth\", algorithm=SHA-256",
        ", qop=\"auth\", algorithm=SHA-256-sess, userhash=true",
        ", qop=\"auth\", algorithm=SHA-512-256, userhash=true",
        ", qop=\"auth\", algorithm=md5",
        ", qop=\"auth\", Algorithm=\"sha-256\"",
    ] {
        let server = serve(parameters, 10);
        let folder = Folder::new();
        fetch(&folder, &[], &[&server.url("/f?a=b")]).code(0);
        assert_eq!(folder.read("f"), b"good", "{parameters}");
        assert_eq!(schemes(&server), ["Basic", "Digest"], "{parameters}");
        let requests = server.requests();
        let sent = requests[1].field("Authorization").unwrap();
        let has_userhash = parameter(sent, "userhash") == "true";
        assert_eq!(has_userhash, parameters.contains("userhash"), "{sent}");
        assert_eq!(sent.contains("\"user\""), !has_userhash, "{sent}");
    }
}

#[test]
fn digest_option_never_sends_the_password() {
    let server = serve(", qop=\"auth\"", 10);
    let folder = Folder::new();
    let urls = ["/a", "/b", "/c"].map(|path| server.url(path));
    let urls = urls.each_ref().map(String::as_str);
    fetch(&folder, &["--digest", "-j1"], &urls).code(0);
    // The nonce of the first file is used again.
    assert_eq!(schemes(&server), ["-", "Digest", "Digest", "Digest"]);
    assert_eq!(folder.names(), ["a", "b", "c"]);

    let basic =
        Server::start(|_| Response::status(401).header("WWW-Authenticate", "Basic realm=\"area\""));
    fetch(&folder, &["--digest"], &[&basic.url("/d")])
        .code(6)
        .says("HTTP status 401: server requires Basic authentication")
        .says("hint: without --digest");
    assert_eq!(schemes(&basic), ["-"]);
}

#[test]
fn concurrent_files_keep_nonce_counts_in_order() {
    // The server accepts counts in order only, and each nonce three times.
    let server = serve(", qop=\"auth\"", 3);
    let folder = Folder::new();
    let urls: Vec<_> = (0..40)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    fetch(&folder, &["--retry", "0", "-j8"], &urls).code(0);
    assert_eq!(folder.names().len(), 40);
    let basic = schemes(&server)
        .iter()
        .filter(|scheme| *scheme == "Basic")
        .count();
    assert!(basic <= 8, "{basic}");
}

#[test]
fn rejected_digest_is_a_credential_error() {
    let server = serve(", qop=\"auth\"", 10);
    let folder = Folder::new();
    let url = server.url("/f");
    folder
        .myapp(["download", "-u", "user:hidden", &url])
        .run()
        .code(6)
        .says("HTTP status 401\n")
        .says("hint: -u USER:PASSWORD");
    assert_eq!(schemes(&server), ["Basic", "Digest"]);
}

#[test]
fn digest_is_not_sent_to_another_origin() {
    let other = serve(", qop=\"auth\"", 10);
    let to = other.url("/g");
    let first = Server::with_paths([("/f", Response::redirect(302, to))]);
    let folder = Folder::new();
    fetch(&folder, &[], &[&first.url("/f")]).code(6);
    assert_eq!(schemes(&other), ["-"]);
    fetch(&folder, &["--location-trusted"], &[&first.url("/f")]).code(0);
    assert_eq!(folder.read("f"), b"good");
}

#[test]
fn unsupported_scheme_is_named() {
    let folder = Folder::new();
    for (fields, says) in [
        (&["NTLM"][..], "server requires NTLM authentication"),
        (
            &["Negotiate", "NTLM"],
            "server requires Negotiate or NTLM authentication",
        ),
        (
            &["AWS4-HMAC-SHA256"],
            "server requires AWS4-HMAC-SHA256 authentication",
        ),
    ] {
        let server = Server::start(move |_| {
            fields
                .iter()
                .fold(Response::status(401), |response, field| {
                    response.header("WWW-Authenticate", field)
                })
        });
        fetch(&folder, &[], &[&server.url("/f")])
            .code(6)
            .says(says)
            .says("hint: Basic, Digest and bearer tokens are supported");
    }
    let proxy = Server::start(|_| Response::status(407).header("Proxy-Authenticate", "NTLM"));
    let named = proxy.url("").replace("//", "//user:secret@");
    for url in ["http://a.invalid/", "https://a.invalid/"] {
        folder
            .myapp(["download", "--proxy", &named, url])
            .run()
            .code(6)
            .says("proxy requires NTLM authentication");
    }
}
