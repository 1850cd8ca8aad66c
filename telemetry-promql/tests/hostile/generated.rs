//! Queries by a grammar: whatever fits together is put together, and now and then what does not.

use telemetry_promql::ast::ValueType;
use telemetry_promql::functions::FUNCTIONS;

/// Makes queries; the same seed makes the same ones.
pub struct Grammar {
    state: u64,
}

const SELECTORS: &[&str] = &[
    "x_total",
    "x_total",
    "gap",
    "h_bucket",
    "n",
    "c",
    "n_bucket",
    "n_count",
    "target_info",
    "nothing",
    r#"{__name__=~".+"}"#,
    r#"{job="db"}"#,
    r#"x_total{pod=~"pod-1.*"}"#,
    r#"x_total{pod!~".*[13579]"}"#,
    r#"gap{zone=~"(?i)ZONE-[0-3]|x"}"#,
];
const LABELS: &[&str] =
    &["", "pod", "job", "instance", "zone", "le", "pod, job", "instance, job", "__name__"];
const DURATIONS: &[&str] = &["1ms", "10s", "1m", "5m", "30m", "1h", "2h", "1d", "10y"];
const STEPS: &[&str] = &["", "", "1s", "10s", "1m", "7m"];
const NUMBERS: &[&str] = &["0", "1", "-1", "0.5", "2", "1e300", "NaN", "Inf", "-Inf", "time()", "pi()"];
const TEXTS: &[&str] =
    &[r#""a""#, r#""pod""#, r#""$1$1""#, r#""(.*)""#, r#""job""#, r#""""#, r#""__name__""#];
const OPERATORS: &[&str] = &[
    "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">= bool", "and", "or", "unless",
    "</", ">/",
];
const AGGREGATORS: &[&str] = &[
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "limitk",
    "limit_ratio",
];

// === impl Grammar ===

impl Grammar {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A query.
    pub fn query(&mut self) -> String {
        match self.below(20) {
            0 => self.range(2),
            1 => self.number(2),
            _ => self.vector(4),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    fn number(&mut self, depth: usize) -> String {
        match (depth, self.below(6)) {
            (0, _) | (_, 0..4) => self.one(NUMBERS).to_owned(),
            (_, 4) => format!("scalar({})", self.vector(depth - 1)),
            _ => format!("({} + {})", self.number(depth - 1), self.number(depth - 1)),
        }
    }

    /// Where and when a selector or a subquery looks.
    fn shift(&mut self) -> &'static str {
        self.one(&["", "", "", "", " offset 5m", " offset -1h", " @ end()", " @ start()", " @ 1700003600"])
    }

    fn range(&mut self, depth: usize) -> String {
        let (window, shift) = (self.one(DURATIONS), self.shift());
        if depth == 0 || self.below(4) > 0 {
            let kind = self.one(&["", "", "", "", "", " anchored", " smoothed"]);
            return format!("{}[{window}]{kind}{shift}", self.one(SELECTORS));
        }
        format!("({})[{window}:{}]{shift}", self.vector(depth - 1), self.one(STEPS))
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return format!("{}{}", self.one(SELECTORS), self.shift());
        }
        match self.below(10) {
            0 => format!("{}{}", self.one(SELECTORS), self.shift()),
            1..5 => self.call(depth - 1),
            5..8 => self.aggregation(depth - 1),
            _ => self.operation(depth - 1),
        }
    }

    fn call(&mut self, depth: usize) -> String {
        let function = &FUNCTIONS[self.below(FUNCTIONS.len())];
        let arguments: Vec<String> = function
            .args
            .iter()
            .map(|kind| match kind {
                ValueType::Vector => self.vector(depth),
                ValueType::Matrix => self.range(depth),
                ValueType::Scalar => self.number(depth),
                ValueType::String => self.one(TEXTS).to_owned(),
            })
            .collect();
        let call = format!("{}({})", function.name, arguments.join(", "));
        if function.returns == ValueType::Scalar { format!("vector({call})") } else { call }
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let aggregator = self.one(AGGREGATORS);
        let grouping = match self.below(3) {
            0 => String::new(),
            1 => format!(" by ({})", self.one(LABELS)),
            _ => format!(" without ({})", self.one(LABELS)),
        };
        let param = match aggregator {
            "topk" | "bottomk" | "quantile" | "limitk" | "limit_ratio" => {
                format!("{}, ", if self.below(3) == 0 { self.number(depth) } else { "3".to_owned() })
            }
            "count_values" => "\"v\", ".to_owned(),
            _ => String::new(),
        };
        format!("{aggregator}{grouping} ({param}{})", self.vector(depth))
    }

    fn operation(&mut self, depth: usize) -> String {
        let operator = self.one(OPERATORS);
        let is_set = matches!(operator, "and" | "or" | "unless");
        if !is_set && self.below(3) == 0 {
            return format!("({} {operator} {})", self.vector(depth), self.number(depth));
        }
        let matching = match self.below(4) {
            0 | 1 => String::new(),
            2 => format!(" on ({})", self.one(LABELS)),
            _ => format!(" ignoring ({})", self.one(LABELS)),
        };
        let group = match self.below(4) {
            0 if !is_set && !matching.is_empty() => self.one(&[" group_left", " group_right (job)"]),
            1 if !is_set => " fill(0)",
            _ => "",
        };
        format!("({} {operator}{matching}{group} {})", self.vector(depth), self.vector(depth))
    }
}
