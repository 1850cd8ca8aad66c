//! Screens as they are drawn, held against the files in `tests/golden/top`; keys as they are pressed.

use std::path::Path;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::ask::Reading;
use super::draw::{Colours, draw};
use super::plain;
use super::usage::{NO_NAMESPACE, Row, Sort, Usage};
use super::view::{Flow, Focus, Next, Table, View};
use crate::cli::text::printable;

fn row(namespace: &str, name: &str, [cpu, wait, p99, read, write, receive, transmit]: [f64; 7]) -> Row {
    let wait_p99 = Some(p99).filter(|p99| *p99 > 0.0);
    Row {
        id: name.to_owned(),
        name: printable(name),
        namespace: namespace.to_owned(),
        usage: Usage { cpu, wait, wait_p99, read, write, receive, transmit },
    }
}

fn reading(owners: Vec<Row>) -> Reading {
    let mut node = Usage { wait_p99: Some(3.2e-3), ..Usage::default() };
    let mut namespaces: Vec<Row> = Vec::new();
    for owner in &owners {
        node.add(&owner.usage);
        match namespaces.iter_mut().find(|row| row.namespace == owner.namespace) {
            Some(row) => row.usage.add(&owner.usage),
            None => namespaces.push(Row {
                id: owner.namespace.clone(),
                name: Some(printable(&owner.namespace))
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| NO_NAMESPACE.to_owned()),
                ..owner.clone()
            }),
        }
    }
    Reading { at_ms: 1_764_174_675_250, over: Duration::from_millis(5001), owners, namespaces, node }
}

fn view(owners: Vec<Row>) -> View {
    View { source: "http://127.0.0.1:9632/".to_owned(), reading: Some(reading(owners)), ..View::default() }
}

/// A node with pods, units and the kernel.
fn node() -> View {
    view(vec![
        row("shop", "shop/checkout-7d9f8b6c5d-x2x7q/app", [0.84, 0.118, 1.9e-3, 0.0, 2048.0, 12.6e6, 3.1e6]),
        row("shop", "shop/postgres-0/postgres", [0.31, 0.021, 85e-6, 3.2e6, 41.9e6, 4096.0, 8192.5]),
        row("batch", "batch/etl-28391/job", [1.21, 1.604, 42e-3, 0.0, 0.0, 0.0, 0.0]),
        row("kube-system", "kube-system/kube-proxy-9x7zw", [0.001, 0.0006, 4.2e-6, 0.0, 0.0, 312.0, 310.0]),
        row("", "containerd.service", [0.023, 0.002, 17e-6, 0.0, 16384.0, 0.0, 0.0]),
        row("", "kernel", [0.112, 0.009, 380e-9, 0.0, 65536.0, 120.0, 0.0]),
        row("", "ssh.service", [0.0; 7]),
    ])
}

fn drawn(view: &mut View, width: u16, height: u16, colours: Colours) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, colours)).unwrap();
    terminal
}

