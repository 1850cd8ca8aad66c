//! HTTP/2 frame by frame: clients that stall, flood and take back.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames, and flags of them.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection whose frames a test writes itself.
struct Frames(TcpStream);

// === impl Frames ===

impl Frames {
    fn open(server: &Server) -> Self {
        let mut frames = Self(server.connect());
        frames.0.set_nodelay(true).unwrap();
        frames.0.write_all(PREFACE).unwrap();
        assert!(frames.send(SETTINGS, 0, 0, &[]));
        frames
    }

    /// Whether it could still be written.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).is_ok()
    }

    fn request(&mut self, stream: u32, path: &str) -> bool {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &fields(path))
    }

    /// The next frame: kind, flags, stream and payload. None at the end.
    fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// Reads until a stream ends.
    fn read_answer(&mut self, wanted: u32) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.read()?;
            if stream == wanted && kind == DATA {
                body.extend(payload);
            }
            if stream == wanted && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Some(body);
            }
        }
    }

    /// Reads to the end; whether a farewell came.
    fn read_to_end(&mut self) -> bool {
        let mut has_farewell = false;
        while let Some((kind, ..)) = self.read() {
            has_farewell |= kind == GOAWAY;
        }
        has_farewell
    }
}

/// GET of a path, compressed by nothing but the static table.
fn fields(path: &str) -> Vec<u8> {
    let mut fields = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    fields.extend(path.as_bytes());
    fields.extend([0x41, 4]);
    fields.extend(b"test");
    fields
}

#[test]
fn several_requests_are_answered_at_once() {
    let server = Server::with_page(config(), 100);
    let mut frames = Frames::open(&server);
    for stream in [1, 3, 5] {
        assert!(frames.request(stream, "/livez"));
    }
    let mut ended = Vec::new();
    while ended.len() < 3 {
        let (kind, flags, stream, _) = frames.read().expect("the answers");
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            ended.push(stream);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 3, 5]);
    assert!(server.metric("telemetry_agent_http_server_requests_total", Some(("handler", "/livez"))) == 3.0);
}

#[test]
fn a_slow_header_costs_its_connection() {
    let limits = Config { header_timeout: Duration::from_millis(300), ..config() };
    let server = Server::with_page(limits, 100);
    let begun = Instant::now();
    let mut frames = Frames::open(&server);
    assert!(frames.send(HEADERS, END_STREAM, 1, &fields("/livez")[..3]));
    assert_eq!(server.get("/metrics", "").status, 200, "a scrape is answered meanwhile");
    // Parts keep coming, so that no single read is slow; more than five would be a flood, and end it for that.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(65));
        frames.send(CONTINUATION, 0, 1, &[]);
    }
    server.until("the slow connection is closed", |server| server.closed_for("header_timeout") > 0.0);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.closed_for("broken"), 0.0);
}

#[test]
fn pings_and_half_a_header_keep_no_connection_that_rests() {
    let limits = Config {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(700),
        ..config()
    };
    let server = Server::with_page(limits, 100);
    let mut frames = Frames::open(&server);
    assert!(frames.request(1, "/livez"));
    assert_eq!(frames.read_answer(1).as_deref(), Some(&b"ok\n"[..]));
    let rested = Instant::now();
    assert!(frames.send(HEADERS, END_STREAM, 3, &fields("/livez")[..3]));
    frames.0.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    while server.closed_for("idle_timeout") == 0.0 && server.closed_for("broken") == 0.0 {
        assert!(rested.elapsed() < PATIENCE, "it is never closed");
        let _ = frames.0.read(&mut [0; 256]);
    }
    assert!(rested.elapsed() >= Duration::from_millis(500), "a header that is not whole ends nothing before");

    let mut frames = Frames::open(&server);
    assert!(frames.request(1, "/livez"));
    assert!(frames.read_answer(1).is_some());
    let closed = server.closed_for("idle_timeout");
    let rested = Instant::now();
    frames.0.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    while server.closed_for("idle_timeout") == closed {
        assert!(rested.elapsed() < PATIENCE, "pings keep it open");
        frames.send(PING, 0, 0, &[0; 8]);
        let _ = frames.0.read(&mut [0; 256]);
    }
}

#[test]
fn an_answer_that_is_not_taken_ends_with_its_time() {
    let limits = Config { request_timeout: Duration::from_millis(800), ..config() };
    let server = Server::with_page(limits, 20_000);
    let begun = Instant::now();
    let mut frames = Frames::open(&server);
    assert!(frames.request(1, "/metrics"));
    // The window of 64 KiB is never made larger.
    assert!(frames.read_answer(1).is_none());
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    assert_eq!(server.closed_for("request_timeout"), 1.0);
    server.until("its place", |server| server.metric("telemetry_agent_http_server_connections", None) == 0.0);
}

#[test]
fn requests_taken_back_by_the_hundred_end_the_connection() {
    let server = Server::with_page(config(), 100);
    let mut frames = Frames::open(&server);
    for stream in (1..4001).step_by(2) {
        if !frames.request(stream, "/metrics") || !frames.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]) {
            break;
        }
    }
    frames.read_to_end();
    assert!(server.closed_for("broken") >= 1.0);
    assert_eq!(server.get("/metrics", "").status, 200);
}

#[test]
fn a_header_that_never_ends_is_refused() {
    let server = Server::with_page(config(), 100);
    let mut frames = Frames::open(&server);
    assert!(frames.send(HEADERS, END_STREAM, 1, &fields("/livez")));
    // Literal fields without indexing, `a: aaa…`.
    let field = [&[0, 1, b'a', 127, 0x81, 0x06][..], &[b'a'; 1024]].concat();
    let mut sent = 0;
    while sent < 4096 && frames.send(CONTINUATION, 0, 1, &field) {
        sent += 1;
    }
    assert!(sent < 4096, "4 MiB of header were taken");
    frames.read_to_end();
    assert_eq!(server.get("/metrics", "").status, 200);
}

#[test]
fn a_stop_lets_an_answer_end() {
    let server = Server::with_page(config(), 100);
    let mut frames = Frames::open(&server);
    assert!(frames.request(1, "/livez"));
    assert!(frames.read_answer(1).is_some());
    let took = server.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
    frames.read_to_end();
}
