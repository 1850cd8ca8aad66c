//! What the process's exit codes mean: those of BSD's `sysexits.h`, so that a service manager and a script can tell
//! a wrong key from a missing privilege.

/// It did what it was asked for.
pub const OK: u8 = 0;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// What was read is not what it should be: damaged, or not of its format.
pub const DATA_ERROR: u8 = 65;
/// A file that was named cannot be read.
pub const NO_INPUT: u8 = 66;
/// Something it needs is not there: a kernel feature, the cgroup tree, the port.
pub const UNAVAILABLE: u8 = 69;
/// The operating system refused something that should work.
pub const OS_ERROR: u8 = 71;
/// A file or directory cannot be made.
pub const CANNOT_CREATE: u8 = 73;
/// A file cannot be written or read to its end.
pub const IO_ERROR: u8 = 74;
/// A privilege is missing.
pub const NO_PERMISSION: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;
