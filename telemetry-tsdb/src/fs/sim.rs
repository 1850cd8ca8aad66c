//! A simulated disk. What was written but not synced is lost at a crash, wholly, in part, or sector by sector; names
//! likewise; operations fail on demand; a sync that failed once may lie ever after. A seed reproduces everything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Clock, File, Storage};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// Seeded random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimStorage(Arc<Mutex<Disk>>);

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct SimClock(AtomicI64);

struct SimFile {
    disk: SimStorage,
    node: usize,
    /// Crashes the disk had seen when the file was opened: handles do not survive one.
    epoch: u64,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every operation from the n-th on answers EIO, until the fault is lifted.
    Broken,
    /// One operation answers EIO.
    Once,
    /// One sync answers EIO and its data is gone from disk, though reads still show it and later syncs answer well.
    SyncLies,
    /// The process dies: nothing after this operation happens.
    Dies,
}

struct Disk {
    /// All files ever made.
    nodes: Vec<Node>,
    /// Names as a reader sees them, and as the disk has them.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names not yet synced, in order.
    pending: Vec<Change>,
    capacity: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Nothing can be made below it.
    refused: Option<PathBuf>,
    epoch: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Put(PathBuf, usize),
    Drop(PathBuf),
    Move(PathBuf, PathBuf),
}

#[derive(Default)]
struct Node {
    /// What reads show.
    live: Vec<u8>,
    /// What is on disk for certain.
    durable: Vec<u8>,
    /// A sync failed: what it should have written never gets there.
    lies: bool,
    /// Room that is held beyond what was written.
    held: u64,
    /// So many reads answer EIO.
    bad_reads: u32,
}

