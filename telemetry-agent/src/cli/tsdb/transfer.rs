//! `dump`, `export` and `import`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use telemetry_tsdb::db::{Db, Work};
use telemetry_tsdb::fs::{Clock as _, SystemClock};

use super::{ExportFormat, Failed, ImportFormat, Selector, failed, human, open, transfer_failed};
use crate::cli::progress::{Progress, Unit};
use crate::exchange::import::{self, Rigour, Taken};
use crate::exchange::openmetrics::Dialect;
use crate::exchange::{Exported, TransferError, export as text, parquet};
use crate::{store, sysexits};

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;

pub fn dump(dir: &Path, selector: &Selector) -> Result<(), Failed> {
    let wanted = selector.wanted(now())?;
    let (db, _) = open(dir)?;
    let stdout = io::stdout();
    // A bar would stand between the lines.
    let is_quiet = selector.quiet || stdout.is_terminal();
    let mut bar = Progress::new("dump", Unit::Count("series"), 0, is_quiet);
    let done = text::openmetrics(&db, &wanted, &mut stdout.lock(), &mut |at, of| bar.at_of(at, of));
    bar.end();
    match done {
        // Whoever read has seen enough.
        Err(TransferError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(transfer_failed(dir, Path::new("standard output"), &error)),
        Ok(_) => Ok(()),
    }
}

pub fn export(
    dir: &Path,
    selector: &Selector,
    format: Option<ExportFormat>,
    file: &Path,
) -> Result<(), Failed> {
    let wanted = selector.wanted(now())?;
    let is_parquet = file.extension().is_some_and(|extension| extension == "parquet");
    let format = format.unwrap_or(if is_parquet { ExportFormat::Parquet } else { ExportFormat::Openmetrics });
    let (db, _) = open(dir)?;
    let uncreated = |error: io::Error| (sysexits::CANNOT_CREATE, format!("{}: {error}", file.display()));
    if file.symlink_metadata().is_ok() {
        return Err(uncreated(io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    // Under its name the file is whole.
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let out = File::create(&part).map_err(uncreated)?;
    let mut bar = Progress::new("export", Unit::Count("series"), 0, selector.quiet);
    let mut progress = |at, of| bar.at_of(at, of);
    let done = match format {
        ExportFormat::Openmetrics => text::openmetrics(&db, &wanted, &mut &out, &mut progress),
        ExportFormat::Parquet => parquet::export(&db, &wanted, BufWriter::new(&out), &mut progress),
    };
    bar.end();
    let done = done.and_then(|done| {
        out.sync_all()?;
        std::fs::rename(&part, file)?;
        Ok(done)
    });
    let done = done.map_err(|error| {
        let _ = std::fs::remove_file(&part);
        transfer_failed(dir, file, &error)
    })?;
    let bytes = out.metadata().map(|meta| meta.len()).unwrap_or(0);
    say(&exported(&done, bytes, file));
    Ok(())
}

fn exported(done: &Exported, bytes: u64, file: &Path) -> String {
    let skipped = if done.skipped > 0 {
        format!(
            "; {} left out, which the format has no place for",
            human::of(done.skipped, "sample", "samples")
        )
    } else {
        String::new()
    };
    format!(
        "{} of {} written to {}, {}{skipped}",
        human::of(done.samples, "sample", "samples"),
        human::count(done.series) + " series",
        file.display(),
        human::bytes(bytes)
    )
}

/// An import that was asked for.
pub struct Import<'a> {
    pub path: &'a Path,
    pub format: Option<ImportFormat>,
    pub is_lenient: bool,
    pub is_quiet: bool,
}

// === impl Import ===

impl Import<'_> {
    pub fn run(&self, dir: &Path, config: &store::Config) -> Result<(), Failed> {
        let is_input = self.path == Path::new("-");
        let meta =
            if is_input { None } else { Some(std::fs::metadata(self.path).map_err(|e| self.unread(&e))?) };
        let is_dir = meta.as_ref().is_some_and(|meta| meta.is_dir());
        let format =
            self.format.unwrap_or(if is_dir { ImportFormat::Blocks } else { ImportFormat::Openmetrics });
        if is_dir != (format == ImportFormat::Blocks) {
            let what = if is_dir { "a directory is no text" } else { "blocks are directories" };
            return Err((sysexits::USAGE, format!("{}: {what}", self.path.display())));
        }
        let storage = store::storage(dir).map_err(|error| failed(dir, &error))?;
        // History may be older than what is kept: the agent decides when it runs next.
        let mut settings = config.settings();
        let keeps = settings.retention.clone();
        settings.retention.raw_ms = i64::MAX;
        settings.bytes_max = 0;
        let (db, _) = Db::open(settings, Arc::new(storage), Arc::new(SystemClock::default()))
            .map_err(|error| failed(dir, &error))?;
        let horizon = now().saturating_sub(keeps.raw_ms);
        let taken = match format {
            ImportFormat::Blocks => self.blocks(&db, horizon),
            ImportFormat::Openmetrics => self.text(&db, Dialect::OpenMetrics, meta, horizon),
            ImportFormat::Text => self.text(&db, Dialect::Text, meta, horizon),
        };
        let joined = self.join(&db);
        let taken = taken.map_err(|error| self.failed(dir, &error))?;
        report(&taken, config);
        joined?;
        if taken.damaged_chunks > 0 {
            let chunks = human::of(taken.damaged_chunks, "chunk", "chunks");
            return Err((
                sysexits::DATA_ERROR,
                format!("{}: {chunks} could not be read", self.path.display()),
            ));
        }
        Ok(())
    }

    fn unread(&self, error: &io::Error) -> Failed {
        (sysexits::NO_INPUT, format!("{}: {error}", self.path.display()))
    }

    fn failed(&self, dir: &Path, error: &TransferError) -> Failed {
        let (code, text) = transfer_failed(dir, self.path, error);
        (code, format!("{text}; what was read before is in the store, and importing again takes the rest"))
    }

    fn text(
        &self,
        db: &Db,
        dialect: Dialect,
        meta: Option<std::fs::Metadata>,
        horizon: i64,
    ) -> Result<Taken, TransferError> {
        let mut input: Box<dyn BufRead> = match meta {
            None => Box::new(io::stdin().lock()),
            Some(_) => {
                let file = File::open(self.path).map_err(TransferError::Read)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, file))
            }
        };
        let total = meta.map_or(0, |meta| meta.len());
        let mut bar = Progress::new("import", Unit::Bytes, total, self.is_quiet);
        let rigour = if self.is_lenient { Rigour::LinesAlone } else { Rigour::Strict };
        let taken = import::text(db, &mut input, (dialect, rigour), horizon, &mut |bytes| bar.at(bytes));
        bar.end();
        taken
    }

    fn blocks(&self, db: &Db, horizon: i64) -> Result<Taken, TransferError> {
        let mut bar = Progress::new("import", Unit::Count("samples"), 0, self.is_quiet);
        let taken = import::prometheus(db, self.path, horizon, &mut |at, of| bar.at_of(at, of));
        bar.end();
        taken
    }

    /// Many small files become few large ones.
    fn join(&self, db: &Db) -> Result<(), Failed> {
        let mut bar = Progress::new("join files", Unit::Count("steps"), 0, self.is_quiet);
        for step in 1u64.. {
            match db.maintain() {
                Work::Nothing => break,
                Work::Failed => {
                    bar.end();
                    let text = "files could not be joined; the agent tries again".to_owned();
                    return Err((sysexits::IO_ERROR, text));
                }
                _ => bar.at(step),
            }
        }
        bar.end();
        Ok(())
    }
}

