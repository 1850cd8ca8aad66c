//! The agent as a DaemonSet of a real Kubernetes: what it says of pods is what kubectl says, and what it asks is little.
//!
//! `cargo xtask test` starts the cluster where it has been built; `cargo xtask cluster kubernetes up` does for one's own
//! runs. Tests run one at a time, in the order of their names.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use telemetry_tests::host::{claim, eventually, root_test};
use telemetry_tests::kube::Cluster;
use telemetry_tests::page::Page;

const CPU: &str = "kernel_cpu_seconds_total";
const CONTAINER: &str = "kernel_container_info";
const POD: &str = "kernel_pod_info";
const LABELS: &str = "kernel_pod_labels_info";
const STATE: &str = "telemetry_agent_kube_watch_state";
const FAILURES: &str = "telemetry_agent_kube_failures_total";

/// What is asked about tokens.
const REVIEWS: [&str; 2] =
    ["/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/subjectaccessreviews"];

/// What pods take to start, on a machine that does other things too.
const START: Duration = Duration::from_secs(60);

fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": "localhost/test:1", "imagePullPolicy": "Never",
        "command": ["/bin/busybox", "sh", "-c", script],
    })
}

const WORKS: &str = "while :; do /bin/busybox usleep 50000; done";

fn pod(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// A deployment with an initial container and two more, a job, a pod in the node's network.
fn workloads() -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "initContainers": [container("init", "true")],
                "containers": [container("main", WORKS), container("side", WORKS)],
                "terminationGracePeriodSeconds": 0,
            }},
        }},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [container("work", "/bin/busybox sleep 3")]}},
        }},
        pod("on-the-node", &json!({"hostNetwork": true, "containers": [container("main", WORKS)], "terminationGracePeriodSeconds": 0})),
    ]})
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The workload that kubectl leads to: the controller, and of a replica set that one's.
fn workload(cluster: &Cluster, pod: &Value) -> Result<(String, String)> {
    let owner = |of: &Value| {
        let owner = list(of, "/metadata/ownerReferences")
            .find(|owner| owner.get("controller") == Some(&json!(true)))?;
        Some((text(owner, "/kind").to_lowercase(), text(owner, "/name").to_owned()))
    };
    Ok(match owner(pod) {
        None => ("barepod".to_owned(), text(pod, "/metadata/name").to_owned()),
        Some((kind, _)) if kind == "node" => ("staticpod".to_owned(), text(pod, "/metadata/name").to_owned()),
        Some((kind, name)) if kind == "replicaset" => {
            let sets = cluster.objects("replicasets")?;
            let set = sets.iter().find(|set| text(set, "/metadata/name") == name).context("a replica set")?;
            owner(set).unwrap_or((kind, name))
        }
        Some(found) => found,
    })
}

/// Everything that the page says of a pod is what kubectl says.
fn is_as_kubectl_says(cluster: &Cluster, page: &Page, pod: &Value) -> Result<()> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let hash = pod.pointer("/metadata/annotations/kubernetes.io~1config.hash").and_then(Value::as_str);
    let uid = hash.unwrap_or_else(|| text(pod, "/metadata/uid"));
    let (kind, workload) = workload(cluster, pod)?;
    let host_network = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false).to_string();
    let owner = [("namespace", namespace), ("pod", name)];
    let qos = text(pod, "/status/qosClass").to_lowercase();
    let told = [
        ("pod_uid", uid),
        ("pod_ip", text(pod, "/status/podIP")),
        ("host_network", &host_network),
        ("service_account", text(pod, "/spec/serviceAccountName")),
        ("qos", &qos),
        ("workload", &workload),
        ("workload_type", &kind),
    ];
    claim(page.has(POD, &[&owner[..], &told].concat()), || format!("{told:?}: {}", page.about(name)))?;
    claim(page.matching(POD, &owner).count() == 1, || format!("one series a pod: {}", page.about(name)))?;
    if let Some(app) = pod.pointer("/metadata/labels/app").and_then(Value::as_str) {
        let label = [&owner[..], &[("label_app", app)]].concat();
        claim(page.has(LABELS, &label), || page.about(name))?;
    }
    for status in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        for state in list(pod, status) {
            let container = [("container", text(state, "/name"))];
            let id = text(state, "/containerID").trim_start_matches("containerd://");
            let info = [("container_id", id), ("image", "localhost/test:1"), ("workload", workload.as_str())];
            let mut wanted = [&owner[..], &container, &info].concat();
            if namespace == "telemetry" {
                wanted.retain(|(name, _)| *name != "image");
            }
            claim(page.has(CONTAINER, &wanted), || format!("{wanted:?}: {}", page.about(name)))?;
            claim(page.has(CPU, &[&owner[..], &container].concat()), || {
                format!("no {CPU}: {}", page.about(name))
            })?;
        }
    }
    Ok(())
}

