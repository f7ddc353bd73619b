//! Two network namespaces, one for the server and one for the clients, each
//! with a TUN device as its only way out.
//!
//! Owns them by descriptors alone: they have no name, so the kernel takes
//! them away with this process, however that ends.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::link::{Link, Quality, open_tun};

/// Where the server listens.
pub(crate) const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Where the clients are.
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The device's name on both sides; no namespace sees the other's.
const DEVICE: &str = "slow0";

/// Two namespaces and the link between them.
pub(crate) struct Network {
    server_side: File,
    client_side: File,
    pub(crate) link: Link,
}

impl Network {
    /// Makes both, and a link that leads `down` to the clients and `up` to
    /// the server. The error says what this machine does not allow.
    pub(crate) fn new(down: Quality, up: Quality) -> Result<Self, String> {
        let (server_side, server_tun) = one_side(SERVER_ADDRESS)?;
        let (client_side, client_tun) = one_side(CLIENT_ADDRESS)?;
        Ok(Self {
            server_side,
            client_side,
            link: Link::start(server_tun, client_tun, down, up),
        })
    }

    /// Runs `work` where the server is. What it starts stays there.
    pub(crate) fn on_server_side<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.server_side, work)
    }

    /// Runs `work` where the clients are.
    pub(crate) fn on_client_side<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.client_side, work)
    }
}

fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    // A namespace is a matter of one thread; it must not be given back to
    // others with this one in the wrong place.
    let in_thread = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| {
        scope
            .spawn(in_thread)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A new namespace and its TUN device, which is up.
fn one_side(address: Ipv4Addr) -> Result<(File, File), String> {
    thread::spawn(move || {
        leave_for_a_new_namespace().map_err(|error| format!("no network namespace: {error}"))?;
        let namespace = File::open("/proc/thread-self/ns/net")
            .map_err(|error| format!("no network namespace: {error}"))?;
        let tun = open_tun(DEVICE).map_err(|error| format!("no TUN device: {error}"))?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["address", "add", &format!("{address}/24"), "dev", DEVICE])?;
        ip(&["link", "set", DEVICE, "mtu", "1500", "up"])?;
        Ok((namespace, tun))
    })
    .join()
    .unwrap()
}

#[expect(
    unsafe_code,
    reason = "rustix cannot know what else relies on the old namespace"
)]
fn leave_for_a_new_namespace() -> rustix::io::Result<()> {
    // SAFETY: only the network namespace of this thread, which was made for
    // the purpose, changes; no descriptor table is taken apart.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("ip: {error}")),
    }
}
