//! Loss of power on real file systems: a loop device whose file system is shut down without a word to its log, so that
//! what was not synced is gone, then unmounted, mounted and opened again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use telemetry_tests::host::root_test;
use telemetry_tests::loopdev::{FileSystem, LoopDevice, Mount, sparse};
use telemetry_tsdb::fs::sim::Rng;

use crate::ledger::{Ledger, Note};
use crate::load::START;
use crate::mortal::{Phase, Plan};
use crate::writer::{self, Death, End, Life};

/// Losses of power on each file system.
const LOSSES: u64 = 50;
/// No life gets to its end.
const TICKS_MAX: u64 = 10_000;
/// What the kernel's smallest xfs needs; hardly any of it is ever written.
const DEVICE_BYTES: u64 = 400 << 20;

/// Losses wanted: `TELEMETRY_POWER_LOSSES`, or what fits into some seconds.
fn losses() -> u64 {
    std::env::var("TELEMETRY_POWER_LOSSES").ok().and_then(|text| text.parse().ok()).unwrap_or(LOSSES)
}

#[test]
fn no_acknowledged_sample_is_lost_with_the_power_on_ext4() {
    root_test(|| lose_power(FileSystem::Ext4));
}

#[test]
fn no_acknowledged_sample_is_lost_with_the_power_on_xfs() {
    root_test(|| lose_power(FileSystem::Xfs));
}

fn lose_power(kind: FileSystem) -> Result<()> {
    let root = tempfile::tempdir()?;
    let device = LoopDevice::over(&sparse(root.path(), DEVICE_BYTES)?)?;
    let mut mount = Mount::fresh(&device, kind)?;
    let note = root.path().join("phase");
    let (mut ledger, mut rng) = (Ledger::default(), Rng::new(7));
    let (mut acknowledged, mut met) = (0, BTreeMap::<Phase, u64>::new());
    for life in 0..losses() {
        let dir = mount.path().join("tsdb");
        let now = ledger.now().max(START);
        let mut lost =
            Life { dir, life: 2 * life, now, ticks: TICKS_MAX, plan: Plan::Never, note: note.clone() };
        let delay = Duration::from_micros(rng.below(150_000));
        let place = || format!("{kind:?}, loss {life} after {delay:?}");
        if life % 3 == 0 {
            // Killed first: what the next process finds in the page cache alone must be made durable, or not be
            // called so.
            lost.plan = Plan::At(1 + rng.below(60));
            lost.start()?.end(&mut ledger).with_context(place)?;
            ledger.check(&writer::look(&lost.dir, ledger.now())?).with_context(place)?;
            (lost.life, lost.now, lost.plan) = (2 * life + 1, ledger.now().max(START), Plan::Never);
        }
        let end = lost.start()?.end_after(delay, Death::Power(&mount), &mut ledger).with_context(place)?;
        // A writer that met the dead disk in its start has ended by itself.
        let (End::Killed(phase) | End::Failed(phase)) = end else { bail!("{}: it lived", place()) };
        *met.entry(phase).or_default() += 1;
        mount = mount.again(&device)?;
        let dir = mount.path().join("tsdb");
        if dir.exists() {
            acknowledged +=
                ledger.check(&writer::look(&dir, ledger.now())?).with_context(place)?.acknowledged;
        }
    }
    println!("{kind:?}: {} losses of power, {acknowledged} samples compared, {met:?}", losses());
    ensure!(acknowledged > 10 * losses(), "hardly anything was acknowledged: {acknowledged}");
    Ok(())
}

/// A process dies between a write of the log and its sync; the next one finds the record in the page cache, says that
/// it is durable, and loses power.
#[test]
fn what_a_start_calls_durable_survives_the_power() {
    root_test(|| {
        let root = tempfile::tempdir()?;
        let device = LoopDevice::over(&sparse(root.path(), DEVICE_BYTES)?)?;
        let mut mount = Mount::fresh(&device, FileSystem::Ext4)?;
        let note = root.path().join("phase");
        let mut ledger = Ledger::default();
        let mut carried = 0;
        for life in 0..12 {
            let dir = mount.path().join("tsdb");
            let now = ledger.now().max(START);
            // The operations of a commit are a write and a sync, by turns.
            let plan = Plan::In(Phase::Commit, 4 + life);
            let mut killed = Life { dir, life: 2 * life, now, ticks: TICKS_MAX, plan, note: note.clone() };
            killed.start()?.end(&mut ledger)?;
            let before = ledger.check(&writer::look(&killed.dir, ledger.now())?)?;
            (killed.life, killed.now, killed.plan) = (2 * life + 1, ledger.now(), Plan::Never);
            let mut next = killed.start()?;
            next.follow(&mut ledger, |note| matches!(note, Note::Open { .. }))?;
            carried += before.others;
            next.end_after(Duration::ZERO, Death::Power(&mount), &mut ledger)?;
            mount = mount.again(&device)?;
            let dir = mount.path().join("tsdb");
            ledger.check(&writer::look(&dir, ledger.now())?).with_context(|| format!("life {life}"))?;
        }
        ensure!(carried > 0, "no life ended between a write and its sync");
        Ok(())
    });
}
