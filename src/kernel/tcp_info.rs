//! Socket options that no safe crate offers: `TCP_INFO`, `SIOCOUTQ` (tcp(7)),
//! `SO_MEMINFO` and `SO_BUF_LOCK`.
//!
//! Owns the unsafe calls and the layout of the answers. Refuses to interpret
//! them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::tcp_facts::TcpFacts;
use crate::engine::PeerWindow;

/// Room for the kernel's `struct tcp_info`, which new versions extend at its
/// end only.
const TCP_INFO_BYTES: usize = 512;

/// Offsets of fields of `struct tcp_info` (linux/tcp.h).
mod offset {
    pub(super) const STATE: usize = 0;
    pub(super) const RETRANSMITS: usize = 2;
    pub(super) const PROBES: usize = 3;
    pub(super) const SND_MSS: usize = 16;
    pub(super) const UNACKED: usize = 24;
    pub(super) const LAST_ACK_RECV: usize = 56;
    pub(super) const MIN_RTT: usize = 148;
    /// Since Linux 5.4.
    pub(super) const SND_WND: usize = 228;
    /// Since Linux 6.2.
    pub(super) const RCV_WND: usize = 232;
}

/// `TCP_CLOSE` (linux/tcp_states.h).
const STATE_CLOSED: u8 = 7;

struct RawInfo {
    bytes: [u8; TCP_INFO_BYTES],
    length: usize,
}

impl RawInfo {
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes[..self.length].get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u32> {
        let field = self.bytes[..self.length].get(at..at + 4)?;
        Some(u32::from_ne_bytes([field[0], field[1], field[2], field[3]]))
    }
}

fn raw(socket: BorrowedFd<'_>) -> io::Result<RawInfo> {
    let mut bytes = [0; TCP_INFO_BYTES];
    let length = get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    Ok(RawInfo { bytes, length })
}

/// Reads an option into `bytes`; returns how many the kernel wrote.
#[expect(unsafe_code, reason = "no safe crate offers TCP_INFO and SO_MEMINFO")]
fn get_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    bytes: &mut [u8],
) -> io::Result<usize> {
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what `bytes`
    // has, and then says in `length` how many it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(length as usize)
}

/// The numbers that tell why a connection is stuck.
pub(crate) fn read(socket: BorrowedFd<'_>) -> io::Result<TcpFacts> {
    let info = raw(socket)?;
    Ok(TcpFacts {
        send_window_bytes: info.word(offset::SND_WND),
        unacknowledged_segments: info.word(offset::UNACKED).unwrap_or(0),
        retransmits: info.byte(offset::RETRANSMITS).unwrap_or(0).into(),
        probes: info.byte(offset::PROBES).unwrap_or(0).into(),
        last_acknowledged: Duration::from_millis(info.word(offset::LAST_ACK_RECV).unwrap_or(0).into()),
        segment_bytes: info.word(offset::SND_MSS).unwrap_or(0),
    })
}

/// The peer's window and the round trip to it.
pub(crate) fn peer_window(socket: BorrowedFd<'_>) -> Option<PeerWindow> {
    let info = raw(socket).ok()?;
    let window_bytes = info.word(offset::SND_WND)?;
    Some(PeerWindow {
        window_bytes,
        is_withdrawn: window_bytes == 0 && info.word(offset::UNACKED).is_some_and(|segments| segments > 0),
        round_trip: Duration::from_micros(info.word(offset::MIN_RTT)?.into()),
    })
}

/// `SO_BUF_LOCK` (asm-generic/socket.h), since Linux 5.14.
const SO_BUF_LOCK: libc::c_int = 72;

/// Returns a receive buffer whose size was set to the kernel's own sizing.
pub(crate) fn unlock_receive_buffer(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0)
}

/// `TCP_RTO_MAX_MS` (linux/tcp.h), since Linux 6.15.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// What the kernel takes for it.
const RTO_MAX_MS: std::ops::RangeInclusive<i32> = 1000..=120_000;

/// Bounds the time between two retransmissions, which otherwise doubles up to
/// two minutes.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 6.15.
pub(crate) fn set_longest_retransmission(socket: BorrowedFd<'_>, longest: Duration) -> io::Result<()> {
    let milliseconds = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
    let milliseconds = milliseconds.clamp(*RTO_MAX_MS.start(), *RTO_MAX_MS.end());
    set_option(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, milliseconds)
}

