//! `telemetry-agent top`: who uses the node now, live in the terminal; as one plain table where there is no terminal.
//!
//! Asks a running agent's query API as anybody else would, so that it works on a remote one, too.

mod ask;
mod draw;
mod plain;
mod screen;
mod usage;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use axum::http::Uri;
use clap::Args;

use self::ask::Reading;
use self::draw::Colours;
use self::usage::Sort;
use self::view::View;
use super::text::printable;
use crate::sysexits;

/// Whom to ask, and what to show.
#[derive(Args, Clone, Debug)]
pub struct Top {
    /// The agent.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9632")]
    url: Uri,
    /// Print one table and end; the default where the output is no terminal.
    #[arg(long)]
    once: bool,
    /// Sort by this.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Show names with this text only, or without it behind a `!`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Show this namespace only.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// How long one table waits for an agent that has just begun.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// How often it asks in that time.
const FIRST_POLL: Duration = Duration::from_millis(200);

/// Shows it.
///
/// # Errors
/// An exit code and what is wrong, in one line: nobody answers, the answer is no agent's, the terminal refuses.
pub fn run(top: &Top) -> Result<(), (u8, String)> {
    let mut view = View {
        source: printable(&top.url.to_string()),
        sort: top.sort,
        filter: top.filter.clone(),
        namespace: top.namespace.clone(),
        ..View::default()
    };
    if top.once || !io::stdout().is_terminal() || is_set("TERM", "dumb") {
        view.reading = Some(first(&top.url)?);
        // A reader that has seen enough is no error.
        let _ = io::stdout().lock().write_all(plain::table(&view).as_bytes());
        return Ok(());
    }
    // Whoever does not answer at all gets no screen.
    view.reading = ask::reading(&top.url, None)?;
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    screen::run(&top.url, view, if is_plain { Colours::None } else { Colours::Sixteen })
}

fn is_set(variable: &str, value: &str) -> bool {
    std::env::var_os(variable).is_some_and(|found| found == value)
}

/// The first figures of an agent that may have just begun.
fn first(url: &Uri) -> Result<Reading, (u8, String)> {
    let start = Instant::now();
    loop {
        if let Some(reading) = ask::reading(url, None)? {
            return Ok(reading);
        }
        if start.elapsed() > FIRST_PATIENCE {
            let text = format!("{url}: no two ticks of an agent within {} s", FIRST_PATIENCE.as_secs());
            return Err((sysexits::UNAVAILABLE, text));
        }
        std::thread::sleep(FIRST_POLL);
    }
}
