//! What a metric is: declared once, beside the code that produces it.
//!
//! Help lines, the reference page, the exposition's metadata and the check of dashboards all come from a [`Desc`].

/// Everything there is to say about one metric family.
#[derive(Debug, PartialEq, Eq)]
pub struct Desc {
    /// The full name as the text format prints it: counters with `_total`, info metrics with `_info`.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// One sentence: what is counted, when, and what is left out.
    pub help: &'static str,
    /// Whether it has the owner labels.
    pub scope: Scope,
    /// Its own labels, beside the owner's.
    pub labels: &'static [&'static str],
    /// How many series it can have, in words: the labels' value sets multiplied.
    pub bound: &'static str,
    /// The kernel event or file a value is taken at.
    pub source: &'static str,
}

/// What the values of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows, but for a restart of the agent.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
    /// Always 1; its labels are the message.
    Info,
}

/// The base unit of a family's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A plain count, a state, or an info metric.
    None,
    /// Seconds; raw counts behind it are nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A part of one.
    Ratio,
}

/// Whose figure a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One series an owner: pod container, systemd unit, the kernel, the overflow.
    Owner,
    /// The node's, without an owner.
    Node,
    /// The agent's own health.
    Agent,
}

// === impl Desc ===

impl Desc {
    /// One of the agent's own health.
    #[must_use]
    pub const fn of_agent(
        source: &'static str,
        name: &'static str,
        kind: Kind,
        unit: Unit,
        labels: &'static [&'static str],
        bound: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, help, scope: Scope::Agent, labels, bound, source }
    }

    /// The family's name as OpenMetrics declares it: without the suffix that its samples carry.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => return self.name,
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// A raw count in the family's unit: the kernel's nanoseconds become seconds.
    #[must_use]
    pub fn value_of(&self, raw: u64) -> f64 {
        match self.unit {
            Unit::Seconds => crate::seconds(raw),
            Unit::None | Unit::Bytes | Unit::Ratio => crate::float(raw),
        }
    }
}

// === impl Unit ===

impl Unit {
    /// The word that ends a family's name and follows `# UNIT`; empty for plain counts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
        }
    }
}
