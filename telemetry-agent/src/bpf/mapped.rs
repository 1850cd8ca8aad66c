//! Memory-mapped arrays: the kernel's cells read without a system call, and without any capability.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use telemetry_ebpf::Abi;

/// A BPF array of `T`, mapped.
pub struct Mapped<T> {
    base: NonNull<u8>,
    bytes: usize,
    entries: u32,
    kind: PhantomData<T>,
}

/// Whether the agent may write: only the identity cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The kernel side writes.
    Read,
    /// Both sides write.
    ReadWrite,
}

// SAFETY: the mapping belongs to this value alone and is only read, or written by whole atomic words.
unsafe impl<T> Send for Mapped<T> {}

// === impl Mapped ===

impl<T: Abi> Mapped<T> {
    /// Maps an array that was created with `BPF_F_MMAPABLE` and `entries` entries of `T`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn new(map: BorrowedFd<'_>, entries: u32, access: Access) -> std::io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "array cells are multiples of eight bytes") };
        let bytes = usize::try_from(entries).unwrap_or(usize::MAX).saturating_mul(size_of::<T>());
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: a fresh mapping at an address that the kernel chooses; the length is the map's own, which the
        // kernel checks, rounded up to pages.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mmap gave a null address"))?;
        Ok(Self { base, bytes, entries, kind: PhantomData })
    }

    /// How many cells there are.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// A copy of a cell; its fields may be one event apart. None beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        let cell = self.cell(index)?;
        // SAFETY: in bounds by `cell`, aligned since the mapping is page-aligned and cells are multiples of their
        // alignment, and any bit pattern is a `T` because it is `Abi`. Volatile: the kernel writes meanwhile.
        Some(unsafe { cell.read_volatile() })
    }

    /// The word at `offset` bytes in a cell: tells whether the cell moved for the price of one load.
    #[must_use]
    pub fn word(&self, index: u32, offset: usize) -> u64 {
        self.atomic(index, offset).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn cell(&self, index: u32) -> Option<*const T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: below `entries`, so inside the mapping.
        Some(unsafe { self.base.as_ptr().cast::<T>().add(usize::try_from(index).ok()?) })
    }

    fn atomic(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        let cell = self.cell(index)?.cast::<u8>();
        if !offset.is_multiple_of(8) || offset + 8 > size_of::<T>() {
            return None;
        }
        // SAFETY: inside the cell by the test above.
        let word = unsafe { cell.add(offset) };
        // SAFETY: aligned to 8 as cell and offset are; lives as long as `self`; every access to it, on both sides,
        // is of one whole aligned word.
        Some(unsafe { AtomicU64::from_ptr(word.cast_mut().cast()) })
    }
}

impl Mapped<u64> {
    /// Replaces a word by 0 if it still is `expected`. The array must be mapped for writing.
    pub fn clear(&self, index: u32, expected: u64) -> bool {
        self.atomic(index, 0).is_some_and(|word| {
            word.compare_exchange(expected, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
