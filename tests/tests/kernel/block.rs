//! Block family: requests of known number and size on loop devices, against what the writer and diskstats know.

use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::host::{claim, eventually, exactly, kernel_test, near};
use telemetry_tests::loopdev::{LoopDevice, Mount, keeps_times, sparse};
use telemetry_tests::page::Page;
use telemetry_tests::proc::{self, Diskstats};
use telemetry_tests::workload::Workload;

const BYTES: &str = "kernel_block_io_bytes_total";
const OPERATIONS: &str = "kernel_block_io_operations_total";
const ERRORS: &str = "kernel_block_io_errors_total";
const UNATTRIBUTED: &str = "kernel_block_io_unattributed_bytes_total";
const LATENCY_COUNT: &str = "kernel_block_io_latency_seconds_count";
const LATENCY_SUM: &str = "kernel_block_io_latency_seconds_sum";
const MIB: u64 = 1 << 20;

#[test]
fn direct_requests_are_counted_to_the_byte_in_their_own_cgroup() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let device = LoopDevice::over(&sparse(dir.path(), 8 * MIB)?)?;
        let agent = Settings::new().start()?;
        let cgroup = Cgroup::new("direct")?;
        let unit = cgroup.unit();
        for (op, count) in [("write", 64_u32), ("read", 32)] {
            let work = format!("direct {op} {} {count} 4096", device.node());
            let facts = Workload::new(work).in_cgroup(&cgroup)?.finish()?;
            let [failed, busy_ns] = facts.as_slice() else { anyhow::bail!("facts {facts:?}") };
            exactly("failed requests", *failed as f64, 0.0)?;
            let page = agent.fresh()?;
            let series = [("unit", unit.as_str()), ("device", device.name()), ("op", op)];
            exactly("operations", page.sum(OPERATIONS, &series), f64::from(count))?;
            exactly("bytes", page.sum(BYTES, &series), f64::from(count) * 4096.0)?;
            latency_is_plausible(&page, &device, &series, f64::from(count), *busy_ns as f64 / 1e9)?;
        }
        Ok(())
    });
}

/// Each request has one latency of each phase, and the sum is no more than the writer itself waited.
fn latency_is_plausible(
    page: &Page,
    device: &LoopDevice,
    series: &[(&str, &str); 3],
    count: f64,
    busy_s: f64,
) -> Result<()> {
    let phase = |name, phase| page.sum(name, &[series.as_slice(), &[("phase", phase)]].concat());
    exactly("latencies in the device", phase(LATENCY_COUNT, "device"), count)?;
    if !keeps_times(device) {
        return Ok(());
    }
    exactly("latencies in total", phase(LATENCY_COUNT, "total"), count)?;
    exactly("latencies in the queue", phase(LATENCY_COUNT, "queue"), count)?;
    let (total, inside) = (phase(LATENCY_SUM, "total"), phase(LATENCY_SUM, "device"));
    claim(total <= busy_s && inside <= total, || {
        format!("the writer waited {busy_s:.6} s, requests {total:.6} s, {inside:.6} s of it in the device")
    })?;
    // A request of one thread on an idle device spends nearly all of its time in the device.
    claim(total > busy_s * 0.2, || format!("the writer waited {busy_s:.6} s, requests only {total:.6} s"))?;
    near("queue + device", phase(LATENCY_SUM, "queue") + inside, total, 0.02, 1e-5)
}

#[test]
fn writeback_is_charged_to_whoever_dirtied_the_pages() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let device = LoopDevice::over(&sparse(dir.path(), 32 * MIB)?)?;
        let mount = Mount::ext4(&device)?;
        let (writer, syncer) = (Cgroup::new("writer")?, Cgroup::new("syncer")?);
        let agent = Settings::new().start()?;
        let (page, truth) = at_rest(&agent, device.name())?;

        let file = mount.path().join("data");
        let mut write =
            Workload::new(format!("buffered {} {MIB}", file.display())).in_cgroup(&writer)?.go()?;
        write.done()?;
        Workload::new(format!("sync {}", mount.path().display())).in_cgroup(&syncer)?.finish()?;

        let (page_end, truth_end) = at_rest(&agent, device.name())?;
        let writes = [("device", device.name()), ("op", "write")];
        let written =
            |unit: &str| page_end.growth(&page, BYTES, &[writes.as_slice(), &[("unit", unit)]].concat());
        // Nothing may be lost, whoever it is charged to.
        let total = page_end.growth(&page, BYTES, &writes);
        near("bytes of all owners", total, truth_end.written_bytes - truth.written_bytes, 0.001, 0.0)?;
        let charged = if Hierarchies::find()?.writeback_knows_its_writer() {
            written(&writer.unit())
        } else {
            // Version 1 does not know who dirtied a page: the kernel charges its root.
            written("/") + written("kernel") + written(&writer.unit())
        };
        claim(charged >= MIB as f64, || {
            format!("{charged} B charged of {total} B written:{}", page_end.about(device.name()))
        })?;
        let to_syncer = written(&syncer.unit());
        claim(to_syncer < MIB as f64 / 4.0, || {
            format!("{to_syncer} B charged to the process that only synced")
        })
    });
}

