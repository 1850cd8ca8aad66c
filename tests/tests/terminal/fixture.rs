//! An agent's query API, as far as `top` asks it: known owners whose figures follow the number of the tick.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Milliseconds since 1970 of the tick 0, and between ticks.
const START_MS: u64 = 1_764_174_670_000;
const TICK_MS: u64 = 1000;

/// What the server does.
#[derive(Default)]
struct State {
    /// Answers with an error as long as this is set.
    is_broken: AtomicBool,
    /// The number of the newest tick.
    tick: AtomicU64,
}

/// The server. It goes on as long as the process.
pub struct Fixture {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

// === impl Fixture ===

impl Fixture {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { tick: AtomicU64::new(1), ..State::default() });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up in between is the client's business.
                let _ = serve(stream, &shared);
            }
        });
        Ok(Self { address, state })
    }

    /// As the argument of `--url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another tick comes.
    pub fn tick(&self) {
        self.state.tick.fetch_add(1, Ordering::SeqCst);
    }

    /// Refuses all questions from now on, or answers again.
    pub fn set_broken(&self, is_broken: bool) {
        self.state.is_broken.store(is_broken, Ordering::SeqCst);
    }
}

/// One question of one connection.
fn serve(stream: TcpStream, state: &State) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            bail!("hung up");
        }
    }
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut form = vec![0; length.context("no length")?];
    reader.read_exact(&mut form)?;
    let form = String::from_utf8(form)?;
    let (status, body) = if state.is_broken.load(Ordering::SeqCst) {
        (
            "503 Service Unavailable",
            json!({"status": "error", "errorType": "unavailable", "error": "too busy"}),
        )
    } else {
        let result = answer(&form, state.tick.load(Ordering::SeqCst));
        ("200 OK", json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (&stream).write_all((head + &body).as_bytes())?;
    Ok(())
}

/// The series of a question, told by what is in its form.
fn answer(form: &str, tick: u64) -> Value {
    let asks = |text: &str| form.contains(text);
    let seconds = |tick: u64| (START_MS + tick * TICK_MS) as f64 / 1e3;
    if asks("telemetry_agent_ticks_total") {
        return json!([{"metric": {}, "values": [[seconds(tick - 1), "1"], [seconds(tick), "2"]]}]);
    }
    let at = seconds(tick);
    let one = |labels: Value, value: f64| json!({"metric": labels, "value": [at, value.to_string()]});
    let web = json!({"unit": "web.service"});
    let app = json!({"namespace": "shop", "pod": "checkout-0", "container": "app"});
    let evil = json!({"unit": "evil\u{1b}[2J\u{1b}]0;title\u{7}\n"});
    if asks("histogram_quantile") {
        let by = if asks("by+%28namespace%29") { json!({"namespace": "shop"}) } else { app };
        return if asks("by+%28%29") { json!([one(json!({}), 0.002)]) } else { json!([one(by, 0.004)]) };
    }
    if asks("kernel_cpu_seconds_total") {
        return json!([one(web, 0.25), one(app, tick as f64), one(evil, 0.001)]);
    }
    if asks("kernel_sched_runqueue_latency_seconds_sum") {
        return json!([one(web, 2.5)]);
    }
    if asks("kernel_network_bytes_total") {
        return json!([one(json!({"unit": "web.service", "direction": "transmit"}), 1e6)]);
    }
    json!([one(json!({"unit": "web.service", "op": "write"}), 4096.0)])
}
