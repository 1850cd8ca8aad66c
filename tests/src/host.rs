//! What this machine offers the suite, and how a test that it cannot serve says so.
//!
//! A skip is written to the file named by `TELEMETRY_SKIPS`, because a green run that skipped everything proves
//! nothing: whoever started the suite reads that file and decides which reasons it takes.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

/// The kernel's type information, without which the agent cannot know its structs.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// By how much limits are stretched where every instruction is emulated.
const EMULATED: u32 = 5;
/// How often a condition is looked at again while it is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Why a test cannot run here. A feature that this kernel does not have reads `kernel lacks ..`.
#[derive(Debug)]
pub struct Skip(pub String);

// === impl Skip ===

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a test as skipped because the kernel has no `feature`.
pub fn kernel_lacks(feature: &str) -> anyhow::Error {
    anyhow!(Skip(format!("kernel lacks {feature}")))
}

/// How many times slower than bare metal this machine is: `TELEMETRY_SLOW`, or what an emulated CPU's name tells.
#[must_use]
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    *SLOWNESS.get_or_init(|| {
        let told = std::env::var("TELEMETRY_SLOW").ok().and_then(|text| text.parse().ok());
        told.unwrap_or_else(|| if emulated() { EMULATED } else { 1 }).max(1)
    })
}

/// Whether the CPUs are QEMU's own: they lose ticks, and with them what the kernel samples by the tick.
#[must_use]
pub fn emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}

/// A limit of time, stretched on a slow machine.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    limit * slowness()
}

/// The same in seconds.
#[must_use]
pub fn scaled_seconds(limit: f64) -> f64 {
    limit * f64::from(slowness())
}

/// CPUs that tasks can run on.
#[must_use]
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs one test: alone, since its figures are the machine's, and as skipped where the machine cannot serve it.
///
/// On an emulated CPU a claim that fails is tried once more, and the first failure is printed: there the clock and the
/// ticks themselves are late or lost, which no tolerance covers without hiding what the claim is for.
///
/// # Panics
/// If the body fails: the test harness takes nothing else for a failure that also shows the chain of causes.
pub fn kernel_test<Body: Fn() -> Result<()>>(body: Body) {
    run(body, unfit());
}

/// Runs one test that needs root but no eBPF: alone, and as skipped where the machine cannot serve it.
///
/// # Panics
/// As [`kernel_test`].
pub fn root_test<Body: Fn() -> Result<()>>(body: Body) {
    run(body, not_root());
}

fn run<Body: Fn() -> Result<()>>(body: Body, unfit: Option<String>) {
    let _alone = alone();
    let name = name_of::<Body>();
    if let Some(reason) = unfit {
        skip(name, &reason);
        return;
    }
    let Err(mut error) = body() else { return };
    if emulated() && !error.is::<Skip>() {
        // Past the harness, which shows only what failing tests print.
        let _ = writeln!(std::io::stderr(), "{name}: failed at first, on an emulated CPU: {error:#}");
        match body() {
            Ok(()) => return,
            Err(again) => error = again,
        }
    }
    match error.downcast_ref::<Skip>() {
        Some(Skip(reason)) => skip(name, reason),
        #[expect(clippy::panic, reason = "this is how a test fails")]
        None => panic!("{error:?}"),
    }
}

/// A file of other projects' public test data.
///
/// # Errors
/// A [`Skip`] if it is not here.
pub fn oracle(path: &str) -> Result<PathBuf> {
    let told = std::env::var_os("TELEMETRY_ORACLES").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    let file = told.unwrap_or_else(beside).join(path);
    if file.is_file() {
        return Ok(file);
    }
    Err(anyhow!(Skip(format!("{} is not there (TELEMETRY_ORACLES)", file.display()))))
}

/// Waits for a condition.
///
/// # Errors
/// When `limit` (stretched on a slow machine) is over, naming `what`, or when looking fails.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = scaled(limit);
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!("{what}: not so after {:.1} s", limit.as_secs_f64());
        }
        thread::sleep(POLL);
    }
}

/// Holds a figure to a truth, within the larger of a part of the truth and an absolute slack.
///
/// # Errors
/// If it is farther off.
pub fn near(what: &str, figure: f64, truth: f64, part: f64, slack: f64) -> Result<()> {
    let allowed = (truth.abs() * part).max(slack);
    let off = figure - truth;
    if off.abs() <= allowed {
        return Ok(());
    }
    bail!("{what}: page {figure}, truth {truth}: off by {off:+.6}, allowed {allowed:.6}");
}

/// Holds a count to a truth exactly.
///
/// # Errors
/// If they differ.
pub fn exactly(what: &str, figure: f64, truth: f64) -> Result<()> {
    // Counts below 2^53 are exact in both, so half a unit tells equal from different.
    if (figure - truth).abs() < 0.5 {
        return Ok(());
    }
    bail!("{what}: page {figure}, truth {truth}");
}

/// Holds a claim.
///
/// # Errors
/// If it is false, in the words of `why`.
pub fn claim(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(anyhow!(why())) }
}

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed while it held the turn leaves nothing behind in this lock.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `module::test` of a closure that stands in a test function.
fn name_of<Body>() -> &'static str {
    let full = std::any::type_name::<Body>();
    let name = full.strip_suffix("::{{closure}}").unwrap_or(full);
    name.split_once("::").map_or(name, |(_, inner)| inner)
}

/// Why nothing of the kernel suite can run here.
fn unfit() -> Option<String> {
    not_root().or_else(|| (!Path::new(BTF).exists()).then(|| "kernel lacks BTF".into()))
}

fn not_root() -> Option<String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    (unsafe { libc::geteuid() } != 0).then(|| "not run as root".into())
}

#[expect(clippy::print_stderr, reason = "the one line that tells a reader of the test's output of a skip")]
fn skip(name: &str, reason: &str) {
    eprintln!("SKIP {name}: {reason}");
    let Some(path) = std::env::var_os("TELEMETRY_SKIPS") else { return };
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
        // One write a line: two test processes that share the file do not mix theirs.
        file.write_all(format!("{name}: {reason}\n").as_bytes())
    });
    if let Err(error) = written {
        eprintln!("SKIP {name}: cannot record it in {}: {error}", path.display());
    }
}

/// The kernel's release, for reports.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
