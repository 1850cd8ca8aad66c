//! The writing process and the hand that starts, follows and kills it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use telemetry_tests::host::eventually;
use telemetry_tests::loopdev::Mount;
use telemetry_tsdb::db::Db;
use telemetry_tsdb::fs::sim::SimClock;
use telemetry_tsdb::fs::{RealStorage, Storage};

use crate::ledger::{Ledger, Note};
use crate::load::{Load, START, config};
use crate::mortal::{Fate, Mortal, Phase, Plan};

/// Names the work to a process that is to do it.
const VARIABLE: &str = "TELEMETRY_STORE_WRITER";
/// No life is longer.
const LIFE_LIMIT: Duration = Duration::from_secs(60);

/// One life of a writing process.
#[derive(Clone, Debug)]
pub struct Life {
    /// The store.
    pub dir: PathBuf,
    /// Its number, which makes its choices.
    pub life: u64,
    /// When it begins.
    pub now: i64,
    /// After how many ticks it ends by itself.
    pub ticks: u64,
    /// When it ends itself.
    pub plan: Plan,
    /// Where its phase is noted.
    pub note: PathBuf,
}

/// A life under way. Killed when dropped.
pub struct Running {
    child: Child,
    lines: BufReader<UnixStream>,
    note: PathBuf,
}

/// What ends a life.
#[derive(Clone, Copy, Debug)]
pub enum Death<'a> {
    /// SIGKILL.
    Kill,
    /// The file system loses its power.
    Power(&'a Mount),
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed, while it was at this.
    Killed(Phase),
    /// By itself, after all its ticks.
    Finished,
    /// By itself, because of an error; its own words are on the standard error.
    Failed(Phase),
}

/// Does the work the environment names, if it names any.
///
/// # Errors
/// If the store cannot be written at all.
pub fn run_if_asked() -> Result<()> {
    let Ok(work) = std::env::var(VARIABLE) else { return Ok(()) };
    // SAFETY: whoever sets the variable passes a socket as descriptor 0, and nothing else of this process uses it.
    let mut socket = unsafe { UnixStream::from_raw_fd(0) };
    let words: Vec<&str> = work.split('|').collect();
    let [dir, life, now, ticks, plan, note] = *words.as_slice() else { bail!("work {work:?}") };
    let fate = Fate::new(Plan::parse(plan).context("plan")?, Some(Path::new(note)))?;
    let mut text = String::new();
    let mut witness = |notes: &[Note]| -> Result<()> {
        text.clear();
        notes.iter().for_each(|note| note.put(&mut text));
        socket.write_all(text.as_bytes()).context("the supervisor is gone")
    };
    let (life, now, ticks) = (life.parse()?, now.parse()?, ticks.parse::<u64>()?);
    let clock = Arc::new(SimClock::at(now));
    fate.enter(Phase::Opening);
    let storage: Arc<dyn Storage> = Arc::new(Mortal::new(hold(Path::new(dir))?, Arc::clone(&fate)));
    let (db, report) = Db::open(config(), storage, clock.clone())?;
    ensure!(report.damaged.is_empty(), "damaged files: {:?}", report.damaged);
    fate.enter(Phase::Idle);
    let mut load = Load::new(&db, &clock, life, now, &mut witness)?;
    for _ in 0..ticks {
        load.tick(&mut witness, &|begins| fate.keep_house(begins))?;
    }
    Ok(())
}

// === impl Life ===

impl Life {
    /// Starts it.
    ///
    /// # Errors
    /// If there can be no process.
    pub fn start(&self) -> Result<Running> {
        let Self { dir, life, now, ticks, plan, note } = self;
        let (ours, theirs) = UnixStream::pair().context("socket pair")?;
        ours.set_read_timeout(Some(telemetry_tests::host::scaled(LIFE_LIMIT)))?;
        let work = format!("{}|{life}|{now}|{ticks}|{}|{}", dir.display(), plan.word(), note.display());
        let child = Command::new(std::env::current_exe().context("own path")?)
            .args(["--exact", "store_writer", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, work)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .context("start a writer")?;
        Ok(Running { child, lines: BufReader::new(ours), note: note.clone() })
    }
}

// === impl Running ===

impl Running {
    /// Takes in what it says until `until` is true of it, or it is gone.
    ///
    /// # Errors
    /// If it says nothing for too long.
    pub fn follow(&mut self, ledger: &mut Ledger, until: impl FnMut(&Note) -> bool) -> Result<()> {
        follow(&mut self.lines, ledger, |_| true, until)
    }

