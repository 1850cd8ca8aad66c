//! Known work by a process of its own: this executable again, told by its environment what to do.
//!
//! The process is in its cgroup, network namespace and CPU before it runs its first instruction, so that all of its
//! figures belong there. See [`crate::work`] for what it can do and how it talks.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cgroup::Cgroup;
use crate::host;
use crate::netns::Netns;
use crate::page::Page;
use crate::proc;

/// No work of a test takes longer.
const WORK_LIMIT: Duration = Duration::from_secs(60);

/// Of kernels with 250 ticks a second, as Debian's and the cloud's have.
const KERNEL_TICK_S: f64 = 0.004;

/// Work that is about to be started.
#[derive(Debug)]
pub struct Workload {
    work: String,
    doors: Vec<File>,
    cpu: Option<usize>,
    netns: Option<File>,
}

/// Work that is under way. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: BufReader<UnixStream>,
    work: String,
    /// What a server listens at; empty for others.
    pub address: String,
}

// === impl Workload ===

impl Workload {
    /// Some work of [`crate::work`], by its words.
    #[must_use]
    pub fn new(work: impl Into<String>) -> Self {
        Self { work: work.into(), doors: Vec::new(), cpu: None, netns: None }
    }

    /// To be done in a cgroup.
    ///
    /// # Errors
    /// If the cgroup cannot be entered.
    pub fn in_cgroup(mut self, cgroup: &Cgroup) -> Result<Self> {
        self.doors = cgroup.doors()?;
        Ok(self)
    }

    /// To be done on one CPU.
    #[must_use]
    pub fn on_cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// To be done in a network namespace.
    ///
    /// # Errors
    /// If the namespace cannot be held.
    pub fn in_netns(mut self, netns: &Netns) -> Result<Self> {
        self.netns = Some(netns.handle()?);
        Ok(self)
    }

    /// Starts the process and waits until it is ready to work.
    ///
    /// # Errors
    /// If it cannot be started or cannot get ready.
    pub fn start(self) -> Result<Running> {
        let (ours, theirs) = UnixStream::pair().context("socket pair")?;
        ours.set_read_timeout(Some(host::scaled(WORK_LIMIT)))?;
        let mut command = Command::new(std::env::current_exe().context("own path")?);
        command
            // A test binary runs its one test of this name; any other binary looks at the variable first.
            .args(["--exact", "workload", "--nocapture", "--test-threads=1"])
            .env(crate::work::VARIABLE, OsString::from(&self.work))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        let Self { work, doors, cpu, netns } = self;
        let prepare = move || {
            enter(&doors)?;
            if let Some(netns) = &netns {
                crate::netns::enter(netns)?;
            }
            cpu.map_or(Ok(()), pin_this_thread)
        };
        // SAFETY: between fork and exec the closure only makes system calls on descriptors that it owns.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().with_context(|| format!("start {work:?}"))?;
        let mut running = Running { child, lines: BufReader::new(ours), work, address: String::new() };
        running.address = running.expect("ready")?;
        Ok(running)
    }

    /// Starts it and lets it go.
    ///
    /// # Errors
    /// As [`Workload::start`].
    pub fn go(self) -> Result<Running> {
        let mut running = self.start()?;
        running.go()?;
        Ok(running)
    }

    /// Does all of it and gives its facts; the process has ended then.
    ///
    /// # Errors
    /// If the work fails.
    pub fn finish(self) -> Result<Vec<u64>> {
        let mut running = self.go()?;
        let facts = running.done()?;
        running.end()?;
        Ok(facts)
    }
}

// === impl Running ===

