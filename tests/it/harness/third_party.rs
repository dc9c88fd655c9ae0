//! Third-party programs that listen on a port.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::Folder;
use super::ports::{ChildGuard, start_on_free_port};

/// A running third-party program, killed when dropped.
pub struct ListeningProgram {
    _program: ChildGuard,
    pub port: u16,
}

impl ListeningProgram {
    /// Starts the program that `command` returns for a port of 127.0.0.1.
    #[track_caller]
    pub fn start(command: impl Fn(u16) -> Command) -> Self {
        let (program, port) = start_on_free_port(|port| {
            let mut command = command(port);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            ChildGuard::spawn(&mut command)
        });
        Self {
            _program: program,
            port,
        }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

/// Starts nginx as one process, with its files in the folder. `blocks` returns the rest of its
/// configuration for a port.
#[track_caller]
pub fn nginx(folder: &Folder, blocks: impl Fn(u16) -> String) -> ListeningProgram {
    let root = folder.path("");
    ListeningProgram::start(|port| {
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;
             {}
             events {{}}\n",
            blocks(port),
            root = root.display()
        );
        let config = folder.write("nginx.conf", config);
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&root).arg("-c").arg(config);
        command
    })
}
