//! Other stores as processes on loopback: started, fed by remote write, measured from `/proc`, killed, started again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{http, proc};

/// A server that does not answer by then never will.
const START_MAX: Duration = Duration::from_secs(180);
/// An answer may need seconds of CPU, on a machine that others use.
const ANSWER_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prometheus with its remote-write receiver.
    Prometheus,
    /// VictoriaMetrics, single node.
    VictoriaMetrics,
}

/// A running store; killed with its handle.
pub struct Peer {
    kind: Kind,
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    child: Child,
}

// === impl Kind ===

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prometheus, Self::VictoriaMetrics];

    fn program(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoria-metrics",
        }
    }

    /// Its name with the version of its package, or `None` where `folder` does not hold it.
    ///
    /// The programs are not asked: Debian's VictoriaMetrics says nothing.
    #[must_use]
    pub fn version(self, folder: &Path) -> Option<String> {
        let versions = std::fs::read_to_string(folder.join("../../VERSIONS")).ok()?;
        let version =
            versions.lines().find_map(|line| line.strip_prefix(self.program())?.strip_prefix(' '))?;
        folder.join(self.program()).is_file().then(|| format!("{} {version}", self.name()))
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus",
            Self::VictoriaMetrics => "VictoriaMetrics",
        }
    }
}

// === impl Peer ===

impl Peer {
    /// Starts a store that keeps its files in `dir`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(kind: Kind, folder: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let program = folder.join(kind.program());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = spawn(kind, &program, dir, port)?;
        let mut peer = Self { kind, program, dir: dir.to_path_buf(), port, child };
        let ready = if kind == Kind::Prometheus { "/-/ready" } else { "/health" };
        peer.wait(ready, |_| true)?;
        Ok(peer)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it takes samples.
    #[must_use]
    pub fn write_path(&self) -> &'static str {
        "/api/v1/write"
    }

    /// Resident bytes.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resident(&self) -> Result<f64> {
        let status = proc::read(format!("/proc/{}/status", self.child.id()))?;
        Ok(proc::field(&status, "VmRSS:").context("VmRSS")? * 1024.0)
    }

    /// Forgets the most memory it has had.
    ///
    /// # Errors
    /// If it is gone.
    pub fn reset_peak(&self) -> Result<()> {
        proc::reset_peak(&self.child.id().to_string())
    }

    /// The most resident bytes it has had since.
    ///
    /// # Errors
    /// If it is gone.
    pub fn peak_bytes(&self) -> Result<f64> {
        proc::peak_bytes(&self.child.id().to_string())
    }

    /// The answer to a query at `start`, `start + step` up to `end`, milliseconds. No cache has a part in it.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn query_range(&self, query: &str, (start, end, step): (i64, i64, i64)) -> Result<Vec<u8>> {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let query = http::percent_encoded(query);
        let (start, end, step) = (seconds(start), seconds(end), seconds(step));
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}&nocache=1");
        let answer = http::get_within(ANSWER_MAX, self.address(), &path)?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, text());
        Ok(answer.body)
    }

    /// CPU seconds so far.
    ///
    /// # Errors
    /// If it is gone.
    pub fn cpu(&self) -> Result<f64> {
        Ok(proc::schedstat(self.child.id())?.run_s)
    }

    /// Bytes of its log; VictoriaMetrics has none.
    #[must_use]
    pub fn log_bytes(&self) -> Option<f64> {
        (self.kind == Kind::Prometheus).then(|| bytes_below(&self.dir.join("data/wal")))
    }

    /// Bytes of all samples as files with their index, once everything is written and merged.
    ///
    /// # Errors
    /// If it refuses.
    pub fn settled_bytes(&self) -> Result<f64> {
        match self.kind {
            Kind::Prometheus => {
                let answer = http::post(self.address(), "/api/v1/admin/tsdb/snapshot", &[], &[])?;
                anyhow::ensure!(answer.status == 200, "snapshot: {}", answer.status);
                Ok(bytes_below(&self.dir.join("data/snapshots")))
            }
            Kind::VictoriaMetrics => {
                for path in ["/internal/force_flush", "/internal/force_merge"] {
                    let answer = http::get(self.address(), path, &[])?;
                    anyhow::ensure!(answer.status == 200, "{path}: {}", answer.status);
                }
                // The merge goes on behind the answer, and what is in memory goes to disk every five seconds, whatever
                // was asked: it is done when the size has stood still for longer than two of those.
                let (mut bytes, mut since, begun) = (0.0, Instant::now(), Instant::now());
                while since.elapsed() < Duration::from_secs(12) && begun.elapsed() < START_MAX {
                    let now = bytes_below(&self.dir.join("data")) + bytes_below(&self.dir.join("indexdb"));
                    if (now - bytes).abs() >= 1.0 {
                        (bytes, since) = (now, Instant::now());
                    }
                    std::thread::sleep(POLL);
                }
                Ok(bytes)
            }
        }
    }

    /// Kills it as by `kill -9`, starts it on the same files and waits for an answer to `query` at `t` seconds that is
    /// not empty. Returns how long that took from the start on.
    ///
    /// # Errors
    /// If the answer does not come.
    pub fn restart(&mut self, query: &str, t: i64) -> Result<f64> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(self.kind, &self.program, &self.dir, self.port)?;
        self.wait_for(query, t)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Waits for an answer to `query` at `t` seconds that is not empty.
    ///
    /// # Errors
    /// If it does not come.
    pub fn wait_for(&mut self, query: &str, t: i64) -> Result<()> {
        let path = format!("/api/v1/query?query={query}&time={t}");
        self.wait(&path, |body| body.contains("\"value\":"))
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn wait(&mut self, path: &str, is_good: impl Fn(&str) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended: {status}", self.kind.name());
            }
            let answer = http::get(self.address(), path, &[]);
            if answer.is_ok_and(|a| a.status == 200 && is_good(&String::from_utf8_lossy(&a.body))) {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < START_MAX, "{} does not answer {path}", self.kind.name());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be gone already; that is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(kind: Kind, program: &Path, dir: &Path, port: u16) -> Result<Child> {
    let mut command = Command::new(program);
    match kind {
        Kind::Prometheus => {
            let config = dir.join("prometheus.yml");
            std::fs::write(&config, "global: {scrape_interval: 15s}\n")?;
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
            command.args(["--storage.tsdb.retention.time=100y", "--web.enable-remote-write-receiver"]);
            command.args(["--web.enable-admin-api", "--storage.tsdb.no-lockfile"]);
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        }
        Kind::VictoriaMetrics => {
            command.arg(format!("-storageDataPath={}", dir.display()));
            command.args(["-retentionPeriod=100y", "-search.latencyOffset=0s"]);
            command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        }
    }
    let log = File::create(dir.with_extension("log"))?;
    command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
    command.spawn().with_context(|| program.display().to_string())
}

/// Bytes of all files below a folder.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "file sizes")]
pub fn bytes_below(dir: &Path) -> f64 {
    let mut sum = 0.0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => sum += bytes_below(&entry.path()),
            Ok(meta) => sum += meta.len() as f64,
            // A merge took it away meanwhile.
            Err(_) => {}
        }
    }
    sum
}
