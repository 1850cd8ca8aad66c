//! Network signal: packets at the IP layer, and TCP connections from their opening to their totals.
//!
//! Hooks: `cgroup_skb` in both directions, `inet_sock_set_state`. Metrics: see [`METRICS`]. Cost, kernel and blind
//! spots: docs/signals/network.md. The owner is the socket's cgroup, never the task that was interrupted.

use std::mem::offset_of;

use telemetry_ebpf::hist::BINS;
use telemetry_ebpf::net::{CLIENT, FAILURES, NetCell, PROTOCOLS, RECEIVE, SERVER, TRANSMIT, TcpCell};
use telemetry_model::{Batch, Desc, Kind, Label, Labels, OwnerKey, Scope, Unit};

use super::{Readings, Signal, accumulate, count, differences, observe};
use crate::bpf::Kernel;

/// Everything this signal can say.
pub static METRICS: &[&Desc] =
    &[&BYTES, &PACKETS, &CONNECT_LATENCY, &CONNECT_FAILURES, &CONNECTIONS, &DURATION, &PAYLOAD, &RETRANSMITS];

static BYTES: Desc = Desc {
    name: "kernel_network_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    help: "Bytes of the owner's packets from the IP header on, counted where they reach or leave its sockets; segments that are offloaded as one count one header. Excludes packets that no socket takes.",
    scope: Scope::Owner,
    labels: &["direction", "protocol"],
    bound: "owners x 6",
    source: "cgroup_skb/ingress, cgroup_skb/egress",
};

static PACKETS: Desc = Desc {
    name: "kernel_network_packets_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Packets of the owner's sockets; the segments of one that was offloaded whole count each.",
    scope: Scope::Owner,
    labels: &["direction", "protocol"],
    bound: "owners x 6",
    source: "cgroup_skb/ingress, cgroup_skb/egress",
};

static CONNECT_LATENCY: Desc = Desc {
    name: "kernel_tcp_connect_latency_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time from sending the SYN to the established connection, of the active opens that succeeded.",
    scope: Scope::Owner,
    labels: &["result"],
    bound: "owners",
    source: "inet_sock_set_state: SYN_SENT to ESTABLISHED",
};

static CONNECT_FAILURES: Desc = Desc {
    name: "kernel_tcp_connect_failures_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Active opens that failed, by the socket's error; other is mostly the owner itself giving up.",
    scope: Scope::Owner,
    labels: &["reason"],
    bound: "owners x 5",
    source: "inet_sock_set_state: SYN_SENT to CLOSE, sk_err",
};

static CONNECTIONS: Desc = Desc {
    name: "kernel_tcp_connections_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "TCP connections established: opened by the owner as client, taken by it as server.",
    scope: Scope::Owner,
    labels: &["role"],
    bound: "owners x 2",
    source: "inet_sock_set_state",
};

static DURATION: Desc = Desc {
    name: "kernel_tcp_connection_duration_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Lifetime of closed connections, from established to closed. Excludes connections older than the agent.",
    scope: Scope::Owner,
    labels: &["role"],
    bound: "owners x 2",
    source: "inet_sock_set_state",
};

static PAYLOAD: Desc = Desc {
    name: "kernel_tcp_payload_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    help: "Payload of TCP connections, counted when they close: received in order, or transmitted and acknowledged. Excludes retransmissions and connections older than the agent.",
    scope: Scope::Owner,
    labels: &["direction"],
    bound: "owners x 2",
    source: "inet_sock_set_state: bytes_received, bytes_acked",
};

static RETRANSMITS: Desc = Desc {
    name: "kernel_tcp_retransmits_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Segments sent again, counted when the connection closes. Excludes connections older than the agent.",
    scope: Scope::Owner,
    labels: &["kind"],
    bound: "owners",
    source: "inet_sock_set_state: total_retrans",
};

