//! Differences added up to counts since a start: what the collector's `deltatocumulative` does, in bounded memory.
//!
//! A stream is what resource, scope, metric and attributes say together. Its first difference begins it. A later one is
//! added if it is newer; a gap between the two is nothing that happened. One from before the stream's start, or not
//! newer than the last, is dropped and counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::exponential;
use super::message::{ExponentialPoint, HistogramPoint, NumberPoint};

/// A stream's name: a keyed hash of 128 bits, so that what it is costs no memory.
pub(super) type Key = u128;

/// Streams and what they count up to.
pub(super) struct Deltas {
    streams: HashMap<Key, Stream>,
    streams_max: usize,
    stale: Duration,
    /// When streams were last looked through for those that ended.
    swept: Option<Instant>,
}

struct Stream {
    state: State,
    seen: Instant,
}

/// A sum so far. Attributes and exemplars stay with the points.
pub(super) enum State {
    Number(NumberPoint),
    Histogram(HistogramPoint),
    Exponential(ExponentialPoint),
}

/// Why a difference is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It began before its stream.
    OlderStart,
    /// It is not newer than the last.
    OutOfOrder,
    /// No more streams are kept.
    Limit,
}

/// A kind of point that can be added up.
pub(super) trait Point: Sized {
    /// Adds `self`, a difference, to what is there, and becomes the sum.
    fn add_to(&mut self, state: &mut State);
    /// Without what belongs to this point alone.
    fn state(&self) -> State;
    /// Start and end.
    fn times(&self) -> (u64, u64);
}

// === impl Deltas ===

impl Deltas {
    pub(super) fn new(streams_max: usize, stale: Duration) -> Self {
        Self { streams: HashMap::new(), streams_max, stale, swept: None }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Turns a difference into the count so far.
    pub(super) fn add<P: Point>(&mut self, key: Key, point: &mut P, now: Instant) -> Result<(), Dropped> {
        self.sweep(now);
        let (start, end) = point.times();
        if let Some(stream) = self.streams.get_mut(&key) {
            let (began, last) = stream.state.times();
            if start < began {
                return Err(Dropped::OlderStart);
            }
            if end <= last {
                return Err(Dropped::OutOfOrder);
            }
            stream.seen = now;
            point.add_to(&mut stream.state);
            return Ok(());
        }
        if self.streams.len() >= self.streams_max {
            return Err(Dropped::Limit);
        }
        self.streams.insert(key, Stream { state: point.state(), seen: now });
        Ok(())
    }

    /// Forgets streams that nobody adds to: once in a while, and not for every point when all places are taken.
    fn sweep(&mut self, now: Instant) {
        let pause = (self.stale / 8).min(Duration::from_secs(60));
        if self.swept.is_some_and(|swept| now.duration_since(swept) < pause) {
            return;
        }
        self.swept = Some(now);
        let stale = self.stale;
        self.streams.retain(|_, stream| now.duration_since(stream.seen) < stale);
    }
}

// === impl State ===

impl State {
    fn times(&self) -> (u64, u64) {
        match self {
            Self::Number(point) => point.times(),
            Self::Histogram(point) => point.times(),
            Self::Exponential(point) => point.times(),
        }
    }
}

// === impl Dropped ===

impl Dropped {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OlderStart => "a delta began before its stream",
            Self::OutOfOrder => "a delta is not newer than the one before it",
            Self::Limit => "no more streams of deltas are kept",
        }
    }
}

fn both(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? + b?)
}

impl Point for NumberPoint {
    fn add_to(&mut self, state: &mut State) {
        if let State::Number(sum) = state {
            match (self.as_int, self.as_double) {
                (Some(added), _) => sum.as_int = Some(sum.as_int.unwrap_or(0).wrapping_add(added)),
                (None, added) => sum.as_double = Some(sum.as_double.unwrap_or(0.0) + added.unwrap_or(0.0)),
            }
            sum.time_unix_nano = self.time_unix_nano;
            (self.as_int, self.as_double) = match (self.as_int, sum.as_int, sum.as_double) {
                (Some(_), int, _) => (int, None),
                (None, _, double) => (None, double),
            };
            self.start_time_unix_nano = sum.start_time_unix_nano;
        } else {
            *state = self.state();
        }
    }

    fn state(&self) -> State {
        State::Number(Self { exemplars: Vec::new(), attributes: Vec::new(), ..self.clone() })
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_unix_nano, self.time_unix_nano)
    }
}

