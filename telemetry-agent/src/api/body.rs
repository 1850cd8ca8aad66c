//! The body of an answer on its way out: it tells its connection how far it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::connection::InFlight;
use super::security::Turn;

/// Longest part that is handed over at once. The library takes a part in whole and sends it as the client makes room: a
/// whole page would count as sent before the client had taken any of it.
const PART_LEN_MAX: usize = 64 * 1024;

/// Marks a response, among its extensions, as one without an end: it is not held to the time of a request, only each
/// part of it is.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

/// A body, with what is held until it is sent.
pub(super) struct Outgoing {
    body: Body,
    /// What is left of a part.
    rest: Bytes,
    is_endless: bool,
    in_flight: InFlight,
    _turn: Option<Turn>,
}

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn new(body: Body, is_endless: bool, in_flight: InFlight, turn: Option<Turn>) -> Self {
        Self { body, rest: Bytes::new(), is_endless, in_flight, _turn: turn }
    }

    fn hand_over(&mut self, mut part: Bytes) -> Frame<Bytes> {
        if part.len() > PART_LEN_MAX {
            self.rest = part.split_off(PART_LEN_MAX);
        }
        Frame::data(part)
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.hand_over(rest))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.is_endless {
            match &polled {
                Poll::Pending => self.in_flight.waits(),
                Poll::Ready(_) => self.in_flight.hands_over(),
            }
        }
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| match frame.into_data() {
                    Ok(part) => self.hand_over(part),
                    Err(trailers) => trailers,
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = HttpBody::size_hint(&self.body);
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
