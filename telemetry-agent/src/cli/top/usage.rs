//! What one owner, namespace or node uses: figures, the orders they can be sorted in, and how they are written.

use std::cmp::Ordering;

use clap::ValueEnum;

use crate::cli::text::printable;

/// Labels that tell owners apart.
pub const OWNER_LABELS: [&str; 6] = ["namespace", "pod", "container", "unit", "container_id", "pod_uid"];
/// What the owners outside any namespace are called together.
pub const NO_NAMESPACE: &str = "(outside pods)";
/// Digits of an id that are shown where there is no name: as many as container runtimes show.
const ID_DIGITS: usize = 12;

/// What is used, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time, in seconds a second: CPUs.
    pub cpu: f64,
    /// Time that tasks waited for a CPU, in seconds a second, of all tasks together.
    pub wait: f64,
    /// The wait that 99 of 100 stays on a CPU did not exceed, in seconds. `None` where nothing waited, or where it was
    /// not asked.
    pub wait_p99: Option<f64>,
    /// Bytes read from disks.
    pub read: f64,
    /// Bytes written to disks.
    pub write: f64,
    /// Bytes of packets received.
    pub receive: f64,
    /// Bytes of packets sent.
    pub transmit: f64,
}

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Tells it from all other rows of the table; not to be shown.
    pub id: String,
    /// Its name, harmless in a terminal.
    pub name: String,
    /// Its namespace as the label says it; empty outside pods.
    pub namespace: String,
    /// Its figures.
    pub usage: Usage,
}

/// By what the rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// CPU time.
    #[default]
    Cpu,
    /// Time that tasks waited for a CPU.
    Wait,
    /// The 99th percentile of that wait.
    P99,
    /// Bytes read from and written to disks.
    Disk,
    /// Bytes received and sent.
    Network,
    /// Name.
    Name,
}

/// A column behind the name.
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// What sorts by it.
    pub sort: Sort,
    /// Its text in a row.
    pub text: fn(&Usage) -> String,
}

/// All columns, in the order in which a narrow terminal keeps them.
pub const COLUMNS: [Column; 7] = [
    Column { title: "CPU", sort: Sort::Cpu, text: |usage| seconds_a_second(usage.cpu) },
    Column { title: "WAIT", sort: Sort::Wait, text: |usage| seconds_a_second(usage.wait) },
    Column { title: "P99", sort: Sort::P99, text: |usage| usage.wait_p99.map_or_else(nothing, duration) },
    Column { title: "READ", sort: Sort::Disk, text: |usage| bytes(usage.read) },
    Column { title: "WRITE", sort: Sort::Disk, text: |usage| bytes(usage.write) },
    Column { title: "RECV", sort: Sort::Network, text: |usage| bytes(usage.receive) },
    Column { title: "SENT", sort: Sort::Network, text: |usage| bytes(usage.transmit) },
];

// === impl Usage ===

impl Usage {
    /// Adds what sums: all but the percentile.
    pub fn add(&mut self, other: &Self) {
        let Self { cpu, wait, wait_p99: _, read, write, receive, transmit } = other;
        self.cpu += cpu;
        self.wait += wait;
        self.read += read;
        self.write += write;
        self.receive += receive;
        self.transmit += transmit;
    }
}

// === impl Sort ===

impl Sort {
    /// The order that comes after this one when they are gone through.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Cpu => Self::Wait,
            Self::Wait => Self::P99,
            Self::P99 => Self::Disk,
            Self::Disk => Self::Network,
            Self::Network => Self::Name,
            Self::Name => Self::Cpu,
        }
    }

    /// Which of two rows stands higher: the one that uses more; of equals, and by name, the first name.
    #[must_use]
    pub fn order(self, a: &Row, b: &Row) -> Ordering {
        let key = |usage: &Usage| match self {
            Self::Cpu => usage.cpu,
            Self::Wait => usage.wait,
            Self::P99 => usage.wait_p99.unwrap_or(-1.0),
            Self::Disk => usage.read + usage.write,
            Self::Network => usage.receive + usage.transmit,
            Self::Name => 0.0,
        };
        let by_name = || (&a.name, &a.id).cmp(&(&b.name, &b.id));
        key(&b.usage).total_cmp(&key(&a.usage)).then_with(by_name)
    }
}

