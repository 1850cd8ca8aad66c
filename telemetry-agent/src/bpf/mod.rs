//! The kernel side as the agent sees it: load, attach, map, read. The only module that names `aya`.
//!
//! Knows cgroup keys and slots; knows neither metrics nor pods. `signal` reads the cells, `app` wires the rest.

pub mod bench;
pub mod btf;
#[cfg(feature = "debug-log")]
mod diagnostics;
mod events;
pub mod fields;
mod info;
mod mapped;
mod object;
pub mod privileges;
mod programs;
mod slots;
pub mod startup;
mod topology;

pub use events::{CgroupEvent, Events};
pub use info::ProgramRuns;
pub use mapped::Mapped;
pub use object::{Block, Error, HierarchyTags, Kernel, MapState, Network, Options, Scheduler, available};
pub use programs::{DISABLED, Family, Program, ProgramState, program_names};
pub use slots::{Cells, Slots};

use telemetry_ebpf::Abi;

/// The version of aya that this agent is built with; the manifest pins it exactly.
pub const AYA_VERSION: &str = "0.14.0";

/// A border type as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Wire<T>(T);

// SAFETY: `Abi` types are integers without padding, so every bit pattern is valid and every byte initialised.
unsafe impl<T: Abi> aya::Pod for Wire<T> {}
