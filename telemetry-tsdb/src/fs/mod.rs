//! The disk and the clock as parameters: the same store runs on a real directory and on a simulated disk that tears,
//! loses, reorders, fails, lies and fills.

#[expect(unsafe_code, reason = "what the standard library does not ask the kernel: free space, room held")]
mod real;
pub mod sim;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use telemetry_model::clock::Timestamp;

pub use real::RealStorage;

/// Where what is damaged is put; nothing in it is read again.
pub const DAMAGED_DIR: &str = "damaged";

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A store's directory. Paths are relative to it.
pub trait Storage: Send + Sync {
    /// Makes a file; it must not exist.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading and writing; if that is not allowed, for reading.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must be free; a copy where the system cannot. For files that do not change.
    ///
    /// # Errors
    /// What the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, copy) = (self.open(from)?, self.create(to)?);
        let len = source.len()?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            let part = buffer.get_mut(..part).unwrap_or_default();
            source.read_at(part, at)?;
            copy.write_at(part, at)?;
            at += part.len() as u64;
        }
        copy.sync()
    }
    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a directory, sorted; none if there is no such directory.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a directory and brings its name to disk; one that is there is fine.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Brings the names in a directory to disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a file that takes so much room without being written; it must not exist. Not every disk can.
    ///
    /// # Errors
    /// What the system says; nothing is left behind then.
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let _ = (path, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Bytes that can still be written, if known.
    fn free_bytes(&self) -> Option<u64>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Brings what was written to disk.
    ///
    /// # Errors
    /// What the system says. After an error what was written may be lost, and a second call may say otherwise: never
    /// call it again.
    fn sync(&self) -> io::Result<()>;
    /// Its length.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970; it may jump.
    fn now_ms(&self) -> i64;
    /// Nanoseconds since some moment; it never runs backwards.
    fn monotonic_ns(&self) -> u64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

// === impl SystemClock ===

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        Timestamp::of(SystemTime::now()).0
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How often a file is read that cannot be: a loose cable or a path that fails over answers the second time.
const READ_ATTEMPTS: u32 = 3;

/// Opens a file and reads all of it, again if the disk refuses.
///
/// # Errors
/// What the system says at last, or if it is longer than `max`.
pub fn read_file(storage: &dyn Storage, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    again(|| read_all(&*storage.open(path)?, max))
}

/// Tries a read again that an error of the disk ended, a few times; what it then says is the answer.
///
/// # Errors
/// The last one.
pub fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        match read() {
            Err(error) if attempt < READ_ATTEMPTS && is_of_the_disk(&error) => attempt += 1,
            other => return other,
        }
    }
}

/// Whether there was no room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error may pass: not one that says what the file is.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, NotFound, PermissionDenied, UnexpectedEof};
    !matches!(error.kind(), FileTooLarge | NotFound | PermissionDenied | UnexpectedEof)
}

/// Reads a whole file.
///
/// # Errors
/// What the system says, or if it is longer than `max`.
pub fn read_all(file: &dyn File, max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes, the most is {max}")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}
