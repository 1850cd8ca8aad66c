//! Scheduler family: time on a CPU, time waiting for one, switches, migrations.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::cgroup::{Cgroup, Hierarchies};
use telemetry_tests::host::{
    claim, cpus, emulated, exactly, kernel_lacks, kernel_test, near, scaled_seconds, slowness,
};
use telemetry_tests::page::Page;
use telemetry_tests::proc;
use telemetry_tests::workload::{Running, Workload};

const CPU: &str = "kernel_cpu_seconds_total";
const SWITCHES: &str = "kernel_context_switches_total";
const MIGRATIONS: &str = "kernel_cpu_migrations_total";
const WAIT_SUM: &str = "kernel_sched_runqueue_latency_seconds_sum";
const WAIT_COUNT: &str = "kernel_sched_runqueue_latency_seconds_count";

/// What a process may have run or waited between its fork and its entry into the cgroup, in seconds.
const ENTRY_S: f64 = 0.01;

#[test]
fn two_spinners_that_share_a_cpu_read_as_schedstat_says() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let (one, two) = (Cgroup::new("spin-a")?, Cgroup::new("spin-b")?);
        let mut spinners = Vec::new();
        for cgroup in [&one, &two] {
            spinners.push(Workload::new("spin 1500").in_cgroup(cgroup)?.on_cpu(0).start()?);
        }
        spinners.iter_mut().try_for_each(Running::go)?;
        for spinner in &mut spinners {
            spinner.done()?;
        }
        let page = agent.fresh()?;
        for (spinner, cgroup) in spinners.iter().zip([&one, &two]) {
            let truth = proc::schedstat(spinner.pid())?;
            let unit = cgroup.unit();
            let owner = [("unit", unit.as_str())];
            near("seconds on a CPU", page.sum(CPU, &owner), truth.run_s, 0.01, scaled_seconds(ENTRY_S))?;
            near("seconds waited", page.sum(WAIT_SUM, &owner), truth.wait_s, 0.01, scaled_seconds(ENTRY_S))?;
            // The spinner enters its cgroup in the middle of a stay: the wait before it may be its parent's.
            near(
                "waits against switches",
                page.sum(WAIT_COUNT, &owner),
                page.sum(SWITCHES, &owner),
                0.0,
                1.0,
            )?;
            // Before it entered the cgroup, the process ran for a stint or two.
            near("waits against stints", page.sum(WAIT_COUNT, &owner), truth.slices, 0.01, 4.0)?;
            claim(truth.wait_s > 0.3, || format!("the spinners did not compete: {truth:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn wait_buckets_hold_every_wait() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let cgroup = Cgroup::new("buckets")?;
        let mut naps = Workload::new("naps 300").in_cgroup(&cgroup)?.on_cpu(0).go()?;
        naps.done()?;
        let page = agent.fresh()?;
        let unit = cgroup.unit();
        let all = [("unit", unit.as_str()), ("le", "+Inf")];
        let count = page.sum(WAIT_COUNT, &[("unit", &unit)]);
        exactly(
            "the bucket without a bound",
            page.sum("kernel_sched_runqueue_latency_seconds_bucket", &all),
            count,
        )?;
        let mut bounds: Vec<(f64, f64)> = page
            .matching("kernel_sched_runqueue_latency_seconds_bucket", &[("unit", &unit)])
            .filter_map(|series| Some((series.label("le").parse().ok()?, series.value)))
            .collect();
        bounds.sort_by(|one, next| one.0.total_cmp(&next.0));
        claim(bounds.len() > 10, || format!("only {} buckets", bounds.len()))?;
        claim(bounds.is_sorted_by(|one, next| one.1 <= next.1), || format!("buckets fall: {bounds:?}"))
    });
}

#[test]
fn a_task_alone_on_its_cpu_is_read_while_it_runs() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let cgroup = Cgroup::new("hog")?;
        let hog = Workload::new("spin 3000").in_cgroup(&cgroup)?.on_cpu(cpus() - 1).go()?;
        let unit = cgroup.unit();
        let mut behind = Vec::new();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2700) {
            std::thread::sleep(Duration::from_millis(90));
            let truth = proc::schedstat(hog.pid())?.run_s;
            let page = agent.scrape()?;
            if truth > 1.0 {
                behind.push(truth - page.sum(CPU, &[("unit", &unit)]));
            }
        }
        behind.sort_by(f64::total_cmp);
        let median =
            behind.get(behind.len() / 2).copied().context("the hog never got a second of CPU time")?;
        let limit = scaled_seconds(0.25);
        claim(median <= limit, || format!("reads {median:.3} s behind schedstat; all: {behind:?}"))
    });
}

