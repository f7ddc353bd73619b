//! A kernel pipe through which bytes go from socket to socket without a copy.
//!
//! Owns the pipe, which is empty between two moves: what the second socket
//! refuses is taken out again at once. One pipe therefore serves all clients,
//! and no bytes wait where no queue counts them. Refuses to choose the sockets.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::engine::Spliced;
use crate::limits::SPLICE_PIPE_BYTES;

/// A pipe that is empty between two moves.
#[derive(Debug)]
pub(crate) struct SplicePipe {
    entrance: OwnedFd,
    exit: OwnedFd,
}

impl SplicePipe {
    /// Opens a pipe.
    ///
    /// # Errors
    ///
    /// Those of pipe(2), such as no descriptor left.
    pub(crate) fn open() -> io::Result<Self> {
        let (exit, entrance) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // If this fails, the pipe moves less at a time.
        let _ = fcntl_setpipe_size(&entrance, SPLICE_PIPE_BYTES);
        Ok(Self { entrance, exit })
    }

    /// Moves at most as much as `rest` has room for, and puts what `to` refuses
    /// there.
    ///
    /// # Errors
    ///
    /// The error of reading `from`; nothing was moved.
    pub(crate) fn carry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        rest: &mut [u8],
    ) -> io::Result<Spliced> {
        let taken_bytes = splice(from, None, &self.entrance, None, rest.len(), FLAGS)?;
        let mut sent_bytes = 0;
        let mut sent = Ok(());
        while sent.is_ok() && sent_bytes < taken_bytes {
            match splice(&self.exit, None, to, None, taken_bytes - sent_bytes, FLAGS) {
                Ok(0) => sent = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent_bytes += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => sent = Err(error.into()),
            }
        }
        let emptied = self.empty(&mut rest[..taken_bytes - sent_bytes]);
        Ok(Spliced {
            taken_bytes,
            sent: sent.and(emptied).map(|()| sent_bytes),
        })
    }

    fn empty(&mut self, rest: &mut [u8]) -> io::Result<()> {
        let mut place = 0;
        while place < rest.len() {
            match rustix::io::read(&self.exit, &mut rest[place..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => place += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // These bytes must not reach another client.
                    *self = Self::open()?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// Two ends of a connection; the first does not block.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn what_a_full_socket_refuses_comes_back_in_order_and_the_pipe_is_empty() {
        let (source, mut client) = connection();
        let (mut destination, mut upstream) = connection();
        let mut filling_bytes = 0;
        while let Ok(count) = destination.write(&[0; 64 * 1024]) {
            filling_bytes += count;
        }
        let sent: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
        client.write_all(&sent).unwrap();

        let mut pipe = SplicePipe::open().unwrap();
        let mut rest = vec![0; 64 * 1024];
        let (mut passed_bytes, mut kept) = (0, Vec::new());
        while passed_bytes + kept.len() < sent.len() {
            match pipe.carry(source.as_fd(), destination.as_fd(), &mut rest) {
                Ok(spliced) => {
                    let sent_bytes = spliced.sent.unwrap();
                    passed_bytes += sent_bytes;
                    kept.extend_from_slice(&rest[..spliced.taken_bytes - sent_bytes]);
                    assert!(kept.is_empty() || spliced.taken_bytes > sent_bytes);
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(!kept.is_empty(), "a full socket refuses something");
        drop(destination);
        let mut received = Vec::new();
        upstream.read_to_end(&mut received).unwrap();
        let received = [&received[filling_bytes..], &kept].concat();
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    }

    #[test]
    fn nothing_to_read_and_an_end_are_told_apart() {
        let (source, client) = connection();
        let (destination, _upstream) = connection();
        let mut pipe = SplicePipe::open().unwrap();
        let mut carry = || pipe.carry(source.as_fd(), destination.as_fd(), &mut [0; 1024]);
        assert_eq!(carry().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(client);
        let end = loop {
            match carry() {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                Ok(spliced) => break spliced.taken_bytes,
            }
        };
        assert_eq!(end, 0);
    }

    #[test]
    fn a_destination_that_is_gone_is_its_own_trouble() {
        let (source, mut client) = connection();
        let (destination, upstream) = connection();
        socket2::SockRef::from(&upstream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(upstream);
        client.write_all(&[1; 1000]).unwrap();
        let mut pipe = SplicePipe::open().unwrap();
        let mut rest = [0; 4096];
        let spliced = loop {
            match pipe.carry(source.as_fd(), destination.as_fd(), &mut rest) {
                Ok(spliced) => break spliced,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(spliced.taken_bytes, 1000);
        assert!(spliced.sent.is_err());
        assert_eq!(rest[..1000], [1; 1000], "and the pipe is empty");
    }
}
