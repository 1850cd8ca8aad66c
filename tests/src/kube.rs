//! A node with all of Kubernetes and the agent on it: the one that `cargo xtask cluster kubernetes up` has started.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::host::{Skip, scaled};
use crate::page::Page;

/// Where everything of the cluster is.
const NAMESPACE: &str = "telemetry-kube";

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    kubectl: PathBuf,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster of `TELEMETRY_KUBE`, which `cargo xtask test` starts for this suite where it has been built.
    ///
    /// # Errors
    /// A [`Skip`] if there is none.
    pub fn find() -> Result<Self> {
        let told = |name: &str| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.ok_or_else(|| anyhow!(Skip("no cluster was started".to_owned())))
        };
        Ok(Self { dir: told("TELEMETRY_KUBE")?, kubectl: told("TELEMETRY_KUBECTL")? })
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{NAMESPACE}")).arg(program);
        command
    }

    /// What kubectl says.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.inside(&self.kubectl);
        command.arg("--kubeconfig").arg(self.dir.join("admin.conf")).args(arguments);
        output(&mut command)
    }

    /// Objects as kubectl shows them.
    ///
    /// # Errors
    /// If kubectl fails or says something else.
    pub fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", kind, "--all-namespaces", "--output", "json"])?;
        let list: Value = serde_json::from_str(&text).with_context(|| format!("kubectl get {kind}"))?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Makes what a manifest says.
    ///
    /// # Errors
    /// If kubectl refuses.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        let file = self.dir.join("test.json");
        fs::write(&file, manifest.to_string()).context("write a manifest")?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    /// Puts a static pod's file where kubelet looks, or takes it away.
    ///
    /// # Errors
    /// If the file cannot be written or removed.
    pub fn static_pod(&self, name: &str, manifest: Option<&Value>) -> Result<()> {
        let file = self.dir.join("manifests").join(format!("{name}.json"));
        match manifest {
            Some(manifest) => fs::write(&file, manifest.to_string()).context("write a static pod's file"),
            None => fs::remove_file(&file).context("remove a static pod's file"),
        }
    }

    /// The agent's address; asked for once, before the API server is let die.
    ///
    /// # Errors
    /// If the agent has none.
    pub fn agent(&self) -> Result<String> {
        let arguments =
            ["--namespace", "telemetry", "get", "pods", "--output", "jsonpath={.items[0].status.podIP}"];
        let address = self.kubectl(&arguments)?;
        anyhow::ensure!(!address.trim().is_empty(), "the agent's pod has no address");
        Ok(format!("{}/9632", address.trim()))
    }

    /// What the agent answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn get(&self, agent: &str, path: &str) -> Result<String> {
        let script = format!(
            "exec 3<>/dev/tcp/{agent} && printf '%s\\r\\n' 'GET {path} HTTP/1.0' 'Host: agent' '' >&3 && exec timeout 10 cat <&3"
        );
        let answer = output(self.inside("bash").args(["-c", &script]))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a header")?;
        anyhow::ensure!(head.contains(" 200 "), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// The agent's page as soon as it is as wanted.
    ///
    /// # Errors
    /// If it is not in time, with what is about `needle`.
    pub fn page_when(
        &self,
        agent: &str,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Page) -> bool,
    ) -> Result<Page> {
        let (started, limit) = (Instant::now(), scaled(limit));
        loop {
            let page = Page::parse(&self.get(agent, "/metrics")?)?;
            if condition(&page) {
                return Ok(page);
            }
            if started.elapsed() > limit {
                bail!("{what}: not so after {} s; {}", limit.as_secs(), page.about("kernel_pod_info"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Ends a part of the control plane.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub fn kill(&self, part: &str) -> Result<()> {
        let pid = fs::read_to_string(self.dir.join(format!("{part}.pid"))).context("its process id")?;
        output(Command::new("kill").args(["-9", pid.trim()])).map(drop)
    }

    /// Starts it again as it was.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn revive(&self, part: &str) -> Result<()> {
        let line = fs::read_to_string(self.dir.join(format!("{part}.command"))).context("its command")?;
        let mut words = line.split_whitespace();
        let log =
            fs::File::options().append(true).open(self.dir.join(format!("{part}.log"))).context("its log")?;
        let child = self
            .inside(words.next().context("a command has a program")?)
            .args(words)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start it again")?;
        fs::write(self.dir.join(format!("{part}.pid")), child.id().to_string()).context("its process id")
    }

    /// What the API server's audit has of the agent: verb, resource and address of each request that was answered.
    ///
    /// # Errors
    /// If there is no audit.
    pub fn asked_by_agent(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.dir.join("audit.log")).context("read the audit")?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let user = "system:serviceaccount:telemetry:telemetry-agent";
        Ok(events
            .filter(|event| event.pointer("/user/username").and_then(Value::as_str) == Some(user))
            .collect())
    }
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
