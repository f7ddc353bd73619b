//! Closing the connections of a probe that was interrupted.
//!
//! The kernel frees what a connection still holds while it closes it: tens of microseconds for each, half a
//! second for thousands. The report does not wait for that.

use std::thread::Builder;

/// Closes `connections` on a thread of their own; here, where the system refuses one. A process that
/// ends meanwhile leaves the rest to the kernel.
pub(super) fn close_beside(connections: impl Send + 'static) {
    // This thread has to share the table of descriptors, unlike those of `kernel::threads`.
    let _ = Builder::new()
        .name("closing".into())
        .spawn(move || drop(connections));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    /// Takes its time to close: until it is let, or 10 s.
    struct Laggard(Receiver<()>, Arc<AtomicBool>);

    impl Drop for Laggard {
        fn drop(&mut self) {
            let _ = self.0.recv_timeout(Duration::from_secs(10));
            self.1.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn nobody_waits_for_connections_that_take_their_time_to_close() {
        let (let_it, wait) = channel();
        let is_closed = Arc::new(AtomicBool::new(false));
        super::close_beside(Laggard(wait, Arc::clone(&is_closed)));
        assert!(!is_closed.load(Ordering::Relaxed), "it was waited for");
        drop(let_it);
    }
}
