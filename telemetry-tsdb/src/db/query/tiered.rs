//! Which files answer for which times: raw ones, or a tier where a query's steps are wide enough or raw samples are
//! gone.
//!
//! A range is cut into stretches; each is answered from one place, for all series alike. What a column has there is
//! what the query wants to know of the samples ([`Want`]), so that adding, comparing or taking the last of the rows in
//! a window of whole intervals says the same as doing it with all samples.

use std::sync::Arc;

use telemetry_model::is_stale;

use crate::block::{Block, TierColumn};
use crate::db::tiers::TIERS_MS;
use crate::head::GroupView;

/// A tier is fine enough for steps and windows of so many of its intervals.
const INTERVALS_MIN: i64 = 4;

/// What a query wants to know of the samples of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Want {
    /// Every sample. Where raw ones are gone, the last of each interval of the finest tier.
    #[default]
    Every,
    /// The last ones: bare selectors, `last_over_time`, `present_over_time`, `delta`.
    Last,
    /// What a counter grew by: `rate`, `increase`. Where a tier answers, resets are made good: values only grow.
    Increase,
    /// The least ones: `min_over_time`. Of a counter's interval, the last one.
    Min,
    /// The greatest ones: `max_over_time`. Of a counter's interval, the last one.
    Max,
    /// Their sum: `sum_over_time` of the rows. Of a counter's interval, the last one for each sample.
    Sum,
    /// How many there are: `sum_over_time` of the rows. A raw sample counts as 1.
    Count,
}

/// What is known of a query before its samples are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Distance of its steps; 0 for a single one.
    pub step_ms: i64,
    /// Length of its windows: the range, or the look-back of a bare selector.
    pub window_ms: i64,
    /// What for.
    pub want: Want,
}

/// A stretch of time and the place that answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First time.
    pub from: i64,
    /// Last time.
    pub to: i64,
    /// Length of an interval; 0 = samples as they came.
    pub tier_ms: i64,
}

/// What there is, for each place: ranges of times.
pub(super) struct Coverage {
    raw: Vec<(i64, i64)>,
    tiers: [Vec<(i64, i64)>; TIERS_MS.len()],
}

// === impl Want ===

impl Want {
    /// The column of a tier that says it.
    pub(super) fn column(self) -> TierColumn {
        match self {
            Self::Every | Self::Last | Self::Increase => TierColumn::Last,
            Self::Min => TierColumn::Min,
            Self::Max => TierColumn::Max,
            Self::Sum => TierColumn::Sum,
            Self::Count => TierColumn::Count,
        }
    }
}

// === impl Hints ===

impl Hints {
    /// Tiers in the order of preference; 0 is raw.
    fn preference(&self) -> Vec<i64> {
        let is_fine = |tier: &i64| {
            let least = tier.saturating_mul(INTERVALS_MIN);
            self.want != Want::Every && self.step_ms >= least && self.window_ms >= least
        };
        let (fine, coarse): (Vec<i64>, Vec<i64>) = TIERS_MS.iter().partition(|tier| is_fine(tier));
        fine.into_iter().rev().chain(std::iter::once(0)).chain(coarse).collect()
    }
}

// === impl Coverage ===

impl Coverage {
    /// Of these files and of memory.
    pub(super) fn of(blocks: &[Arc<Block>], views: &[Arc<GroupView>]) -> Self {
        let mut coverage = Self { raw: Vec::new(), tiers: Default::default() };
        for found in blocks {
            let meta = found.meta();
            let at = TIERS_MS.iter().position(|tier| *tier == meta.tier_ms);
            match at.and_then(|at| coverage.tiers.get_mut(at)) {
                Some(tier) => tier.push((meta.min_t, meta.max_t)),
                None if meta.tier_ms == 0 => coverage.raw.push((meta.min_t, meta.max_t)),
                None => {}
            }
        }
        let first = |view: &Arc<GroupView>| {
            let frozen = view.frozen.iter().flat_map(|window| window.stripes.iter());
            let stripes =
                frozen.chain(view.stripes.iter()).filter_map(|stripe| stripe.times().first().copied());
            stripes.chain(view.rows.iter().map(|row| row.t)).min()
        };
        if let Some(first) = views.iter().filter_map(first).min() {
            coverage.raw.push((first, i64::MAX));
        }
        coverage
    }

    fn ranges(&self, tier_ms: i64) -> &[(i64, i64)] {
        let at = TIERS_MS.iter().position(|tier| *tier == tier_ms);
        at.and_then(|at| self.tiers.get(at)).map_or(&self.raw, Vec::as_slice)
    }

