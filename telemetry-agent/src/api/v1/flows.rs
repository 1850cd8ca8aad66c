//! `/v1/flows`: how much each owner talked, as far as the network family counts it.
//!
//! Totals since the owner's first packet or connection; peers are not told apart by the kernel side, so no answer names
//! any. The same figures as `/metrics` has, in one object an owner.

use std::collections::{BTreeMap, HashMap};

use axum::response::Response;
use serde::Serialize;
use telemetry_model::{Desc, Label, Labels, Series, Snapshot, Value};
use utoipa::ToSchema;

use super::ask::{Ask, cursor};
use super::owners::pairs;
use super::problem::Problem;
use super::{ProgramState, Shared, time};

/// The families that a flow is made of.
const FAMILIES: [&str; 8] = [
    "kernel_network_bytes_total",
    "kernel_network_packets_total",
    "kernel_tcp_connections_total",
    "kernel_tcp_connect_failures_total",
    "kernel_tcp_connect_latency_seconds",
    "kernel_tcp_payload_bytes_total",
    "kernel_tcp_retransmits_total",
    "kernel_tcp_connection_duration_seconds",
];
const NO_PEERS: &str = "peers are not told apart: totals are those of the owner with everybody";

/// One page of flows, in the order of their owners' ids.
#[derive(Serialize, ToSchema)]
struct FlowPage {
    /// When the figures were read; absent before the first tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    flows: Vec<Flow>,
    /// What these figures do not say.
    notes: Vec<String>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// How much one owner talked.
#[derive(Clone, Default, Serialize, ToSchema)]
struct Flow {
    /// Its id in `/v1/owners`.
    owner_id: String,
    /// The labels of its series.
    owner_labels: BTreeMap<String, String>,
    /// When the first of these figures began to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Packets of its sockets, by direction (`receive`, `transmit`) and protocol (`tcp`, `udp`, `other`).
    packets: BTreeMap<String, BTreeMap<String, Volume>>,
    tcp: Tcp,
}

/// Packets and their bytes from the IP header on.
#[derive(Clone, Default, Serialize, ToSchema)]
struct Volume {
    packets: f64,
    bytes: f64,
}

/// TCP connections.
#[derive(Clone, Default, Serialize, ToSchema)]
struct Tcp {
    /// Connections that it opened.
    opened: f64,
    /// Connections that it took.
    accepted: f64,
    /// Connections that it could not open, by the socket's error.
    failed: BTreeMap<String, f64>,
    /// From the SYN to the connection, of those that it opened.
    connect_latency: Summary,
    /// Of connections that have closed; those that are open add nothing yet.
    closed: Closed,
}

/// Connections that have closed.
#[derive(Clone, Default, Serialize, ToSchema)]
struct Closed {
    payload_receive_bytes: f64,
    payload_transmit_bytes: f64,
    /// Segments sent again.
    retransmits: f64,
    /// Lifetimes of those that it opened.
    client: Summary,
    /// Lifetimes of those that it took.
    server: Summary,
}

/// How many, and their sum.
#[derive(Clone, Default, Serialize, ToSchema)]
struct Summary {
    count: f64,
    sum_seconds: f64,
}

/// How much each owner talked, with everybody: peers are not told apart.
#[utoipa::path(
    get,
    path = "/v1/flows",
    operation_id = "listFlows",
    params(
        ("namespace" = Option<String>, Query, description = "Only owners of this namespace.", max_length = 1024),
        ("pod" = Option<String>, Query, description = "Only owners of this pod.", max_length = 1024),
        ("limit" = Option<u32>, Query, description = "Owners of a page; 100 by default.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.",
            pattern = "^([0-9a-f]{2})+$", max_length = 2048),
    ),
    responses((status = 200, description = "A page.", body = FlowPage)),
)]
pub(super) async fn flows(ask: Ask) -> Result<Response, Problem> {
    let params = ask.params(&["namespace", "pod", "limit", "cursor"])?;
    let (limit, position) = (params.limit()?, params.cursor()?);
    let snapshot = ask.shared().latest.get();
    let is_called = |flow: &Flow, name: &str| {
        let own = flow.owner_labels.get(name).map_or("", String::as_str);
        params.text(name).is_none_or(|wanted| own == wanted)
    };
    let all = collect(&snapshot, ask.shared());
    let mut wanted = all
        .into_values()
        .filter(|flow| flow.owner_id.as_bytes() > position.as_slice())
        .filter(|flow| is_called(flow, "namespace") && is_called(flow, "pod"));
    let flows: Vec<Flow> = wanted.by_ref().take(limit).collect();
    let next_cursor = match (wanted.next(), flows.last()) {
        (Some(_), Some(last)) => Some(cursor(last.owner_id.as_bytes())),
        _ => None,
    };
    let as_of = (!snapshot.families.is_empty()).then(|| time::format(snapshot.at.0));
    let page = FlowPage { as_of, flows, notes: notes(ask.shared()), next_cursor };
    ask.reply_page("/v1/flows", &page, page.next_cursor.as_deref())
}

