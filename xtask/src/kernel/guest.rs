//! Boots one kernel in QEMU and reads what a suite says on its console.
//!
//! Retry rule: a boot is tried again only when init's first line never appeared, at most three times,
//! the last with one CPU; such a crash is the emulator's. Whatever goes wrong after that line is a
//! failure and is not tried again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::archive::Kernel;
use super::initramfs;
use crate::paths;
use crate::results::Results;

/// The memory of a guest holds its root too: some 60 MB of programs, twice while it is unpacked.
const MEMORY_MIB: &str = "1024";
/// How the console is reached, and that a panic ends the guest.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet";
/// Boot to init takes 2.5 to 7 s emulated, 30 s on a host that is busy ten times over.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// For the whole suite. A guest runs about ten times slower than the host.
const SUITE_LIMIT: Duration = Duration::from_secs(20 * 60);
const BOOTS_MAX: usize = 3;
/// All virtual CPUs on one thread of the host. With a thread each, one may still execute an instruction that another
/// has just patched: 6.12 then died of a stale `int3` in its allocator when a tracepoint was switched on, with no
/// program of ours near.
const ACCELERATOR: &str = "tcg,thread=single";
/// Everything that the emulator has but `cmpxchg16b`: QEMU 7.2 now and then leaves an address in the
/// flags after it. The kernel's allocator uses it on every call where the CPU has it, and 6.12 then
/// died in kmalloc with `EFLAGS` equal to the low half of `RDI`.
const CPU: &str = "max,-cx16";

/// A skip in a guest needs this reason: everything else that the suite needs is there.
const GOOD_SKIP: &str = "kernel lacks";

/// What a console said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Console {
    booted: bool,
    /// The suite's exit code, if it came to an end.
    exit: Option<i32>,
    skips: Vec<String>,
    /// First line that tells of a crash.
    crash: Option<String>,
}

/// What is booted, beside the kernel.
pub struct Guest<'a> {
    /// What it is called in results.
    pub name: String,
    pub kernel: &'a Kernel,
    /// Removed when the guest has ended.
    pub initramfs: &'a Path,
    /// The first disk, if it has one.
    pub disk: Option<&'a Path>,
    /// Words for the kernel beside those of every guest.
    pub arguments: &'a str,
}

/// Where logs are kept.
pub fn log_dir() -> PathBuf {
    paths::target().join("kernel")
}

// === impl Guest ===

impl Guest<'_> {
    /// Boots it and follows its suite to the end. What fails in it is in `results`.
    ///
    /// # Errors
    /// When the emulator cannot be started or the log not written.
    pub fn run(&self, results: &mut Results) -> Result<()> {
        let name = &self.name;
        let log = log_dir().join(format!("{}.log", name.replace(' ', "-")));
        let started = Instant::now();
        let failed_before = results.failed();
        let mut console = Console::default();
        for attempt in 1..=BOOTS_MAX {
            let cpus = if attempt == BOOTS_MAX { "1" } else { "2" };
            eprintln!("[guest] booting {name} with {cpus} CPUs, log in {}", log.display());
            console = self.boot(cpus, &log, results)?;
            if console.booted {
                break;
            }
            let crash = console.crash.as_deref().unwrap_or("no line that says why");
            eprintln!("[guest] {name}: boot {attempt} of {BOOTS_MAX} ended before init: {crash}");
        }
        initramfs::remove(self.initramfs);
        let skips: Vec<_> = console.skips.iter().map(|skip| format!("{name}: {skip}")).collect();
        results.skipped_tests(&skips);
        match verdict(&console) {
            Ok(()) => eprintln!("[guest] {name} passed in {} s", started.elapsed().as_secs()),
            Err(error) => results.fail_tests(name, &format!("{error}; see {}", log.display()), failed_before),
        }
        Ok(())
    }

    /// One boot, to its end or its limit.
    fn boot(&self, cpus: &str, log: &Path, results: &mut Results) -> Result<Console> {
        fs::create_dir_all(log_dir()).context("create the folder of logs")?;
        let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut qemu = self.emulator(cpus)?.spawn().context("start qemu-system-x86_64")?;
        let lines = console_lines(&mut qemu);
        let started = Instant::now();
        let mut console = Console::default();
        loop {
            let limit = if console.booted { SUITE_LIMIT } else { BOOT_LIMIT };
            let line = match lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // It may have ended between the time-out and here; then there is nothing to kill.
                    let _ = qemu.kill();
                    break;
                }
            };
            writeln!(file, "{line}").with_context(|| format!("write {}", log.display()))?;
            if console.booted && (line.starts_with("test ") || line.starts_with('@')) {
                eprintln!("  {} | {line}", self.kernel.version);
            }
            console.read(&line);
            results.count_line(&line);
        }
        qemu.wait().context("wait for qemu")?;
        Ok(console)
    }

    fn emulator(&self, cpus: &str) -> Result<Command> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", ACCELERATOR, "-cpu", CPU, "-m", MEMORY_MIB, "-smp", cpus])
            .args(["-nographic", "-no-reboot", "-nic", "none", "-append"])
            .arg(format!("{ARGUMENTS} {}", self.arguments))
            .arg("-kernel")
            .arg(self.kernel.image()?)
            .arg("-initrd")
            .arg(self.initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(disk) = self.disk {
            // What a guest writes is of no use after it.
            let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
            qemu.args(["-drive", &drive]);
        }
        Ok(qemu)
    }
}

