//! Empty programs at the product's hooks: what a hook costs before anything is done at it. For benchmarks only.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program};
use aya::{Ebpf, EbpfLoader};

use super::ProgramRuns;
use super::info;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// An attached empty program; dropping it detaches.
pub struct Empty {
    object: Ebpf,
    name: String,
}

// === impl Empty ===

impl Empty {
    /// Attaches an empty program where the product's program of this name attaches.
    ///
    /// # Errors
    ///
    /// If there is no such program, or the kernel refuses it.
    pub fn attach(program: &str, unified: &Path) -> Result<Self> {
        if OBJECT.is_empty() {
            bail!("this binary has no kernel programs; build them with `cargo xtask build-ebpf` first");
        }
        let btf = aya::Btf::from_sys_fs().context("read the kernel's BTF")?;
        let mut object = EbpfLoader::new().btf(Some(&btf)).load(OBJECT).context("load the empty programs")?;
        let name = format!("empty_{program}");
        match object.program_mut(&name) {
            Some(Program::BtfTracePoint(tracepoint)) => {
                tracepoint.load(program, &btf)?;
                tracepoint.attach()?;
            }
            Some(Program::CgroupSkb(skb)) => {
                skb.load()?;
                let direction = if program.ends_with("receive") {
                    CgroupSkbAttachType::Ingress
                } else {
                    CgroupSkbAttachType::Egress
                };
                skb.attach(File::open(unified)?, direction, CgroupAttachMode::Single)?;
            }
            _ => bail!("no empty program stands beside {program}"),
        }
        Ok(Self { object, name })
    }

    /// The kernel's counts of it.
    #[must_use]
    pub fn runs(&self) -> Option<ProgramRuns> {
        info::runs(self.object.program(&self.name)?.fd().ok()?.as_fd())
    }
}
