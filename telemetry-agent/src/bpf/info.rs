//! What the kernel keeps of a program: runs, time, and events it refused to nest. By descriptor, without privileges.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Counts of one program since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Time inside it; stays 0 unless `kernel.bpf_stats_enabled` is set.
    pub run_ns: u64,
    /// Runs; stays 0 likewise.
    pub runs: u64,
    /// Events dropped because the program was already running on that CPU.
    pub recursion_misses: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// `struct bpf_prog_info` up to and with `recursion_misses` (5.12), in words.
const INFO_WORDS: usize = 27;
const RUN_NS: usize = 24;
const RUNS: usize = 25;
const RECURSION_MISSES: usize = 26;

/// Reads the counts; aya does not show the misses.
pub(super) fn runs(program: BorrowedFd<'_>) -> Option<ProgramRuns> {
    let mut info = [0_u64; INFO_WORDS];
    let descriptor = u64::from(u32::try_from(program.as_raw_fd()).ok()?);
    let length = u64::try_from(size_of_val(&info)).ok()?;
    // union bpf_attr's `info`: bpf_fd, info_len, info.
    let mut attributes = [descriptor | length << 32, info.as_mut_ptr() as u64];
    // SAFETY: both arrays live across the call, and the kernel writes at most `length` bytes of `info`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    };
    if result != 0 {
        return None;
    }
    let word = |at: usize| info.get(at).copied().unwrap_or_default();
    Some(ProgramRuns { run_ns: word(RUN_NS), runs: word(RUNS), recursion_misses: word(RECURSION_MISSES) })
}
