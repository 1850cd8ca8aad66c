//! `events`: what happened, out of the files of an agent that does not run.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Args;
use telemetry_tsdb::state::{self, Error, Event, State};

use super::{Failed, Output, human};
use crate::journal::KINDS;
use crate::sysexits;

/// Events read at one time.
const PAGE: usize = 1000;

/// Which events.
#[derive(Args)]
pub struct Events {
    /// Only events of this kind, such as cgroup_created. May be repeated.
    #[arg(long = "kind", value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    kinds: Vec<String>,
    /// From this time on: 2026-11-25T20:15:00Z, 2026-11-25, seconds since 1970, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to this time, in the same forms.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// How to print them: a line each; as JSON the objects of `/v1/events`.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

// === impl Events ===

impl Events {
    pub(super) fn run(&self, data_dir: &Path, now: i64) -> Result<(), Failed> {
        let time = |text: &Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => human::parse_time(text, now).map_err(|error| (sysexits::USAGE, error)),
        };
        let (from, to) = (time(&self.from, i64::MIN)?, time(&self.to, i64::MAX)?);
        let failed = |error: &Error| failed(data_dir, error);
        let (state, _) =
            State::open_existing(data_dir, state::Config::default()).map_err(|error| failed(&error))?;
        let is_wanted = |event: &Event| self.kinds.is_empty() || self.kinds.contains(&event.kind);
        let mut out = io::BufWriter::new(io::stdout().lock());
        let (mut after, mut damaged) = ((from, 0), 0);
        loop {
            let page = state.events().onward(after, to, PAGE, &is_wanted).map_err(|error| failed(&error))?;
            damaged += page.damaged;
            for event in &page.events {
                match writeln!(out, "{}", self.line(event)) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err((sysexits::IO_ERROR, error.to_string())),
                    Ok(()) => {}
                }
            }
            match page.events.last() {
                Some(last) if page.is_cut => after = (last.at_ms, last.number),
                _ => break,
            }
        }
        match out.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err((sysexits::IO_ERROR, error.to_string()))
            }
            _ if damaged > 0 => Err((
                sysexits::DATA_ERROR,
                format!(
                    "{} cannot be read",
                    human::of(damaged, "event or part of a table", "events or parts of tables")
                ),
            )),
            _ => Ok(()),
        }
    }

    fn line(&self, event: &Event) -> String {
        let Event { number, at_ms, kind, body } = event;
        match self.output {
            Output::Text => format!("{number:>8} {} {kind:<16} {body}", human::time(*at_ms)),
            Output::Json => {
                let details: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let at = human::time(*at_ms);
                serde_json::json!({ "id": number, "at": at, "kind": kind, "details": details }).to_string()
            }
        }
    }
}

fn failed(data_dir: &Path, error: &Error) -> Failed {
    match error {
        Error::Absent(_) => (
            sysexits::NO_INPUT,
            format!("there are no events in {}; name another with --data-dir", data_dir.display()),
        ),
        Error::Locked(_) => (
            sysexits::UNAVAILABLE,
            format!("{} is in use: ask the agent for /v1/events, or stop it first", data_dir.display()),
        ),
        _ => (sysexits::IO_ERROR, format!("events in {}: {error}", data_dir.display())),
    }
}
