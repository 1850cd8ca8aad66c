//! Debian's cloud kernels, from whatever mirror this machine's apt already uses.
//!
//! Versions leave the archive when a newer one enters, sometimes before the index forgets them. So
//! nothing is pinned: of each minor the newest that downloads whole is taken, and kept unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::apt::Apt;
use crate::{cache, setup, shell};

use super::Refresh;

/// Between them these suites carry every kernel from 6.1 on that Debian still builds.
const SUITES: [&str; 4] = ["bookworm", "trixie", "trixie-backports", "sid"];
/// From 6.19 on the kernel and its modules are packages of their own.
const PACKAGES: [&str; 3] = ["linux-image", "linux-binary", "linux-modules"];
/// Versions of one minor, or minors for `newest`, that are tried before giving up.
const TRIES_MAX: usize = 4;

/// A kernel, unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// As its package says: `6.12.107+deb13-cloud-amd64`.
    pub version: String,
    /// The unpacked packages.
    pub tree: PathBuf,
}

/// The kernels of the cache and of the archive behind it.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    apt: Apt,
    refresh: Refresh,
    /// Versions that the index names, newest first; read when it is first needed.
    index: Option<Vec<String>>,
}

// === impl Archive ===

impl Archive {
    /// The archive, not asked yet.
    pub fn new(refresh: Refresh) -> Result<Self> {
        let dir = cache::dir()?.join("kernels");
        Ok(Self { apt: Apt::new(dir.join(".apt")), dir, refresh, index: None })
    }

    /// The kernel for `6.12`, for a whole version, or for `newest`.
    pub fn kernel(&mut self, wanted: &str) -> Result<Kernel> {
        if wanted != "newest" && minor_of(wanted).is_none() {
            bail!("no kernel version: say 6.12, or newest");
        }
        if let (Refresh::No, Some(version)) = (self.refresh, self.cached(wanted)) {
            return Ok(self.unpacked(version));
        }
        let index = self.index()?;
        let candidates = candidates(&index, wanted);
        if candidates.is_empty() {
            bail!("Debian's archive has none");
        }
        let mut last = None;
        for version in candidates {
            match self.fetch(&version) {
                Ok(kernel) => {
                    if wanted == "newest" {
                        fs::write(self.newest_file(), &version).context("note the newest kernel")?;
                    }
                    return Ok(kernel);
                }
                Err(error) => last = Some(error.context(format!("fetch {version}"))),
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("none could be fetched")))
    }

    fn unpacked(&self, version: String) -> Kernel {
        Kernel { tree: self.dir.join(&version), version }
    }

    fn newest_file(&self) -> PathBuf {
        self.dir.join("newest")
    }

