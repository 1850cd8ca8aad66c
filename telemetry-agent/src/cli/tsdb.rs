//! `telemetry-agent tsdb`: look at a store, check it, take history out and in. The agent must not be running.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Config as DbConfig, Db, Error, Work};
use telemetry_tsdb::fs::SystemClock;

use crate::exchange::openmetrics::Dialect;
use crate::exchange::transfer::{self, TransferError};
use crate::{store, sysexits};

/// How often progress is shown on a terminal.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What to do with a store.
#[derive(Subcommand)]
pub enum Command {
    /// What the store holds: files, samples, bytes, the log.
    Stat,
    /// Read every byte and say what is damaged; ends with 65 if anything is.
    Verify,
    /// Print all samples as OpenMetrics text.
    Dump(Selector),
    /// Write all samples to a file.
    Export {
        /// Which samples.
        #[command(flatten)]
        selector: Selector,
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Take samples from OpenMetrics or Prometheus text, each with its time.
    Import {
        /// The text.
        file: PathBuf,
        /// What timestamps are.
        #[arg(long, value_enum, default_value_t = Format::Openmetrics)]
        format: Format,
    },
}

/// Which samples.
#[derive(Args)]
pub struct Selector {
    /// Only series with this label and value: NAME=VALUE, NAME!=VALUE, NAME=~REGEX or NAME!~REGEX. May be repeated.
    #[arg(long = "match", value_name = "MATCHER")]
    matchers: Vec<String>,
    /// From this time on: milliseconds since 1970.
    #[arg(long, default_value_t = i64::MIN, allow_negative_numbers = true)]
    from: i64,
    /// Up to this time.
    #[arg(long, default_value_t = i64::MAX, allow_negative_numbers = true)]
    to: i64,
}

/// Of text to import.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// Timestamps are seconds; the text ends with `# EOF`.
    Openmetrics,
    /// Timestamps are milliseconds.
    Prometheus,
}

/// Why a command failed: exit code and line.
pub type Failed = (u8, String);

/// Runs a command on the store below a data directory.
///
/// # Errors
/// With the exit code and the line to print.
pub fn run(command: &Command, data_dir: &Path) -> Result<(), Failed> {
    let dir = data_dir.join(store::DIR);
    let answered = |result: io::Result<()>| result.map_err(|error| (sysexits::OS_ERROR, error.to_string()));
    match command {
        Command::Stat => answered(stat(&open(&dir)?, &dir)),
        Command::Verify => verify(&open(&dir)?),
        Command::Dump(selector) => export(&open(&dir)?, selector, &mut io::stdout().lock()),
        Command::Export { selector, file } => {
            let db = open(&dir)?;
            let mut out = File::create_new(file)
                .map_err(|error| (sysexits::CANNOT_CREATE, format!("{}: {error}", file.display())))?;
            export(&db, selector, &mut out)
        }
        Command::Import { file, format } => import(&dir, file, *format),
    }
}

fn failed(dir: &Path, error: &Error) -> Failed {
    let code = match error {
        Error::Locked(_) => sysexits::UNAVAILABLE,
        Error::Damaged { .. } => sysexits::DATA_ERROR,
        _ => sysexits::NO_INPUT,
    };
    (code, format!("store {}: {error}", dir.display()))
}

fn open(dir: &Path) -> Result<Db, Failed> {
    store::open_read_only(DbConfig::default(), dir).map_err(|error| failed(dir, &error))
}

fn stat(db: &Db, dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let blocks = db.blocks();
    writeln!(out, "{}", dir.display())?;
    writeln!(
        out,
        "{:>12}  {:>5} {:>7} {:>14} {:>14} {:>9} {:>11} {:>10}  B/sample",
        "file", "level", "tier", "from", "to", "series", "samples", "bytes"
    )?;
    for block in blocks.iter() {
        let meta = block.meta();
        let tier = if meta.tier_ms == 0 { "raw".to_owned() } else { format!("{}s", meta.tier_ms / 1000) };
        let late = if meta.out_of_order { " late" } else { "" };
        writeln!(
            out,
            "{:>12}  {:>5} {:>7} {:>14} {:>14} {:>9} {:>11} {:>10}  {:.3}{late}",
            meta.id,
            meta.level,
            tier,
            meta.min_t,
            meta.max_t,
            meta.series,
            meta.samples,
            block.bytes(),
            ratio(block.bytes(), meta.samples)
        )?;
    }
    let stats = db.stats();
    writeln!(out, "files: {}, {} bytes, {} samples", stats.blocks, stats.block_bytes, stats.block_samples)?;
    writeln!(out, "log: {} series, {} late samples", stats.series, stats.late_samples)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files")]
fn ratio(bytes: u64, samples: u64) -> f64 {
    if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 }
}

