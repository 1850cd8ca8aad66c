//! The kernel programs: they count, and nothing else.
//!
//! Every hook is a BTF-typed tracepoint or `cgroup_skb`. Struct offsets are read by the agent from the running
//! kernel's BTF and arrive as frozen globals, so that plain typed loads pass the verifier without relocations. A
//! program that fails to load costs only itself.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics), allow(internal_features))]

#[cfg(target_arch = "bpf")]
mod block;
#[cfg(target_arch = "bpf")]
mod cell;
#[cfg(target_arch = "bpf")]
mod identity;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod net;
#[cfg(target_arch = "bpf")]
mod sched;
#[cfg(target_arch = "bpf")]
mod tcp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are offered to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// On every other target the object is no program; this keeps `cargo build --workspace` whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
