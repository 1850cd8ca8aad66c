//! Compression, of answers and of what clients send. What is sent inflates no further than its reader allows.

use std::io::{self, Write};

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::routes;
use crate::expose;

/// gzip's fastest level: a page of 2,000 lines takes 0.8 ms and shrinks to a thirteenth; the next level takes 1.7 ms for a
/// sixteenth, the default 4.2 ms for a nineteenth.
const GZIP_LEVEL: Compression = Compression::fast();
/// zstd's first level: smaller and quicker than gzip's.
const ZSTD_LEVEL: i32 = 1;
/// Logarithm of the most memory that a sender's zstd may want to look back: 8 MiB, what its own tool takes unasked.
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes that are inflated at once.
const PART: usize = 64 * 1024;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Compresses what is written.
pub(super) enum Encoder<W: Write> {
    Identity(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

/// Why a body cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// Nobody here knows it.
    #[error("content encoding {0:?} is none of gzip, zstd, identity")]
    Unknown(String),
    /// It would not end soon enough.
    #[error("a body may have {0} bytes when inflated")]
    TooLarge(usize),
    /// It is not what it says.
    #[error("{0}")]
    Malformed(String),
}

// === impl Coding ===

impl Coding {
    /// What a client that sends these headers gets: of those that it likes best, zstd before gzip.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        routes::joined(headers, &ACCEPT_ENCODING).map_or(Self::Identity, |accepted| accepted_best(&accepted))
    }

    /// By the name that headers have for it.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    /// Bytes as they were before their sender compressed them, `max` at most.
    ///
    /// # Errors
    /// If they are more, or malformed.
    pub(super) fn decode(self, bytes: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
        let malformed = |error: io::Error| DecodeError::Malformed(error.to_string());
        match self {
            Self::Identity => read_within(bytes, max),
            Self::Gzip => read_within(MultiGzDecoder::new(bytes), max),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(bytes).map_err(malformed)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(malformed)?;
                read_within(decoder, max)
            }
        }
    }

    /// Bytes, compressed.
    #[must_use]
    pub fn encode(self, bytes: Vec<u8>) -> Vec<u8> {
        if self == Self::Identity {
            return bytes;
        }
        let room = Vec::with_capacity(bytes.len() / 8);
        let encoded = Encoder::new(self, room).and_then(|mut encoder| {
            encoder.write_all(&bytes)?;
            encoder.finish()
        });
        // Writing to a Vec cannot fail.
        encoded.unwrap_or_default()
    }

    /// Says in an answer how it is compressed.
    pub(super) fn mark(self, response: &mut Response) {
        let name = match self {
            Self::Identity => return,
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        };
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
}

// === impl Encoder ===

impl<W: Write> Encoder<W> {
    pub(super) fn new(coding: Coding, out: W) -> io::Result<Self> {
        Ok(match coding {
            Coding::Identity => Self::Identity(out),
            Coding::Gzip => Self::Gzip(GzEncoder::new(out, GZIP_LEVEL)),
            Coding::Zstd => Self::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }

    /// Writes what is left.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Identity(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Identity(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Identity(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// A body as it was before its sender compressed it as he says, `max` bytes at most.
///
/// # Errors
/// If it is longer, malformed, or of a coding that is not known.
pub(super) fn decoded(coding: &str, body: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let known = Coding::named(coding).ok_or_else(|| DecodeError::Unknown(coding.to_owned()))?;
    known.decode(body, max)
}

/// All that a reader has, into a buffer that never has room for more than `max`: one that doubles would have half as much
/// again.
fn read_within(mut reader: impl io::Read, max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let mut part = vec![0; PART];
    loop {
        let read = match reader.read(&mut part) {
            Ok(0) => return Ok(out),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DecodeError::Malformed(error.to_string())),
        };
        let length = out.len() + read;
        if length > max {
            return Err(DecodeError::TooLarge(max));
        }
        if length > out.capacity() {
            out.reserve_exact((2 * length).min(max) - out.len());
        }
        out.extend_from_slice(part.get(..read).unwrap_or_default());
    }
}

/// The best coding that an `Accept-Encoding` header allows.
fn accepted_best(accept_encoding: &str) -> Coding {
    // What is not named weighs what the wildcard does.
    let (mut gzip, mut zstd, mut wildcard) = (None, None, None);
    for coding in accept_encoding.split(',') {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = match parameters.trim().split_once('=') {
            Some((q, value)) if q.trim().eq_ignore_ascii_case("q") => expose::thousandths(value.trim()),
            _ => Some(1000),
        };
        let weight = Some(weight.unwrap_or(0));
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = weight,
            "zstd" => zstd = weight,
            "*" => wildcard = weight,
            _ => {}
        }
    }
    // Whoever takes anything is known to read gzip.
    let (gzip, zstd) = (gzip.or(wildcard).unwrap_or(0), zstd.unwrap_or(0));
    match (gzip, zstd) {
        (0, 0) => Coding::Identity,
        (gzip, zstd) if zstd >= gzip => Coding::Zstd,
        _ => Coding::Gzip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compressed_as_clients_like_it_best() {
        let check = |accept_encoding: &str, expected| {
            assert_eq!(accepted_best(accept_encoding), expected, "{accept_encoding:?}");
        };
        check("gzip", Coding::Gzip);
        check("deflate, GZIP;q=0.5, br", Coding::Gzip);
        check("x-gzip", Coding::Gzip);
        check("*", Coding::Gzip);
        check("gzip, deflate, br, zstd", Coding::Zstd);
        check("zstd;q=0.5, gzip;q=0.6", Coding::Gzip);
        check("zstd;q=0, gzip;q=0.6", Coding::Gzip);
        check("", Coding::Identity);
        check("identity", Coding::Identity);
        check("gzip;q=0", Coding::Identity);
        check("gzip; q=0.000, *", Coding::Identity);
        check("*;q=0", Coding::Identity);
        check("gzip;q=nonsense", Coding::Identity);
        check("gzipped", Coding::Identity);
    }

    #[test]
    fn what_is_compressed_is_what_it_was() {
        let text = b"kernel_cpu_seconds_total 1\n".repeat(100);
        for (coding, name) in [(Coding::Identity, ""), (Coding::Gzip, "gzip"), (Coding::Zstd, "zstd")] {
            let encoded = coding.encode(text.clone());
            assert!(coding == Coding::Identity || encoded.len() < text.len() / 5, "{coding:?}");
            assert_eq!(decoded(name, &encoded, text.len()).unwrap(), text);
            let cut = decoded(name, &encoded[..encoded.len() - 5], text.len());
            assert_eq!(cut.is_err(), coding != Coding::Identity, "{coding:?}");
        }
        assert!(matches!(decoded("br", &text, 1 << 20), Err(DecodeError::Unknown(_))));
        assert!(matches!(decoded("gzip", &text, 1 << 20), Err(DecodeError::Malformed(_))));
        assert!(matches!(decoded("zstd", &text, 1 << 20), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let zeros = vec![0; 64 << 20];
        for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Zstd, "zstd")] {
            let bomb = coding.encode(zeros.clone());
            assert!(bomb.len() < zeros.len() / 200, "{}", bomb.len());
            assert_eq!(decoded(name, &bomb, 1 << 20), Err(DecodeError::TooLarge(1 << 20)));
        }
        // One that wants to look back 128 MiB.
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.write_all(&zeros).unwrap();
        let wide = wide.finish().unwrap();
        assert!(matches!(decoded("zstd", &wide, 128 << 20), Err(DecodeError::Malformed(_))));
    }
}
