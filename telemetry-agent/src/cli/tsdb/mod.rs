//! `telemetry-agent tsdb`: look at a store, check it, take history out and in.
//!
//! Reading needs no lock and works beside a running agent: it sees what is on disk at one moment. Only `import`
//! writes; it needs the store for itself.

mod events;
mod look;
mod transfer;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use telemetry_model::{MatchOp, Matcher};
use telemetry_tsdb::db::{Db, Error, OpenReport};

use super::human;
use crate::exchange::{TransferError, Wanted};
use crate::{store, sysexits};

/// What to do with a store.
#[derive(Subcommand)]
pub enum Command {
    /// Tell what the store holds: time, series, samples, bytes, health.
    #[command(
        after_help = "Reads what is on disk; an agent may run. Samples that the agent has not written yet are \
                            not counted."
    )]
    Stat {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Read every byte and tell what is damaged and how many samples that costs.
    #[command(
        after_help = "Reads only, so an agent may run. Ends with exit code 65 if anything is damaged. The agent \
                            itself serves what is whole and moves files that it cannot open to `damaged/`."
    )]
    Verify {
        /// Say nothing but what is damaged.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print what happened: cgroups that came and went, hooks that failed, losses.
    #[command(after_help = "The agent must not run: while it does, /v1/events has them. Reads only.")]
    Events(events::Events),
    /// Print samples as OpenMetrics text.
    #[command(
        after_help = "Example: telemetry-agent tsdb dump --from 2h --match '__name__=~\"kernel_cpu.*\"'"
    )]
    Dump(Selector),
    /// Write samples to a file, as OpenMetrics text or Parquet.
    #[command(
        after_help = "Native histograms become classic ones in OpenMetrics, JSON in Parquet. An agent may run."
    )]
    Export {
        /// Which samples.
        #[command(flatten)]
        selector: Selector,
        /// What to write. By default Parquet if the file's name ends in `.parquet`, OpenMetrics otherwise.
        #[arg(long, value_enum)]
        format: Option<ExportFormat>,
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Take samples into the store: OpenMetrics, Prometheus text, blocks of Prometheus.
    #[command(
        after_help = "The agent must not run. What the store has stays: the same import twice changes nothing, \
                            and one that was interrupted is repeated. Samples older than `store.retention` are taken, \
                            counted, and go when the agent runs next; what is downsampled stays longer."
    )]
    Import {
        /// What it is. By default blocks if it is a directory, OpenMetrics otherwise.
        #[arg(long, value_enum)]
        format: Option<ImportFormat>,
        /// Check each line alone: take text whose families are incomplete or out of order.
        #[arg(long)]
        lenient: bool,
        /// Show no progress.
        #[arg(short, long)]
        quiet: bool,
        /// A file, `-` for standard input, a block's directory, or Prometheus' data directory.
        path: PathBuf,
    },
}

/// Which samples.
#[derive(Args)]
pub struct Selector {
    /// Only series with this label and value: NAME=VALUE, NAME!=VALUE, NAME=~REGEX or NAME!~REGEX. May be repeated.
    #[arg(long = "match", value_name = "MATCHER")]
    matchers: Vec<String>,
    /// From this time on: 2026-11-25T20:15:00Z, 2026-11-25, seconds since 1970, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to this time, in the same forms.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
}

/// How an answer is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What `export` writes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Text of OpenMetrics 1.0.
    Openmetrics,
    /// One row a sample; for DuckDB, pandas, Spark.
    Parquet,
}

/// What `import` reads.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Text of OpenMetrics 1.0: timestamps are seconds, the text ends with `# EOF`.
    Openmetrics,
    /// Prometheus text 0.0.4: timestamps are milliseconds.
    Text,
    /// Prometheus' own files: a block, or a data directory.
    Blocks,
}

/// Why a command failed: exit code and line.
pub type Failed = (u8, String);

