//! How much the kernel may receive for a client before we read it.
//!
//! Owns the rule: the receive buffer of a source follows the window of its
//! destination. Bytes that the destination will not take are not worth
//! receiving. The window of a peer that stops reading shrinks megabytes before
//! our own writes come back short, and by then the bytes are here. A buffer
//! shrinks over several reads, so that the window announced to the peer always
//! fits. Refuses to touch a socket.
//!
//! Measured on loopback, kernel memory of one stalled client:
//!
//! | receive buffer | cold | after fast traffic |
//! | --- | --- | --- |
//! | this rule | 137 KB | 175 KB |
//! | the kernel's own sizing | 0.5 MB | 6 MB |
//!
//! A fixed buffer of 64 KiB bounds memory as well, but doubles the CPU per byte
//! of bulk traffic. A buffer that shrinks at once drops bytes on their way, and
//! the peer waits for 200 ms or more: the rate of one bulk echo client fell to
//! a tenth in every third run.

use crate::engine::network::PeerWindow;
use crate::limits::{
    FEW_CLIENTS, LONG_PATH, RECEIVE_BUFFER_DOUBLINGS, RECEIVE_BUFFER_DOUBLINGS_OF_FEW, WINDOW_CHECK_BYTES,
};

/// A receive buffer is at most this fraction of the peer's window. With a
/// third, a peer that stops reading closes its window faster than the buffer
/// can shrink, and 283 KB stay.
const WINDOW_SHARE: u64 = 6;

/// The change of size that a receive buffer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Resize {
    /// None.
    Keep,
    /// Set this size at once; `None` is the kernel's own sizing.
    Grow(Option<u32>),
    /// Set this size as soon as no bytes are lost by it, and report the outcome
    /// by [`shrunk`](ReceiveBuffer::shrunk).
    Shrink(u32),
}

/// The size that was last chosen for a receive buffer. Before the first choice
/// the kernel sizes it, from 128 KiB on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct ReceiveBuffer {
    /// How often the base is doubled; `None` is the kernel's own sizing.
    doublings: Option<u8>,
    is_shrinking: bool,
    /// How many looks at the window can be skipped.
    looks_to_skip: u8,
}

/// How often a buffer may double while so many clients share the CPU's caches.
const fn most_doublings(clients: usize) -> u8 {
    if clients <= FEW_CLIENTS {
        RECEIVE_BUFFER_DOUBLINGS_OF_FEW
    } else {
        RECEIVE_BUFFER_DOUBLINGS
    }
}

/// The narrowest window for which a buffer of this size is right.
fn narrowest_window_bytes(base: u32, doublings: u8) -> u64 {
    u64::from(base << doublings) * WINDOW_SHARE
}

impl ReceiveBuffer {
    /// Chooses the size for the peer's window, which had `largest_bytes` at most
    /// so far. `base_bytes` is the smallest size; `clients` share the CPU's
    /// caches.
    ///
    /// The size is the largest doubling of the base that is at most a sixth of
    /// the window: 64 to 256 KiB with the default base, up to 1 MiB for few
    /// clients. A long path needs the kernel's own sizing while its window is
    /// open.
    pub(in crate::engine) fn follow(
        &mut self,
        peer: PeerWindow,
        base_bytes: usize,
        clients: usize,
        largest_bytes: u32,
    ) -> Resize {
        let window = peer.window_bytes;
        self.looks_to_skip = 0;
        let base = size(base_bytes);
        let is_closing = window < largest_bytes / 4 || window < base / 2;
        let doublings = if peer.round_trip <= LONG_PATH {
            let fits = |&doublings: &u8| narrowest_window_bytes(base, doublings) <= window.into();
            Some((1..=most_doublings(clients)).rev().find(fits).unwrap_or(0))
        } else {
            is_closing.then_some(0)
        };
        self.turn_to(doublings, base)
    }

    /// Skips looks at the window until enough bytes can have been sent that the
    /// buffer would have to shrink: a receiver does not shrink its window from
    /// the right (RFC 9293, 3.8.6). Call it after [`follow`](Self::follow), with
    /// the same window, if nobody else sends to that peer. A buffer that could
    /// grow waits as long.
    pub(in crate::engine) fn rest(&mut self, peer: PeerWindow, base_bytes: usize) {
        let shrinks_below = match self.doublings {
            Some(doublings @ 1..) if !self.is_shrinking => {
                narrowest_window_bytes(size(base_bytes), doublings)
            }
            _ => return,
        };
        let spare_bytes = u64::from(peer.window_bytes).saturating_sub(shrinks_below);
        self.looks_to_skip = u8::try_from(spare_bytes / WINDOW_CHECK_BYTES).unwrap_or(u8::MAX);
    }

    /// Skips no more looks: another client sends to that peer now, or the source
    /// has another destination.
    pub(in crate::engine) const fn end_rest(&mut self) {
        self.looks_to_skip = 0;
    }

