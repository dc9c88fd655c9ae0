//! nginx as the server of the download cases.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use rcgen::{CertifiedKey, generate_simple_self_signed};

/// nginx process; killed when dropped.
pub(crate) struct Nginx {
    child: Child,
    host: String,
    ports: [u16; 2],
    /// Document root.
    pub(crate) root: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) version: String,
}

impl Nginx {
    /// Starts nginx in `folder` for http and https on the second core; `None` if it is not
    /// installed.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let mut second_core = Command::new("taskset");
        second_core.args(["-c", "1"]);
        Self::start_at(folder, "127.0.0.1", second_core)
    }

    /// Starts nginx through a wrapper command, at the given address.
    pub(crate) fn start_at(
        folder: &Path,
        host: &str,
        mut command: Command,
    ) -> anyhow::Result<Option<Self>> {
        let Some(version) = version() else {
            return Ok(None);
        };
        let root = folder.join("root");
        fs::create_dir_all(&root)?;
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let certificate = folder.join("cert.pem");
        fs::write(&certificate, cert.pem())?;
        fs::write(folder.join("key.pem"), signing_key.serialize_pem())?;
        let ports = [free_port()?, free_port()?];
        fs::write(folder.join("nginx.conf"), config(folder, host, ports))?;
        command.arg(program()).arg("-p").arg(folder);
        command.arg("-c").arg(folder.join("nginx.conf"));
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut nginx = Self {
            child,
            host: host.to_owned(),
            ports,
            root,
            certificate,
            version,
        };
        nginx.wait(folder)?;
        Ok(Some(nginx))
    }

    pub(crate) fn base(&self, scheme: &str) -> String {
        let port = if scheme == "http" {
            self.ports[0]
        } else {
            self.ports[1]
        };
        format!("{scheme}://{}:{port}", self.host)
    }

    /// Waits for the pid file, which nginx writes when it listens.
    fn wait(&mut self, folder: &Path) -> anyhow::Result<()> {
        for _ in 0..1000 {
            ensure!(self.child.try_wait()?.is_none(), "nginx exited at start");
            if folder.join("pid").exists() {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        anyhow::bail!("nginx does not listen")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Errors mean that the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian installs nginx in `/usr/sbin`, which is only in root's PATH.
fn program() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() {
        "/usr/sbin/nginx"
    } else {
        "nginx"
    }
}

fn version() -> Option<String> {
    Command::new("taskset").arg("--version").output().ok()?;
    let output = Command::new(program()).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.trim().rsplit(' ').next()?.to_owned())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn config(folder: &Path, host: &str, [http, https]: [u16; 2]) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
         events {{ worker_connections 1024; }}
         http {{
           {temporary} access_log off; root {folder}/root;
           limit_conn_zone $binary_remote_addr zone=connections:1m;
           limit_req_zone $binary_remote_addr zone=requests:1m rate=20r/s;
           sendfile on; keepalive_requests 1000000;
           server {{
             listen {host}:{http};
             listen {host}:{https} ssl;
             ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
             ssl_session_cache shared:it:1m;
             location /limit-conn/ {{
               alias {folder}/root/; limit_conn connections 4; limit_rate 128k;
             }}
             location /limit-req/ {{
               alias {folder}/root/; limit_req zone=requests burst=5 nodelay;
             }}
           }}
         }}"
    )
}