#[test]
fn a_task_that_moves_while_it_runs_is_charged_to_its_new_cgroup() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let (old, new) = (Cgroup::new("before-the-move")?, Cgroup::new("after-the-move")?);
        let mut hog = Workload::new("spin 2500").in_cgroup(&old)?.on_cpu(cpus() - 1).start()?;
        hog.go()?;
        std::thread::sleep(Duration::from_secs(1));
        let at_move = proc::schedstat(hog.pid())?.run_s;
        new.join(hog.pid())?;
        hog.done()?;
        let page = agent.fresh()?;
        let total = proc::schedstat(hog.pid())?.run_s;
        let (old, new) = (old.unit(), new.unit());
        let of = |unit: &str| page.sum(CPU, &[("unit", unit)]);
        // It may stay with the old one for a tick of the kernel, 10 ms at most, and what the move itself took.
        near("before the move", of(&old), at_move, 0.01, scaled_seconds(0.015))?;
        near("after the move", of(&new), total - at_move, 0.01, scaled_seconds(0.015))
    });
}

/// Enters the cgroup whose files follow, works for a moment, and ends in the same stay on its CPU.
const MOVES_ITSELF: &str =
    r#"for door; do echo $$ > "$door"; done; i=0; while [ $i -lt 300 ]; do i=$((i+1)); done"#;

#[test]
fn one_that_moves_itself_and_ends_in_the_same_stay_is_counted_where_it_went() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let unified = Hierarchies::find()?.unified;
        let cgroups =
            (0..100).map(|number| Cgroup::new(format!("moves-{number}"))).collect::<Result<Vec<_>>>()?;
        for cgroup in &cgroups {
            let shell = Command::new("sh").args(["-c", MOVES_ITSELF, "sh"]).args(cgroup.procs()).status();
            claim(shell.context("run a shell")?.success(), || format!("{cgroup:?}"))?;
        }
        let page = agent.fresh()?;
        let seconds = |cgroup: &Cgroup| page.sum(CPU, &[("unit", &cgroup.unit())]);
        let without: Vec<_> =
            cgroups.iter().filter(|cgroup| seconds(cgroup) <= 0.0).map(Cgroup::unit).collect();
        claim(without.is_empty(), || format!("{} have no CPU time: {without:?}", without.len()))?;
        // What the kernel itself keeps of version 2, to the microsecond.
        let Some(unified) = unified else { return Ok(()) };
        let mut truth = 0.0;
        for cgroup in &cgroups {
            let stat = Path::new(&unified).join(cgroup.unit().trim_start_matches('/')).join("cpu.stat");
            truth += proc::usage_seconds(&stat)?;
        }
        let counted: f64 = cgroups.iter().map(seconds).sum();
        near("seconds of all", counted, truth, 0.02, scaled_seconds(ENTRY_S))
    });
}

#[test]
fn switches_are_told_apart_as_proc_status_does() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let (napping, rival) = (Cgroup::new("napping")?, Cgroup::new("rival")?);
        let mut rivals = Workload::new("spin 1200").in_cgroup(&rival)?.on_cpu(0).go()?;
        let mut naps = Workload::new("naps 400").in_cgroup(&napping)?.on_cpu(0).go()?;
        naps.done()?;
        rivals.done()?;
        let page = agent.fresh()?;
        for (process, cgroup) in [(&naps, &napping), (&rivals, &rival)] {
            let truth = proc::switches(process.pid())?;
            let unit = cgroup.unit();
            let count = |kind| page.sum(SWITCHES, &[("unit", &unit), ("kind", kind)]);
            near("voluntary switches", count("voluntary"), truth.voluntary, 0.01, 3.0)?;
            near("involuntary switches", count("involuntary"), truth.involuntary, 0.01, 3.0)?;
        }
        let truth = proc::switches(naps.pid())?;
        claim(truth.voluntary >= 400.0, || format!("the naps did not sleep: {truth:?}"))
    });
}

