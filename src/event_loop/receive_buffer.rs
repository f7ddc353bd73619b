//! How much the kernel may receive for a client before we read it.
//!
//! Owns the rule: the receive buffer of a source follows the window of the
//! peer that its bytes go to, for what that peer will not take is not worth
//! taking in. A peer that stops reading shows a shrinking window megabytes
//! before our own writes come up short; when they do, it is too late, as the
//! bytes are here already. A buffer shrinks only by as much as was not
//! promised to the peer, over several reads. Refuses to touch a socket.
//!
//! Measured on loopback, per stalled client: 147 KB cold and 170 KB after fast
//! traffic, where the kernel's own sizing leads to 0.5 and 6 MB; a fixed 64 KiB
//! bounds as well, but doubles the CPU per byte of bulk traffic. A buffer that
//! shrinks at once throws away what is on its way, and the peer then waits for
//! 200 ms and more: bulk echo of one client fell to a tenth in every third run.

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

/// A receive buffer has at most one part in so many of the peer's window.
const WINDOW_SHARE: u32 = 6;

/// What is to be done to a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// It is as it should be.
    Keep,
    /// Give it this size at once; `None` is the kernel's own sizing.
    Grow(Option<u32>),
    /// Give it this size as soon as nothing is lost by it, and say
    /// [`shrunk`](ReceiveBuffer::shrunk).
    Shrink(u32),
}

/// The size that a receive buffer was last given; the kernel's own sizing
/// until then, which begins at 128 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceiveBuffer {
    /// 0: sized by the kernel.
    bytes: u32,
    /// The widest window seen, in bytes.
    widest: u32,
    is_shrinking: bool,
}

impl ReceiveBuffer {
    /// Follows the window. `base_bytes` is the smallest size.
    ///
    /// Between 64 KiB and 256 KiB (with the default base) it is the largest
    /// doubling of the base that is at most a sixth of the window: with a
    /// third, a peer that stops reading closes its window faster than the
    /// buffer can shrink, and 283 KB stay. A long path needs what the kernel
    /// gives it, as long as its window is open at all.
    pub(crate) fn follow(&mut self, peer: PeerWindow, base_bytes: usize) -> Resize {
        let window = peer.window_bytes;
        self.widest = self.widest.max(window);
        let base = u32::try_from(base_bytes).unwrap_or(u32::MAX / RECEIVE_BUFFER_CEILING_BUFFERS);
        let closing = window < self.widest / 4 || window < base / 2;
        let bytes = if peer.round_trip <= LONG_PATH {
            let ceiling = base.saturating_mul(RECEIVE_BUFFER_CEILING_BUFFERS);
            let mut bytes = base;
            while bytes < ceiling && bytes.saturating_mul(2) <= window / WINDOW_SHARE {
                bytes = bytes.saturating_mul(2);
            }
            bytes
        } else if closing {
            base
        } else {
            0
        };
        self.turn_to(bytes)
    }

    fn turn_to(&mut self, bytes: u32) -> Resize {
        if bytes == self.bytes && !self.is_shrinking {
            return Resize::Keep;
        }
        let sized_by_kernel = self.bytes == 0;
        if bytes != 0 && (bytes < self.bytes || sized_by_kernel) {
            return Resize::Shrink(bytes);
        }
        self.bytes = bytes;
        self.is_shrinking = false;
        Resize::Grow((bytes != 0).then_some(bytes))
    }

    /// Notes whether the buffer now has the smaller size. As long as it has
    /// not, follow the window again before every read.
    pub(crate) const fn shrunk(&mut self, bytes: u32, is_shrunk: bool) {
        self.is_shrinking = !is_shrunk;
        if is_shrunk {
            self.bytes = bytes;
        }
    }

    /// Whether it is on the way to a smaller size.
    pub(crate) const fn is_shrinking(&self) -> bool {
        self.is_shrinking
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

    /// A buffer that was given this window first, and shrank at once.
    fn after(peer: PeerWindow) -> ReceiveBuffer {
        let mut buffer = ReceiveBuffer::default();
        if let Resize::Shrink(bytes) = buffer.follow(peer, BASE) {
            buffer.shrunk(bytes, true);
        }
        buffer
    }

    #[test]
    fn the_buffer_grows_with_a_sixth_of_the_window_up_to_four_times_its_base() {
        for (window, bytes) in [
            (768 * KIB, 128 * KIB),
            (1536 * KIB - 1, 128 * KIB),
            (1536 * KIB, 256 * KIB),
            (u32::MAX, 256 * KIB),
        ] {
            let mut buffer = after(near(0));
            assert_eq!(
                buffer.follow(near(window), BASE),
                Resize::Grow(Some(bytes)),
                "{window}"
            );
        }
        assert_eq!(after(near(0)).follow(near(768 * KIB - 1), BASE), Resize::Keep);
    }

    #[test]
    fn what_the_kernel_sized_may_have_grown_and_has_to_shrink_first() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(buffer.follow(near(u32::MAX), BASE), Resize::Shrink(256 * KIB));
    }

    #[test]
    fn an_unchanged_size_is_not_set_again() {
        let mut buffer = after(near(100 * KIB));
        assert_eq!(buffer.follow(near(200 * KIB), BASE), Resize::Keep);
        assert_eq!(buffer.follow(near(0), BASE), Resize::Keep);
    }

    #[test]
    fn a_peer_that_stops_reading_shrinks_the_buffer_again() {
        let mut buffer = after(near(3072 * KIB));
        assert_eq!(buffer.follow(near(1200 * KIB), BASE), Resize::Shrink(128 * KIB));
        buffer.shrunk(128 * KIB, true);
        assert_eq!(buffer.follow(near(10 * KIB), BASE), Resize::Shrink(64 * KIB));
    }

    #[test]
    fn shrinking_is_tried_until_it_is_done_or_no_longer_wanted() {
        let mut buffer = after(near(3072 * KIB));
        assert_eq!(buffer.follow(near(0), BASE), Resize::Shrink(64 * KIB));
        buffer.shrunk(64 * KIB, false);
        assert!(buffer.is_shrinking());
        assert_eq!(buffer.follow(near(0), BASE), Resize::Shrink(64 * KIB));
        assert_eq!(
            buffer.follow(near(3072 * KIB), BASE),
            Resize::Grow(Some(256 * KIB))
        );
        assert!(!buffer.is_shrinking());
        assert_eq!(buffer.follow(near(3072 * KIB), BASE), Resize::Keep);
    }

    #[test]
    fn a_long_path_is_left_to_the_kernel_until_its_window_closes() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(buffer.follow(far(1024 * KIB), BASE), Resize::Keep);
        assert_eq!(buffer.follow(far(100 * KIB), BASE), Resize::Shrink(64 * KIB));
        buffer.shrunk(64 * KIB, true);
        assert_eq!(buffer.follow(far(1024 * KIB), BASE), Resize::Grow(None));
    }
}
