//! podlet: drives a container runtime the way kubelet does, with no kubelet and no API server.
//!
//! Real `config.json`, real cgroups under kubelet's parents, kubelet's labels: what attribution reads on a node. Used by
//! `cargo xtask cluster` and by the test target `cluster`; each command prints one JSON object a line.
#![expect(clippy::print_stdout, reason = "its results are lines of its standard output")]

mod churn;
mod pod;
mod runtime;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::churn::Churn;
use crate::pod::{Driver, Pod, Qos};
use crate::runtime::Runtime;

#[derive(Parser)]
#[command(name = "podlet", about = "Makes pods as kubelet does, without kubelet")]
struct Cli {
    /// The runtime's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    socket: PathBuf,
    /// Folder for containers' output
    #[arg(long, default_value = "/var/log/pods")]
    logs: PathBuf,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What the runtime is
    Version,
    /// Makes a pod of one container, `main`
    Run {
        /// Namespace
        namespace: String,
        /// Name
        name: String,
        /// A UUID, or 32 hex digits as a static pod has
        uid: String,
        #[command(flatten)]
        shape: Shape,
        /// The container's command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Makes pods of many containers that are started one after the other and end by themselves
    Churn {
        /// Namespace of all of them
        namespace: String,
        /// Pods
        #[arg(long)]
        pods: u32,
        /// Containers of each
        #[arg(long)]
        containers: u32,
        /// Milliseconds from one start to the next
        #[arg(long)]
        interval_ms: u64,
        #[command(flatten)]
        shape: Shape,
        /// Each container's command; `{}` in it becomes the container's number
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// All containers
    List,
    /// Removes the pod of this UID, or all
    Rm {
        /// The pod's UID
        uid: Option<String>,
    },
}

#[derive(Clone, clap::Args)]
struct Shape {
    /// Image of the containers
    #[arg(long, default_value = "localhost/test:1")]
    image: String,
    /// How the pod's resources are guaranteed
    #[arg(long, value_enum, default_value_t = Qos::Burstable)]
    qos: Qos,
    /// Who makes the cgroups
    #[arg(long, value_enum, default_value_t = Driver::Cgroupfs)]
    driver: Driver,
    /// Above `kubepods`: where a nested node keeps its pods
    #[arg(long, default_value = "")]
    cgroup_root: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Cli { socket, logs, command } = Cli::parse();
    let runtime = Runtime::connect(&socket)
        .await
        .with_context(|| format!("connect to the container runtime at {}", socket.display()))?;
    match command {
        Task::Version => print(&runtime.version().await?),
        Task::Run { namespace, name, uid, shape, command } => {
            let pod = Pod { namespace, name, uid, logs, shape };
            let sandbox = runtime.run_pod(&pod).await?;
            let container = runtime.create(&pod, &sandbox, "main", &command).await?;
            runtime.start(&container).await?;
            print(&serde_json::json!({"sandbox": sandbox, "container": container}));
        }
        Task::Churn { namespace, pods, containers, interval_ms, shape, command } => {
            let interval = Duration::from_millis(interval_ms);
            Churn { namespace, pods, containers, interval, shape, logs, command }.run(&runtime).await?;
        }
        Task::List => {
            for container in runtime.list().await? {
                print(&container);
            }
        }
        Task::Rm { uid } => runtime.remove(uid.as_deref()).await?,
    }
    Ok(())
}

fn print(line: &serde_json::Value) {
    println!("{line}");
}