/// The name of an owner, by the values of [`OWNER_LABELS`].
#[must_use]
pub fn owner_name(values: &[String; 6]) -> String {
    let [namespace, pod, container, unit, container_id, pod_uid] = values;
    let short = |id: &str| id.chars().take(ID_DIGITS).collect::<String>();
    let parts: Vec<String> = if !unit.is_empty() {
        vec![unit.clone()]
    } else if !pod.is_empty() {
        [namespace, pod, container].into_iter().filter(|part| !part.is_empty()).cloned().collect()
    } else if pod_uid.is_empty() {
        vec!["container".to_owned(), short(container_id)]
    } else {
        // A pod's id differs in its first block already.
        let container = Some(short(container_id)).filter(|id| !id.is_empty());
        ["pod".to_owned(), pod_uid.clone()].into_iter().chain(container).collect()
    };
    printable(&parts.join("/"))
}

fn nothing() -> String {
    "-".to_owned()
}

/// `0.017`, `12.35`, `128.0`: seconds of CPUs a second, of which a microsecond is nothing.
fn seconds_a_second(value: f64) -> String {
    match value {
        value if value < 0.0005 => nothing(),
        value if value < 9.9995 => format!("{value:.3}"),
        value if value < 99.995 => format!("{value:.2}"),
        value if value < 99_999.0 => format!("{value:.1}").chars().take(6).collect(),
        value => format!("{value:.0e}"),
    }
}

/// `12µs`, `1.9ms`, `2.1s`
fn duration(seconds: f64) -> String {
    let in_unit = |value: f64, unit: &str| {
        if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
    };
    match seconds {
        seconds if seconds < 999.5e-9 => in_unit(seconds * 1e9, "ns"),
        seconds if seconds < 999.5e-6 => in_unit(seconds * 1e6, "µs"),
        seconds if seconds < 999.5e-3 => in_unit(seconds * 1e3, "ms"),
        seconds => in_unit(seconds, "s"),
    }
}

/// `512`, `1.5Ki`, `12.3Mi`
fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if value < 0.5 {
        return nothing();
    }
    let (mut value, mut unit) = (value, "");
    for larger in UNITS {
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit.is_empty() || value >= 99.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        let cpu = [0.0, 0.0004, 0.017, 1.9696, 9.9996, 12.345, 100.0, 4096.25, 1e9].map(seconds_a_second);
        assert_eq!(cpu, ["-", "-", "0.017", "1.970", "10.00", "12.35", "100.0", "4096.2", "1e9"]);
        let p99 = [2.38e-7, 4.2e-6, 85e-6, 1.9e-3, 0.5, 2.14, 1024.0].map(duration);
        assert_eq!(p99, ["238ns", "4.2µs", "85µs", "1.9ms", "500ms", "2.1s", "1024s"]);
        let disk = [0.0, 0.4, 512.0, 1023.0, 1023.7, 1536.0, 104_857_600.0, 1.2e18].map(bytes);
        assert_eq!(disk, ["-", "-", "512", "1023", "1.0Ki", "1.5Ki", "100Mi", "1.0Ei"]);
        for text in cpu.iter().chain(&p99).chain(&disk) {
            assert!(text.chars().count() <= 6, "{text}");
        }
    }

    fn name(namespace: &str, pod: &str, container: &str, unit: &str, id: &str, uid: &str) -> String {
        owner_name(&[namespace, pod, container, unit, id, uid].map(str::to_owned))
    }

    #[test]
    fn every_kind_of_owner_has_a_name() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(name("shop", "checkout-2", "app", "", "", ""), "shop/checkout-2/app");
        assert_eq!(name("shop", "checkout-2", "", "", "", ""), "shop/checkout-2");
        assert_eq!(name("", "", "", "web.service", "", ""), "web.service");
        assert_eq!(name("", "", "", "", id, ""), "container/0123456789ab");
        assert_eq!(name("", "", "", "", id, "5f1c"), "pod/5f1c/0123456789ab");
        assert_eq!(name("", "", "", "", "", "5f1c"), "pod/5f1c");
        assert_eq!(name("", "", "", "a\u{1b}c", "", ""), "a\u{fffd}c");
    }

    #[test]
    fn more_stands_higher_and_equals_by_name() {
        let row = |name: &str, cpu, read| Row {
            id: name.into(),
            name: name.into(),
            usage: Usage { cpu, read, ..Usage::default() },
            ..Row::default()
        };
        let mut rows = [row("c", 1.0, 0.0), row("a", 2.0, 5.0), row("b", 1.0, 9.0)];
        let mut names = |sort: Sort| {
            rows.sort_by(|a, b| sort.order(a, b));
            rows.iter().map(|row| row.name.clone()).collect::<String>()
        };
        assert_eq!(
            [names(Sort::Cpu), names(Sort::Disk), names(Sort::Name), names(Sort::P99)],
            ["abc", "bac", "abc", "abc"]
        );
    }
}