/// The network family, attached.
struct Network {
    packets: Readings<NetCell>,
    connections: Readings<TcpCell>,
    names: Names,
}

/// Every label set this family uses.
struct Names {
    flows: [[Labels; 3]; 2],
    directions: [Labels; 2],
    roles: [Labels; 2],
    failures: [Labels; 5],
    ok: Labels,
    data: Labels,
}

static NO_PACKETS: NetCell = NetCell { bytes: [[0; 3]; 2], packets: [[0; 3]; 2] };
static NO_CONNECTIONS: TcpCell = TcpCell {
    established: [0; 2],
    failures: [0; 5],
    closed: [0; 2],
    payload: [0; 2],
    retransmits: 0,
    connect_ns: 0,
    lifetime_ns: [0; 2],
    reserved: 0,
    connects: [0; BINS],
    lifetimes: [[0; BINS]; 2],
};

/// Opens the family if packets or connections are counted.
pub fn open(kernel: &Kernel) -> Option<Box<dyn Signal>> {
    let attached =
        ["skb_receive", "skb_transmit", "inet_sock_set_state"].iter().any(|name| kernel.attached(name));
    if !attached {
        return None;
    }
    let slots = kernel.slots.capacity();
    Some(Box::new(Network {
        packets: Readings::new(slots, &NO_PACKETS),
        connections: Readings::new(slots, &NO_CONNECTIONS),
        names: Names::new(),
    }))
}

// === impl Network ===

impl Signal for Network {
    fn drain(&mut self, kernel: &mut Kernel, batch: &mut Batch) {
        for slot in 0..kernel.slots.capacity() {
            if !kernel.slots.taken(slot) {
                continue;
            }
            self.drain_packets(slot, kernel, batch);
            self.drain_connections(slot, kernel, batch);
        }
    }
}

impl Network {
    fn drain_packets(&mut self, slot: u32, kernel: &mut Kernel, batch: &mut Batch) {
        let slots = kernel.slots.capacity();
        let cells = &kernel.network.packets;
        let last = self.packets.get(slot);
        let now =
            (0..kernel.cpus).filter_map(|cpu| cells.get(cpu * slots + slot)).fold(NO_PACKETS, add_packets);
        if now.packets == last.packets {
            return;
        }
        kernel.slots.moved(slot);
        let owner = kernel.slots.owner(slot);
        for (direction, labels) in self.names.flows.iter().enumerate() {
            for (protocol, labels) in labels.iter().enumerate() {
                let grown = |now: &[[u64; 3]; 2], last: &[[u64; 3]; 2]| {
                    let pick = |table: &[[u64; 3]; 2]| table.get(direction)?.get(protocol).copied();
                    pick(now).unwrap_or_default().wrapping_sub(pick(last).unwrap_or_default())
                };
                count(batch, owner, &BYTES, labels, grown(&now.bytes, &last.bytes));
                count(batch, owner, &PACKETS, labels, grown(&now.packets, &last.packets));
            }
        }
        self.packets.set(slot, now);
    }

    fn drain_connections(&mut self, slot: u32, kernel: &mut Kernel, batch: &mut Batch) {
        let slots = kernel.slots.capacity();
        let cells = &kernel.network.connections;
        let last = self.connections.get(slot);
        // Established, failed and closed are the first nine words; nothing else moves without one of them.
        let head = offset_of!(TcpCell, payload) / 8;
        let word = |at: usize| {
            (0..kernel.tcp_shards)
                .fold(0_u64, |sum, shard| sum.wrapping_add(cells.word(shard * slots + slot, 8 * at)))
        };
        let before = last.established.iter().chain(&last.failures).chain(&last.closed);
        if (0..head).map(word).eq(before.copied()) {
            return;
        }
        let now = (0..kernel.tcp_shards)
            .filter_map(|shard| cells.get(shard * slots + slot))
            .fold(NO_CONNECTIONS, add_connections);
        kernel.slots.moved(slot);
        let owner = kernel.slots.owner(slot);
        emit_connections(&self.names, owner, &now, last, batch);
        self.connections.set(slot, now);
    }
}