/// Runs a command on the store below a data directory.
///
/// # Errors
/// With the exit code and the line to print.
pub fn run(command: &Command, data_dir: &Path, config: &store::Config) -> Result<(), Failed> {
    let dir = data_dir.join(store::DIR);
    match command {
        Command::Stat { output } => look::stat(&dir, *output),
        Command::Verify { quiet } => look::verify(&dir, *quiet),
        Command::Events(events) => events.run(data_dir, transfer::now()),
        Command::Dump(selector) => transfer::dump(&dir, selector),
        Command::Export { selector, format, file } => transfer::export(&dir, selector, *format, file),
        Command::Import { format, lenient, quiet, path } => {
            let import = transfer::Import { path, format: *format, is_lenient: *lenient, is_quiet: *quiet };
            import.run(&dir, config)
        }
    }
}

fn open(dir: &Path) -> Result<(Db, OpenReport), Failed> {
    store::open_read_only(&store::Config::default().settings(), dir).map_err(|error| failed(dir, &error))
}

fn failed(dir: &Path, error: &Error) -> Failed {
    match error {
        Error::Locked(_) => (
            sysexits::UNAVAILABLE,
            format!("{} is in use: stop the agent first, it would not see what is imported", dir.display()),
        ),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => (
            sysexits::NO_INPUT,
            format!("there is no store in {}; name another with --data-dir", dir.display()),
        ),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (sysexits::NO_PERMISSION, format!("store {}: {error}", dir.display()))
        }
        Error::Damaged { .. } => (sysexits::DATA_ERROR, format!("store {}: {error}", dir.display())),
        Error::Matcher(_) => (sysexits::USAGE, error.to_string()),
        _ => (sysexits::IO_ERROR, format!("store {}: {error}", dir.display())),
    }
}

fn transfer_failed(dir: &Path, file: &Path, error: &TransferError) -> Failed {
    let text = || format!("{}: {error}", file.display());
    match error {
        TransferError::Store(error) => failed(dir, error),
        TransferError::Read(source) if source.kind() == std::io::ErrorKind::NotFound => {
            (sysexits::NO_INPUT, text())
        }
        TransferError::Read(_) | TransferError::Write(_) | TransferError::Parquet(_) => {
            (sysexits::IO_ERROR, text())
        }
        TransferError::Line { line, reason } => {
            (sysexits::DATA_ERROR, format!("{}:{line}: {reason}", file.display()))
        }
        TransferError::Block(crate::exchange::prometheus::BlockError::Damaged { .. }) => {
            (sysexits::DATA_ERROR, error.to_string())
        }
        TransferError::Block(_) => (sysexits::NO_INPUT, error.to_string()),
    }
}

// === impl Selector ===

impl Selector {
    fn wanted(&self, now: i64) -> Result<Wanted, Failed> {
        let mut matchers = self
            .matchers
            .iter()
            .map(|text| {
                matcher(text).ok_or_else(|| {
                    (
                        sysexits::USAGE,
                        format!("`{text}` is no matcher; write --match 'job=\"node\"', with =, !=, =~ or !~"),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if matchers.is_empty() {
            matchers.push(Matcher::new("__name__", MatchOp::Regex, ".*"));
        }
        let time = |text: &Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => human::parse_time(text, now).map_err(|error| (sysexits::USAGE, error)),
        };
        let (from, to) = (time(&self.from, i64::MIN)?, time(&self.to, i64::MAX)?);
        if from > to {
            return Err((sysexits::USAGE, "--from is after --to".into()));
        }
        Ok(Wanted { matchers, from, to })
    }
}

/// `name=value` and its three sisters; the value may be in quotes.
fn matcher(text: &str) -> Option<Matcher> {
    let at = text.find(['=', '!'])?;
    let (name, rest) = text.split_at(at);
    let (op, value) =
        [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)]
            .into_iter()
            .find_map(|(symbol, op)| Some((op, rest.strip_prefix(symbol)?)))?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!name.is_empty()).then(|| Matcher::new(name, op, bare))
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
        check("a=\"", MatchOp::Equal, "\"");
        assert_eq!(matcher("a"), None);
        assert_eq!(matcher("=b"), None);
    }
}
