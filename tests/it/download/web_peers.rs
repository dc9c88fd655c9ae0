//! The built program against web servers and proxies with authentication, limits and client
//! certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::peers::{assert_serves_all, nginx, site};
use super::*;
use crate::harness::http::Certificate;
use crate::harness::third_party::ListeningProgram;

/// Verifiers of `user` with the password `secret` in the realm `area`, as htdigest writes them.
const HTDIGEST: &str = "user:area:2839bc1913fb3f635d74987bc7c3e39f\n";

/// Lets a server that drops its privileges read the folder.
fn open_to_all(folder: &Folder) {
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts Apache, which serves `files` of the folder.
fn apache(folder: &Folder, more: &str) -> ListeningProgram {
    open_to_all(folder);
    let root = folder.path("");
    let root = root.display();
    let modules: String = [
        "mpm_event",
        "authn_core",
        "authn_file",
        "auth_digest",
        "authz_core",
        "authz_user",
        "mime",
        "ssl",
    ]
    .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
    .concat();
    ListeningProgram::start(|port| {
        let config = format!(
            "{modules}
             ServerName localhost
             Listen 127.0.0.1:{port}
             User www-data
             Group www-data
             DefaultRuntimeDir {root}
             Mutex file:{root} default
             PidFile {root}/pid
             ErrorLog {root}/errors
             TypesConfig /etc/mime.types
             DocumentRoot {root}/files
             {more}\n"
        );
        let config = folder.write("apache.conf", config);
        let mut command = Command::new("apache2");
        // One process: its end is the end of all.
        command.arg("-X").arg("-f").arg(config);
        command
    })
}

#[test]
#[ignore = "peer: apache2"]
fn apache_serves_all_files_by_digest() {
    let site = site();
    let htdigest = site.write("htdigest", HTDIGEST);
    let digest = format!(
        "<Location />
           AuthType Digest
           AuthName area
           AuthUserFile {}
           Require valid-user
         </Location>",
        htdigest.display()
    );
    let server = apache(&site, &digest);
    assert_serves_all(&server, &["-u", "user:secret"]);
    assert_serves_all(&server, &["-u", "user:secret", "--digest", "-j8"]);
    let folder = Folder::new();
    let url = format!("{}/small", server.url());
    fetch(&folder, ["-u", "user:wrong", &url])
        .code(6)
        .says("HTTP status 401");
}

#[test]
#[ignore = "peer: apache2 and gzip"]
fn apache_encoding_of_an_archive_is_kept() {
    let site = site();
    let mut gzip = Command::new("gzip");
    assert!(
        gzip.arg("-k")
            .arg(site.path("files/huge"))
            .status()
            .unwrap()
            .success()
    );
    fs::rename(site.path("files/huge.gz"), site.path("files/huge.tar.gz")).unwrap();
    let server = apache(&site, "AddEncoding x-gzip .gz\n");
    let folder = Folder::new();
    let url = format!("{}/huge.tar.gz", server.url());
    fetch(&folder, [&url]).code(0);
    assert!(folder.read("huge.tar.gz") == site.read("files/huge.tar.gz"));
}

#[test]
#[ignore = "peer: apache2"]
fn client_certificate_for_one_location_is_refused_clearly() {
    let site = site();
    let certificate = Certificate::of(&["localhost"]);
    site.write("cert.pem", &certificate.pem);
    site.write("key.pem", &certificate.key_pem);
    let root = site.path("");
    let root = root.display();
    for (protocol, code, cause, hint) in [
        // The server cannot request it (RFC 8446 section 4.6.2).
        (
            "TLSv1.3",
            8,
            "HTTP status 403",
            "hint: if this path alone requires",
        ),
        ("TLSv1.2", 5, "renegotiation", "hint: configure the server"),
    ] {
        let server = apache(
            &site,
            &format!(
                "SSLEngine on
                 SSLProtocol {protocol}
                 SSLCertificateFile {root}/cert.pem
                 SSLCertificateKeyFile {root}/key.pem
                 SSLCACertificateFile {root}/cert.pem
                 <Location /small>
                   SSLVerifyClient require
                 </Location>"
            ),
        );
        let folder = Folder::new();
        let url = |name: &str| format!("https://localhost:{}/{name}", server.port);
        let cert = site.path("cert.pem");
        let cert = cert.to_str().unwrap();
        fetch(&folder, ["--cacert", cert, &url("empty")]).code(0);
        let key = site.path("key.pem");
        let identity = ["--cert", cert, "--key", key.to_str().unwrap()];
        let line = ["download", "--cacert", cert, &url("small")];
        folder
            .myapp([&line[..], &identity].concat())
            .run()
            .code(code)
            .says(cause)
            .says(hint);
    }
}

#[test]
#[ignore = "peer: lighttpd"]
fn lighttpd_serves_all_files_by_digest() {
    let site = site();
    site.write("htdigest", HTDIGEST);
    let root = site.path("");
    let root = root.display();
    let server = ListeningProgram::start(|port| {
        let config = site.write(
            "lighttpd.conf",
            format!(
                "server.modules = (\"mod_auth\", \"mod_authn_file\")
                 server.document-root = \"{root}/files\"
                 server.bind = \"127.0.0.1\"
                 server.port = {port}
                 server.errorlog = \"{root}/errors\"
                 auth.backend = \"htdigest\"
                 auth.backend.htdigest.userfile = \"{root}/htdigest\"
                 auth.require = (\"/\" => (
                   \"method\" => \"digest\", \"realm\" => \"area\", \"require\" => \"valid-user\"
                 ))\n"
            ),
        );
        let mut command = Command::new("lighttpd");
        command.arg("-D").arg("-f").arg(config);
        command
    });
    assert_serves_all(&server, &["-u", "user:secret", "--digest"]);
}

