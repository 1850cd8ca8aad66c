//! Many containers that are started at a steady pace and end by themselves: births and deaths as a busy node has them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::pod::Pod;
use crate::runtime::Runtime;
use crate::{Shape, print};

/// How often a container that has not ended is looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// How long a container may take.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What is to be made.
pub struct Churn {
    pub namespace: String,
    pub pods: u32,
    pub containers: u32,
    pub interval: Duration,
    pub shape: Shape,
    pub logs: PathBuf,
    pub command: Vec<String>,
}

/// A container that is made and not started.
struct Made {
    pod: String,
    uid: String,
    name: String,
    id: String,
}

// === impl Churn ===

impl Churn {
    /// Makes all pods and containers, then starts one after the other. Prints a line for each pod and, when it has
    /// ended, for each container, and last how long the starts took.
    pub async fn run(self, runtime: &Runtime) -> Result<()> {
        let mut made = Vec::new();
        for number in 0..self.pods {
            self.make(runtime, number, &mut made).await?;
        }
        // Neighbours in time are of different pods, so that a mix-up of two shows.
        let containers = usize::try_from(self.containers)?;
        let order = (0..containers).flat_map(|at| (at..made.len()).step_by(containers.max(1)));
        let order: Vec<usize> = order.collect();
        let mut pace = interval(self.interval);
        // A slow start is caught up with, so that the pace holds on the whole.
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut slots: Vec<Option<Made>> = made.into_iter().map(Some).collect();
        let mut running = JoinSet::new();
        let began = Instant::now();
        for at in order {
            let Some(one) = slots.get_mut(at).and_then(Option::take) else { continue };
            pace.tick().await;
            running.spawn(start(runtime.clone(), one));
        }
        let mut started = Vec::with_capacity(slots.len());
        while let Some(one) = running.join_next().await {
            started.push(one??);
        }
        let took_ms = u64::try_from(began.elapsed().as_millis())?;
        for made in started {
            print(&end(runtime, made).await?);
        }
        print(&json!({"starts": slots.len(), "took_ms": took_ms}));
        Ok(())
    }

    async fn make(&self, runtime: &Runtime, number: u32, made: &mut Vec<Made>) -> Result<()> {
        let pod = Pod {
            namespace: self.namespace.clone(),
            name: format!("pod-{number}"),
            uid: format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id()),
            logs: self.logs.clone(),
            shape: self.shape.clone(),
        };
        let sandbox = runtime.run_pod(&pod).await?;
        for at in 0..self.containers {
            let name = format!("c{at}");
            let whole = number * self.containers + at;
            let command: Vec<String> =
                self.command.iter().map(|word| word.replace("{}", &whole.to_string())).collect();
            let id = runtime.create(&pod, &sandbox, &name, &command).await?;
            made.push(Made { pod: pod.name.clone(), uid: pod.uid.clone(), name, id });
        }
        print(&json!({"pod": pod.name, "uid": pod.uid, "sandbox": sandbox}));
        Ok(())
    }
}

async fn start(runtime: Runtime, made: Made) -> Result<Made> {
    runtime.start(&made.id).await?;
    Ok(made)
}

/// Waits for a container's end.
async fn end(runtime: &Runtime, made: Made) -> Result<Value> {
    let Made { pod, uid, name, id } = made;
    let limit = Instant::now() + END_LIMIT;
    loop {
        if runtime.has_ended(&id).await? {
            return Ok(json!({"pod": pod, "uid": uid, "container": name, "id": id}));
        }
        if Instant::now() > limit {
            bail!("container {name} of {pod}, {id}, does not end");
        }
        sleep(LOOK).await;
    }
}
