//! Draws the view: a title, the namespaces' digits, the table, the row under the cursor in full, the keys. Whatever the
//! terminal's size; what is missing is left out from the least important on.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::usage::{COLUMNS, Row, Sort, Usage};
use super::view::{Flow, Focus, Table, View};
use crate::cli::human;
use crate::cli::text::{columns, cut};

/// Columns of a figure, the gap before it included.
const FIGURE: usize = 7;
/// Columns that a name keeps at least before a figure is shown beside it.
const NAME_LEAST: usize = 16;
/// Columns that the title keeps for whom the figures are of.
const TITLE_LEAST: usize = 12;
/// Columns that a name has where the screen has them: all figures and this are 80.
const NAME_USUAL: usize = 30;
/// Seconds of waiting in a second from which a row is striking: a tenth of a CPU's time lost, and a whole CPU's.
const STRIKING: [(f64, Color); 2] = [(1.0, Color::Red), (0.1, Color::Yellow)];

/// What the keys do, in two columns, and what the figures mean.
const HELP: [&str; 20] = [
    "j k ↓ ↑       one row down, up            s       sort by the next column",
    "^F ^B         one page down, up; also     C W L   sort by CPU, wait, p99 of it",
    "              PgDn, PgUp                  D N A   sort by disk, network, name",
    "g G Home End  first, last row             r       turn the order around",
    "/             filter names: those with    n       namespaces, owners",
    "              a text, !text without it    0 1 … 9 all, one namespace",
    "Enter         open the namespace          p Space pause, go on",
    "Esc           take the last step back     q ^C    quit",
    "?             these keys",
    "",
    "All figures are of the time between the agent's two newest ticks, a second.",
    "CPU           CPU time used, in CPUs",
    "WAIT          time that tasks were ready and waited for a CPU, all together:",
    "              1.000 is one task that always waits",
    "P99           of 100 waits 99 took no longer",
    "READ WRITE    bytes of disks; a write is its owner's who made the page dirty",
    "RECV SENT     bytes of the owner's packets from the IP header on",
    "(node)        all owners together, shown or not; - is nothing",
    "",
    "Any key goes back.",
];
/// What the last line says of the keys, the longest that fits.
const KEYS: [&str; 3] = [
    " q quit  ? keys  / filter  s sort  r reverse  n namespaces  p pause",
    " q quit  ? keys  / filter  s sort",
    " q quit  ? keys",
];

/// Whether colours may be used. What they say is said without them, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// The sixteen that the terminal's user has chosen.
    Sixteen,
    /// None; bold and reversed stay.
    None,
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, view: &mut View, colours: Colours) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let widest = view.rows().iter().map(|row| columns(&row.name)).max().unwrap_or(0);
    let pen = Pen { width, name_most: widest.max(NAME_USUAL), colours };
    let mut lines = vec![pen.title(view)];
    if view.focus == Focus::Help {
        lines.extend(HELP.into_iter().map(|text| Line::raw(format!(" {text}"))));
    } else {
        pen.table(view, height, &mut lines);
    }
    for (y, line) in (0..area.height).zip(lines) {
        frame.render_widget(line, Rect { y: area.y + y, height: 1, ..area });
    }
}

/// What is drawn with.
struct Pen {
    /// Columns of the screen.
    width: usize,
    /// Columns that a name takes at most: on a wide screen figures stand beside their names, not far off.
    name_most: usize,
    colours: Colours,
}

// === impl Pen ===

impl Pen {
    fn coloured(&self, style: Style, colour: Color) -> Style {
        if self.colours == Colours::Sixteen { style.fg(colour) } else { style }
    }

    /// Two texts at both ends of a line; where there is no room for both, the left one is cut.
    fn ends(&self, left: &str, right: &str) -> String {
        let room = self.width.saturating_sub(columns(right) + 1);
        let left = cut(left, room);
        let gap = self.width.saturating_sub(columns(&left) + columns(right));
        format!("{left}{:gap$}{right}", "")
    }