#[test]
fn every_move_to_another_cpu_is_counted_once() {
    kernel_test(|| {
        if cpus() < 2 {
            return Err(kernel_lacks("a second CPU here"));
        }
        let agent = Settings::new().start()?;
        let cgroup = Cgroup::new("hop")?;
        let mut hops = Workload::new("hop 100").in_cgroup(&cgroup)?.go()?;
        hops.done()?;
        let page = agent.fresh()?;
        let unit = cgroup.unit();
        let counted = page.sum(MIGRATIONS, &[("unit", &unit)]);
        // The first hop may find the task where it has to go.
        claim(counted >= 99.0, || format!("99 moves at least, page {counted}"))?;
        if let Some(truth) = proc::migrations(hops.pid())? {
            near("moves against the kernel's count", counted, truth, 0.0, 3.0)?;
        }
        for series in page.matching(MIGRATIONS, &[("unit", &unit)]) {
            let scope = series.label("scope");
            claim(["core", "llc", "numa"].contains(&scope), || format!("scope {scope:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn user_and_system_time_are_split_as_proc_stat_does() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        for (name, work, least_user, most_user) in
            [("user", "spin 1500", 0.9, 1.0), ("system", "syscalls 1500", 0.0, 0.4)]
        {
            let cgroup = Cgroup::new(name)?;
            let mut process = Workload::new(work).in_cgroup(&cgroup)?.on_cpu(0).go()?;
            process.done()?;
            let page = agent.fresh()?;
            let unit = cgroup.unit();
            let user = page.sum(CPU, &[("unit", &unit), ("mode", "user")]);
            let part = user / page.sum(CPU, &[("unit", &unit)]);
            // The kernel samples the two by the tick, and an emulated CPU loses many.
            let slack = if emulated() { 0.2 } else { 0.0 };
            claim((least_user - slack..=most_user + slack).contains(&part), || {
                format!("{work}: {part:.3} of it in user mode")
            })?;
            // Both sides sample by the tick: 1.5 s at 250 ticks a second tells 5 % apart with room; an emulated CPU
            // misses ticks.
            let slack = if slowness() > 1 { 0.15 } else { 0.05 };
            near(work, part, proc::user_part(process.pid())?, 0.0, slack)?;
        }
        Ok(())
    });
}

#[test]
fn kernel_threads_have_an_owner_of_their_own() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        // Something for kernel threads to do: memory that is asked for and given back.
        Workload::new("syscalls 300").finish()?;
        let page = agent.page_when("the owner kernel has CPU time", Duration::from_secs(10), |page| {
            page.sum(CPU, &[("unit", "kernel")]) > 0.0
        })?;
        let user = page.sum(CPU, &[("unit", "kernel"), ("mode", "user")]);
        near("kernel threads in user mode", user, 0.0, 0.0, 0.01)
    });
}

#[test]
fn cpu_time_of_all_owners_adds_up_to_what_the_kernel_kept() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        // The machine is shared and the kernel's total is sampled by the tick: a window may be unlucky, three not.
        let mut result = one_window(&agent);
        for _ in 0..2 {
            if result.is_ok() {
                break;
            }
            result = one_window(&agent);
        }
        result
    });
}

/// Mixed load on every CPU between two idle moments, so that what is not yet drained matters at neither end.
fn one_window(agent: &Agent) -> Result<()> {
    let seconds: u64 =
        std::env::var("TELEMETRY_CPU_WINDOW_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let exact = Hierarchies::find()?.cpuacct.map(|root| root.join("cpuacct.usage"));
    let read_exact = || -> Result<Option<f64>> {
        let Some(path) = &exact else { return Ok(None) };
        Ok(Some(proc::read(path)?.trim().parse::<f64>()? / 1e9))
    };
    let queues = proc::run_queue_seconds()?;
    let (totals, kept, page) = (proc::cpu_totals()?, read_exact()?, agent.fresh()?);
    mixed_load(seconds)?;
    let (totals_end, kept_end, page_end) = (proc::cpu_totals()?, read_exact()?, agent.fresh()?);

    let figure = page_end.growth(&page, CPU, &[]);
    // Interrupts run inside tasks or beside them, by the kernel's configuration: the truth lies between the two.
    let mut least = totals_end.tasks_s - totals.tasks_s;
    let mut most = least + totals_end.interrupts_s - totals.interrupts_s;
    if let (true, Some(start), Some(end)) = (emulated(), queues, proc::run_queue_seconds()?) {
        // /proc/stat counts ticks, and an emulated CPU loses every third; the run queues read the clock.
        (least, most) = (end - start, end - start);
    }
    claim(figure >= least * 0.99 && figure <= most * 1.01, || {
        format!(
            "owners' CPU seconds {figure:.3}, the kernel's {least:.3} to {most:.3}{}",
            by_owner(&page, &page_end)
        )
    })?;
    if let (Some(start), Some(end)) = (kept, kept_end) {
        near("owners' CPU seconds against cpuacct", figure, end - start, 0.01, 0.2)?;
    }
    Ok(())
}

fn mixed_load(seconds: u64) -> Result<()> {
    let ms = seconds * 1000;
    let mut running = Vec::new();
    for (number, work) in ["spin", "syscalls", "spin", "syscalls"].iter().enumerate() {
        let cgroup = Cgroup::new(format!("mixed-{number}"))?;
        let process = Workload::new(format!("{work} {ms}")).in_cgroup(&cgroup)?.start()?;
        running.push((process, cgroup));
    }
    let cgroup = Cgroup::new("mixed-naps")?;
    let process = Workload::new(format!("naps {}", seconds * 100)).in_cgroup(&cgroup)?.start()?;
    running.push((process, cgroup));
    running.iter_mut().try_for_each(|(process, _)| process.go())?;
    for (mut process, cgroup) in running {
        process.done()?;
        process.end()?;
        cgroup.remove()?;
    }
    Ok(())
}

fn by_owner(start: &Page, end: &Page) -> String {
    let mut text = String::new();
    for series in end.matching(CPU, &[]) {
        let (unit, mode) = (series.label("unit"), series.label("mode"));
        let grown = end.growth(start, CPU, &[("unit", unit), ("mode", mode)]);
        if grown > 0.05 {
            text.push_str(&format!("\n  {unit:?} {mode} {grown:.3}"));
        }
    }
    text
}
