//! `cargo xtask cluster`: a node without Kubernetes, for the tests that need real pods. `kubernetes` has one with it,
//! `unified` one in a guest.
//!
//! Debian's containerd and runc, unpacked into the cache and never installed, so that no service starts; one image made of
//! Debian's static busybox; and podlet, which makes pods as kubelet does. Pods have the node's network and nothing
//! listens outside this machine. State and sockets lie in one folder of the cache.

mod image;
pub mod kubernetes;
pub mod unified;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;

use crate::cargo::{cargo, cargo_for_tests};
use crate::results::Results;
use crate::setup::{self, Missing, Need};
use crate::{cache, paths, shell};

/// The integration test that needs a node.
pub const SUITE: &str = "cluster";
/// What the sandbox and every container of the tests is made of.
const IMAGE: &str = "localhost/test:1";
/// From start to the first answer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Debian's packages, and what is used of each.
const PACKAGES: [(&str, &str); 3] =
    [("containerd", "usr/bin/containerd"), ("runc", "usr/sbin/runc"), ("busybox-static", "bin/busybox")];

#[derive(Subcommand)]
pub enum Action {
    /// Start containerd and give it its image
    Up,
    /// Make a pod of one container on it
    Run {
        /// Namespace
        namespace: String,
        /// Name
        name: String,
        /// The container's command, such as `/bin/busybox sleep 60`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// What runs on it
    Status,
    /// Remove all pods and stop it
    Down,
    /// A node with all of Kubernetes, and the agent on it as a DaemonSet
    Kubernetes {
        #[command(subcommand)]
        action: kubernetes::Action,
    },
    /// A node of pods in a guest where systemd makes all cgroups, of version 2 alone, and the cluster suite in it
    Unified,
}

/// Who makes the cgroups of pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Cgroupfs,
    Systemd,
}

/// The network of pods that have one of their own.
struct Network {
    /// The namespace in which the runtime and everything else of the node is.
    namespace: &'static str,
    /// What makes pods' interfaces.
    config: String,
}

/// The node: programs, and the folder of its state.
pub struct Node {
    network: Option<Network>,
    dir: PathBuf,
    programs: PathBuf,
    podlet: PathBuf,
}

/// Does what is asked.
///
/// # Errors
/// When set-up fails or the node does not do it.
pub fn cluster(action: &Action) -> Result<()> {
    match action {
        Action::Up => Node::prepare()?.up(),
        Action::Run { namespace, name, command } => {
            let uid = format!("{:08x}-0000-4000-8000-000000000000", std::process::id());
            let mut podlet = Node::prepare()?.podlet(&["run", namespace, name, &uid]);
            shell::shown(podlet.arg("--").args(command))
        }
        Action::Status => shell::shown(&mut Node::prepare()?.podlet(&["list"])),
        Action::Down => Node::prepare()?.down(),
        Action::Kubernetes { action } => kubernetes::kubernetes(action),
        Action::Unified => unified::unified(),
    }
}

/// The suite that needs a node: started for it, and gone after it. Where none can be had, the suite is skipped by name.
///
/// # Errors
/// When the tests cannot be run.
pub fn run_suite(results: &mut Results) -> Result<()> {
    let node = match Node::prepare() {
        Ok(node) => node,
        Err(error) => {
            results.skip("cluster suite", &format!("{error:#}").replace('\n', " "));
            return Ok(());
        }
    };
    if let Err(error) = node.up() {
        // The runtime is not ours: a host that it does not start on lacks something, and is told so by name.
        results.skip("cluster suite", &format!("the node did not start: {error:#}").replace('\n', " "));
        return Ok(());
    }
    let arguments = ["test", "--workspace", "--test", SUITE, "--no-fail-fast", "--", "--test-threads=1"];
    let mut tests = cargo_for_tests(&arguments);
    tests.env("TELEMETRY_NODE", &node.dir).env("TELEMETRY_PODLET", &node.podlet);
    let ran = results.tests("cluster suite", &mut tests);
    // The node goes even if its tests could not be run.
    if let Err(error) = node.down() {
        results.fail("cluster, down", &format!("{error:#}"));
    }
    ran
}

// === impl Node ===

impl Node {
    /// Fetches and builds what is not there yet.
    ///
    /// # Errors
    /// [`Missing`] where packages cannot be had, else what failed.
    pub fn prepare() -> Result<Self> {
        if !setup::is_root() {
            bail!("a node of pods needs root");
        }
        // podlet's messages are made from the runtime's own description of them.
        setup::ensure(&[Need::program("protobuf-compiler", "protoc")])?;
        let programs = unpacked()?;
        eprintln!("[cluster] building podlet");
        shell::shown(&mut cargo(&[
            "build",
            "--quiet",
            "--package",
            "telemetry-podlet",
            "--features",
            "cri",
        ]))?;
        let podlet = paths::cargo_target().join("debug/podlet");
        let dir = cache::dir()?.join("cluster/node");
        Ok(Self { network: None, dir, programs, podlet })
    }

