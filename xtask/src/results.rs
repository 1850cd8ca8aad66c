//! What a round of checks and tests came to: counts, names of what was skipped, what failed.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, shell};

/// Collects outcomes; the caller prints them at the end.
#[derive(Debug, Default)]
pub struct Results {
    passed: u64,
    failed: u64,
    /// `name: reason`, from tests that could not run here and steps that were left out.
    skips: Vec<String>,
    /// Tests and commands that failed, in the order they ran.
    failures: Vec<String>,
}

/// One `test result:` line of the test harness.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

// === impl Results ===

impl Results {
    /// A step that is no test: its failure is kept and the next step runs.
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        eprintln!("[check] {name}");
        if let Err(error) = run() {
            self.fail(name, &format!("{error:#}"));
        }
    }

    /// A cargo command that runs tests: shown, counted, and its skips collected.
    pub fn tests(&mut self, name: &str, command: &mut Command) -> Result<()> {
        eprintln!("[test] {name}");
        let skips = SkipFile::new(name)?;
        let failed_before = self.failed;
        let outcome = shell::teed(command.env("TELEMETRY_SKIPS", &skips.path), |line| self.count_line(line));
        self.skipped_tests(&skips.take()?);
        if let Err(error) = outcome {
            self.fail_tests(name, &format!("{error:#}"), failed_before);
        }
        Ok(())
    }

    /// Counts a line if it is the sum of one test program, and remembers a test that failed.
    pub fn count_line(&mut self, line: &str) {
        // A thread's or a kernel's words may stand between the two; then the sum alone tells.
        if let Some(test) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("test {test}"));
        }
        if let Some(counts) = parse_counts(line) {
            self.passed += counts.passed;
            self.failed += counts.failed;
            self.skips.extend((0..counts.ignored).map(|_| "(an ignored test)".to_owned()));
        }
    }

    /// Tests that returned early. Their harness has counted them as passed, which they did not.
    pub fn skipped_tests(&mut self, lines: &[String]) {
        for line in lines {
            self.passed = self.passed.saturating_sub(1);
            self.skips.push(line.clone());
        }
    }

    /// Something that was left out.
    pub fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("[skip] {name}: {reason}");
        self.skips.push(format!("{name}: {reason}"));
    }

    /// Something that failed and is no test of a harness.
    pub fn fail(&mut self, name: &str, error: &str) {
        eprintln!("[fail] {name}: {error}");
        self.failed += 1;
        self.failures.push(format!("{name}: {error}"));
    }

    /// A round of tests that failed. It counts by itself only if it failed without a test that did,
    /// such as one that does not compile or crashed.
    pub fn fail_tests(&mut self, name: &str, error: &str, failed_before: u64) {
        let counted = self.failed;
        self.fail(name, error);
        if counted > failed_before {
            self.failed = counted;
        }
    }

    /// Failures so far.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Prints what was skipped and what failed, the sum last.
    ///
    /// # Errors
    /// When anything failed.
    pub fn finish(self) -> Result<()> {
        for skip in &self.skips {
            println!("skipped  {skip}");
        }
        for failure in &self.failures {
            println!("FAILED   {}", failure.lines().next().unwrap_or_default());
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skips.len());
        if self.failed > 0 || !self.failures.is_empty() {
            bail!("{} failed", self.failed);
        }
        Ok(())
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
pub fn parse_counts(line: &str) -> Option<Counts> {
    let (_, rest) = line.split_once("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split(';') {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
        let slot = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.ignored,
            _ => continue,
        };
        *slot = number.parse().ok()?;
    }
    Some(counts)
}

/// The file that tests append a line to when they cannot run here.
struct SkipFile {
    path: PathBuf,
}

// === impl SkipFile ===

impl SkipFile {
    fn new(name: &str) -> Result<Self> {
        let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = paths::target().join(format!("skips-{word}-{}.txt", std::process::id()));
        fs::create_dir_all(paths::target()).context("create target")?;
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path })
    }

    fn take(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        // An outer run that collects skips wants ours too.
        if let Some(outer) = env::var_os("TELEMETRY_SKIPS") {
            let old = fs::read_to_string(&outer).unwrap_or_default();
            fs::write(&outer, old + &text).context("write TELEMETRY_SKIPS")?;
        }
        let _ = fs::remove_file(&self.path);
        Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harness_sums_are_read() {
        let line =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(parse_counts(line), Some(Counts { passed: 12, failed: 0, ignored: 1 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse_counts(line), Some(Counts { passed: 1, failed: 2, ignored: 0 }));
        assert_eq!(parse_counts("running 3 tests"), None);
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let mut results = Results::default();
        results.count_line("test result: ok. 3 passed; 0 failed; 0 ignored;");
        results.skipped_tests(&["a: kernel lacks it".to_owned()]);
        assert_eq!((results.passed, results.skips.len()), (2, 1));
        assert!(results.finish().is_ok());
    }

    #[test]
    fn a_failed_step_fails_the_whole() {
        let mut results = Results::default();
        results.step("broken", || bail!("no"));
        assert!(results.finish().is_err());
    }

    #[test]
    fn a_test_command_that_does_not_compile_counts_as_failed() {
        let mut results = Results::default();
        results.tests("broken", Command::new("false").arg("x")).unwrap();
        assert_eq!(results.failed, 1);
        assert!(results.finish().is_err());
    }
}