impl Running {
    /// Lets it work.
    ///
    /// # Errors
    /// If it is gone.
    pub fn go(&mut self) -> Result<()> {
        self.lines.get_mut().write_all(b"go\n").with_context(|| format!("{:?} is gone", self.work))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the work is done and the process sleeps, so that its figures stand still. Gives its facts.
    ///
    /// # Errors
    /// If it failed.
    pub fn done(&mut self) -> Result<Vec<u64>> {
        let facts = self.expect("done")?;
        let pid = self.pid();
        host::eventually("the workload sleeps", Duration::from_secs(5), || proc::sleeps(pid))?;
        facts.split_whitespace().map(|word| word.parse().context("fact")).collect()
    }

    /// Waits for it to say that it is half through.
    ///
    /// # Errors
    /// If it says anything else.
    pub fn half(&mut self) -> Result<()> {
        self.expect("ready").map(drop)
    }

    /// Hangs up and waits for the process to end.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn end(mut self) -> Result<()> {
        self.lines.get_mut().shutdown(std::net::Shutdown::Both)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("workload {:?}: {status}", self.work);
        }
        Ok(())
    }

    fn expect(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).with_context(|| format!("{:?}: no {word}", self.work))?;
        let rest = line.trim_end().strip_prefix(word);
        match rest {
            Some(rest) if read > 0 => Ok(rest.trim_start().to_owned()),
            _ => bail!("{:?}: said {line:?} in place of {word}", self.work),
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

/// Many cgroups at once, a process in each that wakes, walks over its memory and sleeps again. Ended when dropped.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<(i32, Cgroup)>,
}

// === impl Crowd ===

impl Crowd {
    /// `count` of them, waking every `period`.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn new(count: usize, period: Duration) -> Result<Self> {
        let mut crowd = Self { members: Vec::with_capacity(count) };
        for number in 0..count {
            let cgroup = Cgroup::new(format!("crowd-{number}"))?;
            let doors = cgroup.doors()?;
            // SAFETY: the child makes system calls only (see `walk_and_sleep`), as a fork of a threaded process must.
            match unsafe { libc::fork() } {
                -1 => return Err(io::Error::last_os_error()).context("fork"),
                0 => walk_and_sleep(&doors, period),
                pid => crowd.members.push((pid, cgroup)),
            }
        }
        Ok(crowd)
    }

    /// Nobody wakes any more.
    pub fn freeze(&self) {
        for (pid, _) in &self.members {
            // SAFETY: kill takes two numbers; the child is ours and not yet waited for, so its id is still its own.
            unsafe { libc::kill(*pid, libc::SIGSTOP) };
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for (pid, _) in &self.members {
            // SAFETY: kill takes two numbers; the child is ours and not yet waited for, so its id is still its own.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        for (pid, _) in &self.members {
            // SAFETY: a null pointer says that the status is not wanted.
            unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
        }
    }
}

/// What a burner used, by the kernel's account of the process. What it ran before it was all in its cgroup may count
/// for either side, so that the truth is an interval, usually of some tens of microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burnt {
    /// Seconds since it had entered its cgroup.
    pub least_s: f64,
    /// Seconds since it was made.
    pub most_s: f64,
    /// How many burners that are.
    pub burners: u32,
}

// === impl Burnt ===

impl Burnt {
    /// Holds a figure of the page to it, within 1 % or a fifth of a millisecond; a few milliseconds where CPUs are
    /// emulated and the last steps of a process, which nobody accounts for to its parent, take that long.
    ///
    /// Some kernels do not trace every switch, which perf shows too. The end of a stay that was not traced is lost back
    /// to the last tick; the page counts such gaps, and where it does, each burner may lack one tick.
    ///
    /// # Errors
    /// If it is farther off.
    pub fn holds(&self, what: &str, figure: f64, page: &Page) -> Result<()> {
        let gaps = page.sum("telemetry_agent_bpf_losses_total", &[("reason", "switch_missed")]);
        let lost_s = gaps.min(f64::from(self.burners)) * KERNEL_TICK_S;
        let slack = if host::slowness() > 1 { 0.005 } else { 0.0002 };
        let least = self.least_s - (self.least_s * 0.01).max(slack) - lost_s;
        let most = self.most_s + (self.most_s * 0.01).max(slack);
        if (least..=most).contains(&figure) {
            return Ok(());
        }
        bail!("{what}: page {figure}, truth {:.6} to {:.6}, {gaps} gaps", self.least_s, self.most_s);
    }
}