    /// The newest version in the cache that answers to the name.
    fn cached(&self, wanted: &str) -> Option<String> {
        let have = |version: &str| self.dir.join(version).is_dir();
        if wanted == "newest" {
            let version = fs::read_to_string(self.newest_file()).ok()?;
            return have(&version).then_some(version);
        }
        let names =
            fs::read_dir(&self.dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let versions = newest_first(names.filter(|name| name.ends_with("-cloud-amd64")).collect());
        candidates(&versions, wanted).into_iter().find(|version| have(version))
    }

    fn fetch(&self, version: &str) -> Result<Kernel> {
        cache::entry(&format!("kernels/{version}"), |dir| {
            setup::say(format_args!("fetching kernel {version}"));
            let mut packages = Vec::new();
            for prefix in PACKAGES {
                let package = format!("{prefix}-{version}");
                if shell::succeeds(self.apt("apt-cache").args(["show", &package])) {
                    packages.push(package);
                }
            }
            shell::quiet(self.apt("apt-get").args(["--quiet", "download"]).args(&packages).current_dir(dir))?;
            setup::unpack_packages(dir, dir)?;
            vmlinuz(dir).map(|_| ())
        })?;
        Ok(self.unpacked(version.to_owned()))
    }

    /// Every version that the index names, newest first.
    fn index(&mut self) -> Result<Vec<String>> {
        if let Some(index) = &self.index {
            return Ok(index.clone());
        }
        if self.refresh == Refresh::Yes || !self.apt.has_lists() {
            self.update()?;
        }
        const NAMES: &str = r"^linux-image-[0-9]+\.[0-9]+\.[0-9].*-cloud-amd64$";
        let mut versions = self.search(NAMES)?;
        if versions.is_empty() {
            // Lists of an update that was interrupted.
            self.update()?;
            versions = self.search(NAMES)?;
        }
        let versions = newest_first(versions);
        self.index = Some(versions.clone());
        Ok(versions)
    }

    fn search(&self, names: &str) -> Result<Vec<String>> {
        let found = shell::quiet(self.apt("apt-cache").args(["search", "--names-only", names]))?;
        let package =
            |line: &str| line.split_whitespace().next()?.strip_prefix("linux-image-").map(str::to_owned);
        Ok(found.lines().filter_map(package).collect())
    }

    fn update(&self) -> Result<()> {
        setup::say("asking the archive which kernels there are");
        self.apt.update(&SUITES)
    }

    /// The guests are of one architecture, whatever this machine is.
    fn apt(&self, tool: &str) -> Command {
        let mut command = self.apt.command(tool);
        command.args(["-o", "APT::Architecture=amd64"]);
        command
    }
}

// === impl Kernel ===

impl Kernel {
    /// The compressed kernel.
    ///
    /// # Errors
    /// When the packages held none.
    pub fn image(&self) -> Result<PathBuf> {
        vmlinuz(&self.tree)
    }
}

fn vmlinuz(tree: &Path) -> Result<PathBuf> {
    let starts =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    files_below(tree)?
        .into_iter()
        .find(|path| starts(path))
        .ok_or_else(|| anyhow!("no kernel in {}", tree.display()))
}

/// Every plain file below a folder.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Versions to try for a name, best first.
fn candidates(newest_first: &[String], wanted: &str) -> Vec<String> {
    let mut minors_seen = Vec::new();
    let fits = |version: &&String| {
        let minor = minor_of(version);
        if wanted != "newest" {
            return version.as_str() == wanted || (minor.is_some() && minor == exact_minor(wanted));
        }
        // One version of each minor: a minor that has left the archive has left it whole.
        let new = !minors_seen.contains(&minor);
        minors_seen.push(minor);
        new
    };
    newest_first.iter().filter(fits).take(TRIES_MAX).cloned().collect()
}

/// `6.12` of `6.12` and of `6.12.107+deb13-cloud-amd64`.
fn minor_of(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The minor, if the text is a minor and nothing more.
fn exact_minor(text: &str) -> Option<(u64, u64)> {
    minor_of(text).filter(|(major, minor)| text == format!("{major}.{minor}"))
}

fn newest_first(mut versions: Vec<String>) -> Vec<String> {
    versions.sort_by_key(|version| {
        let numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
        std::cmp::Reverse(numbers.collect::<Vec<u64>>())
    });
    versions.dedup();
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Vec<String> {
        let all = ["6.1.0-9", "6.12.9+deb13", "6.1.0-50", "7.3.4+deb14", "6.12.107+deb13", "7.2.1", "7.3.10"];
        newest_first(all.map(|version| format!("{version}-cloud-amd64")).to_vec())
    }

    #[test]
    fn the_newest_of_a_minor_comes_first() {
        assert_eq!(candidates(&index(), "6.12"), ["6.12.107+deb13-cloud-amd64", "6.12.9+deb13-cloud-amd64"]);
        assert_eq!(candidates(&index(), "6.1"), ["6.1.0-50-cloud-amd64", "6.1.0-9-cloud-amd64"]);
        assert!(candidates(&index(), "6").is_empty());
    }

    #[test]
    fn newest_tries_one_version_of_each_minor() {
        let expected = ["7.3.10", "7.2.1", "6.12.107+deb13", "6.1.0-50"].map(|v| format!("{v}-cloud-amd64"));
        assert_eq!(candidates(&index(), "newest"), expected);
    }

    #[test]
    fn a_whole_version_means_itself() {
        assert_eq!(candidates(&index(), "6.1.0-9-cloud-amd64"), ["6.1.0-9-cloud-amd64"]);
    }
}
