//! What of a reading is looked at, and how keys change that. Knows keys; nothing of how it is drawn.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::ask::Reading;
use super::usage::{Row, Sort};

/// Characters of a filter.
const FILTER_MOST: usize = 64;
/// Namespaces that have a digit of their own.
const DIGITS: usize = 9;

/// Which rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// One an owner.
    #[default]
    Owners,
    /// One a namespace.
    Namespaces,
}

/// Whether figures follow the agent's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    #[default]
    Live,
    /// They stay until this is taken back.
    Paused,
}

/// What takes the keys, and most of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// The table.
    #[default]
    Table,
    /// A filter while it is typed, and what it was before.
    Filter {
        /// The filter to come back to.
        before: String,
    },
    /// The list of keys.
    Help,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be something new to draw.
    Draw,
    /// It is over.
    Quit,
}

/// All that is looked at.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whom the figures are of.
    pub source: String,
    /// The newest figures; none before the agent has two ticks.
    pub reading: Option<Reading>,
    /// What is wrong, for as long as it is.
    pub fault: Option<String>,
    /// Which rows.
    pub table: Table,
    /// In which order.
    pub sort: Sort,
    /// Whether the order is turned.
    pub is_reversed: bool,
    /// Part of the names that are shown, whatever its case; behind a `!`, of those that are not.
    pub filter: String,
    /// The one namespace that is shown; an empty one is that of what has none.
    pub namespace: Option<String>,
    /// Whether figures move.
    pub flow: Flow,
    /// What takes the keys.
    pub focus: Focus,
    /// Where in the table.
    pub place: Place,
}

/// Where in a table somebody is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The id of the row that the cursor is on; none before it was moved: then it is the first one's.
    cursor: Option<String>,
    /// Rows that the screen has room for, as last drawn.
    room: usize,
    /// The first row drawn.
    first: usize,
}

// === impl Place ===

impl Place {
    /// The id of the row that the cursor was moved to.
    #[cfg(test)]
    pub fn cursor_id(&self) -> Option<&str> {
        self.cursor.as_deref()
    }
}

// === impl View ===