#[test]
fn bytes_and_operations_of_all_owners_add_up_to_diskstats() {
    kernel_test(|| {
        let dir = tempfile::tempdir()?;
        let device = LoopDevice::over(&sparse(dir.path(), 64 * MIB)?)?;
        let agent = Settings::new().start()?;
        let (page, truth) = at_rest(&agent, device.name())?;
        // Metadata, a journal, buffered and direct requests, from several owners.
        let mount = Mount::ext4(&device)?;
        for number in 0..3 {
            let cgroup = Cgroup::new(format!("mixed-io-{number}"))?;
            let file = mount.path().join(format!("file-{number}"));
            Workload::new(format!("buffered {} {}", file.display(), 3 * MIB)).in_cgroup(&cgroup)?.finish()?;
            Workload::new(format!("sync {}", mount.path().display())).in_cgroup(&cgroup)?.finish()?;
            let work = format!("direct read {} 50 16384", device.node());
            Workload::new(work).in_cgroup(&cgroup)?.finish()?;
        }
        drop(mount);
        let (page_end, truth_end) = at_rest(&agent, device.name())?;
        let grown = |name, op| page_end.growth(&page, name, &[("device", device.name()), ("op", op)]);
        let truth = since(truth_end, truth);
        claim(truth.written_bytes > 9.0 * MIB as f64, || format!("the load wrote too little: {truth:?}"))?;
        near("bytes written", grown(BYTES, "write"), truth.written_bytes, 0.001, 0.0)?;
        near("bytes read", grown(BYTES, "read"), truth.read_bytes, 0.001, 0.0)?;
        // Some kernels put flushes without data and requests for zeros among the writes of diskstats, some do not.
        let least = grown(OPERATIONS, "write");
        let most = least + grown(OPERATIONS, "flush") + grown(OPERATIONS, "write_zeroes");
        // A step of a flush may look like a write that was issued: one or two among the seventy of a small journal.
        claim((least * 0.97..=most).contains(&truth.writes), || {
            format!("writes: page {least} to {most}, truth {}", truth.writes)
        })?;
        near("reads", grown(OPERATIONS, "read"), truth.reads, 0.001, 0.0)?;
        let lost = page_end.growth(&page, UNATTRIBUTED, &[("device", device.name())]);
        claim(lost <= truth.written_bytes, || format!("{lost} B without an owner"))
    });
}

fn since(end: Diskstats, start: Diskstats) -> Diskstats {
    Diskstats {
        reads: end.reads - start.reads,
        read_bytes: end.read_bytes - start.read_bytes,
        writes: end.writes - start.writes,
        written_bytes: end.written_bytes - start.written_bytes,
    }
}

#[test]
fn requests_that_fail_are_counted_as_errors() {
    kernel_test(|| {
        // The file behind the device is on a file system too small for it: some writes must fail.
        let small = Mount::tmpfs(256)?;
        let device = LoopDevice::over(&sparse(small.path(), MIB)?)?;
        let agent = Settings::new().start()?;
        let cgroup = Cgroup::new("errors")?;
        let page = agent.fresh()?;
        let work = format!("direct write {} 128 8192", device.node());
        let facts = Workload::new(work).in_cgroup(&cgroup)?.finish()?;
        let failed = *facts.first().context("no facts")? as f64;
        claim(failed > 0.0 && failed < 128.0, || format!("{failed} of 128 writes failed"))?;
        let page_end = agent.fresh()?;
        exactly(
            "errors",
            page_end.growth(&page, ERRORS, &[("device", device.name()), ("op", "write")]),
            failed,
        )?;
        for series in page_end.matching(ERRORS, &[("device", device.name())]) {
            let status = series.label("status");
            let plain = !status.is_empty() && status.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            claim(plain, || format!("status {status:?} is not a kernel's name in lower case"))?;
        }
        Ok(())
    });
}

/// A page and the kernel's own counters of one moment: nothing was read or written between them. ext4 initialises its tables
/// in the background, and a write of it between the two readings would stand in one of them alone.
fn at_rest(agent: &Agent, device: &str) -> Result<(Page, Diskstats)> {
    let mut found = None;
    eventually("the device rests while a page is read", Duration::from_secs(10), || {
        let (before, page, after) = (proc::diskstats(device)?, agent.fresh()?, proc::diskstats(device)?);
        let rests = before == after;
        found = Some((page, after));
        Ok(rests)
    })?;
    found.context("no page was read")
}
