//! The agent as a process: started on a port of its own, scraped, stopped, or watched while it refuses to start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::host::{self, scaled};
use crate::http;
use crate::page::Page;

/// From start to the first page; half a second on bare metal, most of it the verifier's.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// From SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// What the agent says of itself after each sweep over its maps.
const SWEEPS: &str = "telemetry_agent_drain_duration_seconds_count";

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Between two readings of the maps.
    pub tick: Duration,
    /// Lines of the configuration before its tables.
    pub lines: Vec<String>,
    /// Lines of the configuration's `[kernel]` table.
    pub kernel: Vec<String>,
    /// Lines of its `[attribution]` table.
    pub attribution: Vec<String>,
    /// Lines of other tables, each with its table's name.
    pub others: Vec<(String, String)>,
    /// A command that becomes the agent: its words go before the agent's. Empty: the agent itself.
    pub through: Vec<String>,
    /// Whether its HTTP side speaks TLS, so that its log tells that it is ready.
    pub tls: bool,
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    address: SocketAddr,
    tick: Duration,
    dir: TempDir,
    tls: bool,
}

/// How an agent that did not stay ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to its standard error.
    pub stderr: String,
    /// All it wrote to its standard output.
    pub stdout: String,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            lines: Vec::new(),
            kernel: Vec::new(),
            attribution: Vec::new(),
            others: Vec::new(),
            through: Vec::new(),
            tls: false,
        }
    }
}

impl Settings {
    /// A short tick and the documented defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another tick.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// One more line before the tables.
    #[must_use]
    pub fn top(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// One more line for `[kernel]`.
    #[must_use]
    pub fn kernel(mut self, line: &str) -> Self {
        self.kernel.push(line.to_owned());
        self
    }

    /// One more line for `[attribution]`.
    #[must_use]
    pub fn attribution(mut self, line: &str) -> Self {
        self.attribution.push(line.to_owned());
        self
    }

    /// One more line for another table.
    #[must_use]
    pub fn line(mut self, table: &str, line: &str) -> Self {
        self.others.push((table.to_owned(), line.to_owned()));
        self
    }

    /// With a web configuration, which asks for TLS.
    #[must_use]
    pub fn secured(mut self, web: &Path) -> Self {
        self.tls = true;
        self.top(&format!("web_config_file = \"{}\"", web.display()))
    }

    /// By way of a command that becomes the agent.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or does not get ready, with its log.
    pub fn start(&self) -> Result<Agent> {
        self.start_with(|_| {})
    }

    /// The same, with a last word on the command.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub fn start_with(&self, adjust: impl FnOnce(&mut Command)) -> Result<Agent> {
        let dir = tempfile::tempdir().context("temporary folder")?;
        let address = free_address()?;
        let mut command = self.command(dir.path(), address)?;
        adjust(&mut command);
        let child = command.spawn().context("start the agent")?;
        let mut agent = Agent { child, address, tick: self.tick, dir, tls: self.tls };
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts an agent that is expected to end by itself.
    ///
    /// # Errors
    /// If it cannot be started, or stays.
    pub fn run_to_end(&self, adjust: impl FnOnce(&mut Command)) -> Result<Outcome> {
        let dir = tempfile::tempdir().context("temporary folder")?;
        let mut command = self.command(dir.path(), free_address()?)?;
        adjust(&mut command);
        outcome(command, dir.path())
    }

    /// The command, its configuration written into `dir`.
    fn command(&self, dir: &Path, address: SocketAddr) -> Result<Command> {
        let config = dir.join("telemetry.toml");
        fs::write(&config, self.toml(dir)).with_context(|| format!("write {}", config.display()))?;
        let mut command = match self.through.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary()?);
                command
            }
            None => Command::new(binary()?),
        };
        command.arg("run").arg("--config").arg(&config).arg("--listen").arg(address.to_string());
        capture(&mut command, dir)?;
        Ok(command)
    }

    fn toml(&self, dir: &Path) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "data_dir = {:?}\ntick = \"{}ms\"", dir.join("data"), self.tick.as_millis());
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let own = [("kernel", &self.kernel), ("attribution", &self.attribution)];
        let own = own.iter().flat_map(|(table, lines)| lines.iter().map(|line| (*table, line.as_str())));
        let others = self.others.iter().map(|(table, line)| (table.as_str(), line.as_str()));
        for (table, line) in own.chain(others) {
            tables.entry(table).or_default().push(line);
        }
        for (table, lines) in tables {
            let _ = writeln!(text, "[{table}]\n{}", lines.join("\n"));
        }
        text
    }
}

// === impl Agent ===

impl Agent {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder: the configuration, and `data`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it wrote to its standard error up to now.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// The page as it is now: up to a tick old.
    ///
    /// # Errors
    /// If it cannot be had or is not of the format.
    pub fn scrape(&self) -> Result<Page> {
        let answer = http::get(self.address, "/metrics", &[("Accept", "text/plain; version=0.0.4")])
            .with_context(|| format!("scrape; its log ends:\n{}", tail(&self.log())))?;
        if answer.status != 200 {
            bail!("/metrics: status {}", answer.status);
        }
        let text = String::from_utf8(answer.body).context("page")?;
        Page::parse(&text).context("page")
    }

