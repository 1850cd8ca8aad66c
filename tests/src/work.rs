//! What a workload process does: the inside of [`crate::workload`].
//!
//! The process talks with the test over its descriptor 0: it says `ready` (servers add their address), waits for
//! `go`, works, says `done` with the facts it knows of its own work, and then stays, asleep, until the test hangs
//! up, so that the kernel's figures of it can still be read.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Names the work to a process that is to do it.
pub const VARIABLE: &str = "TELEMETRY_WORKLOAD";
/// What direct I/O must be aligned to: the largest logical block size in use.
const ALIGNMENT: usize = 4096;
/// What one read or write of a stream asks for at most.
const CHUNK: usize = 65_536;

/// The test at the other end.
struct Test {
    lines: BufReader<UnixStream>,
}

/// Does the work the environment names, if it names any.
///
/// # Errors
/// If the work fails; the test sees the process end without `done`.
pub fn run_if_asked() -> Result<bool> {
    let Ok(work) = std::env::var(VARIABLE) else { return Ok(false) };
    // SAFETY: whoever sets the variable passes a socket as descriptor 0, and nothing else of this process uses it.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    let mut test = Test { lines: BufReader::new(socket) };
    let words: Vec<&str> = work.split_whitespace().collect();
    let facts = run(&words, &mut test).with_context(|| work.clone())?;
    let facts: Vec<String> = facts.iter().map(u64::to_string).collect();
    test.say(&format!("done {}", facts.join(" ")))?;
    test.wait_for_end()?;
    Ok(true)
}

// === impl Test ===

impl Test {
    fn say(&mut self, line: &str) -> Result<()> {
        self.lines.get_mut().write_all(format!("{line}\n").as_bytes()).context("the test is gone")
    }

    fn ready(&mut self, address: &str) -> Result<()> {
        self.say(&format!("ready {address}"))?;
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the test hung up");
        }
        Ok(())
    }

    fn wait_for_end(&mut self) -> Result<()> {
        self.lines.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

fn run(words: &[&str], test: &mut Test) -> Result<Vec<u64>> {
    match *words {
        ["spin", ms] => spin(test, millis(ms)?),
        ["syscalls", ms] => syscalls(test, millis(ms)?),
        ["naps", count] => naps(test, count.parse()?),
        ["hop", count] => hop(test, count.parse()?),
        ["direct", "write", path, count, size] => {
            direct(test, path, count.parse()?, size.parse()?, Direction::Write)
        }
        ["direct", "read", path, count, size] => {
            direct(test, path, count.parse()?, size.parse()?, Direction::Read)
        }
        ["buffered", path, size] => buffered(test, path, size.parse()?),
        ["sync", path] => sync(test, path),
        ["tcp-server", address, reply] => tcp_server(test, address, reply.parse()?),
        ["tcp-client", address, size, pause_ms] => {
            tcp_client(test, address, size.parse()?, millis(pause_ms)?)
        }
        ["connect", address] => connect(test, address),
        ["connections", count] => connections(test, count.parse()?),
        ["udp-loop", count, size] => udp_loop(test, count.parse()?, size.parse()?),
        ["udp-sink", address, count] => udp_sink(test, address, count.parse()?),
        ["udp-source", address, count, size] => udp_source(test, address, count.parse()?, size.parse()?),
        _ => bail!("no such work"),
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Burns a CPU in user mode for a stretch of the clock's time.
fn spin(test: &mut Test, time: Duration) -> Result<Vec<u64>> {
    test.ready("")?;
    let start = Instant::now();
    while start.elapsed() < time {
        // Long enough between two looks at the clock that a clock that needs the kernel does not show.
        for step in 0..50_000_u32 {
            black_box(step);
        }
    }
    Ok(Vec::new())
}

/// Burns a CPU inside the kernel: it clears pages for us.
fn syscalls(test: &mut Test, time: Duration) -> Result<Vec<u64>> {
    let mut zeros = File::open("/dev/zero")?;
    let mut buffer = vec![0; CHUNK];
    test.ready("")?;
    let start = Instant::now();
    while start.elapsed() < time {
        zeros.read_exact(&mut buffer)?;
    }
    Ok(Vec::new())
}

/// Leaves its CPU `count` times by itself.
fn naps(test: &mut Test, count: u32) -> Result<Vec<u64>> {
    test.ready("")?;
    for _ in 0..count {
        thread::sleep(Duration::from_micros(500));
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(500) {
            black_box(0);
        }
    }
    Ok(Vec::new())
}

/// Goes to the other CPU `count` times.
fn hop(test: &mut Test, count: usize) -> Result<Vec<u64>> {
    test.ready("")?;
    for step in 0..count {
        crate::workload::pin_this_thread(step % 2)?;
    }
    Ok(Vec::new())
}

/// `count` single requests past the page cache. Facts: how many failed, and the nanoseconds of those that did not.
fn direct(test: &mut Test, path: &str, count: u64, size: usize, direction: Direction) -> Result<Vec<u64>> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let buffer = vec![7_u8; size + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let aligned = buffer.get(start..start + size).context("alignment")?.as_ptr().cast_mut();
    test.ready("")?;
    let (mut failed, mut busy_ns) = (0, 0);
    for turn in 0..count {
        let offset = i64::try_from(turn * u64::try_from(size)?)?;
        let began = Instant::now();
        let done = match direction {
            // SAFETY: `aligned` points at `size` bytes of `buffer`, which outlives the call; pread may write them,
            // and nothing else reads them.
            Direction::Read => unsafe { libc::pread(file.as_raw_fd(), aligned.cast(), size, offset) },
            // SAFETY: as above; pwrite only reads them.
            Direction::Write => unsafe { libc::pwrite(file.as_raw_fd(), aligned.cast(), size, offset) },
        };
        if usize::try_from(done) == Ok(size) {
            busy_ns += u64::try_from(began.elapsed().as_nanos())?;
        } else {
            failed += 1;
        }
    }
    drop(buffer);
    Ok(vec![failed, busy_ns])
}

/// Dirties pages of a file and leaves writing them back to others.
fn buffered(test: &mut Test, path: &str, size: usize) -> Result<Vec<u64>> {
    let mut file = File::create(path)?;
    test.ready("")?;
    file.write_all(&vec![5; size])?;
    Ok(Vec::new())
}

/// Writes back what others dirtied.
fn sync(test: &mut Test, path: &str) -> Result<Vec<u64>> {
    let dir = File::open(path)?;
    test.ready("")?;
    // SAFETY: the descriptor is open for as long as `dir` lives.
    if unsafe { libc::syncfs(dir.as_raw_fd()) } != 0 {
        return Err(std::io::Error::last_os_error()).context("syncfs");
    }
    Ok(Vec::new())
}

/// Takes one connection, reads it to its end, answers with `reply` bytes. Facts: bytes read.
fn tcp_server(test: &mut Test, address: &str, reply: usize) -> Result<Vec<u64>> {
    let listener = TcpListener::bind(address).context("listen")?;
    test.ready(&listener.local_addr()?.to_string())?;
    let (mut stream, _) = listener.accept()?;
    let got = read_to_end(&mut stream)?;
    write_all(&mut stream, reply)?;
    Ok(vec![got])
}

/// Connects, sends `size` bytes, reads the answer to its end. After half of it, it tells the test (`half`) and waits
/// for a word, then for `pause`. Facts: bytes read, retransmitted segments by its own socket, nanoseconds to connect.
fn tcp_client(test: &mut Test, address: &str, size: usize, pause: Duration) -> Result<Vec<u64>> {
    test.ready("")?;
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).context("connect")?;
    let connect_ns = u64::try_from(start.elapsed().as_nanos())?;
    write_all(&mut stream, size / 2)?;
    if !pause.is_zero() {
        test.ready("half")?;
        thread::sleep(pause);
    }
    write_all(&mut stream, size - size / 2)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let got = read_to_end(&mut stream)?;
    let retransmits = total_retransmits(&stream)?;
    drop(stream);
    Ok(vec![got, retransmits, connect_ns])
}

/// Tries to connect. Facts: the error number, 0 for none.
fn connect(test: &mut Test, address: &str) -> Result<Vec<u64>> {
    test.ready("")?;
    match TcpStream::connect(address) {
        Ok(_) => Ok(vec![0]),
        Err(error) => Ok(vec![u64::try_from(error.raw_os_error().unwrap_or(-1)).context("no error number")?]),
    }
}

/// Connects to itself `count` times, one after the other.
fn connections(test: &mut Test, count: u32) -> Result<Vec<u64>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    test.ready("")?;
    for _ in 0..count {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        // The server closes first, so that the client's port does not stay taken.
        drop(server);
        drop(client);
    }
    Ok(Vec::new())
}

/// Sends itself `count` datagrams, one after the other.
fn udp_loop(test: &mut Test, count: u32, size: usize) -> Result<Vec<u64>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    let mut payload = vec![3; size];
    test.ready("")?;
    for _ in 0..count {
        socket.send(&payload)?;
        socket.recv(&mut payload)?;
    }
    Ok(Vec::new())
}