/// The option as the kernel has it; `None` before Linux 6.15.
#[cfg(test)]
pub(super) fn longest_retransmission_ms(socket: BorrowedFd<'_>) -> Option<i32> {
    let mut bytes = [0; size_of::<i32>()];
    get_option(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &mut bytes).ok()?;
    Some(i32::from_ne_bytes(bytes))
}

/// Sets an option of type `int`.
#[expect(unsafe_code, reason = "no safe crate offers SO_BUF_LOCK and TCP_RTO_MAX_MS")]
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The receive memory of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveMemory {
    /// Memory of unread data, in bytes.
    pub(crate) held_bytes: u32,
    /// The window that we announced to the peer last, in bytes.
    pub(crate) announced_bytes: u32,
}

/// `SO_MEMINFO` (asm-generic/socket.h), since Linux 4.12: words, of which the
/// first is the memory of unread data.
const SO_MEMINFO: libc::c_int = 55;

pub(crate) fn receive_memory(socket: BorrowedFd<'_>) -> io::Result<ReceiveMemory> {
    let missing = || io::Error::from(io::ErrorKind::Unsupported);
    let announced_bytes = raw(socket)?.word(offset::RCV_WND).ok_or_else(missing)?;
    let mut held = [0; size_of::<u32>()];
    get_option(socket, libc::SOL_SOCKET, SO_MEMINFO, &mut held)?;
    Ok(ReceiveMemory {
        held_bytes: u32::from_ne_bytes(held),
        announced_bytes,
    })
}

/// Segments that came in and were dropped so far: the ninth of the words.
#[cfg(test)]
pub(crate) fn dropped_segments(socket: BorrowedFd<'_>) -> u32 {
    let mut words = [0; 9 * size_of::<u32>()];
    let length = get_option(socket, libc::SOL_SOCKET, SO_MEMINFO, &mut words).unwrap();
    assert_eq!(length, words.len());
    u32::from_ne_bytes(words[32..].try_into().unwrap())
}

/// Memory that the kernel holds for a socket: unread bytes (first word), bytes
/// not acknowledged (sixth), and what it has set aside (fifth).
pub(crate) fn kernel_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut words = [0; 9 * size_of::<u32>()];
    let length = get_option(socket, libc::SOL_SOCKET, SO_MEMINFO, &mut words)?;
    let word = |index: usize| {
        let bytes = words[..length].get(4 * index..4 * index + 4);
        let word = bytes.map_or([0; 4], |word| [word[0], word[1], word[2], word[3]]);
        u64::from(u32::from_ne_bytes(word))
    };
    Ok(word(0) + word(4) + word(5))
}

/// Whether the connection is over, by a reset or by two acknowledged ends.
pub(crate) fn is_closed(socket: BorrowedFd<'_>) -> bool {
    raw(socket).is_ok_and(|info| info.byte(offset::STATE) == Some(STATE_CLOSED))
}

/// Bytes that the peer has not acknowledged; a FIN counts as one (SIOCOUTQ,
/// tcp(7)).
#[expect(unsafe_code, reason = "no safe crate offers SIOCOUTQ")]
pub(crate) fn unacknowledged_bytes(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, and SIOCOUTQ, whose number
    // is that of TIOCOUTQ, writes one int.
    let outcome = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Unread bytes in the receive buffer (FIONREAD, tcp(7)).
#[cfg(feature = "probe")]
pub(crate) fn unread_bytes(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_peer_that_does_not_read_is_told_from_one_that_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_theirs, _) = listener.accept().unwrap();
        assert!(!is_closed(ours.as_fd()));
        assert_eq!(unacknowledged_bytes(ours.as_fd()).unwrap(), 0);
        let window = read(ours.as_fd()).unwrap().send_window_bytes.unwrap();
        assert!(window > 0, "{window}");

        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged_bytes(ours.as_fd()).unwrap() > 0);
    }

    #[test]
    fn an_accepted_connection_has_the_longest_retransmission_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let longest = Duration::from_millis(1500);
        match set_longest_retransmission(listener.as_fd(), longest) {
            Ok(()) => {}
            Err(error) => return println!("SKIPPED, TCP_RTO_MAX_MS needs Linux 6.15: {error}"),
        }
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(longest_retransmission_ms(accepted.as_fd()), Some(1500));
    }
}
