//! The data set of the store's and the query language's figures: Kubernetes-like series, tick by tick, the same on
//! every machine. 42 % classic buckets, 25 % counters, 12 % idle counters, 6 % CPU seconds, the rest gauges.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "made-up numbers far below 2^53"
)]

/// xorshift64*.
pub struct Rng(u64);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    IdleCounter,
    Counter,
    CpuSeconds,
    Bucket,
    MemoryGauge,
    FloatGauge,
    IntGauge,
}

/// Family, kind, share in thousandths.
const FAMILIES: [(&str, Kind, u64); 9] = [
    ("container_network_receive_bytes_total", Kind::Counter, 90),
    ("container_network_transmit_packets_total", Kind::Counter, 90),
    ("ebpf_tcp_retransmits_total", Kind::IdleCounter, 120),
    ("ebpf_syscalls_total", Kind::Counter, 70),
    ("container_cpu_usage_seconds_total", Kind::CpuSeconds, 60),
    ("ebpf_http_request_duration_seconds_bucket", Kind::Bucket, 420),
    ("container_memory_working_set_bytes", Kind::MemoryGauge, 60),
    ("ebpf_runqueue_latency_ratio", Kind::FloatGauge, 40),
    ("container_open_fds", Kind::IntGauge, 50),
];
const LES: [&str; 14] = [
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
    "+Inf",
];

/// Makes values, a tick at a time.
pub struct Generator {
    kinds: Vec<Kind>,
    values: Vec<f64>,
    rates: Vec<f64>,
    rng: Rng,
}

// === impl Rng ===

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

// === impl Generator ===

impl Generator {
    /// So many series.
    #[must_use]
    pub fn new(series: usize) -> Self {
        let mut all = Self { kinds: Vec::new(), values: Vec::new(), rates: Vec::new(), rng: Rng::new(42) };
        for at in 0..series {
            let (kind, r) = (family(at, series).1, all.rng.unit());
            all.kinds.push(kind);
            all.rates.push(match kind {
                Kind::Counter => 10f64.powf(r * 5.0),
                Kind::CpuSeconds => 0.001 + r * 2.0,
                Kind::Bucket if r < 0.45 => 0.0,
                Kind::Bucket => 10f64.powf((r - 0.45) * 5.0),
                _ => r,
            });
            all.values.push(match kind {
                Kind::MemoryGauge => (r * 100_000.0).floor() * 4096.0,
                Kind::IntGauge => (r * 200.0).floor(),
                Kind::FloatGauge => r,
                Kind::CpuSeconds => (r * 1e6).floor() / 100.0,
                Kind::IdleCounter => (r * 50.0).floor(),
                _ => (r * 1e7).floor(),
            });
        }
        all
    }

    /// The next tick: every series' value.
    pub fn tick(&mut self) -> &[f64] {
        for ((kind, x), rate) in self.kinds.iter().zip(&mut self.values).zip(&self.rates) {
            let r = self.rng.unit();
            match kind {
                Kind::IdleCounter if r < 0.01 => *x += 1.0,
                Kind::Counter => *x += (rate * 5.0 * (0.5 + r)).floor(),
                Kind::CpuSeconds => {
                    *x += (rate * 5.0 * (0.8 + 0.4 * r) * 1e6).floor() / 1e6;
                    *x = (*x * 1e6).round() / 1e6;
                }
                Kind::Bucket if *rate > 0.0 => *x += (rate * 2.0 * r).floor(),
                Kind::MemoryGauge if r < 0.3 => {
                    *x = (*x + ((r - 0.15) * 2000.0).floor() * 4096.0).max(4096.0);
                }
                Kind::FloatGauge => *x = (*x * 0.9 + r * 0.1).abs(),
                Kind::IntGauge if r < 0.1 => *x = (*x + (r * 100.0).floor() - 5.0).max(0.0),
                _ => {}
            }
        }
        &self.values
    }
}

fn family(at: usize, series: usize) -> (&'static str, Kind) {
    let per_mille = at as u64 * 1000 / series.max(1) as u64;
    let mut sum = 0;
    for (name, kind, share) in FAMILIES {
        sum += share;
        if per_mille < sum {
            return (name, kind);
        }
    }
    ("container_open_fds", Kind::IntGauge)
}

/// All labels of series `at` of `series`, in order, the name first.
#[must_use]
pub fn labels(at: usize, series: usize) -> Vec<(&'static str, String)> {
    let (name, kind) = family(at, series);
    let j = if kind == Kind::Bucket { at / LES.len() } else { at };
    let pod = j % 500;
    let mut all: Vec<(&'static str, String)> = vec![
        ("__name__", name.into()),
        ("cluster", "prod-eu-1".into()),
        ("container", format!("c{}", j % 3)),
        ("namespace", format!("team-{}", pod % 20)),
        ("node", format!("ip-10-0-{}-{}.internal", pod % 16, pod % 7)),
        ("pod", format!("svc-{}-7d9f8b6c5d-{:05x}", pod, pod * 7919)),
        ("uid", format!("{:08x}-{:04x}", j as u64 * 2_654_435_761 % 0xffff_ffff, j % 65536)),
        ("workload", format!("svc-{pod}")),
    ];
    if kind == Kind::Bucket {
        all.push(("le", LES.get(at % LES.len()).copied().unwrap_or("+Inf").into()));
        let method = ["GET", "POST", "PUT"].get((j / 500) % 3).copied().unwrap_or("GET");
        all.push(("method", method.into()));
    } else {
        all.push(("device", format!("eth{}", (j / 500) % 8)));
    }
    all.sort();
    all
}

/// Milliseconds of tick `k`: 5 s apart, 0 to 3 ms of jitter common to the tick.
#[must_use]
pub fn timestamp(base: i64, k: i64) -> i64 {
    base + k * 5000 + ((k as u64).wrapping_mul(2_654_435_761) >> 7 & 3) as i64
}
