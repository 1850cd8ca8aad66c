//! Network family: transfers of known size between two namespaces, against what both ends know.

use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::host::{claim, exactly, kernel_lacks, kernel_test};
use telemetry_tests::netns::{Link, SERVER_MAC};
use telemetry_tests::page::Page;
use telemetry_tests::workload::Workload;

const PAYLOAD: &str = "kernel_tcp_payload_bytes_total";
const CONNECTIONS: &str = "kernel_tcp_connections_total";
const FAILURES: &str = "kernel_tcp_connect_failures_total";
const CONNECT_COUNT: &str = "kernel_tcp_connect_latency_seconds_count";
const CONNECT_SUM: &str = "kernel_tcp_connect_latency_seconds_sum";
const DURATION_COUNT: &str = "kernel_tcp_connection_duration_seconds_count";
const RETRANSMITS: &str = "kernel_tcp_retransmits_total";
const BYTES: &str = "kernel_network_bytes_total";
const PACKETS: &str = "kernel_network_packets_total";

/// Sent by the client, and answered by the server.
const SENT: u32 = 1_000_000;
const ANSWERED: u32 = 250_000;

/// An agent, two namespaces, and a cgroup at each end.
struct Ends {
    agent: Agent,
    link: Link,
    client: Cgroup,
    server: Cgroup,
}

// === impl Ends ===

impl Ends {
    fn new() -> Result<Self> {
        // Sockets and packets know their version 2 cgroup only.
        if Hierarchies::find()?.unified.is_none() {
            return Err(kernel_lacks("a mounted cgroup v2 hierarchy, the only one that sockets belong to"));
        }
        Ok(Self {
            link: Link::new()?,
            client: Cgroup::new("client")?,
            server: Cgroup::new("server")?,
            agent: Settings::new().start()?,
        })
    }

    /// One TCP connection that carries `SENT` and `ANSWERED`. Gives the client's facts.
    fn transfer(&self, listen: &str) -> Result<Vec<u64>> {
        let mut server = Workload::new(format!("tcp-server {listen} {ANSWERED}"))
            .in_cgroup(&self.server)?
            .in_netns(&self.link.server)?
            .go()?;
        let facts = Workload::new(format!("tcp-client {} {SENT} 0", server.address))
            .in_cgroup(&self.client)?
            .in_netns(&self.link.client)?
            .finish()?;
        let got = server.done()?;
        exactly("the server read", *got.first().context("no facts")? as f64, f64::from(SENT))?;
        exactly("the client read", *facts.first().context("no facts")? as f64, f64::from(ANSWERED))?;
        server.end()?;
        Ok(facts)
    }

    /// A connect that must fail with this error number.
    fn fail_to_connect(&self, address: &str, errno: i32) -> Result<()> {
        let facts = Workload::new(format!("connect {address}"))
            .in_cgroup(&self.client)?
            .in_netns(&self.link.client)?
            .finish()?;
        let got = *facts.first().context("no facts")?;
        claim(got == u64::try_from(errno)?, || format!("connect to {address}: error {got}, not {errno}"))
    }

    /// Waits until `name` reads `truth`, and sees that it stays so.
    fn exactly(&self, name: &str, cgroup: &Cgroup, labels: &[(&str, &str)], truth: f64) -> Result<()> {
        let unit = cgroup.unit();
        let labels = [labels, &[("unit", &unit)]].concat();
        let reached =
            self.agent.page_when(name, Duration::from_secs(5), |page| page.sum(name, &labels) >= truth);
        let page = if reached.is_ok() { self.agent.fresh()? } else { self.agent.scrape()? };
        exactly(&format!("{name} {labels:?}"), page.sum(name, &labels), truth)
            .with_context(|| format!("of this owner:{}", page.about(&unit)))
    }
}

#[test]
fn a_tcp_transfer_is_exact_to_the_byte_at_both_ends() {
    kernel_test(|| {
        let ends = Ends::new()?;
        exact_transfer(&ends, "10.211.0.2:0")
    });
}

