//! A thread with its own table of descriptors.
//!
//! While threads share a table, the kernel counts the users of a file at every
//! system call: half a percent of the cost of a message in the prober, at 50
//! connections of 64 bytes. Its threads that only watch therefore share no
//! table with the busy one. Refuses to share anything else than memory.

use std::io;
use std::os::fd::RawFd;
use std::thread::{Builder, JoinHandle};

/// The first descriptor after the standard streams.
const FIRST_OF_OURS: RawFd = 3;

/// Starts a thread that shares no descriptors. `work` may use no file or socket
/// of another thread, and none of its own may leave it.
///
/// # Errors
///
/// The system refuses a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(move || {
        take();
        work()
    })
}

/// Gives the calling thread a table with only the standard streams in it.
/// Before Linux 5.9 the table stays shared.
#[expect(
    unsafe_code,
    reason = "no crate in use offers close_range(2); libc's own needs a newer libc than the rest"
)]
fn take() {
    // SAFETY: the call takes three integers. The thread has no descriptor of its
    // own yet, and the tables of the other threads stay as they are.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_OF_OURS,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::sync::mpsc::channel;

    #[test]
    fn what_one_thread_has_open_the_other_neither_sees_nor_keeps_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        let number = ours.as_raw_fd();
        let (looked, look) = channel();
        let (end, ended) = channel::<()>();
        let thread = super::spawn("looker", move || {
            let entry = format!("/proc/thread-self/fd/{number}");
            looked.send(Path::new(&entry).exists()).unwrap();
            let _ = ended.recv();
        })
        .unwrap();
        assert!(!look.recv().unwrap(), "the other thread has it open");
        drop(ours);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "nobody else keeps it open");
        drop(end);
        thread.join().unwrap();
    }
}