    /// Whether to follow the window now. Asked every [`WINDOW_CHECK_BYTES`].
    pub(in crate::engine) const fn is_look_due(&mut self) -> bool {
        let is_due = self.looks_to_skip == 0;
        self.looks_to_skip = self.looks_to_skip.saturating_sub(1);
        is_due
    }

    fn turn_to(&mut self, doublings: Option<u8>, base: u32) -> Resize {
        let present = std::mem::replace(&mut self.doublings, doublings);
        match doublings {
            _ if doublings == present && !self.is_shrinking => Resize::Keep,
            // The kernel may have chosen a larger size than any of ours.
            Some(doublings) if self.is_shrinking || present.is_none_or(|present| doublings < present) => {
                self.is_shrinking = true;
                Resize::Shrink(base << doublings)
            }
            _ => {
                self.is_shrinking = false;
                Resize::Grow(doublings.map(|doublings| base << doublings))
            }
        }
    }

    /// Reports whether the buffer now has the smaller size. While it has not,
    /// follow the window again before every read.
    pub(in crate::engine) const fn shrunk(&mut self, is_shrunk: bool) {
        self.is_shrinking = !is_shrunk;
    }

    /// Whether the buffer does not have its smaller size yet.
    pub(in crate::engine) const fn is_shrinking(&self) -> bool {
        self.is_shrinking
    }
}

