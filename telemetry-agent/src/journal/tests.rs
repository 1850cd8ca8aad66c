//! The journal over a real directory and in memory.

use std::time::Duration;

use telemetry_model::{CgroupKey, Hierarchy, Labels};
use telemetry_tsdb::state::BODY_BYTES_MAX;

use super::*;

fn created(id: u64) -> News {
    let owner = Whose { id: format!("unit~{id}"), labels: Labels::fixed(&[("unit", "x"), ("pod", "")]) };
    let cgroup = CgroupKey { hierarchy: Hierarchy::Unified, id };
    News::CgroupCreated { cgroup, owner, is_nested: false }
}

fn all(journal: &Journal) -> Vec<Event> {
    journal.after(0, None, usize::MAX).unwrap().unwrap().events
}

fn kinds(journal: &Journal) -> Vec<String> {
    all(journal).into_iter().map(|event| event.kind).collect()
}

#[test]
fn events_outlive_the_process_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for run in 0..3 {
        let (journal, keeper) = Journal::new(&Config::default());
        let mut keeper = keeper.on_disk(dir.path());
        journal.tell(&News::AgentStarted { version: "1" });
        journal.tell(&created(7));
        keeper.step(Duration::ZERO);
        assert_eq!(all(&journal).len(), 2 + 3 * run);
        assert!(journal.newest() > last, "a number was given twice");
        last = journal.newest();
        keeper.stop();
        assert!(!journal.is_open());
        last = last.max(journal.newest());
    }
}

#[test]
fn what_finds_the_queue_full_is_told_as_lost() {
    let (journal, mut keeper) = Journal::new(&Config::default());
    for id in 0..QUEUE_MAX as u64 + 5 {
        journal.tell(&created(id));
    }
    for _ in 0..100 {
        keeper.step(Duration::ZERO);
    }
    let events = all(&journal);
    let lost: Vec<&str> =
        events.iter().filter(|event| event.kind == "events_lost").map(|event| event.body.as_str()).collect();
    assert_eq!(lost, ["{\"count\":5}"]);
    assert_eq!(events.len(), QUEUE_MAX + 1);
}

#[test]
fn events_go_by_number_and_by_age() {
    let config = Config { events_max: 16, retention: Duration::ZERO, ..Config::default() };
    let (journal, mut keeper) = Journal::new(&config);
    for id in 0..40 {
        journal.tell(&created(id));
        // Written one by one; the first look for old ones is over before there are any.
        keeper.step(Duration::ZERO);
    }
    let kept = all(&journal).len();
    assert!((14..=16).contains(&kept), "{kept}");
    let families = journal.families();
    let removed = families.iter().find(|family| family.desc.name.ends_with("removed_total")).unwrap();
    let sum: f64 = removed
        .series
        .iter()
        .map(|series| match series.value {
            telemetry_model::Value::Number(value) => value,
            telemetry_model::Value::Histogram(_) => 0.0,
        })
        .sum();
    assert!((sum - (40.0 - telemetry_model::float(kept as u64))).abs() < 1.5, "{sum} were removed");
    assert!(journal.oldest().unwrap() > 1);
}

#[test]
fn a_state_that_cannot_be_opened_costs_no_event_that_can_wait() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (journal, keeper) = Journal::new(&Config::default());
    let mut keeper = keeper.on_disk(&file);
    journal.tell(&created(1));
    keeper.step(Duration::ZERO);
    assert!(!journal.is_open() && journal.after(0, None, 9).is_none());
    std::fs::remove_file(&file).unwrap();
    keeper.opened = None;
    keeper.step(Duration::ZERO);
    assert_eq!(kinds(&journal), ["cgroup_created"]);
}

#[test]
fn places_are_bounded_and_given_back() {
    let (journal, _keeper) = Journal::new(&Config { streams_max: 2, ..Config::default() });
    let (first, second) = (journal.place(), journal.place());
    assert!(first.is_some() && second.is_some() && journal.place().is_none());
    drop(first);
    assert!(journal.place().is_some());
}

#[test]
fn bodies_are_json_within_the_limit_and_kinds_are_known() {
    let long = Labels::new(vec![telemetry_model::Label::new("unit", "\u{1}".repeat(BODY_BYTES_MAX))]);
    let owner = Whose { id: "unit~a".to_owned(), labels: long };
    let cgroup = CgroupKey { hierarchy: Hierarchy::Cpu, id: 1 };
    for news in [
        News::AgentStarted { version: "1" },
        News::AgentStopped,
        created(1),
        News::CgroupRemoved { cgroup, owner: owner.clone(), is_nested: true },
        News::NamesBound { from: "pod-uid~1".to_owned(), owner },
        News::HookFailed { program: "a".into(), hook: "b".into(), reason: "\"".repeat(9000) },
        News::StoreDegraded { reason: "é".repeat(9000) },
        News::StoreRecovered,
        News::CountsLost { metric: "m", labels: Labels::none(), count: 1 },
        News::EventsLost { count: 1 },
        News::JournalRepaired { lost: 1, damaged: 2 },
    ] {
        let event = news.event(SystemTime::now());
        assert!(event.body.len() <= BODY_BYTES_MAX && KINDS.contains(&event.kind.as_str()), "{news:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&event.body).unwrap().is_object());
    }
    assert!(KINDS.is_sorted());
}

#[test]
fn what_was_lost_is_told_in_full_though_nothing_can_be_written_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (journal, keeper) = Journal::new(&Config::default());
    let mut keeper = keeper.on_disk(&file);
    let told = 3 * QUEUE_MAX as u64;
    for id in 0..told {
        journal.tell(&created(id));
        if id % 1000 == 0 {
            keeper.step(Duration::ZERO);
        }
    }
    std::fs::remove_file(&file).unwrap();
    keeper.opened = None;
    keeper.step(Duration::ZERO);
    keeper.step(Duration::ZERO);
    let events = all(&journal);
    let lost = |event: &Event| {
        let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
        if event.kind == "events_lost" { body["count"].as_u64().unwrap() } else { 0 }
    };
    let (created, lost) = (kinds(&journal), events.iter().map(lost).sum::<u64>());
    let created = created.iter().filter(|kind| *kind == "cgroup_created").count() as u64;
    assert!(lost > 0);
    assert_eq!(created + lost, told, "{created} written, {lost} told as lost");
}