/// Takes `count` datagrams. Facts: payload bytes.
fn udp_sink(test: &mut Test, address: &str, count: u64) -> Result<Vec<u64>> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(crate::host::scaled(Duration::from_secs(5))))?;
    test.ready(&socket.local_addr()?.to_string())?;
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    for _ in 0..count {
        bytes += u64::try_from(socket.recv(&mut buffer)?)?;
    }
    Ok(vec![bytes])
}

/// Sends `count` datagrams of `size` bytes.
fn udp_source(test: &mut Test, address: &str, count: u64, size: usize) -> Result<Vec<u64>> {
    let address: SocketAddr = address.parse()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    test.ready("")?;
    let payload = vec![3; size];
    for _ in 0..count {
        socket.send_to(&payload, address)?;
    }
    Ok(Vec::new())
}

fn read_to_end(stream: &mut TcpStream) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(total);
        }
        total += u64::try_from(got)?;
    }
}

fn write_all(stream: &mut TcpStream, mut left: usize) -> Result<()> {
    let buffer = vec![1; CHUNK];
    while left > 0 {
        let part = buffer.get(..left.min(CHUNK)).context("chunk")?;
        stream.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// Segments the socket sent again, by its own count.
fn total_retransmits(stream: &TcpStream) -> Result<u64> {
    // include/uapi/linux/tcp.h: tcpi_total_retrans is the u32 at byte 100 of tcp_info, since 2.6.
    const TOTAL_RETRANSMITS: usize = 100;
    let mut info = [0_u8; 104];
    let mut length = libc::socklen_t::try_from(info.len())?;
    // SAFETY: the descriptor is open, `info` is as long as `length` says, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("TCP_INFO");
    }
    let field = info.get(TOTAL_RETRANSMITS..TOTAL_RETRANSMITS + 4).context("TCP_INFO is short")?;
    Ok(u32::from_ne_bytes(field.try_into()?).into())
}

fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}