/// What was taken, what was not, and what will not stay.
fn report(taken: &Taken, config: &store::Config) {
    let counts = &taken.samples;
    let samples = |n: u64| human::of(n, "sample", "samples");
    let from = if taken.blocks > 0 {
        format!(" from {}", human::of(taken.blocks, "block", "blocks"))
    } else {
        String::new()
    };
    say(&format!("{} taken{from}", samples(counts.samples)));
    let retention = crate::human_duration::format(config.retention);
    for (n, what) in [
        (
            counts.older,
            format!(
                "of them are older than {retention} (store.retention) and go when the agent runs next; what is downsampled of them stays longer"
            ),
        ),
        (counts.duplicates, "were there already".into()),
        (counts.conflicts, "not taken: the store has another value at their time".into()),
        (counts.refused, "not taken: their labels are too many or too long".into()),
        (taken.untimed, "not taken: they have no time".into()),
        (taken.impossible_times, "not taken: their time is before year 1 or after year 9999".into()),
    ] {
        if n > 0 {
            say(&format!("  {} {what}", human::count(n)));
        }
    }
    if taken.exemplars > 0 {
        say(&format!("  {} with them", human::of(taken.exemplars, "exemplar", "exemplars")));
    }
    for found in &taken.damaged {
        say(&format!(
            "  damaged: {} at byte {}: {}; its samples from {} to {} are missing",
            found.file.display(),
            found.offset,
            found.reason,
            human::time(found.range.0),
            human::time(found.range.1)
        ));
    }
}

pub fn now() -> i64 {
    SystemClock::default().now_ms()
}

fn say(text: &str) {
    // Nobody reads: then nobody needs it.
    let _ = writeln!(io::stdout(), "{text}");
}