/// Pods that have begun all their containers, or ended them.
fn are_all_begun(pods: &[Value]) -> bool {
    pods.iter().all(|pod| {
        let is_begun = |state: &Value| !text(state, "/containerID").is_empty();
        ["Running", "Succeeded"].contains(&text(pod, "/status/phase"))
            && list(pod, "/status/containerStatuses").all(is_begun)
    })
}

#[test]
fn a_labels_are_what_kubectl_says() {
    root_test(|| {
        let cluster = Cluster::find()?;
        let agent = cluster.agent()?;
        // What an earlier run has left has ended long ago.
        cluster.kubectl(&["delete", "deployments,jobs,pods", "--all", "--namespace", "default"])?;
        cluster.apply(&workloads())?;
        let spec = json!({"containers": [container("main", WORKS)], "terminationGracePeriodSeconds": 0});
        cluster.static_pod("fixed", Some(&pod("fixed", &spec)))?;
        let mut pods = Vec::new();
        eventually("all pods have begun", START, || {
            pods = cluster.objects("pods")?;
            Ok(pods.len() >= 6 && are_all_begun(&pods))
        })?;
        // The last status may be on its way to the agent still.
        let uids: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/metadata/uid")).collect();
        let known = uids.len() as f64;
        cluster.page_when(&agent, "the agent knows all pods", START, |page| {
            page.sum("telemetry_agent_kube_pods", &[]) >= known
        })?;
        std::thread::sleep(Duration::from_secs(3));
        let page = cluster.page_when(&agent, "a page", START, |_| true)?;
        pods.iter().try_for_each(|pod| is_as_kubectl_says(&cluster, &page, pod))?;
        let unnamed: Vec<_> =
            page.matching(CPU, &[]).filter(|series| !series.label("container_id").is_empty()).collect();
        claim(unnamed.is_empty(), || format!("without names: {unnamed:?}"))
    });
}

#[test]
fn b_a_deleted_pod_leaves_its_last_values_and_then_a_stale_series() {
    root_test(|| {
        let cluster = Cluster::find()?;
        let agent = cluster.agent()?;
        let spec = json!({"containers": [container("main", WORKS)], "terminationGracePeriodSeconds": 0});
        cluster.apply(&pod("short", &spec))?;
        let owner = [("namespace", "default"), ("pod", "short"), ("container", "main")];
        let series = |page: &Page| page.sum(CPU, &owner);
        let before = cluster.page_when(&agent, "it is counted", START, |page| series(page) > 0.05)?;
        cluster.kubectl(&["delete", "pod", "short", "--wait=true", "--timeout=60s"])?;
        std::thread::sleep(Duration::from_secs(3));
        let after = cluster.page_when(&agent, "its last values", START, |page| page.has(CPU, &owner))?;
        claim(series(&after) >= series(&before), || {
            format!("{} fell to {}", series(&before), series(&after))
        })?;
        let again = cluster.page_when(&agent, "a page", START, |page| page.has(CPU, &owner))?;
        claim(series(&again).to_bits() == series(&after).to_bits(), || {
            "a dead pod's counts moved".to_owned()
        })?;
        let info = [("pod", "short"), ("workload", "short"), ("workload_type", "barepod")];
        claim(after.has(POD, &info), || format!("it is described still: {}", after.about("short")))?;
        cluster.page_when(&agent, "its series end", 2 * START, |page| !page.has(CPU, &owner))?;
        // Within the look-back of five minutes: only a stale marker ends it at once.
        let query = "/api/v1/query?query=count(kernel_cpu_seconds_total%7Bpod%3D%22short%22%2Ccontainer%3D%22main%22%7D)";
        eventually("the store has its end", Duration::from_secs(10), || {
            let answer: Value = serde_json::from_str(&cluster.get(&agent, query)?)?;
            Ok(answer.pointer("/data/result") == Some(&json!([])))
        })?;
        let past = "/api/v1/query?query=count(count_over_time(kernel_cpu_seconds_total%7Bpod%3D%22short%22%7D%5B10m%5D))";
        let answer: Value = serde_json::from_str(&cluster.get(&agent, past)?)?;
        claim(list(&answer, "/data/result").count() == 1, || format!("its history is there: {answer}"))
    });
}