#[test]
fn a_tcp_transfer_over_ipv6_is_exact_too() {
    kernel_test(|| {
        let ends = Ends::new()?;
        if !std::path::Path::new("/proc/net/if_inet6").exists() {
            return Err(kernel_lacks("IPv6"));
        }
        exact_transfer(&ends, "[fd11::2]:0")
    });
}

fn exact_transfer(ends: &Ends, listen: &str) -> Result<()> {
    let facts = ends.transfer(listen)?;
    let (client, server) = (&ends.client, &ends.server);
    ends.exactly(PAYLOAD, client, &[("direction", "transmit")], SENT.into())?;
    ends.exactly(PAYLOAD, server, &[("direction", "receive")], SENT.into())?;
    ends.exactly(PAYLOAD, server, &[("direction", "transmit")], ANSWERED.into())?;
    ends.exactly(PAYLOAD, client, &[("direction", "receive")], ANSWERED.into())?;
    for (cgroup, role, other) in [(client, "client", "server"), (server, "server", "client")] {
        ends.exactly(CONNECTIONS, cgroup, &[("role", role)], 1.0)?;
        ends.exactly(CONNECTIONS, cgroup, &[("role", other)], 0.0)?;
        ends.exactly(DURATION_COUNT, cgroup, &[("role", role)], 1.0)?;
    }
    ends.exactly(CONNECT_COUNT, client, &[("result", "ok")], 1.0)?;
    ends.exactly(CONNECT_COUNT, server, &[], 0.0)?;
    ends.exactly(FAILURES, client, &[], 0.0)?;
    let page = ends.agent.fresh()?;
    let unit = client.unit();
    let latency = page.sum(CONNECT_SUM, &[("unit", &unit)]);
    let waited = *facts.get(2).context("no facts")? as f64 / 1e9;
    claim(latency > 0.0 && latency <= waited, || format!("connect took {waited} s, page {latency} s"))?;
    packets_are_plausible(&page, client, server)
}

/// Headers come on top of the payload: once a packet, or once for all that the device is to cut apart.
fn packets_are_plausible(page: &Page, client: &Cgroup, server: &Cgroup) -> Result<()> {
    let tcp = |name: &str, cgroup: &Cgroup, direction: &str| {
        page.sum(name, &[("unit", &cgroup.unit()), ("direction", direction), ("protocol", "tcp")])
    };
    let (bytes, packets) = (tcp(BYTES, client, "transmit"), tcp(PACKETS, client, "transmit"));
    let payload = f64::from(SENT);
    // 20 to 60 bytes of IP and 20 to 60 bytes of TCP header; no packet carries more than 64 KiB.
    let headers = payload / 65_536.0 * 40.0..=packets * 120.0;
    claim(headers.contains(&(bytes - payload)), || {
        format!("{bytes} B in {packets} packets for {payload} B")
    })?;
    // The link takes 1,500 bytes at a time, and one cut apart counts as what it is cut into.
    claim(packets >= payload / 1500.0, || format!("{packets} packets for {payload} B"))?;
    let received = tcp(BYTES, server, "receive");
    claim(received >= payload && received <= bytes * 1.05, || {
        format!("sent {bytes} B, received {received} B")
    })
}

#[test]
fn udp_packets_and_bytes_are_exact() {
    kernel_test(|| {
        let ends = Ends::new()?;
        let (count, size) = (50_u32, 100_u32);
        let mut sink = Workload::new(format!("udp-sink 10.211.0.2:0 {count}"))
            .in_cgroup(&ends.server)?
            .in_netns(&ends.link.server)?
            .go()?;
        Workload::new(format!("udp-source {} {count} {size}", sink.address))
            .in_cgroup(&ends.client)?
            .in_netns(&ends.link.client)?
            .finish()?;
        let facts = sink.done()?;
        exactly("payload that arrived", *facts.first().context("no facts")? as f64, f64::from(count * size))?;
        // 20 bytes of IP and 8 bytes of UDP header.
        let bytes = f64::from(count * (size + 28));
        for (cgroup, direction) in [(&ends.client, "transmit"), (&ends.server, "receive")] {
            let labels = [("direction", direction), ("protocol", "udp")];
            ends.exactly(PACKETS, cgroup, &labels, count.into())?;
            ends.exactly(BYTES, cgroup, &labels, bytes)?;
        }
        sink.end()
    });
}

