//! An apt with sources and lists of its own: packages of other suites are read and fetched, the machine's stay as they
//! are, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::{setup, shell};

/// Signs all suites; its package is part of every Debian system.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The folder that holds the sources and lists.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
}

// === impl Apt ===

impl Apt {
    /// In this folder, which need not be there.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Whether the mirror was ever asked.
    pub fn has_lists(&self) -> bool {
        self.dir.join("lists").is_dir()
    }

    /// Asks the mirror of this machine's own apt what the suites hold.
    pub fn update(&self, suites: &[&str]) -> Result<()> {
        let mirror = mirror()?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let dir = self.dir.join(sub);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let line = |suite: &&str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let sources: String = suites.iter().map(line).collect();
        fs::write(self.dir.join("sources.list"), sources).context("write the list of sources")?;
        shell::quiet(self.command("apt-get").args(["--quiet", "update"]))?;
        Ok(())
    }

    /// A tool of apt that reads these sources and lists instead of the machine's.
    pub fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::State::Lists", &self.dir.join("lists"));
        option("Dir::Cache", &self.dir.join("cache"));
        option("Dir::Etc::SourceList", &self.dir.join("sources.list"));
        for unused in ["Dir::Etc::SourceParts", "Dir::Etc::Preferences", "Dir::Etc::PreferencesParts"] {
            option(unused, Path::new("/dev/null"));
        }
        // As root, apt would hand downloads to its own user, who may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }
}

/// The mirror of this machine's own sources that carries Debian itself.
fn mirror() -> Result<String> {
    let mut command = setup::apt_get(&["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let repositories = shell::quiet(&mut command)?;
    let main = repositories.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    main.map(str::to_owned).ok_or_else(|| anyhow!("apt knows no mirror of Debian's archive here"))
}
