//! Download clients, with equivalent options for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine;
use crate::report::Report;

const OURS: &str = env!("CARGO_BIN_EXE_myapp");

/// Concurrent files of every client.
const JOBS: usize = 16;

/// The tutorial's implementation: aiohttp and aiofiles, 16 concurrent tasks.
const AIOHTTP: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/rivals/download/fetch.py"
);

/// URLs and target directory of one case.
pub(crate) struct Job {
    /// File with one URL per line.
    urls: PathBuf,
    /// curl configuration with URLs and file names.
    curl: PathBuf,
    certificate: PathBuf,
    pub(crate) out: PathBuf,
}

/// Installed program with its version.
pub(crate) struct Client {
    pub(crate) name: String,
    script: String,
}

impl Job {
    pub(crate) fn write(
        folder: &Path,
        base: &str,
        count: usize,
        certificate: &Path,
    ) -> anyhow::Result<Self> {
        let urls = folder.join("urls");
        let curl = folder.join("curl");
        let out = folder.join("out");
        let mut lines = String::new();
        let mut config = String::new();
        for number in 0..count {
            lines += &format!("{base}/{number:05}\n");
            let path = out.join(format!("{number:05}"));
            config += &format!(
                "url = \"{base}/{number:05}\"\noutput = \"{}\"\n",
                path.display()
            );
        }
        fs::write(&urls, lines)?;
        fs::write(&curl, config)?;
        Ok(Self {
            urls,
            curl,
            certificate: certificate.to_owned(),
            out,
        })
    }
}

impl Client {
    pub(crate) fn is_curl(&self) -> bool {
        self.name.starts_with("curl")
    }

    pub(crate) fn script(&self, job: &Job) -> String {
        let mut script = self.script.replace("16", &JOBS.to_string());
        let names = [
            ("URLS", &job.urls),
            ("CURLRC", &job.curl),
            ("CERTIFICATE", &job.certificate),
            ("OUT", &job.out),
        ];
        for (name, path) in names {
            script = script.replace(name, &path.display().to_string());
        }
        script
    }
}

/// Returns the installed clients, ours first.
pub(crate) fn installed(report: &Report) -> Vec<Client> {
    let ours = format!("exec {OURS} download -q -j 16 --cacert CERTIFICATE -d OUT - <URLS");
    let name = format!("myapp {}", env!("CARGO_PKG_VERSION"));
    let mut clients = vec![Client { name, script: ours }];
    for (program, package, script) in [
        (
            "curl",
            "curl",
            "exec curl -q -Z --parallel-max 16 --cacert CERTIFICATE -K CURLRC 2>/dev/null",
        ),
        (
            "aria2c",
            "aria2",
            "exec aria2c --no-conf -q -j 16 -x 1 -s 1 --file-allocation=none \
             --ca-certificate=CERTIFICATE -d OUT -i URLS",
        ),
        (
            "wget2",
            "wget2",
            "cd OUT; exec wget2 --no-config -q --max-threads=16 --no-hsts --no-robots \
             --ca-certificate=CERTIFICATE -i URLS",
        ),
        // One URL per run; it accepts only the installed root certificates.
        (
            "axel",
            "axel",
            "cd OUT; exec xargs -a URLS -P 16 -n 1 axel -q -k -n 1",
        ),
    ] {
        match machine::version(program) {
            Some(version) => clients.push(Client {
                name: format!("{program} {}", number(&version)),
                script: script.to_owned(),
            }),
            None => report.skipped(&format!("{program} (apt-get install {package})")),
        }
    }
    match python() {
        Ok((python, versions)) => clients.push(Client {
            name: versions,
            script: format!("exec {} {AIOHTTP} URLS OUT CERTIFICATE", python.display()),
        }),
        Err(error) => report.skipped(&format!("aiohttp and aiofiles (pip): {error:#}")),
    }
    clients
}

/// Extracts the version number.
fn number(text: &str) -> &str {
    let digit = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    text.split(' ').find(digit).unwrap_or_default()
}

/// Returns a Python with aiohttp and aiofiles, installed once in the target directory.
fn python() -> anyhow::Result<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aiohttp");
    let python = folder.join("bin/python");
    let versions = |python: &Path| {
        let program = "import aiohttp, aiofiles, importlib.metadata as m; \
                       print('aiohttp', m.version('aiohttp'), 'aiofiles', m.version('aiofiles'))";
        let output = Command::new(python).args(["-c", program]).output().ok()?;
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned())
    };
    if versions(&python).is_none() {
        let venv = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .output()?;
        anyhow::ensure!(venv.status.success(), "python3 -m venv: {}", venv.status);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "-q", "aiohttp", "aiofiles"]);
        let pip = pip.output()?;
        anyhow::ensure!(pip.status.success(), "pip install: {}", pip.status);
    }
    let versions = versions(&python);
    versions
        .map(|versions| (python, versions))
        .ok_or_else(|| anyhow::anyhow!("import failed"))
}
