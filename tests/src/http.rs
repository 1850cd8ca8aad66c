//! An HTTP/1.1 client of one request a connection: enough for pages whose server is under test.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// No answer takes longer on a machine that is merely busy.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is sent makes a server write, on a disk that others use.
const POST_TIMEOUT: Duration = Duration::from_secs(120);

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
}

// === impl Response ===

impl Response {
    /// The value of the header `name`, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Asks for one page.
///
/// # Errors
/// If the server cannot be reached, or does not answer in HTTP/1.1.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    exchange("GET", address, path, headers, None, TIMEOUT)
}

/// Asks for one page whose server may think about it for so long.
///
/// # Errors
/// As [`get`].
pub fn get_within(limit: Duration, address: SocketAddr, path: &str) -> Result<Response> {
    exchange("GET", address, path, &[], None, limit)
}

/// Asks for one page, and tells how long it took to the last byte: what is done with the answer is not counted.
///
/// # Errors
/// As [`get`].
pub fn timed_get(limit: Duration, address: SocketAddr, path: &str) -> Result<(Duration, Response)> {
    let begun = Instant::now();
    let answer = raw("GET", address, path, &[], None, limit)?;
    let took = begun.elapsed();
    Ok((took, parse(&answer)?))
}

/// Sends a body.
///
/// # Errors
/// If the server cannot be reached, or does not answer in HTTP/1.1.
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    exchange("POST", address, path, headers, Some(body), POST_TIMEOUT)
}

/// A text as it stands in a path's query.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn exchange(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    limit: Duration,
) -> Result<Response> {
    parse(&raw(method, address, path, headers, body, limit)?)
}

fn raw(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    limit: Duration,
) -> Result<Vec<u8>> {
    let limit = crate::host::scaled(limit);
    let mut stream = TcpStream::connect_timeout(&address, limit).context("connect to the server")?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).context("send the request")?;
    stream.write_all(body.unwrap_or_default()).context("send the body")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<Response> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("{} bytes without an end of the header", answer.len());
    };
    let (head, rest) = answer.split_at(end);
    let body = rest.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).context("header")?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|text| text.get(..3))
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("status line {status_line:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Ok(Response { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end =
            rest.windows(2).position(|window| window == b"\r\n").context("chunk without a size line")?;
        let (size, after) = rest.split_at(end);
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16).context("chunk size")?;
        if size == 0 {
            return Ok(body);
        }
        let data = after.get(2..).unwrap_or_default();
        body.extend_from_slice(data.get(..size).context("chunk cut short")?);
        rest = data.get(size + 2..).context("chunk without an end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_bodies_read_the_same() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd").unwrap();
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!((plain.status, plain.body.as_slice()), (200, &b"abcd"[..]));
        assert_eq!(chunked.body, plain.body);
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").is_err());
    }
}