    /// Takes in what it says; after `delay`, wherever it is then, it dies.
    ///
    /// # Errors
    /// As [`Running::end`], or if there is no such death.
    pub fn end_after(mut self, delay: Duration, death: Death<'_>, ledger: &mut Ledger) -> Result<End> {
        let pid = i32::try_from(self.child.id())?;
        let (over, is_over) = channel::<()>();
        let is_dark = AtomicBool::new(false);
        let phase = thread::scope(|scope| {
            let (note, is_dark) = (&self.note, &is_dark);
            let killer = scope.spawn(move || {
                let _ = is_over.recv_timeout(delay);
                let phase = phase_in(note);
                let done = match death {
                    Death::Kill => Ok(()),
                    Death::Power(mount) => {
                        is_dark.store(true, Ordering::SeqCst);
                        mount.shut_down()
                    }
                };
                // SAFETY: kill takes two numbers. The process is not waited for before this thread has ended, so the
                // id is its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                done.map(|()| phase)
            });
            // Without power nobody hears a promise: a sync that was under way may come back well on a dead disk.
            let heard = |note: &Note| {
                !is_dark.load(Ordering::SeqCst) || !matches!(note, Note::Acknowledged | Note::Open { .. })
            };
            let followed = follow(&mut self.lines, ledger, heard, |_| false);
            drop(over);
            let phase = killer.join().map_err(|_| anyhow!("the killer panicked"))??;
            followed.map(|()| phase)
        })?;
        match (self.end(ledger)?, death) {
            (End::Killed(_), Death::Power(_)) => Ok(End::Killed(phase)),
            (end, _) => Ok(end),
        }
    }

    /// Takes in the rest of what it said and says how it ended.
    ///
    /// # Errors
    /// If another signal than that of its death ended it.
    pub fn end(mut self, ledger: &mut Ledger) -> Result<End> {
        self.follow(ledger, |_| false)?;
        let status = self.child.wait()?;
        let phase = phase_in(&self.note);
        match status.signal() {
            Some(libc::SIGKILL) => Ok(End::Killed(phase)),
            None if status.success() => Ok(End::Finished),
            None => Ok(End::Failed(phase)),
            Some(_) => bail!("the writer ended at {phase:?} with {status}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes in what a writer says, as far as it is `heard`, until `until` is true of it or it is gone.
fn follow(
    lines: &mut BufReader<UnixStream>,
    ledger: &mut Ledger,
    heard: impl Fn(&Note) -> bool,
    mut until: impl FnMut(&Note) -> bool,
) -> Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        // A line without its end is one that it did not live to say.
        if lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let note = Note::parse(line.trim_end()).with_context(|| format!("line {line:?}"))?;
        let is_last = until(&note);
        if heard(&note) {
            ledger.take(note);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// What a writer noted last that it was at.
fn phase_in(note: &Path) -> Phase {
    Phase::of(std::fs::read(note).ok().and_then(|bytes| bytes.first().copied()).unwrap_or(0))
}

/// Takes a directory whose last holder is dead. A process that another test starts at this moment has the lock's
/// descriptor until it runs its program.
///
/// # Errors
/// If it stays held, or cannot be used.
pub fn hold(dir: &Path) -> Result<RealStorage> {
    let mut held = None;
    eventually("the directory is free", Duration::from_secs(5), || match RealStorage::open(dir) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => {
            held = Some(other?);
            Ok(true)
        }
    })?;
    held.context("no holder")
}

/// Opens a store as the next process would.
///
/// # Errors
/// If it cannot be opened, or a file is damaged.
pub fn open(dir: &Path, now: i64) -> Result<Db> {
    let clock = Arc::new(SimClock::at(now.max(START)));
    let (db, report) = Db::open(config(), Arc::new(hold(dir)?), clock)?;
    ensure!(report.damaged.is_empty(), "damaged files: {:?}", report.damaged);
    Ok(db)
}

/// Opens a store without changing it, so that the next process finds it as the last one left it.
///
/// # Errors
/// As [`open`].
pub fn look(dir: &Path, now: i64) -> Result<Db> {
    let clock = Arc::new(SimClock::at(now.max(START)));
    let (db, report) = Db::open_read_only(config(), Arc::new(RealStorage::open_unlocked(dir)?), clock)?;
    ensure!(report.damaged.is_empty(), "damaged files: {:?}", report.damaged);
    Ok(db)
}
