//! `cargo xtask cluster kubernetes`: a node with all of Kubernetes, built from Debian's own source package.
//!
//! etcd, API server, controller manager, scheduler, kubelet and proxy, each a process of this machine in a network
//! namespace of its own: addresses and rules vanish with it, and nothing listens outside. Version 1.20: it has no
//! streamed lists, so that pages are what is tested; streamed ones are tested against a server of `telemetry-kube`'s
//! own tests. Old and unpatched: for tests alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::{Network, Node, image};
use crate::cargo::{cargo, cargo_for_tests};
use crate::results::Results;
use crate::setup::{self, Need};
use crate::{cache, paths, shell};

/// The integration test that needs it.
pub const SUITE: &str = "kubernetes";
/// The network namespace.
const NAMESPACE: &str = "telemetry-kube";
/// The node's address in it, on the pods' bridge.
const ADDRESS: &str = "10.88.0.1";
/// What the agent's image is called here: a name that no registry is asked for.
const AGENT_IMAGE: &str = "localhost/telemetry-agent:0.1.0";
/// From start to readiness, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Where kubelet of this version logs, whatever its root directory is.
const POD_LOGS: [&str; 2] = ["/var/log/pods", "/var/log/containers"];
/// Lines of the manifest, and what is in their places here: what tests would wait too long for, and a token that opens
/// without an API server, which they let die. The tests know it, too (`tests/src/kube.rs`).
const SETTINGS: [(&str, &str); 3] = [
    (
        "    [kubernetes]\n",
        r#"    tick = "1s"
    web_config_file = "/etc/telemetry/web.yml"
    [kubernetes]
    start_delay_max = "0s"
    pod_labels = ["app"]
"#,
    ),
    ("    [attribution]\n", "    [attribution]\n    tombstone = \"45s\"\n"),
    (
        "    host_root = \"/host\"\n",
        "    host_root = \"/host\"
  web.yml: |
    bearer_tokens_file: tokens
  tokens: |
    the-token-of-these-tests
",
    ),
];
/// What is built.
const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"];
/// The version, for programs that ask each other.
const VERSION: &str = "v1.20.2";
/// What is started, in this order; ended in the other.
const PARTS: [&str; 6] = ["etcd", "apiserver", "kcm", "sched", "proxy", "kubelet"];

#[derive(Subcommand)]
pub enum Action {
    /// Build what is not there yet, and start it with the agent as a DaemonSet
    Up,
    /// Ask it
    Kubectl {
        /// kubectl's arguments
        #[arg(last = true, required = true)]
        arguments: Vec<String>,
    },
    /// Remove all pods and stop it
    Down,
}

/// The cluster of one node.
pub struct Cluster {
    node: Node,
    programs: PathBuf,
}

/// Does what is asked.
///
/// # Errors
/// When set-up fails or the cluster does not do it.
pub fn kubernetes(action: &Action) -> Result<()> {
    let cluster = Cluster::prepare()?;
    match action {
        Action::Up => cluster.up(),
        Action::Kubectl { arguments } => shell::shown(cluster.kubectl().args(arguments)),
        Action::Down => cluster.down(),
    }
}

/// The suite that needs a cluster, where its programs are in the cache or `is_full` asks for them to be built.
///
/// # Errors
/// When the tests cannot be run.
pub fn run_suite(is_full: bool, results: &mut Results) -> Result<()> {
    if !is_full && !is_cached()? {
        results.skip(
            "kubernetes suite",
            "Kubernetes is not built yet; --full or `cargo xtask cluster kubernetes up` does, in ten minutes",
        );
        return Ok(());
    }
    let cluster = match Cluster::prepare() {
        Ok(cluster) => cluster,
        Err(error) => {
            results.skip("kubernetes suite", &format!("{error:#}").replace('\n', " "));
            return Ok(());
        }
    };
    if let Err(error) = cluster.up() {
        results.skip("kubernetes suite", &format!("the cluster did not start: {error:#}").replace('\n', " "));
        return cluster.down();
    }
    let arguments = ["test", "--workspace", "--test", SUITE, "--no-fail-fast", "--", "--test-threads=1"];
    let mut tests = cargo_for_tests(&arguments);
    tests.env("TELEMETRY_KUBE", &cluster.node.dir).env("TELEMETRY_KUBECTL", cluster.programs.join("kubectl"));
    let ran = results.tests("kubernetes suite", &mut tests);
    if let Err(error) = cluster.down() {
        results.fail("kubernetes, down", &format!("{error:#}"));
    }
    ran
}

fn is_cached() -> Result<bool> {
    Ok(cache::dir()?.join("cluster/kubernetes").exists())
}