/// What stands on the screen, a line a line, without the blanks behind.
fn screen(view: &mut View, width: u16, height: u16) -> String {
    let terminal = drawn(view, width, height, Colours::None);
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character has the cell behind it, too.
            x += u16::try_from(crate::cli::text::columns(symbol).max(1)).unwrap();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The screen is that of the file.
fn check(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/golden/top/{name}.txt"));
    if std::env::var_os("TELEMETRY_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, screen).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(screen, golden, "{}: TELEMETRY_BLESS=1 rewrites it", path.display());
}

fn press(view: &mut View, keys: &[KeyCode]) {
    for code in keys {
        let next = view.take(&Event::Key(KeyEvent::new(*code, KeyModifiers::NONE)));
        assert_eq!(next, Next::Draw, "{code:?} ends it");
    }
}

fn type_in(view: &mut View, text: &str) {
    let keys: Vec<KeyCode> = text.chars().map(KeyCode::Char).collect();
    press(view, &keys);
}

fn names(view: &View) -> Vec<&str> {
    view.rows().iter().map(|row| &*row.name).collect()
}

#[test]
fn a_node_at_every_size() {
    check("80x24", &screen(&mut node(), 80, 24));
    check("132x12", &screen(&mut node(), 132, 12));
    check("40x9", &screen(&mut node(), 40, 9));
    check("24x7", &screen(&mut node(), 24, 7));
}

#[test]
fn no_size_is_too_small_and_every_line_has_room() {
    for width in 0..40 {
        for height in 0..12 {
            let mut view = node();
            type_in(&mut view, "G/x");
            for focus in [Focus::Table, Focus::Help, Focus::Filter { before: String::new() }] {
                view.focus = focus;
                drawn(&mut view, width, height, Colours::Sixteen);
            }
        }
    }
}

#[test]
fn the_keys_are_told_on_a_screen_of_24_lines() {
    let mut view = node();
    type_in(&mut view, "?");
    let shown = screen(&mut view, 80, 24);
    assert!(shown.contains("Any key goes back."), "{shown}");
    for line in shown.lines() {
        // Blank at the right end: nothing was cut off there.
        assert!(crate::cli::text::columns(line) < 80 || line.starts_with(" top"), "{line}");
    }
    check("help", &shown);
    type_in(&mut view, "j");
    assert_eq!(
        (view.focus, view.place.cursor_id()),
        (Focus::Table, None),
        "the key goes back and no further"
    );
}

#[test]
fn nothing_there_says_why() {
    let first = |view: &mut View| screen(view, 80, 10).lines().nth(2).unwrap_or_default().to_owned();
    let mut view = View { source: "http://agent/".to_owned(), ..View::default() };
    assert_eq!(
        screen(&mut view, 80, 10).lines().nth(3),
        Some("  no figures yet: they come with the agent's second tick")
    );
    view.fault = Some("no figures for 3 s: connection refused".to_owned());
    check("no_agent", &screen(&mut view, 80, 10));
    assert!(first(&mut view).starts_with(" OWNER"));
    check("nothing_counted", &screen(&mut self::view(Vec::new()), 80, 10));
    let mut view = node();
    type_in(&mut view, "/nobody");
    check("nothing_found", &screen(&mut view, 80, 12));
}

#[test]
fn an_agent_that_does_not_answer_leaves_the_last_figures_and_says_so() {
    let mut view = node();
    view.fault = Some("no figures for 26 s: no answer in time; is the agent running?".to_owned());
    check("stale", &screen(&mut view, 80, 14));
}

#[test]
fn hostile_names_stay_in_their_cells() {
    let mut view = view(vec![
        row("", "a\u{1b}[2J\u{1b}[31mred\r\n\u{7}bell", [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        row("", "数据库服务/数据库服务/数据库服务/尾巴", [2.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]),
        row("", "\u{202e}right-to-left\u{200b}\u{301}", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        row("", &"long".repeat(100), [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ]);
    view.reading.as_mut().unwrap().namespaces.push(row("x\u{1b}[H", "x\u{1b}[H", [0.0; 7]));
    let shown = screen(&mut view, 80, 12);
    assert!(!shown.chars().any(|character| character.is_control() && character != '\n'), "{shown:?}");
    check("hostile", &shown);
    let plain = plain::table(&view);
    assert_eq!(plain.lines().count(), 6, "{plain:?}");
    assert!(!plain.chars().any(|character| character.is_control() && character != '\n'), "{plain:?}");
}

#[test]
fn a_plain_table_cuts_nothing() {
    check("plain", &plain::table(&node()));
    let mut view = node();
    (view.sort, view.filter) = (Sort::Network, "shop/".to_owned());
    assert_eq!(plain::table(&view).lines().count(), 4);
}

#[test]
fn colours_are_the_users_choice_and_never_the_only_sign() {
    let colours = |colours| {
        let terminal = drawn(&mut node(), 80, 24, colours);
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(colours(Colours::None), 0);
    assert!(colours(Colours::Sixteen) > 100);
    let terminal = drawn(&mut node(), 80, 24, Colours::None);
    let cursor = &terminal.backend().buffer()[(0, 4)];
    assert_eq!((cursor.symbol(), cursor.modifier), ("▸", Modifier::REVERSED));
}

#[test]
fn keys_sort() {
    let mut view = node();
    let first = |view: &View| names(view).first().map(|name| (*name).to_owned()).unwrap_or_default();
    assert_eq!(first(&view), "batch/etl-28391/job");
    for (key, owner) in [
        ("W", "batch/etl-28391/job"),
        ("L", "batch/etl-28391/job"),
        ("D", "shop/postgres-0/postgres"),
        ("N", "shop/checkout-7d9f8b6c5d-x2x7q/app"),
        ("A", "batch/etl-28391/job"),
        ("r", "ssh.service"),
        ("C", "batch/etl-28391/job"),
    ] {
        type_in(&mut view, key);
        assert_eq!(first(&view), owner, "{key}");
    }
    type_in(&mut view, "sss");
    assert_eq!(view.sort, Sort::Disk);
    type_in(&mut view, "sss");
    assert_eq!(view.sort, Sort::Cpu);
}

#[test]
fn keys_filter() {
    let mut view = node();
    type_in(&mut view, "/SHOPq");
    assert_eq!(names(&view), Vec::<&str>::new(), "q is a letter of the filter");
    press(&mut view, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(names(&view), ["shop/checkout-7d9f8b6c5d-x2x7q/app", "shop/postgres-0/postgres"]);
    type_in(&mut view, "/x");
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!(view.filter, "shop".to_uppercase(), "the filter before is back");
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!(names(&view).len(), 7);
    type_in(&mut view, "/!service");
    assert_eq!(names(&view).len(), 5);
    type_in(&mut view, &"x".repeat(1000));
    assert_eq!(view.filter.chars().count(), 64);
}

#[test]
fn keys_choose_namespaces() {
    let mut view = node();
    type_in(&mut view, "3");
    assert_eq!(names(&view).len(), 2);
    check("namespace", &screen(&mut view, 80, 10));
    type_in(&mut view, "9");
    assert_eq!(names(&view).len(), 2, "a digit without a namespace does nothing");
    type_in(&mut view, "0n");
    assert_eq!(view.table, Table::Namespaces);
    check("namespaces", &screen(&mut view, 80, 10));
    type_in(&mut view, "j");
    press(&mut view, &[KeyCode::Enter]);
    assert_eq!((view.table, view.namespace.as_deref()), (Table::Owners, Some("shop")));
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!((view.namespace.as_deref(), names(&view).len()), (None, 7));
    type_in(&mut view, "nG");
    press(&mut view, &[KeyCode::Enter]);
    assert_eq!(view.namespace.as_deref(), Some("kube-system"));
}

#[test]
fn the_cursor_stays_on_its_owner_and_on_the_screen() {
    let many = |shift: f64| {
        let cpu = |k: u32| (f64::from(k) + shift) % 100.0;
        (0..100).map(|k| row("", &format!("u{k}.service"), [cpu(k), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])).collect()
    };
    let mut view = view(many(0.0));
    let has_cursor =
        |view: &mut View| screen(view, 80, 24).lines().filter(|line| line.starts_with('▸')).count();
    for (keys, owner) in
        [("jjj", "u96.service"), ("k", "u97.service"), ("G", "u0.service"), ("jk", "u1.service")]
    {
        type_in(&mut view, keys);
        assert_eq!((has_cursor(&mut view), view.place.cursor_id()), (1, Some(owner)), "{keys}");
    }
    press(&mut view, &[KeyCode::PageUp]);
    assert_eq!(view.place.cursor_id(), Some("u19.service"), "18 rows are a page");
    view.reading = Some(reading(many(50.0)));
    assert_eq!((has_cursor(&mut view), view.place.cursor_id()), (1, Some("u19.service")));
    view.reading = Some(reading(Vec::new()));
    type_in(&mut view, "jGk");
    assert_eq!(has_cursor(&mut view), 0);
    view.reading = Some(reading(many(0.0)));
    assert_eq!(has_cursor(&mut view), 1);
}

#[test]
fn keys_pause_and_quit() {
    let mut view = node();
    type_in(&mut view, "p");
    assert_eq!(view.flow, Flow::Paused);
    assert!(screen(&mut view, 80, 24).lines().next().is_some_and(|title| title.ends_with("PAUSED")));
    type_in(&mut view, " ");
    assert_eq!(view.flow, Flow::Live);
    let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
    assert_eq!(view.take(&key(KeyCode::Char('q'), KeyModifiers::NONE)), Next::Quit);
    for before in ["", "/", "?"] {
        type_in(&mut view, before);
        assert_eq!(view.take(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quit, "{before}");
        view.focus = Focus::Table;
    }
}

proptest! {
    #[test]
    fn any_keys_at_any_size_leave_a_screen(
        keys in proptest::collection::vec("[a-zA-Z0-9/!? \u{1b}\r\u{8}]", 0..40),
        (width, height) in (0u16..100, 0u16..30),
    ) {
        let mut view = node();
        for key in keys.iter().flat_map(|key| key.chars()) {
            let code = match key {
                '\u{1b}' => KeyCode::Esc,
                '\r' => KeyCode::Enter,
                '\u{8}' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            view.take(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
            drawn(&mut view, width, height, Colours::Sixteen);
        }
        let rows = view.rows();
        prop_assert!(rows.is_empty() || view.cursor_in(&rows) < rows.len());
    }
}
