//! Loads the object, hands it what it needs, and opens its maps for the agent.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, Queue};
use aya::{Ebpf, EbpfLoader};
use telemetry_ebpf::Abi;
use telemetry_ebpf::block::{BlockCell, BlockErrorKey, BlockKey, CELL_OVERFLOW, SHARDS_MAX};
use telemetry_ebpf::identity::{Losses, Meta, SLOT_FIRST};
use telemetry_ebpf::net::{NetCell, TcpCell};
use telemetry_ebpf::sched::{SchedCell, Stint};

use super::btf::{self, Btf};
use super::mapped::{Access, Mapped};
use super::programs::{self, Family, ProgramState};
use super::slots::{Cells, Life, Slots};
use super::{Events, ProgramRuns, Wire, fields, info, topology};

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/telemetry.o"));

/// Whether this binary carries the kernel programs.
#[must_use]
pub fn available() -> bool {
    !OBJECT.is_empty()
}

/// What to load, and what the host looks like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Owners that the kernel side tells apart.
    pub slots: u32,
    /// Cells of the block family.
    pub block_cells: u32,
    /// How long a dead cgroup keeps its slot.
    pub quarantine: Duration,
    /// Families to load.
    pub families: Vec<Family>,
    /// Programs to leave out by name.
    pub disabled: Vec<String>,
    /// How this host numbers its cgroups.
    pub hierarchies: HierarchyTags,
}

/// How this host numbers its cgroups.
#[derive(Debug, Clone, Default)]
pub struct HierarchyTags {
    /// Mount point of version 2, where packets are counted.
    pub unified: Option<PathBuf>,
    /// Version 1's `cpu` hierarchy is mounted.
    pub tasks_v1: bool,
    /// Version 1's `blkio` hierarchy is mounted.
    pub block_v1: bool,
}

/// Why the kernel side could not be had at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary was built without them.
    #[error("this binary has no kernel programs; build it with `cargo xtask build-ebpf` first")]
    NotBuilt,
    /// The kernel does not describe itself.
    #[error("{0}; a kernel with CONFIG_DEBUG_INFO_BTF is needed")]
    Btf(#[from] btf::Error),
    /// aya could not read the kernel's BTF.
    #[error("read the kernel's BTF: {0}")]
    AyaBtf(#[source] aya::BtfError),
    /// The kernel refused the maps.
    #[error("load the kernel programs: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object lacks a map: it is of another version than the agent.
    #[error("the kernel object has no map {0}")]
    NoMap(&'static str),
    /// A map could not be used.
    #[error("map {map}: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// A map could not be mapped into memory.
    #[error("map {map} into memory: {source}")]
    Mmap {
        /// Which.
        map: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Not one program could be attached.
    #[error("no program could be attached; the first said: {0}")]
    Nothing(String),
}

/// A map's size.
#[derive(Debug, Clone)]
pub struct MapState {
    /// Its name in the object.
    pub name: String,
    /// Kernel memory it holds.
    pub bytes: u64,
}

/// Cells of the scheduler family.
pub struct Scheduler {
    /// Indexed `cpu * slots + slot`.
    pub cells: Mapped<SchedCell>,
}

/// Cells of the block family.
pub struct Block {
    /// Indexed `shard * cells + cell`.
    pub cells: Mapped<BlockCell>,
    /// Which cell counts what.
    pub keys: Cells,
    errors: HashMap<MapData, Wire<BlockErrorKey>, u64>,
}

/// Cells of the network family.
pub struct Network {
    /// Packets, indexed `cpu * slots + slot`.
    pub packets: Mapped<NetCell>,
    /// Connections, indexed `shard * slots + slot`.
    pub connections: Mapped<TcpCell>,
}

/// The kernel side, loaded and attached. Dropping it detaches every program.
pub struct Kernel {
    /// Holds programs and links.
    object: Ebpf,
    /// What came of each program.
    pub programs: Vec<ProgramState>,
    /// What each map costs.
    pub maps: Vec<MapState>,
    /// Required fields that this kernel does not have.
    pub missing_fields: Vec<&'static str>,
    /// Possible CPUs.
    pub cpus: u32,
    /// Shards of the block family's cells.
    pub block_shards: u32,
    /// Shards of the TCP cells.
    pub tcp_shards: u32,
    /// Cgroup events.
    pub events: Events,
    /// Who has which slot.
    pub slots: Slots,
    /// Losses, one cell a CPU.
    pub losses: Mapped<Losses>,
    /// The scheduler's cells.
    pub scheduler: Scheduler,
    /// The block family's cells.
    pub block: Block,
    /// The network family's cells.
    pub network: Network,
    /// What the programs say of rare paths.
    #[cfg(feature = "debug-log")]
    pub diagnostics: Option<super::diagnostics::Diagnostics>,
}

// === impl Error ===

impl Error {
    /// Whether more privileges would help.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let mut cause: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
                return true;
            }
            cause = error.source();
        }
        matches!(self, Error::Nothing(text) if text.contains("Operation not permitted"))
    }
}

