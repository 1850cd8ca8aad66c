//! `prometheus.ReadRequest`: what is asked for.

use telemetry_model::{MatchOp, Matcher};

use crate::api::wire::{Fields, Malformed, Value};

/// Queries of one request; Prometheus asks one.
const QUERIES_MAX: usize = 64;
/// Matchers of one query.
const MATCHERS_MAX: usize = 256;

/// How an answer is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseType {
    /// `prometheus.ReadResponse`, all at once.
    Samples,
    /// `prometheus.ChunkedReadResponse`, many.
    StreamedXorChunks,
}

/// A request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ReadRequest {
    pub(super) queries: Vec<Query>,
    /// In the order of preference, as numbers: some may not be known.
    accepted: Vec<u64>,
}

/// One query.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    /// First millisecond, included.
    pub(super) from: i64,
    /// Last millisecond, included.
    pub(super) to: i64,
    pub(super) matchers: Vec<Matcher>,
    /// Whether label sets alone are wanted.
    pub(super) is_of_series: bool,
}

// === impl ReadRequest ===

impl ReadRequest {
    /// # Errors
    /// If it is not one, or has more than the limits.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.field()? {
            match number {
                1 if request.queries.len() < QUERIES_MAX => {
                    request.queries.push(Query::read(value.message()?)?);
                }
                1 => return Err(Malformed("too many queries")),
                2 => value.varints(|kind| request.accepted.push(kind))?,
                _ => {}
            }
        }
        Ok(request)
    }

    /// The first acceptable kind of answer; samples if nothing is said, as clients from before there were two say nothing.
    pub(super) fn response_type(&self) -> Option<ResponseType> {
        if self.accepted.is_empty() {
            return Some(ResponseType::Samples);
        }
        self.accepted.iter().find_map(|kind| match kind {
            0 => Some(ResponseType::Samples),
            1 => Some(ResponseType::StreamedXorChunks),
            _ => None,
        })
    }
}

// === impl Query ===

impl Query {
    fn read(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let mut query = Self::default();
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => query.from = value.int()?,
                2 => query.to = value.int()?,
                3 if query.matchers.len() < MATCHERS_MAX => query.matchers.push(matcher(value)?),
                3 => return Err(Malformed("too many matchers")),
                4 => query.is_of_series = function(value.message()?)? == "series",
                _ => {}
            }
        }
        Ok(query)
    }
}

fn matcher(value: Value<'_>) -> Result<Matcher, Malformed> {
    let mut fields = value.message()?;
    let (mut op, mut name, mut text) = (MatchOp::Equal, "", "");
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => {
                op = match value.varint()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(Malformed("unknown kind of matcher")),
                }
            }
            2 => name = value.text()?,
            3 => text = value.text()?,
            _ => {}
        }
    }
    Ok(Matcher { name: name.into(), op, value: text.into() })
}

/// The function that hints name.
fn function<'a>(mut hints: Fields<'a>) -> Result<&'a str, Malformed> {
    let mut function = "";
    while let Some((number, value)) = hints.field()? {
        if number == 2 {
            function = value.text()?;
        }
    }
    Ok(function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Message;

    fn request(accepted: &[u64]) -> Vec<u8> {
        let mut message = Message::default();
        message.message(1, |query| {
            query.int(1, -5);
            query.int(2, 1_700_000_000_000);
            query.message(3, |matcher| {
                matcher.number(1, 3);
                matcher.bytes(2, b"job");
                matcher.bytes(3, b"a|b");
            });
            query.message(4, |hints| {
                hints.int(1, 15_000);
                hints.bytes(2, b"series");
            });
        });
        for kind in accepted {
            // Zero is written here, as in a list it means something.
            message.bytes(2, &[u8::try_from(*kind).unwrap()]);
        }
        message.into_bytes()
    }

    #[test]
    fn a_request_is_read() {
        let read = ReadRequest::read(&request(&[1, 0])).unwrap();
        let matcher = Matcher { name: "job".into(), op: MatchOp::NotRegex, value: "a|b".into() };
        let query = Query { from: -5, to: 1_700_000_000_000, matchers: vec![matcher], is_of_series: true };
        assert_eq!(read, ReadRequest { queries: vec![query], accepted: vec![1, 0] });
    }

    #[test]
    fn the_first_known_kind_of_answer_is_taken() {
        let check = |accepted: &[u64], expected| {
            assert_eq!(ReadRequest::read(&request(accepted)).unwrap().response_type(), expected);
        };
        check(&[], Some(ResponseType::Samples));
        check(&[0], Some(ResponseType::Samples));
        check(&[1, 0], Some(ResponseType::StreamedXorChunks));
        check(&[7, 0], Some(ResponseType::Samples));
        check(&[7], None);
    }
}