#[test]
fn a_refused_connect_is_a_failure_and_no_connection() {
    kernel_test(|| {
        let ends = Ends::new()?;
        ends.fail_to_connect("10.211.0.2:9", libc::ECONNREFUSED)?;
        ends.exactly(FAILURES, &ends.client, &[("reason", "refused")], 1.0)?;
        ends.exactly(FAILURES, &ends.client, &[], 1.0)?;
        ends.exactly(CONNECTIONS, &ends.client, &[], 0.0)?;
        ends.exactly(CONNECT_COUNT, &ends.client, &[("result", "ok")], 0.0)
    });
}

#[test]
fn a_connect_that_nobody_answers_fails_by_timeout() {
    kernel_test(|| {
        let ends = Ends::new()?;
        // A neighbour that is not there takes every packet; one repeated SYN makes it 3 s.
        ends.link.client.ip("neigh add 10.211.0.9 lladdr 02:00:00:00:00:09 dev veth0 nud permanent")?;
        ends.link.client.sysctl("ipv4/tcp_syn_retries", "1")?;
        ends.fail_to_connect("10.211.0.9:80", libc::ETIMEDOUT)?;
        ends.exactly(FAILURES, &ends.client, &[("reason", "timeout")], 1.0)?;
        ends.exactly(FAILURES, &ends.client, &[], 1.0)
    });
}

#[test]
fn a_connect_that_a_router_turns_back_is_unreachable() {
    kernel_test(|| {
        let ends = Ends::new()?;
        ends.fail_to_connect("10.212.0.1:80", libc::EHOSTUNREACH)?;
        ends.exactly(FAILURES, &ends.client, &[("reason", "unreachable")], 1.0)?;
        ends.exactly(FAILURES, &ends.client, &[], 1.0)
    });
}

#[test]
fn retransmits_read_as_the_socket_itself_says() {
    kernel_test(|| {
        let ends = Ends::new()?;
        let mut server = Workload::new("tcp-server 10.211.0.2:0 0")
            .in_cgroup(&ends.server)?
            .in_netns(&ends.link.server)?
            .go()?;
        let mut client = Workload::new(format!("tcp-client {} 100000 500", server.address))
            .in_cgroup(&ends.client)?
            .in_netns(&ends.link.client)?
            .go()?;
        client.half()?;
        // Packets sent now are lost on the way: they go to a neighbour that is not there.
        let neighbour = |lladdr: &str| {
            ends.link.client.ip(&format!("neigh replace 10.211.0.2 lladdr {lladdr} dev veth0 nud permanent"))
        };
        neighbour("02:00:00:00:00:09")?;
        client.go()?;
        // The client pauses for half a second, then sends into the void; the retransmission timer fires meanwhile.
        std::thread::sleep(telemetry_tests::host::scaled(Duration::from_millis(1500)));
        neighbour(SERVER_MAC)?;
        let facts = client.done()?;
        server.done()?;
        let truth = *facts.get(1).context("no facts")? as f64;
        claim(truth > 0.0, || "nothing was lost on the way to nobody".into())?;
        ends.exactly(RETRANSMITS, &ends.client, &[("kind", "data")], truth)?;
        ends.exactly(PAYLOAD, &ends.client, &[("direction", "transmit")], 100_000.0)?;
        client.end()?;
        server.end()
    });
}