    fn covers(&self, tier_ms: i64, t: i64) -> bool {
        self.ranges(tier_ms).iter().any(|(from, to)| (*from..=*to).contains(&t))
    }

    /// Cuts a range into stretches. Where nothing is, raw files answer: nothing.
    pub(super) fn plan(&self, from: i64, to: i64, hints: &Hints) -> Vec<Stretch> {
        let order = hints.preference();
        let all = self.raw.iter().chain(self.tiers.iter().flatten());
        let mut borders: Vec<i64> = all.flat_map(|(first, last)| [*first, last.saturating_add(1)]).collect();
        borders.push(from);
        borders.retain(|border| (from..=to).contains(border));
        borders.sort_unstable();
        borders.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (at, border) in borders.iter().enumerate() {
            let end = borders.get(at + 1).map_or(to, |next| next - 1);
            let tier_ms = order.iter().copied().find(|tier| self.covers(*tier, *border)).unwrap_or(0);
            match stretches.last_mut() {
                Some(last) if last.tier_ms == tier_ms => last.to = end,
                _ => stretches.push(Stretch { from: *border, to: end, tier_ms }),
            }
        }
        self.keep_last_rows(&mut stretches);
        stretches
    }

    /// The row of a tier's last interval stands at its end, which is where raw samples go on: it is the tier's.
    fn keep_last_rows(&self, stretches: &mut [Stretch]) {
        for at in 1..stretches.len() {
            let Some([before, after]) = stretches.get_mut(at - 1..=at) else { continue };
            let is_row = before.tier_ms > 0 && after.from % before.tier_ms == 0;
            if is_row
                && after.tier_ms == 0
                && after.from < after.to
                && self.covers(before.tier_ms, after.from)
            {
                before.to = after.from;
                after.from += 1;
            }
        }
    }
}

/// A raw sample as what is wanted of it.
pub(super) fn raw_value(want: Want, value: f64) -> f64 {
    if want == Want::Count && !is_stale(value) { 1.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn check(coverage: &Coverage, range: (i64, i64), hints: Hints, expected: &[(i64, i64, i64)]) {
        let got: Vec<_> =
            coverage.plan(range.0, range.1, &hints).iter().map(|s| (s.from, s.to, s.tier_ms)).collect();
        assert_eq!(got, expected, "{hints:?}");
    }

    #[test]
    fn wide_steps_take_tiers_and_what_is_gone_comes_from_the_finest_left() {
        let coverage = Coverage {
            raw: vec![(20 * HOUR, i64::MAX)],
            tiers: [vec![(10 * HOUR + 1, 22 * HOUR)], vec![(4 * HOUR + 1, 22 * HOUR)], vec![(1, 22 * HOUR)]],
        };
        let range = (0, 30 * HOUR);
        let raw = |from: i64| (from, 30 * HOUR, 0);
        // Narrow steps: raw as far as it goes, then ever coarser.
        let narrow = Hints { step_ms: 15_000, window_ms: 300_000, want: Want::Increase };
        check(
            &coverage,
            range,
            narrow,
            &[
                (0, 0, 0),
                (1, 4 * HOUR, HOUR),
                (4 * HOUR + 1, 10 * HOUR, 300_000),
                (10 * HOUR + 1, 20 * HOUR, 60_000),
                raw(20 * HOUR + 1),
            ],
        );
        let wide = Hints { step_ms: 1_200_000, window_ms: 1_200_000, want: Want::Max };
        check(
            &coverage,
            range,
            wide,
            &[(0, 0, 0), (1, 4 * HOUR, HOUR), (4 * HOUR + 1, 22 * HOUR, 300_000), raw(22 * HOUR + 1)],
        );
        // Steps are wide, windows are not.
        let sparse = Hints { step_ms: HOUR, window_ms: 300_000, want: Want::Last };
        check(
            &coverage,
            (12 * HOUR, 30 * HOUR),
            sparse,
            &[(12 * HOUR, 22 * HOUR, 60_000), raw(22 * HOUR + 1)],
        );
        let every = Hints { step_ms: HOUR, window_ms: HOUR, want: Want::Every };
        check(
            &coverage,
            (12 * HOUR, 30 * HOUR),
            every,
            &[(12 * HOUR, 20 * HOUR, 60_000), raw(20 * HOUR + 1)],
        );
    }
}
