//! Capabilities: which are held, which are missing, and how they are given up.
//!
//! `app` calls [`drop_all`] after the kernel programs are attached and before a second thread exists, because
//! capabilities belong to a thread and new threads inherit them. Attached programs, open maps and links need none.
//! Knows no program; `doctor` asks it what is missing.

use std::io;

use libc::{c_int, c_ulong};

/// One capability, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cap(u8);

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSet(u64);

/// The sets of one thread that a capability can be in, as far as it can read them of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What the kernel asks for.
    pub effective: CapSet,
    /// What can be made effective.
    pub permitted: CapSet,
    /// What a program started from here may keep.
    pub inheritable: CapSet,
}

/// Loading and attaching need these; `CAP_SYS_ADMIN` stands in for each.
pub const REQUIRED: &[Cap] = &[Cap::BPF, Cap::PERFMON];

/// What privileges could not be read or given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{operation}: {source}")]
    Refused {
        /// The call.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel agreed, and the capabilities are there still.
    #[error("{0} still held after they were given up")]
    StillHeld(String),
}

/// Names by number, as of Linux 6.18; none was added since 5.9.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The version of the call that has 64 capabilities in two halves.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Capabilities that the call can tell of.
const CAPS_MAX: u8 = 64;

/// `struct __user_cap_header_struct`
#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: c_int,
}

/// `struct __user_cap_data_struct`: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

// === impl Cap ===

impl Cap {
    /// Attaching programs to a cgroup's sockets.
    pub const NET_ADMIN: Self = Self(12);
    /// Nearly everything, the three others included.
    pub const SYS_ADMIN: Self = Self(21);
    /// Reading kernel memory from programs, and attaching to tracepoints.
    pub const PERFMON: Self = Self(38);
    /// Loading programs and making maps.
    pub const BPF: Self = Self(39);

    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("CAP_UNKNOWN")
    }
}

// === impl CapSet ===

