//! The stores that ours is measured beside: Prometheus 3 and VictoriaMetrics of Debian's newest suite.
//!
//! Their packages are unpacked into the cache and never installed, apart from the Prometheus of the machine's own
//! suite that the tests of the page use. Where they cannot be had, the benchmark says so and the rest of it runs.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt::Apt;
use crate::{cache, setup, shell};

const SUITE: &str = "sid";
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

fn fetch() -> Result<PathBuf> {
    let tree = cache::entry("tools/store-peers", |dir| {
        setup::say(format_args!("fetching {}", PACKAGES.join(" ")));
        let apt = Apt::new(cache::dir()?.join("tools/store-peers-apt"));
        apt.update(&[SUITE])?;
        shell::quiet(apt.command("apt-get").args(["--quiet", "download"]).args(PACKAGES).current_dir(dir))?;
        setup::unpack_packages(dir, dir)
    })?;
    Ok(tree.join("usr/bin"))
}
