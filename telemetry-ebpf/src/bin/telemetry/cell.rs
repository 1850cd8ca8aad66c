//! Cells in memory-mapped arrays, and additions to them.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::maps::Array;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// `BPF_F_MMAPABLE`: the agent reads the array without a system call.
pub const MMAPABLE: u32 = 1024;

/// The CPU this program runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() }
}

/// The cell of `column` in `row`, of an array with `columns` columns.
#[inline(always)]
pub fn cell<T>(array: &Array<T>, row: u32, columns: u32, column: u32) -> Option<*mut T> {
    array.get_ptr_mut(row * columns + column)
}

/// Adds where process and interrupt context may write one field. Uncontended it costs what a plain addition costs.
///
/// # Safety
///
/// `field` points into a cell that a map lookup returned.
#[inline(always)]
pub unsafe fn add(field: *mut u64, value: u64) {
    // SAFETY: valid for writes as the caller promises; aligned, since cells are.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(field, value) };
}

/// Counts one in bin `bin` of a histogram that nobody else writes meanwhile, without a locked addition.
///
/// # Safety
///
/// As [`observe`], and nothing that writes the histogram can interrupt the caller.
#[inline(always)]
pub unsafe fn tally(bins: *mut [u32; telemetry_ebpf::hist::BINS], bin: u32) {
    if (bin as usize) < telemetry_ebpf::hist::BINS {
        // SAFETY: in bounds by the test above, which is also what shows it to the verifier.
        unsafe { *(bins as *mut u32).add(bin as usize) += 1 };
    }
}

/// Counts one in bin `bin` of a histogram of 32-bit bins.
///
/// # Safety
///
/// `bins` points to `BINS` counters in a cell that a map lookup returned.
#[inline(always)]
pub unsafe fn observe(bins: *mut [u32; telemetry_ebpf::hist::BINS], bin: u32) {
    if (bin as usize) < telemetry_ebpf::hist::BINS {
        // SAFETY: in bounds by the test above, which is also what shows it to the verifier.
        unsafe {
            let counter = (bins as *mut u32).add(bin as usize);
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(counter, 1);
        }
    }
}
