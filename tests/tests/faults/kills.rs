//! kill -9, at random moments and at chosen operations, over and over on one store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use telemetry_tsdb::fs::sim::Rng;

use crate::ledger::Ledger;
use crate::load::START;
use crate::mortal::{Phase, Plan};
use crate::writer::{self, Death, End, Life};

/// Lives that end by death.
const DEATHS: u64 = 300;
/// How often each phase must be met.
const DEATHS_A_PHASE: u64 = 3;
/// Ticks of a life that nobody ends: more than two joins of files.
const TICKS_MAX: u64 = 250;

/// Deaths wanted: `TELEMETRY_KILLS`, or what fits into a minute.
fn deaths() -> u64 {
    std::env::var("TELEMETRY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(DEATHS)
}

/// By turns: after some time, at some operation, at some operation of each phase.
fn plan(turn: u64, rng: &mut Rng) -> (Plan, Option<Duration>) {
    let phases = &Phase::ALL[1..];
    match turn % 3 {
        0 => (Plan::Never, Some(Duration::from_micros(rng.below(120_000)))),
        1 => (Plan::At(1 + rng.below(300)), None),
        _ => {
            let phase = phases[(turn / 3) as usize % phases.len()];
            // A file that is too old is removed alone, one that is joined with others.
            let turns = if phase == Phase::Retention { 1 } else { 4 };
            (Plan::In(phase, 1 + rng.below(turns)), None)
        }
    }
}

#[test]
fn no_acknowledged_sample_is_lost_to_kill_9() -> Result<()> {
    let seed = std::env::var("TELEMETRY_KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (mut rng, began) = (Rng::new(seed), Instant::now());
    let root = tempfile::tempdir()?;
    let (dir, note) = (root.path().join("tsdb"), root.path().join("phase"));
    let mut ledger = Ledger::default();
    let mut met: BTreeMap<Phase, u64> = BTreeMap::new();
    let (mut turn, mut killed, mut acknowledged) = (0, 0, 0);
    while killed < deaths() {
        let (plan, delay) = plan(turn, &mut rng);
        let now = ledger.now().max(START);
        let life = Life { dir: dir.clone(), life: turn, now, ticks: TICKS_MAX, plan, note: note.clone() };
        let running = life.start()?;
        let place = || format!("seed {seed}, turn {turn}, {plan:?} {delay:?}");
        let end = match delay {
            Some(delay) => running.end_after(delay, Death::Kill, &mut ledger),
            None => running.end(&mut ledger),
        };
        let end = end.with_context(place)?;
        match end {
            End::Killed(phase) => {
                killed += 1;
                *met.entry(phase).or_default() += 1;
            }
            End::Finished => {}
            End::Failed(phase) => bail!("{}: it failed at {phase:?}", place()),
        }
        // Three in four times the next life, not this look, is the first to find what the last one left.
        let db =
            if turn % 4 == 0 { writer::open(&dir, ledger.now()) } else { writer::look(&dir, ledger.now()) };
        let checked = ledger.check(&db.with_context(place)?).with_context(place)?;
        acknowledged += checked.acknowledged;
        turn += 1;
    }
    let sum = format!(
        "{killed} deaths in {:.1} s, {acknowledged} samples compared, {met:?}",
        began.elapsed().as_secs_f64()
    );
    println!("{sum}");
    for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Idle) {
        ensure!(
            met.get(&phase).is_some_and(|n| *n >= DEATHS_A_PHASE * deaths() / DEATHS),
            "{phase:?} was hardly met: {sum}"
        );
    }
    Ok(())
}
