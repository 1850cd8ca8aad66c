//! Files that no reader is shown and that are perhaps on disk all the same: one whose name could not be synced, one
//! that could not be removed. The next start would take them in again, so no deletion is forgotten before they are
//! gone for certain.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Db, Error};
use crate::block::{self, Block, BlockMeta};

/// Names that are remembered. Beyond that deletions stay until the next start.
const STRAYS_MAX: usize = 4096;

/// The names of such files.
#[derive(Debug, Default)]
pub struct Strays(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    paths: BTreeSet<PathBuf>,
    has_more: bool,
}

// === impl Db ===

impl Db {
    /// Removes files that are nobody's now. What the disk would not do is tried again.
    pub(super) fn disown(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut names = self.strays.0.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths {
            if names.paths.len() < STRAYS_MAX || names.paths.contains(&path) {
                names.paths.insert(path);
            } else {
                names.has_more = true;
            }
        }
        drop(names);
        self.are_strays_gone();
    }

    /// Removes what is left of them. Whether none is.
    pub(super) fn are_strays_gone(&self) -> bool {
        let mut names = self.strays.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(storage) = self.storage.as_ref().filter(|_| !names.paths.is_empty()) else {
            return !names.has_more;
        };
        let mut is_clean = true;
        for path in &names.paths {
            match storage.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a file cannot be removed");
                    is_clean = false;
                }
                _ => {}
            }
        }
        // A removal that is not synced is none: power may go.
        match storage.sync_dir(Path::new(block::DIR)) {
            Ok(()) if is_clean => names.paths.clear(),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the directory of files cannot be synced");
                is_clean = false;
            }
        }
        is_clean && !names.has_more
    }

    /// Opens a file that was just written. One that could not be written to its end, or be read then, is nobody's.
    pub(super) fn adopt(&self, path: PathBuf, made: Result<BlockMeta, Error>) -> Result<Block, Error> {
        let opened = made.and_then(|meta| {
            Block::open(&*self.storage()?, &meta.path()).map_err(|damage| Error::Damaged {
                file: meta.path().display().to_string(),
                reason: damage.to_string(),
            })
        });
        if opened.is_err() {
            self.disown([path]);
        }
        opened
    }
}
