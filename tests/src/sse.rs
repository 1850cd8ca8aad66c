//! A client of server-sent events, as a browser's `EventSource` reads them.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Longer than between two signs of life.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: u64,
    /// What kind of message; empty where none is named.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// An open stream.
pub struct Events {
    reader: BufReader<TcpStream>,
    block: String,
    ready: VecDeque<Event>,
    /// The id that came last: what to go on behind.
    pub last_id: Option<u64>,
}

// === impl Events ===

impl Events {
    /// Opens a stream, behind an event where one is given.
    ///
    /// # Errors
    /// If the server cannot be reached or does not answer with a stream.
    pub fn open(address: SocketAddr, path: &str, last_id: Option<u64>) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connect to the server")?;
        stream.set_read_timeout(Some(crate::host::scaled(SILENCE_MAX)))?;
        let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{last}\r\n");
        (&stream).write_all(request.as_bytes()).context("send the request")?;
        let mut events =
            Self { reader: BufReader::new(stream), block: String::new(), ready: VecDeque::new(), last_id };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if events.reader.read_line(&mut head).context("read the header")? == 0 {
                bail!("no answer: {head}");
            }
        }
        let is_stream = head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream");
        if is_stream { Ok(events) } else { bail!("not a stream: {head}") }
    }

    /// The next event; none when the stream ends.
    ///
    /// # Errors
    /// If nothing comes for longer than signs of life may, or what comes is no stream of events.
    pub fn receive(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(chunk) = self.chunk()? else { return Ok(None) };
            self.block.push_str(&chunk);
            while let Some(end) = self.block.find("\n\n") {
                let block: String = self.block.drain(..end + 2).collect();
                self.take(&block)?;
            }
        }
    }

    /// Events up to the first of which a condition holds, it included.
    ///
    /// # Errors
    /// If the stream ends before, or none comes in time.
    pub fn until(&mut self, limit: Duration, mut is_last: impl FnMut(&Event) -> bool) -> Result<Vec<Event>> {
        let begun = Instant::now();
        let mut events = Vec::new();
        loop {
            let event = self.receive()?.context("the stream ended")?;
            let ends = is_last(&event);
            events.push(event);
            if ends {
                return Ok(events);
            }
            if begun.elapsed() > crate::host::scaled(limit) {
                bail!("not among {} events: the last is {:?}", events.len(), events.last());
            }
        }
    }

    fn take(&mut self, block: &str) -> Result<()> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            self.last_id = Some(id.parse().context("id")?);
        }
        let Some(data) = field("data: ") else { return Ok(()) };
        let event = Event {
            id: self.last_id.context("an event without an id")?,
            name: field("event: ").unwrap_or_default().to_owned(),
            data: serde_json::from_str(data).context("data")?,
        };
        self.ready.push_back(event);
        Ok(())
    }

    fn chunk(&mut self) -> Result<Option<String>> {
        let mut size = String::new();
        self.reader.read_line(&mut size).context("nothing came, not even a sign of life")?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        if size == 0 {
            return Ok(None);
        }
        let mut data = vec![0; size + 2];
        self.reader.read_exact(&mut data)?;
        data.truncate(size);
        String::from_utf8(data).map(Some).context("a chunk")
    }
}
