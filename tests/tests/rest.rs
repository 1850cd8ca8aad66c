//! `/v1` of a real agent: cgroups that come and go, told live and again after a death; and what strangers may ask.

use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use telemetry_tests::agent::{Agent, Settings, run};
use telemetry_tests::cgroup::Cgroup;
use telemetry_tests::host::{Skip, claim, eventually, kernel_test};
use telemetry_tests::http;
use telemetry_tests::schemathesis;
use telemetry_tests::sse::{Event, Events};
use telemetry_tests::workload::burn;

/// From a cgroup's creation to its event at the client: a sync of the disk, on one that others use.
const TOLD_LIMIT: Duration = Duration::from_secs(10);

fn json(address: SocketAddr, path: &str) -> Result<Value> {
    let answer = http::get(address, path, &[])?;
    let text = String::from_utf8_lossy(&answer.body);
    claim(answer.status == 200, || format!("{path}: {} {text}", answer.status))?;
    serde_json::from_slice(&answer.body).with_context(|| format!("{path}: {text}"))
}

/// Waits until the journal is open.
fn started(address: SocketAddr) -> Result<()> {
    eventually("the journal is open", TOLD_LIMIT, || {
        let answer = http::get(address, "/v1/events?kind=agent_started", &[])?;
        Ok(answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("agent_started"))
    })
}

fn start(data_dir: &Path) -> Result<Agent> {
    let agent = Settings::new().start_with(|command| {
        command.arg("--data-dir").arg(data_dir);
    })?;
    started(agent.address())?;
    Ok(agent)
}

fn said<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn is_of(event: &Event, kind: &str, cgroup: &str) -> bool {
    let unit = said(&event.data, "/details/owner/labels/unit");
    said(&event.data, "/kind") == Some(kind) && unit == Some(cgroup)
}

/// Every item of a list, page by page.
fn all(address: SocketAddr, list: &str, query: &str) -> Result<Vec<Value>> {
    let mut path = format!("/v1/{list}?{query}");
    let mut items = Vec::new();
    loop {
        let page = json(address, &path)?;
        items.extend(page.get(list).and_then(Value::as_array).context("a list")?.iter().cloned());
        let Some(next) = said(&page, "/next_cursor") else { return Ok(items) };
        path = format!("/v1/{list}?{query}&cursor={next}");
    }
}

#[test]
fn births_and_deaths_are_told_live_and_again_after_the_agent_was_killed() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let agent = start(&data)?;
        let mut live = Events::open(agent.address(), "/v1/events", None)?;
        let first = Cgroup::new("told-1")?;
        let name = first.unit();
        let told = live.until(TOLD_LIMIT, |event| is_of(event, "cgroup_created", &name))?;
        claim(told.iter().all(|event| event.name.is_empty()), || format!("a gap: {told:?}"))?;
        let born = told.last().context("an event")?.id;
        first.remove()?;
        live.until(TOLD_LIMIT, |event| is_of(event, "cgroup_removed", &name))?;

        // What the client did not hear: it was away, and the agent died meanwhile.
        drop(live);
        let second = Cgroup::new("told-2")?;
        let name = second.unit();
        eventually("the second birth is on disk", TOLD_LIMIT, || {
            let events = all(agent.address(), "events", &format!("after={born}"))?;
            Ok(events.iter().any(|event| {
                event.pointer("/details/owner/labels/unit").and_then(Value::as_str) == Some(&name)
            }))
        })?;
        let before = all(agent.address(), "events", "limit=7")?;
        agent.kill()?;

        let agent = start(&data)?;
        let mut resumed = Events::open(agent.address(), "/v1/events", Some(born))?;
        let told = resumed.until(TOLD_LIMIT, |event| event.data["kind"] == "agent_started")?;
        claim(told.iter().all(|event| event.name.is_empty() && event.id > born), || format!("{told:?}"))?;
        claim(told.iter().any(|event| is_of(event, "cgroup_created", &name)), || format!("{told:?}"))?;
        let ids: Vec<u64> = told.iter().map(|event| event.id).collect();
        claim(ids.is_sorted_by(|a, b| a < b), || format!("told twice or out of order: {ids:?}"))?;
        // The dead agent's events are there as they were, each once.
        let after = all(agent.address(), "events", "limit=5")?;
        let kept: Vec<&Value> = after.iter().take(before.len()).collect();
        claim(kept.iter().copied().eq(before.iter()), || format!("{before:?}\nnot\n{kept:?}"))?;
        let ids: BTreeSet<u64> = after.iter().filter_map(|event| event["id"].as_u64()).collect();
        claim(ids.len() == after.len(), || "an event on two pages".to_owned())?;

        // While it runs the journal is its own; then it is read from the files.
        let path = data.display().to_string();
        let busy = run(&["tsdb", "events", "--data-dir", &path], |_| {})?;
        claim(busy.status.code() == Some(69), || format!("{busy:?}"))?;
        agent.stop()?;
        let events = run(&["tsdb", "events", "--data-dir", &path, "--kind", "agent_stopped"], |_| {})?;
        claim(events.status.success() && events.stdout.lines().count() == 1, || format!("{events:?}"))
    });
}

