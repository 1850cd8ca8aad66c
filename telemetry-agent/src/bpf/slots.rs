//! The agent's half of identity: who has which slot, and when a slot may be had again.
//!
//! A slot is given back in four steps, a tick apart each, so that no CPU can still hold a stale word: quarantine
//! after the cgroup's death until nothing moves any more; the key leaves the hash; its word leaves the cache; after
//! one more tick, and so after a final reading, the slot goes back to the free ones. Cells are never cleared: the
//! next owner's counts begin where the last reading ended.

use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, MapError, Queue};
use telemetry_ebpf::block::BlockKey;
use telemetry_ebpf::identity::{
    CACHE_WORDS, Meta, SLOT_FIRST, SLOT_KERNEL, SLOT_OVERFLOW, TAG_BLKIO, TAG_CPU, TAG_UNIFIED, cache_index,
    cache_word, id_of, key_of, tag_of,
};
use telemetry_model::{CgroupKey, Hierarchy, OwnerKey};

use super::Wire;
use super::mapped::Mapped;

/// Who has which slot.
pub struct Slots {
    pub(super) meta: Mapped<Meta>,
    pub(super) cache: Mapped<u64>,
    pub(super) by_key: HashMap<MapData, u64, u32>,
    pub(super) free: Queue<MapData, u32>,
    pub(super) lives: Vec<Life>,
    pub(super) quarantine: Duration,
    pub(super) reclaimed: u64,
    pub(super) errors: u64,
}

/// The block family's cells: an index each for slot, device and operation.
pub struct Cells {
    pub(super) keys: Mapped<BlockKey>,
    pub(super) by_key: HashMap<MapData, Wire<BlockKey>, u32>,
    pub(super) free: Queue<MapData, u32>,
    /// Cells of slots that were given back, to be freed a tick after they left the hash.
    pub(super) leaving: Vec<u32>,
    /// The stamp with which each cell was last given back.
    pub(super) released: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Life {
    /// 0 while the slot is free.
    key: u64,
    born_ns: u64,
    stage: Stage,
    /// Whether any family's cells of this slot moved in the last reading.
    moved: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Free,
    Live,
    Dying(Instant),
    Unhashed,
    Uncached,
}

// === impl Slots ===

impl Slots {
    /// How many slots there are, the two fixed ones with them.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.meta.entries()
    }

    /// How many slots cgroups have.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lives.iter().filter(|life| life.stage != Stage::Free).count()
    }

    /// Slots given back since the start.
    #[must_use]
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// Map operations of the reclaim that the kernel refused; each is tried again with the next tick.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Whose slot it is. Call it after the slot's cells were read: the owner is written before the first count.
    #[must_use]
    pub fn owner(&self, slot: u32) -> OwnerKey {
        match slot {
            SLOT_OVERFLOW => OwnerKey::Overflow,
            SLOT_KERNEL => OwnerKey::Kernel,
            _ => self
                .meta
                .get(slot)
                .and_then(|meta| cgroup(meta.key))
                .map_or(OwnerKey::Overflow, OwnerKey::Cgroup),
        }
    }

    /// Whether anybody ever had the slot. Cells of one that nobody had are never read, so that the pages they lie in
    /// are never the agent's memory.
    #[must_use]
    pub fn taken(&self, slot: u32) -> bool {
        slot < SLOT_FIRST || self.meta.word(slot, 0) != 0
    }

    /// Notes that a slot's cells moved since the last reading.
    pub fn moved(&mut self, slot: u32) {
        if let Some(life) = usize::try_from(slot).ok().and_then(|slot| self.lives.get_mut(slot)) {
            life.moved = true;
        }
    }

    /// Cgroups that have a slot and were not said to be gone.
    pub fn living(&mut self) -> Vec<CgroupKey> {
        let mut living = Vec::new();
        for slot in SLOT_FIRST..self.meta.entries() {
            let Some(meta) = self.meta.get(slot) else { continue };
            let Some(life) = usize::try_from(slot).ok().and_then(|slot| self.lives.get_mut(slot)) else {
                continue;
            };
            if meta.key != 0 && meta.born_ns != life.born_ns {
                *life = Life { key: meta.key, born_ns: meta.born_ns, stage: Stage::Live, moved: true };
            }
            if life.stage == Stage::Live {
                living.extend(cgroup(life.key));
            }
        }
        living
    }

    /// Notes that a cgroup's directory is gone.
    pub fn died(&mut self, cgroup: CgroupKey, now: Instant) {
        let Some(key) = key_of(tag(cgroup.hierarchy), cgroup.id) else { return };
        for life in self.lives.iter_mut().filter(|life| life.key == key && life.stage == Stage::Live) {
            life.stage = Stage::Dying(now);
        }
    }

    /// One step for every slot on its way out. Call it once a tick, after the cells were read.
    pub fn retire(&mut self, now: Instant, cells: Option<&mut Cells>) {
        let mut given = Vec::new();
        let slots = (0_u32..).zip(self.lives.iter_mut());
        for (slot, life) in slots {
            let moved = std::mem::take(&mut life.moved);
            let done = match life.stage {
                Stage::Dying(since) if !moved && now.duration_since(since) >= self.quarantine => {
                    gone(self.by_key.remove(&life.key)).map(|()| Stage::Unhashed)
                }
                Stage::Unhashed => {
                    self.cache.clear(cache_index(life.key), cache_word(life.key, slot));
                    Ok(Stage::Uncached)
                }
                Stage::Uncached => self.free.push(slot, 0).map(|()| {
                    given.push(slot);
                    Stage::Free
                }),
                stage => Ok(stage),
            };
            match done {
                Ok(Stage::Free) => {
                    life.stage = Stage::Free;
                    life.key = 0;
                }
                Ok(stage) => life.stage = stage,
                Err(_) => self.errors += 1,
            }
        }
        if let Some(cells) = cells {
            self.errors += cells.release(&given);
        }
        if !given.is_empty() {
            self.reclaimed += u64::try_from(given.len()).unwrap_or_default();
            self.forget_overflow();
        }
    }

    /// Clears the cache words of cgroups that were sent to the overflow slot: they may find a slot now.
    fn forget_overflow(&self) {
        for index in 0..CACHE_WORDS {
            let word = self.cache.word(index, 0);
            if word != 0 && word & 0xffff == u64::from(SLOT_OVERFLOW) {
                self.cache.clear(index, word);
            }
        }
    }
}

