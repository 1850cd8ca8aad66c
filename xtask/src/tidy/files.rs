//! Rules about one source file: its length, its header, where `unsafe` may stand.

use super::Complaint;
use super::source::{line_of, words};

/// What a reader can still hold in mind of one file.
const LINES_MAX: usize = 600;
/// The only places where memory safety is argued by hand: the border to the kernel, the store's file
/// system calls, and the tests that speak to the kernel past both.
const UNSAFE_PLACES: [&str; 4] =
    ["telemetry-agent/src/bpf", "telemetry-ebpf/", "telemetry-tsdb/src/fs", "tests/"];

/// Length and header.
pub fn check_shape(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(Complaint::at(path, 1, "must start with `//!` lines that say what the file is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complaints.push(Complaint::whole(path, format!("has {lines} lines; the most is {LINES_MAX}")));
    }
    complaints
}

/// `unsafe` outside the places that may have it.
pub fn check_unsafe(path: &str, code: &str) -> Vec<Complaint> {
    if UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let complain = |at| Complaint::at(path, line_of(code, at), "`unsafe` has no place here");
    words(code, "unsafe").map(complain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::code_only;

    #[test]
    fn a_file_without_header_is_refused() {
        assert_eq!(check_shape("a.rs", "//! What it is for.\n").len(), 0);
        assert_eq!(check_shape("a.rs", "use x;\n//! late\n").len(), 1);
        assert_eq!(check_shape("a.rs", "").len(), 1);
    }

    #[test]
    fn a_file_is_refused_from_601_lines_on() {
        let file = |lines: usize| "//! x\n".to_owned() + &"\n".repeat(lines - 1);
        assert_eq!(check_shape("a.rs", &file(600)).len(), 0);
        assert_eq!(check_shape("a.rs", &file(601)).len(), 1);
    }

    #[test]
    fn unsafe_is_refused_outside_its_places() {
        let check = |path: &str, text: &str| check_unsafe(path, &code_only(text)).len();
        assert_eq!(check("telemetry-agent/src/api/mod.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(check("telemetry-agent/src/bpf/mmap.rs", "fn f() { unsafe { g() } }"), 0);
        assert_eq!(check("telemetry-agent/src/bpf.rs", "unsafe impl Pod for X {}"), 0);
        assert_eq!(check("telemetry-model/src/lib.rs", "// unsafe\n#![forbid(unsafe_code)]"), 0);
        assert_eq!(check("telemetry-agent/src/bpfx.rs", "unsafe {}"), 0, "a prefix is enough for this rule");
    }
}
