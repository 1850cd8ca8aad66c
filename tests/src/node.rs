//! A node with real pods and no Kubernetes: the one that `cargo xtask cluster` has started, by way of podlet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::agent::Settings;
use crate::host::Skip;

/// The node.
#[derive(Clone, Debug)]
pub struct Node {
    dir: PathBuf,
    podlet: PathBuf,
    driver: String,
}

/// A container that lived and ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Its pod.
    pub pod: String,
    /// Its name.
    pub container: String,
    /// 64 hex digits.
    pub id: String,
    /// The pod's UID.
    pub uid: String,
    /// Words that it wrote last.
    pub words: Vec<String>,
}

// === impl Node ===

impl Node {
    /// The node of `TELEMETRY_NODE`, which `cargo xtask test` starts for this suite; `TELEMETRY_CGROUP_DRIVER` tells who
    /// makes its cgroups, `cgroupfs` or `systemd`.
    ///
    /// # Errors
    /// A [`Skip`] if there is none.
    pub fn find() -> Result<Self> {
        let told = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let node = told("TELEMETRY_NODE").zip(told("TELEMETRY_PODLET"));
        let (dir, podlet) = node.ok_or_else(|| anyhow!(Skip("no node of pods was started".to_owned())))?;
        let driver = std::env::var("TELEMETRY_CGROUP_DRIVER").unwrap_or_else(|_| "cgroupfs".to_owned());
        Ok(Self { dir, podlet, driver })
    }

    /// An agent's settings that read names where this node's runtime writes them.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::new().attribution(&format!("host_root = {:?}", self.dir.join("host")))
    }

    /// Runs podlet to its end, and reads the lines it wrote.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn podlet(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.podlet);
        command.arg("--socket").arg(self.dir.join("containerd.sock"));
        command.arg("--logs").arg(self.logs());
        if let Some((task @ (&"run" | &"churn"), rest)) = arguments.split_first() {
            command.args([*task, "--driver", &self.driver]).args(rest);
        } else {
            command.args(arguments);
        }
        command.stdin(Stdio::null());
        let output = command.output().with_context(|| format!("start {}", self.podlet.display()))?;
        if !output.status.success() {
            bail!("podlet {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8(output.stdout).context("podlet's lines")?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Removes every pod.
    ///
    /// # Errors
    /// If the runtime refuses.
    pub fn clear(&self) -> Result<()> {
        self.podlet(&["rm"]).map(drop)
    }

    /// A container that `podlet churn` told of, with what it wrote.
    ///
    /// # Errors
    /// If it is not whole, or the container wrote nothing.
    pub fn life(&self, namespace: &str, line: &Value) -> Result<Life> {
        let text = |key: &str| {
            line.get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("{key} in {line}"))
        };
        let (pod, container, uid) = (text("pod")?, text("container")?, text("uid")?);
        let log = self.logs().join(format!("{namespace}_{pod}_{uid}")).join(format!("{container}.log"));
        let written = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        // The runtime writes: time, stream, whether the line is whole, and the line.
        let last = written.lines().last().with_context(|| format!("{} is empty", log.display()))?;
        Ok(Life {
            pod,
            container,
            id: text("id")?,
            uid,
            words: last.split(' ').skip(3).map(str::to_owned).collect(),
        })
    }

    fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Where the runtime's folders are.
    #[must_use]
    pub fn host_root(&self) -> PathBuf {
        Path::new(&self.dir).join("host")
    }
}