impl View {
    /// The rows to show, in their order.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let Some(reading) = &self.reading else { return Vec::new() };
        let all = match self.table {
            Table::Owners => &reading.owners,
            Table::Namespaces => &reading.namespaces,
        };
        let filter = self.filter.to_lowercase();
        let (filter, is_wanted) = match filter.strip_prefix('!') {
            Some("") => ("", true),
            Some(rest) => (rest, false),
            None => (&*filter, true),
        };
        let is_here = |row: &&Row| {
            let is_of = self.namespace.as_ref().is_none_or(|namespace| row.namespace == *namespace);
            let is_found = row.name.to_lowercase().contains(filter);
            (is_of || self.table == Table::Namespaces) && is_found == is_wanted
        };
        let mut rows: Vec<&Row> = all.iter().filter(is_here).collect();
        rows.sort_by(|a, b| if self.is_reversed { self.sort.order(b, a) } else { self.sort.order(a, b) });
        rows
    }

    /// How many rows there are, shown or not.
    #[must_use]
    pub fn all_count(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| match self.table {
            Table::Owners => reading.owners.len(),
            Table::Namespaces => reading.namespaces.len(),
        })
    }

    /// The namespaces of pods that a digit stands for, from 1 on.
    #[must_use]
    pub fn digits(&self) -> Vec<&Row> {
        let all = self.reading.iter().flat_map(|reading| &reading.namespaces);
        let mut named: Vec<&Row> = all.filter(|row| !row.namespace.is_empty()).collect();
        named.sort_by(|a, b| a.id.cmp(&b.id));
        named.truncate(DIGITS);
        named
    }

    /// Where the cursor is among these rows.
    #[must_use]
    pub fn cursor_in(&self, rows: &[&Row]) -> usize {
        let wanted = self.place.cursor.as_ref();
        wanted.and_then(|id| rows.iter().position(|row| row.id == *id)).unwrap_or(0)
    }

    /// Which rows to draw where there is room for so many: the cursor is always among them.
    pub fn window(&mut self, count: usize, cursor: usize, room: usize) -> std::ops::Range<usize> {
        self.place.room = room;
        let last_first = count.saturating_sub(room);
        let lowest = (cursor + 1).saturating_sub(room);
        self.place.first = self.place.first.clamp(lowest.min(cursor), cursor).min(last_first);
        self.place.first..(self.place.first + room).min(count)
    }

    /// Takes an event of the terminal.
    pub fn take(&mut self, event: &Event) -> Next {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.press(*key),
            _ => Next::Draw,
        }
    }

    fn press(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        match &self.focus {
            Focus::Help => self.focus = Focus::Table,
            Focus::Filter { before } => {
                let before = before.clone();
                self.edit(key.code, before);
            }
            Focus::Table if is_control => match key.code {
                KeyCode::Char('f' | 'd') => self.walk(self.page()),
                KeyCode::Char('b' | 'u') => self.walk(-self.page()),
                _ => {}
            },
            Focus::Table => match key.code {
                KeyCode::Char('q') => return Next::Quit,
                code => self.command(code),
            },
        }
        Next::Draw
    }

    fn command(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.focus = Focus::Help,
            KeyCode::Char('/') => {
                let before = std::mem::take(&mut self.filter);
                self.focus = Focus::Filter { before };
            }
            KeyCode::Char('j') | KeyCode::Down => self.walk(1),
            KeyCode::Char('k') | KeyCode::Up => self.walk(-1),
            KeyCode::PageDown => self.walk(self.page()),
            KeyCode::PageUp => self.walk(-self.page()),
            KeyCode::Char('g') | KeyCode::Home => self.walk(isize::MIN),
            KeyCode::Char('G') | KeyCode::End => self.walk(isize::MAX),
            KeyCode::Char('s') => self.sort_by(self.sort.next()),
            KeyCode::Char('C') => self.sort_by(Sort::Cpu),
            KeyCode::Char('W') => self.sort_by(Sort::Wait),
            KeyCode::Char('L') => self.sort_by(Sort::P99),
            KeyCode::Char('D') => self.sort_by(Sort::Disk),
            KeyCode::Char('N') => self.sort_by(Sort::Network),
            KeyCode::Char('A') => self.sort_by(Sort::Name),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('p' | ' ') => {
                self.flow = if self.flow == Flow::Live { Flow::Paused } else { Flow::Live };
            }
            KeyCode::Char('n') => {
                self.show(if self.table == Table::Owners { Table::Namespaces } else { Table::Owners })
            }
            KeyCode::Char('0') => self.open(None),
            KeyCode::Char(digit @ '1'..='9') => {
                let place = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or(1);
                if let Some(namespace) = self.digits().get(place - 1).map(|row| row.namespace.clone()) {
                    self.open(Some(namespace));
                }
            }
            KeyCode::Enter if self.table == Table::Namespaces => {
                let rows = self.rows();
                if let Some(namespace) = rows.get(self.cursor_in(&rows)).map(|row| row.namespace.clone()) {
                    self.filter.clear();
                    self.open(Some(namespace));
                }
            }
            KeyCode::Esc => self.step_back(),
            _ => {}
        }
    }

    /// A key while the filter is typed.
    fn edit(&mut self, code: KeyCode, before: String) {
        match code {
            KeyCode::Enter => self.focus = Focus::Table,
            KeyCode::Esc => {
                self.filter = before;
                self.focus = Focus::Table;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) if self.filter.chars().count() < FILTER_MOST => {
                self.filter.push(character);
            }
            _ => {}
        }
    }

    /// Takes back one narrowing: the filter first, then the namespace, then the other table.
    fn step_back(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.namespace.is_some() {
            self.namespace = None;
        } else {
            self.show(Table::Owners);
        }
    }

    fn sort_by(&mut self, sort: Sort) {
        (self.sort, self.is_reversed) = (sort, false);
        self.go_first();
    }

    fn show(&mut self, table: Table) {
        if self.table != table {
            self.filter.clear();
        }
        self.table = table;
        self.go_first();
    }

    fn open(&mut self, namespace: Option<String>) {
        self.show(Table::Owners);
        self.namespace = namespace;
    }

    /// Moves the cursor by so many rows, as far as there are any.
    fn walk(&mut self, by: isize) {
        let rows = self.rows();
        let at = self.cursor_in(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.place.cursor = rows.get(at).map(|row| row.id.clone());
    }

    fn go_first(&mut self) {
        (self.place.cursor, self.place.first) = (None, 0);
    }

    fn page(&self) -> isize {
        isize::try_from(self.place.room.max(1)).unwrap_or(isize::MAX)
    }
}