/// What is not counted, and why.
fn notes(shared: &Shared) -> Vec<String> {
    let mut notes = vec![NO_PEERS.to_owned()];
    for program in shared.facts.programs.iter().filter(|program| program.family == "network") {
        let why = match &program.state {
            ProgramState::Attached => continue,
            ProgramState::Disabled => "the configuration leaves it out",
            ProgramState::Failed(reason) => reason.as_str(),
        };
        notes.push(format!("{} does not count: {why}", program.name));
    }
    notes
}

/// The flow of every owner, by its id.
fn collect(snapshot: &Snapshot, shared: &Shared) -> BTreeMap<String, Flow> {
    let roster = shared.latest.roster();
    let ids: HashMap<&Labels, &str> =
        roster.owners.iter().map(|owner| (&owner.labels, owner.id.as_str())).collect();
    let mut flows: BTreeMap<String, Flow> = BTreeMap::new();
    for family in FAMILIES.iter().filter_map(|name| snapshot.family(name)) {
        for series in &family.series {
            let owner = owner_labels(family.desc, &series.labels);
            // Between two lists of owners a series may be there whose owner is not listed yet.
            let Some(id) = ids.get(&owner) else { continue };
            let flow = flows.entry((*id).to_owned()).or_insert_with(|| Flow {
                owner_id: (*id).to_owned(),
                owner_labels: pairs(&owner),
                ..Flow::default()
            });
            flow.add(family.desc.name, series);
        }
    }
    flows
}

/// The labels of a series without its family's own.
fn owner_labels(desc: &Desc, labels: &Labels) -> Labels {
    let is_owners = |label: &&Label| !desc.labels.contains(&label.name.as_ref());
    Labels::new(labels.iter().filter(is_owners).cloned().collect())
}

// === impl Flow ===

impl Flow {
    fn add(&mut self, family: &str, series: &Series) {
        let label = |name: &str| series.labels.get(name).unwrap_or_default().to_owned();
        let number = match &series.value {
            Value::Number(value) => *value,
            Value::Histogram(_) => 0.0,
        };
        if let Some(created) = series.created.map(|created| time::format(created.0))
            && self.since.as_ref().is_none_or(|since| created < *since)
        {
            self.since = Some(created);
        }
        let tcp = &mut self.tcp;
        match family {
            "kernel_network_bytes_total" | "kernel_network_packets_total" => {
                let protocols = self.packets.entry(label("direction")).or_default();
                let volume = protocols.entry(label("protocol")).or_default();
                if family.contains("bytes") { volume.bytes = number } else { volume.packets = number }
            }
            "kernel_tcp_connections_total" if label("role") == "client" => tcp.opened = number,
            "kernel_tcp_connections_total" => tcp.accepted = number,
            "kernel_tcp_connect_failures_total" => {
                tcp.failed.insert(label("reason"), number);
            }
            "kernel_tcp_connect_latency_seconds" => tcp.connect_latency = Summary::of(series),
            "kernel_tcp_payload_bytes_total" if label("direction") == "receive" => {
                tcp.closed.payload_receive_bytes = number;
            }
            "kernel_tcp_payload_bytes_total" => tcp.closed.payload_transmit_bytes = number,
            "kernel_tcp_retransmits_total" => tcp.closed.retransmits = number,
            "kernel_tcp_connection_duration_seconds" if label("role") == "client" => {
                tcp.closed.client = Summary::of(series);
            }
            "kernel_tcp_connection_duration_seconds" => tcp.closed.server = Summary::of(series),
            _ => {}
        }
    }
}

// === impl Summary ===

impl Summary {
    fn of(series: &Series) -> Self {
        match &series.value {
            Value::Number(_) => Self::default(),
            Value::Histogram(histogram) => {
                Self { count: telemetry_model::float(histogram.count()), sum_seconds: histogram.sum() }
            }
        }
    }
}
