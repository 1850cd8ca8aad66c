//! `telemetry-agent top` on a terminal of its own, against an agent whose figures are known, and beside a real one.

use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use telemetry_tests::agent::{Settings, binary, free_address};
use telemetry_tests::cgroup::Cgroup;
use telemetry_tests::host::{claim, eventually, kernel_test, near};
use telemetry_tests::pty::Pty;
use telemetry_tests::workload::burn;

use crate::fixture::Fixture;

/// A tick that is long beside the scheduler's slices, so that little is cut off at its ends.
const TICK: Duration = Duration::from_secs(1);
/// The owner of the work that a real agent watches.
const UNIT: &str = "top.service";
/// CPU time of the work that comes and goes.
const BURN_MS: i64 = 400;
/// From the start of some work to a whole tick of it.
const WORK_LIMIT: Duration = Duration::from_secs(30);

fn top(url: &str) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(["top", "--url", url]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    Ok(command)
}

fn on_terminal(fixture: &Fixture) -> Result<Pty> {
    let pty = Pty::start(&top(&fixture.url())?, 80, 24)?;
    pty.sees("the table", |text| text.contains("web.service"))?;
    Ok(pty)
}

/// The first row below the node's.
fn first_row(text: &str) -> &str {
    text.lines().skip_while(|line| !line.contains("(node)")).nth(1).unwrap_or_default()
}

fn given_back(pty: &mut Pty) -> Result<()> {
    let status = pty.end()?;
    claim(status.success(), || format!("ended with {status}"))?;
    eventually("the terminal as it was", Duration::from_secs(5), || pty.is_given_back())
}

#[test]
fn keys_change_what_is_seen_and_q_gives_the_terminal_back() -> Result<()> {
    let fixture = Fixture::start()?;
    let mut pty = on_terminal(&fixture)?;
    claim(pty.is_raw()? && pty.screen().alternate_screen(), || "the terminal is not taken over".into())?;
    let text = pty.sees("figures", |text| first_row(text).contains("shop/checkout-0/app"))?;
    claim(first_row(&text).contains("1.000      -  4.0ms"), || text.clone())?;
    // Every terminal has its own picture of U+FFFD; this one has none.
    claim(text.lines().any(|line| line.starts_with(" evil[2J]0;title ")), || text.clone())?;
    pty.press("W")?;
    pty.sees("order by wait", |text| first_row(text).contains("web.service"))?;
    pty.press("/che")?;
    pty.sees("the filter", |text| text.contains("/che") && !text.contains("web.service"))?;
    pty.press("\x1b")?;
    pty.sees("all of them", |text| text.contains("web.service"))?;
    pty.press("n")?;
    pty.sees("namespaces", |text| text.contains("(outside pods)"))?;
    pty.press("n?")?;
    pty.sees("help", |text| text.contains("Any key goes back."))?;
    pty.press("x")?;
    pty.sees("the table", |text| text.contains("OWNER"))?;
    pty.press("q")?;
    given_back(&mut pty)
}

#[test]
fn figures_follow_the_ticks_and_stay_in_a_pause() -> Result<()> {
    let fixture = Fixture::start()?;
    let mut pty = on_terminal(&fixture)?;
    fixture.tick();
    pty.sees("the second tick", |text| text.contains("2.000"))?;
    pty.press("p")?;
    pty.sees("a pause", |text| text.contains("PAUSED"))?;
    fixture.tick();
    pty.press("p")?;
    pty.sees("the third tick", |text| text.contains("3.000") && text.contains("live"))?;
    pty.press("\x03")?;
    given_back(&mut pty)
}

#[test]
fn another_size_is_drawn_anew() -> Result<()> {
    let fixture = Fixture::start()?;
    let mut pty = on_terminal(&fixture)?;
    pty.resize(40, 10)?;
    pty.sees("fewer figures", |text| text.contains("P99") && !text.contains("SENT"))?;
    pty.resize(100, 30)?;
    pty.sees("all figures", |text| text.contains("SENT") && text.lines().count() == 30)?;
    pty.press("q")?;
    given_back(&mut pty)
}

#[test]
fn an_agent_that_stops_answering_is_told_and_so_is_its_return() -> Result<()> {
    let fixture = Fixture::start()?;
    let mut pty = on_terminal(&fixture)?;
    fixture.set_broken(true);
    pty.sees("what is wrong", |text| text.contains("STALE") && text.contains("s: too busy"))?;
    pty.sees("the last figures", |text| text.contains("web.service"))?;
    fixture.set_broken(false);
    fixture.tick();
    pty.sees("figures again", |text| text.contains("live") && text.contains("2.000"))?;
    pty.press("q")?;
    given_back(&mut pty)
}