impl Point for HistogramPoint {
    fn add_to(&mut self, state: &mut State) {
        match state {
            State::Histogram(sum)
                if sum.explicit_bounds == self.explicit_bounds
                    && sum.bucket_counts.len() == self.bucket_counts.len() =>
            {
                for (count, added) in sum.bucket_counts.iter_mut().zip(&self.bucket_counts) {
                    *count = count.saturating_add(*added);
                }
                sum.count = sum.count.saturating_add(self.count);
                sum.sum = both(sum.sum, self.sum);
                sum.time_unix_nano = self.time_unix_nano;
                self.bucket_counts.clone_from(&sum.bucket_counts);
                (self.count, self.sum) = (sum.count, sum.sum);
                self.start_time_unix_nano = sum.start_time_unix_nano;
            }
            // Other buckets cannot be added to these: the count begins anew.
            _ => *state = self.state(),
        }
    }

    fn state(&self) -> State {
        State::Histogram(Self { exemplars: Vec::new(), attributes: Vec::new(), ..self.clone() })
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_unix_nano, self.time_unix_nano)
    }
}

impl Point for ExponentialPoint {
    fn add_to(&mut self, state: &mut State) {
        if let State::Exponential(sum) = state {
            exponential::add(sum, self);
            sum.count = sum.count.saturating_add(self.count);
            sum.sum = both(sum.sum, self.sum);
            sum.time_unix_nano = self.time_unix_nano;
            *self = Self {
                exemplars: std::mem::take(&mut self.exemplars),
                attributes: std::mem::take(&mut self.attributes),
                ..sum.clone()
            };
        } else {
            *state = self.state();
        }
    }

    fn state(&self) -> State {
        State::Exponential(Self { exemplars: Vec::new(), attributes: Vec::new(), ..self.clone() })
    }

    fn times(&self) -> (u64, u64) {
        (self.start_time_unix_nano, self.time_unix_nano)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(start: u64, end: u64, value: i64) -> NumberPoint {
        NumberPoint {
            start_time_unix_nano: start,
            time_unix_nano: end,
            as_int: Some(value),
            ..NumberPoint::default()
        }
    }

    #[test]
    fn differences_add_up_and_what_is_late_is_dropped() {
        let (mut deltas, now) = (Deltas::new(2, Duration::from_secs(10)), Instant::now());
        let mut add = |key, start, end, value| {
            let mut point = point(start, end, value);
            deltas.add(key, &mut point, now).map(|()| (point.start_time_unix_nano, point.as_int))
        };
        assert_eq!(add(1, 10, 20, 5), Ok((10, Some(5))));
        assert_eq!(add(1, 20, 30, 2), Ok((10, Some(7))));
        // A gap is nothing that happened.
        assert_eq!(add(1, 50, 60, 1), Ok((10, Some(8))));
        assert_eq!(add(1, 50, 60, 1), Err(Dropped::OutOfOrder));
        assert_eq!(add(1, 5, 70, 1), Err(Dropped::OlderStart));
        assert_eq!(add(2, 0, 1, 1), Ok((0, Some(1))));
        assert_eq!(add(3, 0, 1, 1), Err(Dropped::Limit));
        let later = now + Duration::from_secs(11);
        assert_eq!(deltas.add(3, &mut point(0, 1, 4), later), Ok(()));
        assert_eq!(deltas.len(), 1);
    }

    #[test]
    fn histograms_add_up_until_their_bounds_change() {
        let mut deltas = Deltas::new(2, Duration::from_secs(10));
        let make = |end, bounds: &[f64]| HistogramPoint {
            time_unix_nano: end,
            count: 3,
            sum: Some(1.5),
            bucket_counts: vec![1, 2],
            explicit_bounds: bounds.to_vec(),
            ..HistogramPoint::default()
        };
        let now = Instant::now();
        deltas.add(1, &mut make(1, &[1.0]), now).unwrap();
        let mut second = make(2, &[1.0]);
        deltas.add(1, &mut second, now).unwrap();
        assert_eq!((second.count, second.sum, &*second.bucket_counts), (6, Some(3.0), &[2, 4][..]));
        let mut third = make(3, &[2.0]);
        deltas.add(1, &mut third, now).unwrap();
        assert_eq!(third.count, 3);
    }
}
