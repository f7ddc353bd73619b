//! How much the kernel holds for one of our own sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that wait unread in the receive buffer (FIONREAD, tcp(7)).
pub(crate) fn unread_bytes(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Bytes sent and not yet acknowledged by the peer's kernel (SIOCOUTQ, tcp(7)).
#[expect(
    unsafe_code,
    reason = "no crate in use offers SIOCOUTQ; the kernel writes one int, which outlives the call"
)]
pub(crate) fn unacknowledged_bytes(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, and SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}