/// Service accounts with a token each: one that may read, one that may push, one that may neither, and one that will be gone.
fn accounts(cluster: &Cluster) -> Result<BTreeMap<&'static str, String>> {
    let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}});
    let bound = |role: &str, account: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("test-{account}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
        })
    };
    let accounts = ["reads", "pushes", "neither", "leaves"];
    let bindings =
        [("telemetry-reader", "reads"), ("telemetry-writer", "pushes"), ("telemetry-reader", "leaves")];
    let items: Vec<Value> = accounts
        .into_iter()
        .map(account)
        .chain(bindings.map(|(role, account)| bound(role, account)))
        .collect();
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
    accounts.into_iter().map(|name| Ok((name, cluster.token(name, None)?))).collect()
}

#[test]
fn b_who_may_ask_is_what_the_cluster_says() {
    root_test(|| {
        let cluster = Cluster::find()?;
        let agent = cluster.agent()?;
        let tokens = accounts(&cluster)?;
        let token = |name: &str| tokens.get(name).map(String::as_str);
        let elsewhere = cluster.token("reads", Some("vault"))?;
        let check = |asked: (&str, &str), token: Option<&str>, expected: u16, who: &str| {
            let (status, body) = cluster.ask(&agent, asked, token)?;
            claim(status == expected, || format!("{who}: {asked:?}: {status}, not {expected}: {body}"))
        };
        // The API server learns of new bindings when it looks.
        eventually("the reader may read", START, || {
            Ok(cluster.ask(&agent, ("GET", "/metrics"), token("reads"))?.0 == 200)
        })?;
        std::thread::sleep(Duration::from_secs(1));
        let paths =
            ["/", "/metrics", "//metrics", "/federate?match[]=up", "/api/v1/query?query=1", "/v1/status"];
        for path in paths {
            check(("GET", path), None, 401, "nobody")?;
            check(("GET", path), Some("not.a.token"), 401, "a guess")?;
            check(("GET", path), Some(&elsewhere), 401, "a token for somebody else")?;
            check(("GET", path), token("neither"), 403, "one who may not")?;
            check(("GET", path), token("pushes"), 403, "one who may push")?;
            check(("GET", path), token("reads"), 200, "one who may read")?;
        }
        check(("POST", "/api/v1/query?query=1"), token("reads"), 200, "a question by POST")?;
        check(("POST", "/api/v1/write"), token("reads"), 403, "a reader who pushes")?;
        check(("POST", "/api/v1/write"), token("pushes"), 415, "one who may push, nothing of any type")?;
        check(("POST", "/api/v1/admin/tsdb/snapshot"), token("reads"), 403, "a reader who administers")?;
        for path in ["/livez", "/readyz", "/-/healthy"] {
            check(("GET", path), None, 200, "kubelet")?;
        }
        // By the agent's own token, from within.
        let exec = [
            "--namespace",
            "telemetry",
            "exec",
            "daemonset/telemetry-agent",
            "--",
            "telemetry-agent",
            "query",
            "1",
        ];
        let own = ["--token-file", "/var/run/secrets/kubernetes.io/serviceaccount/token"];
        claim(cluster.kubectl(&exec).is_err(), || "asked without a token".to_owned())?;
        let answer = cluster.kubectl(&[&exec[..], &own].concat())?;
        claim(answer.contains('1'), || format!("asked with the agent's token: {answer}"))?;
        // What was granted ends with its owner, within the minute that it is kept.
        check(("GET", "/metrics"), token("leaves"), 200, "one who will be gone")?;
        cluster.kubectl(&["delete", "serviceaccount", "leaves", "--namespace", "default"])?;
        eventually("his token is nobody's", Duration::from_secs(75), || {
            Ok(cluster.ask(&agent, ("GET", "/metrics"), token("leaves"))?.0 == 401)
        })?;
        let page = cluster.page_when(&agent, "a page", START, |_| true)?;
        let reviews = |review: &str, outcome: &str| {
            page.sum("telemetry_agent_kube_reviews_total", &[("review", review), ("outcome", outcome)])
        };
        claim(reviews("token", "good") >= 4.0 && reviews("access", "bad") >= 2.0, || page.about("reviews"))?;
        // Each path of each token once or twice, however often it is asked for.
        claim(reviews("access", "good") < 40.0 && reviews("token", "failed") < 0.5, || page.about("reviews"))
    });
}