// === impl Block ===

impl Block {
    /// Failed requests by device, operation and status. A system call each; failures are rare.
    pub fn errors(&self) -> impl Iterator<Item = (BlockErrorKey, u64)> + '_ {
        self.errors.iter().filter_map(|entry| entry.ok().map(|(key, count)| (key.0, count)))
    }
}

// === impl Kernel ===

impl Kernel {
    /// Loads and attaches what `options` ask for. Needs CAP_BPF and CAP_PERFMON, and CAP_NET_ADMIN for packets.
    ///
    /// # Errors
    ///
    /// If the kernel side cannot be had at all; a single program that is refused is a [`ProgramState`].
    pub fn load(options: &Options) -> Result<Self, Error> {
        if !available() {
            return Err(Error::NotBuilt);
        }
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap_or(1)).unwrap_or(1);
        let (block_shards, tcp_shards) = (shards(cpus), shards(cpus / CPUS_PER_TCP_SHARD));
        let btf = Btf::open(Path::new(KERNEL_BTF))?;
        let (globals, missing_fields) = globals(options, block_shards, tcp_shards, &btf);
        let unfit = programs::unfit(&btf);
        drop(btf);
        let kernel_btf = aya::Btf::from_sys_fs().map_err(Error::AyaBtf)?;
        let mut object = create(options, &globals, [cpus, block_shards, tcp_shards], &kernel_btf)?;
        fill(&mut object, options, cpus)?;
        let maps = map_states(&object);
        let programs = programs::attach_all(&mut object, options, &kernel_btf, unfit);
        drop(kernel_btf);
        super::startup::trim();
        let first_error = programs.iter().find_map(|state| state.error.clone());
        if !programs.iter().any(|state| state.attached)
            && let Some(error) = first_error
        {
            return Err(Error::Nothing(error));
        }
        let (slots, cells) = (options.slots, options.block_cells);
        Ok(Self {
            events: Events::new(typed(take(&mut object, "EVENTS")?, "EVENTS")?),
            slots: open_slots(&mut object, options)?,
            losses: mapped(&mut object, "LOSSES", cpus)?,
            scheduler: Scheduler { cells: mapped(&mut object, "SCHED", cpus * slots)? },
            block: Block {
                cells: mapped(&mut object, "BLOCK", block_shards * cells)?,
                keys: open_cells(&mut object, cells)?,
                errors: typed(take(&mut object, "BLOCK_ERRORS")?, "BLOCK_ERRORS")?,
            },
            network: Network {
                packets: mapped(&mut object, "NET", cpus * slots)?,
                connections: mapped(&mut object, "TCP", tcp_shards * slots)?,
            },
            #[cfg(feature = "debug-log")]
            diagnostics: super::diagnostics::Diagnostics::open(&mut object),
            object,
            programs,
            maps,
            missing_fields,
            cpus,
            block_shards,
            tcp_shards,
        })
    }

    /// Whether a program is attached.
    #[must_use]
    pub fn attached(&self, name: &str) -> bool {
        self.programs.iter().any(|state| state.program.name == name && state.attached)
    }

    /// The kernel's own counts of a program.
    #[must_use]
    pub fn runs(&self, name: &str) -> Option<ProgramRuns> {
        info::runs(self.object.program(name)?.fd().ok()?.as_fd())
    }
}

/// A connection is opened and closed a thousand times less often than a packet is sent.
const CPUS_PER_TCP_SHARD: u32 = 2;

/// Shards of the cells that are not per CPU: a power of two, so that a mask finds one, and never more than CPUs.
fn shards(cpus: u32) -> u32 {
    let most = cpus.clamp(1, SHARDS_MAX);
    if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 }
}

type Globals = Vec<(&'static str, u32)>;

fn globals(options: &Options, block_shards: u32, tcp_shards: u32, btf: &Btf) -> (Globals, Vec<&'static str>) {
    let offsets = fields::resolve(btf);
    let mut values = offsets.values;
    let block_tag = if options.hierarchies.block_v1 {
        telemetry_ebpf::identity::TAG_BLKIO
    } else {
        telemetry_ebpf::identity::TAG_UNIFIED
    };
    values.extend([
        ("CONFIG_SLOTS", options.slots),
        ("CONFIG_BLOCK_CELLS", options.block_cells),
        ("CONFIG_BLOCK_SHARD_MASK", block_shards - 1),
        ("CONFIG_TCP_SHARD_MASK", tcp_shards - 1),
        ("CONFIG_TASKS_V1", u32::from(options.hierarchies.tasks_v1)),
        ("CONFIG_BLOCK_TAG", u32::try_from(block_tag).unwrap_or_default()),
    ]);
    (values, offsets.missing)
}

fn create(
    options: &Options,
    globals: &Globals,
    [cpus, block_shards, tcp_shards]: [u32; 3],
    kernel_btf: &aya::Btf,
) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // Socket storage is a map kind that aya has no type for; the programs use it, the agent does not.
    loader.btf(Some(kernel_btf)).allow_unsupported_maps();
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    let (slots, cells) = (options.slots, options.block_cells);
    for (map, entries) in [
        ("CG_SLOT", 2 * slots),
        ("META", slots),
        ("FREE", slots),
        ("LOSSES", cpus),
        ("SCHED", cpus * slots),
        ("STINTS", cpus),
        ("PLACES", cpus),
        ("BLOCK_INDEX", 2 * cells),
        ("BLOCK", block_shards * cells),
        ("BLOCK_KEYS", cells),
        ("BLOCK_FREE", cells),
        ("NET", cpus * slots),
        ("TCP", tcp_shards * slots),
    ] {
        loader.map_max_entries(map, entries);
    }
    loader.load(OBJECT).map_err(|error| Error::Load(Box::new(error)))
}

