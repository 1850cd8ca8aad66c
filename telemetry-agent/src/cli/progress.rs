//! How far a long command is: a bar on a terminal, a line every few seconds where standard error is a file or a pipe,
//! nothing with `--quiet`.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human;

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often a bar is drawn, a second at most.
const DRAWS_A_SECOND: u8 = 10;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Things of this name.
    Count(&'static str),
}

/// How far a command is.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: u64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    /// When the last line was written.
    Lines(Instant),
    Nothing,
}

// === impl Progress ===

impl Progress {
    /// Nothing is done yet of `total`; 0: nobody knows.
    pub fn new(what: &'static str, unit: Unit, total: u64, is_quiet: bool) -> Self {
        let shown = if is_quiet {
            Shown::Nothing
        } else if io::stderr().is_terminal() {
            Shown::Bar(bar(what, unit, total))
        } else {
            Shown::Lines(Instant::now())
        };
        Self { what, unit, total, shown }
    }

    /// So much is done of so much.
    pub fn at_of(&mut self, done: u64, total: u64) {
        if let Shown::Bar(bar) = &self.shown
            && total != self.total
        {
            bar.set_length(total);
        }
        self.total = total;
        self.at(done);
    }

    /// So much is done.
    pub fn at(&mut self, done: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                // Nobody reads: then nobody needs it.
                let _ = writeln!(io::stderr(), "{}", line(self.what, self.unit, done, self.total));
            }
            Shown::Lines(_) | Shown::Nothing => {}
        }
    }

    /// The bar goes.
    pub fn end(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, unit: Unit, total: u64) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND);
    let bar = ProgressBar::with_draw_target(Some(total).filter(|total| *total > 0), target);
    let counts = match (unit, total) {
        (Unit::Bytes, 0) => "{bytes}",
        (Unit::Bytes, _) => "{bytes} of {total_bytes}",
        (Unit::Count(_), 0) => "{human_pos}",
        (Unit::Count(_), _) => "{human_pos} of {human_len}",
    };
    let name = match unit {
        Unit::Bytes => "",
        Unit::Count(name) => name,
    };
    let template = if total > 0 {
        format!("{{msg}} [{{bar:32}}] {{percent:>3}} %  {counts} {name}  {{eta}} left")
    } else {
        format!("{{msg}} {{spinner}}  {counts} {name}  {{elapsed}}")
    };
    let style = ProgressStyle::with_template(&template).map(|style| style.progress_chars("=> "));
    let bar = bar.with_message(what);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn line(what: &str, unit: Unit, done: u64, total: u64) -> String {
    let write = |n: u64| match unit {
        Unit::Bytes => human::bytes(n),
        Unit::Count(_) => human::count(n),
    };
    let name = match unit {
        Unit::Bytes => String::new(),
        Unit::Count(name) => format!(" {name}"),
    };
    match total {
        0 => format!("{what}: {}{name}", write(done)),
        _ => {
            let percent = done.saturating_mul(100) / total;
            format!("{what}: {} of {}{name}, {percent} %", write(done), write(total))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let lines = [
            line("import", Unit::Bytes, 1536, 3072),
            line("export", Unit::Count("series"), 12_000, 0),
            line("verify", Unit::Count("files"), 3, 4),
        ];
        assert_eq!(
            lines,
            ["import: 1.5 KiB of 3.0 KiB, 50 %", "export: 12,000 series", "verify: 3 of 4 files, 75 %"]
        );
    }

    #[test]
    fn every_bar_has_a_style() {
        for unit in [Unit::Bytes, Unit::Count("files")] {
            for total in [0, 7] {
                let hidden = bar("x", unit, total);
                hidden.set_draw_target(ProgressDrawTarget::hidden());
                hidden.set_position(3);
                hidden.finish_and_clear();
            }
        }
    }
}
