//! A directory of the real file system, held by one process at a time. Reads and writes are `pread` and `pwrite`: no
//! mapping, so that a bad sector is an error and not a signal.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, Storage};

/// Who may read the store: its owner.
const FILE_MODE: u32 = 0o600;

/// A directory.
#[derive(Debug)]
pub struct RealStorage {
    root: PathBuf,
    /// Held while the store is open; the lock goes with the process, however it ends.
    _lock: Option<fs::File>,
}

struct RealFile(fs::File);

// === impl RealStorage ===

impl RealStorage {
    /// Makes the directory if there is none and locks it.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds it; what the system says otherwise.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(root.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { root: root.to_owned(), _lock: Some(lock) })
    }

    /// Opens a directory to be read, beside whoever holds it.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open_unlocked(root: &Path) -> io::Result<Self> {
        if !root.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self { root: root.to_owned(), _lock: None })
    }
}

impl Storage for RealStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        Ok(Arc::new(RealFile(options.open(self.root.join(path))?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let path = self.root.join(path);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                fs::File::open(&path)?
            }
            other => other?,
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(PathBuf::from(entry.file_name()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(self.root.join(dir)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| self.sync_dir(dir.parent().unwrap_or(Path::new("")))),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(self.root.join(dir))?.sync_all()
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        let path = self.root.join(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        // SAFETY: the descriptor is that of `file`, which outlives the call; the kernel checks the numbers.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        fs::remove_file(&path)?;
        Err(error)
    }

    fn free_bytes(&self) -> Option<u64> {
        let path = CString::new(self.root.as_os_str().as_bytes()).ok()?;
        // SAFETY: all-zero bytes are a value of this plain C struct of integers.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` ends in NUL and `stat` is a writable statvfs; both outlive the call.
        let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) };
        (result == 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

// === impl RealFile ===

impl File for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = RealStorage::open(dir.path()).unwrap();
        let second = RealStorage::open(dir.path());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let again = RealStorage::open(dir.path()).unwrap();
        assert!(again.free_bytes().unwrap() > 0);
    }

    #[test]
    fn room_that_is_held_is_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let path = Path::new("held");
        match storage.reserve(path, 1 << 20) {
            Ok(()) => {
                let held = fs::metadata(dir.path().join(path)).unwrap();
                assert!(std::os::unix::fs::MetadataExt::blocks(&held) * 512 >= 1 << 20, "blocks, not a hole");
                assert!(storage.reserve(path, 1).is_err(), "it is there already");
                storage.remove(path).unwrap();
            }
            Err(error) => assert!(!dir.path().join(path).exists(), "{error}: nothing is left behind"),
        }
        assert!(storage.reserve(path, i64::MAX as u64).is_err(), "no disk has so much");
        assert!(!dir.path().join(path).exists(), "nothing is left behind");
    }

    #[test]
    fn what_is_written_is_read_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        storage.create_dir(Path::new("log")).unwrap();
        let file = storage.create(Path::new("log/a")).unwrap();
        file.write_at(b"xyz", 2).unwrap();
        file.sync().unwrap();
        storage.rename(Path::new("log/a"), Path::new("log/b")).unwrap();
        storage.sync_dir(Path::new("log")).unwrap();
        assert_eq!(storage.list(Path::new("log")).unwrap(), [PathBuf::from("b")]);
        assert_eq!(
            super::super::read_all(&*storage.open(Path::new("log/b")).unwrap(), 99).unwrap(),
            b"\0\0xyz"
        );
        assert!(storage.list(Path::new("none")).unwrap().is_empty());
    }
}