    /// A page of which every figure was read from the kernel after this call.
    ///
    /// # Errors
    /// If no reading comes about in time.
    pub fn fresh(&self) -> Result<Page> {
        let sweeps =
            |page: &Page| -> Vec<f64> { page.matching(SWEEPS, &[]).map(|series| series.value).collect() };
        let before = sweeps(&self.scrape()?);
        if before.is_empty() {
            bail!("the page has no {SWEEPS}");
        }
        let mut page = Page::default();
        // The first sweep to end may have begun before this call; the second cannot have.
        host::eventually("two more sweeps over the maps", self.tick * 20 + Duration::from_secs(2), || {
            page = self.scrape()?;
            let now = sweeps(&page);
            Ok(now.len() >= before.len() && now.iter().zip(&before).all(|(now, before)| *now >= before + 2.0))
        })?;
        Ok(page)
    }

    /// Waits for a page of which a condition holds; the last page is in the message otherwise.
    ///
    /// # Errors
    /// When `limit` is over.
    pub fn page_when(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Page) -> bool,
    ) -> Result<Page> {
        let mut page = Page::default();
        host::eventually(what, limit, || {
            page = self.scrape()?;
            Ok(condition(&page))
        })?;
        Ok(page)
    }

    /// Ends it as a service manager does.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(mut self) -> Result<Outcome> {
        self.signal(libc::SIGTERM)?;
        let status = wait(&mut self.child, STOP_LIMIT)?;
        Ok(Outcome { status, stderr: self.log(), stdout: String::new() })
    }

    /// Ends it without a chance to clean up.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill the agent")?;
        let status = self.child.wait()?;
        if status.signal() != Some(libc::SIGKILL) {
            bail!("ended before it was killed: {status}");
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: kill takes two numbers; the child is ours and not yet waited for, so its id is still its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).context("signal the agent");
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended at start: {status}; its log:\n{}", tail(&self.log()));
            }
            let is_ready = match self.tls {
                true => self.log().contains("\"listening\""),
                false => http::get(self.address, "/readyz", &[]).is_ok_and(|answer| answer.status == 200),
            };
            if is_ready {
                return Ok(());
            }
            if start.elapsed() > scaled(READY_LIMIT) {
                bail!("the agent is not ready after {:?}; its log:\n{}", start.elapsed(), tail(&self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the agent with these arguments until it ends.
///
/// # Errors
/// If it cannot be started, or stays.
pub fn run(arguments: &[&str], adjust: impl FnOnce(&mut Command)) -> Result<Outcome> {
    let dir = tempfile::tempdir().context("temporary folder")?;
    let mut command = Command::new(binary()?);
    command.args(arguments);
    capture(&mut command, dir.path())?;
    adjust(&mut command);
    outcome(command, dir.path())
}

/// A port of the loopback that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// The agent under test: `TELEMETRY_AGENT`, or what was built beside this executable.
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TELEMETRY_AGENT") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("own path")?;
    // target/<profile>/deps/kernel-<hash>, or target/<profile>/bench-kernel.
    let profile =
        own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("no folder of the profile")?;
    let target = profile.parent().context("no target folder")?;
    let candidates = [profile.to_owned(), target.join("release"), target.join("debug")];
    candidates.iter().map(|dir| dir.join("telemetry-agent")).find(|path| path.is_file()).with_context(|| {
        format!("no telemetry-agent in {}: build it, or set TELEMETRY_AGENT", target.display())
    })
}

/// Whether the agent is a debug build: larger and several times slower. The promises are for the product.
///
/// # Errors
/// If there is none.
pub fn is_unoptimised() -> Result<bool> {
    Ok(binary()?.components().any(|component| component.as_os_str() == "debug"))
}

fn capture(command: &mut Command, dir: &Path) -> Result<()> {
    command.stdin(Stdio::null());
    command.stdout(File::create(dir.join("stdout")).context("capture the output")?);
    command.stderr(File::create(dir.join("stderr")).context("capture the log")?);
    Ok(())
}

fn outcome(mut command: Command, dir: &Path) -> Result<Outcome> {
    let mut child = command.spawn().context("start the agent")?;
    let status = wait(&mut child, READY_LIMIT);
    if status.is_err() {
        // It stayed although it should not have; the error says so, and nothing may be left behind.
        let _ = child.kill();
        let _ = child.wait();
    }
    let read = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (stderr, stdout) = (read("stderr"), read("stdout"));
    let status = status.with_context(|| format!("its log ends:\n{}", tail(&stderr)))?;
    Ok(Outcome { status, stderr, stdout })
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let mut status = None;
    host::eventually("the agent ends", limit, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    status.context("no exit status")
}

/// The end of a log, for messages.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