    /// A command in the node's network.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.network {
            None => Command::new(program),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", network.namespace)).arg(program);
                command
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn podlet(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.podlet);
        command.arg("--socket").arg(self.socket()).arg("--logs").arg(self.dir.join("logs")).args(arguments);
        command
    }

    fn answers(&self) -> bool {
        shell::succeeds(&mut self.podlet(&["version"]))
    }

    fn up(&self) -> Result<()> {
        if self.answers() {
            eprintln!("[cluster] up already: {}", self.socket().display());
            return Ok(());
        }
        if let Some(folder) = pod_cgroups().first() {
            bail!("{} exists: this machine has pods, or a node that ended badly left it", folder.display());
        }
        let started = Instant::now();
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let config = self.dir.join("containerd.toml");
        fs::write(&config, runtime_config(&self.dir, &self.programs.join("usr/sbin/runc"), Driver::Cgroupfs))
            .with_context(|| format!("write {}", config.display()))?;
        let log = File::create(self.dir.join("containerd.log")).context("containerd's log")?;
        let path = shell::path_with(&[&self.programs.join("usr/bin"), &self.programs.join("usr/sbin")]);
        if let Some(network) = &self.network {
            let cni = self.dir.join("cni");
            fs::create_dir_all(&cni).with_context(|| format!("create {}", cni.display()))?;
            fs::write(cni.join("10-test.conflist"), &network.config)
                .context("write the network's configuration")?;
        }
        let child = self
            .command(self.programs.join("usr/bin/containerd"))
            .arg("--config")
            .arg(&config)
            .env("PATH", &path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("containerd's log")?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        fs::write(self.dir.join("containerd.pid"), child.id().to_string()).context("write its process id")?;
        until("containerd answers", || self.answers())
            .with_context(|| format!("its log is {}", self.dir.join("containerd.log").display()))?;
        self.import(&image::of_busybox(&self.programs, IMAGE)?)?;
        eprintln!("[cluster] up after {:.1} s: {}", started.elapsed().as_secs_f64(), self.socket().display());
        Ok(())
    }

    fn import(&self, image: &Path) -> Result<()> {
        let mut ctr = Command::new(self.programs.join("usr/bin/ctr"));
        ctr.arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(image);
        shell::quiet(&mut ctr).map(drop)
    }

    /// Ends what a node that died has left: shims, and whatever runs in pods.
    fn kill_left(&self) -> Result<()> {
        let processes = fs::read_dir("/proc").context("list processes")?.flatten();
        let of_ours = processes.filter(|process| {
            fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe.starts_with(&self.programs))
        });
        let mut left: Vec<String> =
            of_ours.map(|process| process.file_name().to_string_lossy().into_owned()).collect();
        for folder in pod_cgroups() {
            let mut find = Command::new("find");
            find.arg(&folder).args(["-name", "cgroup.procs", "-exec", "cat", "{}", "+"]);
            left.extend(shell::quiet(&mut find)?.lines().map(str::to_owned));
        }
        left.sort();
        left.dedup();
        for process in left {
            // It may have ended by itself.
            shell::succeeds(Command::new("kill").args(["-9", &process]));
        }
        Ok(())
    }

    fn down(&self) -> Result<()> {
        let pid = self.dir.join("containerd.pid");
        // Written only where no pods were: whatever is in pods' cgroups now is ours to end.
        if !pid.exists() {
            eprintln!("[cluster] not up");
            return Ok(());
        }
        if self.answers() {
            shell::shown(&mut self.podlet(&["rm"]))?;
        }
        if let Ok(number) = fs::read_to_string(&pid)
            && fs::read_link(format!("/proc/{number}/exe")).is_ok_and(|exe| exe.starts_with(&self.programs))
        {
            shell::quiet(Command::new("kill").arg(&number))?;
            let exe = Path::new("/proc").join(&number).join("exe");
            until("containerd ends", || fs::read_link(&exe).is_err())?;
        }
        self.kill_left()?;
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut ours: Vec<&str> = ours.filter(|point| Path::new(point).starts_with(&self.dir)).collect();
        ours.reverse();
        for point in ours {
            shell::quiet(Command::new("umount").args(["--lazy", point]))?;
        }
        for folder in pod_cgroups() {
            // Folders of a cgroup tree go from the leaves up; their files go with them.
            let mut find = Command::new("find");
            find.arg(&folder).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]);
            until("its cgroups are empty", || shell::succeeds(&mut find))?;
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))?;
        }
        eprintln!("[cluster] down");
        Ok(())
    }
}

/// containerd's configuration, of 1.x and 2.x. State lies where the agent looks below `host`.
fn runtime_config(dir: &Path, runc: &Path, driver: Driver) -> String {
    let (dir, runc) = (dir.display(), runc.display());
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/host/run/containerd"
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  # Without CAP_SYS_RESOURCE a process cannot be made less likely to be killed.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = {}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"#,
        driver == Driver::Systemd
    )
}

/// Waits for a condition.
fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > START_LIMIT {
            bail!("{what}: not so after {} s", START_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Folders that kubelet's pods, or ours, are in: one a hierarchy.
fn pod_cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = std::iter::once(root.to_owned()).chain(below);
    all.flat_map(|dir| ["kubepods", "kubepods.slice"].map(|name| dir.join(name)))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// The packages' files, in the cache.
fn unpacked() -> Result<PathBuf> {
    if shell::find_program("apt-get").is_none() || shell::find_program("dpkg-deb").is_none() {
        let items = PACKAGES.iter().map(|(package, file)| format!("{file} (Debian package {package})"));
        return Err(Missing { items: items.collect() }.into());
    }
    cache::entry("cluster/programs", |dir| {
        let names: Vec<&str> = PACKAGES.iter().map(|(package, _)| *package).collect();
        setup::say(format_args!("fetching {}", names.join(" ")));
        setup::update_lists()?;
        let mut download = setup::apt_get(&["-o", "APT::Sandbox::User=root", "download", "--quiet"]);
        shell::quiet(download.args(&names).current_dir(dir))?;
        setup::unpack_packages(dir, dir)?;
        let absent = PACKAGES.iter().find(|(_, file)| !dir.join(file).is_file());
        absent.map_or(Ok(()), |(package, file)| Err(anyhow!("{package} holds no {file}")))
    })
}
