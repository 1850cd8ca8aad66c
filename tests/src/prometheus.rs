//! A real Prometheus: scrapes, is pushed to, pushes, answers queries. Of Debian's package on the path, or the newest one,
//! which `cargo xtask test` has unpacked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::free_address;
use crate::host::{Skip, eventually};
use crate::http;

/// From start to answering queries.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A dozen scrapes.
const SCRAPE_LIMIT: Duration = Duration::from_secs(15);

/// A Prometheus with its data in a temporary folder. Killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts one with this configuration and these flags, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or does not get ready, with its log.
    pub fn start(config: &str, flags: &[&str]) -> Result<Self> {
        Self::start_program(Path::new("prometheus"), config, flags)
    }

    /// The same with the newest one.
    ///
    /// # Errors
    /// A [`Skip`] if there is none, else as [`Prometheus::start`].
    pub fn start_newest(config: &str, flags: &[&str]) -> Result<Self> {
        let program = std::env::var_os("TELEMETRY_PEERS").map(|dir| Path::new(&dir).join("prometheus"));
        match program.filter(|program| program.is_file()) {
            Some(program) => Self::start_program(&program, config, flags),
            None => Err(anyhow!(Skip("Prometheus 3 is not here (TELEMETRY_PEERS)".to_owned()))),
        }
    }

    fn start_program(program: &Path, config: &str, flags: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = free_address()?;
        let config_path = dir.path().join("prometheus.yml");
        std::fs::write(&config_path, config)?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .spawn()
            .context("start prometheus (Debian package prometheus)")?;
        let prometheus = Self { child, address, dir };
        eventually("prometheus is ready", START_LIMIT, || {
            Ok(http::get(address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200))
        })
        .with_context(|| prometheus.log())?;
        Ok(prometheus)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The series that an expression has now.
    ///
    /// # Errors
    /// If it does not answer with a vector.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        query(self.address, expression)
    }

    /// Waits until an expression has series.
    ///
    /// # Errors
    /// If it has none after a while, with the log.
    pub fn has(&self, expression: &str) -> Result<Vec<Value>> {
        let mut series = Vec::new();
        eventually(expression, SCRAPE_LIMIT, || {
            series = self.query(expression)?;
            Ok(!series.is_empty())
        })
        .with_context(|| format!("{}{:?}", self.log(), self.query("up")))?;
        Ok(series)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The series that an expression has now, at any server with Prometheus' API.
///
/// # Errors
/// If it does not answer with a vector or matrix.
pub fn query(address: SocketAddr, expression: &str) -> Result<Vec<Value>> {
    let answer = http::get(address, &format!("/api/v1/query?query={}", percent(expression)), &[])?;
    let body: Value = serde_json::from_slice(&answer.body).context("answer to a query")?;
    match body.pointer("/data/result") {
        Some(Value::Array(series)) => Ok(series.clone()),
        _ => bail!("{expression}: {body}"),
    }
}

/// Everything but letters and digits as `%xx`, for a query.
#[must_use]
pub fn percent(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
