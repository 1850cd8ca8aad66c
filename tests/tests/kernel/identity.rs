//! Identity: whose figure a count is, when cgroups are many, short-lived, or named to do harm.

use std::time::{Duration, Instant};

use anyhow::Result;
use telemetry_tests::agent::{Agent, Settings};
use telemetry_tests::cgroup::{Cgroup, raw_name};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::page::Page;
use telemetry_tests::workload::{Burnt, Workload, burn};

const CPU: &str = "kernel_cpu_seconds_total";
const OTHER: &str = "_other";

/// A cgroup that was, and what the kernel says its one process used.
struct Past {
    unit: String,
    burnt: Burnt,
}

/// Makes a cgroup, burns CPU time in it, removes it.
fn short_life(name: &str, cpu_ms: i64) -> Result<Past> {
    let cgroup = Cgroup::new(name)?;
    let past = Past { unit: cgroup.unit(), burnt: burn(&cgroup, cpu_ms)? };
    cgroup.remove()?;
    Ok(past)
}

fn read_as_burnt(page: &Page, past: &Past) -> Result<()> {
    past.burnt.holds(&past.unit, page.sum(CPU, &[("unit", &past.unit)]), page)
}

#[test]
fn sixty_cgroups_that_live_less_than_a_second_are_all_named() {
    kernel_test(|| {
        let agent = Settings::new().tick(Duration::from_millis(200)).start()?;
        let lives: Result<Vec<Past>> =
            (0..60).map(|number| short_life(&format!("brief-{number}"), 20)).collect();
        let lives = lives?;
        let page = agent.fresh()?;
        for past in &lives {
            read_as_burnt(&page, past)?;
        }
        Ok(())
    });
}

#[test]
fn counts_of_cgroups_beyond_the_slots_stay_in_the_sum() {
    kernel_test(|| {
        let agent = Settings::new().kernel("owners_max = 32").start()?;
        let cgroups: Result<Vec<Cgroup>> =
            (0..60).map(|number| Cgroup::new(format!("crowd-{number}"))).collect();
        let cgroups = cgroups?;
        // The other cgroups of a shared machine may spill over too: a window may be unlucky, three not.
        let mut result = crowd(&agent, &cgroups);
        for _ in 0..2 {
            if result.is_ok() {
                break;
            }
            result = crowd(&agent, &cgroups);
        }
        result
    });
}

fn crowd(agent: &Agent, cgroups: &[Cgroup]) -> Result<()> {
    let page = agent.fresh()?;
    let mut burnt = Burnt::default();
    for cgroup in cgroups {
        burnt += burn(cgroup, 20)?;
    }
    let page_end = agent.fresh()?;
    let other = page_end.growth(&page, CPU, &[("unit", OTHER)]);
    let mut named = 0.0;
    for cgroup in cgroups {
        let own = page_end.growth(&page, CPU, &[("unit", &cgroup.unit())]);
        claim(own < 0.1, || format!("{} has {own} s, of others too", cgroup.unit()))?;
        named += own;
    }
    claim(other > 0.02 && named > 0.02, || format!("{named} s have a name, {other} s are of all others"))?;
    burnt.holds("named and other CPU seconds", named + other, &page_end)
}

#[test]
fn slots_are_used_again_and_nobody_gets_a_dead_ones_time() {
    kernel_test(|| {
        let settings = Settings::new().kernel("owners_max = 32").kernel("quarantine = \"1s\"");
        let agent = settings.start()?;
        let mut lives = Vec::new();
        // Ten a second with a quarantine of one: a third of the slots is in use at a time, and each several times.
        let pace = Duration::from_millis(100);
        for number in 0..200 {
            let start = Instant::now();
            // Times that differ, so that a mix-up of two neighbours shows.
            lives.push(short_life(&format!("turn-{number}"), 5 + number % 7 * 5)?);
            std::thread::sleep(pace.saturating_sub(start.elapsed()));
        }
        let page = agent.fresh()?;
        for past in &lives {
            read_as_burnt(&page, past)?;
        }
        Ok(())
    });
}

#[test]
fn hostile_names_are_escaped_one_to_one_and_break_no_page() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let names: [(&[u8], &str); 8] = [
            (b"quote\"s", "quote\"s"),
            (b"back\\slash", "back\\slash"),
            (b"esc\x1b[31m", "esc%1B[31m"),
            (b"esc%1B[31m", "esc%251B[31m"),
            (b"\xff\xfe", "%FF%FE"),
            (b"100%", "100%25"),
            (b"a{b=\"c\"} 1", "a{b=\"c\"} 1"),
            ("caf\u{e9}\u{202e}".as_bytes(), "caf\u{e9}%E2%80%AE"),
        ];
        let mut lives = Vec::new();
        for (bytes, printed) in names {
            let cgroup = Cgroup::new(raw_name(bytes))?;
            let unit = format!("/telemetry-test-{}/{printed}", std::process::id());
            lives.push(Past { unit, burnt: burn(&cgroup, 20)? });
        }
        // Parsing the page is half of the test.
        let page = agent.fresh()?;
        lives.iter().try_for_each(|past| read_as_burnt(&page, past))
    });
}

