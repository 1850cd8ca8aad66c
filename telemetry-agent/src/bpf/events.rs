//! Cgroup births and deaths from the ring buffer: a hint that names come early, never an authority.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use telemetry_ebpf::identity::{EVENT_HEAD_BYTES, EVENT_MKDIR, EVENT_RMDIR};

/// The ring buffer's reading end.
pub struct Events(RingBuf<MapData>);

/// A cgroup's directory came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupEvent {
    /// Whether it came; else it went.
    pub born: bool,
    /// 0 for version 2, else the number that `/proc/cgroups` gives the hierarchy.
    pub hierarchy: u32,
    /// The cgroup's id in that hierarchy.
    pub id: u64,
    /// When.
    pub at: Instant,
    /// Its path below the hierarchy's root; empty if the kernel could not tell.
    pub path: Vec<u8>,
}

// === impl Events ===

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Waits until there is an event, or `at_most` is over.
    pub fn wait(&self, at_most: Duration) {
        wait_readable(self.0.as_raw_fd(), at_most);
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<CgroupEvent> {
        while let Some(record) = self.0.next() {
            // A record of another form is passed over; none is ever written.
            if let Some(event) = parse(&record, Instant::now(), monotonic_ns()) {
                return Some(event);
            }
        }
        None
    }
}

fn wait_readable(fd: RawFd, at_most: Duration) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd that lives across the call. A signal ends it early, which does no harm.
    unsafe { libc::poll(&raw mut poll, 1, millis) };
}

/// What the kernel calls `CLOCK_MONOTONIC`, which [`Instant`] is too without telling its value.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the result has a place of its own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

/// `now` and `now_ns` are one moment on two clocks.
fn parse(record: &[u8], now: Instant, now_ns: u64) -> Option<CgroupEvent> {
    let word = |at: usize| Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let born = match word(0)? {
        EVENT_MKDIR => true,
        EVENT_RMDIR => false,
        _ => return None,
    };
    let id = u64::from_ne_bytes(record.get(8..16)?.try_into().ok()?);
    let at_ns = u64::from_ne_bytes(record.get(16..24)?.try_into().ok()?);
    let length = usize::try_from(word(24)?).ok()?;
    let path = record.get(EVENT_HEAD_BYTES..)?.get(..length)?;
    let age = Duration::from_nanos(now_ns.saturating_sub(at_ns));
    let at = now.checked_sub(age).unwrap_or(now);
    Some(CgroupEvent { born, hierarchy: word(4)?, id, at, path: path.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 5_000_000_000;

    fn record(kind: u32, id: u64, path: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(id.to_ne_bytes());
        bytes.extend((NOW_NS - 30_000_000).to_ne_bytes());
        bytes.extend(u32::try_from(path.len()).unwrap().to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(path);
        bytes
    }

    #[test]
    fn a_record_holds_kind_hierarchy_id_time_and_path() {
        let now = Instant::now();
        let at = now - Duration::from_millis(30);
        let expected = CgroupEvent { born: true, hierarchy: 7, id: 42, at, path: b"/a".to_vec() };
        assert_eq!(parse(&record(EVENT_MKDIR, 42, b"/a"), now, NOW_NS), Some(expected));
        assert!(!parse(&record(EVENT_RMDIR, 42, b"/a"), now, NOW_NS).unwrap().born);
    }

    #[test]
    fn both_clocks_run_together() {
        let (start, start_ns) = (Instant::now(), monotonic_ns());
        std::thread::yield_now();
        let (passed, passed_ns) = (start.elapsed(), monotonic_ns() - start_ns);
        assert!(start_ns > 0 && passed.as_nanos().abs_diff(u128::from(passed_ns)) < 1_000_000_000);
    }

    #[test]
    fn a_record_cut_short_or_of_an_unknown_kind_is_passed_over() {
        let whole = record(EVENT_MKDIR, 42, b"/a");
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], Instant::now(), NOW_NS), None, "{length} bytes");
        }
        assert_eq!(parse(&record(9, 42, b"/a"), Instant::now(), NOW_NS), None);
    }
}
