//! The kernel's own list of BPF programs, by raw system calls: what the agent left behind, and what its programs cost.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};

use crate::netns::owned;

// include/uapi/linux/bpf.h, enum bpf_cmd
const PROG_GET_NEXT_ID: i32 = 11;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const ENABLE_STATS: i32 = 32;

/// One loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Never used again by the kernel.
    pub id: u32,
    /// Its name, cut at 15 bytes by the kernel.
    pub name: String,
    /// Time spent in it while statistics were on.
    pub run_ns: u64,
    /// Runs while statistics were on.
    pub runs: u64,
    /// Events it was not run for, because it ran already on that CPU.
    pub misses: u64,
}

/// `struct bpf_prog_info` as far as `recursion_misses`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl: u32,
    netns_dev: u64,
    netns_inode: u64,
    ksym_count: u32,
    func_lens_count: u32,
    ksyms: u64,
    func_lens: u64,
    btf_id: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_count: u32,
    line_info: u64,
    jited_line_info: u64,
    jited_line_info_count: u32,
    line_info_size: u32,
    jited_line_info_size: u32,
    tag_count: u32,
    tags: u64,
    run_ns: u64,
    runs: u64,
    misses: u64,
}

/// Statistics are on while this lives.
#[derive(Debug)]
pub struct Statistics {
    _file: File,
}

// === impl Statistics ===

impl Statistics {
    /// Turns run counts and times on for all programs.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn on() -> Result<Self> {
        // The one kind there is: run time.
        let attributes = [0_u32; 2];
        // SAFETY: the kernel reads as many bytes as it is told, and `attributes` has them.
        let descriptor =
            unsafe { call(ENABLE_STATS, attributes.as_ptr().cast_mut().cast(), size_of_val(&attributes)) };
        Ok(Self { _file: owned(descriptor).context("turn BPF statistics on")? })
    }
}

/// Ids of all loaded programs.
///
/// # Errors
/// If the kernel refuses to list them.
pub fn program_ids() -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    // start_id, next_id, open_flags
    let mut attributes = [0_u32; 3];
    loop {
        // SAFETY: the kernel reads and writes as many bytes as it is told, and `attributes` has them.
        let result =
            unsafe { call(PROG_GET_NEXT_ID, attributes.as_mut_ptr().cast(), size_of_val(&attributes)) };
        if result != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) {
                Ok(ids)
            } else {
                Err(error).context("list BPF programs")
            };
        }
        let [start, next, _] = &mut attributes;
        ids.push(*next);
        *start = *next;
    }
}

/// All loaded programs; one that goes while they are listed is left out.
///
/// # Errors
/// If the kernel refuses to list them.
pub fn programs() -> Result<Vec<Program>> {
    Ok(program_ids()?.into_iter().filter_map(|id| program(id).ok()).collect())
}

/// Ids of the programs that a process holds, by what the kernel says of its descriptors.
///
/// # Errors
/// If the process is gone.
pub fn held_by(pid: u32) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("descriptors")? {
        // A descriptor may close between listing and reading.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        ids.extend(text.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// One program, by its id.
///
/// # Errors
/// If it is gone.
pub fn program(id: u32) -> Result<Program> {
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads as many bytes as it is told, and `attributes` has them.
    let descriptor =
        unsafe { call(PROG_GET_FD_BY_ID, attributes.as_ptr().cast_mut().cast(), size_of_val(&attributes)) };
    let file = owned(descriptor).with_context(|| format!("open BPF program {id}"))?;
    let mut info = Info::default();
    let request = Request {
        descriptor: file.as_raw_fd(),
        length: u32::try_from(size_of::<Info>())?,
        info: (&raw mut info).addr().try_into()?,
    };
    // SAFETY: `request` names `info` and its length; both outlive the call.
    let result =
        unsafe { call(OBJ_GET_INFO_BY_FD, (&raw const request).cast_mut().cast(), size_of_val(&request)) };
    if result != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("ask about BPF program {id}"));
    }
    let name = info.name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(Program { id: info.id, name, run_ns: info.run_ns, runs: info.runs, misses: info.misses })
}

/// The attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Request {
    descriptor: i32,
    length: u32,
    info: u64,
}

/// The bpf system call.
///
/// # Safety
/// `attributes` must point at `size` bytes that the command may read and write.
unsafe fn call(command: i32, attributes: *mut libc::c_void, size: usize) -> i64 {
    // SAFETY: passed on to the caller.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) }
}