#[test]
fn c_one_list_and_one_watch_of_this_nodes_pods_and_reviews_are_all_that_is_asked() {
    root_test(|| {
        let cluster = Cluster::find()?;
        let asked = cluster.asked_by_agent()?;
        let lines: Vec<String> = asked
            .iter()
            .map(|event| {
                let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0);
                format!("{} {} {code}", text(event, "/verb"), text(event, "/requestURI"))
            })
            .collect();
        // Each is told when it arrives, and again when it has been answered: a watch after minutes.
        let of = |verb: &str, stage: &str, ending: &str| {
            let pairs = lines.iter().zip(&asked);
            let is = |(line, event): &(&String, &Value)| {
                line.starts_with(verb) && text(event, "/stage") == stage && line.ends_with(ending)
            };
            pairs.filter(is).count()
        };
        let refused = of("watch ", "ResponseComplete", " 422") + of("watch ", "ResponseComplete", " 400");
        claim(refused <= 1, || format!("a server without streamed lists is asked for one once: {lines:#?}"))?;
        claim(of("list ", "RequestReceived", "") == 1, || format!("one list: {lines:#?}"))?;
        // A watch is asked for anew every four minutes.
        let ended = of("watch ", "ResponseComplete", " 200");
        let watches = of("watch ", "RequestReceived", "") - refused;
        claim(watches == ended + 1, || format!("one watch at a time: {lines:#?}"))?;
        for line in &lines {
            let is_narrow = |line: &str| {
                line.contains("/api/v1/pods?") && line.contains("fieldSelector=spec.nodeName%3Dnode1")
            };
            let is_allowed = match line.split_once(' ') {
                Some(("list" | "watch", what)) => is_narrow(what),
                Some(("create", what)) => REVIEWS.iter().any(|path| what.starts_with(path)),
                _ => false,
            };
            claim(is_allowed, || format!("more than this node's pods and reviews of tokens: {line}"))?;
        }
        Ok(())
    });
}

#[test]
fn d_a_dead_api_server_costs_no_name_that_the_node_knows() {
    root_test(|| {
        let cluster = Cluster::find()?;
        let agent = cluster.agent()?;
        let seconds = std::env::var("TELEMETRY_API_DEAD_SECONDS").ok().and_then(|text| text.parse().ok());
        let dead_for = Duration::from_secs(seconds.unwrap_or(25));
        let owners = |page: &Page| -> BTreeSet<String> {
            let named = page.matching(CPU, &[]).filter(|series| !series.label("pod").is_empty());
            named
                .map(|s| format!("{}/{}/{}", s.label("namespace"), s.label("pod"), s.label("container")))
                .collect()
        };
        let before = cluster
            .page_when(&agent, "a page", START, |page| page.sum(STATE, &[("state", "watching")]) > 0.5)?;
        let lists = before.sum("telemetry_agent_kube_lists_total", &[]);
        cluster.kill("apiserver")?;
        let (begun, mut made) = (Instant::now(), 0);
        // What kubelet does without an API server: pods of files come and go.
        while begun.elapsed() < dead_for || made < 2 {
            made += 1;
            let name = format!("alone-{made}");
            let spec = json!({"containers": [container("main", WORKS)], "terminationGracePeriodSeconds": 0});
            cluster.static_pod(&name, Some(&pod(&name, &spec)))?;
            let named = format!("{name}-node1");
            let owner = [("namespace", "default"), ("pod", named.as_str()), ("container", "main")];
            let page =
                cluster.page_when(&agent, "a new pod is named", START, |page| page.sum(CPU, &owner) > 0.0)?;
            cluster.static_pod(&name, None)?;
            let lost: Vec<_> = owners(&before).difference(&owners(&page)).cloned().collect();
            // Initial containers, the job and the pod that was deleted have ended, and their series end in time.
            let lives = |owner: &&String| {
                (owner.ends_with("/main") || owner.ends_with("/side")) && !owner.contains("/short/")
            };
            let still: Vec<_> = lost.iter().filter(lives).collect();
            claim(still.is_empty(), || format!("lost: {still:?}"))?;
            let unnamed = page.matching(CPU, &[]).filter(|s| !s.label("container_id").is_empty()).count();
            claim(unnamed == 0, || format!("{unnamed} series without names"))?;
            let web = [("workload", "web"), ("workload_type", "deployment")];
            claim(page.has(POD, &web), || format!("descriptions stay: {}", page.about("kernel_pod_info")))?;
        }
        let page = cluster.page_when(&agent, "a page", START, |page| {
            page.sum(FAILURES, &[("reason", "unreachable")]) > 0.5
        })?;
        claim(page.sum(STATE, &[("state", "watching")]) < 0.5, || page.about(STATE))?;
        cluster.revive("apiserver")?;
        eventually("the API server is back", START, || {
            Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok())
        })?;
        // The next try comes after a pause of up to a minute.
        let limit = Duration::from_secs(120);
        let page = cluster.page_when(&agent, "it watches again", limit, |page| {
            page.sum(STATE, &[("state", "watching")]) > 0.5
        })?;
        let more = page.sum("telemetry_agent_kube_lists_total", &[]) - lists;
        claim(more <= 1.0, || format!("{more} lists more"))?;
        println!("dead for {} s, {made} pods of files, {more} lists more", begun.elapsed().as_secs());
        Ok(())
    });
}