fn verify(db: &Db) -> Result<(), Failed> {
    let mut bar = Progress::new();
    let (mut damaged, mut frames, mut chunks) = (Vec::new(), 0, 0);
    let blocks = db.blocks();
    for (at, block) in blocks.iter().enumerate() {
        bar.show(|| format!("file {} of {}", at + 1, blocks.len()));
        let found = block.verify();
        (frames, chunks) = (frames + found.frames, chunks + found.chunks);
        damaged.extend(found.damaged);
    }
    bar.end();
    for (counter, what) in [
        ("blocks_damaged", "files that cannot be opened"),
        ("log_records_lost", "records of the log lost"),
        ("log_bytes_skipped", "bytes of the log passed over"),
    ] {
        let value = db.health().counters.all().iter().find(|(name, _)| *name == counter).map_or(0, |c| c.1);
        if value > 0 {
            damaged.push(format!("{value} {what}"));
        }
    }
    say(&format!("{} files, {frames} frames, {chunks} chunks read; {} damaged", blocks.len(), damaged.len()));
    for line in &damaged {
        say(line);
    }
    if damaged.is_empty() { Ok(()) } else { Err((sysexits::DATA_ERROR, "the store is damaged".into())) }
}

fn export(db: &Db, selector: &Selector, out: &mut dyn Write) -> Result<(), Failed> {
    let mut matchers = selector
        .matchers
        .iter()
        .map(|text| matcher(text).ok_or_else(|| (sysexits::USAGE, format!("not a matcher: {text}"))))
        .collect::<Result<Vec<_>, _>>()?;
    if matchers.is_empty() {
        matchers.push(Matcher::new("__name__", MatchOp::NotEqual, ""));
    }
    let mut bar = Progress::new();
    let range = (selector.from, selector.to);
    let done = transfer::export(db, &matchers, range, out, |done, total| {
        bar.show(|| format!("series {done} of {total}"))
    });
    bar.end();
    match done {
        // Whoever read has seen enough.
        Err(TransferError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err((sysexits::DATA_ERROR, error.to_string())),
        Ok(done) => {
            note(&format!("{} series, {} samples written", done.series, done.samples));
            Ok(())
        }
    }
}

fn import(dir: &Path, file: &Path, format: Format) -> Result<(), Failed> {
    let unread = |error: io::Error| (sysexits::NO_INPUT, format!("{}: {error}", file.display()));
    let text = File::open(file).map_err(unread)?;
    let total = text.metadata().map(|meta| meta.len()).unwrap_or(0);
    let storage = store::storage(dir).map_err(|error| failed(dir, &error))?;
    // History may be older than what the agent keeps: it decides at its next start.
    let mut config = DbConfig::default();
    config.retention.raw_ms = i64::MAX;
    let (db, _) = Db::open(config, std::sync::Arc::new(storage), std::sync::Arc::new(SystemClock::default()))
        .map_err(|error| failed(dir, &error))?;
    let dialect = match format {
        Format::Openmetrics => Dialect::OpenMetrics,
        Format::Prometheus => Dialect::Text,
    };
    let mut bar = Progress::new();
    let done = transfer::import(&db, &mut BufReader::new(text), dialect, |bytes| {
        bar.show(|| format!("{bytes} of {total} bytes"));
    })
    .map_err(|error| (sysexits::DATA_ERROR, format!("{}: {error}", file.display())))?;
    while !matches!(db.maintain(), Work::Nothing | Work::Failed) {
        bar.show(|| "joining files".into());
    }
    bar.end();
    note(&format!(
        "{} samples taken, {} duplicates, {} series beyond a limit, {} samples without a time",
        done.samples, done.duplicates, done.refused_series, done.untimed
    ));
    Ok(())
}

/// `name=value` and its three sisters.
fn matcher(text: &str) -> Option<Matcher> {
    let at = text.find(['=', '!'])?;
    let (name, rest) = text.split_at(at);
    let (op, value) =
        [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)]
            .into_iter()
            .find_map(|(symbol, op)| Some((op, rest.strip_prefix(symbol)?)))?;
    (!name.is_empty()).then(|| Matcher::new(name, op, value.trim_matches('"')))
}

/// One line on a terminal that is written over; nothing elsewhere.
struct Progress {
    is_terminal: bool,
    shown: Option<Instant>,
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        let is_due = self.shown.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if self.is_terminal && is_due {
            let _ = write!(io::stderr(), "\r\x1b[K{}", text());
            self.shown = Some(Instant::now());
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn say(text: &str) {
    // Nobody reads: then nobody needs it.
    let _ = writeln!(io::stdout(), "{text}");
}

fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read() {
        let check = |text: &str, op, value: &str| {
            assert_eq!(matcher(text), Some(Matcher::new("a", op, value)), "{text}")
        };
        check("a=b", MatchOp::Equal, "b");
        check("a=\"b\"", MatchOp::Equal, "b");
        check("a!=b", MatchOp::NotEqual, "b");
        check("a=~b.*", MatchOp::Regex, "b.*");
        check("a!~b=c", MatchOp::NotRegex, "b=c");
        assert_eq!(matcher("a"), None);
        assert_eq!(matcher("=b"), None);
    }
}