    fn title(&self, view: &View) -> Line<'static> {
        let flow = match (view.flow, &view.fault) {
            (Flow::Paused, _) => "PAUSED ",
            (Flow::Live, Some(_)) => "STALE ",
            (Flow::Live, None) => "live ",
        };
        let mut right = vec![flow.to_owned()];
        if let Some(reading) = &view.reading {
            let time = human::time(reading.at_ms / 1000 * 1000);
            let clock = time.split('T').next_back().unwrap_or_default();
            right.insert(0, format!("{clock}  {flow}"));
            right.insert(0, format!("{clock}, tick {:.1} s  {flow}", reading.over.as_secs_f64()));
        }
        let right =
            right.into_iter().find(|text| columns(text) + TITLE_LEAST <= self.width).unwrap_or_default();
        Line::styled(self.ends(&format!(" top {}", view.source), &right), Modifier::REVERSED)
    }

    /// The namespaces that digits stand for, and how much of everything is shown.
    fn scope(&self, view: &View, shown: usize) -> Line<'static> {
        let mark = |is_chosen: bool| if is_chosen { ("[", "]") } else { ("<", ">") };
        let mut left = String::new();
        let (open, close) = mark(view.namespace.is_none());
        left.push_str(&format!(" {open}0{close} all"));
        for (digit, row) in (1..).zip(view.digits()) {
            let (open, close) = mark(view.namespace.as_ref() == Some(&row.namespace));
            left.push_str(&format!(" {open}{digit}{close} {}", row.name));
        }
        let all = view.all_count();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let all_of = match view.table {
            Table::Owners => human::of(number(all), "owner", "owners"),
            Table::Namespaces => human::of(number(all), "namespace", "namespaces"),
        };
        let filter =
            if view.filter.is_empty() { String::new() } else { format!("/{}  ", cut(&view.filter, 16)) };
        let some_of =
            if shown == all { String::new() } else { format!("{} of ", human::count(number(shown))) };
        Line::raw(self.ends(&left, &format!("{filter}{some_of}{all_of} ")))
    }

    /// The figures that have room: the one that is sorted by is always among them.
    fn figures(&self, sort: Sort) -> Vec<usize> {
        let room = (self.width.saturating_sub(1 + NAME_LEAST) / FIGURE).min(COLUMNS.len());
        let mut shown: Vec<usize> = (0..room).collect();
        let is_sorted = |at: &usize| COLUMNS.get(*at).is_some_and(|column| column.sort == sort);
        if !shown.iter().any(is_sorted)
            && let Some(wanted) = (0..COLUMNS.len()).find(is_sorted)
            && let Some(last) = shown.last_mut()
        {
            *last = wanted;
        }
        shown
    }

    fn table(&self, view: &mut View, height: usize, lines: &mut Vec<Line<'static>>) {
        let (count, cursor) = {
            let rows = view.rows();
            (rows.len(), view.cursor_in(&rows))
        };
        // The lines that are not rows, as far as there is height for them.
        let others = 2 + usize::from(height >= 10) + usize::from(height >= 8) + 2 * usize::from(height >= 6);
        let window = view.window(count, cursor, height.saturating_sub(others));
        if height >= 10 {
            lines.push(self.scope(view, count));
        }
        let figures = self.figures(view.sort);
        lines.push(self.heading(view, &figures));
        if height >= 8
            && let Some(reading) = &view.reading
        {
            let text = self.row(" ", "(node)", &reading.node, &figures);
            lines.push(Line::styled(text, Modifier::BOLD));
        }
        let rows = view.rows();
        for at in window {
            if let Some(row) = rows.get(at) {
                lines.push(self.owner(row, at == cursor, &figures));
            }
        }
        if rows.is_empty() {
            lines.push(Line::raw(format!("  {}", emptiness(view))));
        }
        if height >= 6 {
            lines.resize(height - 2, Line::default());
            lines.push(self.status(view, rows.get(cursor).copied()));
            lines.push(self.keys(view));
        }
    }

    fn heading(&self, view: &View, figures: &[usize]) -> Line<'static> {
        let arrow = if view.is_reversed { "▴" } else { "▾" };
        let name = if view.table == Table::Owners { "OWNER" } else { "NAMESPACE" };
        let by_name = if view.sort == Sort::Name { arrow } else { "" };
        let mut spans = vec![Span::raw(self.name(" ", &format!("{name}{by_name}"), figures.len()))];
        for column in figures.iter().filter_map(|at| COLUMNS.get(*at)) {
            let is_sorted = column.sort == view.sort;
            let title = format!("{}{}", column.title, if is_sorted { arrow } else { "" });
            let gap = FIGURE.saturating_sub(columns(&title));
            let style = if is_sorted { self.coloured(Style::new(), Color::Cyan) } else { Style::new() };
            spans.push(Span::styled(format!("{:gap$}{title}", ""), style));
        }
        Line::from(spans).style(Modifier::BOLD | Modifier::UNDERLINED)
    }

    fn owner(&self, row: &Row, is_cursor: bool, figures: &[usize]) -> Line<'static> {
        let text = self.row(if is_cursor { "▸" } else { " " }, &row.name, &row.usage, figures);
        let striking = STRIKING.iter().find(|(least, _)| row.usage.wait >= *least);
        let style = striking.map_or(Style::new(), |(_, colour)| self.coloured(Style::new(), *colour));
        Line::styled(text, if is_cursor { style.add_modifier(Modifier::REVERSED) } else { style })
    }

    fn row(&self, mark: &str, name: &str, usage: &Usage, figures: &[usize]) -> String {
        let mut text = self.name(mark, name, figures.len());
        for column in figures.iter().filter_map(|at| COLUMNS.get(*at)) {
            text.push_str(&format!("{:>FIGURE$}", (column.text)(usage)));
        }
        text
    }

    /// A name and all that is left beside so many figures.
    fn name(&self, mark: &str, name: &str, figures: usize) -> String {
        let room = self.width.saturating_sub(1 + figures * FIGURE).min(self.name_most);
        let name = cut(name, room);
        let gap = room.saturating_sub(columns(&name));
        format!("{mark}{name}{:gap$}", "")
    }

    /// What is wrong, or the row under the cursor, in full.
    fn status(&self, view: &View, row: Option<&Row>) -> Line<'static> {
        match (&view.fault, row) {
            (Some(fault), _) => {
                Line::styled(format!(" ! {fault}"), self.coloured(Style::new().bold(), Color::Red))
            }
            (None, Some(row)) => Line::raw(cut(&format!(" {}", row.name), self.width)),
            (None, None) => Line::default(),
        }
    }

    fn keys(&self, view: &View) -> Line<'static> {
        if let Focus::Filter { .. } = &view.focus {
            return Line::raw(format!(" /{}▏  Enter keeps it, Esc takes it back, ! leaves out", view.filter));
        }
        Line::raw(KEYS.into_iter().find(|text| columns(text) <= self.width).unwrap_or_default())
    }
}

/// Why there are no rows.
fn emptiness(view: &View) -> String {
    match &view.reading {
        None if view.fault.is_some() => "no figures".to_owned(),
        None => "no figures yet: they come with the agent's second tick".to_owned(),
        Some(_) if !view.filter.is_empty() => "no name has the filter's text; Esc shows all".to_owned(),
        Some(_) if view.namespace.is_some() => "nothing of this namespace now; 0 shows all".to_owned(),
        Some(_) => "nothing was counted between the last two ticks".to_owned(),
    }
}