/// The base, small enough for the most doublings.
fn size(base_bytes: usize) -> u32 {
    let largest = u32::MAX >> RECEIVE_BUFFER_DOUBLINGS_OF_FEW;
    u32::try_from(base_bytes).map_or(largest, |bytes| bytes.min(largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BASE: usize = 64 * 1024;
    const MANY: usize = FEW_CLIENTS + 1;
    const KIB: u32 = 1024;
    const LARGEST: u32 = 1024 * KIB;

    const fn near(window_bytes: u32) -> PeerWindow {
        PeerWindow {
            window_bytes,
            round_trip: Duration::from_micros(50),
            is_withdrawn: false,
        }
    }

    const fn far(window_bytes: u32) -> PeerWindow {
        PeerWindow {
            window_bytes,
            round_trip: Duration::from_millis(50),
            is_withdrawn: false,
        }
    }

    /// A buffer that was given this window first, and shrank at once.
    fn after(peer: PeerWindow) -> ReceiveBuffer {
        let mut buffer = ReceiveBuffer::default();
        assert!(matches!(
            buffer.follow(peer, BASE, MANY, LARGEST),
            Resize::Shrink(_)
        ));
        buffer.shrunk(true);
        buffer
    }

    #[test]
    fn the_buffer_grows_with_a_sixth_of_the_window_up_to_two_doublings_of_its_base() {
        for (window, bytes) in [
            (768 * KIB, 128 * KIB),
            (1536 * KIB - 1, 128 * KIB),
            (1536 * KIB, 256 * KIB),
            (u32::MAX, 256 * KIB),
        ] {
            let mut buffer = after(near(0));
            assert_eq!(
                buffer.follow(near(window), BASE, MANY, LARGEST),
                Resize::Grow(Some(bytes)),
                "{window}"
            );
        }
        assert_eq!(
            after(near(0)).follow(near(768 * KIB - 1), BASE, MANY, LARGEST),
            Resize::Keep
        );
    }

    #[test]
    fn the_buffers_of_few_clients_grow_to_four_doublings_and_shrink_when_others_come() {
        let mut buffer = after(near(0));
        let grown = buffer.follow(near(6 * 1024 * KIB), BASE, FEW_CLIENTS, LARGEST);
        assert_eq!(grown, Resize::Grow(Some(1024 * KIB)));
        let crowded = buffer.follow(near(6 * 1024 * KIB), BASE, FEW_CLIENTS + 1, LARGEST);
        assert_eq!(crowded, Resize::Shrink(256 * KIB));
        let mut buffer = after(near(0));
        let grown = buffer.follow(near(3 * 1024 * KIB), BASE, 1, LARGEST);
        assert_eq!(
            grown,
            Resize::Grow(Some(512 * KIB)),
            "a sixth of the window at most"
        );
    }

    /// How many looks are left out before the next one.
    fn skipped(buffer: &mut ReceiveBuffer) -> usize {
        (0..1000)
            .position(|_| buffer.is_look_due())
            .expect("a look that never comes")
    }

    #[test]
    fn no_look_is_left_out_that_could_find_the_window_too_narrow_for_the_buffer() {
        for window in [1536 * KIB, 1537 * KIB, 1600 * KIB, 2 * 1024 * KIB, 4 * 1024 * KIB] {
            let mut buffer = after(near(0));
            let grown = buffer.follow(near(window), BASE, MANY, LARGEST);
            assert_eq!(grown, Resize::Grow(Some(256 * KIB)));
            buffer.rest(near(window), BASE);
            let skipped = skipped(&mut buffer) as u32;
            let still_fits = window - skipped * WINDOW_CHECK_BYTES as u32;
            assert!(still_fits >= 1536 * KIB, "{window}: {skipped} left out");
            assert!(
                still_fits - (WINDOW_CHECK_BYTES as u32) < 1536 * KIB,
                "{window}: only {skipped}"
            );
        }
    }

    #[test]
    fn every_look_is_taken_by_a_buffer_that_shrinks_or_can_only_grow_or_whose_path_is_long() {
        let wide = u32::MAX;
        let mut shrinking = ReceiveBuffer::default();
        let _ = shrinking.follow(near(wide), BASE, MANY, LARGEST);
        shrinking.shrunk(false);
        shrinking.rest(near(wide), BASE);
        let mut smallest = after(near(0));
        let _ = smallest.follow(near(700 * KIB), BASE, MANY, LARGEST);
        smallest.rest(near(700 * KIB), BASE);
        let mut distant = ReceiveBuffer::default();
        let _ = distant.follow(far(wide), BASE, MANY, LARGEST);
        distant.rest(far(wide), BASE);
        for buffer in [&mut shrinking, &mut smallest, &mut distant] {
            assert_eq!(skipped(buffer), 0, "{buffer:?}");
        }
    }

    #[test]
    fn a_window_followed_out_of_turn_ends_the_rest_and_so_does_whoever_joins() {
        let mut buffer = after(near(u32::MAX));
        buffer.rest(near(u32::MAX), BASE);
        let _ = buffer.follow(near(u32::MAX), BASE, MANY, LARGEST);
        assert_eq!(skipped(&mut buffer), 0);
        buffer.rest(near(u32::MAX), BASE);
        buffer.end_rest();
        assert_eq!(skipped(&mut buffer), 0);
        buffer.rest(near(u32::MAX), BASE);
        assert_eq!(skipped(&mut buffer), u8::MAX as usize);
    }

    #[test]
    fn what_the_kernel_sized_may_have_grown_and_has_to_shrink_first() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(
            buffer.follow(near(u32::MAX), BASE, MANY, LARGEST),
            Resize::Shrink(256 * KIB)
        );
    }

    #[test]
    fn a_base_beyond_all_sizes_is_not_doubled_into_a_small_one() {
        for base in [3 << 30, usize::MAX] {
            let mut buffer = ReceiveBuffer::default();
            let Resize::Shrink(bytes) = buffer.follow(near(u32::MAX), base, FEW_CLIENTS, LARGEST) else {
                panic!("it was the kernel's own");
            };
            assert!(bytes >= u32::MAX >> RECEIVE_BUFFER_DOUBLINGS_OF_FEW, "{bytes}");
        }
    }

    #[test]
    fn an_unchanged_size_is_not_set_again() {
        let mut buffer = after(near(100 * KIB));
        assert_eq!(buffer.follow(near(200 * KIB), BASE, MANY, LARGEST), Resize::Keep);
        assert_eq!(buffer.follow(near(0), BASE, MANY, LARGEST), Resize::Keep);
    }

    #[test]
    fn a_peer_that_stops_reading_shrinks_the_buffer_again() {
        let mut buffer = after(near(3072 * KIB));
        assert_eq!(
            buffer.follow(near(1200 * KIB), BASE, MANY, LARGEST),
            Resize::Shrink(128 * KIB)
        );
        buffer.shrunk(true);
        assert_eq!(
            buffer.follow(near(10 * KIB), BASE, MANY, LARGEST),
            Resize::Shrink(64 * KIB)
        );
    }

    #[test]
    fn shrinking_is_tried_until_it_is_done_and_so_is_growing_meanwhile() {
        let mut buffer = after(near(3072 * KIB));
        assert_eq!(
            buffer.follow(near(0), BASE, MANY, LARGEST),
            Resize::Shrink(64 * KIB)
        );
        buffer.shrunk(false);
        assert!(buffer.is_shrinking());
        assert_eq!(
            buffer.follow(near(0), BASE, MANY, LARGEST),
            Resize::Shrink(64 * KIB)
        );
        // What was promised when it was larger still may not fit this size.
        assert_eq!(
            buffer.follow(near(768 * KIB), BASE, MANY, LARGEST),
            Resize::Shrink(128 * KIB)
        );
        buffer.shrunk(true);
        assert!(!buffer.is_shrinking());
        assert_eq!(buffer.follow(near(768 * KIB), BASE, MANY, LARGEST), Resize::Keep);
        let grown = buffer.follow(near(3072 * KIB), BASE, MANY, LARGEST);
        assert_eq!(grown, Resize::Grow(Some(256 * KIB)));
    }

    #[test]
    fn a_long_path_is_left_to_the_kernel_until_its_window_closes() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(buffer.follow(far(1024 * KIB), BASE, MANY, LARGEST), Resize::Keep);
        assert_eq!(
            buffer.follow(far(100 * KIB), BASE, MANY, LARGEST),
            Resize::Shrink(64 * KIB)
        );
        buffer.shrunk(true);
        assert_eq!(
            buffer.follow(far(1024 * KIB), BASE, MANY, LARGEST),
            Resize::Grow(None)
        );
    }
}