// === impl Cells ===

impl Cells {
    /// How many cells there are, the overflow cell with them.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.keys.entries()
    }

    /// What a cell counts; none for one that nobody has.
    #[must_use]
    pub fn key(&self, index: u32) -> Option<BlockKey> {
        self.keys.get(index).filter(|key| key.taken != 0)
    }

    /// How many cells are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        let indices = (0..self.capacity()).zip(&self.released);
        indices.filter(|&(index, released)| self.key(index).is_some_and(|key| key.taken != *released)).count()
    }

    /// Takes the cells of `slots` out of the hash; they are free a tick later. Returns what the kernel refused.
    fn release(&mut self, slots: &[u32]) -> u64 {
        let mut errors = 0;
        for index in std::mem::take(&mut self.leaving) {
            if self.free.push(index, 0).is_err() {
                errors += 1;
                self.leaving.push(index);
            }
        }
        if slots.is_empty() {
            return errors;
        }
        for index in 0..self.capacity() {
            let Some(taken) = self.key(index).filter(|key| slots.contains(&key.slot)) else { continue };
            let key = Wire(BlockKey { taken: 0, ..taken });
            // A cell that was freed before still shows its last key, which may meanwhile lead to another cell.
            if !matches!(self.by_key.get(&key, 0), Ok(current) if current == index) {
                continue;
            }
            match gone(self.by_key.remove(&key)) {
                Ok(()) => {
                    self.leaving.push(index);
                    let at = usize::try_from(index).unwrap_or(usize::MAX);
                    if let Some(released) = self.released.get_mut(at) {
                        *released = taken.taken;
                    }
                }
                Err(_) => errors += 1,
            }
        }
        errors
    }
}

/// A key that is not there any more is as good as removed.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn tag(hierarchy: Hierarchy) -> u64 {
    match hierarchy {
        Hierarchy::Unified => TAG_UNIFIED,
        Hierarchy::Cpu => TAG_CPU,
        Hierarchy::Blkio => TAG_BLKIO,
    }
}

/// The cgroup behind a key of the kernel side; none for 0 and for tags that do not exist.
fn cgroup(key: u64) -> Option<CgroupKey> {
    let hierarchy = match tag_of(key) {
        TAG_UNIFIED => Hierarchy::Unified,
        TAG_CPU => Hierarchy::Cpu,
        TAG_BLKIO => Hierarchy::Blkio,
        _ => return None,
    };
    Some(CgroupKey { hierarchy, id: id_of(key) }).filter(|cgroup| cgroup.id != 0)
}
