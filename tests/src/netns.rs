//! Two network namespaces joined by a veth pair, made with `ip`, gone with the test.
//!
//! The namespaces have no name: a descriptor holds each, so nothing is left under /run when a test dies.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

/// The server's end of the link, by its hardware address.
pub const SERVER_MAC: &str = "02:00:00:00:00:02";

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

/// A client's and a server's namespace, one link between them.
#[derive(Debug)]
pub struct Link {
    /// Has `10.211.0.1` and `fd11::1` on `veth0`.
    pub client: Netns,
    /// Has `10.211.0.2` and `fd11::2` on `veth1`; routes for the client, and knows `10.212.0.0/16` as unreachable.
    pub server: Netns,
}

// === impl Netns ===

impl Netns {
    /// Makes an empty one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new() -> Result<Self> {
        // Namespaces are per thread: one thread moves into the new one and opens it for all.
        let maker = thread::spawn(|| -> Result<File> {
            // SAFETY: takes a flag and changes nothing but this thread's namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error()).context("unshare the network");
            }
            File::open("/proc/thread-self/ns/net").context("open the namespace")
        });
        let file = maker.join().map_err(|_| anyhow!("the thread that makes a namespace ended early"))??;
        let netns = Self { file };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// A descriptor of it.
    ///
    /// # Errors
    /// If descriptors are used up.
    pub fn handle(&self) -> Result<File> {
        self.file.try_clone().context("hold the namespace")
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.run("ip", arguments)
    }

    /// Writes a setting of this namespace, by its path below /proc/sys/net.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = self.handle()?;
        let path = format!("/proc/sys/net/{path}");
        let value = value.to_owned();
        let writer = thread::spawn(move || -> Result<()> {
            enter(&file).context("enter the namespace")?;
            std::fs::write(&path, value).context(path)
        });
        writer.join().map_err(|_| anyhow!("the thread that sets a sysctl ended early"))?
    }

    fn run(&self, program: &str, arguments: &str) -> Result<()> {
        let file = self.handle()?;
        let mut command = Command::new(program);
        command.args(arguments.split(' '));
        // SAFETY: between fork and exec the closure only makes a system call on a descriptor that it owns.
        unsafe { command.pre_exec(move || enter(&file)) };
        let output = command.output().with_context(|| format!("start {program}"))?;
        if !output.status.success() {
            bail!("{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

// === impl Link ===

impl Link {
    /// Makes both ends and gives them addresses.
    ///
    /// # Errors
    /// If the kernel has no veth, or refuses.
    pub fn new() -> Result<Self> {
        let (client, server) = (Netns::new()?, Netns::new()?);
        let theirs = format!("/proc/{}/fd/{}", std::process::id(), server.file.as_raw_fd());
        let made = client
            .ip(&format!("link add veth0 type veth peer name veth1 address {SERVER_MAC} netns {theirs}"));
        if let Err(error) = made {
            let text = format!("{error:#}");
            let absent = text.contains("Unknown device type") || text.contains("not supported");
            return Err(if absent { host_lacks_veth() } else { error });
        }
        for (end, device, last) in [(&client, "veth0", 1), (&server, "veth1", 2)] {
            end.ip(&format!("address add 10.211.0.{last}/24 dev {device}"))?;
            end.ip(&format!("link set {device} up"))?;
            // A kernel without IPv6 has nothing to set: the IPv6 test then finds no address and says so.
            let _ = end.ip(&format!("address add fd11::{last}/64 dev {device} nodad"));
        }
        client.ip("route add 10.212.0.0/16 via 10.211.0.2")?;
        server.ip("route add unreachable 10.212.0.0/16")?;
        server.sysctl("ipv4/ip_forward", "1")?;
        Ok(Self { client, server })
    }
}

fn host_lacks_veth() -> anyhow::Error {
    crate::host::kernel_lacks("veth")
}

/// Moves the calling thread into the namespace.
///
/// # Errors
/// If the kernel refuses.
pub fn enter(netns: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; only this thread's namespace changes.
    if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A raw descriptor that a system call just returned, as a file that closes it.
///
/// # Errors
/// If it is an error in truth.
pub(crate) fn owned(descriptor: i64) -> io::Result<File> {
    let descriptor = i32::try_from(descriptor).map_err(|_| io::ErrorKind::InvalidData)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller just got it from the kernel, so it is open and nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
