//! A node with all of Kubernetes and the agent on it: the one that `cargo xtask cluster kubernetes up` has started.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::host::{Skip, scaled};
use crate::page::Page;

/// Where everything of the cluster is.
const NAMESPACE: &str = "telemetry-kube";

/// What opens the agent without an API server; `cargo xtask cluster kubernetes` puts it there.
const TOKEN: &str = "the-token-of-these-tests";

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
        let (status, body) = self.ask(agent, ("GET", path), Some(TOKEN))?;
        anyhow::ensure!(status == 200, "{path}: {status}: {body}");
        Ok(body)
    }

    /// The status and the body that somebody with this token gets.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub fn ask(
        &self,
        agent: &str,
        (method, path): (&str, &str),
        token: Option<&str>,
    ) -> Result<(u16, String)> {
        let said = token.map_or(String::new(), |token| format!("'Authorization: Bearer {token}'"));
        let script = format!(
            "exec 3<>/dev/tcp/{agent} && printf '%s\\r\\n' '{method} {path} HTTP/1.0' 'Host: agent' {said} '' >&3 && exec timeout 10 cat <&3"
        );
        let answer = output(self.inside("bash").args(["-c", &script]))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a header")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| head.to_owned())?, body.to_owned()))
    }

    /// A token of a service account of the namespace `default`, for an audience; none: for the API server.
    ///
    /// # Errors
    /// If the API server makes none.
    pub fn token(&self, account: &str, audience: Option<&str>) -> Result<String> {
        let audiences: Vec<_> = audience.into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 3600},
        });
        let file = self.dir.join("token.json");
        fs::write(&file, request.to_string()).context("write a request")?;
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        let made = self.kubectl(&["create", "--raw", &path, "--filename", &file.display().to_string()])?;
        let made: Value = serde_json::from_str(&made).context("a token")?;
        let token = made.pointer("/status/token").and_then(Value::as_str).context("a token")?;
        Ok(token.to_owned())
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
