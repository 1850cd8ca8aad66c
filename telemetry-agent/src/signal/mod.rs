//! Drained cells become a batch: one file a family, and the [`SIGNALS`] that there are.
//!
//! A signal reads its cells, takes wrapping differences to its last reading, and says what grew, by slot's owner as
//! the kernel knows it. It does not know what a pod is. Cells are never reset, so nothing is lost between a reading
//! and a reset.

pub mod block;
pub mod health;
pub mod network;
pub mod sched;

use std::time::{Duration, Instant};

use telemetry_ebpf::hist;
use telemetry_ebpf::identity::Losses;
use telemetry_model::{Batch, CgroupKey, Desc, Family, Increment, Labels, Layout, OwnerKey, Row};

use crate::bpf::Kernel;

pub use crate::bpf::CgroupEvent;

/// A family of metrics that is drained from the kernel side.
pub trait Signal: Send {
    /// Reads the cells and adds what they grew by since the last call.
    fn drain(&mut self, kernel: &mut Kernel, batch: &mut Batch);
}

/// A signal before it is attached.
pub struct Entry {
    /// Its name, as in the configuration and in `docs/signals/`.
    pub name: &'static str,
    /// Everything it can say.
    pub metrics: &'static [&'static Desc],
    /// The signal itself, if the programs that it cannot do without are attached.
    pub open: fn(&Kernel) -> Option<Box<dyn Signal>>,
}

/// Every signal.
pub static SIGNALS: &[Entry] = &[
    Entry { name: "scheduler", metrics: sched::METRICS, open: sched::open },
    Entry { name: "block", metrics: block::METRICS, open: block::open },
    Entry { name: "network", metrics: network::METRICS, open: network::open },
];

/// The kernel side and the signals that it feeds: all that the pipeline sees of either.
pub struct Drains {
    kernel: Kernel,
    signals: Vec<(&'static str, Box<dyn Signal>)>,
}

/// How long one signal's drain took.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Which signal.
    pub signal: &'static str,
    /// How long.
    pub took: Duration,
}

/// Where the bins of every histogram lie that comes from the kernel side.
pub static LAYOUT: Layout =
    Layout { schema: hist::SCHEMA, low_octave: hist::LOW_OCTAVE, high_octave: hist::HIGH_OCTAVE };

const _: () = assert!(LAYOUT.bins() == hist::BINS, "both sides agree on the bins");

// === impl Drains ===

impl Drains {
    /// Opens every signal that the kernel side can feed.
    #[must_use]
    pub fn open(kernel: Kernel) -> Self {
        let open = |entry: &Entry| Some((entry.name, (entry.open)(&kernel)?));
        let signals = SIGNALS.iter().filter_map(open).collect();
        Self { kernel, signals }
    }

    /// The names of the signals that are fed.
    pub fn active(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.signals.iter().map(|(name, _)| *name)
    }

    /// Waits until a cgroup comes or goes, or `at_most` is over.
    pub fn wait(&self, at_most: Duration) {
        self.kernel.events.wait(at_most);
    }

    /// The next cgroup that came or went.
    pub fn next_event(&mut self) -> Option<CgroupEvent> {
        self.kernel.events.next_event()
    }

    /// Announcements of births and deaths that found the ring buffer full, since the start.
    #[must_use]
    pub fn events_lost(&self) -> u64 {
        let lost = |cpu| self.kernel.losses.word(cpu, std::mem::offset_of!(Losses, event_lost));
        (0..self.kernel.cpus).map(lost).sum()
    }

    /// Reads every signal's cells once.
    pub fn drain(&mut self, batch: &mut Batch) -> Vec<Drained> {
        #[cfg(feature = "debug-log")]
        if let Some(diagnostics) = &mut self.kernel.diagnostics {
            diagnostics.flush();
        }
        let mut drained = Vec::with_capacity(self.signals.len());
        for (signal, drain) in &mut self.signals {
            let start = Instant::now();
            drain.drain(&mut self.kernel, batch);
            drained.push(Drained { signal, took: start.elapsed() });
        }
        drained
    }

    /// Cgroups that have a slot and were not said to be gone.
    pub fn living(&mut self) -> Vec<CgroupKey> {
        self.kernel.slots.living()
    }

    /// Notes that a cgroup is gone: its slot is free again after the quarantine.
    pub fn died(&mut self, cgroup: CgroupKey, now: Instant) {
        self.kernel.slots.died(cgroup, now);
    }

    /// One step for the slots on their way out; after every drain.
    pub fn retire(&mut self, now: Instant) {
        let Kernel { slots, block, .. } = &mut self.kernel;
        slots.retire(now, Some(&mut block.keys));
    }

    /// What the kernel side says of itself.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        health::families(&self.kernel)
    }
}

/// The last reading of every cell. A cell that never counted takes a pointer, not its size: most never do.
struct Readings<T: 'static> {
    cells: Vec<Option<Box<T>>>,
    zero: &'static T,
}

impl<T> Readings<T> {
    fn new(cells: u32, zero: &'static T) -> Self {
        Self { cells: std::iter::repeat_with(|| None).take(at(cells)).collect(), zero }
    }

    fn get(&self, index: u32) -> &T {
        self.cells.get(at(index)).and_then(Option::as_deref).unwrap_or(self.zero)
    }

    fn set(&mut self, index: u32, reading: T) {
        match self.cells.get_mut(at(index)) {
            Some(Some(cell)) => **cell = reading,
            Some(empty) => *empty = Some(Box::new(reading)),
            None => {}
        }
    }
}

/// Adds a row, if anything grew.
fn count(batch: &mut Batch, owner: OwnerKey, desc: &'static Desc, labels: &Labels, growth: u64) {
    if growth > 0 {
        batch.rows.push(Row { owner, desc, labels: labels.clone(), increment: Increment::Count(growth) });
    }
}

/// Adds a histogram's row, if anything was observed. Bins are differences modulo 2^32.
fn observe(
    batch: &mut Batch,
    owner: OwnerKey,
    desc: &'static Desc,
    labels: &Labels,
    bins: [u32; hist::BINS],
    sum: u64,
) {
    if bins.iter().any(|&bin| bin > 0) {
        let increment = Increment::Bins { layout: &LAYOUT, bins: Box::new(bins), sum };
        batch.rows.push(Row { owner, desc, labels: labels.clone(), increment });
    }
}

/// `now - last` in every bin.
fn differences(now: &[u32; hist::BINS], last: &[u32; hist::BINS]) -> [u32; hist::BINS] {
    let mut bins = [0; hist::BINS];
    for (bin, (now, last)) in bins.iter_mut().zip(now.iter().zip(last)) {
        *bin = now.wrapping_sub(*last);
    }
    bins
}

/// Adds a CPU's or shard's bins to a sum.
fn accumulate(sum: &mut [u32; hist::BINS], bins: &[u32; hist::BINS]) {
    for (sum, bin) in sum.iter_mut().zip(bins) {
        *sum = sum.wrapping_add(*bin);
    }
}

/// A cell's position as a vector's index.
fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