fn verdict(console: &Console) -> Result<()> {
    if let Some(skip) = console.skips.iter().find(|skip| !skip.contains(GOOD_SKIP)) {
        return Err(anyhow!("skipped although nothing is missing in the kernel: {skip}"));
    }
    match (console.exit, &console.crash) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(anyhow!("the suite ended with code {code}")),
        (None, Some(crash)) => Err(anyhow!("the guest crashed: {crash}")),
        (None, None) if console.booted => {
            Err(anyhow!("the suite did not end in {} s", SUITE_LIMIT.as_secs()))
        }
        (None, None) => Err(anyhow!("init was never reached")),
    }
}

/// Lines of both of QEMU's streams, without the console's carriage returns.
fn console_lines(qemu: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        qemu.stdout.take().map(|out| Box::new(out) as Box<_>),
        qemu.stderr.take().map(|err| Box::new(err) as Box<_>),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

// === impl Console ===

impl Console {
    fn read(&mut self, line: &str) {
        // The firmware leaves escape sequences before the first line of a boot.
        let mark = |mark: &str| line.find(mark).and_then(|at| line.get(at + mark.len()..)).map(str::trim);
        if line.starts_with("@BOOT ") {
            self.booted = true;
        } else if let Some(skip) = mark("@SKIP ") {
            self.skips.push(skip.to_owned());
        } else if let Some(exit) = mark("@EXIT ") {
            self.exit = exit.split(' ').next().and_then(|code| code.parse().ok());
        } else if self.crash.is_none()
            && ["Kernel panic", "RIP: 0010:", "BUG:"].iter().any(|sign| line.contains(sign))
        {
            self.crash = Some(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Console {
        let mut console = Console::default();
        text.lines().for_each(|line| console.read(line));
        console
    }

    #[test]
    fn a_suite_that_ends_well_passes() {
        let console =
            read("@BOOT 6.12.1 3.4\ntest a ... ok\n@SKIP a: kernel lacks block_io_start\n@EXIT 0 20.1");
        assert_eq!(console.skips, ["a: kernel lacks block_io_start"]);
        assert!(verdict(&console).is_ok());
    }

    #[test]
    fn everything_else_fails_and_says_why() {
        let check = |text: &str, expected: &str| {
            let error = verdict(&read(text)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("@BOOT 6.1 3\n@EXIT 101 9", "code 101");
        check("@BOOT 6.1 3\n@SKIP a: no loop device\n@EXIT 0 9", "a: no loop device");
        check("@BOOT 6.1 3\n[1.0] Kernel panic - not syncing: x", "Kernel panic - not syncing: x");
        check("@BOOT 6.1 3", "did not end");
        check("", "never reached");
    }
}
