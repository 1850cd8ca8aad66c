//! Code that only the start needed leaves memory: reading BTF, relocating and loading programs, options and files.
//!
//! Each page fault of code maps sixteen pages around it, so that a start which touches a little of everything has most
//! of the program resident for good. Dropped pages are clean and come back from the file when they are called again.
//! Knows nothing of programs or maps; stands here because only this folder may ask the kernel for such things.

use std::fs;

/// From this many bytes on, a buffer is memory of its own. Smaller ones come from heaps: to map one and fault it in costs
/// more than to copy what it holds.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 4 << 20;
/// Unused bytes at the end of a heap that wait for their next use until [`trim`] takes them: given back at once, they would be
/// faulted in again for the next request.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 8 << 20;

/// Lets go of code and constants of the program and its libraries; what runs on is mapped again at its next use. Nothing
/// depends on it: where it cannot be done, memory is a few MiB larger.
pub fn forget_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (from, to) in maps.lines().filter_map(clean_range) {
        // SAFETY: the range is one whole private mapping of a file that the kernel just listed, never writable and never
        // relocated: its pages are clean copies of the file, which stays open by this mapping. Reading them after this
        // call brings the same bytes back.
        let result = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        if result != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "code pages stay resident");
        }
    }
    trim();
}

/// Makes what is large leave with its last user: the C library would learn from the first buffer of some megabytes to keep
/// all such in its heaps, where they stay once something small was put behind them. To be called before threads start.
pub fn keep_heaps_small() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in
        [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN), (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX)]
    {
        // SAFETY: takes no pointer; nothing else of this process sets these.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Gives memory back that the C library holds and nobody uses: at the start that of the parsed BTF, 29 MB; later what
/// a rush of clients left.
pub fn trim() {
    // SAFETY: takes no pointer and changes nothing that anybody can see.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The addresses of a line of /proc/self/maps, if its pages are what is in a file: code, or the constants at a file's
/// beginning. Constants further on are relocated by the loader and only then made read-only.
fn clean_range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions, offset) = (words.next()?, words.next()?, words.next()?);
    let is_clean =
        permissions == "r-xp" || (permissions == "r--p" && offset.bytes().all(|digit| digit == b'0'));
    if !is_clean || !words.nth(2)?.starts_with('/') {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    let (from, to) = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_file_as_it_is_in_memory_is_let_go() {
        let check = |line: &str, expected| assert_eq!(clean_range(line), expected, "{line}");
        check("1000-3000 r-xp 00001000 fe:00 42                  /bin/agent", Some((0x1000, 0x3000)));
        check("1000-3000 r--p 00000000 fe:00 42                  /lib/libc.so.6", Some((0x1000, 0x3000)));
        check("1000-3000 r--p 00001000 fe:00 42                  /bin/agent", None);
        check("1000-3000 rw-p 00000000 fe:00 42                  /bin/agent", None);
        check("1000-3000 r-xp 00000000 00:00 0                   [vdso]", None);
        check("1000-3000 r--p 00000000 00:00 0", None);
        check("3000-1000 r-xp 00001000 fe:00 42                  /bin/agent", None);
    }

    #[test]
    fn code_runs_on_after_it_was_let_go() {
        forget_code();
        assert_eq!((1..=10).map(|n| n * n).sum::<i32>(), 385);
    }
}