// === impl Rng ===

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`, or 0.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.number() >> 16).checked_rem(n).unwrap_or(0)
    }
}

// === impl SimClock ===

impl SimClock {
    /// Standing at a time.
    #[must_use]
    pub fn at(ms: i64) -> Self {
        Self(AtomicI64::new(ms))
    }

    /// Moves it.
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.now_ms()).unwrap_or(0).saturating_mul(1_000_000)
    }
}

// === impl SimStorage ===

impl Default for SimStorage {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl SimStorage {
    /// An empty disk of so many bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            capacity,
            operations: 0,
            fault: None,
            refused: None,
            epoch: 0,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far: writes, syncs, changes of names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Lets the `after`-th operation from now fail.
    pub fn fail(&self, after: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.fault = Some((disk.operations + after, fault));
    }

    /// Whether something is to fail, or fails all the time.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.disk().fault.is_some()
    }

    /// Lifts a fault.
    pub fn heal(&self) {
        self.disk().fault = None;
    }

    /// No file can be made in this directory, until it is another one or none.
    pub fn refuse(&self, dir: Option<&Path>) {
        self.disk().refused = dir.map(Path::to_owned);
    }

    /// Makes the disk larger or smaller.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk().capacity = bytes;
    }

    /// Power fails: of what was not synced any part may be there, sector by sector and name by name. Open files are
    /// closed, faults lifted.
    pub fn crash(&self, rng: &mut Rng) {
        let mut disk = self.disk();
        for node in &mut disk.nodes {
            let kept = keep(node, rng);
            *node = Node { live: kept.clone(), durable: kept, lies: false, ..*node };
        }
        let pending = std::mem::take(&mut disk.pending);
        // Names are journalled in order: a prefix of what was not synced gets there.
        let kept = usize::try_from(rng.below(pending.len() as u64 + 1)).unwrap_or(0);
        let mut names = std::mem::take(&mut disk.durable_names);
        pending.iter().take(kept).for_each(|change| change.apply(&mut names));
        disk.names.clone_from(&names);
        disk.durable_names = names;
        disk.fault = None;
        disk.epoch += 1;
    }

    /// The process dies: what it wrote is in the page cache and stays.
    pub fn kill(&self) {
        let mut disk = self.disk();
        disk.fault = None;
        disk.epoch += 1;
    }

    /// Flips a bit of a file, on disk and in the cache.
    pub fn flip(&self, path: &Path, at: usize, bit: u32) {
        let mut disk = self.disk();
        let Some(node) = disk.names.get(path).copied() else { return };
        let Some(node) = disk.nodes.get_mut(node) else { return };
        for copy in [&mut node.live, &mut node.durable] {
            if let Some(byte) = copy.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The next reads of a file answer EIO, so many of them.
    pub fn fail_reads(&self, path: &Path, count: u32) {
        let mut disk = self.disk();
        let Some(node) = disk.names.get(path).copied() else { return };
        if let Some(node) = disk.nodes.get_mut(node) {
            node.bad_reads = count;
        }
    }

    /// All files with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let disk = self.disk();
        let len = |node: &usize| {
            disk.nodes.get(*node).map_or(0, |node| usize::try_from(node.taken()).unwrap_or(usize::MAX))
        };
        disk.names.iter().map(|(path, node)| (path.clone(), len(node))).collect()
    }

    /// Another disk with the same files, all of them synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let copied =
            |node: &Node| Node { live: node.live.clone(), durable: node.live.clone(), lies: false, ..*node };
        let nodes = disk.nodes.iter().map(copied).collect();
        let other = Self::new(disk.capacity);
        {
            let mut new = other.disk();
            new.nodes = nodes;
            new.names.clone_from(&disk.names);
            new.durable_names.clone_from(&disk.names);
        }
        other
    }

    /// Cuts a file short.
    pub fn truncate(&self, path: &Path, len: usize) {
        let mut disk = self.disk();
        let Some(node) = disk.names.get(path).copied() else { return };
        if let Some(node) = disk.nodes.get_mut(node) {
            node.live.truncate(len);
            node.durable.truncate(len);
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let known = |path: &PathBuf| disk.names.contains_key(path);
        match &change {
            Change::Drop(path) | Change::Move(path, _) if !known(path) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            _ => {}
        }
        let Disk { names, pending, .. } = &mut *disk;
        change.apply(names);
        pending.push(change);
        Ok(())
    }
}

/// What a crash leaves of a file: synced bytes, and any of the sectors written since.
fn keep(node: &Node, rng: &mut Rng) -> Vec<u8> {
    if node.lies || rng.below(3) == 0 {
        return node.durable.clone();
    }
    if rng.below(2) == 0 {
        return node.live.clone();
    }
    let mut kept = node.durable.clone();
    let sectors = node.live.len().div_ceil(SECTOR);
    for sector in 0..sectors {
        let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(node.live.len()));
        if rng.below(2) == 0 {
            if kept.len() < to {
                kept.resize(to, 0);
            }
            if let (Some(old), Some(new)) = (kept.get_mut(from..to), node.live.get(from..to)) {
                old.copy_from_slice(new);
            }
        }
    }
    kept
}

// === impl Node ===

impl Node {
    /// Its length, which is the room it takes.
    fn taken(&self) -> u64 {
        self.held.max(self.live.len() as u64)
    }
}

// === impl Change ===

impl Change {
    /// Whether a sync of this directory brings it to disk. A file that moved is in both or has moved on disk: a journal
    /// has no half of it.
    fn is_in(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            Self::Put(path, _) | Self::Drop(path) => within(path),
            Self::Move(from, to) => within(from) || within(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Drop(path) => {
                names.remove(path);
            }
            Self::Move(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

// === impl Disk ===

impl Disk {
    /// Counts an operation and fails it if it is its turn.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Broken | Fault::Dies)) if self.operations >= at => Err(eio()),
            Some((at, Fault::Once)) if self.operations >= at => {
                self.fault = None;
                Err(eio())
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|node| self.nodes.get(*node)).map(Node::taken).sum()
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Storage for SimStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let node = {
            let mut disk = self.disk();
            if disk.refused.is_some() && path.parent() == disk.refused.as_deref() {
                return Err(eio());
            }
            if disk.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.nodes.push(Node::default());
            disk.nodes.len() - 1
        };
        self.change(Change::Put(path.to_owned(), node))?;
        let epoch = self.disk().epoch;
        Ok(Arc::new(SimFile { disk: self.clone(), node, epoch }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = self.disk();
        let node = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), node, epoch: disk.epoch }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Drop(path.to_owned()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.disk();
        let within = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| path.file_name()).map(PathBuf::from).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let Disk { durable_names, pending, .. } = &mut *disk;
        pending.retain(|change| {
            let is_synced = change.is_in(dir);
            if is_synced {
                change.apply(durable_names);
            }
            !is_synced
        });
        Ok(())
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if self.free_bytes().is_some_and(|free| free < bytes) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        drop(self.create(path)?);
        let mut disk = self.disk();
        let Disk { names, nodes, .. } = &mut *disk;
        if let Some(node) = names.get(path).and_then(|node| nodes.get_mut(*node)) {
            node.held = bytes;
        }
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        let disk = self.disk();
        Some(disk.capacity.saturating_sub(disk.used()))
    }
}

// === impl SimFile ===

impl SimFile {
    fn with<T>(&self, f: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.disk();
        if disk.epoch != self.epoch {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        f(&mut disk)
    }
}

impl File for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.step()?;
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let to = from + bytes.len();
            let used = disk.used();
            let capacity = disk.capacity;
            let node = disk.nodes.get_mut(self.node).ok_or_else(eio)?;
            let more = to.saturating_sub(node.live.len()) as u64;
            if used.saturating_add(more) > capacity {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            if node.live.len() < to {
                node.live.resize(to, 0);
            }
            if let Some(target) = node.live.get_mut(from..to) {
                target.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|disk| {
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let node = disk.nodes.get_mut(self.node).ok_or_else(eio)?;
            if let Some(left) = node.bad_reads.checked_sub(1) {
                node.bad_reads = left;
                return Err(eio());
            }
            let source = node.live.get(from..from.saturating_add(buffer.len()));
            buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.step()?;
            if let Some((at, Fault::SyncLies)) = disk.fault
                && disk.operations >= at
            {
                disk.fault = None;
                if let Some(node) = disk.nodes.get_mut(self.node) {
                    node.lies = true;
                }
                return Err(eio());
            }
            if let Some(node) = disk.nodes.get_mut(self.node)
                && !node.lies
            {
                node.durable.clone_from(&node.live);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|disk| Ok(disk.nodes.get(self.node).map_or(0, Node::taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synced_directory_has_its_names_and_no_others() {
        for seed in 0..20 {
            let disk = SimStorage::default();
            for path in ["a/1", "b/2", "a/3"] {
                disk.create(Path::new(path)).unwrap();
            }
            disk.sync_dir(Path::new("a")).unwrap();
            disk.crash(&mut Rng::new(seed));
            assert_eq!(disk.list(Path::new("a")).unwrap(), [PathBuf::from("1"), PathBuf::from("3")]);
            if disk.list(Path::new("b")).unwrap().is_empty() {
                return;
            }
        }
        panic!("what nobody synced is never lost");
    }
}
