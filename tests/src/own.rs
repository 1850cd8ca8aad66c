//! What this very process uses, for benchmarks of libraries.

/// CPU seconds so far, of all threads.
#[must_use]
pub fn cpu_seconds() -> f64 {
    seconds(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU seconds so far, of this thread alone.
#[must_use]
pub fn thread_cpu_seconds() -> f64 {
    seconds(libc::CLOCK_THREAD_CPUTIME_ID)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark")]
fn seconds(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec that outlives the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident bytes.
#[must_use]
pub fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    crate::proc::field(&status, "VmRSS:").unwrap_or(0.0) * 1024.0
}

/// Dies as by `kill -9`.
pub fn kill() {
    // SAFETY: the call takes no pointer; it ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
}
