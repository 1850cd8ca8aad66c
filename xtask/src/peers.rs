//! The stores that ours is measured beside: Prometheus 3 and VictoriaMetrics of Debian's newest suite.
//!
//! Their packages are unpacked into the cache and never installed, apart from the Prometheus of the machine's own
//! suite that the tests of the page use. The tests of the query API ask the newer one. Where they cannot be had, the
//! benchmark says so and the rest of it runs, and so do the tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::{cache, setup, shell};

const SUITE: &str = "sid";
/// Their place in the cache, and that of their programs in it.
const ENTRY: &str = "tools/store-peers";
const PROGRAMS: &str = "usr/bin";
const PACKAGES: [&str; 4] = ["prometheus", "promtool", "victoria-metrics", "prometheus-node-exporter"];

/// The folder of their programs, or `None` with a line that says why.
pub fn ensure() -> Option<PathBuf> {
    match fetch() {
        Ok(dir) => Some(dir),
        Err(error) => {
            setup::say(format_args!("no peers to measure beside: {error:#}"));
            None
        }
    }
}

/// The folder, if they are there already.
pub fn found() -> Option<PathBuf> {
    Some(cache::dir().ok()?.join(ENTRY).join(PROGRAMS)).filter(|dir| dir.is_dir())
}

fn fetch() -> Result<PathBuf> {
    let tree = cache::entry(ENTRY, |dir| {
        setup::say(format_args!("fetching {}", PACKAGES.join(" ")));
        let apt = Apt::new(cache::dir()?.join("tools/store-peers-apt"));
        apt.update(&[SUITE])?;
        shell::quiet(apt.command("apt-get").args(["--quiet", "download"]).args(PACKAGES).current_dir(dir))?;
        let versions = versions(dir)?;
        setup::unpack_packages(dir, dir)?;
        fs::write(dir.join("VERSIONS"), versions).context("note the versions")
    })?;
    Ok(tree.join(PROGRAMS))
}

/// `prometheus 3.5.3+ds1-6`, a line a package file of the folder.
fn versions(dir: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let name = entry?.file_name();
        lines.extend(version_of(&name.to_string_lossy()));
    }
    lines.sort();
    Ok(lines.concat())
}

/// The line of a package file named `<package>_<version>_<architecture>.deb`.
fn version_of(file: &str) -> Option<String> {
    let mut parts = file.strip_suffix(".deb")?.split('_');
    Some(format!("{} {}\n", parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_file_says_its_version() {
        let line = version_of("victoria-metrics_1.145.0+ds1-2_amd64.deb");
        assert_eq!(line.as_deref(), Some("victoria-metrics 1.145.0+ds1-2\n"));
        assert_eq!(version_of("sources.list"), None);
    }
}