impl CapSet {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// A set as `/proc/PID/status` prints it.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set and one more.
    #[must_use]
    pub fn with(self, cap: Cap) -> Self {
        Self(self.0 | 1_u64.checked_shl(u32::from(cap.0)).unwrap_or(0))
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(self, cap: Cap) -> bool {
        self.with(cap) == self
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The capabilities in it, by number.
    pub fn iter(self) -> impl Iterator<Item = Cap> {
        (0..CAPS_MAX).map(Cap).filter(move |cap| self.contains(*cap))
    }

    /// What a holder of this set lacks to do what `needed` are for: `CAP_SYS_ADMIN` stands in for the newer ones
    /// that were split off it, and the kernel's BPF side takes it for `CAP_NET_ADMIN` too.
    #[must_use]
    pub fn missing(self, needed: &[Cap]) -> Vec<Cap> {
        if self.contains(Cap::SYS_ADMIN) {
            return Vec::new();
        }
        needed.iter().copied().filter(|cap| !self.contains(*cap)).collect()
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits, each masked to its own")]
    fn halves(self) -> [u32; 2] {
        [(self.0 & u64::from(u32::MAX)) as u32, (self.0 >> 32) as u32]
    }
}

impl FromIterator<Cap> for CapSet {
    fn from_iter<T: IntoIterator<Item = Cap>>(caps: T) -> Self {
        caps.into_iter().fold(Self::NONE, Self::with)
    }
}

// === impl Held ===

impl Held {
    /// The sets of the calling thread.
    ///
    /// # Errors
    /// Where a seccomp profile forbids asking.
    pub fn read() -> Result<Self, Error> {
        let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
        let mut halves = [Half::default(); 2];
        // SAFETY: version 3 of the call writes the header and two halves; both pointers are to live, writable objects
        // of the kernel's layout and of exactly that size.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
        checked("read capabilities", result)?;
        let [low, high] = halves;
        let joined = |low: u32, high: u32| CapSet(u64::from(low) | u64::from(high) << 32);
        Ok(Self {
            effective: joined(low.effective, high.effective),
            permitted: joined(low.permitted, high.permitted),
            inheritable: joined(low.inheritable, high.inheritable),
        })
    }

    fn write(self) -> Result<(), Error> {
        let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
        let (effective, permitted, inheritable) =
            (self.effective.halves(), self.permitted.halves(), self.inheritable.halves());
        let [low_effective, high_effective] = effective;
        let [low_permitted, high_permitted] = permitted;
        let [low_inheritable, high_inheritable] = inheritable;
        let halves = [
            Half { effective: low_effective, permitted: low_permitted, inheritable: low_inheritable },
            Half { effective: high_effective, permitted: high_permitted, inheritable: high_inheritable },
        ];
        // SAFETY: version 3 of the call reads two halves and may write the header; both pointers are to live objects
        // of the kernel's layout and of exactly that size, the header writable.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
        checked("give up capabilities", result)
    }
}

/// What the calling thread lacks of these. Where it may not even ask, it lacks them all.
#[must_use]
pub fn missing(needed: &[Cap]) -> Vec<Cap> {
    Held::read().unwrap_or_default().effective.missing(needed)
}

/// Gives up every capability, and the ways to get any back. See [`drop_all_but`].
///
/// # Errors
/// As [`drop_all_but`].
pub fn drop_all() -> Result<(), Error> {
    drop_all_but(CapSet::NONE)
}

/// Gives up every capability of the calling thread but those in `keep`, and closes the ways back: nothing is left
/// to inherit, no program started from here gains any, and no other process of this user may read or steer this one.
///
/// The bounding set is emptied as far as `CAP_SETPCAP` allows, which without it changes nothing that matters: the
/// other sets are empty and no program can gain a capability any more. Threads that exist already keep theirs.
///
/// # Errors
/// Where the kernel refuses, or where a capability is held afterwards nevertheless.
pub fn drop_all_but(keep: CapSet) -> Result<(), Error> {
    let held = Held::read()?;
    // First, because it needs a capability that the next step gives up.
    shrink_bounding_set(keep)?;
    control("clear ambient capabilities", libc::PR_CAP_AMBIENT, [arg(libc::PR_CAP_AMBIENT_CLEAR_ALL), 0])?;
    Held {
        effective: held.effective.and(keep),
        permitted: held.permitted.and(keep),
        inheritable: CapSet::NONE,
    }
    .write()?;
    control("set no_new_privs", libc::PR_SET_NO_NEW_PRIVS, [1, 0])?;
    // Own files in /proc stay readable: the kernel lets a thread group read itself.
    control("forbid dumps", libc::PR_SET_DUMPABLE, [0, 0])?;
    forbid_core_files()?;
    let after = Held::read()?;
    let left = [after.effective, after.permitted, after.inheritable].map(|set| set.without(keep));
    if left.iter().all(|set| set.is_empty()) {
        return Ok(());
    }
    let names: Vec<_> = left.into_iter().flat_map(CapSet::iter).map(Cap::name).collect();
    Err(Error::StillHeld(names.join(", ")))
}

fn shrink_bounding_set(keep: CapSet) -> Result<(), Error> {
    for number in 0..CAPS_MAX {
        if keep.contains(Cap(number)) {
            continue;
        }
        let number = c_ulong::from(number);
        // An error is the end of the capabilities that this kernel knows.
        match control("read the bounding set", libc::PR_CAPBSET_READ, [number, 0]) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        match control("shrink the bounding set", libc::PR_CAPBSET_DROP, [number, 0]) {
            Ok(_) => {}
            Err(Error::Refused { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn forbid_core_files() -> Result<(), Error> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit`, which the call only reads.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    checked("forbid core files", result.into())
}

fn control(operation: &'static str, option: c_int, arguments: [c_ulong; 2]) -> Result<c_int, Error> {
    let [second, third] = arguments;
    let none: c_ulong = 0;
    // SAFETY: none of the options used in this file takes a pointer; all five arguments have the width that the
    // kernel reads them with.
    let result = unsafe { libc::prctl(option, second, third, none, none) };
    if result < 0 {
        return Err(Error::Refused { operation, source: io::Error::last_os_error() });
    }
    Ok(result)
}

fn checked(operation: &'static str, result: libc::c_long) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::Refused { operation, source: io::Error::last_os_error() }) }
}

fn arg(option: c_int) -> c_ulong {
    c_ulong::from(option.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn capabilities_have_the_kernels_numbers_and_names() {
        for (cap, name) in [
            (Cap::NET_ADMIN, "CAP_NET_ADMIN"),
            (Cap::SYS_ADMIN, "CAP_SYS_ADMIN"),
            (Cap::PERFMON, "CAP_PERFMON"),
            (Cap::BPF, "CAP_BPF"),
            (Cap(63), "CAP_UNKNOWN"),
        ] {
            assert_eq!(cap.name(), name);
        }
        let set: CapSet = [Cap::BPF, Cap::NET_ADMIN].into_iter().collect();
        assert_eq!(set, CapSet::from_bits(0x80_0000_1000));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Cap::NET_ADMIN, Cap::BPF]);
        assert_eq!(set.halves(), [0x1000, 0x80]);
    }

    #[test]
    fn sys_admin_stands_in_for_what_was_split_off_it() {
        let needed = [Cap::BPF, Cap::PERFMON, Cap::NET_ADMIN];
        assert_eq!(CapSet::NONE.missing(&needed), needed);
        assert_eq!(CapSet::NONE.with(Cap::BPF).missing(&needed), [Cap::PERFMON, Cap::NET_ADMIN]);
        assert!(CapSet::NONE.with(Cap::SYS_ADMIN).missing(&needed).is_empty());
    }

    /// `/proc/thread-self/status` as names and values.
    fn status() -> HashMap<String, String> {
        let text = fs::read_to_string("/proc/thread-self/status").unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    fn bits(status: &HashMap<String, String>, set: &str) -> u64 {
        u64::from_str_radix(&status[set], 16).unwrap()
    }

    #[test]
    fn the_sets_are_those_that_proc_shows() {
        let (held, status) = (Held::read().unwrap(), status());
        assert_eq!(held.effective.0, bits(&status, "CapEff"));
        assert_eq!(held.permitted.0, bits(&status, "CapPrm"));
        assert_eq!(held.inheritable.0, bits(&status, "CapInh"));
    }

    const CHILD: &str = "TELEMETRY_TEST_DROPS_PRIVILEGES";

    /// Runs one test of this module again in a process of its own, since some of what is given up belongs to the
    /// process and would be missing in other tests.
    fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
        if std::env::var_os(CHILD).is_some() {
            return body();
        }
        let this = std::env::current_exe().unwrap();
        let module = module_path!().split_once("::").unwrap().1;
        let mut command = Command::new(this);
        command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(CHILD, "1");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed"), "the test was not found by its name: {text}");
    }

    /// Whether this thread may shrink its bounding set.
    fn may_shrink() -> bool {
        Held::read().unwrap().effective.contains(Cap(8))
    }

    #[test]
    fn nothing_is_left_to_this_thread_nor_to_those_it_starts() {
        in_a_process_of_its_own("nothing_is_left_to_this_thread_nor_to_those_it_starts", || {
            let may_shrink = may_shrink();
            drop_all().unwrap();
            for status in [status(), std::thread::spawn(status).join().unwrap()] {
                for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                    assert_eq!(bits(&status, set), 0, "{set}");
                }
                assert!(!may_shrink || bits(&status, "CapBnd") == 0, "CapBnd {}", status["CapBnd"]);
                assert_eq!(status["NoNewPrivs"], "1");
            }
            let limits = fs::read_to_string("/proc/self/limits").unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(core.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
            assert_eq!(control("", libc::PR_GET_DUMPABLE, [0, 0]).unwrap(), 0);
            assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 0, "own files stay readable");
            drop_all().unwrap();
        });
    }

    #[test]
    fn what_is_kept_stays_and_nothing_else() {
        in_a_process_of_its_own("what_is_kept_stays_and_nothing_else", || {
            let (before, may_shrink) = (Held::read().unwrap(), may_shrink());
            let keep = CapSet::NONE.with(Cap::BPF).with(Cap::NET_ADMIN);
            drop_all_but(keep).unwrap();
            let (after, status) = (Held::read().unwrap(), status());
            assert_eq!(after.effective, before.effective.and(keep));
            assert_eq!(after.permitted, before.permitted.and(keep));
            assert_eq!(after.inheritable, CapSet::NONE);
            assert!(!may_shrink || bits(&status, "CapBnd") & !keep.0 == 0);
            assert_eq!(missing(&[Cap::BPF]).is_empty(), before.effective.contains(Cap::BPF));
        });
    }
}
