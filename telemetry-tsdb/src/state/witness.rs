//! What stands beside the database: the witness of the last number, the count of openings that did not end, and
//! databases that were moved aside.
//!
//! The database may open with its tail silently gone. The witness is rewritten after each commit, without a sync:
//! killing the process keeps it, a loss of power at worst makes it older. It never names a number that was not synced
//! before, so it is never the cause of a false alarm.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory of the database.
const DATABASE: &str = "state";
/// The witness.
const WITNESS: &str = "state.last";
/// One byte for each opening that did not end.
const OPENING: &str = "state.opening";
/// How names of databases begin that were moved aside.
const DAMAGED: &str = "state.damaged-";
/// Where readable records are put before they take the damaged database's place.
const SALVAGE: &str = "state.salvage";
/// The first bytes of the witness.
const MAGIC: [u8; 4] = *b"TLS1";
/// Its length.
const WITNESS_LEN: usize = 16;
/// Openings in a row that may end with the process before the database is held responsible. A kill or a loss of power
/// may fall into one, hardly into three.
const OPENINGS_MAX: u64 = 3;
/// Databases kept aside. An older one has been looked at, or never will be.
const DAMAGED_KEPT: usize = 2;
/// Who may read: the owner.
const FILE_MODE: u32 = 0o600;

/// The directory that holds all of it.
#[derive(Clone, Debug)]
pub(super) struct Place(PathBuf);

/// What the witness says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The number of the last commit, or of one before it.
    Last(u64),
    /// There is none.
    Absent,
    /// It cannot be read: a loss of power tore it, or it is damaged.
    Unreadable,
}

// === impl Place ===

impl Place {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    pub(super) fn salvage(&self) -> PathBuf {
        self.0.join(SALVAGE)
    }

    pub(super) fn witness(&self) -> Word {
        match fs::read(self.0.join(WITNESS)) {
            Ok(bytes) => decode(&bytes).map_or(Word::Unreadable, Word::Last),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Word::Absent,
            Err(_) => Word::Unreadable,
        }
    }

    /// Writes the witness, in one call that a kill does not part.
    pub(super) fn testify(&self, number: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(FILE_MODE);
        options.open(self.0.join(WITNESS))?.write_all_at(&encode(number), 0)
    }

    /// Notes that an opening begins. True: too many before it have ended with the process.
    pub(super) fn begin_opening(&self) -> bool {
        let path = self.0.join(OPENING);
        let before = fs::metadata(&path).map_or(0, |meta| meta.len());
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(FILE_MODE);
        // Where this cannot be written the opening fails in its own words.
        let _ = options.open(&path).and_then(|file| file.write_all_at(&[0], before));
        before >= OPENINGS_MAX
    }

    pub(super) fn end_opening(&self) {
        let _ = fs::remove_file(self.0.join(OPENING));
    }

    /// Removes what a process left that died while it made its first database: nothing was ever committed to it.
    pub(super) fn clear_half_made(&self) {
        let _ = fs::remove_dir_all(self.salvage());
        let database = self.database();
        if database.is_dir() && !database.join("version").exists() && self.witness() == Word::Absent {
            let _ = fs::remove_dir_all(database);
        }
    }

    /// Moves the database out of the way, keeps the newest of those moved before, and says where it is now.
    pub(super) fn move_aside(&self, now_ms: i64) -> io::Result<PathBuf> {
        let mut to = self.0.join(format!("{DAMAGED}{now_ms}"));
        let mut attempt = 0;
        while to.exists() {
            attempt += 1;
            to = self.0.join(format!("{DAMAGED}{now_ms}.{attempt}"));
        }
        fs::rename(self.database(), &to)?;
        let mut aside = self.aside();
        // By age, not by name: the clock may have been set back.
        aside.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
        aside.retain(|path| *path != to);
        let surplus = (aside.len() + 1).saturating_sub(DAMAGED_KEPT);
        for path in aside.iter().take(surplus) {
            let _ = fs::remove_dir_all(path);
        }
        fs::File::open(&self.0)?.sync_all()?;
        Ok(to)
    }

    fn aside(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let is_aside = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(DAMAGED));
        entries.flatten().filter(|entry| is_aside(&entry.file_name())).map(|entry| entry.path()).collect()
    }

    /// Puts the salvaged records where the database is to be.
    pub(super) fn adopt_salvage(&self) -> io::Result<()> {
        fs::rename(self.salvage(), self.database())?;
        fs::File::open(&self.0)?.sync_all()
    }
}

fn encode(number: u64) -> [u8; WITNESS_LEN] {
    let mut out = [0; WITNESS_LEN];
    let (body, sum) = out.split_at_mut(12);
    let (magic, value) = body.split_at_mut(4);
    magic.copy_from_slice(&MAGIC);
    value.copy_from_slice(&number.to_le_bytes());
    sum.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (body, sum) = bytes.split_at_checked(12)?;
    let (magic, number) = body.split_first_chunk::<4>()?;
    let is_whole = u32::from_le_bytes(sum.try_into().ok()?) == crc32c::crc32c(body);
    (is_whole && *magic == MAGIC).then_some(u64::from_le_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_read_as_written_and_never_with_a_flipped_bit() {
        let bytes = encode(1 << 40 | 7);
        assert_eq!(decode(&bytes), Some(1 << 40 | 7));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_none()));
        assert_eq!(decode(&[0; WITNESS_LEN]), None, "what a loss of power may leave");
    }

    #[test]
    fn three_openings_in_a_row_may_end_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        assert_eq!([(); 4].map(|()| place.begin_opening()), [false, false, false, true]);
        place.end_opening();
        assert!(!place.begin_opening());
    }

    #[test]
    fn two_databases_are_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        let moved: Vec<_> = (0..4)
            .map(|_| {
                fs::create_dir(place.database()).unwrap();
                place.move_aside(77).unwrap()
            })
            .collect();
        // What is there is counted, not what was moved: the name of one that went may be given again.
        let kept = place.aside();
        assert!(kept.len() == 2 && kept.contains(&moved[3]), "{moved:?} {kept:?}");
    }
}