#[test]
fn a_container_that_no_runtime_names_is_shown_by_its_ids_and_has_no_unit() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let (pod, container) = ("8a1b2c3d-0000-4000-8000-0000000000aa", "7ecc1a18b468f31c".repeat(4));
        let cgroup = Cgroup::at(format!("/kubepods/burstable/pod{pod}/{container}"))?;
        let burnt = burn(&cgroup, 50)?;
        let owner = [("pod_uid", pod), ("container_id", container.as_str()), ("unit", ""), ("pod", "")];
        // No runtime wrote its names: it is waited for, and then shown by its ids.
        let page = agent.page_when("the container is shown by its ids", Duration::from_secs(10), |page| {
            page.has(CPU, &owner)
        })?;
        burnt.holds("the container's CPU seconds", page.sum(CPU, &owner), &page)
    });
}

#[test]
fn a_cgroup_below_a_unit_counts_for_the_unit() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        let service = format!("telemetry-test-{}.service", std::process::id());
        let outer = Cgroup::new(&service)?;
        let mut burnt = burn(&outer, 30)?;
        // Version 2 lets no process into a cgroup whose children have controllers: the inner one comes later.
        let inner = Cgroup::new(format!("{service}/worker"))?;
        burnt += burn(&inner, 30)?;
        let page = agent.fresh()?;
        burnt.holds("the unit's CPU seconds", page.sum(CPU, &[("unit", &service)]), &page)
    });
}

#[test]
fn cgroups_that_were_there_before_the_agent_are_named() {
    kernel_test(|| {
        let cgroup = Cgroup::new("earlier")?;
        let running = Workload::new("spin 300").in_cgroup(&cgroup)?.start()?;
        let agent = Settings::new().start()?;
        let unit = cgroup.unit();
        let mut running = running;
        running.go()?;
        running.done()?;
        let page = agent.fresh()?;
        let figure = page.sum(CPU, &[("unit", &unit)]);
        claim(figure > 0.05, || format!("{figure} s of a process that spun for 0.3 s"))?;
        running.end()
    });
}

#[test]
fn a_dead_cgroup_keeps_its_last_counts_and_then_leaves() {
    kernel_test(|| {
        let agent =
            Settings::new().attribution("tombstone = \"2s\"").kernel("quarantine = \"1s\"").start()?;
        let past = short_life("mortal", 50)?;
        let died = Instant::now();
        let page = agent.fresh()?;
        read_as_burnt(&page, &past)?;
        agent.page_when("the dead cgroup leaves the page", Duration::from_secs(15), |page| {
            !page.has(CPU, &[("unit", &past.unit)])
        })?;
        let stayed = died.elapsed();
        claim(stayed >= Duration::from_millis(1900), || format!("it left after {stayed:?}, before its 2 s"))
    });
}

#[test]
fn no_owner_loses_time_when_others_leave() {
    kernel_test(|| {
        let agent =
            Settings::new().attribution("tombstone = \"1s\"").kernel("quarantine = \"1s\"").start()?;
        let lasting = Cgroup::new("lasting")?;
        let mut burnt = burn(&lasting, 30)?;
        let mut before = 0.0;
        for number in 0..20 {
            short_life(&format!("passing-{number}"), 5)?;
            burnt += burn(&lasting, 5)?;
            let page = agent.fresh()?;
            let now = page.sum(CPU, &[("unit", &lasting.unit())]);
            claim(now >= before, || format!("fell from {before} to {now}"))?;
            before = now;
        }
        burnt.holds("the lasting cgroup's CPU seconds", before, &agent.fresh()?)
    });
}

#[test]
fn announcements_that_were_lost_are_made_up_for_by_reading_the_tree() {
    const LOST: &str = "telemetry_agent_ringbuf_lost_total";
    const RECLAIMED: &str = "telemetry_agent_bpf_slots_reclaimed_total";
    kernel_test(|| {
        let agent = Settings::new().tick(Duration::from_millis(200)).kernel("quarantine = \"1s\"").start()?;
        let unheard = Cgroup::new("unheard")?;
        let burnt = burn(&unheard, 20)?;
        let unit = unheard.unit();
        agent.fresh()?;
        // With the reader stopped, 6,000 births and deaths are more than the ring buffer holds.
        agent.signal(libc::SIGSTOP)?;
        let flood = (0..3000).try_for_each(|number| Cgroup::new(format!("flood-{number}"))?.remove());
        let removed = unheard.remove();
        agent.signal(libc::SIGCONT)?;
        flood.and(removed)?;
        let page =
            agent.page_when("the unheard death gives its slot back", Duration::from_secs(20), |page| {
                page.sum(LOST, &[]) > 0.0 && page.sum(RECLAIMED, &[]) > 0.0
            })?;
        burnt.holds(&unit, page.sum(CPU, &[("unit", &unit)]), &page)
    });
}
