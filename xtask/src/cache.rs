//! The cache: what is dear to fetch or build and belongs to no one source tree.
//!
//! Entries are made in a folder beside their place and renamed into it, so that one which is there
//! is whole, whoever was interrupted.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow};

/// `$TELEMETRY_CACHE`, else `$XDG_CACHE_HOME/telemetry`, else `~/.cache/telemetry`.
///
/// # Errors
/// When none of the three variables is set.
pub fn dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TELEMETRY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("telemetry")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/telemetry")))
        .ok_or_else(|| anyhow!("no cache folder: set TELEMETRY_CACHE or HOME"))
}

/// The entry `name`, made by `make` in an empty folder if it is not there.
///
/// # Errors
/// Those of `make`, and of the file system.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = dir()?.join(name);
    if place.exists() {
        return Ok(place);
    }
    let unfinished = unfinished(&place)?;
    let made = make(&unfinished).and_then(|()| match fs::rename(&unfinished, &place) {
        // Another xtask was quicker; its entry is as good as ours.
        Err(_) if place.exists() => Ok(()),
        result => result.with_context(|| format!("rename {} to {}", unfinished.display(), place.display())),
    });
    if unfinished.exists() {
        // Nobody looks there again; the next clean-up of the cache may have it.
        let _ = fs::remove_dir_all(&unfinished);
    }
    made.map(|()| place)
}

/// An empty folder beside `place`, which no other process uses.
fn unfinished(place: &Path) -> Result<PathBuf> {
    let mut name = place.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".unfinished-{}", process::id()));
    let dir = place.with_file_name(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}