#[test]
fn a_signal_gives_the_terminal_back() -> Result<()> {
    let fixture = Fixture::start()?;
    for signal in ["TERM", "HUP", "INT"] {
        let mut pty = on_terminal(&fixture)?;
        let kill = Command::new("kill").args(["-s", signal, &pty.pid().to_string()]).status()?;
        claim(kill.success(), || format!("kill: {kill}"))?;
        given_back(&mut pty).context(signal)?;
    }
    Ok(())
}

#[test]
fn no_color_is_heeded() -> Result<()> {
    let fixture = Fixture::start()?;
    let coloured = |pty: &Pty| {
        let screen = pty.screen();
        let cells = (0..24).flat_map(|y| (0..80).map(move |x| (y, x)));
        let is_coloured = |cell: &vt100::Cell| cell.fgcolor() != vt100::Color::Default;
        cells.filter(|(y, x)| screen.cell(*y, *x).is_some_and(is_coloured)).count()
    };
    let pty = on_terminal(&fixture)?;
    claim(coloured(&pty) > 0, || "no colour at all".into())?;
    let mut command = top(&fixture.url())?;
    command.env("NO_COLOR", "1");
    let pty = Pty::start(&command, 80, 24)?;
    pty.sees("the table", |text| text.contains("web.service"))?;
    claim(coloured(&pty) == 0, || format!("{} coloured cells", coloured(&pty)))
}

#[test]
fn nobody_there_is_one_clear_line_and_no_screen() -> Result<()> {
    let url = format!("http://{}", free_address()?);
    let mut pty = Pty::start(&top(&url)?, 80, 24)?;
    let status = pty.end()?;
    claim(status.code() == Some(69), || format!("{status}"))?;
    pty.sees("the reason", |text| text.contains("is the agent running?"))?;
    claim(pty.is_given_back()?, || "the terminal was taken".into())
}

#[test]
fn without_a_terminal_there_is_one_table() -> Result<()> {
    let fixture = Fixture::start()?;
    let Output { status, stdout, stderr } = top(&fixture.url())?.args(["--sort", "wait"]).output()?;
    let text = String::from_utf8(stdout)?;
    claim(status.success() && stderr.is_empty(), || format!("{status} {text}"))?;
    let lines: Vec<&str> = text.lines().collect();
    claim(lines.len() == 5 && lines[0].starts_with("OWNER"), || text.clone())?;
    claim(lines[1].starts_with("(node)") && lines[2].starts_with("web.service"), || text.clone())?;
    claim(!text.contains('\x1b'), || text.clone())
}

/// The figures of a column, by the name of the row, in seconds a second.
fn figure(table: &str, row: &str, column: usize) -> Option<f64> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(row))?;
    match line.split_whitespace().nth(column)? {
        "-" => Some(0.0),
        text => text.parse().ok(),
    }
}

#[test]
fn a_task_that_always_wants_a_cpu_runs_or_waits_all_the_time() {
    kernel_test(|| {
        let agent = Settings::new().tick(TICK).start()?;
        let cgroup = Cgroup::new(UNIT)?;
        let url = format!("http://{}", agent.address());
        let mut work = Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?;
        let watched = cgroup.join(work.id()).and_then(|()| {
            let mut last = String::new();
            eventually("a whole tick of the work", WORK_LIMIT, || {
                last = String::from_utf8(top(&url)?.arg("--once").output()?.stdout)?;
                let both = figure(&last, UNIT, 1).zip(figure(&last, UNIT, 2));
                Ok(both.is_some_and(|(cpu, wait)| near("cpu + wait", cpu + wait, 1.0, 0.05, 0.0).is_ok()))
            })
            .with_context(|| last.clone())?;
            let sum: f64 =
                last.lines().skip(2).filter_map(|line| figure(line, line.split(' ').next()?, 1)).sum();
            near("the node's CPU time", figure(&last, "(node)", 1).unwrap_or_default(), sum, 0.01, 0.01)
        });
        let _ = work.kill();
        let _ = work.wait();
        watched
    });
}

#[test]
fn an_owner_that_came_with_the_newest_tick_is_counted_whole() {
    kernel_test(|| {
        let agent = Settings::new().tick(TICK).start()?;
        let cgroup = Cgroup::new(UNIT)?;
        let url = format!("http://{}", agent.address());
        let once = || Ok::<_, anyhow::Error>(String::from_utf8(top(&url)?.arg("--once").output()?.stdout)?);
        thread::scope(|scope| {
            let burner = scope.spawn(|| burn(&cgroup, BURN_MS));
            let (mut last, mut seen, mut after) = (String::new(), 0.0, 0);
            eventually("the ticks of the work and two more", WORK_LIMIT, || {
                let table = once()?;
                if table != last {
                    seen += figure(&table, UNIT, 1).unwrap_or_default();
                    after += i32::from(burner.is_finished());
                    last = table;
                }
                Ok(after > 2)
            })?;
            let Ok(burnt) = burner.join() else { bail!("the burner died") };
            near("CPU time over all ticks", seen * TICK.as_secs_f64(), burnt?.most_s, 0.02, 0.01)
        })
    });
}