/// What the programs need before the first of them runs.
fn fill(object: &mut Ebpf, options: &Options, cpus: u32) -> Result<(), Error> {
    queue(object, "FREE", SLOT_FIRST..options.slots)?;
    queue(object, "BLOCK_FREE", CELL_OVERFLOW + 1..options.block_cells)?;
    let map = object.map_mut("PLACES").ok_or(Error::NoMap("PLACES"))?;
    let mut places: Array<_, u32> = Array::try_from(map).map_err(|error| map_error("PLACES", error))?;
    for (cpu, place) in (0..).zip(topology::places(cpus)) {
        places.set(cpu, place, 0).map_err(|error| map_error("PLACES", error))?;
    }
    Ok(())
}

fn queue(object: &mut Ebpf, name: &'static str, values: std::ops::Range<u32>) -> Result<(), Error> {
    let map = object.map_mut(name).ok_or(Error::NoMap(name))?;
    let mut queue: Queue<_, u32> = Queue::try_from(map).map_err(|error| map_error(name, error))?;
    for value in values {
        queue.push(value, 0).map_err(|error| map_error(name, error))?;
    }
    Ok(())
}

fn map_states(object: &Ebpf) -> Vec<MapState> {
    let states = object.maps().filter_map(|(name, map)| {
        let data = match map {
            Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::HashMap(data)
            | Map::RingBuf(data)
            | Map::Queue(data)
            | Map::Unsupported(data) => data,
            _ => return None,
        };
        Some(MapState { name: name.to_owned(), bytes: memory(data.fd().as_fd())? })
    });
    states.collect()
}

/// The kernel's own account of a map's memory.
fn memory(map: BorrowedFd<'_>) -> Option<u64> {
    use std::os::fd::AsRawFd as _;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

fn open_slots(object: &mut Ebpf, options: &Options) -> Result<Slots, Error> {
    let cache = object.map("CACHE").ok_or(Error::NoMap("CACHE"))?;
    let cache = map_memory(cache, "CACHE", telemetry_ebpf::identity::CACHE_WORDS, Access::ReadWrite)?;
    Ok(Slots {
        meta: mapped::<Meta>(object, "META", options.slots)?,
        cache,
        by_key: typed(take(object, "CG_SLOT")?, "CG_SLOT")?,
        free: typed(take(object, "FREE")?, "FREE")?,
        lives: vec![Life::default(); usize::try_from(options.slots).unwrap_or_default()],
        quarantine: options.quarantine,
        reclaimed: 0,
        errors: 0,
    })
}

fn open_cells(object: &mut Ebpf, cells: u32) -> Result<Cells, Error> {
    Ok(Cells {
        keys: mapped::<BlockKey>(object, "BLOCK_KEYS", cells)?,
        by_key: typed(take(object, "BLOCK_INDEX")?, "BLOCK_INDEX")?,
        free: typed(take(object, "BLOCK_FREE")?, "BLOCK_FREE")?,
        leaving: Vec::new(),
        released: vec![0; usize::try_from(cells).unwrap_or_default()],
    })
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    object.take_map(name).ok_or(Error::NoMap(name))
}

fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(map: Map, name: &'static str) -> Result<T, Error> {
    T::try_from(map).map_err(|error| map_error(name, error))
}

fn mapped<T: Abi>(object: &mut Ebpf, name: &'static str, entries: u32) -> Result<Mapped<T>, Error> {
    let map = object.map(name).ok_or(Error::NoMap(name))?;
    map_memory(map, name, entries, Access::Read)
}

fn map_memory<T: Abi>(
    map: &Map,
    name: &'static str,
    entries: u32,
    access: Access,
) -> Result<Mapped<T>, Error> {
    let Map::Array(data) = map else { return Err(Error::NoMap(name)) };
    Mapped::new(data.fd().as_fd(), entries, access).map_err(|source| Error::Mmap { map: name, source })
}

fn map_error(map: &'static str, source: aya::maps::MapError) -> Error {
    Error::Map { map, source: Box::new(source) }
}

// `Stint` crosses the border for the kernel side alone.
const _: () = assert!(size_of::<Stint>() == 64, "a stint has a cache line of its own");