/// Starts squid, which requires this authentication.
fn squid(folder: &Folder, auth: &str) -> ListeningProgram {
    open_to_all(folder);
    let root = folder.path("");
    let root = root.display();
    ListeningProgram::start(|port| {
        let config = folder.write(
            "squid.conf",
            format!(
                "http_port 127.0.0.1:{port}
                 {auth}
                 acl known proxy_auth REQUIRED
                 http_access allow known
                 http_access deny all
                 cache deny all
                 pid_filename none
                 pinger_enable off
                 netdb_filename none
                 cache_log /dev/null
                 access_log none
                 coredump_dir {root}
                 shutdown_lifetime 0 seconds\n"
            ),
        );
        let mut command = Command::new("squid");
        command.args(["-N", "-f"]).arg(config);
        command
    })
}

#[test]
#[ignore = "peer: squid and nginx"]
fn squid_forwards_all_files_by_digest_and_basic() {
    let folder = Folder::new();
    let helpers = Path::new("/usr/lib/squid");
    let digest = folder.write("digest", "user:area:2839bc1913fb3f635d74987bc7c3e39f\n");
    let basic = folder.write("basic", "user:$apr1$3Ru6Vk5c$5rjJnpEuB53DEfPe.A5f9/\n");
    let digest = format!(
        "auth_param digest program {} -c {}\nauth_param digest realm area\nauth_param digest \
         children 2",
        helpers.join("digest_file_auth").display(),
        digest.display()
    );
    let basic = format!(
        "auth_param basic program {} {}\nauth_param basic realm area\nauth_param basic children 2",
        helpers.join("basic_ncsa_auth").display(),
        basic.display()
    );
    let site = site();
    let origin = nginx(&site, "", "");
    for (auth, options) in [
        (&digest, &["--digest"][..]),
        (&digest, &[]),
        (&basic, &[]),
        (&format!("{basic}\n{digest}"), &["--digest"]),
    ] {
        let proxy = squid(&folder, auth);
        let named = format!("http://user:secret@127.0.0.1:{}", proxy.port);
        assert_serves_all(&origin, &[options, &["--proxy", &named]].concat());
        let folder = Folder::new();
        let url = format!("https://localhost:{}/f", https::serve(&folder).port());
        let line = ["download", "--cacert", "ca.pem", "--proxy", &named, &url];
        folder.myapp([&line[..], options].concat()).run().code(0);
        assert_eq!(folder.read("f"), b"good");
        let wrong = named.replace("secret", "wrong");
        for url in [&url, &origin.url()] {
            let line = ["download", "--proxy", &wrong, url];
            folder
                .myapp([&line[..], options].concat())
                .run()
                .code(6)
                .says("rejected");
        }
    }
}

#[test]
#[ignore = "peer: node and express"]
fn express_serves_all_files() {
    let site = site();
    let root = site.path("files");
    let server = ListeningProgram::start(|port| {
        let script = format!(
            "const express = require('express'); const app = express();
             app.use(express.static('{}', {{ dotfiles: 'allow' }}));
             app.listen({port}, '127.0.0.1');",
            root.display()
        );
        let mut command = Command::new("node");
        command
            .env("NODE_PATH", "/usr/share/nodejs")
            .arg("-e")
            .arg(script);
        command
    });
    assert_serves_all(&server, &[]);
}

/// Downloads 40 files with eight at a time from nginx with this limit.
fn assert_limited_server_gives_all(zone: &str, limit: &str) {
    let site = site();
    let server = nginx(
        &site,
        "",
        &format!("location / {{ {limit} }} }} {zone} map $host $unused {{"),
    );
    let folder = Folder::new();
    let urls: Vec<_> = (0..40)
        .map(|number| format!("{}/{number}", server.url()))
        .collect();
    let ran = folder
        .myapp([
            "download",
            "-j8",
            "--retry",
            "20",
            "--retry-delay",
            "100ms",
            "-",
        ])
        .stdin(urls.join("\n"))
        .run()
        .code(0);
    assert!(
        ran.stderr.contains("40 of 40 files saved"),
        "{}",
        ran.stderr
    );
    for number in 0..40 {
        assert!(
            folder.read(&number.to_string()) == seeded(number, 3000),
            "{number}"
        );
    }
    let log = String::from_utf8(site.read("log")).unwrap();
    assert!(log.lines().count() > 40, "the limit was not reached");
}

#[test]
#[ignore = "peer: nginx"]
fn nginx_limits_delay_files_and_lose_none() {
    assert_limited_server_gives_all(
        "limit_req_zone $binary_remote_addr zone=requests:1m rate=20r/s;",
        "limit_req zone=requests burst=3 nodelay;",
    );
    assert_limited_server_gives_all(
        "limit_conn_zone $binary_remote_addr zone=connections:1m;",
        "limit_conn connections 4; limit_rate 2k;",
    );
}