#[test]
fn owners_and_flows_are_listed_and_unchanged_answers_are_not_sent_again() {
    kernel_test(|| {
        // A tick that two requests fall into.
        let agent = Settings::new().tick(Duration::from_secs(2)).start()?;
        let address = agent.address();
        let cgroups: Result<Vec<Cgroup>> = (0..5).map(|n| Cgroup::new(format!("listed-{n}"))).collect();
        let cgroups = cgroups?;
        for cgroup in &cgroups {
            burn(cgroup, 10)?;
        }
        let names: BTreeSet<String> = cgroups.iter().map(Cgroup::unit).collect();
        let listed = |query: &str| -> Result<Vec<Value>> {
            let owners = all(address, "owners", query)?;
            let is_ours = |owner: &&Value| owner["unit"].as_str().is_some_and(|unit| names.contains(unit));
            Ok(owners.iter().filter(is_ours).cloned().collect())
        };
        eventually("all are listed", TOLD_LIMIT, || Ok(listed("limit=1000")?.len() == names.len()))?;
        for limit in [1, 3, 1000] {
            let owners = listed(&format!("limit={limit}&kind=unit&living=true"))?;
            claim(owners.len() == names.len(), || format!("limit {limit}: {owners:?}"))?;
        }
        let one = listed("limit=1000")?.pop().context("an owner")?;
        let id = one["id"].as_str().context("an id")?;
        claim(json(address, &format!("/v1/owners/{id}"))? == one, || format!("{one}"))?;

        eventually("nothing changes between two requests", TOLD_LIMIT, || {
            let first = http::get(address, "/v1/owners", &[])?;
            let tag = first.header("etag").context("a tag")?.to_owned();
            let again = http::get(address, "/v1/owners", &[("If-None-Match", &tag)])?;
            Ok(again.status == 304 && again.body.is_empty())
        })?;
        let flows = json(address, "/v1/flows")?;
        claim(flows["notes"][0].as_str().is_some_and(|note| note.contains("peers")), || format!("{flows}"))?;
        let status = json(address, "/v1/status")?;
        let families = status["families"].as_array().context("families")?;
        claim(families.len() == 4 && families.iter().all(|family| family["state"] != "off"), || {
            format!("{families:?}")
        })
    });
}

#[test]
fn schemathesis_finds_nothing_at_our_own_root() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        started(agent.address())?;
        let document = format!("http://{}/v1/openapi.json", agent.address());
        schemathesis::run(agent.address(), &document, "", &[])
    });
}

#[test]
fn schemathesis_finds_nothing_at_the_api_of_prometheus() {
    kernel_test(|| {
        let oracles = env::var_os("TELEMETRY_ORACLES");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
        let document = oracles.map_or(root, PathBuf::from).join("prometheus/openapi/openapi_3.1_golden.yaml");
        if !document.is_file() {
            return Err(anyhow!(Skip(format!("{} is not there", document.display()))));
        }
        let agent = Settings::new().start()?;
        // The document calls any text a query, and Prometheus itself refuses most: whether it takes what the document
        // allows is not asked, nor whether it refuses the rest.
        let checks =
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
        let document = document.display().to_string();
        schemathesis::run(agent.address(), &document, "/api/v1", &["--checks", checks])?;
        // What is for administrators, where it is allowed. Deletion is answered by 204, as Prometheus itself does, which has
        // no content that could be of the document's type.
        let agent = Settings::new().line("query", "admin = true").start()?;
        let checks = "not_a_server_error,status_code_conformance";
        let arguments = ["--checks", checks, "--include-path-regex", "^/admin/"];
        schemathesis::run(agent.address(), &document, "/api/v1", &arguments)
    });
}