// === impl Cluster ===

impl Cluster {
    /// Fetches and builds what is not there yet.
    ///
    /// # Errors
    /// [`setup::Missing`] where packages cannot be had, else what failed.
    pub fn prepare() -> Result<Self> {
        let mut node = Node::prepare()?;
        setup::ensure(&[
            Need::program("etcd-server", "etcd"),
            Need::program("openssl", "openssl"),
            Need::program("conntrack", "conntrack"),
            Need::program("iptables", "iptables"),
            Need::program("iproute2", "ip"),
            Need::program("binutils", "strip"),
            Need::file("containernetworking-plugins", "/usr/lib/cni/bridge"),
        ])?;
        node.dir = cache::dir()?.join("cluster/kubernetes-node");
        let ipam = node.dir.join("ipam");
        let config = serde_json::json!({"cniVersion": "0.4.0", "name": "test", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": ipam, "ranges": [[{"subnet": "10.88.0.0/24"}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        node.network = Some(Network { namespace: NAMESPACE, config: config.to_string() });
        Ok(Self { node, programs: built()? })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.node.dir.join(name)
    }

    /// kubectl as the cluster's administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = self.node.command(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.file("admin.conf"));
        command
    }

    fn asked(&self, arguments: &[&str]) -> bool {
        shell::succeeds(self.kubectl().args(arguments))
    }

    fn up(&self) -> Result<()> {
        if self.asked(&["get", "--raw", "/readyz"]) {
            eprintln!("[kubernetes] up already: {}", self.file("admin.conf").display());
            return Ok(());
        }
        if PARTS.iter().any(|part| self.file(&format!("{part}.pid")).exists()) {
            // Half of one: its parts would not know the other half's certificates.
            self.down()?;
        }
        let started = Instant::now();
        fs::create_dir_all(self.file("manifests")).context("create the folder of static pods")?;
        if !Path::new(POD_LOGS[0]).exists() {
            fs::write(self.file("own-logs"), "").context("note whose pods' logs are")?;
        }
        self.make_network()?;
        self.node.up()?;
        self.make_certificates()?;
        self.start_all()?;
        let agent = self.agent_image()?;
        self.node.import(&agent)?;
        self.apply_agent()?;
        eprintln!(
            "[kubernetes] up after {:.0} s: {}",
            started.elapsed().as_secs_f64(),
            self.file("admin.conf").display()
        );
        Ok(())
    }

    fn make_network(&self) -> Result<()> {
        if Path::new("/run/netns").join(NAMESPACE).exists() {
            return Ok(());
        }
        shell::quiet(Command::new("ip").args(["netns", "add", NAMESPACE]))?;
        for line in [
            "link set lo up",
            // The bridge is there before the first pod: kubelet refuses an address of the loopback interface.
            "link add cni0 type bridge",
            "addr add 10.88.0.1/24 dev cni0",
            "link set cni0 up",
            // Services' addresses: without a route, clients in the node's network fail before they are rewritten.
            "route add 10.96.0.0/16 dev cni0",
        ] {
            shell::quiet(Command::new("ip").args(["-n", NAMESPACE]).args(line.split(' ')))?;
        }
        Ok(())
    }

    fn make_certificates(&self) -> Result<()> {
        let dir = self.file("pki");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let openssl = |line: &str| -> Result<()> {
            shell::quiet(Command::new("openssl").args(line.split(' ')).current_dir(&dir)).map(drop)
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=test-ca -keyout ca.key -out ca.crt")?;
        openssl("genrsa -out sa.key 2048")?;
        openssl("rsa -in sa.key -pubout -out sa.pub")?;
        let own = format!(
            "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:{ADDRESS}"
        );
        let node = format!("DNS:node1,IP:{ADDRESS}");
        for (name, subject, names) in [
            ("apiserver", "/CN=kube-apiserver", own.as_str()),
            ("admin", "/O=system:masters/CN=admin", "DNS:admin"),
            ("kcm", "/CN=system:kube-controller-manager", "DNS:kcm"),
            ("sched", "/CN=system:kube-scheduler", "DNS:sched"),
            ("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
            ("node1", "/O=system:nodes/CN=system:node:node1", node.as_str()),
        ] {
            let extensions = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
            fs::write(dir.join("extensions"), extensions).context("write a certificate's extensions")?;
            openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"
            ))?;
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out {name}.crt -extfile extensions"
            ))?;
            self.write_kubeconfig(name)?;
        }
        Ok(())
    }

    fn write_kubeconfig(&self, user: &str) -> Result<()> {
        let pki = self.file("pki");
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {
                "server": format!("https://{ADDRESS}:6443"), "certificate-authority": pki.join("ca.crt")}}],
            "users": [{"name": "u", "user": {
                "client-certificate": pki.join(format!("{user}.crt")), "client-key": pki.join(format!("{user}.key"))}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "u"}}],
        });
        fs::write(self.file(&format!("{user}.conf")), config.to_string()).context("write a kubeconfig")
    }

    /// Starts a part in the background; its output goes to a file.
    fn start(&self, part: &str, program: &Path, arguments: &str) -> Result<()> {
        let log = File::create(self.file(&format!("{part}.log"))).context("a log")?;
        let path =
            shell::path_with(&[&self.node.programs.join("usr/bin"), &self.node.programs.join("usr/sbin")]);
        let child = self
            .node
            .command(program)
            .args(arguments.split_whitespace())
            .current_dir(&self.node.dir)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {part}"))?;
        // To start it again as it was.
        let line =
            format!("{} {}", program.display(), arguments.split_whitespace().collect::<Vec<_>>().join(" "));
        fs::write(self.file(&format!("{part}.command")), line).context("write its command")?;
        fs::write(self.file(&format!("{part}.pid")), child.id().to_string()).context("write its process id")
    }

    fn start_all(&self) -> Result<()> {
        let (dir, program) = (self.node.dir.display(), |name: &str| self.programs.join(name));
        self.start("etcd", Path::new("etcd"), &format!(
            "--data-dir {dir}/etcd --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790
             --listen-peer-urls http://127.0.0.1:23800 --initial-advertise-peer-urls http://127.0.0.1:23800
             --initial-cluster default=http://127.0.0.1:23800"))?;
        // Who asks for what, the agent alone.
        let audit = serde_json::json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["ResponseStarted"],
            "rules": [
                {"level": "Metadata", "users": ["system:serviceaccount:telemetry:telemetry-agent"]},
                {"level": "None"},
            ],
        });
        fs::write(self.file("audit.json"), audit.to_string()).context("write the audit's policy")?;
        self.start("apiserver", &program("kube-apiserver"), &format!(
            "--etcd-servers=http://127.0.0.1:23790 --bind-address={ADDRESS} --advertise-address={ADDRESS} --secure-port=6443
             --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --allow-privileged=true
             --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key
             --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key
             --service-account-issuer=https://kubernetes.default.svc
             --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key
             --kubelet-preferred-address-types=InternalIP
             --audit-policy-file=audit.json --audit-log-path=audit.log"))?;
        self.until("the API server is ready", || self.asked(&["get", "--raw", "/readyz"]))?;
        self.start(
            "kcm",
            &program("kube-controller-manager"),
            "--kubeconfig=kcm.conf --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt
             --use-service-account-credentials --bind-address=127.0.0.1 --leader-elect=false",
        )?;
        self.start(
            "sched",
            &program("kube-scheduler"),
            "--kubeconfig=sched.conf --bind-address=127.0.0.1 --leader-elect=false",
        )?;
        // With every option of conntrack at 0 no sysctl is written.
        self.start("proxy", &program("kube-proxy"), &format!(
            "--kubeconfig=proxy.conf --hostname-override=node1 --bind-address={ADDRESS} --cluster-cidr=10.88.0.0/24
             --proxy-mode=iptables --conntrack-max-per-core=0 --conntrack-min=0
             --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0"))?;
        let kubelet = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "address": ADDRESS,
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                               "x509": {"clientCAFile": self.file("pki/ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.file("pki/node1.crt"), "tlsPrivateKeyFile": self.file("pki/node1.key"),
            "cgroupDriver": "cgroupfs", "failSwapOn": false, "oomScoreAdj": 0, "protectKernelDefaults": false,
            "makeIPTablesUtilChains": false, "enforceNodeAllocatable": ["pods"],
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                             "nodefs.inodesFree": "1%"},
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "staticPodPath": self.file("manifests"), "clusterDomain": "cluster.local",
            "fileCheckFrequency": "1s",
        });
        fs::write(self.file("kubelet.json"), kubelet.to_string()).context("write kubelet's configuration")?;
        self.start(
            "kubelet",
            &program("kubelet"),
            &format!(
            "--config=kubelet.json --kubeconfig=node1.conf --hostname-override=node1 --root-dir={dir}/kubelet
             --node-ip={ADDRESS} --container-runtime=remote
             --container-runtime-endpoint=unix://{dir}/containerd.sock --volume-plugin-dir={dir}/volplugins"),
        )?;
        self.until("the node is ready", || {
            let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            shell::quiet(self.kubectl().args(["get", "node", "node1", "--output", ready]))
                .is_ok_and(|text| text.trim() == "True")
        })
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !condition() {
            if started.elapsed() > READY_LIMIT {
                bail!(
                    "{what}: not so after {} s; logs are in {}",
                    READY_LIMIT.as_secs(),
                    self.node.dir.display()
                );
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// The agent as it is now, in an image.
    fn agent_image(&self) -> Result<PathBuf> {
        shell::shown(&mut cargo(&["build", "--quiet", "--release", "--package", "telemetry-agent"]))?;
        let program = paths::cargo_target().join("release/telemetry-agent");
        image::of_program(&self.file("agent"), &program, AGENT_IMAGE)
    }

    /// The manifest that users apply, with this node's folders in the place of the usual ones.
    fn apply_agent(&self) -> Result<()> {
        let file = paths::root().join("deploy/telemetry-agent.yaml");
        let manifest = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let dir = self.node.dir.display();
        let data = self.file("data");
        fs::create_dir_all(&data).context("create the agent's folder")?;
        let mut here = manifest
            .replace("image: telemetry-agent:0.1.0", &format!("image: {AGENT_IMAGE}"))
            .replace("imagePullPolicy: IfNotPresent", "imagePullPolicy: Never")
            .replace("path: /run/containerd,", &format!("path: {dir}/host/run/containerd,"))
            .replace("path: /var/lib/telemetry,", &format!("path: {},", data.display()));
        for (line, lines) in SETTINGS {
            anyhow::ensure!(here.matches(line).count() == 1, "the manifest has one line {line:?}");
            here = here.replace(line, lines);
        }
        let applied = self.file("agent.yaml");
        fs::write(&applied, here).context("write the manifest")?;
        shell::quiet(self.kubectl().args(["apply", "--filename"]).arg(&applied))?;
        shell::quiet(self.kubectl().args([
            "--namespace",
            "telemetry",
            "rollout",
            "status",
            "daemonset/telemetry-agent",
            "--timeout=60s",
        ]))
        .map(drop)
        .with_context(|| {
            let told = shell::quiet(self.kubectl().args(["--namespace", "telemetry", "describe", "pods"]));
            told.unwrap_or_default()
        })
    }

    /// Ends what runs that were broken off have left: Kubernetes' programs, and etcd on this node's data. The runtime
    /// goes later, when it has removed its pods.
    fn kill_left(&self) -> Result<()> {
        let dir = self.node.dir.display().to_string();
        for process in fs::read_dir("/proc").context("list processes")?.flatten() {
            let Ok(exe) = fs::read_link(process.path().join("exe")) else { continue };
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let is_etcd = exe.ends_with("etcd") && String::from_utf8_lossy(&line).contains(&dir);
            if exe.starts_with(&self.programs) || is_etcd {
                let number = process.file_name().to_string_lossy().into_owned();
                shell::succeeds(Command::new("kill").args(["-KILL", &number]));
            }
        }
        Ok(())
    }

    fn down(&self) -> Result<()> {
        // kubelet first and to its end, or it starts pods again.
        for part in PARTS.iter().rev() {
            let file = self.file(&format!("{part}.pid"));
            let Ok(number) = fs::read_to_string(&file) else { continue };
            // An API server waits a minute for its watches to end.
            let signal = if *part == "kubelet" { "-TERM" } else { "-KILL" };
            shell::succeeds(Command::new("kill").args([signal, &number]));
            let exe = Path::new("/proc").join(&number).join("exe");
            super::until("a part ends", || fs::read_link(&exe).is_err())?;
            fs::remove_file(&file).context("forget a process id")?;
        }
        self.kill_left()?;
        let has_own_logs = self.file("own-logs").exists();
        let result = self.node.down();
        if has_own_logs {
            for folder in POD_LOGS {
                let _ = fs::remove_dir_all(folder);
            }
        }
        shell::succeeds(Command::new("ip").args(["netns", "del", NAMESPACE]));
        result
    }
}

/// Kubernetes' programs, in the cache: half a minute of downloads and seven of both CPUs the first time.
fn built() -> Result<PathBuf> {
    if is_cached()? {
        return Ok(cache::dir()?.join("cluster/kubernetes"));
    }
    setup::ensure(&[Need::program("golang-go", "go"), Need::program("dpkg-dev", "dpkg-source")])?;
    cache::entry("cluster/kubernetes", |dir| {
        let work = cache::dir()?.join("cluster/kubernetes-build");
        let (lists, archives) = (work.join("apt/lists/partial"), work.join("apt/cache/archives/partial"));
        for folder in [&lists, &archives] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fetch_source(&work)?;
        let tree = work.join("gopath/src/k8s.io/kubernetes");
        generate_openapi(&work, &tree)?;
        for program in PROGRAMS {
            setup::say(format_args!("building {program}, {VERSION}"));
            let version = "k8s.io/kubernetes/vendor/k8s.io/component-base/version";
            let mut command = in_tree("go", &work, &tree);
            command.args(["build", "-p", "2", "-ldflags"]);
            command.arg(format!(
                "-s -w -X {version}.gitVersion={VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor=20 -X {version}.gitTreeState=clean"
            ));
            command.arg("-o").arg(dir.join(program)).arg(format!("./cmd/{program}"));
            shell::shown(&mut command)?;
        }
        // Two gigabytes that nobody needs again.
        shell::succeeds(Command::new("chmod").args(["-R", "u+w"]).arg(&work));
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
    })
}

/// The source package of the Debian that this machine takes its packages from.
fn fetch_source(work: &Path) -> Result<()> {
    setup::say("fetching the source of Kubernetes");
    let mut targets = setup::apt_get(&["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let mirrors = shell::quiet(targets.arg("Codename: bookworm"))?;
    let mirror = mirrors.lines().next().context("no mirror of Debian 12 is configured")?;
    let list = work.join("apt/sources.list");
    let line = format!(
        "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} bookworm main\n"
    );
    fs::write(&list, line).context("write a list of sources")?;
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = setup::apt_get(&[]);
        command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        command.args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        command.arg("-o").arg(format!("Dir::State::lists={}", work.join("apt/lists").display()));
        command.arg("-o").arg(format!("Dir::Cache={}", work.join("apt/cache").display()));
        shell::quiet(command.args(arguments).current_dir(work)).map(drop)
    };
    apt(&["update", "--quiet"])?;
    apt(&["source", "--quiet", "--download-only", "kubernetes"])?;
    let tree = work.join("gopath/src/k8s.io/kubernetes");
    fs::create_dir_all(&tree).with_context(|| format!("create {}", tree.display()))?;
    let files = fs::read_dir(work).context("list the sources")?.flatten().map(|entry| entry.path());
    let is_archive =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".orig.tar"));
    let archive = files.into_iter().find(is_archive).context("the package holds no source")?;
    let mut tar = Command::new("tar");
    tar.arg("--directory").arg(&tree).args(["--strip-components=1", "--extract", "--file"]).arg(archive);
    shell::quiet(&mut tar).map(drop)
}

/// Makes the one generated file that the package's tree lacks.
fn generate_openapi(work: &Path, tree: &Path) -> Result<()> {
    let generator = work.join("openapi-gen");
    let mut build = in_tree("go", work, tree);
    shell::shown(
        build.args(["build", "-o"]).arg(&generator).arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen"),
    )?;
    let mut grep = Command::new("grep");
    grep.args([
        "-rlE",
        r"\+k8s:openapi-gen=",
        "--include=*.go",
        "staging/src",
        "pkg",
        "cmd",
        "vendor/k8s.io/kube-openapi",
    ]);
    let marked = shell::quiet(grep.current_dir(tree))?;
    let is_ours = |folder: &&str| {
        !["testdata", "/test", "code-generator", "sample-", "/_examples"]
            .iter()
            .any(|part| folder.contains(part))
    };
    let mut packages: Vec<String> = marked
        .lines()
        .filter_map(|file| file.rsplit_once('/').map(|(folder, _)| folder))
        .filter(is_ours)
        .map(|folder| {
            let vendored = folder.strip_prefix("staging/src/").or_else(|| folder.strip_prefix("vendor/"));
            vendored.map_or_else(
                || format!("k8s.io/kubernetes/{folder}"),
                |package| format!("k8s.io/kubernetes/vendor/{package}"),
            )
        })
        .collect();
    packages.sort();
    packages.dedup();
    let mut command = in_tree(&generator, work, tree);
    command.arg("-i").arg(packages.join(",")).args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"]);
    command.args(["-O", "zz_generated.openapi", "-h", "hack/boilerplate/boilerplate.generatego.txt", "-r"]);
    command.arg(work.join("violations.txt")).arg("-o").arg(work.join("gopath/src"));
    shell::quiet(&mut command).map(drop)
}

/// A command of Go's in Kubernetes' tree, which is of before modules as they are today.
fn in_tree(program: impl AsRef<OsStr>, work: &Path, tree: &Path) -> Command {
    let mut command = Command::new(program);
    command.envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")]);
    command.env("GOPATH", work.join("gopath")).env("GOCACHE", work.join("gocache")).current_dir(tree);
    command
}
