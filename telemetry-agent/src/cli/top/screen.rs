//! The live screen: takes the terminal over, asks, draws, takes keys, and gives the terminal back however it ends.

use std::io;
use std::time::Duration;

use axum::http::Uri;
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::ask::{self, Reading};
use super::draw::{Colours, draw};
use super::view::{Flow, Next, View};
use crate::cli::text::printable;
use crate::sysexits;

/// How often the agent is asked for a newer tick. By itself the screen is not drawn more often.
const POLL: Duration = Duration::from_secs(1);
/// Between two drawings at least: held keys must not queue up behind them.
const FRAME: Duration = Duration::from_millis(50);
/// Ticks that may be missed before the figures are called old.
const TICKS_MISSED: u32 = 3;

type Answer = Result<Option<Reading>, (u8, String)>;

/// What goes on while the screen is there.
struct Live {
    url: Uri,
    /// The question that is not answered yet: one at a time.
    asked: Option<JoinHandle<Answer>>,
    /// When a new tick, or an answer to the first question, was last had.
    heard: Instant,
    /// What the last answer had instead of figures.
    refusal: Option<String>,
}

/// The terminal, taken over. Given back when dropped.
struct Screen(DefaultTerminal);

/// Shows the view until somebody quits.
///
/// # Errors
/// An exit code and what is wrong, in one line: the terminal cannot be taken over.
pub fn run(url: &Uri, mut view: View, colours: Colours) -> Result<(), (u8, String)> {
    let refused = |error: io::Error| (sysexits::OS_ERROR, format!("the terminal: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
    let live = Live { url: url.clone(), asked: None, heard: Instant::now(), refusal: None };
    let result = runtime.block_on(live.show(&mut view, colours)).map_err(refused);
    // A question that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

// === impl Live ===

impl Live {
    async fn show(mut self, view: &mut View, colours: Colours) -> io::Result<()> {
        // Signals first: from here on none ends the program with the terminal still taken.
        let [mut hangup, mut interrupt, mut end] = [
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ];
        let mut screen = Screen::take()?;
        let mut events = EventStream::new();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        screen.0.draw(|frame| draw(frame, view, colours))?;
        let (mut drawn, mut is_due) = (Instant::now(), false);
        loop {
            if is_due && drawn.elapsed() >= FRAME {
                screen.0.draw(|frame| draw(frame, view, colours))?;
                (drawn, is_due) = (Instant::now(), false);
            }
            let next = tokio::select! {
                () = sleep_until(drawn + FRAME), if is_due => continue,
                event = events.next() => take(event, view)?,
                answer = answered(&mut self.asked) => { self.hear(answer, view); Next::Draw }
                _ = poll.tick() => { self.ask(view); Next::Draw }
                _ = hangup.recv() => Next::Quit,
                _ = interrupt.recv() => Next::Quit,
                _ = end.recv() => Next::Quit,
            };
            if next == Next::Quit {
                return Ok(());
            }
            is_due = true;
        }
    }

    /// Asks for a newer tick, if nothing is asked already.
    fn ask(&mut self, view: &mut View) {
        if view.flow == Flow::Paused {
            // What is not asked for cannot be late.
            self.heard = Instant::now();
        } else if self.asked.is_none() {
            let (url, known) = (self.url.clone(), view.reading.as_ref().map(|reading| reading.at_ms));
            self.asked = Some(tokio::task::spawn_blocking(move || ask::reading(&url, known)));
        }
        view.fault = self.fault(view);
    }

    fn hear(&mut self, answer: Answer, view: &mut View) {
        self.asked = None;
        match answer {
            // It was asked before the pause.
            Ok(_) if view.flow == Flow::Paused => {}
            Ok(newer) => {
                self.refusal = None;
                if let Some(reading) = newer {
                    self.heard = Instant::now();
                    view.reading = Some(reading);
                }
            }
            Err((_, text)) => {
                // Whom it is about stands in the title.
                let what = text.strip_prefix(&format!("{}: ", self.url)).unwrap_or(&text);
                self.refusal = Some(printable(what));
            }
        }
        view.fault = self.fault(view);
    }

    /// What is wrong: a refusal, or a silence that the agent's tick does not explain.
    fn fault(&self, view: &View) -> Option<String> {
        let silence = self.heard.elapsed();
        let over = view.reading.as_ref().map(|reading| reading.over);
        let is_late = over.is_some_and(|over| silence > over * TICKS_MISSED + POLL);
        let seconds = silence.as_secs();
        match &self.refusal {
            _ if view.flow == Flow::Paused => None,
            Some(text) => Some(format!("no figures for {seconds} s: {text}")),
            None if is_late => Some(format!("no new tick of the agent for {seconds} s")),
            None => None,
        }
    }
}

// === impl Screen ===

impl Screen {
    fn take() -> io::Result<Self> {
        // Gives the terminal back on a panic, too.
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

/// Waits for the answer to what was asked; for ever where nothing was.
async fn answered(asked: &mut Option<JoinHandle<Answer>>) -> Answer {
    match asked {
        Some(asked) => asked.await.unwrap_or_else(|error| Err((sysexits::OS_ERROR, error.to_string()))),
        None => std::future::pending().await,
    }
}

/// Takes an event. None: the terminal is gone.
fn take(event: Option<io::Result<Event>>, view: &mut View) -> io::Result<Next> {
    event.transpose().map(|event| event.map_or(Next::Quit, |event| view.take(&event)))
}