fn emit_connections(names: &Names, owner: OwnerKey, now: &TcpCell, last: &TcpCell, batch: &mut Batch) {
    let pairs = |desc, labels: &[Labels], now: &[u64], last: &[u64], batch: &mut Batch| {
        for (labels, (now, last)) in labels.iter().zip(now.iter().zip(last)) {
            count(batch, owner, desc, labels, now.wrapping_sub(*last));
        }
    };
    pairs(&CONNECTIONS, &names.roles, &now.established, &last.established, batch);
    pairs(&CONNECT_FAILURES, &names.failures, &now.failures, &last.failures, batch);
    pairs(&PAYLOAD, &names.directions, &now.payload, &last.payload, batch);
    count(batch, owner, &RETRANSMITS, &names.data, now.retransmits.wrapping_sub(last.retransmits));
    let connect_sum = now.connect_ns.wrapping_sub(last.connect_ns);
    observe(
        batch,
        owner,
        &CONNECT_LATENCY,
        &names.ok,
        differences(&now.connects, &last.connects),
        connect_sum,
    );
    let lives = now.lifetimes.iter().zip(&last.lifetimes);
    let sums = now.lifetime_ns.iter().zip(last.lifetime_ns);
    for (labels, ((now, last), (sum, before))) in names.roles.iter().zip(lives.zip(sums)) {
        observe(batch, owner, &DURATION, labels, differences(now, last), sum.wrapping_sub(before));
    }
}

// === impl Names ===

impl Names {
    fn new() -> Self {
        let mut directions = [const { "" }; 2];
        for (position, name) in [(RECEIVE, "receive"), (TRANSMIT, "transmit")] {
            if let Some(slot) = directions.get_mut(position) {
                *slot = name;
            }
        }
        let mut roles = [const { "" }; 2];
        for (position, name) in [(CLIENT, "client"), (SERVER, "server")] {
            if let Some(slot) = roles.get_mut(position) {
                *slot = name;
            }
        }
        let flow = |direction, protocol| {
            Labels::new(vec![Label::new("direction", direction), Label::new("protocol", protocol)])
        };
        Self {
            flows: directions.map(|direction| PROTOCOLS.map(|protocol| flow(direction, protocol))),
            directions: directions.map(|direction| Labels::fixed(&[("direction", direction)])),
            roles: roles.map(|role| Labels::fixed(&[("role", role)])),
            failures: FAILURES.map(|reason| Labels::fixed(&[("reason", reason)])),
            ok: Labels::fixed(&[("result", "ok")]),
            data: Labels::fixed(&[("kind", "data")]),
        }
    }
}

fn add_packets(mut sum: NetCell, cell: NetCell) -> NetCell {
    add_all(sum.bytes.as_flattened_mut(), cell.bytes.as_flattened());
    add_all(sum.packets.as_flattened_mut(), cell.packets.as_flattened());
    sum
}

fn add_connections(mut sum: TcpCell, cell: TcpCell) -> TcpCell {
    add_all(&mut sum.established, &cell.established);
    add_all(&mut sum.failures, &cell.failures);
    add_all(&mut sum.closed, &cell.closed);
    add_all(&mut sum.payload, &cell.payload);
    add_all(&mut sum.lifetime_ns, &cell.lifetime_ns);
    sum.retransmits = sum.retransmits.wrapping_add(cell.retransmits);
    sum.connect_ns = sum.connect_ns.wrapping_add(cell.connect_ns);
    accumulate(&mut sum.connects, &cell.connects);
    for (sum, bins) in sum.lifetimes.iter_mut().zip(&cell.lifetimes) {
        accumulate(sum, bins);
    }
    sum
}

fn add_all(sum: &mut [u64], values: &[u64]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}