impl std::ops::AddAssign for Burnt {
    fn add_assign(&mut self, other: Self) {
        self.least_s += other.least_s;
        self.most_s += other.most_s;
        self.burners += other.burners;
    }
}

/// A process that lives only to burn `cpu_ms` of CPU time in a cgroup: no exec, so that its life is short.
///
/// # Errors
/// If it cannot be made, or could not enter the cgroup.
pub fn burn(cgroup: &Cgroup, cpu_ms: i64) -> Result<Burnt> {
    let doors = cgroup.doors()?;
    let (mut entered, tell) = UnixStream::pair().context("socket pair")?;
    // SAFETY: the child makes system calls only (see `burn_and_exit`), as a fork of a threaded process must.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()).context("fork"),
        0 => burn_and_exit(&doors, cpu_ms, &tell),
        _ => {}
    }
    drop(tell);
    let most_s = reap(pid)?;
    let mut before_ns = [0; 8];
    entered.read_exact(&mut before_ns).context("hear from the burner")?;
    let before_s = Duration::from_nanos(u64::from_ne_bytes(before_ns)).as_secs_f64();
    Ok(Burnt { least_s: most_s - before_s, most_s, burners: 1 })
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// If there is no such CPU.
pub fn pin_this_thread(cpu: usize) -> io::Result<()> {
    let mut mask = [0_u64; 16];
    let word = mask.get_mut(cpu / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (cpu % 64);
    // SAFETY: the kernel reads as many bytes as the second argument says, and `mask` has them.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn enter(doors: &[File]) -> io::Result<()> {
    for door in doors {
        // SAFETY: the descriptor is open and the one byte is there.
        if unsafe { libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1) } != 1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// 32 KiB of memory a turn: as much as the nearest cache holds, so that what the hooks touch is cold.
fn walk_and_sleep(doors: &[File], period: Duration) -> ! {
    const LINE: usize = 64;
    let mut memory = [0_u8; 32_768];
    let pause = libc::timespec { tv_sec: 0, tv_nsec: i64::from(period.subsec_nanos()) };
    // SAFETY: prctl takes numbers here. Nobody is left behind when the thread that made the crowd ends.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if enter(doors).is_err() {
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(1) }
    }
    loop {
        // SAFETY: `pause` is a timespec of ours; the null pointer says that the rest is not wanted.
        unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
        for line in memory.chunks_mut(LINE) {
            line.rotate_left(1);
        }
        std::hint::black_box(&mut memory);
    }
}

fn burn_and_exit(doors: &[File], cpu_ms: i64, tell: &UnixStream) -> ! {
    let code = i32::from(enter(doors).is_err());
    // A new stay on a CPU begins here: what a running task is charged for while it moves has a test of its own.
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
    // SAFETY: `pause` is a timespec of ours; the null pointer says that the rest is not wanted.
    unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
    let before = cpu_ns().to_ne_bytes();
    // SAFETY: the descriptor is open and the bytes are there.
    unsafe { libc::write(tell.as_raw_fd(), before.as_ptr().cast(), before.len()) };
    while code == 0 && cpu_ns() < cpu_ms * 1_000_000 {}
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

/// CPU time of this process.
fn cpu_ns() -> i64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is a timespec of ours; the clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) };
    used.tv_sec * 1_000_000_000 + used.tv_nsec
}

fn reap(pid: i32) -> Result<f64> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, of which all bits zero is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call.
    if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {
        return Err(io::Error::last_os_error()).context("wait for the burner");
    }
    if status != 0 {
        bail!("the burner could not enter its cgroup: status {status:#x}");
    }
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let total = micros(usage.ru_utime) + micros(usage.ru_stime);
    Ok(Duration::from_micros(u64::try_from(total)?).as_secs_f64())
}
